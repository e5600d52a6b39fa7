/*
 * `metronome why-late`: the latest interrupts, and what their time went to, by the exits before them.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/latency.h"
#include "duration.h"
#include "errand.h"
#include "json.h"
#include "ledgers.h"
#include "run.h"

#define X(name, text) text,
static const char *const exit_names[] = {METRONOME_EXIT_REASONS(X)};
#undef X
#define X(name, key, text) key,
static const char *const source_keys[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X
#define X(name, key, text) text,
static const char *const source_names[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X

/* X(NAME, key, text): what a late interrupt's time can have gone to, beside exits, which follow by their reasons. */
#define COSTS(X) \
    X(OTHERS, "others", "other vCPUs had the CPU") \
    X(UNAWARE, "guest_not_posted", "the guest ran: it was not posted yet, as the host's timer or another CPU was late") \
    X(DEAF, "guest_deaf", "the guest ran: it had interrupts off, or was busy with a higher one") \
    X(BEFORE, "before", "before the exits that are kept")
#define X(name, key, text) COST_##name,
enum cost { COSTS(X) COST_OF_EXITS, COST_COUNT = COST_OF_EXITS + METRONOME_EXIT_COUNT };
#undef X
#define X(name, key, text) key,
static const char *const cost_keys[] = {COSTS(X)};
#undef X
#define X(name, key, text) text,
static const char *const cost_texts[] = {COSTS(X)};
#undef X

struct account {
    uint64_t ticks[COST_COUNT];
    unsigned exits[METRONOME_EXIT_COUNT];
    unsigned entries; /* that it was not injected at, although it was posted */
    uint16_t other;   /* the last one */
};

static struct {
    const char *guest, *input;
    int source; /* -1: all */
    bool json, clear;
} wanted = {.source = -1};

static struct ledgers guests;

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static unsigned reason_of(const struct metronome_exit_record *e)
{
    return e->reason < METRONOME_EXIT_COUNT ? e->reason : METRONOME_EXIT_OTHER;
}

static uint64_t since(const struct metronome_late *l)
{
    return l->due ? l->due : l->posted;
}

/* The last one's entry is the injection. */
static uint64_t end_of(const struct metronome_late *l, unsigned i)
{
    return i == METRONOME_LATE_EXITS - 1 ? l->entered : least(l->exit[i].entered, l->entered);
}

/* From the exit to the injection. */
static uint64_t before_ns(const struct metronome_late *l, const struct metronome_exit_record *e, uint64_t tsc_hz)
{
    return ticks_ns(l->entered - least(e->left, l->entered), tsc_hz);
}

/* The guest's time from `from` to `to`. */
static void add_guest(struct account *a, const struct metronome_late *l, uint64_t from, uint64_t to)
{
    uint64_t posted = l->posted < from ? from : least(l->posted, to);

    a->ticks[COST_UNAWARE] += posted - from;
    a->ticks[COST_DEAF] += to - posted;
}

static void add_exit(struct account *a, const struct metronome_exit_record *e, uint64_t ticks)
{
    uint64_t others = e->other ? least(e->other_ticks, ticks) : 0;

    a->ticks[COST_OTHERS] += others;
    a->ticks[COST_OF_EXITS + reason_of(e)] += ticks - others;
    a->exits[reason_of(e)]++;
    if (others)
        a->other = e->other;
}

/* The time from when it was due, or posted, until it was injected. */
static struct account account_of(const struct metronome_late *l)
{
    struct account a = {{0}, {0}, 0, 0};
    uint64_t at = since(l);

    for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++) {
        const struct metronome_exit_record *e = &l->exit[i];
        uint64_t left = least(e->left, l->entered), end = end_of(l, i);

        if (!e->left)
            continue;
        a.entries += end > l->posted && end < l->entered;
        if (left > at && !i)
            a.ticks[COST_BEFORE] += left - at;
        else if (left > at)
            add_guest(&a, l, at, left);
        at = left > at ? left : at;
        if (end > at)
            add_exit(&a, e, end - at);
        at = end > at ? end : at;
    }
    return a;
}

static unsigned largest(const struct account *a)
{
    unsigned best = 0;

    for (unsigned i = 1; i < COST_COUNT; i++)
        best = a->ticks[i] > a->ticks[best] ? i : best;
    return best;
}

/* Who had a CPU in between. */
static void put_other(FILE *out, uint16_t id)
{
    unsigned slot = (id - 1u) / METRONOME_MAX_VCPUS, vcpu = (id - 1u) % METRONOME_MAX_VCPUS;

    for (unsigned i = 0; i < guests.n; i++)
        if (guests.guest[i].slot == (int32_t)slot) {
            fprintf(out, "%s (%" PRIu32 "), vCPU %u", guests.guest[i].name, guests.guest[i].id, vcpu);
            return;
        }
    fprintf(out, "a guest that is gone, slot %u, vCPU %u", slot, vcpu);
}

static char *other_text(uint16_t id)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    put_other(out, id);
    fclose(out);
    return text;
}

/* ---- For people ---- */

static void print_costs(const struct metronome_late *l, struct account a, uint64_t tsc_hz)
{
    char text[DURATION_BYTES];

    if (a.entries)
        printf("    not injected at %u%s entr%s behind its post: the guest had interrupts off, or was busy with a higher one\n",
               a.entries, l->exit[0].left && l->exit[0].entered > l->posted ? " or more" : "", a.entries > 1 ? "ies" : "y");
    for (unsigned i = largest(&a); a.ticks[i]; a.ticks[i] = 0, i = largest(&a)) {
        printf("    %9s %5.1f %%  ", duration_text(text, ticks_ns(a.ticks[i], tsc_hz)), 100.0 * (double)a.ticks[i] / (double)l->ticks);
        if (i < COST_OF_EXITS)
            fputs(cost_texts[i], stdout);
        else
            printf("exit%s: %s", a.exits[i - COST_OF_EXITS] > 1 ? "s" : "", exit_names[i - COST_OF_EXITS]);
        if (i == COST_OTHERS && a.other) {
            fputs(", last: ", stdout);
            put_other(stdout, a.other);
        } else if (i >= COST_OF_EXITS && a.exits[i - COST_OF_EXITS] > 1) {
            printf(", %u of them", a.exits[i - COST_OF_EXITS]);
        }
        putchar('\n');
    }
}

static bool are_alike(const struct metronome_exit_record *a, const struct metronome_exit_record *b)
{
    return a->left && a->reason == b->reason && a->rip == b->rip && a->cpu == b->cpu && !a->other && !b->other;
}

/* `n` exits that are alike, from the i-th on; those of a loop make one line. */
static void print_exits(const struct metronome_late *l, unsigned i, unsigned n, uint64_t tsc_hz)
{
    const struct metronome_exit_record *e = &l->exit[i];
    uint64_t took = 0;
    char before[DURATION_BYTES], took_text[DURATION_BYTES], number[16] = "";

    for (unsigned k = i; k < i + n; k++)
        took += end_of(l, k) - least(l->exit[k].left, end_of(l, k));
    if (n > 1)
        snprintf(number, sizeof number, " x %u", n);
    printf("    %9s  %9s  %-30s%-5s %#18" PRIx64 "  CPU %u", duration_text(before, before_ns(l, e, tsc_hz)),
           duration_text(took_text, ticks_ns(took, tsc_hz)), exit_names[reason_of(e)], number, e->rip, e->cpu);
    if (e->other) {
        printf("; %s: ", duration_text(took_text, ticks_ns(e->other_ticks, tsc_hz)));
        put_other(stdout, e->other);
    }
    putchar('\n');
}

/* Those that were going on in that time, and one before. */
static void print_way(const struct metronome_late *l, uint64_t tsc_hz)
{
    unsigned i = 0, n;

    while (i < METRONOME_LATE_EXITS - 1 && (!l->exit[i].left || end_of(l, i + 1) < since(l)))
        i++;
    printf("       before       took  exit                                             RIP  left on; who had it then\n");
    for (; i < METRONOME_LATE_EXITS; i += n) {
        for (n = 1; i + n < METRONOME_LATE_EXITS && are_alike(&l->exit[i], &l->exit[i + n]); n++)
            ;
        if (l->exit[i].left)
            print_exits(l, i, n, tsc_hz);
    }
}

static void print_late(const struct metronome_late *l, unsigned place, uint64_t tsc_hz)
{
    char text[DURATION_BYTES];

    printf("  %u. %s: vector %#x on vCPU %" PRIu32 "\n", place, duration_text(text, ticks_ns(l->ticks, tsc_hz)), l->vector, l->vcpu);
    print_costs(l, account_of(l), tsc_hz);
    print_way(l, tsc_hz);
}

/* ---- For programs ---- */

static void json_costs(const struct account *a, uint64_t tsc_hz)
{
    const char *between = "";

    fputs("\"costs_ns\": {", stdout);
    for (unsigned i = 0; i < COST_COUNT; i++) {
        if (!a->ticks[i])
            continue;
        printf("%s\"%s%s\": %" PRIu64, between, i < COST_OF_EXITS ? "" : "exit: ",
               i < COST_OF_EXITS ? cost_keys[i] : exit_names[i - COST_OF_EXITS], ticks_ns(a->ticks[i], tsc_hz));
        between = ", ";
    }
    putchar('}');
}

static void json_exit(const struct metronome_late *l, unsigned i, uint64_t tsc_hz)
{
    const struct metronome_exit_record *e = &l->exit[i];

    printf("{\"reason\": \"%s\", \"rip\": %" PRIu64 ", \"before_ns\": %" PRIu64 ", \"took_ns\": %" PRIu64 ", \"cpu\": %u",
           exit_names[reason_of(e)], e->rip, before_ns(l, e, tsc_hz), ticks_ns(end_of(l, i) - least(e->left, end_of(l, i)), tsc_hz), e->cpu);
    if (e->other) {
        char *other = other_text(e->other);

        fputs(", \"other\": ", stdout);
        json_string(other);
        printf(", \"other_ns\": %" PRIu64, ticks_ns(e->other_ticks, tsc_hz));
        free(other);
    }
    putchar('}');
}

static void json_late(const struct metronome_late *l, unsigned place, uint64_t tsc_hz)
{
    struct account a = account_of(l);
    const char *between = "";

    printf("%s\n   {\"late_ns\": %" PRIu64 ", \"vector\": %" PRIu32 ", \"vcpu\": %" PRIu32 ", \"posted_ns\": %" PRIu64 ", ",
           place > 1 ? "," : "", ticks_ns(l->ticks, tsc_hz), l->vector, l->vcpu, ticks_ns(l->entered - least(l->posted, l->entered), tsc_hz));
    json_costs(&a, tsc_hz);
    printf(", \"entries_waited\": %u", a.entries);
    fputs(", \"exits\": [", stdout);
    for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++) {
        if (!l->exit[i].left)
            continue;
        fputs(between, stdout);
        json_exit(l, i, tsc_hz);
        between = ", ";
    }
    fputs("]}", stdout);
}

/* ---- Which ---- */

static int by_ticks(const void *a, const void *b)
{
    uint64_t x = ((const struct metronome_late *)a)->ticks, y = ((const struct metronome_late *)b)->ticks;

    return (x < y) - (x > y);
}

/* One that was being written while it was copied is left out: it comes with the next look. */
static bool is_whole(const struct metronome_late *l)
{
    return l->ticks && l->begun == l->done;
}

/* Puts the latest first, and says how many there are. */
static unsigned sort(struct metronome_late late[METRONOME_LATE_KEPT])
{
    unsigned n = 0;

    for (unsigned i = 0; i < METRONOME_LATE_KEPT; i++)
        if (is_whole(&late[i]))
            n++;
        else
            late[i].ticks = 0;
    qsort(late, METRONOME_LATE_KEPT, sizeof *late, by_ticks);
    return n;
}

static bool show_source(const struct guest_facts *g, struct metronome_latency *l, unsigned source, bool first)
{
    unsigned n = sort(l->late[source]);

    if (!n || (wanted.source >= 0 && wanted.source != (int)source))
        return false;
    if (wanted.json)
        printf("%s\n  \"%s\": [", first ? "" : ",", source_keys[source]);
    else
        printf("%s, %s%s\n", g->name, source_names[source],
               metronome_latency_headline(source) == METRONOME_LATENCY_DUE ? ": from due to injected" : ": from posted to injected");
    for (unsigned i = 0; i < n; i++)
        (wanted.json ? json_late : print_late)(&l->late[source][i], i + 1, g->tsc_hz);
    if (wanted.json)
        putchar(']');
    return true;
}

static void show(const struct guest_facts *g, struct metronome_latency *l, bool first)
{
    bool any = false;

    if (wanted.json) {
        printf("%s{\"name\": ", first ? "" : ",\n ");
        json_string(g->name);
        printf(", \"id\": %" PRIu32 ", \"sources\": {", g->id);
    }
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        any |= show_source(g, l, source, !any);
    if (wanted.json)
        fputs("}}", stdout);
    else if (!any)
        printf("%s: no interrupts\n", g->name);
}

/* ---- The command ---- */

static const char help[] =
    "Usage: metronome why-late [OPTION]... [GUEST]\n"
    "Shows, of one guest or of all, the four latest interrupts of each source: what their time went to, and the exits before\n"
    "them: how long before the injection each was, how long it took until the guest went on, its RIP, and who had the CPU then.\n\n"
    "  --source SOURCE   only pit, rtc, hpet, lapic, ipi, line or msi\n"
    "  --clear           forget them: from now on later ones are kept\n"
    "  -i, --input FILE  what `metronome run --latency FILE` has written, in place of a guest\n"
    "  --json            for programs; times in ns\n";

static int source_of(const char *key)
{
    for (int i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++)
        if (!strcmp(key, source_keys[i]))
            return i;
    bad_input("--source: '%s' is not pit, rtc, hpet, lapic, ipi, line or msi", key);
}

static void take_option(int option)
{
    if (option == 'h') {
        fputs(help, stdout);
        exit(0);
    } else if (option == 'j') {
        wanted.json = true;
    } else if (option == 'c') {
        wanted.clear = true;
    } else if (option == 'i') {
        wanted.input = optarg;
    } else if (option == 's') {
        wanted.source = source_of(optarg);
    } else {
        exit(EXIT_USAGE); /* getopt has said why */
    }
}

static void take_arguments(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, 'j'}, {"clear", no_argument, NULL, 'c'},
        {"source", required_argument, NULL, 's'}, {"input", required_argument, NULL, 'i'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "hi:", options, NULL)) != -1)
        take_option(option);
    if (argc - optind > 1)
        bad_input("why-late takes one guest at most: its name or number");
    wanted.guest = argv[optind];
    if (wanted.input && (wanted.guest || wanted.clear))
        bad_input("--input: a file is in place of a guest, and nothing in it is forgotten");
    if (wanted.clear && (wanted.json || wanted.source >= 0))
        bad_input("--clear: forgets all of a guest's, and shows none");
}

static bool is_wanted(const struct guest_facts *g)
{
    char id[16];

    snprintf(id, sizeof id, "%" PRIu32, g->id);
    return !wanted.guest || !strcmp(wanted.guest, g->name) || !strcmp(wanted.guest, id);
}

static int clear(const struct guest_facts *g)
{
    char id[16];

    snprintf(id, sizeof id, "%" PRIu32, g->id);
    return errand(&(struct errand_order){.type = ERRAND_FORGET_LATE, .guest = id, .file = -1});
}

int why_late_command(int argc, char **argv)
{
    unsigned found = 0;
    int status;

    take_arguments(argc, argv);
    status = wanted.input ? ledgers_read(&guests, wanted.input) : ledgers_take(&guests, NULL); /* of all, for others' names */
    if (status)
        return status;
    if (wanted.json)
        putchar('[');
    for (unsigned i = 0; i < guests.n && !status; i++) {
        if (!is_wanted(&guests.guest[i]))
            continue;
        if (wanted.clear)
            status = clear(&guests.guest[i]);
        else
            show(&guests.guest[i], &guests.of[i], !found);
        found++;
    }
    if (wanted.json)
        puts("]");
    fflush(stdout);
    if (!found && wanted.guest)
        bad_input("%s: no guest of this name or number is running", wanted.guest);
    if (!found && !wanted.json)
        puts("no guest is running");
    return status;
}
