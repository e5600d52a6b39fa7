/*
 * How long interrupts take: for each source and stage a histogram of times in TSC ticks (instructions, where one tick is one).
 * The hypervisor counts in place; who reads meanwhile sees counts that are a moment apart.
 *
 * A time of v ticks is counted in the bucket of x = v + 128: exponent and seven bits behind the leading one, so that a bucket's
 * middle is within 0.8 % of every time in it, over all 64 bits.
 */
#ifndef METRONOME_PUBLIC_LATENCY_H
#define METRONOME_PUBLIC_LATENCY_H

#include "abi.h"

/* X(NAME, key, text) */
#define METRONOME_LATENCY_SOURCES(X) \
    X(PIT, "pit", "PIT, channel 0") \
    X(RTC, "rtc", "RTC") \
    X(HPET, "hpet", "HPET comparators") \
    X(LAPIC, "lapic", "local APIC timers") \
    X(IPI, "ipi", "IPI") \
    X(LINE, "line", "interrupt lines, other") /* the device model's, and the PM block's and the UART's */ \
    X(MSI, "msi", "MSI, device model")

/* X(NAME, key) */
#define METRONOME_LATENCY_STAGES(X) \
    X(EXIT, "exit-entered")   /* from the exit behind which it is injected to that entry; not behind HLT, where the guest waits */ \
    X(DUE, "due-entered")       /* timers: from the moment at which the interrupt should come to the entry that injects it */ \
    X(POSTED, "posted-entered") /* from the post to a local APIC, or the rise of the PIC's INT, to that entry */ \
    X(AGAIN, "entered-again")   /* only those whose delivery an exit interrupted: from that entry to the one that repeats it */ \
    X(EOI, "entered-eoi")       /* from that entry to the EOI at the local APIC */

#define X(name, key, text) METRONOME_LATENCY_OF_##name,
enum metronome_latency_source { METRONOME_LATENCY_SOURCES(X) METRONOME_LATENCY_SOURCE_COUNT };
#undef X
#define X(name, key) METRONOME_LATENCY_##name,
enum metronome_latency_stage { METRONOME_LATENCY_STAGES(X) METRONOME_LATENCY_STAGE_COUNT };
#undef X

#define METRONOME_LATENCY_BITS 7u
#define METRONOME_LATENCY_FIRST (1ull << METRONOME_LATENCY_BITS)
#define METRONOME_LATENCY_MAX (UINT64_MAX - METRONOME_LATENCY_FIRST) /* the longest that can be counted */
#define METRONOME_LATENCY_BUCKETS ((64u - METRONOME_LATENCY_BITS) << METRONOME_LATENCY_BITS)

struct metronome_histogram {
    uint64_t count[METRONOME_LATENCY_BUCKETS];
};

/* An exit and what became of it, in the host's TSC. */
struct metronome_exit_record {
    uint64_t rip;
    uint64_t left, entered; /* `left` is 0: none; the entry without what it waits for a deadline */
    uint8_t reason;         /* enum metronome_exit_reason */
    uint8_t cpu;            /* that it left */
    uint16_t other;         /* METRONOME_VCPU_ID() of the vCPU that had the CPU right before this one was picked for the entry; 0: none */
    uint32_t other_ticks;   /* for how long others had it, without a pause */
};
METRONOME_ABI_SIZE(struct metronome_exit_record, 32);

#define METRONOME_VCPU_ID(slot, vcpu) (1u + (slot) * METRONOME_MAX_VCPUS + (vcpu))

#define METRONOME_LATE_EXITS 32u
#define METRONOME_LATE_KEPT 4u

/* One of the latest interrupts of a source, and the exits before it. A copy from start to end is whole if begun == done. */
struct metronome_late {
    uint32_t done;
    uint32_t source, vcpu, vector;
    uint64_t due, posted, entered; /* in the host's TSC; `due` is 0: not known, or there is no such moment */
    uint64_t ticks;                /* from due, else from posted, to entered. 0: none is kept here */
    struct metronome_exit_record exit[METRONOME_LATE_EXITS]; /* the oldest first; the last one is that behind which it was injected */
    uint32_t zero;
    uint32_t begun;
};
METRONOME_ABI_SIZE(struct metronome_late, 16 + 32 + 32 * 32 + 8);

/* Of a domain. */
struct metronome_latency {
    struct metronome_histogram of[METRONOME_LATENCY_SOURCE_COUNT][METRONOME_LATENCY_STAGE_COUNT];
    struct metronome_late late[METRONOME_LATENCY_SOURCE_COUNT][METRONOME_LATE_KEPT]; /* in no order */
    uint64_t zero[3004];
};
METRONOME_ABI_SIZE(struct metronome_latency, 0x200000);

static inline unsigned metronome_latency_bucket(uint64_t ticks)
{
    uint64_t x = ticks + METRONOME_LATENCY_FIRST;
    unsigned e = 63u - METRONOME_LATENCY_BITS - (unsigned)__builtin_clzll(x);

    return (e << METRONOME_LATENCY_BITS) + (unsigned)(x >> e) - (unsigned)METRONOME_LATENCY_FIRST;
}

/* The times that a bucket counts: the first of them, and how many. */
static inline uint64_t metronome_latency_first(unsigned bucket)
{
    unsigned e = bucket >> METRONOME_LATENCY_BITS;

    return (((bucket & (METRONOME_LATENCY_FIRST - 1)) + METRONOME_LATENCY_FIRST) << e) - METRONOME_LATENCY_FIRST;
}

static inline uint64_t metronome_latency_width(unsigned bucket)
{
    return 1ull << (bucket >> METRONOME_LATENCY_BITS);
}

struct metronome_latency_summary {
    uint64_t n, p50, p99, p999, max; /* the times: middles of their buckets */
};
METRONOME_ABI_SIZE(struct metronome_latency_summary, 40);

/* What tables show of a source: of a timer how late it is, of the others how long they wait. */
static inline enum metronome_latency_stage metronome_latency_headline(unsigned source)
{
    return source <= METRONOME_LATENCY_OF_LAPIC ? METRONOME_LATENCY_DUE : METRONOME_LATENCY_POSTED;
}

static inline uint64_t metronome_latency_total(const struct metronome_histogram *h)
{
    uint64_t n = 0;

    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++)
        n += h->count[b];
    return n;
}

/* The `rank`th shortest time, from 1. */
static inline uint64_t metronome_latency_at(const struct metronome_histogram *h, uint64_t rank)
{
    uint64_t seen = 0;
    unsigned last = 0;

    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS && seen < rank; b++) {
        seen += h->count[b];
        last = h->count[b] ? b : last;
    }
    return metronome_latency_first(last) + metronome_latency_width(last) / 2;
}

/* The p-th permille is the shortest time that p of 1000 do not exceed. */
static inline uint64_t metronome_latency_permille(const struct metronome_histogram *h, uint64_t n, unsigned p)
{
    return metronome_latency_at(h, n / 1000 * p + (n % 1000 * p + 999) / 1000);
}

static inline struct metronome_latency_summary metronome_latency_summary(const struct metronome_histogram *h)
{
    struct metronome_latency_summary s = {metronome_latency_total(h), 0, 0, 0, 0};

    if (!s.n)
        return s;
    s.p50 = metronome_latency_permille(h, s.n, 500);
    s.p99 = metronome_latency_permille(h, s.n, 990);
    s.p999 = metronome_latency_permille(h, s.n, 999);
    s.max = metronome_latency_at(h, s.n);
    return s;
}

#endif
