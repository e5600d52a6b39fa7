/*
 * Trains of interrupts: each one that comes is held against the moment at which it is due, computed from the train's start
 * in exact arithmetic. So a lost one, one too many and a drift all show.
 */
#ifndef METRONOME_TEST_TICKS_H
#define METRONOME_TEST_TICKS_H

#include "guest.h"

/* Interrupt k, from 0, is due first + k * period counts of hz_num / hz_den Hz after the start. */
struct train {
    const char *name;
    uint64_t hz_num, hz_den;
    uint64_t first, period;
    uint64_t early;            /* counts by which the source's own grid may lie before the start */
    void (*acknowledge)(void); /* what lets the source interrupt again, or NULL */
    uint64_t begin, end;       /* the TSC before and after what starts it */
    uint64_t came;
    int64_t earliest, latest;  /* TSC ticks from the moment due, were it started at its begin */
};

/* The vector's interrupts are the train's from now on. */
void train_on(struct train *t, unsigned vector, enum eoi how);
/* The TSC half a period after interrupt `count` - 1. */
uint64_t train_after(const struct train *t, uint64_t count);
/* Lets interrupts in until the TSC is there; then prints and checks each train. */
void trains_run(struct train *trains, unsigned n, uint64_t until);

enum path { BY_PIC, BY_IOAPIC, PATHS };
/* Opens the way of an ISA interrupt, whose train this is. */
void train_on_isa(struct train *t, unsigned irq, enum path path);
/* Everything off. */
void quiet(void);

/*
 * The RTC. Its train starts with the release of the divider reset: one interrupt when the divider chain has come to `at`,
 * and one in each `period` ticks of 1/32768 s from there.
 */
struct train rtc_train(const char *name, uint64_t at, uint64_t period);
void rtc_start(struct train *t, uint8_t rate, uint8_t enables);
enum { RTC_PIE = 0x40, RTC_AIE = 0x20, RTC_UIE = 0x10 };

void test_rtc(enum path path);
void test_together(enum path path);

#endif
