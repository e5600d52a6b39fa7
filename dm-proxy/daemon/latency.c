#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/latency.h"

#define X(name, key, text) key,
static const char *const sources[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X
#define X(name, key) key,
static const char *const stages[] = {METRONOME_LATENCY_STAGES(X)};
#undef X

#define BEHIND_RATE ", \"bucket\": [\"first_ticks\", \"width_ticks\", \"count\"], \"sources\": {"

/* Of each bucket that counts something: its shortest time, how many times it covers, and what it counts. */
static void write_histogram(FILE *f, const struct metronome_histogram *h)
{
    const char *between = "";

    fputc('[', f);
    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++)
        if (h->count[b]) {
            fprintf(f, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", between, metronome_latency_first(b), metronome_latency_width(b),
                    h->count[b]);
            between = ",";
        }
    fputc(']', f);
}

static void write_source(FILE *f, const struct metronome_histogram *of)
{
    for (unsigned stage = 0; stage < METRONOME_LATENCY_STAGE_COUNT; stage++) {
        fprintf(f, "%s\n    \"%s\": ", stage ? "," : "", stages[stage]);
        write_histogram(f, &of[stage]);
    }
}

#define LATE_KEYS(X) X(vcpu) X(vector) X(due) X(posted) X(entered) X(ticks)
#define BEHIND_SOURCES "}, \"exit\": [\"rip\", \"left\", \"entered\", \"reason\", \"cpu\", \"other\", \"other_ticks\"], \"late\": ["

/* In the host's TSC; those of a `reason` are numbered as in public/stats.h, `other` as by METRONOME_VCPU_ID(). */
static void write_late(FILE *f, const struct metronome_late *l)
{
    fprintf(f, "\n  {\"source\": %" PRIu32, l->source);
#define X(key) fprintf(f, ", \"" #key "\": %" PRIu64, (uint64_t)l->key);
    LATE_KEYS(X)
#undef X
    fputs(", \"exits\": [", f);
    for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++) {
        const struct metronome_exit_record *e = &l->exit[i];

        fprintf(f, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%u,%u,%u,%" PRIu32 "]", i ? "," : "", e->rip, e->left, e->entered,
                e->reason, e->cpu, e->other, e->other_ticks);
    }
    fputs("]}", f);
}

static void write_all_late(FILE *f, const struct metronome_latency *l)
{
    const char *between = "";

    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT * METRONOME_LATE_KEPT; i++) {
        const struct metronome_late *late = &l->late[0][0] + i;

        if (!late->ticks)
            continue;
        fputs(between, f);
        write_late(f, late);
        between = ",";
    }
}

bool latency_write(const struct metronome_latency *l, uint64_t tsc_hz, int cwd, const char *path)
{
    int fd = openat(cwd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    bool failed;

    if (!f)
        return false;
    fprintf(f, "{\"tsc_hz\": %" PRIu64 BEHIND_RATE, tsc_hz);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        fprintf(f, "%s\n  \"%s\": {", source ? "," : "", sources[source]);
        write_source(f, l->of[source]);
        fputc('}', f);
    }
    fputs("\n" BEHIND_SOURCES, f);
    write_all_late(f, l);
    fputs("\n]}\n", f);
    failed = ferror(f);
    return !fclose(f) && !failed;
}

/* ---- Back from a file ---- */

/* The next characters are these, whatever white space is between them. */
static bool take(FILE *f, const char *text)
{
    for (; *text; text++) {
        int c;

        if (*text == ' ')
            continue;
        do
            c = fgetc(f);
        while (c == ' ' || c == '\n');
        if (c != *text)
            return false;
    }
    return true;
}

static bool take_number(FILE *f, uint64_t *value)
{
    return fscanf(f, "%" SCNu64, value) == 1;
}

/* Of the next characters that are not white space. */
static bool take_if(FILE *f, char wanted)
{
    int c;

    do
        c = fgetc(f);
    while (c == ' ' || c == '\n');
    if (c != wanted)
        ungetc(c, f);
    return c == wanted;
}

static bool read_bucket(FILE *f, struct metronome_histogram *h)
{
    uint64_t first, width, count;
    unsigned b;

    if (!take(f, "[") || !take_number(f, &first) || !take(f, ",") || !take_number(f, &width) || !take(f, ",") ||
        !take_number(f, &count) || !take(f, "]") || first > METRONOME_LATENCY_MAX)
        return false;
    b = metronome_latency_bucket(first);
    h->count[b] = count;
    return metronome_latency_first(b) == first && metronome_latency_width(b) == width;
}

static bool read_histogram(FILE *f, struct metronome_histogram *h)
{
    if (!take(f, "["))
        return false;
    if (take_if(f, ']'))
        return true;
    do
        if (!read_bucket(f, h))
            return false;
    while (take_if(f, ','));
    return take(f, "]");
}

static bool take_key(FILE *f, const char *key, unsigned place)
{
    return (!place || take(f, ",")) && take(f, "\"") && take(f, key) && take(f, "\":");
}

static bool read_source(FILE *f, struct metronome_histogram *of)
{
    for (unsigned stage = 0; stage < METRONOME_LATENCY_STAGE_COUNT; stage++)
        if (!take_key(f, stages[stage], stage) || !read_histogram(f, &of[stage]))
            return false;
    return true;
}

static bool read_exit(FILE *f, struct metronome_exit_record *e)
{
    uint64_t value[7];

    for (unsigned i = 0; i < 7; i++)
        if (!take(f, i ? "," : "[") || !take_number(f, &value[i]))
            return false;
    *e = (struct metronome_exit_record){.rip = value[0], .left = value[1], .entered = value[2], .reason = (uint8_t)value[3],
                                        .cpu = (uint8_t)value[4], .other = (uint16_t)value[5], .other_ticks = (uint32_t)value[6]};
    return take(f, "]");
}

/* Behind its brace. */
static bool read_late(FILE *f, struct metronome_late *l)
{
    uint64_t value;

#define X(key) \
    if (!take(f, ", \"" #key "\":") || !take_number(f, &value)) \
        return false; \
    l->key = (__typeof__(l->key))value;
    LATE_KEYS(X)
#undef X
    for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++)
        if (!take(f, i ? "," : ", \"exits\": [") || !read_exit(f, &l->exit[i]))
            return false;
    return take(f, "]}");
}

static bool read_all_late(FILE *f, struct metronome_latency *l)
{
    unsigned n[METRONOME_LATENCY_SOURCE_COUNT] = {0};
    uint64_t source;

    if (!take(f, BEHIND_SOURCES))
        return false;
    if (take_if(f, ']'))
        return true;
    do
        if (!take(f, "{\"source\":") || !take_number(f, &source) || source >= METRONOME_LATENCY_SOURCE_COUNT ||
            n[source] == METRONOME_LATE_KEPT || !read_late(f, &l->late[source][n[source]++]))
            return false;
    while (take_if(f, ','));
    return take(f, "]");
}

static bool read_all(FILE *f, struct metronome_latency *l, uint64_t *tsc_hz)
{
    if (!take(f, "{\"tsc_hz\":") || !take_number(f, tsc_hz) || !take(f, BEHIND_RATE))
        return false;
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        if (!take_key(f, sources[source], source) || !take(f, "{") || !read_source(f, l->of[source]) || !take(f, "}"))
            return false;
    return read_all_late(f, l) && take(f, "}");
}

bool latency_read(struct metronome_latency *l, uint64_t *tsc_hz, const char *path)
{
    FILE *f = fopen(path, "re");
    bool whole;

    if (!f)
        return false;
    whole = read_all(f, l, tsc_hz);
    errno = ferror(f) ? errno : 0;
    fclose(f);
    return whole;
}

/* ---- Summed up ---- */

void latency_ns(const struct metronome_latency *l, uint64_t tsc_hz, struct metronome_latency_summary *to)
{
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++) {
        struct metronome_latency_summary s = metronome_latency_summary(&l->of[i][metronome_latency_headline(i)]);

        to[i] = (struct metronome_latency_summary){s.n, ticks_ns(s.p50, tsc_hz), ticks_ns(s.p99, tsc_hz), ticks_ns(s.p999, tsc_hz),
                                                   ticks_ns(s.max, tsc_hz)};
    }
}
