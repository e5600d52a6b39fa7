#include "guest.h"

#define MSR_APIC_BASE 0x1bu
#define X2APIC_ENABLE (1u << 10)

bool apic_is_x2(void)
{
    return rdmsr(MSR_APIC_BASE) & X2APIC_ENABLE;
}

uint32_t apic_read(unsigned reg)
{
    return apic_is_x2() ? (uint32_t)rdmsr(0x800 + reg / 16) : mmio_read(LAPIC + reg);
}

void apic_write(unsigned reg, uint32_t v)
{
    if (apic_is_x2())
        wrmsr(0x800 + reg / 16, v);
    else
        mmio_write(LAPIC + reg, v);
}

bool apic_bit(unsigned base, unsigned vector)
{
    return apic_read(base + vector / 32 * 16) >> vector % 32 & 1;
}

void apic_icr(uint32_t dest, uint32_t low)
{
    if (apic_is_x2()) {
        wrmsr(0x830, (uint64_t)dest << 32 | low);
        return;
    }
    mmio_write(LAPIC + APIC_ICR2, dest << 24);
    mmio_write(LAPIC + APIC_ICR, low);
}

void place_start(const char *code, const char *end)
{
    memcpy(at(START), code, (size_t)(end - code));
}

void start_cpu(unsigned id)
{
    apic_icr(id, ICR_INIT);
    apic_icr(id, ICR_SIPI);
}

/* The way from x2APIC back to xAPIC leads through "disabled"; that resets every register. */
void apic_set_x2(bool on)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) & ~0xc00ull;
    if (apic_is_x2() && !on)
        wrmsr(MSR_APIC_BASE, base);
    wrmsr(MSR_APIC_BASE, base | 0x800);
    if (on)
        wrmsr(MSR_APIC_BASE, base | 0xc00);
    apic_enable();
}

void apic_enable(void)
{
    static const uint16_t lvts[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR, APIC_LVT_PMC, APIC_LVT_THERMAL};
    apic_write(APIC_SVR, 0x1ff);
    for (unsigned i = 0; i < sizeof(lvts) / 2; i++)
        apic_write(lvts[i], APIC_MASKED | 0xfe);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_TMICT, 0);
}

uint32_t ioapic_read(unsigned reg)
{
    mmio_write(IOAPIC, reg);
    return mmio_read(IOAPIC + 0x10);
}

void ioapic_write(unsigned reg, uint32_t v)
{
    mmio_write(IOAPIC, reg);
    mmio_write(IOAPIC + 0x10, v);
}

uint64_t ioapic_entry(unsigned pin)
{
    return ioapic_read(0x10 + 2 * pin) | (uint64_t)ioapic_read(0x11 + 2 * pin) << 32;
}

void ioapic_set(unsigned pin, uint64_t entry)
{
    ioapic_write(0x10 + 2 * pin, IO_MASKED);
    ioapic_write(0x11 + 2 * pin, (uint32_t)(entry >> 32));
    ioapic_write(0x10 + 2 * pin, (uint32_t)entry);
}
