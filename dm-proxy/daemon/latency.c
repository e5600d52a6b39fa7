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

bool latency_write(const struct metronome_latency *l, uint64_t tsc_hz, int cwd, const char *path)
{
    int fd = openat(cwd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    bool failed;

    if (!f)
        return false;
    fprintf(f, "{\"tsc_hz\": %" PRIu64 ", \"bucket\": [\"first_ticks\", \"width_ticks\", \"count\"], \"sources\": {", tsc_hz);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        fprintf(f, "%s\n  \"%s\": {", source ? "," : "", sources[source]);
        write_source(f, l->of[source]);
        fputc('}', f);
    }
    fputs("\n}}\n", f);
    failed = ferror(f);
    return !fclose(f) && !failed;
}

static uint64_t ns_of(uint64_t ticks, uint64_t tsc_hz)
{
    return (uint64_t)((double)ticks * 1e9 / (double)(tsc_hz ? tsc_hz : 1));
}

void latency_ns(const struct metronome_latency *l, uint64_t tsc_hz, struct metronome_latency_summary *to)
{
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++) {
        struct metronome_latency_summary s = metronome_latency_summary(&l->of[i][metronome_latency_headline(i)]);

        to[i] = (struct metronome_latency_summary){s.n, ns_of(s.p50, tsc_hz), ns_of(s.p99, tsc_hz), ns_of(s.p999, tsc_hz),
                                                   ns_of(s.max, tsc_hz)};
    }
}
