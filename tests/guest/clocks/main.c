/*
 * The clocks against the TSC and against each other, in parts per million. A clock's count and the TSC are read at the begin
 * and at the end of a long interval; between them each clock is looked at often enough for none to wrap unseen. A count read
 * between two readings of the TSC was right at some moment between them, so the interval is known up to both brackets' widths
 * and one count: the resolution. A clock at its nominal rate, as a fraction of the TSC frequency that the hypervisor states,
 * shows a deviation of at most that. For exact time (icount), where waiting costs nothing. Options: seconds=N, hz=N.
 */
#include "guest.h"

#define LOOK_HZ 50 /* the PIT's count wraps after 54.9 ms */
#define WAKE_VECTOR 0x60
#define HPET_COUNTER 0xf0
#define RTC_C 12
#define UF 0x10

/* A reading: the count was right at a moment from tsc - width / 2 to tsc + width / 2. */
struct reading {
    uint64_t tsc, width, count;
};

struct clock {
    const char *name;
    uint64_t hz_num, hz_den; /* nominal */
    uint64_t (*read)(void);
    uint64_t mask;     /* of the count as read */
    uint64_t unit;     /* what the count goes on by, if it is seen only as it does so; else 0 */
    uint64_t last;     /* as last read */
    uint64_t count;    /* unwrapped */
    struct reading begin, end;
    uint64_t rate_mhz; /* thousandths of a Hz */
    int64_t ppb;
    uint64_t resolution_ppb;
};

static uint64_t read_hpet(void)
{
    return hpet_read(HPET_COUNTER);
}

static uint64_t read_pm(void)
{
    return pm_timer();
}

static uint64_t read_pit(void)
{
    return 0xffff & -pit_count(2);
}

static uint64_t read_lapic(void)
{
    return UINT32_MAX - apic_read(APIC_TMCCT);
}

/* Updates, in ticks of 1/32768 s. Port 0x70 stays at register C. */
static uint64_t read_rtc(void)
{
    static uint64_t updates;
    updates += (inb(0x71) & UF) != 0;
    return updates * 32768;
}

enum { RTC_CLOCK, HPET_CLOCK, PM_CLOCK, PIT_CLOCK, LAPIC_CLOCK, CLOCKS };
static struct clock clocks[CLOCKS] = {
    [RTC_CLOCK] = {"RTC", 32768, 1, read_rtc, UINT64_MAX, .unit = 32768},
    [HPET_CLOCK] = {"HPET", 157500000, 11, read_hpet, UINT64_MAX},
    [PM_CLOCK] = {"PM timer", 157500000, 44, read_pm, 0xffffff},
    [PIT_CLOCK] = {"PIT", 157500000, 132, read_pit, 0xffff},
    [LAPIC_CLOCK] = {"APIC timer", 0, 128, read_lapic, UINT32_MAX},
};

static uint64_t tsc_of_counts(const struct clock *c, uint64_t counts)
{
    return muldiv(counts, tsc_hz * c->hz_den, c->hz_num);
}

static void look(struct clock *c)
{
    uint64_t now = c->read();
    c->count += (now - c->last) & c->mask;
    c->last = now;
}

static void look_at_all_until(uint64_t tsc)
{
    uint64_t longest = 0, before = rdtsc();
    while (before < tsc) {
        halt();
        for (unsigned i = 0; i < CLOCKS; i++)
            look(&clocks[i]);
        uint64_t now = rdtsc();
        longest = now - before > longest ? now - before : longest;
        before = now;
    }
    check(longest < us(50000), "clocks: each is looked at before it can wrap twice", "%lu us apart", longest / us(1));
}

/* The tightest of several brackets, or that of the next step. */
static struct reading take(struct clock *c)
{
    struct reading best = {.width = UINT64_MAX};
    uint64_t from = c->count;
    for (unsigned i = 0; c->unit ? c->count == from : i < 100; i++) {
        uint64_t a = rdtsc(), b;
        look(c);
        b = rdtsc();
        if (c->unit || b - a < best.width)
            best = (struct reading){a + (b - a) / 2, b - a, c->count};
    }
    return best;
}

/* Everything counts; channel 0 of the PIT wakes us. The RTC's first update is 502 ms away. */
static void start(void)
{
    clocks[LAPIC_CLOCK].hz_num = tsc_hz; /* stated with the TSC's */
    hpet_write(0x10, 1);
    outb(0x61, 1);
    pit_mode(2, 2, 0);
    apic_write(APIC_TDCR, 0xa);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_TMICT, UINT32_MAX);
    cmos_write(10, 0x70);
    cmos_write(10, 0x20);
    cmos_read(RTC_C);
    count_vector(WAKE_VECTOR, EOI_LAPIC);
    ioapic_set(2, WAKE_VECTOR);
    pit_mode(0, 2, (uint16_t)(PIT_HZ_NUM / PIT_HZ_DEN / LOOK_HZ));
    for (unsigned i = 0; i < CLOCKS; i++)
        clocks[i].last = clocks[i].read();
}

static void measure(uint64_t seconds)
{
    look_at_all_until(rdtsc() + us(480000));
    for (unsigned i = 0; i < CLOCKS; i++) {
        look(&clocks[i]);
        clocks[i].begin = take(&clocks[i]);
    }
    look_at_all_until(clocks[RTC_CLOCK].begin.tsc + seconds * tsc_hz - us(30000));
    for (unsigned i = CLOCKS; i-- > 0;)
        clocks[i].end = take(&clocks[i]);
}

static void evaluate(struct clock *c)
{
    uint64_t counts = c->end.count - c->begin.count, tsc = c->end.tsc - c->begin.tsc;
    uint64_t by_clock = tsc_of_counts(c, counts), unsure = (c->begin.width + c->end.width) / 2 + 2;

    c->rate_mhz = muldiv(counts * 1000, tsc_hz, tsc);
    unsure += c->unit ? 0 : tsc_of_counts(c, 1) + 1;
    c->ppb = (int64_t)muldiv(by_clock < tsc ? tsc - by_clock : by_clock - tsc, 1000000000, tsc);
    c->ppb = by_clock < tsc ? -c->ppb : c->ppb;
    c->resolution_ppb = muldiv(unsure, 1000000000, tsc) + 1;
}

static uint64_t size(int64_t v)
{
    return (uint64_t)(v < 0 ? -v : v);
}

/* Parts per million, to the billionth, right-aligned like "%8s". */
static void print_ppm(int64_t ppb)
{
    print("%s%s%lu.%03lu", size(ppb) < 10000 ? "  " : "", ppb < 0 ? "-" : " ", size(ppb) / 1000, size(ppb) % 1000);
}

static void print_rates(uint64_t seconds)
{
    print("against the TSC of %lu Hz, over %lu s:\n", tsc_hz, seconds);
    print("  clock           nominal Hz      measured Hz       ppm  resolution\n");
    for (unsigned i = 0; i < CLOCKS; i++) {
        const struct clock *c = &clocks[i];
        uint64_t nominal_mhz = muldiv(c->hz_num, 1000, c->hz_den);
        print("  %10s %10lu.%03lu", c->name, nominal_mhz / 1000, nominal_mhz % 1000);
        print("   %10lu.%03lu  ", c->rate_mhz / 1000, c->rate_mhz % 1000);
        print_ppm(c->ppb);
        print("    ");
        print_ppm((int64_t)c->resolution_ppb);
        print("\n");
    }
}

static void print_pairs(void)
{
    print("against each other, ppm:\n            ");
    for (unsigned j = 0; j < CLOCKS; j++)
        print("  %10s", clocks[j].name);
    for (unsigned i = 0; i < CLOCKS; i++) {
        print("\n  %10s", clocks[i].name);
        for (unsigned j = 0; j < CLOCKS; j++) {
            print("    ");
            print_ppm(clocks[i].ppb - clocks[j].ppb);
        }
    }
    print("\n");
}

static void judge(void)
{
    bool agree = true;
    for (unsigned i = 0; i < CLOCKS; i++) {
        const struct clock *c = &clocks[i];
        check(size(c->ppb) <= c->resolution_ppb && c->resolution_ppb < 1000, c->name, "%ld ppb, resolution %lu ppb", c->ppb,
              c->resolution_ppb);
        for (unsigned j = 0; j < i; j++)
            agree &= size(c->ppb - clocks[j].ppb) <= c->resolution_ppb + clocks[j].resolution_ppb;
    }
    check(agree, "each pair", "two differ by more than the resolution");
}

void guest_main(void)
{
    uint64_t seconds = option_number("seconds", 100); /* at most 500: the local APIC timer counts down once */

    start();
    measure(seconds);
    for (unsigned i = 0; i < CLOCKS; i++)
        evaluate(&clocks[i]);
    print_rates(seconds);
    print_pairs();
    judge();
}
