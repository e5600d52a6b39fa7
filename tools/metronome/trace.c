#include "trace.h"

static void put_words(FILE *to, const uint32_t *words, uint64_t n)
{
    fwrite(words, sizeof *words, n, to);
}

/* A window: what follows is of this ring, so many bytes. */
static void put_window(FILE *to, uint32_t ring, uint64_t words)
{
    const uint32_t window[] = {METRONOME_TRACE_CPU_CHANGE | METRONOME_TRACE_EXTRA(2), ring, (uint32_t)(words * 4)};

    put_words(to, window, 3);
}

static uint64_t take_ring(struct metronome_trace *t, unsigned i, FILE *to)
{
    const uint32_t *words = (const void *)((const char *)t + metronome_trace_offset(t->ring_bytes, i));
    struct metronome_trace_ring *r = &t->ring[i];
    uint64_t capacity = t->ring_bytes / 4, from = r->consumed, n = __atomic_load_n(&r->produced, __ATOMIC_ACQUIRE) - from;
    uint64_t at = from & (capacity - 1), straight = n < capacity - at ? n : capacity - at;

    if (!n)
        return 0;
    put_window(to, i, n);
    put_words(to, words + at, straight);
    put_words(to, words, n - straight);
    __atomic_store_n(&r->consumed, from + n, __ATOMIC_RELEASE);
    return n * 4;
}

uint64_t trace_take(struct metronome_trace *t, FILE *to)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < t->rings; i++)
        bytes += take_ring(t, i, to);
    return bytes;
}

void trace_tell_lost(const struct metronome_trace *t, FILE *to)
{
    enum { WORDS = 5 };

    for (unsigned i = 0; i < t->rings; i++) {
        const uint32_t record[WORDS] = {METRONOME_TRACE_LOST | METRONOME_TRACE_EXTRA(WORDS - 1), (uint32_t)t->ring[i].lost};

        if (!t->ring[i].lost)
            continue;
        put_window(to, i, WORDS);
        put_words(to, record, WORDS);
    }
}
