/*
 * `metronome top`: what guests do, by the second: exits by reason, interrupts injected by source, CPU time and what was waited for.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "errand.h"
#include "progress.h"
#include "run.h"
#include "terminal.h"

#define INTERVAL_S 2.0
#define SHORTEST_S 0.1
#define SOON_S 0.5
#define NARROWEST 20
#define CTRL_C 3

#define X(name, text) text,
static const char *const exit_names[] = {METRONOME_EXIT_REASONS(X)};
static const char *const inject_names[] = {METRONOME_INJECT_SOURCES(X)};
#undef X

/* What the daemon says at one time. */
struct sample {
    double at_s;
    unsigned n;
    struct guest_facts guest[METRONOME_MAX_SLOTS];
};

static struct sample *taken;

static void on_guest(const void *fact)
{
    const struct guest_facts *f = fact;

    if (f->type != EVENT_GUEST || f->state >= GUEST_STATES || taken->n == METRONOME_MAX_SLOTS)
        return;
    taken->guest[taken->n] = *f;
    taken->guest[taken->n++].name[NAME_BYTES - 1] = 0;
}

static int take(struct sample *s)
{
    int daemon = client_connect_running(), status;

    if (daemon < 0)
        return EXIT_NOT_UP;
    *s = (struct sample){0};
    taken = s;
    status = errand_to(daemon, &(struct errand_order){.type = ERRAND_LIST, .file = -1, .fact = on_guest}, NULL);
    s->at_s = progress_seconds();
    close(daemon);
    return status;
}

static const struct guest_facts *find(const struct sample *s, uint32_t id)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->guest[i].id == id)
            return &s->guest[i];
    return NULL;
}

/* ---- A guest's block ---- */

struct rate {
    const char *name;
    double per_s;
};

static double rate_of(uint64_t before, uint64_t now, double seconds)
{
    return now > before ? (double)(now - before) / seconds : 0;
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct rate *)a)->per_s, y = ((const struct rate *)b)->per_s;

    return (x < y) - (x > y);
}

/* The rates that are not 0, the highest first. Returns their number. */
static unsigned rates_of(struct rate *to, const uint64_t *before, const uint64_t *now, const char *const *names, unsigned count,
                         double seconds)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        if (now[i] > before[i])
            to[n++] = (struct rate){names[i], rate_of(before[i], now[i], seconds)};
    qsort(to, n, sizeof *to, by_rate);
    return n;
}

static double sum(const struct rate *r, unsigned n)
{
    double total = 0;

    while (n--)
        total += r[n].per_s;
    return total;
}

static void put_rate(FILE *out, const struct rate *r)
{
    if (r)
        fprintf(out, "    %-30s %9.*f", r->name, r->per_s < 10 ? 1 : 0, r->per_s);
    else
        fprintf(out, "    %-30s %9s", "", "");
}

/* In at most so many lines. */
static void put_guest(FILE *out, const struct guest_facts *before, const struct guest_facts *now, double seconds, unsigned lines)
{
    struct rate exits[METRONOME_EXIT_COUNT], injected[METRONOME_INJECT_COUNT];
    unsigned e = rates_of(exits, before->stats.exits, now->stats.exits, exit_names, METRONOME_EXIT_COUNT, seconds);
    unsigned i = rates_of(injected, before->stats.injected, now->stats.injected, inject_names, METRONOME_INJECT_COUNT, seconds);
    unsigned rows = e > i ? e : i, room = lines > 2 ? lines - 2 : 0;

    fprintf(out, "%s (%" PRIu32 ")  %s, %" PRIu32 " vCPU%s, CPU %.1f %%, steal %.1f %%\n", now->name, now->id,
            guest_state_words[now->state], now->vcpus, now->vcpus > 1 ? "s" : "", rate_of(before->run_ns, now->run_ns, seconds) / 1e7,
            rate_of(before->steal_ns, now->steal_ns, seconds) / 1e7);
    fprintf(out, "  %-32s %9.0f  %-32s %9.0f\n", "exits per second", sum(exits, e), "injected per second", sum(injected, i));
    for (unsigned row = 0; row < rows && row < room; row++) {
        put_rate(out, row < e ? &exits[row] : NULL);
        if (row < i)
            put_rate(out, &injected[row]);
        fputc('\n', out);
    }
}

static void put_all(FILE *out, const struct sample *before, const struct sample *now, unsigned lines)
{
    char clock[16];
    time_t t = time(NULL);
    unsigned each = now->n ? (lines - 1) / now->n : 0;

    strftime(clock, sizeof clock, "%H:%M:%S", localtime(&t));
    fprintf(out, "metronome top  %s, over %.1f s, %u guest%s\n", clock, now->at_s - before->at_s, now->n, now->n == 1 ? "" : "s");
    for (unsigned i = 0; i < now->n; i++) {
        const struct guest_facts *g = &now->guest[i], *was = find(before, g->id);

        if (each > 2) /* so that they are told from each other */
            fputc('\n', out);
        put_guest(out, was ? was : g, g, now->at_s - before->at_s, each > 2 ? each - 1 : each);
    }
}

/* ---- The terminal ---- */

static bool live; /* redrawn in place */
static volatile sig_atomic_t ended_by, resized;

static void on_signal(int number)
{
    if (number == SIGWINCH)
        resized = 1;
    else
        ended_by = number;
}

static void enter(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
    struct sigaction act = {.sa_handler = on_signal}; /* waits are interrupted */

    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &act, NULL);
    live = isatty(STDOUT_FILENO);
    if (!live)
        return;
    terminal_enter(false);
    fputs("\033[?1049h\033[?25l", stdout);
    fflush(stdout);
}

static void leave(void)
{
    if (live)
        fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    terminal_leave();
}

static struct winsize window(void)
{
    struct winsize w = {.ws_row = 24, .ws_col = 80};

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_row || w.ws_col < NARROWEST)
        w = (struct winsize){.ws_row = 24, .ws_col = 80};
    return w;
}

/* Line by line over what was there, cut off where the window ends. */
static void redraw(char *text, struct winsize w)
{
    char *line = strsep(&text, "\n");

    fputs("\033[H", stdout);
    for (unsigned row = 0; text && row < w.ws_row; line = strsep(&text, "\n"))
        printf("%s%.*s\033[K", row++ ? "\n" : "", w.ws_col, line);
    fputs("\033[J", stdout);
}

static void show(const struct sample *before, const struct sample *now)
{
    struct winsize w = window();
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    put_all(out, before, now, live ? w.ws_row : ~0u);
    fclose(out);
    if (live)
        redraw(text, w);
    else
        printf("%s\n", text);
    fflush(stdout);
    free(text);
}

/* Until the moment, a key that ends it, or a signal. */
static bool wait_until(double at_s)
{
    struct pollfd keys = {.fd = terminal_is_raw() ? STDIN_FILENO : -1, .events = POLLIN};
    double left;
    char key;

    while (!ended_by && !resized && (left = at_s - progress_seconds()) > 0) {
        if (poll(&keys, 1, (int)(left * 1000) + 1) <= 0 || !keys.revents)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q' || key == CTRL_C)
            return false;
    }
    return !ended_by;
}

/* ---- The command ---- */

static const char help[] =
    "Usage: metronome top [--interval SECONDS] [--count N]\n"
    "Shows what guests do: exits by reason and interrupts injected by source per second, the CPU time of all virtual CPUs\n"
    "in percent of one CPU, and what they waited for one (steal). On a terminal it is redrawn, and q ends it.\n\n"
    "  --interval SECONDS  from one look to the next: 2 if not given\n"
    "  --count N           so many, then it ends\n";

static double interval_s = INTERVAL_S;
static uint64_t count = UINT64_MAX;

static double number_of(const char *option, double least, double most)
{
    char *rest;
    double value = strtod(optarg, &rest);

    if (rest == optarg || *rest || !(value >= least && value <= most))
        bad_input("--%s: '%s' is no number from %g to %g", option, optarg, least, most);
    return value;
}

static void take_arguments(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"interval", required_argument, NULL, 'i'}, {"count", required_argument, NULL, 'c'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        if (option == 'h') {
            fputs(help, stdout);
            exit(0);
        } else if (option == 'i') {
            interval_s = number_of("interval", SHORTEST_S, 86400);
        } else if (option == 'c') {
            count = (uint64_t)number_of("count", 1, 1e9);
        } else {
            exit(EXIT_USAGE); /* getopt has said why */
        }
    if (optind < argc)
        bad_input("top takes no arguments: it shows all guests");
}

/* Again and again, on a terminal soon for the first time; a window that has changed is drawn anew with what is there. */
static int look_on(struct sample *before, struct sample *now)
{
    struct sample next;
    int status;
    double due_s = before->at_s + (live && interval_s > SOON_S ? SOON_S : interval_s);

    for (; count; due_s = now->at_s + interval_s) {
        bool goes_on;

        while ((goes_on = wait_until(due_s)) && resized) {
            resized = 0;
            show(before, now);
        }
        if (!goes_on)
            return ended_by ? 128 + ended_by : EXIT_ENDED;
        status = take(&next);
        if (status)
            return status;
        *before = *now;
        *now = next;
        show(before, now);
        count--;
    }
    return EXIT_ENDED;
}

int top_command(int argc, char **argv)
{
    static struct sample before, now;
    int status;

    take_arguments(argc, argv);
    progress_init(true);
    status = take(&before);
    if (!status) {
        now = before;
        enter();
        status = look_on(&before, &now);
        leave();
    }
    if (status == EXIT_NOT_UP)
        fputs("metronome: " NOT_UP "\n", stderr);
    return status;
}
