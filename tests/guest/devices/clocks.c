/*
 * The clocks against each other. Each reading is bracketed by the TSC and the tightest bracket of several counts, so a busy
 * host cannot spoil it. Over a tenth of a second the TSC rates by PM timer, HPET and PIT agree; on Metronome the three are
 * one crystal, and their counts keep their distance exactly.
 */
#include "devices.h"

static uint64_t read_pm(void)
{
    return pm_timer();
}
static uint64_t read_hpet(void)
{
    return hpet_read(0xf0);
}
static uint64_t read_pit(void)
{
    return 0xffff - pit_count(2);
}

/* TSC ticks per second by a clock of num/den Hz and `mask`; again where so much time went by that it may have wrapped. */
static uint64_t tsc_rate(uint64_t (*read)(void), uint64_t num, uint64_t den, uint64_t mask, uint64_t wait_us)
{
    struct sample a, b;
    unsigned tries = 0;
    do {
        a = sample(read);
        delay_us(wait_us);
        b = sample(read);
    } while (b.tsc - a.tsc > us(wait_us + wait_us / 4) && tries++ < 50);
    uint64_t counts = (b.count - a.count) & mask;
    return counts ? (b.tsc - a.tsc) * num / counts / den : 0;
}

static void agree(const char *name, uint64_t rate, uint64_t reference)
{
    check(near(rate, reference, strict ? 200 : 2000, 0), name, "%lu Hz against %lu Hz", rate, reference);
}

/* HPET count - 4 * PM count stays within one reading's width. */
static void phase_locked(void)
{
    int64_t first = 0, least = INT64_MAX, most = INT64_MIN;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t h0 = hpet_read(0xf0), p = pm_timer(), h1 = hpet_read(0xf0);
        if (h1 - h0 > 1000)
            continue; /* the host took the CPU away between the readings */
        int64_t d = (int64_t)((h0 + (h1 - h0) / 2 - 4 * p) & 0x3ffffff);
        if (!first)
            first = d;
        d -= first;
        if (d > 0x2000000)
            d -= 0x4000000;
        if (d < -0x2000000)
            d += 0x4000000;
        least = d < least ? d : least;
        most = d > most ? d : most;
        delay_us(500);
    }
    check(least > -1000 && most < 1000, "clocks: HPET and PM timer keep their phase", "between %ld and %ld ticks", least, most);
}

void test_clocks(void)
{
    uint64_t period = hpet_read(0) >> 32, pm, hpet, pit;
    hpet_write(0x10, 1);
    outb(0x61, 1);
    pit_mode(2, 0, 0xffff);
    pm = tsc_rate(read_pm, PM_HZ * 11 + 5, 11, 0xffffff, 100000);
    hpet = tsc_rate(read_hpet, 1000000000000000 / period, 1, UINT64_MAX, 100000);
    pit_mode(2, 0, 0xffff);
    pit = tsc_rate(read_pit, PIT_HZ_NUM, PIT_HZ_DEN, 0xffff, 40000);
    print("TSC by PM timer %lu Hz, by HPET %lu Hz, by PIT %lu Hz\n", pm, hpet, pit);
    agree("clocks: HPET against PM timer", hpet, pm);
    agree("clocks: PIT against PM timer", pit, pm);
    if (on_metronome())
        phase_locked();
}
