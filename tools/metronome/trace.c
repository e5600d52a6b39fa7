#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "public/trace_events.h"
#include "trace.h"

#define PART_WORDS 0x40000u /* that are copied at a time */
#define SLACK_WORDS 16u     /* behind them: what a record has too few of is looked at all the same */
#define MOST_RING_BYTES (1ull << 36)
#define NOBODY UINT32_MAX

bool trace_open(struct trace_reader *r, struct metronome_trace *t, uint64_t bytes)
{
    r->shared = t;
    r->ring_bytes = __atomic_load_n(&t->ring_bytes, __ATOMIC_ACQUIRE);
    r->rings = t->rings;
    if (r->ring_bytes < 4096 || r->ring_bytes > MOST_RING_BYTES || (r->ring_bytes & (r->ring_bytes - 1)) || !r->rings ||
        r->rings > METRONOME_TRACE_RINGS || metronome_trace_offset(r->ring_bytes, r->rings) > bytes) {
        r->error = "the hypervisor has no memory for a trace";
        return false;
    }
    for (unsigned i = 0; i < r->rings; i++) {
        r->taken[i] = t->ring[i].consumed;
        r->domain[i] = NOBODY;
    }
    r->words = calloc(PART_WORDS + SLACK_WORDS, sizeof *r->words);
    r->error = r->words ? NULL : "no memory";
    return r->words;
}

void trace_close(struct trace_reader *r)
{
    free(r->words);
    r->words = NULL;
}

static bool put_words(struct trace_reader *r, const uint32_t *words, uint64_t n)
{
    const char *from = (const void *)words;
    uint64_t left = n * sizeof *words;

    while (left) {
        ssize_t wrote = write(r->to, from, left);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            r->error = strerror(errno);
            return false;
        }
        from += wrote;
        left -= (uint64_t)wrote;
    }
    return true;
}

/* A window: what follows is of this ring, so many words. What is counted is whole. */
static bool put_window(struct trace_reader *r, uint32_t ring, const uint32_t *words, uint32_t n)
{
    const uint32_t window[] = {METRONOME_TRACE_CPU_CHANGE | METRONOME_TRACE_EXTRA(2), ring, n * 4};

    if (!put_words(r, window, 3) || !put_words(r, words, n))
        return false;
    r->bytes += sizeof window + n * sizeof *words;
    return true;
}

/* ---- One record after the other ---- */

static const uint32_t *own_words(const uint32_t *record)
{
    return record + 1 + (*record & METRONOME_TRACE_TSC ? 2 : 0);
}

/* Whose a record is: of the vCPU that it names, or else of who runs there. */
static uint32_t domain_of(const struct trace_reader *r, unsigned ring, const uint32_t *record)
{
    uint32_t event = trace_event_of(*record);
    const uint32_t *own = own_words(record);

    if (trace_is_runstate(event) || event == TRACE_POST || event == TRACE_REQUEST || event == TRACE_ANSWER)
        return own[0] >> 16;
    return event == TRACE_TICKS ? own[1] >> 16 : r->domain[ring];
}

static void follow(struct trace_reader *r, unsigned ring, const uint32_t *record)
{
    uint32_t event = trace_event_of(*record);

    if (event == METRONOME_TRACE_LOST) {
        r->lost += own_words(record)[0];
        r->domain[ring] = own_words(record)[1] & 0xffff;
    } else if (trace_is_runstate(event) && trace_new_runstate(event) == RUNSTATE_RUNNING) {
        r->domain[ring] = own_words(record)[0] >> 16;
    }
}

static bool is_wanted(const struct trace_reader *r, unsigned ring, const uint32_t *record)
{
    uint32_t event = trace_event_of(*record), domain = domain_of(r, ring, record);

    if (event == METRONOME_TRACE_LOST)
        return true;
    return trace_is_in_mask(event, r->choice.mask) && (!r->choice.domains || (domain < 32 && r->choice.domains >> domain & 1));
}

/* So that the file says what its TSCs are: a record of our own, at the time of this one. */
static bool tell_clock(struct trace_reader *r, unsigned ring, const uint32_t *record)
{
    const uint32_t clock[] = {TRACE_CLOCK | METRONOME_TRACE_EXTRA(2) | METRONOME_TRACE_TSC, record[1], record[2], (uint32_t)r->tsc_hz,
                              (uint32_t)(r->tsc_hz >> 32)};

    if (r->clock_told || !(*record & METRONOME_TRACE_TSC))
        return true;
    r->clock_told = true;
    return put_window(r, ring, clock, 5);
}

/* Of `n` words in the copy those of whole records; what is wanted of them is moved to the beginning, `kept` words. */
static uint64_t choose(struct trace_reader *r, unsigned ring, uint64_t n, uint32_t *kept)
{
    uint64_t at = 0;

    for (*kept = 0; at < n; ) {
        const uint32_t *record = r->words + at;
        unsigned words = metronome_trace_words(*record);

        if (at + words > n)
            break;
        at += words;
        follow(r, ring, record);
        if (!is_wanted(r, ring, record))
            continue;
        if (!tell_clock(r, ring, record))
            return 0;
        memmove(r->words + *kept, record, words * sizeof *record);
        *kept += words;
        r->records++;
    }
    return at;
}

static void copy(const struct trace_reader *r, unsigned ring, uint64_t from, uint64_t n)
{
    const uint32_t *words = (const void *)((const char *)r->shared + metronome_trace_offset(r->ring_bytes, ring));
    uint64_t capacity = r->ring_bytes / 4, at = from & (capacity - 1), straight = n < capacity - at ? n : capacity - at;

    memcpy(r->words, words + at, straight * sizeof *words);
    memcpy(r->words + straight, words, (n - straight) * sizeof *words);
}

/* A part of what is there, up to the end of a record; the ring has that room again before anybody waits for the file. */
static bool take_part(struct trace_reader *r, unsigned ring, uint64_t there)
{
    uint64_t n = there < PART_WORDS ? there : PART_WORDS, taken;
    uint32_t kept;

    copy(r, ring, r->taken[ring], n);
    taken = choose(r, ring, n, &kept);
    if (!taken) {
        r->error = r->error ? r->error : "the trace of the hypervisor makes no sense";
        return false;
    }
    r->taken[ring] += taken;
    __atomic_store_n(&r->shared->ring[ring].consumed, r->taken[ring], __ATOMIC_RELEASE);
    return !kept || put_window(r, ring, r->words, kept);
}

static bool take_ring(struct trace_reader *r, unsigned ring)
{
    uint64_t until = __atomic_load_n(&r->shared->ring[ring].produced, __ATOMIC_ACQUIRE);

    if (until - r->taken[ring] > r->ring_bytes / 4) {
        r->error = "the trace of the hypervisor makes no sense";
        return false;
    }
    while (until != r->taken[ring])
        if (!take_part(r, ring, until - r->taken[ring]))
            return false;
    return true;
}

bool trace_take(struct trace_reader *r)
{
    for (unsigned i = 0; i < r->rings; i++)
        if (!take_ring(r, i))
            return false;
    return true;
}

static uint64_t lost_in(const struct trace_reader *r, unsigned ring)
{
    return __atomic_load_n(&r->shared->ring[ring].lost, __ATOMIC_ACQUIRE);
}

static bool tell_lost(struct trace_reader *r, unsigned ring, uint32_t lost)
{
    enum { WORDS = 5 };
    const uint32_t record[WORDS] = {METRONOME_TRACE_LOST | METRONOME_TRACE_EXTRA(WORDS - 1), lost};

    r->lost += lost;
    return put_window(r, ring, record, WORDS);
}

/* A pCPU may be amid its last record still: the count that it clears has become a record of the ring before. */
bool trace_take_rest(struct trace_reader *r)
{
    for (unsigned i = 0; i < r->rings; i++) {
        uint64_t before = lost_in(r, i), lost;

        if (!take_ring(r, i))
            return false;
        lost = lost_in(r, i);
        if (lost ? !tell_lost(r, i, (uint32_t)lost) : before && !take_ring(r, i))
            return false;
    }
    return true;
}
