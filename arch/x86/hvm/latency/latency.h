/*
 * The latency ledger: when each of a vCPU's vectors was due, posted and injected, and the histograms that this goes to.
 *
 * A vector has one stamp, as its IRR has one bit: what is posted again before it has been injected is one interrupt, of the
 * first post. What is injected without having been posted (the local APIC's own: LINT0 and LINT1, errors; or posted while
 * another CPU was acknowledging the one before it) is not counted.
 *
 * Stamps are written by whoever posts, without lock. Sources that share a vector may mix them up; a stamp is never later
 * than the interrupt, so no time is negative but by what CPUs' TSCs differ, and that counts as 0. They are in no
 * saved state: a restored domain begins without.
 *
 * Of the latest interrupts of each source the exits before them are kept (flight.c): here it is said which are to be.
 *
 * No locks, no clock, no callbacks: time is an argument, the domain's TSC, and never 0.
 */
#ifndef METRONOME_LATENCY_H
#define METRONOME_LATENCY_H

#include "device.h"
#include "public/latency.h"

struct latency_stamp {
    uint64_t due;     /* 0: not known, or the source has no such moment */
    uint64_t posted;  /* 0: not posted since it was injected last */
    uint64_t entered; /* 0: injected without having been posted */
    uint32_t source;  /* enum metronome_latency_source of the post */
    uint32_t serving; /* and of what was injected */
};

enum { LATENCY_INJECTED = 0x100, LATENCY_AGAIN = 0x200 };

struct latency {
    struct metronome_latency *ledger; /* the domain's */
    const uint64_t *bar;              /* by source: those that take longer are kept */
    uint64_t entering;                /* what the entry to come injects: a vector and LATENCY_*; 0: nothing */
    uint64_t due, posted;             /* LATENCY_INJECTED: its stamp, which is free for the next one */
    uint64_t late;                    /* of that one, if it is to be kept: how long it took; else 0 */
    uint32_t late_source;
    uint8_t late_vector;
    struct latency_stamp stamp[256];
};

/* Several vCPUs count here. */
static inline void latency_count(struct metronome_histogram *h, uint64_t from, uint64_t to)
{
    uint64_t ticks = to > from ? to - from : 0;

    __atomic_fetch_add(&h->count[metronome_latency_bucket(ticks)], 1, __ATOMIC_RELAXED);
}

static inline void latency_posted(struct latency *l, uint8_t vector, enum metronome_latency_source source, uint64_t due, uint64_t now)
{
    struct latency_stamp *s = &l->stamp[vector];

    if (s->posted)
        return;
    s->due = due;
    s->source = source;
    s->posted = now;
}

/* The vector goes from IRR to ISR, or is the PIC's answer: the next entry injects it. */
static inline void latency_acknowledged(struct latency *l, uint8_t vector)
{
    struct latency_stamp *s = &l->stamp[vector];

    l->due = s->due;
    l->posted = s->posted;
    l->entering = vector | LATENCY_INJECTED;
    s->serving = s->source;
    s->posted = 0;
}

/* What has been acknowledged, and its delivery was interrupted by an exit. */
static inline void latency_again(struct latency *l, uint8_t vector)
{
    l->entering = vector | LATENCY_AGAIN;
}

static inline void latency_first_entry(struct latency *l, struct latency_stamp *s, uint64_t left, uint64_t now)
{
    struct metronome_histogram *of = l->ledger->of[s->serving];
    uint64_t since = l->due ? l->due : l->posted;

    s->entered = 0;
    if (!l->posted)
        return;
    s->entered = now;
    latency_count(&of[METRONOME_LATENCY_POSTED], l->posted, now);
    if (l->due)
        latency_count(&of[METRONOME_LATENCY_DUE], l->due, now);
    if (left)
        latency_count(&of[METRONOME_LATENCY_EXIT], left, now);
    if (now > since && now - since > __atomic_load_n(&l->bar[s->serving], __ATOMIC_RELAXED)) {
        l->late = now - since;
        l->late_source = s->serving;
        l->late_vector = (uint8_t)(s - l->stamp);
    }
}

static inline void latency_entered_again(struct latency *l, struct latency_stamp *s, uint64_t now)
{
    if (!s->entered)
        return;
    latency_count(&l->ledger->of[s->serving][METRONOME_LATENCY_AGAIN], s->entered, now);
    s->entered = now;
}

/* The entry begins; `entering` is not 0. `left`: when the guest was left; 0: that was long ago, as it waits in HLT. */
static inline void latency_entered(struct latency *l, uint64_t left, uint64_t now)
{
    uint64_t entering = l->entering;
    struct latency_stamp *s = &l->stamp[(uint8_t)entering];

    l->entering = 0;
    if (entering & LATENCY_AGAIN)
        latency_entered_again(l, s, now);
    else
        latency_first_entry(l, s, left, now);
}

/* The vector's EOI. */
static inline void latency_ended(struct latency *l, uint8_t vector, uint64_t now)
{
    struct latency_stamp *s = &l->stamp[vector];

    if (s->entered)
        latency_count(&l->ledger->of[s->serving][METRONOME_LATENCY_EOI], s->entered, now);
}

/* Requests are gone, all but those with a bit in `kept` (256 bits): their posts were for nothing. */
void latency_forget(struct latency *l, const uint64_t kept[4]);

#endif
