#include <inttypes.h>
#include <stdio.h>

#include "run.h"

#define X(name, text) text,
static const char *const exit_names[] = {METRONOME_EXIT_REASONS(X)};
static const char *const inject_names[] = {METRONOME_INJECT_SOURCES(X)};
#undef X

static uint64_t sum(const uint64_t *values, unsigned count)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < count; i++)
        total += values[i];
    return total;
}

static void share(const char *name, uint64_t value, uint64_t total)
{
    fprintf(stderr, "    %-32s %14" PRIu64 "  %5.1f %%", name, value, 100.0 * (double)value / (double)total);
}

static void exits_table(const struct metronome_stats *s)
{
    uint64_t total = sum(s->exits, METRONOME_EXIT_COUNT);

    fprintf(stderr, "  %-34s %14" PRIu64 " %33s\n", "exits", total, "longest off, TSC ticks");
    for (unsigned i = 0; i < METRONOME_EXIT_COUNT; i++) {
        if (!s->exits[i])
            continue;
        share(exit_names[i], s->exits[i], total);
        fprintf(stderr, " %23" PRIu64 "\n", s->longest_off[i]);
    }
    fprintf(stderr, "    %-32s %48" PRIu64 "\n", "none: the CPUs' loop", s->longest_off_loop);
}

static void injections_table(const struct metronome_stats *s)
{
    uint64_t total = sum(s->injected, METRONOME_INJECT_COUNT);

    fprintf(stderr, "  %-34s %14" PRIu64 "\n", "interrupts injected", total);
    for (unsigned i = 0; i < METRONOME_INJECT_COUNT; i++) {
        if (!s->injected[i])
            continue;
        share(inject_names[i], s->injected[i], total);
        fputc('\n', stderr);
    }
}

#define X(name, key, text) text,
static const char *const source_names[] = {METRONOME_TICK_SOURCES(X)};
#undef X

static void ticks_line(const char *source, unsigned policy, const struct metronome_ledger *l)
{
    fprintf(stderr, "    %-18s %-11s %14" PRIu64 " %11" PRIu64 " %11" PRIu64 " %11" PRIu64 " %6" PRIu64 " %8" PRIu64 "\n", source,
            policy < METRONOME_TICK_POLICY_COUNT ? metronome_tick_policy_keys[policy] : "?", l->due, l->delivered, l->collapsed,
            l->dropped, l->owed, l->pending);
}

static void ticks_table(const struct metronome_stats *s)
{
    fprintf(stderr, "  %-32s %14s %11s %11s %11s %6s %8s\n", "ticks", "due", "delivered", "collapsed", "dropped", "owed",
            "pending");
    for (unsigned i = 0; i < METRONOME_TICK_SOURCE_COUNT; i++)
        if (s->ticks[i].due)
            ticks_line(source_names[i], s->policies >> METRONOME_TICKS_SHIFT(i) & 15, &s->ticks[i]);
}

/* What was put off, where anything was. */
static void delays_table(const struct metronome_stats *s)
{
    for (unsigned pin = 0; pin < METRONOME_STATS_PINS; pin++)
        if (s->storms[pin])
            fprintf(stderr, "  storm on I/O APIC pin %-12u %14" PRIu64 " interrupts held off\n", pin, s->storms[pin]);
    if (s->expiries_put_off)
        fprintf(stderr, "  %-34s %14" PRIu64 "\n", "timer expiries put off", s->expiries_put_off);
    if (s->held_ticks)
        fprintf(stderr, "  %-34s %14" PRIu64 "\n", "TSC ticks held for a timer", s->held_ticks);
}

#define X(name, key, text) text,
static const char *const latency_names[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X

static void latency_table(const struct metronome_latency_summary *ns)
{
    fprintf(stderr, "  %-34s %14s %11s %11s %11s %11s\n", "latency, ns", "n", "p50", "p99", "p99.9", "max");
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++)
        if (ns[i].n)
            fprintf(stderr, "    %-24s %-7s %14" PRIu64 " %11" PRIu64 " %11" PRIu64 " %11" PRIu64 " %11" PRIu64 "\n", latency_names[i],
                    metronome_latency_headline(i) == METRONOME_LATENCY_DUE ? "due" : "posted", ns[i].n, ns[i].p50, ns[i].p99, ns[i].p999,
                    ns[i].max);
}

static void time_table(const struct event *end)
{
    fprintf(stderr, "  %-34s %14.3f\n", "CPU time, s", (double)end->run_ns / 1e9);
    fprintf(stderr, "  %-34s %14.3f\n", "waited for a CPU, s", (double)end->steal_ns / 1e9);
}

void report_end(const struct event *end)
{
    const struct metronome_stats *s = &end->stats;

    time_table(end);
    exits_table(s);
    injections_table(s);
    ticks_table(s);
    delays_table(s);
    latency_table(end->latency_ns);
}
