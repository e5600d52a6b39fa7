/*
 * Jitter: how late the first instruction of a timer's handler is, against the moment for which the timer was programmed, under
 * icount, where a TSC tick is an instruction. Also runs unchanged under KVM, the peer.
 *
 * The moment is exact for TSC deadlines, which are written as such; and on Metronome for PIT, HPET and RTC, whose clocks are
 * known in the TSC (clock.c). The rest begins with an instruction that exits: its moment lies between the TSC before and behind it.
 * For ours the earliest is taken, so that figures are at most too large, for the peer's the latest. The peer's periodic timers
 * run by a clock that is calibrated anew at each boot: counted from a line below all of its ticks, so the smallest is 0.
 *
 * Words: tsc lapic pit hpet rtc: only these. samples=N of each.
 */
#include "jitter.h"

#define VECTOR 0x61
#define CURVE_LINE 6u
#define HPET_PIN 20
#define MOST 4000u
#define MSR_TSC_DEADLINE 0x6e0u
#define X2APIC_BIT (1u << 21)
#define SPACING_US 100u
#define UNDISTURBED_US 10u /* takes the slowest exit that is measured here, alone */
#define PERIOD_US 250u /* KVM clamps less than 200 */
#define IRREGULAR_NS (random32() % 50000)
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_TIMER0 = 0x100, HPET_COMPARATOR0 = 0x108, HPET_ROUTE0 = 0x110 };
enum { TN_ENABLE = 4, TN_FSB = 1 << 14, TN_FSB_CAPABLE = 1 << 15 };
enum { PIT_PERIOD = 298, RTC_PERIOD = 16, RTC_RATE = 5, RTC_PIE = 0x40, RTC_24H = 2 }; /* 4 kHz; 2,048 Hz */

static uint64_t hit[MOST], due[MOST];
static int64_t late[MOST];
static unsigned samples;
static bool ours;

/* `doubt`: how far the programmed moment may be from the one that is counted from. */
static void report(const char *name, uint64_t doubt)
{
    for (unsigned i = 0; i < samples; i++)
        late[i] = (int64_t)(hit[i] - due[i]);
    sort(late, samples);
    print("jitter %s: n %u p50 %ld p99 %ld p99.9 %ld max %ld earliest %ld doubt %lu\n", name, samples,
          permille(late, samples, 500), permille(late, samples, 990), permille(late, samples, 999), permille(late, samples, 1000), late[0],
          doubt);
    for (unsigned i = 0, n, values = 0; i < samples; i += n, values++) {
        for (n = 1; i + n < samples && late[i + n] == late[i]; n++)
            ;
        if (values % CURVE_LINE == 0)
            print("%scurve %s:", values ? "\n" : "", name);
        print(" %ldx%u", late[i], n);
    }
    print("\n");
    if (ours)
        check(late[0] >= 0, name, "the earliest is %ld", late[0]);
}

static uint64_t ticks_of_ns(uint64_t ns)
{
    return muldiv(ns, tsc_hz, 1000000000);
}

static uint64_t distance(void)
{
    return us(SPACING_US) + ticks_of_ns(IRREGULAR_NS);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void test_deadline(const char *name, uint64_t (*await)(void))
{
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    for (unsigned i = 0; i < samples; i++) {
        due[i] = rdtsc() + distance();
        wrmsr(MSR_TSC_DEADLINE, due[i]);
        hit[i] = await();
        apic_write(APIC_EOI, 0);
    }
    report(name, 0);
}

/* Again, if something came between, once that one is over: it may have come already. */
static void start_timer(uint32_t count, uint64_t *before, uint64_t *behind)
{
    for (;;) {
        *before = rdtsc();
        apic_write(APIC_TMICT, count);
        *behind = rdtsc();
        if (*behind - *before <= us(UNDISTURBED_US))
            return;
        await_computing();
        apic_write(APIC_EOI, 0);
    }
}

static void test_one_shot(void)
{
    uint64_t doubt = 0;

    apic_write(APIC_LVT_TIMER, VECTOR);
    for (unsigned i = 0; i < samples; i++) {
        uint64_t count = distance(), before, behind;

        start_timer((uint32_t)count, &before, &behind);
        doubt = later(doubt, behind - before);
        due[i] = (ours ? before : behind) + count;
        hit[i] = await_computing();
        apic_write(APIC_EOI, 0);
    }
    report("local APIC timer, one-shot", doubt);
}

/* Without a known clock: lowers a line of about this slope below all ticks, by the earliest of its beginning and of its end. What
 * comes a period late has lost the ticks before it. */
static void fit_line(uint64_t slope)
{
    unsigned half = samples / 2, a = 0, b = half;
    int64_t rise, least = INT64_MAX, from, to;

    for (unsigned i = 0; i < samples; i++) {
        due[i] = i ? due[i - 1] + later(1, (hit[i] - hit[i - 1] + slope / 2) / slope) * slope : 0;
        late[i] = (int64_t)(hit[i] - due[i]);
        a = i < half && late[i] < late[a] ? i : a;
        b = i >= half && late[i] < late[b] ? i : b;
    }
    rise = late[b] - late[a];
    from = (int64_t)due[a];
    to = (int64_t)due[b];
    for (unsigned i = 0; i < samples; i++) {
        due[i] += (uint64_t)(late[a] + rise * ((int64_t)due[i] - from) / (to - from));
        least = (int64_t)(hit[i] - due[i]) < least ? (int64_t)(hit[i] - due[i]) : least;
    }
    for (unsigned i = 0; i < samples; i++)
        due[i] += (uint64_t)least;
}

static void test_periodic(void)
{
    uint64_t period = us(PERIOD_US) + 21, before, behind;

    apic_write(APIC_LVT_TIMER, 0x20000 | VECTOR);
    start_timer((uint32_t)period, &before, &behind);
    for (unsigned i = 0; i < samples; i++) {
        hit[i] = await_computing();
        due[i] = before + (i + 1) * period;
        apic_write(APIC_EOI, 0);
    }
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_TMICT, 0);
    if (!ours)
        fit_line(period);
    report("local APIC timer, periodic", ours ? behind - before : 0);
}

static struct reading read_pit(void)
{
    struct reading r;
    uint16_t count;

    r.before = rdtsc();
    outb(0x43, 0);
    r.behind = rdtsc();
    count = inb(0x40);
    count = (uint16_t)(count | inb(0x40) << 8);
    r.count = (PIT_PERIOD - count) % PIT_PERIOD;
    return r;
}

/* OUT rises where the counter is reloaded (8254, mode 2). The phase is looked for behind the last tick: first the ticks. */
static void test_pit(const char *name, void (*eoi)(void))
{
    uint64_t begun, doubt = 0, zero, tick;

    pit_mode(0, 2, PIT_PERIOD);
    begun = rdtsc();
    for (unsigned i = 0; i < samples; i++) {
        hit[i] = await_computing();
        eoi();
    }
    if (ours) {
        zero = clock_phase(&pit_clock, read_pit, PIT_PERIOD, &doubt);
        tick = clock_tick(&pit_clock, begun);
        tick += PIT_PERIOD - (tick + PIT_PERIOD - zero % PIT_PERIOD) % PIT_PERIOD;
        for (unsigned i = 0; i < samples; i++)
            due[i] = clock_tsc(&pit_clock, tick + (uint64_t)i * PIT_PERIOD);
    } else {
        fit_line(muldiv(PIT_PERIOD, tsc_hz * PIT_HZ_DEN, PIT_HZ_NUM));
    }
    pit_mode(0, 0, 2); /* OUT rises once more, and stays */
    report(name, doubt);
}

static void eoi_apic(void)
{
    apic_write(APIC_EOI, 0);
}

static void eoi_pic(void)
{
    outb(0x20, 0x60);
}

static void test_pit_apic(void)
{
    ioapic_set(2, VECTOR);
    test_pit("PIT, I/O APIC", eoi_apic);
    ioapic_set(2, IO_MASKED);
    while (apic_bit(APIC_IRR, VECTOR)) { /* ticks since the last one */
        await_computing();
        eoi_apic();
    }
}

static void test_pit_pic(void)
{
    pic_init(); /* forgets the edges so far */
    set_gate(PIC_BASE, taken);
    apic_write(APIC_LVT_LINT0, 0x700);
    pic_mask(0xfffe);
    test_pit("PIT, PIC", eoi_pic);
    pic_mask(0xffff);
    apic_write(APIC_LVT_LINT0, APIC_MASKED | 0xfe);
}

static struct reading read_hpet(void)
{
    struct reading r;

    r.before = rdtsc();
    r.count = hpet_read(HPET_COUNTER);
    r.behind = rdtsc();
    return r;
}

static void test_hpet(const char *name, uint32_t config)
{
    uint64_t period_fs = hpet_read(0) >> 32, doubt = 0, zero;

    hpet_write(HPET_TIMER0, TN_ENABLE | config);
    for (unsigned i = 0; i < samples; i++) {
        uint64_t ns = SPACING_US * 1000 + IRREGULAR_NS, counts = muldiv(ns, 1000000, period_fs);
        struct reading r = read_hpet();

        hpet_write(HPET_COMPARATOR0, r.count + counts);
        hit[i] = await_computing();
        eoi_apic();
        doubt = later(doubt, r.behind - r.before);
        due[i] = ours ? r.count + counts : r.behind + muldiv(counts * period_fs, tsc_hz, 1000000000000000);
    }
    hpet_write(HPET_TIMER0, config & ~(uint32_t)TN_FSB);
    if (ours) {
        zero = clock_phase(&hpet_clock, read_hpet, 0, &doubt);
        for (unsigned i = 0; i < samples; i++)
            due[i] = clock_tsc(&hpet_clock, zero + due[i]);
    }
    report(name, doubt);
}

static void test_hpet_all(void)
{
    hpet_write(HPET_CONFIG, 1);
    ioapic_set(HPET_PIN, IO_LOW | VECTOR);
    test_hpet("HPET, I/O APIC", HPET_PIN << 9);
    ioapic_set(HPET_PIN, IO_MASKED);
    if (hpet_read(HPET_TIMER0) & TN_FSB_CAPABLE) {
        hpet_write(HPET_ROUTE0, 0xfee00000ull << 32 | VECTOR);
        test_hpet("HPET, FSB", TN_FSB);
    } else {
        skip("HPET, FSB", "this HPET has none");
    }
    hpet_write(HPET_CONFIG, 0);
}

/* The divider chain released in a tick of the 32,768 Hz clock; the tick. Again, if one began meanwhile. */
static uint64_t release_divider(void)
{
    for (;;) {
        uint64_t before, tick;

        cmos_write(10, 0x70 | RTC_RATE);
        outb(0x70, 10);
        before = rdtsc();
        outb(0x71, 0x20 | RTC_RATE);
        tick = clock_tick(&rtc_clock, rdtsc());
        if (!ours || tick == clock_tick(&rtc_clock, before))
            return tick;
    }
}

/* The divider chain is released 16,392 ticks, half a second and 8, before its next update (MC146818A, divider control): in the
 * middle of a period of 16, where the flag comes up. A tick that comes due before register C has been read makes no interrupt. */
static void test_rtc(void)
{
    uint64_t tick;

    cmos_write(11, RTC_24H);
    ioapic_set(8, VECTOR);
    tick = release_divider();
    cmos_read(12);
    cmos_write(11, RTC_24H | RTC_PIE);
    for (unsigned i = 0; i < samples; i++) {
        uint64_t from = rdtsc();

        do
            tick += RTC_PERIOD;
        while (ours && clock_tsc(&rtc_clock, tick) < from);
        hit[i] = await_computing();
        due[i] = clock_tsc(&rtc_clock, tick);
        eoi_apic();
        cmos_read(12);
    }
    cmos_write(11, RTC_24H);
    cmos_read(12);
    ioapic_set(8, IO_MASKED);
    if (!ours)
        fit_line(muldiv(RTC_PERIOD, tsc_hz, 32768));
    report("RTC, I/O APIC", 0);
}

static bool wanted(const char *word)
{
    return option(word) || !(option("tsc") || option("lapic") || option("pit") || option("hpet") || option("rtc"));
}

void guest_main(void)
{
    ours = on_metronome();
    samples = (unsigned)option_number("samples", 1000);
    samples = samples < 2 ? 2 : samples > MOST ? MOST : samples;
    if (cpuid(1, 0).ecx & X2APIC_BIT)
        apic_set_x2(true);
    set_gate(VECTOR, taken);
    apic_write(APIC_TDCR, 0xb);
    if (wanted("tsc")) {
        test_deadline("TSC deadline, computing", await_computing);
        test_deadline("TSC deadline, halted", await_halted);
    }
    if (wanted("lapic")) {
        test_one_shot();
        test_periodic();
    }
    if (wanted("pit")) {
        test_pit_apic();
        test_pit_pic();
    }
    if (wanted("hpet"))
        test_hpet_all();
    if (wanted("rtc"))
        test_rtc();
}
