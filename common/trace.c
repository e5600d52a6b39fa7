#include "trace.h"
#include "cpu.h"
#include "string.h"

#define LOST_WORDS 7u /* of the record that tells how many */
#define MOST_WORDS 10u

/* A CPU's own end of its ring; counts in words. */
struct producer {
    uint64_t produced, room;  /* a record may begin up to `room` */
    uint64_t mask;            /* the ring's words, less one */
    uint32_t *words, *end;
    struct metronome_trace_ring *ring;
    uint64_t lost, lost_tsc;  /* records since the last that found room, and when the first of them was */
    uint32_t who;             /* runs on the CPU */
} __attribute__((aligned(64)));

uint32_t trace_groups, trace_settings;
static struct producer producers[MAX_PCPUS];
static struct metronome_trace *area;

void trace_init(void *memory, uint64_t bytes, unsigned rings)
{
    uint64_t ring = 1ull << 36;

    while (ring > PAGE_SIZE && metronome_trace_offset(ring, rings) > bytes)
        ring >>= 1;
    if (metronome_trace_offset(ring, rings) > bytes)
        return;
    area = memory;
    for (unsigned i = 0; i < rings; i++) {
        uint8_t *words = (uint8_t *)memory + metronome_trace_offset(ring, i);

        producers[i] = (struct producer){.ring = &area->ring[i], .words = (void *)words, .end = (void *)(words + ring), .mask = ring / 4 - 1,
                                         .room = ring / 4 - MOST_WORDS};
    }
    area->rings = rings;
    __atomic_store_n(&area->ring_bytes, ring, __ATOMIC_RELEASE);
}

void trace_running(uint32_t who)
{
    producers[this_cpu()->id].who = who;
}

/* The bits of each class's subclasses where TRACE_GROUP() has them. */
static uint32_t groups_of(uint32_t mask)
{
    uint32_t subclasses = mask >> 12 & 15;

    return (mask & 1u << 19 ? subclasses : 0) | (mask & 1u << 17 ? subclasses << 4 : 0) | (mask & 1u << 23 && subclasses ? 0x100u : 0);
}

/* What was lost before is nothing to who reads from now on. */
static void forget_lost(void)
{
    for (unsigned i = 0; i < area->rings; i++)
        producers[i].lost = area->ring[i].lost = 0;
}

bool trace_set_mask(uint32_t mask)
{
    if (!area)
        return false;
    if (!trace_groups)
        forget_lost();
    area->mask = mask;
    trace_settings++;
    __atomic_store_n(&trace_groups, groups_of(mask), __ATOMIC_RELEASE);
    return true;
}

static inline uint32_t *place(const struct producer *p)
{
    return p->words + (p->produced & p->mask);
}

static inline void publish(struct producer *p, unsigned words)
{
    p->produced += words;
    __atomic_store_n(&p->ring->produced, p->produced, __ATOMIC_RELEASE);
}

/* What lies behind the ring's end belongs at its beginning. */
static __attribute__((noinline, cold)) void publish_across(struct producer *p, unsigned words)
{
    memcpy(p->words, p->end, (size_t)(place(p) + words - p->end) * 4);
    publish(p, words);
}

/* A record has been written in its place. */
static inline void put(struct producer *p, const uint32_t *at, unsigned words)
{
    if (__builtin_expect(at + words > p->end, 0))
        publish_across(p, words);
    else
        publish(p, words);
}

static inline void put_pair(uint32_t *to, uint64_t pair)
{
    __builtin_memcpy(to, &pair, sizeof(pair));
}

/* All six words are written, of which the next record covers what are none: there is room for the longest. */
static inline void write(struct producer *p, uint32_t first, uint32_t words, uint64_t ab, uint64_t cd, uint64_t ef)
{
    uint32_t *at = place(p), *to = at + 1;

    *at = first;
    if (first & METRONOME_TRACE_TSC) {
        put_pair(to, rdtsc());
        to += 2;
    }
    put_pair(to, ab);
    put_pair(to + 2, cd);
    put_pair(to + 4, ef);
    put(p, at, words);
}

static void lose(struct producer *p)
{
    if (!p->lost++)
        p->lost_tsc = rdtsc();
    p->ring->lost = p->lost;
}

/* Looks how far the reader is. Its count is data: one that makes no sense leaves no room. */
static bool make_room(struct producer *p)
{
    uint64_t consumed = __atomic_load_n(&p->ring->consumed, __ATOMIC_ACQUIRE), used = p->produced - consumed;

    if (used > p->mask + 1 - MOST_WORDS - LOST_WORDS) {
        lose(p);
        return false;
    }
    if (p->lost)
        write(p, METRONOME_TRACE_LOST | METRONOME_TRACE_EXTRA(4) | METRONOME_TRACE_TSC, LOST_WORDS, trace_pair((uint32_t)p->lost, p->who),
              p->lost_tsc, 0);
    p->lost = p->ring->lost = 0;
    p->room = consumed + p->mask + 1 - MOST_WORDS;
    return true;
}

static __attribute__((noinline, cold)) void write_if_room(uint32_t first, uint32_t words, uint64_t ab, uint64_t cd, uint64_t ef)
{
    struct producer *p = &producers[this_cpu()->id];

    if (make_room(p))
        write(p, first, words, ab, cd, ef);
}

/* Calls nothing but in its last step, so that it has nothing to save. */
void trace_write(uint32_t first, uint32_t words, uint64_t ab, uint64_t cd, uint64_t ef)
{
    struct producer *p = &producers[this_cpu()->id];

    if (__builtin_expect(p->produced > p->room, 0))
        write_if_room(first, words, ab, cd, ef);
    else
        write(p, first, words, ab, cd, ef);
}
