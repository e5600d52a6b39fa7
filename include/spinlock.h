/*
 * Ticket spinlock. Taken with interrupts off, or never from an interrupt handler.
 *
 * Lock order: domain list -> domain -> chipset -> run queue -> heap of frames -> console.
 */
#ifndef METRONOME_SPINLOCK_H
#define METRONOME_SPINLOCK_H

#include <stdint.h>

struct spinlock {
    uint32_t next, serving;
};

static inline void spin_lock(struct spinlock *l)
{
    uint32_t ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&l->serving, __ATOMIC_ACQUIRE) != ticket)
        __asm__ volatile("pause" : : : "memory");
}

static inline void spin_unlock(struct spinlock *l)
{
    __atomic_store_n(&l->serving, l->serving + 1, __ATOMIC_RELEASE);
}

#endif
