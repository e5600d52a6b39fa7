#ifndef METRONOME_TEST_JITTER_H
#define METRONOME_TEST_JITTER_H

#include "guest.h"

/* ---- Clocks whose ticks are known in the TSC (clock.c): tick i begins at TSC i * den * tsc_hz / num, rounded up. ---- */
struct clock {
    uint64_t num, den;
    uint64_t coarse_num, coarse_den; /* a clock made from its ticks: its own tick k begins with tick k * num / den, rounded up */
};
extern const struct clock hpet_clock, pit_clock, rtc_clock;
uint64_t clock_tick(const struct clock *c, uint64_t tsc);
uint64_t clock_tsc(const struct clock *c, uint64_t tick);

/* A reading, and the TSC right before and behind the instruction that takes it. */
struct reading {
    uint64_t before, behind, count;
};
/*
 * The tick at which a counter of the clock's ticks was 0, from readings alone; *doubt: by how many TSC ticks it may be wrong.
 * `modulus` 0: the counter has 64 bits.
 */
uint64_t clock_phase(const struct clock *c, struct reading (*read)(void), uint64_t modulus, uint64_t *doubt);

#endif
