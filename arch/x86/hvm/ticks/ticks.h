/*
 * The ticks of one periodic source: which of them are signalled when, and the account of them all.
 *
 * A tick is a moment at which a source should interrupt. It comes *due*; it is *signalled* when the interrupt is raised,
 * and *pending* from then until it is *taken*. One that comes due while another is pending is missed: the chips forget it.
 * What becomes of it is the policy, as many ticks as it keeps waiting being *owed*:
 *
 *               owed at most       the rest        an owed tick is signalled when the one before it has been taken and
 *   drop        0                  is dropped
 *   one-pending 1                  is collapsed    at once
 *   burst       TICKS_OWED_MAX     is dropped      at once
 *   catch-up    TICKS_OWED_MAX     is dropped      1/METRONOME_CATCH_UP_RATE of the period has passed since that was signalled
 *
 * Which ticks are missed depends on when they are due and taken alone, not on when anybody looks: of several that are
 * found at one look, with none pending, one is signalled and the others are missed.
 *
 * A one-shot (no period) owes nothing. A new period starts a new timer: what the old one owed is dropped.
 *
 * No locks, no clock, no callbacks: time is an argument, in whatever unit the source's owner counts. A ledger is plain data.
 */
#ifndef METRONOME_TICKS_H
#define METRONOME_TICKS_H

#include "device.h"
#include "public/ticks.h"

#define TICKS_OWED_MAX 1000u /* more are not worth having: the guest was away */

struct ledger {
    struct metronome_ledger n; /* due = delivered + collapsed + dropped + owed + pending, after every call */
    uint64_t period;           /* of the timer that owes; 0: nothing is owed */
    uint64_t signalled_at;     /* the last signal */
    uint64_t route;            /* the owner's: which way the pending one went */
    uint64_t policy;           /* enum metronome_tick_policy, never DEFAULT */
};

/* A domain's choice for a source, with the defaults filled in. */
enum metronome_tick_policy ticks_policy(uint32_t choice, enum metronome_tick_source source);

void ticks_init(struct ledger *l, enum metronome_tick_policy policy);
/* `n` more have come due (0: only the period is looked at). */
void ticks_due(struct ledger *l, uint64_t n, uint64_t period);
/* Is one to be signalled now? It is pending then. */
bool ticks_next(struct ledger *l, uint64_t now);
/* The device has signalled one by itself: an owed one becomes the pending one, whatever the policy's pace. */
void ticks_signalled(struct ledger *l, uint64_t now);
/* The pending one, if there is one, has been taken; or can no longer be. */
void ticks_taken(struct ledger *l);
void ticks_lost(struct ledger *l);
/* The timer is gone: what it owes is dropped. */
void ticks_forget(struct ledger *l);
/* When ticks_next() can be true without anything else happening; NEVER if it cannot. */
uint64_t ticks_deadline(const struct ledger *l);
/* Is this a ledger that these functions can have left? */
bool ticks_check(const struct ledger *l);

#endif
