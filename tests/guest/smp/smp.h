/*
 * Many CPUs: each in long mode with a stack and counters of its own, halted until an interrupt or a job comes.
 */
#ifndef METRONOME_TEST_SMP_H
#define METRONOME_TEST_SMP_H

#include "guest.h"

#define MAX_CPUS 64u
#define START 0x8000u /* where a SIPI starts a CPU */
#define NMI 2u

/* Vectors. A CPU that has taken the fence has taken all that was sent to it before: every other one is above it. */
enum { FENCE = 0xd0, WAKE = 0xd1, TESTED = 0xd2, LEVEL = 0xd3, FIRST_BALL = 0xd8, BALLS = 24 };

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
uint32_t real_mode_nmis(void); /* NMIs that came before a CPU had left real mode */

void cpus_init(unsigned count);
static inline struct cpu *this_cpu(void)
{
    struct cpu *c;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}
static inline uint64_t all_cpus(void) { return cpu_count == 64 ? UINT64_MAX : (1ull << cpu_count) - 1; }

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

/* Has the job done on that CPU; false if it does not come back. */
bool run_on(unsigned id, void (*job)(struct cpu *c), uint64_t argument);
void job_send(struct cpu *c); /* argument: ICR */
void send_from(unsigned id, uint32_t dest, uint32_t low);

/* Those that have answered a fence which `from` has sent to all, once the `expected` ones have. */
uint64_t fence(unsigned from, uint64_t expected);

void test_start(void);
void test_ipis(void);
void test_init(void);
void test_halt(void);
void test_madt(void);

#endif
