#ifndef METRONOME_TEST_BENCH_H
#define METRONOME_TEST_BENCH_H

#include "guest.h"

#define VECTOR 0x61u

enum {
    MSR_TSC_ADJUST = 0x3b, MSR_PAT = 0x277, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC_ID = 0x802, MSR_X2APIC_TPR = 0x808,
    MSR_X2APIC_EOI = 0x80b, MSR_X2APIC_ICR = 0x830, MSR_X2APIC_TMICT = 0x838, MSR_X2APIC_TMCCT = 0x839, MSR_X2APIC_SELF_IPI = 0x83f,
};

/* What is measured: `take` returns how long it took. `prepare` and `finish` stand around each, outside; NULL where nothing does. */
struct operation {
    const char *name;
    uint64_t (*take)(void);
    void (*prepare)(void), (*finish)(void);
};
void measure(const struct operation *o);
void measure_all(const struct operation *list, unsigned n);
#define MEASURE(list) measure_all(list, sizeof(list) / sizeof((list)[0]))
uint64_t ticks_since(uint64_t tsc); /* without what the reading itself takes */

/* Where code stands is no part of a figure: what a hypervisor keeps by an instruction's address is the same after any edit. */
#define IN_PLACE __attribute__((aligned(4096)))

/* An operation: what stands between two readings of the TSC. */
#define TIMED(function, ...) \
    IN_PLACE static uint64_t function(void) \
    { \
        uint64_t from = rdtsc(); \
        __VA_ARGS__; \
        return ticks_since(from); \
    }

void bench_exits(void);      /* exits.c: one exit each, as an xAPIC has them, and what has no exit */
void bench_x2apic(void);     /* exits.c: registers by MSR; leaves the x2APIC on */
void bench_interrupts(bool x2); /* interrupts.c: sent to handled, ended; timers */
void bench_storms(void);     /* storms.c */
void bench_cpus(void);       /* cpus.c: other vCPUs */
void bench_requests(void);   /* requests.c: what a device model answers */

bool has_x2apic(void);
bool has_tsc_deadline(void);

IN_PLACE static inline void end_xapic(void)
{
    mmio_write(LAPIC + APIC_EOI, 0);
}

IN_PLACE static inline void end_x2apic(void)
{
    wrmsr(MSR_X2APIC_EOI, 0);
}

#endif
