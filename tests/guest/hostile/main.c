/*
 * Writes random values of every size to every port and register of the in-hypervisor devices, a bounded number of times, and
 * reads them; then sets everything up again and sees that it still works. What would end this guest by its own wish is left
 * out: resets, power-off, INIT to itself; so are NMIs, since a timer could send them faster than they are taken.
 */
#include "guest.h"

static uint64_t counts[4];

static const struct {
    uint16_t first, last;
} ports[] = {{0x20, 0x21}, {0xa0, 0xa1}, {0x4d0, 0x4d1}, {0x40, 0x43}, {0x61, 0x61}, {0x70, 0x73}, {0x600, 0x60f}, {0x3f8, 0x3ff}, {0xcf8, 0xcff}};
#define PORTS (sizeof(ports) / sizeof(ports[0]))

static const struct {
    uintptr_t base;
    unsigned size;
} pages[] = {{LAPIC, 0x1000}, {IOAPIC, 0x100}, {HPET, 0x400}};

/* Numbers with few or many bits, and ones at the edges. */
static uint64_t value(void)
{
    static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, 1ull << 63};
    uint64_t v = random64();
    switch (random32() % 4) {
    case 0: return edges[random32() % 11];
    case 1: return v & random64() & random64();
    case 2: return v >> random32() % 64;
    default: return v;
    }
}

/* Delivery modes NMI, INIT and SIPI have bit 10 set in every register that holds one. */
static uint64_t harmless(uint64_t v)
{
    return v & ~0x0000040000000400ull;
}

static void touch_port(void)
{
    unsigned p = random32() % PORTS, n = ports[p].last - ports[p].first + 1u, size = random32() % 3;
    uint16_t port = (uint16_t)(ports[p].first + random32() % n);
    uint64_t v = value();
    bool control = ports[p].first == 0x600 && port < 0x606 && port + (1 << size) > 0x604;
    if (random32() % 3 == 0) {
        counts[0] += size == 0 ? inb(port) : size == 1 ? inw(port) : inl(port);
        return;
    }
    if (control || (port <= 0xcf9 && port + (1 << size) > 0xcf9)) /* power-off, reset */
        return;
    if (port == 0x3f8) /* what is sent shows on the console: keep it readable */
        v = '\n';
    counts[1]++;
    if (size == 0)
        outb(port, (uint8_t)v);
    else if (size == 1)
        outw(port, (uint16_t)v);
    else
        outl(port, (uint32_t)v);
}

static void touch_memory(void)
{
    unsigned p = random32() % 3, size = random32() % 4;
    uintptr_t a = pages[p].base + random32() % (pages[p].size - 8);
    uint64_t v = harmless(value());
    if (random32() % 4)
        a &= ~(uintptr_t)((1u << size) - 1);
    if (p == 0 && random32() % 4)
        a &= ~15ul;
    if (random32() % 3 == 0) {
        counts[2] += size == 0 ? *(volatile uint8_t *)a : size == 1 ? *(volatile uint16_t *)a : size == 2 ? *(volatile uint32_t *)a : (uint32_t) * (volatile uint64_t *)a;
        return;
    }
    counts[3]++;
    switch (size) {
    case 0: *(volatile uint8_t *)a = (uint8_t)(v & ~4u); break; /* a byte could be the delivery mode's */
    case 1: *(volatile uint16_t *)a = (uint16_t)(v & ~4u); break;
    case 2: *(volatile uint32_t *)a = (uint32_t)v; break;
    default: *(volatile uint64_t *)a = v; break;
    }
}

static unsigned faults;
static void touch_msr(void)
{
    uint64_t v;
    uint32_t msr = 0x800 + random32() % 0x100;
    if (!try_rdmsr(msr, &v))
        faults++;
    if (!try_wrmsr(msr, harmless(value())))
        faults++;
}

static void drop(struct frame *f)
{
    (void)f;
    apic_write(APIC_EOI, 0);
    pic_eoi(0);
}

/* Everything as a system would set it up, then an interrupt from each. */
static void works_again(void)
{
    apic_set_x2(false);
    hpet_write(0x10, 0);
    for (unsigned n = 0; n < 8; n++)
        hpet_write(0x100 + 0x20 * n, 0);
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    outb(0x70, 11);
    outb(0x71, 2);
    outb(0x3f8 + 3, 3);
    outb(0x3f8 + 4, 8);
    irq4_set(false);
    pit_mode(0, 0, 2);
    outb(0x61, 0);
    outw(pm.event + 2, 0);
    pic_init();
    for (unsigned v = 0x20; v < 0x100; v++)
        on_vector(v, drop);
    run_us(1000);
    count_vector(0x51, EOI_LAPIC);
    apic_icr(0, 0x40000 | 0x51);
    open_interrupts();
    check(hits[0x51] == 1, "hostile: afterwards a self-IPI comes", "%u", hits[0x51]);
    ioapic_set(4, 0x51);
    irq4_set(true);
    open_interrupts();
    check(hits[0x51] == 2, "hostile: and an I/O APIC pin's", "%u", hits[0x51]);
    irq4_set(false);
    ioapic_set(4, IO_MASKED);
    ioapic_set(2, 0x51);
    pit_mode(0, 2, 1193);
    check(wait_hits(0x51, 20, 2000), "hostile: and the PIT's", "%u", hits[0x51]);
    pit_mode(0, 0, 2);
}

void guest_main(void)
{
    unsigned rounds = (unsigned)option_number("rounds", 20000);
    if (differs_on_qemu("hostile", "PCI configuration would take the machine apart"))
        return;
    on_vector(2, drop);
    for (unsigned i = 0; i < rounds; i++) {
        touch_port();
        touch_memory();
        if (i % 4096 == 4095)
            print("%u rounds\n", i + 1);
    }
    check(true, "hostile: ports and memory", "%s", "");
    apic_set_x2(true);
    for (unsigned i = 0; i < rounds / 4; i++)
        touch_msr();
    check(faults > rounds / 16, "hostile: MSRs, and many fault", "%u", faults);
    print("%lu port writes, %lu memory writes, %u MSR faults\n", counts[1], counts[3], faults);
    works_again();
}
