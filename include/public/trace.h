/*
 * The trace: what the hypervisor does, as it does it, in records of Xen's format (docs/trace.md has the list). Every pCPU has
 * a ring of 32-bit words of its own, which it alone writes and one reader outside takes from. What finds no room is lost and
 * counted: nobody waits for a reader.
 *
 * At METRONOME_CONTROL_TRACE in the control device's memory, up to its end: this struct, then from METRONOME_TRACE_WORDS on the
 * words of each ring, METRONOME_TRACE_SPILL bytes between them that are the hypervisor's own.
 */
#ifndef METRONOME_PUBLIC_TRACE_H
#define METRONOME_PUBLIC_TRACE_H

#include "abi.h"

/* A ring's counts are of words, and free-running. What lies between them are whole records. */
struct metronome_trace_ring {
    uint64_t produced; /* hypervisor */
    uint64_t lost;     /* hypervisor: records that no record in the ring tells of yet */
    uint64_t zero0[6];
    uint64_t consumed; /* reader */
    uint64_t zero1[7];
};
METRONOME_ABI_SIZE(struct metronome_trace_ring, 128);

#define METRONOME_TRACE_RINGS 64u

struct metronome_trace {
    uint64_t ring_bytes; /* of each ring's words, a power of two; 0: there are none */
    uint32_t rings;      /* pCPUs */
    uint32_t mask;       /* in force: METRONOME_TRACE_* */
    uint64_t zero[6];
    struct metronome_trace_ring ring[METRONOME_TRACE_RINGS];
};
METRONOME_ABI_SIZE(struct metronome_trace, 64 + 64 * 128);

#define METRONOME_TRACE_WORDS 0x4000u
#define METRONOME_TRACE_SPILL 0x1000u

static inline uint64_t metronome_trace_offset(uint64_t ring_bytes, unsigned ring)
{
    return METRONOME_TRACE_WORDS + ring * (ring_bytes + METRONOME_TRACE_SPILL);
}

/*
 * A mask of events: bits 16-27 classes, bits 12-15 their subclasses, as in an event's number. An event is on if both have a bit
 * in common with its own.
 */
#define METRONOME_TRACE_ALL 0x0ffff000u
#define METRONOME_TRACE_SUBCLASSES 0x0000f000u
#define METRONOME_TRACE_SCHED 0x0002f000u
#define METRONOME_TRACE_HVM 0x0008f000u
#define METRONOME_TRACE_OWN 0x0080f000u /* what Xen does not have */

/* A record: bits 0-27 of its first word the event, 28-30 the number of its own words, which come last; bit 31: a TSC, low word
 * first, comes before them. */
#define METRONOME_TRACE_TSC (1u << 31)
#define METRONOME_TRACE_EXTRA(n) ((uint32_t)(n) << 28)
#define METRONOME_TRACE_LOST 0x0001f001u       /* {records lost, domain | vCPU << 16, TSC of the first: two words} */
#define METRONOME_TRACE_CPU_CHANGE 0x0001f003u /* {pCPU, bytes}: only in files, before what follows of one ring */

static inline unsigned metronome_trace_words(uint32_t first)
{
    return 1 + (first >> 31) * 2 + (first >> 28 & 7);
}

#endif
