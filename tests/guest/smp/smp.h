#ifndef METRONOME_TEST_SMP_H
#define METRONOME_TEST_SMP_H

#include "cpus.h"

/* Vectors. A CPU that has taken the fence has taken all that was sent to it before: every other one is above it. */
enum { FENCE = 0xd0, TESTED = 0xd2, LEVEL = 0xd3, FIRST_BALL = 0xd8, BALLS = 24 };

static inline uint64_t all_cpus(void) { return cpu_count == 64 ? UINT64_MAX : (1ull << cpu_count) - 1; }

void count_interrupts(void);
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
