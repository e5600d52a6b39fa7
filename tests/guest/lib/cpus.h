/*
 * Many CPUs: each in long mode with a stack and counters of its own, halted until an interrupt or a job comes.
 */
#ifndef METRONOME_TEST_CPUS_H
#define METRONOME_TEST_CPUS_H

#include "guest.h"

#define MAX_CPUS 64u
#define NMI 2u
#define WAKE 0xd1u

struct cpu {
    struct cpu *self; /* GS:0 */
    uint32_t id;
    volatile uint32_t starts;
    volatile uint32_t got[256]; /* interrupts by vector */
    void (*volatile job)(struct cpu *c);
    volatile uint64_t argument;
    volatile uint64_t answer;
};

extern struct cpu *cpu[MAX_CPUS];
extern unsigned cpu_count;

void cpus_init(unsigned count);   /* they still wait for their SIPI */
void count_here(struct frame *f); /* a handler: the CPU's own got[] */
void count_real_mode_nmis(void);
uint32_t real_mode_nmis(void); /* those that came before a CPU had left real mode */
static inline struct cpu *this_cpu(void)
{
    struct cpu *c;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}

/* The first CPU halts, and looks after each interrupt and 100 us. */
void timer_init(void);
#define AWAIT(condition, ms) \
    ({ \
        uint64_t end = rdtsc() + us((ms) * 1000ull); \
        while (!(condition) && rdtsc() < end) { \
            apic_write(APIC_TMICT, 100000); \
            halt(); \
        } \
        (condition); \
    })

void give_job(unsigned id, void (*job)(struct cpu *c), uint64_t argument);
/* Has the job done on that CPU; false if it does not come back. */
bool run_on(unsigned id, void (*job)(struct cpu *c), uint64_t argument);

#endif
