/*
 * Deadlines: one slot per vCPU and per chipset, in a binary heap per pCPU. A slot stays on its pCPU and only that pCPU
 * touches its heap, so there is no lock and nothing migrates.
 */
#ifndef METRONOME_DEADLINE_H
#define METRONOME_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#define DEADLINE_SLOTS 192 /* per pCPU: vCPUs, chipsets and the scheduler's own */
#define DEADLINE_UNSET UINT64_MAX

struct deadline {
    uint64_t when;  /* host TSC, or DEADLINE_UNSET: not in the heap */
    uint32_t index; /* place in the heap, while in it */
    uint32_t zero;
    void (*expire)(struct deadline *d); /* called on the pCPU, with the slot taken out */
    void *owner;                        /* for whom; NULL: nobody */
};

struct deadline_heap {
    unsigned count;
    struct deadline *slot[DEADLINE_SLOTS];
};

static inline void deadline_init(struct deadline *d, void (*expire)(struct deadline *d))
{
    d->when = DEADLINE_UNSET;
    d->expire = expire;
}

/* Sets, moves or (DEADLINE_UNSET) removes a slot. The caller re-arms the timer if deadline_next() has changed. */
void deadline_set(struct deadline_heap *h, struct deadline *d, uint64_t when);

/* The earliest deadline, or DEADLINE_UNSET. */
static inline uint64_t deadline_next(const struct deadline_heap *h)
{
    return h->count ? h->slot[0]->when : DEADLINE_UNSET;
}

/* One that is due by `when` and whose owner comes before another; NULL: there is none. */
struct deadline *deadline_before(const struct deadline_heap *h, uint64_t when, bool (*comes_before)(const void *owner, const void *than),
                                 const void *than);

/* The slot of the earliest deadline; NULL: none is set. */
static inline struct deadline *deadline_first(const struct deadline_heap *h)
{
    return h->count ? h->slot[0] : 0;
}

/* Takes the slot out and calls its expire(). */
void deadline_expire(struct deadline_heap *h, struct deadline *d);

#endif
