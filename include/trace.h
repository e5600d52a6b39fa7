/*
 * The trace's points: trace_put(EVENT, words...) puts a record into this CPU's ring (public/trace.h). Where the event is off that
 * is a test and a branch. Interrupts are off.
 */
#ifndef METRONOME_TRACE_H
#define METRONOME_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "public/trace.h"
#include "public/trace_events.h"

/* The part of a mask that decides over an event: a bit for each subclass of the classes that we have. */
#define TRACE_GROUP(event) \
    ((event) >> 16 == 0x8 ? (event) >> 12 & 15 : (event) >> 16 == 0x2 ? ((event) >> 12 & 15) << 4 : 0x100u)
/* Xen times entries, exits, devices and the scheduler; what handlers do is a part of their exit. */
#define TRACE_FIRST(event, n) ((event) | METRONOME_TRACE_EXTRA(n) | ((event) >> 12 == 0x82 ? 0 : METRONOME_TRACE_TSC))

extern uint32_t trace_groups; /* that are on */

static inline bool trace_on(uint32_t event)
{
    return __builtin_expect(trace_groups & TRACE_GROUP(event), 0);
}

/* So many rings, one per CPU, as large as fit into `bytes` of memory that are all zero. */
void trace_init(void *memory, uint64_t bytes, unsigned rings);
/* Who runs on this CPU, for what is lost: domain | vCPU << 16. */
void trace_running(uint32_t who);
/* METRONOME_TRACE_*: what is on from now, on every CPU. False: there is no memory for a trace. */
bool trace_set_mask(uint32_t mask);
/* How often it has been set: who runs then has to be said anew. */
extern uint32_t trace_settings;

/* Two of the record's own words in each argument; `words`: of all of it. */
void trace_write(uint32_t first, uint32_t words, uint64_t ab, uint64_t cd, uint64_t ef);

static inline uint64_t trace_pair(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* trace_put(EVENT, up to six words...): they are looked at only where the event is on; trace_record(): it is on. */
#define TRACE_COUNT_(none, a, b, c, d, e, f, n, ...) n
#define TRACE_COUNT(...) TRACE_COUNT_(0 __VA_OPT__(, ) __VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define TRACE_PAIRS_(none, a, b, c, d, e, f, ...) \
    trace_pair((uint32_t)(a), (uint32_t)(b)), trace_pair((uint32_t)(c), (uint32_t)(d)), trace_pair((uint32_t)(e), (uint32_t)(f))
#define TRACE_PAIRS(...) TRACE_PAIRS_(0 __VA_OPT__(, ) __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define trace_record(event, ...) \
    do { \
        uint32_t first_ = TRACE_FIRST(event, TRACE_COUNT(__VA_ARGS__)); \
        trace_write(first_, metronome_trace_words(first_), TRACE_PAIRS(__VA_ARGS__)); \
    } while (0)
#define trace_put(event, ...) \
    do { \
        if (trace_on(event)) \
            trace_record(event, __VA_ARGS__); \
    } while (0)
#define TRACE_LONG(value) (value), (uint64_t)(value) >> 32

#endif
