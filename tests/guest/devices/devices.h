/* The parts of the devices guest: one file per chip, in the order in which main.c runs them. */
#ifndef METRONOME_TEST_DEVICES_H
#define METRONOME_TEST_DEVICES_H

#include "guest.h"

void test_pic(void);
void test_pit(void);
void test_lapic(void);
void test_x2apic(void);
void test_ioapic(void);
void test_hpet(void);
void test_rtc(void);
void test_pm(void);
void test_clocks(void);

/* A named check of one number. */
static inline bool equal(const char *name, uint64_t got, uint64_t want)
{
    return check(got == want, name, "0x%lx, not 0x%lx", got, want);
}

static inline bool took_within(const char *name, uint64_t ticks, uint64_t want_us, uint64_t early, uint64_t late)
{
    uint64_t want = us(want_us);
    return check(ticks + early >= want && ticks <= want + late, name, "took %lu us, not %lu", ticks * 1000 / us(1000), want_us);
}

/*
 * A time measured from before what starts it: never too short, but for the clocks' own deviation. Too long only counts when
 * time is exact, or when it is more than a busy host explains.
 */
static inline bool took(const char *name, uint64_t ticks, uint64_t want_us)
{
    return took_within(name, ticks, want_us, us(10) + us(want_us) / 2000, strict ? us(30) + us(want_us) / 500 : us(300000));
}

/* A time between two interrupts: a busy host may have brought the first one late. */
static inline bool between(const char *name, uint64_t ticks, uint64_t want_us)
{
    uint64_t early = strict ? us(20) + us(want_us) / 2000 : us(50000);
    return took_within(name, ticks, want_us, early, strict ? us(30) + us(want_us) / 500 : us(300000));
}

/* A counter's reading with the TSC at it. */
struct sample {
    uint64_t tsc, count;
};

/* The tightest of several brackets: on a busy host a reading may come late by far. */
static inline struct sample sample(uint64_t (*read)(void))
{
    struct sample s = {0, 0};
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t a = rdtsc(), c = read(), b = rdtsc();
        if (b - a < best) {
            best = b - a;
            s = (struct sample){a + (b - a) / 2, c};
        }
    }
    return s;
}

/* As an on_hit hook: lowers IRQ 4 at its fifth interrupt. A level that stays leaves the CPU no time outside the handler. */
static inline void lower_at_fifth(unsigned vector)
{
    if (hits[vector] == 5)
        irq4_set(false);
}

/* Leaves every source off and nothing pending. */
void quiet(void);

#endif
