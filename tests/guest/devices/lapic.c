/* The local APIC: registers, priorities, self-IPIs, errors, timer. Everything runs in xAPIC and again in x2APIC mode. */
#include "devices.h"

#define SELF 0x40000u
#define MSR_TSC_DEADLINE 0x6e0u

static const char *mode;

/* Names carry the mode. */
static const char *named(const char *what)
{
    static char name[4][96];
    static unsigned turn;
    char *to = name[turn++ % 4];
    size_t n = strlen(mode), m = strlen(what);
    memcpy(to, mode, n);
    memcpy(to + n, what, m + 1);
    return to;
}

static void test_registers(void)
{
    unsigned version = apic_read(APIC_VERSION);
    check((version & 0xff) >= 0x10 && (version & 0xff) <= 0x1f && (version >> 16 & 0xff) >= 4, named("version and LVT count"), "0x%x", version);
    equal(named("id 0"), apic_read(APIC_ID), 0);
    apic_write(APIC_TPR, 0x53);
    equal(named("TPR reads back"), apic_read(APIC_TPR), 0x53);
    equal(named("PPR follows TPR"), apic_read(APIC_PPR), 0x53);
    uint64_t cr8;
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    equal(named("CR8 is the upper half of TPR"), cr8, 5);
    __asm__ volatile("mov %0, %%cr8" : : "r"(7ull));
    equal(named("writing CR8 writes TPR"), apic_read(APIC_TPR), 0x70);
    apic_write(APIC_TPR, 0);
    equal(named("SVR reads back"), apic_read(APIC_SVR) & 0x1ff, 0x1ff);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x77);
    equal(named("an LVT reads back"), apic_read(APIC_LVT_TIMER), APIC_MASKED | 0x77);
}

static void test_self_ipi(void)
{
    count_vector(0x51, EOI_LAPIC);
    count_vector(0x91, EOI_LAPIC);
    reset_hits();
    apic_icr(0, SELF | 0x51);
    check(apic_bit(APIC_IRR, 0x51) && !apic_bit(APIC_ISR, 0x51), named("a self-IPI waits in IRR"), "it does not");
    open_interrupts();
    equal(named("a self-IPI comes"), hits[0x51], 1);
    check(!apic_bit(APIC_IRR, 0x51) && !apic_bit(APIC_ISR, 0x51), named("and is gone after EOI"), "it is not");
    reset_hits();
    apic_icr(0, SELF | 0x51);
    apic_icr(0, SELF | 0x91);
    apic_icr(0, SELF | 0x51);
    open_interrupts();
    open_interrupts();
    check(order_count == 2 && order[0] == 0x91 && order[1] == 0x51, named("the higher vector comes first, twice posted is once"),
          "%u interrupts, first 0x%x", order_count, order[0]);
    reset_hits();
    apic_icr(0, 0x51); /* physical, to our id */
    open_interrupts();
    equal(named("an IPI to our own id comes"), hits[0x51], 1);
    apic_icr(0, 0x80000 | 0x91); /* all including self */
    open_interrupts();
    equal(named("an IPI to all comes"), hits[0x91], 1);
}

static void test_priority(void)
{
    count_vector(0x51, EOI_LAPIC);
    count_vector(0x91, EOI_NONE);
    reset_hits();
    apic_write(APIC_TPR, 0x50);
    apic_icr(0, SELF | 0x51);
    open_interrupts();
    equal(named("TPR holds its own class back"), hits[0x51], 0);
    apic_write(APIC_TPR, 0x40);
    open_interrupts();
    equal(named("a lower TPR lets it in"), hits[0x51], 1);
    apic_icr(0, SELF | 0x91);
    open_interrupts();
    check(hits[0x91] == 1 && apic_bit(APIC_ISR, 0x91), named("in service until EOI"), "not in ISR");
    equal(named("PPR is the class in service"), apic_read(APIC_PPR), 0x90);
    apic_icr(0, SELF | 0x51);
    open_interrupts();
    equal(named("a lower vector waits for EOI"), hits[0x51], 1);
    apic_write(APIC_EOI, 0);
    open_interrupts();
    equal(named("and comes after it"), hits[0x51], 2);
    apic_write(APIC_TPR, 0);
}

static void test_cr8(void)
{
    count_vector(0x51, EOI_LAPIC);
    reset_hits();
    __asm__ volatile("mov %0, %%cr8" : : "r"(15ull));
    apic_icr(0, SELF | 0x51);
    open_interrupts();
    equal(named("CR8 15 holds everything back"), hits[0x51], 0);
    sti();
    __asm__ volatile("mov %0, %%cr8\n\tnop\n\tnop" : : "r"(0ull) : "memory");
    cli();
    equal(named("CR8 0 lets it in at once"), hits[0x51], 1);
}

static void test_errors(void)
{
    if (differs_on_qemu(named("errors"), "illegal vectors are delivered"))
        return;
    count_vector(0x61, EOI_LAPIC);
    reset_hits();
    apic_write(APIC_ESR, 0);
    apic_write(APIC_LVT_ERROR, 0x61);
    apic_icr(0, SELF | 0x05); /* illegal vector */
    open_interrupts();
    apic_write(APIC_ESR, 0);
    uint32_t esr = apic_read(APIC_ESR);
    check(esr & 0x20, named("sending an illegal vector is an error"), "ESR 0x%x", esr);
    equal(named("an error interrupts"), hits[0x61], 1);
    apic_write(APIC_ESR, 0);
    equal(named("ESR clears"), apic_read(APIC_ESR), 0);
    apic_write(APIC_LVT_ERROR, APIC_MASKED | 0x61);
}

static unsigned nmis;
static void on_nmi(struct frame *f)
{
    (void)f;
    nmis++;
}

static void test_nmi(void)
{
    nmis = 0;
    on_vector(2, on_nmi);
    apic_icr(0, 0x4400 | 0); /* physical, NMI, to ourselves */
    for (unsigned i = 0; i < 100000 && !nmis; i++)
        pause();
    equal(named("an NMI comes with interrupts off"), nmis, 1);
    on_vector(2, NULL);
}

static uint64_t read_tmcct(void)
{
    return apic_read(APIC_TMCCT);
}

/* Timer rate: counts per TSC tick are taken from the timer itself, then held against interrupts. */
static void test_timer_counts(void)
{
    static const uint8_t divide[] = {0xb, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa};
    uint64_t rate1 = 0;
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x71);
    for (unsigned i = 0; i < 8; i++) {
        apic_write(APIC_TDCR, divide[i]);
        apic_write(APIC_TMICT, 0xffffffff);
        struct sample a = sample(read_tmcct), b;
        delay_us(5000);
        b = sample(read_tmcct);
        uint64_t rate = (a.count - b.count) * 1000000 / (b.tsc - a.tsc);
        if (!i)
            rate1 = rate;
        uint64_t want = rate1 >> i;
        check(near(rate, want, strict ? 5000 : 100000, 2), named("the divider scales the count"), "divide by %u: %lu counts per million ticks, not %lu",
              1u << i, rate, want);
    }
    apic_write(APIC_TMICT, 0);
    equal(named("TMICT 0 stops it"), apic_read(APIC_TMCCT), 0);
    apic_write(APIC_TDCR, 0xb);
}

/* Ticks of the timer at divide 1 in a millisecond. */
static uint64_t timer_per_ms(void)
{
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x71);
    apic_write(APIC_TMICT, 0xffffffff);
    struct sample a = sample(read_tmcct), b;
    delay_us(10000);
    b = sample(read_tmcct);
    apic_write(APIC_TMICT, 0);
    return (a.count - b.count) * us(1000) / (b.tsc - a.tsc);
}

/* wait_hits() uses this timer; here we poll. */
static bool poll_hits(unsigned vector, uint32_t n, uint64_t ms)
{
    uint64_t start = rdtsc();
    sti();
    while (hits[vector] < n && rdtsc() - start < us(ms * 1000))
        pause();
    cli();
    return hits[vector] >= n;
}

static void test_timer_interrupts(void)
{
    uint64_t ms = timer_per_ms(), start;
    count_vector(0x71, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x71);
    start = rdtsc();
    apic_write(APIC_TMICT, (uint32_t)(5 * ms));
    check(poll_hits(0x71, 1, 1000), named("one-shot interrupts"), "no interrupt");
    took(named("one-shot of 5 ms"), hit_tsc[0x71] - start, 5000 - 20);
    run_us(12000);
    equal(named("one-shot interrupts once"), hits[0x71], 1);
    equal(named("one-shot ends at 0"), apic_read(APIC_TMCCT), 0);
    count_vector(0x71, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x20071);
    start = rdtsc();
    apic_write(APIC_TMICT, (uint32_t)ms);
    check(poll_hits(0x71, 50, 5000), named("periodic interrupts"), "%u of 50", hits[0x71]);
    took(named("50 periods of 1 ms"), hit_tsc[0x71] - start, 50000 - 20);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x20071);
    open_interrupts();
    count_vector(0x71, EOI_LAPIC);
    run_us(5000);
    equal(named("masked, it does not interrupt"), hits[0x71], 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x71);
    apic_write(APIC_TMICT, 0);
    /* From HLT. */
    count_vector(0x71, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x71);
    start = rdtsc();
    apic_write(APIC_TMICT, (uint32_t)(3 * ms));
    halt();
    equal(named("it wakes HLT"), hits[0x71], 1);
    took(named("HLT for 3 ms"), hit_tsc[0x71] - start, 3000 - 20);
}

static void test_tsc_deadline(void)
{
    uint64_t due;
    if (!(cpuid(1, 0).ecx >> 24 & 1)) {
        skip("TSC-deadline", "not in CPUID");
        return;
    }
    count_vector(0x72, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x40072);
    __asm__ volatile("mfence" : : : "memory");
    due = rdtsc() + us(60000000);
    wrmsr(MSR_TSC_DEADLINE, due);
    equal(named("TSC-deadline reads back"), rdmsr(MSR_TSC_DEADLINE), due);
    due = rdtsc() + us(4000);
    wrmsr(MSR_TSC_DEADLINE, due);
    check(poll_hits(0x72, 1, 1000), named("TSC-deadline interrupts"), "no interrupt");
    check(hit_tsc[0x72] >= due, named("TSC-deadline is never early"), "%lu ticks early", due - hit_tsc[0x72]);
    equal(named("TSC-deadline is 0 afterwards"), rdmsr(MSR_TSC_DEADLINE), 0);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1000);
    check(poll_hits(0x72, 2, 100), named("a deadline in the past interrupts at once"), "no interrupt");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + us(200000));
    wrmsr(MSR_TSC_DEADLINE, 0);
    run_us(250000);
    equal(named("a deadline of 0 disarms"), hits[0x72], 2);
    apic_write(APIC_TMICT, 1000);
    equal(named("TMICT is ignored in this mode"), apic_read(APIC_TMCCT), 0);
    due = rdtsc() + us(2000);
    wrmsr(MSR_TSC_DEADLINE, due);
    halt();
    check(hits[0x72] == 3 && hit_tsc[0x72] >= due, named("TSC-deadline wakes HLT"), "%u interrupts", hits[0x72]);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | 0x72);
}

static void test_software_disabled(void)
{
    count_vector(0x51, EOI_LAPIC);
    reset_hits();
    if (differs_on_qemu(named("software disable"), "the LVTs stay unmasked"))
        return;
    apic_write(APIC_SVR, 0xff);
    check(apic_read(APIC_LVT_TIMER) & APIC_MASKED, named("software disable masks the LVTs"), "0x%x", apic_read(APIC_LVT_TIMER));
    apic_write(APIC_LVT_TIMER, 0x71);
    check(apic_read(APIC_LVT_TIMER) & APIC_MASKED, named("and keeps them masked"), "0x%x", apic_read(APIC_LVT_TIMER));
    apic_enable();
}

static void common(void)
{
    test_registers();
    test_self_ipi();
    test_priority();
    test_cr8();
    test_errors();
    test_nmi();
    test_timer_counts();
    test_timer_interrupts();
    test_tsc_deadline();
    test_software_disabled();
}

void test_lapic(void)
{
    mode = "xapic: ";
    common();
    apic_write(APIC_LDR, 0x01000000);
    apic_write(APIC_DFR, 0xffffffff);
    count_vector(0x51, EOI_LAPIC);
    reset_hits();
    apic_icr(0x01, 0x800 | 0x51); /* logical, flat */
    open_interrupts();
    equal("xapic: a logical flat IPI comes", hits[0x51], 1);
    apic_icr(0x02, 0x800 | 0x51);
    open_interrupts();
    equal("xapic: one to another bit does not", hits[0x51], 1);
}

/* Reserved bits and the registers' range in x2APIC mode. */
static void test_x2_faults(void)
{
    static const struct {
        const char *name;
        uint32_t msr;
        uint64_t value;
    } bad[] = {
        {"x2apic: writing the id faults", 0x802, 0},
        {"x2apic: reserved bits of TPR fault", 0x808, 0x100},
        {"x2apic: EOI takes only 0", 0x80b, 1},
        {"x2apic: LDR is read-only", 0x80d, 1},
        {"x2apic: there is no DFR", 0x80e, 0xffffffff},
        {"x2apic: reserved bits of SVR fault", 0x80f, 0x80000000},
        {"x2apic: ESR takes only 0", 0x828, 1},
        {"x2apic: reserved bits of ICR fault", 0x830, 0x80000000 | SELF | 0x51},
        {"x2apic: there is no second ICR", 0x831, 0},
        {"x2apic: reserved bits of an LVT fault", 0x832, 0x80010071},
        {"x2apic: TMCCT is read-only", 0x839, 0},
        {"x2apic: reserved bits of TDCR fault", 0x83e, 0x10},
        {"x2apic: reserved bits of self-IPI fault", 0x83f, 0x100},
        {"x2apic: the range ends at 0x8ff", 0x8ff, 0},
    };
    uint64_t v;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        check(!try_wrmsr(bad[i].msr, bad[i].value) && trap_vector == 13, bad[i].name, "vector %d", trap_vector);
    }
    check(!try_rdmsr(0x83f, &v) && trap_vector == 13, "x2apic: self-IPI is write-only", "vector %d", trap_vector);
    check(!try_rdmsr(0x80b, &v) && trap_vector == 13, "x2apic: EOI is write-only", "vector %d", trap_vector);
    check(!try_wrmsr(0x1b, rdmsr(0x1b) & ~0x800ull) && trap_vector == 13, "x2apic: EXTD without EN faults", "vector %d", trap_vector);
    check(!try_wrmsr(0x1b, rdmsr(0x1b) & ~0x400ull) && trap_vector == 13, "x2apic: no way straight back to xAPIC", "vector %d", trap_vector);
}

void test_x2apic(void)
{
    uint64_t v;
    if (!(cpuid(1, 0).ecx >> 21 & 1)) {
        skip("x2apic", "not in CPUID");
        return;
    }
    check(!try_rdmsr(0x802, &v) && trap_vector == 13, "x2apic: its MSRs fault in xAPIC mode", "vector %d", trap_vector);
    apic_set_x2(true);
    mode = "x2apic: ";
    common();
    equal("x2apic: LDR is made of the id", rdmsr(0x80d), 1);
    count_vector(0x51, EOI_LAPIC);
    wrmsr(0x83f, 0x51);
    open_interrupts();
    equal("x2apic: the self-IPI register", hits[0x51], 1);
    test_x2_faults();
    apic_set_x2(false);
    check(!apic_is_x2() && mmio_read(LAPIC + APIC_VERSION) == apic_read(APIC_VERSION), "x2apic: back to xAPIC through disabled", "APIC base 0x%lx",
          rdmsr(0x1b));
}
