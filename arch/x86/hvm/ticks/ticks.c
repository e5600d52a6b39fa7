#include "ticks.h"

static const struct {
    uint32_t keeps;    /* owed ticks at most */
    uint32_t rate;     /* owed ticks follow at up to so many times the programmed rate; 0: at once */
    bool collapses;    /* what is not kept is merged into what is */
} policies[METRONOME_TICK_POLICY_COUNT] = {
    [METRONOME_TICKS_CATCH_UP] = {.keeps = TICKS_OWED_MAX, .rate = METRONOME_CATCH_UP_RATE},
    [METRONOME_TICKS_BURST] = {.keeps = TICKS_OWED_MAX},
    [METRONOME_TICKS_ONE_PENDING] = {.keeps = 1, .collapses = true},
    [METRONOME_TICKS_DROP] = {.keeps = 0},
};

/*
 * Systems count the PIT's and the local APIC timer's interrupts, and calibrate the one by the other. RTC and HPET have a
 * flag or a counter to tell the time by, and are left as the chips are.
 */
static const uint8_t defaults[METRONOME_TICK_SOURCE_COUNT] = {
    [METRONOME_TICKS_OF_PIT] = METRONOME_TICKS_BURST,
    [METRONOME_TICKS_OF_RTC] = METRONOME_TICKS_DROP,
    [METRONOME_TICKS_OF_HPET] = METRONOME_TICKS_DROP,
    [METRONOME_TICKS_OF_LAPIC] = METRONOME_TICKS_BURST,
};

enum metronome_tick_policy ticks_policy(uint32_t choice, enum metronome_tick_source source)
{
    uint32_t policy = choice >> METRONOME_TICKS_SHIFT(source) & 15;

    return (enum metronome_tick_policy)(policy == METRONOME_TICKS_DEFAULT ? defaults[source] : policy);
}

void ticks_init(struct ledger *l, enum metronome_tick_policy policy)
{
    *l = (struct ledger){.policy = policy};
}

void ticks_forget(struct ledger *l)
{
    l->n.dropped += l->n.owed;
    l->n.owed = 0;
    l->period = 0;
}

/* With none pending one more is kept: the one that is signalled. */
void ticks_due(struct ledger *l, uint64_t n, uint64_t period)
{
    uint64_t room, kept;

    if (period != l->period)
        ticks_forget(l);
    l->period = period;
    room = (period ? policies[l->policy].keeps : 0) + !l->n.pending;
    room = room > l->n.owed ? room - l->n.owed : 0;
    kept = n < room ? n : room;
    l->n.due += n;
    l->n.owed += kept;
    *(policies[l->policy].collapses && period ? &l->n.collapsed : &l->n.dropped) += n - kept;
}

void ticks_signalled(struct ledger *l, uint64_t now)
{
    if (!l->n.owed || l->n.pending)
        return;
    l->n.owed--;
    l->n.pending = 1;
    l->signalled_at = now;
}

uint64_t ticks_deadline(const struct ledger *l)
{
    uint32_t rate = policies[l->policy].rate;

    if (!l->n.owed || l->n.pending)
        return NEVER;
    return rate ? l->signalled_at + l->period / rate : 0;
}

bool ticks_next(struct ledger *l, uint64_t now)
{
    if (ticks_deadline(l) > now)
        return false;
    ticks_signalled(l, now);
    return true;
}

void ticks_taken(struct ledger *l)
{
    l->n.delivered += l->n.pending;
    l->n.pending = 0;
}

void ticks_lost(struct ledger *l)
{
    l->n.dropped += l->n.pending;
    l->n.pending = 0;
}

bool ticks_check(const struct ledger *l)
{
    const struct metronome_ledger *n = &l->n;

    if (l->policy <= METRONOME_TICKS_DEFAULT || l->policy >= METRONOME_TICK_POLICY_COUNT || n->pending > 1)
        return false;
    if (n->owed > policies[l->policy].keeps + 1u || (!l->period && n->owed > 1))
        return false;
    return n->due == n->delivered + n->collapsed + n->dropped + n->owed + n->pending;
}
