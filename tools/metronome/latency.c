/*
 * `metronome latency`: how long interrupts of running guests take, as a table, in JSON, or drawn.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/latency.h"
#include "duration.h"
#include "json.h"
#include "ledgers.h"
#include "plot.h"
#include "run.h"

#define SAMPLES_AT_MOST 120 /* columns of a heat map */
#define SHORTEST_SAMPLE_S 0.1

/* X(permille, key, text) */
#define PERCENTILES(X) \
    X(500, "p50_ns", "p50") X(900, "p90_ns", "p90") X(990, "p99_ns", "p99") X(999, "p99_9_ns", "p99.9") X(1000, "max_ns", "max")
#define X(permille, key, text) permille,
static const unsigned permilles[] = {PERCENTILES(X)};
#undef X
#define X(permille, key, text) key,
static const char *const permille_keys[] = {PERCENTILES(X)};
#undef X
#define X(permille, key, text) text,
static const char *const permille_names[] = {PERCENTILES(X)};
#undef X
#define COLUMNS (sizeof permilles / sizeof permilles[0])

#define X(name, key, text) key,
static const char *const source_keys[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X
#define X(name, key, text) text,
static const char *const source_names[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X
#define X(name, key) key,
static const char *const stage_keys[] = {METRONOME_LATENCY_STAGES(X)};
#undef X

/* As the table has them: what an interrupt waits for the hypervisor comes first. */
static const struct {
    unsigned stage;
    const char *text;
} order[] = {
    {METRONOME_LATENCY_EXIT, "exit to injected"},
    {METRONOME_LATENCY_DUE, "due to injected"},
    {METRONOME_LATENCY_POSTED, "posted to injected"},
    {METRONOME_LATENCY_AGAIN, "injected to injected again"},
    {METRONOME_LATENCY_EOI, "injected to EOI"},
};
#define STAGES (sizeof order / sizeof order[0])

struct percentiles {
    uint64_t n, ns[COLUMNS];
};

static struct percentiles percentiles_of(const struct metronome_histogram *h, uint64_t tsc_hz)
{
    struct percentiles p = {metronome_latency_total(h), {0}};

    for (unsigned i = 0; p.n && i < COLUMNS; i++)
        p.ns[i] = ticks_ns(metronome_latency_permille(h, p.n, permilles[i]), tsc_hz);
    return p;
}

/* ---- As a table ---- */

static void print_row(const char *name, const struct percentiles *p)
{
    char text[DURATION_BYTES];

    printf("    %-26s %12" PRIu64, name, p->n);
    for (unsigned i = 0; i < COLUMNS; i++)
        printf(" %9s", duration_text(text, p->ns[i]));
    putchar('\n');
}

static bool print_stage(const struct metronome_latency *l, uint64_t tsc_hz, unsigned i)
{
    bool any = false;

    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        struct percentiles p = percentiles_of(&l->of[source][order[i].stage], tsc_hz);

        if (!p.n)
            continue;
        if (!any)
            printf("  %s\n", order[i].text);
        any = true;
        print_row(source_names[source], &p);
    }
    return any;
}

static void print_table(const struct guest_facts *g, const struct metronome_latency *l)
{
    char head[NAME_BYTES + 20];
    bool any = false;

    snprintf(head, sizeof head, g->id ? "%s (%" PRIu32 ")" : "%s", g->name, g->id);
    printf("%-30s %12s", head, "n");
    for (unsigned i = 0; i < COLUMNS; i++)
        printf(" %9s", permille_names[i]);
    putchar('\n');
    for (unsigned i = 0; i < STAGES; i++)
        any |= print_stage(l, g->tsc_hz, i);
    if (!any)
        puts("  no interrupts");
}

/* ---- In JSON ---- */

static void json_histogram(const char *name, const struct percentiles *p, bool first)
{
    printf("%s\"%s\": {\"n\": %" PRIu64, first ? "" : ", ", name, p->n);
    for (unsigned i = 0; p->n && i < COLUMNS; i++)
        printf(", \"%s\": %" PRIu64, permille_keys[i], p->ns[i]);
    putchar('}');
}

static void print_json(const struct guest_facts *g, const struct metronome_latency *l, bool first)
{
    printf("%s{\"name\": ", first ? "" : ",\n ");
    json_string(g->name);
    printf(", \"id\": %" PRIu32 ", \"tsc_hz\": %" PRIu64 ", \"sources\": {", g->id, g->tsc_hz);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        printf("%s\n  \"%s\": {", source ? "," : "", source_keys[source]);
        for (unsigned i = 0; i < STAGES; i++) {
            struct percentiles p = percentiles_of(&l->of[source][order[i].stage], g->tsc_hz);

            json_histogram(stage_keys[order[i].stage], &p, !i);
        }
        putchar('}');
    }
    fputs("}}", stdout);
}

/* ---- For a while: what has come in it ---- */

static volatile sig_atomic_t enough;

static void on_signal(int number)
{
    (void)number;
    enough = 1;
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_until(double moment)
{
    struct timespec t = {(time_t)moment, (long)((moment - (double)(time_t)moment) * 1e9)};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); /* a signal ends it: enough has been seen */
}

static const struct metronome_latency *of_guest(const struct ledgers *l, uint32_t id)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->guest[i].id == id)
            return &l->of[i];
    return NULL;
}

static void subtract(struct metronome_histogram *from, const struct metronome_histogram *what)
{
    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++)
        from->count[b] -= from->count[b] < what->count[b] ? from->count[b] : what->count[b];
}

/* What `l` has more than `before`; a guest that was not there yet keeps all of its own. */
static void since(struct ledgers *l, const struct ledgers *before)
{
    for (unsigned i = 0; i < l->n; i++) {
        const struct metronome_latency *b = of_guest(before, l->guest[i].id);

        for (unsigned h = 0; b && h < METRONOME_LATENCY_SOURCE_COUNT * METRONOME_LATENCY_STAGE_COUNT; h++)
            subtract(&l->of[i].of[0][0] + h, &b->of[0][0] + h);
    }
}

static void watch_once(const struct ledgers *before, const struct ledgers *now, double from, double to, struct heat *heat)
{
    const struct metronome_latency *b = heat && now->n ? of_guest(before, now->guest[0].id) : NULL;

    if (b)
        heat_add(heat, b, &now->of[0], now->guest[0].tsc_hz, from, to);
}

/* *l: its ledgers at the beginning, then what came in `seconds`, or until a signal or the guest's end. */
static void watch(struct ledgers *l, const char *guest, double seconds, struct heat *heat)
{
    double start = seconds_now(), step = seconds / SAMPLES_AT_MOST, before = 0, now;
    struct ledgers first = *l, last = *l, next;

    step = step > SHORTEST_SAMPLE_S ? step : SHORTEST_SAMPLE_S;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    while (!enough && before < seconds) {
        sleep_until(start + (before + step < seconds ? before + step : seconds));
        now = seconds_now() - start;
        if (ledgers_take(&next, guest))
            break;
        watch_once(&last, &next, before, now, heat);
        if (last.of != first.of)
            ledgers_free(&last);
        last = next;
        before = now;
    }
    *l = last;
    if (last.of == first.of)
        memset(l->of, 0, l->n * sizeof *l->of);
    else
        since(l, &first);
}

/* ---- The command ---- */

static struct {
    const char *guest, *input, *plot;
    double watch_s; /* 0: what has come since the guests' start */
    bool json;
} wanted;

static const char help[] =
    "Usage: metronome latency [OPTION]... [GUEST]\n"
    "Shows how long interrupts take, of one guest or of all: percentiles by source, from the moment a timer was due and\n"
    "from the post to a local APIC (or the rise of the PIC's INT) until the entry that injects; then until the EOI.\n\n"
    "  --watch SECONDS  only what comes from now on, for so long, or until Ctrl-C\n"
    "  --plot FILE.svg  draw it, of one guest: percentile curves and, with --watch, what came when\n"
    "  -i, --input FILE what `metronome run --latency FILE` has written, in place of a guest\n"
    "  --json           for programs; times in ns\n";

static double seconds_of(const char *value)
{
    char *rest;
    double seconds = strtod(value, &rest);

    if (rest == value || *rest || !(seconds >= SHORTEST_SAMPLE_S && seconds <= 86400))
        bad_input("--watch: '%s' is no number of seconds from %.1f to 86400", value, SHORTEST_SAMPLE_S);
    return seconds;
}

static void take_option(int option)
{
    if (option == 'h') {
        fputs(help, stdout);
        exit(0);
    } else if (option == 'j') {
        wanted.json = true;
    } else if (option == 'p') {
        wanted.plot = optarg;
    } else if (option == 'i') {
        wanted.input = optarg;
    } else if (option == 'w') {
        wanted.watch_s = seconds_of(optarg);
    } else {
        exit(EXIT_USAGE); /* getopt has said why */
    }
}

static void take_arguments(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, 'j'}, {"plot", required_argument, NULL, 'p'},
        {"watch", required_argument, NULL, 'w'}, {"input", required_argument, NULL, 'i'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "hi:", options, NULL)) != -1)
        take_option(option);
    if (argc - optind > 1)
        bad_input("latency takes one guest at most: its name or number");
    wanted.guest = argv[optind];
    if (wanted.input && (wanted.guest || wanted.watch_s > 0))
        bad_input("--input: a file is in place of a guest, and nothing comes in it any more");
}

static void show(const struct ledgers *l)
{
    if (wanted.json)
        putchar('[');
    for (unsigned i = 0; i < l->n; i++) {
        if (wanted.json)
            print_json(&l->guest[i], &l->of[i], !i);
        else
            print_table(&l->guest[i], &l->of[i]);
    }
    if (wanted.json)
        puts("]");
    else if (!l->n)
        puts("no guest is running");
    fflush(stdout);
}

int latency_command(int argc, char **argv)
{
    struct heat *heat = NULL;
    struct ledgers l;
    int status;

    take_arguments(argc, argv);
    status = wanted.input ? ledgers_read(&l, wanted.input) : ledgers_take(&l, wanted.guest);
    if (status)
        return status;
    if (wanted.plot && l.n != 1)
        bad_input("--plot: %s", l.n ? "a drawing is of one guest: `metronome list` shows them" : "no guest is running");
    if (wanted.plot)
        plot_check(wanted.plot);
    if (wanted.plot && wanted.watch_s > 0)
        heat = heat_new();
    if (wanted.watch_s > 0)
        watch(&l, wanted.guest, wanted.watch_s, heat);
    show(&l);
    return wanted.plot ? plot(wanted.plot, &l.guest[0], &l.of[0], heat) : EXIT_ENDED;
}
