/*
 * Ten years of every clock of a domain, from its TSC, against exact arithmetic.
 *
 * The reference knows the frequencies as the manuals give them (157500000/11 Hz, a twelfth, a quarter, 32768 Hz, f),
 * and what each counter has counted after x ticks of f: a quotient of integers of 128 bits, rounded down once. It
 * shares no code and no constant with vtime.c, wide.h and the models. Instants: random ones over ten years, and around
 * each the ones at which a counter wraps or an output changes, to the TSC tick.
 */
#include "../../arch/x86/hvm/vtime.c" /* the real conversion: freestanding, so compiled into the test */
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

typedef unsigned __int128 wide;

#define TEN_YEARS   315576000ull /* seconds */
#define WALLCLOCK   1767225590ll /* 2025-12-31 23:59:50 */
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

enum { CH0_COUNT = 65536, CH1_COUNT = 11933, CH2_COUNT = 1193, LAPIC_COUNT = 999983, LAPIC_SHIFT = 4 };
enum { HPET_32BIT_PERIOD = 14318179, HPET_64BIT_PERIOD = 715909 };

uint64_t tsc_hz;

static const uint64_t frequencies[] = {
    14318182,              /* the crystal's own, rounded up */
    24000000,   999999937, /* a prime: no factor of the crystal's cancels; and others without order */
    1000000000,            /* QEMU's -icount shift=0 */
    1193181819, 2399999999, 2893299991, 3579545454, 4294967311, /* the first prime above 2^32 */
    4999999937, 9999999967,
};

/* What runs: every model, started at domain TSC `start`. */
static struct board {
    struct hpet hpet;
    struct vpit vpit;
    struct pmtimer pm24, pm32;
    struct rtc rtc;
    struct vlapic periodic, deadline;
} b;
static uint64_t start;
static uint64_t samples;

/* ---- The reference ---- */

/* Ticks of num/den Hz in x ticks of tsc_hz. */
static uint64_t ticks_of(uint64_t x, uint64_t num, uint64_t den)
{
    return (uint64_t)((wide)x * num / ((wide)tsc_hz * den));
}

static uint64_t ref_master(uint64_t x)
{
    return ticks_of(x, 157500000, 11);
}

/* The first x with ref_master(x) >= m. */
static uint64_t ref_when(uint64_t m)
{
    wide d = (wide)m * 11 * tsc_hz;

    return (uint64_t)(d / 157500000) + (d % 157500000 != 0);
}

/* Ticks of 1/32768 s seen by a chip that looks only at master ticks: that is its resolution, 70 ns. */
static uint64_t ref_rtc(uint64_t x)
{
    return (uint64_t)((wide)ref_master(x) * 32768 * 11 / 157500000);
}

/* ---- The board ---- */

static uint64_t master(uint64_t x)
{
    struct vtime t = {.stopped = true, .stopped_at = x, .tsc_hz = tsc_hz};

    return vtime_master(&t);
}

static uint64_t when(uint64_t ticks)
{
    struct vtime t = {.stopped = false, .tsc_offset = 0, .tsc_hz = tsc_hz};

    return vtime_host_of_master(&t, ticks);
}

static void start_hpet(uint64_t m)
{
    hpet_reset(&b.hpet, m);
    hpet_write(&b.hpet, m, 0x100, 4, 4 | 8 | 0x40 | 0x100); /* interrupt, periodic, SETVAL, 32 bits */
    hpet_write(&b.hpet, m, 0x108, 4, HPET_32BIT_PERIOD);
    hpet_write(&b.hpet, m, 0x120, 4, 4 | 8 | 0x40);
    hpet_write(&b.hpet, m, 0x128, 8, HPET_64BIT_PERIOD);
    hpet_write(&b.hpet, m, 0x010, 4, 1);
}

static void start_pit(uint64_t m)
{
    vpit_reset(&b.vpit, m);
    vpit_write(&b.vpit, m, 4, 1, 1); /* GATE 2 */
    vpit_write(&b.vpit, m, 3, 1, 0x34);
    vpit_write(&b.vpit, m, 0, 1, 0);
    vpit_write(&b.vpit, m, 0, 1, 0); /* 65536 */
    vpit_write(&b.vpit, m, 3, 1, 0x76);
    vpit_write(&b.vpit, m, 1, 1, CH1_COUNT & 0xff);
    vpit_write(&b.vpit, m, 1, 1, CH1_COUNT >> 8);
    vpit_write(&b.vpit, m, 3, 1, 0xb4);
    vpit_write(&b.vpit, m, 2, 1, CH2_COUNT & 0xff);
    vpit_write(&b.vpit, m, 2, 1, CH2_COUNT >> 8);
}

static void start_lapic(struct vlapic *s, uint32_t lvt)
{
    memset(s, 0, sizeof(*s));
    vlapic_reset(s, start, 0, true);
    vlapic_write(s, start, 0xf0, 4, 0x1ff);
    vlapic_write(s, start, 0x320, 4, lvt | 0x30);
    vlapic_write(s, start, 0x3e0, 4, LAPIC_SHIFT - 1);
}

static void start_board(uint64_t x)
{
    uint64_t m = ref_master(x);

    start = x;
    start_hpet(m);
    start_pit(m);
    pmtimer_reset(&b.pm24, m, false);
    pmtimer_reset(&b.pm32, m, true);
    pmtimer_write(&b.pm24, m, 2, 2, PM1_TMR);
    pmtimer_set_sci_enable(&b.pm24, m, true);
    rtc_reset(&b.rtc, m, WALLCLOCK);
    rtc_write(&b.rtc, m, 0, 2, 0x230a); /* 8192 Hz */
    rtc_write(&b.rtc, m, 0, 2, 0x520b); /* PIE, UIE, 24 hours */
    start_lapic(&b.periodic, 0x20000);
    vlapic_write(&b.periodic, x, 0x380, 4, LAPIC_COUNT);
    start_lapic(&b.deadline, 0x40000);
}

/* ---- Each clock against the reference, at domain TSC x ---- */

static void check_conversion(uint64_t x)
{
    uint64_t m = ref_master(x);

    assert_int_equal(master(x), m);
    for (uint64_t ticks = m ? m - 1 : 0; ticks <= m + 2; ticks++) {
        assert_int_equal(when(ticks), ref_when(ticks));
        assert_true(master(when(ticks)) >= ticks);
        assert_true(!when(ticks) || master(when(ticks) - 1) < ticks);
    }
}

static uint64_t check_hpet(uint64_t x)
{
    uint64_t m = master(x), expected = ref_master(x) - ref_master(start);
    uint64_t counter = hpet_read(&b.hpet, m, 0xf0, 8);

    assert_int_equal(counter, expected);
    hpet_advance(&b.hpet, m);
    assert_int_equal(hpet_read(&b.hpet, m, 0xf0, 8), expected);
    assert_int_equal(b.hpet.out.line[0].rises, expected / HPET_32BIT_PERIOD);
    assert_int_equal(b.hpet.out.line[1].rises, expected / HPET_64BIT_PERIOD);
    if (expected >= HPET_64BIT_PERIOD)
        assert_int_equal(b.hpet.out.line[1].last_rise, m - expected % HPET_64BIT_PERIOD);
    return counter;
}

/* Channel c's count, latched. */
static uint16_t pit_count(uint64_t m, unsigned c)
{
    unsigned low;

    vpit_write(&b.vpit, m, 3, 1, c << 6);
    low = (unsigned)vpit_read(&b.vpit, m, c, 1);
    return (uint16_t)(low | vpit_read(&b.vpit, m, c, 1) << 8);
}

/* The counts are loaded at the first clock after the write; it is clock `first` of the chip. */
static uint64_t pit_first(void)
{
    return ticks_of(start, 157500000, 132) + 1;
}

static uint16_t check_pit(uint64_t x)
{
    uint64_t m = master(x), clocks = ticks_of(x, 157500000, 132), n;
    const uint32_t count[3] = {CH0_COUNT, CH1_COUNT, CH2_COUNT};
    uint16_t shown = pit_count(m, 0);

    if (clocks < pit_first())
        return shown;
    n = clocks - pit_first();
    for (unsigned c = 0; c < 3; c++) {
        assert_int_equal(b.vpit.out.line[c].rises, n / count[c]);
        if (n >= count[c])
            assert_int_equal(b.vpit.out.line[c].last_rise, 12 * (clocks - n % count[c]));
    }
    assert_int_equal(shown, (uint16_t)(CH0_COUNT - n % CH0_COUNT));
    assert_int_equal(pit_count(m, 2), CH2_COUNT - n % CH2_COUNT);
    assert_int_equal(b.vpit.out.line[1].level, n % CH1_COUNT < (CH1_COUNT + 1) / 2);
    return shown;
}

static uint32_t check_pm(uint64_t x, uint64_t *seen)
{
    uint64_t m = master(x), count = ticks_of(x, 157500000, 44);
    uint32_t shown = (uint32_t)pmtimer_read(&b.pm24, m, 8, 4);

    assert_int_equal(shown, count & 0xffffff);
    assert_int_equal(pmtimer_read(&b.pm32, m, 8, 4), count & 0xffffffff);
    assert_int_equal(pmtimer_read(&b.pm24, m, 0, 2), count >> 23 != *seen >> 23);
    pmtimer_write(&b.pm24, m, 0, 2, PM1_TMR);
    *seen = count;
    return shown;
}

static unsigned cmos(uint64_t m, unsigned index)
{
    unsigned v;

    rtc_write(&b.rtc, m, 0, 1, index);
    v = (unsigned)rtc_read(&b.rtc, m, 1, 1);
    return (v >> 4) * 10 + (v & 15);
}

static void check_rtc(uint64_t x)
{
    uint64_t m = master(x), ticks = ref_rtc(x), ideal = ticks_of(x, 32768, 1), passed = ticks - ref_rtc(start);
    time_t t = (time_t)(WALLCLOCK + (int64_t)(passed / 32768));
    struct tm date;

    /* What is missing to the ideal chip is at most the master tick that has not ended. */
    assert_true(ticks <= ideal && (wide)(ref_master(x) + 1) * 32768 * 11 / 157500000 >= ideal);
    gmtime_r(&t, &date);
    assert_int_equal(cmos(m, 0), date.tm_sec);
    assert_int_equal(cmos(m, 2), date.tm_min);
    assert_int_equal(cmos(m, 4), date.tm_hour);
    assert_int_equal(cmos(m, 6), date.tm_wday + 1);
    assert_int_equal(cmos(m, 7), date.tm_mday);
    assert_int_equal(cmos(m, 8), date.tm_mon + 1);
    assert_int_equal(cmos(m, 0x32) * 100 + cmos(m, 9), date.tm_year + 1900);
    /* At the start the chain stood at an update's end, 73, and a period of 4 ticks ends in its middle, at 2 mod 4. */
    assert_int_equal(b.rtc.periodic_due, (73 + passed + 2) / 4 - (73 + 2) / 4);
    rtc_write(&b.rtc, m, 0, 1, 0x0c);
    rtc_read(&b.rtc, m, 1, 1);
}

static void check_lapic(uint64_t x)
{
    uint64_t period = (uint64_t)LAPIC_COUNT << LAPIC_SHIFT, passed = x - start, left = period - passed % period,
             deadline;
    struct vlapic *d = &b.deadline;

    assert_int_equal(vlapic_read(&b.periodic, x, 0x390, 4), (left + (1 << LAPIC_SHIFT) - 1) >> LAPIC_SHIFT);
    assert_int_equal(b.periodic.timer_due, passed / period);
    assert_int_equal(vlapic_deadline(&b.periodic), x + left);
    deadline = x + 1 + below(tsc_hz);
    assert_true(vlapic_msr_write(d, x, MSR_TSC_DEADLINE, deadline));
    assert_int_equal(vlapic_deadline(d), deadline);
    vlapic_advance(d, deadline - 1);
    assert_true(d->tsc_deadline == deadline);
    vlapic_advance(d, deadline);
    assert_true(d->tsc_deadline == 0 && d->timer_due_at == deadline);
}

/* ---- Deadlines ---- */

static uint64_t rises(const struct line *line, unsigned lines)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < lines; i++)
        sum += line[i].rises;
    return sum;
}

/* The output edges so far that a model announces by its deadline; first it is brought up to master time m. */
static uint64_t pit_edges(struct board *at, uint64_t m)
{
    vpit_advance(&at->vpit, m);
    return at->vpit.out.line[0].rises;
}

static uint64_t hpet_edges(struct board *at, uint64_t m)
{
    hpet_advance(&at->hpet, m);
    return rises(at->hpet.out.line, HPET_TIMERS);
}

static uint64_t rtc_edges(struct board *at, uint64_t m)
{
    rtc_advance(&at->rtc, m);
    return at->rtc.out.line[0].rises;
}

static uint64_t pm_edges(struct board *at, uint64_t m)
{
    pmtimer_advance(&at->pm24, m);
    return at->pm24.out.line[0].rises;
}

/* The deadline is the very TSC tick at which the output rises: not at the one before. */
static void check_deadline(uint64_t due, uint64_t (*edges)(struct board *, uint64_t), uint64_t x)
{
    struct board copy = b;
    uint64_t before = edges(&copy, master(x)), at = when(due);

    assert_true(due != NEVER && at > x);
    assert_int_equal(at, ref_when(due));
    assert_int_equal(edges(&copy, master(at - 1)), before);
    assert_true(edges(&copy, master(at)) > before);
}

static void check_deadlines(uint64_t x)
{
    check_deadline(vpit_deadline(&b.vpit), pit_edges, x);
    check_deadline(hpet_deadline(&b.hpet), hpet_edges, x);
    check_deadline(rtc_deadline(&b.rtc), rtc_edges, x);
    check_deadline(pmtimer_deadline(&b.pm24), pm_edges, x);
}

/* ---- Instants ---- */

static uint64_t pm_seen;

static void check_instant(uint64_t x)
{
    uint64_t counter, clocks;
    uint32_t pm;
    uint16_t pit;

    check_conversion(x);
    counter = check_hpet(x) + ref_master(start);
    pm = check_pm(x, &pm_seen);
    pit = check_pit(x);
    check_rtc(x);
    check_lapic(x);
    check_deadlines(x);
    /* In phase: from what the guest reads of the HPET follows what it reads of the other two. */
    clocks = counter / 12 - pit_first();
    assert_int_equal(counter / 4 & 0xffffff, pm);
    if (counter / 12 >= pit_first())
        assert_int_equal((uint16_t)(0 - clocks % 65536), pit);
    samples++;
}

/* The first x after `x` at which one of the counters wraps or changes an output. */
static uint64_t next_event(uint64_t x, unsigned kind)
{
    static const uint64_t every[] = {
        1, 4, 12, 12 * 65536, 12ull * CH1_COUNT, 1ull << 25, 1ull << 26, 1ull << 32, 1ull << 34, HPET_32BIT_PERIOD,
    };
    uint64_t m = ref_master(x), second, period = (uint64_t)LAPIC_COUNT << LAPIC_SHIFT;

    if (kind < COUNT_OF(every))
        return ref_when((m / every[kind] + 1) * every[kind]);
    if (kind == COUNT_OF(every))
        return x + period - (x - start) % period;
    second = (ref_rtc(x) - ref_rtc(start)) / 32768 + 1;
    m = (uint64_t)(((wide)(second * 32768 + ref_rtc(start)) * 157500000 + 32768 * 11 - 1) / (32768 * 11));
    return ref_when(m);
}
#define EVENTS 12

/* From x on: its neighbours, then each kind of event in the order in which they come, to the tick before and after. */
static uint64_t check_around(uint64_t x)
{
    for (unsigned i = 0; i < EVENTS; i++) {
        uint64_t event = next_event(x, (unsigned)below(EVENTS));

        for (uint64_t at = event > x + 1 ? event - 1 : x + 1; at <= event + 1; at++)
            check_instant(at);
        x = event + 1;
    }
    return x;
}

/* f of every kind: ten years in so many steps, of random lengths. */
static void ten_years(void **state)
{
    const char *length = getenv("METRONOME_TESTS");
    unsigned steps = length && !strcmp(length, "long") ? 100000 : 4000;

    (void)state;
    for (unsigned i = 0; i < COUNT_OF(frequencies); i++) {
        uint64_t x, step;

        tsc_hz = frequencies[i];
        step = tsc_hz / steps * TEN_YEARS;
        start_board(below(100 * tsc_hz));
        pm_seen = ticks_of(start, 157500000, 44);
        samples = 0;
        for (x = start; x < TEN_YEARS * tsc_hz; x += below(2 * step))
            x = check_around(x);
        printf("  f = %10llu Hz: %llu instants over %llu days, 0 ppb\n", (unsigned long long)tsc_hz,
               (unsigned long long)samples, (unsigned long long)((x - start) / tsc_hz / 86400));
        assert_true(samples > 10 * steps);
    }
}

/* The conversion alone, at any TSC and near the end of what fits: exact or, where no answer fits, the end of time. A
 * host TSC a lifetime away (2^63 ticks) may count as never, too. */
static void conversion_to_the_end_of_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNT_OF(frequencies); i++) {
        tsc_hz = frequencies[i];
        for (unsigned n = 0; n < 20000; n++) {
            uint64_t x = (n & 1 ? UINT64_MAX : UINT64_MAX >> below(64)) - below(1000);
            wide m = (wide)x * 157500000 / ((wide)tsc_hz * 11), d = (wide)x * 11 * tsc_hz;

            assert_int_equal(master(x), m > UINT64_MAX ? UINT64_MAX : (uint64_t)m);
            d = d / 157500000 + (d % 157500000 != 0);
            if (d < UINT64_MAX / 2)
                assert_int_equal(when(x), (uint64_t)d);
            else
                assert_true(when(x) == UINT64_MAX || when(x) == d);
        }
    }
}

/* Stop and go: a domain's time stands still while it is stopped, and goes on from where it stood. */
static void stopped_time_stands_still(void **state)
{
    struct vtime t;
    uint64_t stopped;

    (void)state;
    tsc_hz = 1000000000;
    vtime_start(&t);
    vtime_stop(&t);
    stopped = vtime_tsc(&t);
    for (unsigned i = 0; i < 1000; i++)
        assert_true(vtime_tsc(&t) == stopped && vtime_host_of_master(&t, i) == DEADLINE_UNSET);
    vtime_resume(&t);
    assert_true(vtime_tsc(&t) >= stopped && vtime_tsc(&t) - stopped < 100 * tsc_hz);
    vtime_resume(&t);
    assert_true(vtime_host_of_tsc(&t, NEVER) == DEADLINE_UNSET && vtime_host_of_master(&t, NEVER) == DEADLINE_UNSET);
    assert_true(vtime_host_of_tsc(&t, stopped) == stopped - t.tsc_offset);
}

/* A restored domain's TSC may be ahead of the host's: what was before that began to count is past, and not in 2^64 ticks. */
static void past_of_a_domain_older_than_its_host(void **state)
{
    const struct vtime t = {.tsc_offset = 1ull << 50, .tsc_hz = 1000000000};

    (void)state;
    assert_true(vtime_host_of_tsc(&t, 0) == 0 && vtime_host_of_tsc(&t, (1ull << 50) - 1) == 0);
    assert_true(vtime_host_of_master(&t, 0) == 0);
    assert_true(vtime_host_of_tsc(&t, (1ull << 50) + 5) == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_years),
        cmocka_unit_test(conversion_to_the_end_of_time),
        cmocka_unit_test(stopped_time_stands_still),
        cmocka_unit_test(past_of_a_domain_older_than_its_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
