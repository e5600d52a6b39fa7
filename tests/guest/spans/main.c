/*
 * Asks the hypervisor for what takes it long: strings into its own devices and the VGA window, device memory by instructions
 * of many accesses, broadcasts, storms of levels and of timers. The hypervisor measures how long each exit keeps interrupts
 * off; who runs this guest looks at its table.
 */
#include "guest.h"

#define VECTOR 0x61
#define HPET_PIN 20
#define VGA 0xa0000ul
#define ROUNDS 20u
enum { MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC_ICR = 0x830, MSR_X2APIC_SELF_IPI = 0x83f };

static uint8_t buffer[8192] __attribute__((aligned(4096)));

static void rep_outsb(uint16_t port, const void *from, unsigned n)
{
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}

static void rep_insb(uint16_t port, void *to, unsigned n)
{
    __asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

static void rep_movsb(const void *from, void *to, unsigned n)
{
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void rep_stosq(void *to, uint64_t value, unsigned n)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

static void strings(void)
{
    rep_insb(0x4d0, buffer, 512);
    rep_insb(0x40, buffer + 100, 512);
    rep_insb(0x71, buffer + 4000, 1000);
    rep_insb(0x608, buffer, 512);
    memset(buffer, 0x40, sizeof(buffer));
    rep_outsb(0x80, buffer, 512);
    rep_outsb(0x4d0, buffer + 4096, 0);
    rep_outsb(0x43, buffer, 1000); /* latches counter 1 */
    rep_movsb((const void *)(HPET + 0xf0), buffer, 8);
    rep_movsb((const void *)(VGA), buffer, 1024);
    rep_movsb(buffer, (void *)VGA, 1024);
    rep_stosq((void *)VGA, 0x0720072007200720, 1024);
    rep_movsb(buffer, (void *)(VGA + 0x20000 - 4096), 512);
}

static void device_memory(void)
{
    volatile uint64_t *counter = (volatile uint64_t *)(HPET + 0xf0);

    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("lock incl %0" : "+m"(*(volatile uint32_t *)(LAPIC + APIC_TPR)));
        __asm__ volatile("addl $0, %0" : "+m"(*(volatile uint32_t *)(IOAPIC)));
        (void)*counter;
        ioapic_write(0x10 + 2 * (i % 24), IO_MASKED);
        apic_write(APIC_LDR, i << 24);
        apic_write(APIC_DFR, i & 1 ? 0x0fffffff : 0xffffffff);
        apic_write(APIC_SVR, i & 1 ? 0x1ff : 0xff);
    }
    apic_enable();
}

static void take(void (*cause)(void))
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        sti();
        cause();
        cli();
        open_interrupts();
    }
}

static void self_ipi(void) { wrmsr(MSR_X2APIC_SELF_IPI, VECTOR); }
static void to_all(void) { wrmsr(MSR_X2APIC_ICR, 0x80000 | 0x4000 | VECTOR); }
static void to_broadcast(void) { wrmsr(MSR_X2APIC_ICR, 0xffffffffull << 32 | 0x4000 | VECTOR); }
static void deadline_past(void) { wrmsr(MSR_TSC_DEADLINE, 1); }
static void deadline_soon(void)
{
    cli(); /* or it comes before the HLT */
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 5000);
    halt();
}

/* Every timer that can tick at once, faster than its ticks are taken. */
static void timer_storm(void)
{
    uint64_t until;

    pic_init();
    count_vector(PIC_BASE, EOI_PIC);
    count_vector(PIC_BASE + 8, EOI_PIC);
    pic_mask(0xfefa);
    apic_write(APIC_LVT_LINT0, 0x700);
    pit_mode(0, 2, 120);
    cmos_write(0xa, 0x23);
    cmos_write(0xb, 0x42);
    for (unsigned t = 0; t < 3; t++) {
        ioapic_set(HPET_PIN + t, VECTOR + 1 + t);
        count_vector(VECTOR + 1 + t, EOI_LAPIC);
        hpet_write(0x100 + 0x20 * t, (uint64_t)(HPET_PIN + t) << 9 | 0x4c);
        hpet_write(0x108 + 0x20 * t, (hpet_read(0xf0) + 2000) & 0xffffffff);
        hpet_write(0x108 + 0x20 * t, 1432);
    }
    hpet_write(0x10, 1);
    apic_write(APIC_LVT_TIMER, 0x20000 | VECTOR);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_TMICT, 20000);
    for (until = rdtsc() + us(20000); rdtsc() < until; open_interrupts())
        cmos_read(0xc);
    apic_write(APIC_TMICT, 0);
    for (unsigned t = 0; t < 3; t++)
        hpet_write(0x100 + 0x20 * t, 0);
    cmos_write(0xb, 2);
    pit_mode(0, 0, 1);
    pic_mask(0xffff);
    open_interrupts();
}

/* A level that its handler does not calm. */
static void level_storm(void)
{
    ioapic_set(4, IO_LEVEL | VECTOR);
    irq4_set(true);
    run_us(2000);
    irq4_set(false);
    ioapic_set(4, IO_MASKED);
}

static void registers(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t cr4, cr0;

        __asm__ volatile("mov %%cr4, %0; mov %0, %%cr4" : "=r"(cr4));
        __asm__ volatile("mov %%cr0, %0; mov %0, %%cr0" : "=r"(cr0));
        __asm__ volatile("mov %0, %%cr8" : : "r"((uint64_t)(i & 15)));
        __asm__ volatile("mov %0, %%cr8" : : "r"(0ull));
        __asm__ volatile("wbinvd");
        cpuid(i, 0);
        cpuid(0x80000000 + i, 0);
        wrmsr(0x1b, rdmsr(0x1b));
        wrmsr(0x277, rdmsr(0x277));
    }
}

void guest_main(void)
{
    apic_enable();
    count_vector(VECTOR, EOI_LAPIC);
    registers();
    strings();
    device_memory();
    level_storm();
    timer_storm();
    check(hits[PIC_BASE] > 1 && hits[VECTOR + 1] > 1, "timers stormed", "%u of the PIT, %u of the HPET", hits[PIC_BASE], hits[VECTOR + 1]);
    apic_set_x2(true);
    hits[VECTOR] = 0;
    take(self_ipi);
    take(to_all);
    take(to_broadcast);
    check(hits[VECTOR] == 3 * ROUNDS, "IPIs", "%u", hits[VECTOR]);
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    take(deadline_past);
    take(deadline_soon);
    check(hits[VECTOR] == 5 * ROUNDS, "deadlines", "%u", hits[VECTOR]);
}
