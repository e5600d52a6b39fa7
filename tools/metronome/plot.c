#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/latency.h"
#include "plot.h"
#include "run.h"

#define WIDTH 1080
#define CURVES_HEIGHT 540
#define PANEL_HEIGHT 270
#define LEFT_MARGIN 110
#define RIGHT_MARGIN 280
#define HEAT_COLUMNS 256
#define ROWS_PER_DECADE 12
#define HEAT_ROWS (12 * ROWS_PER_DECADE)

/* X(NAME, colour): to be told from each other by everybody (Okabe and Ito's). */
#define COLOURS(X) \
    X(PIT, "#0072b2") X(RTC, "#cc79a7") X(HPET, "#009e73") X(LAPIC, "#d55e00") X(IPI, "#56b4e9") X(LINE, "#e69f00") X(MSI, "#555555")
#define X(name, colour) [METRONOME_LATENCY_OF_##name] = colour,
static const char *const colours[METRONOME_LATENCY_SOURCE_COUNT] = {COLOURS(X)};
#undef X
#define X(name, key, text) text,
static const char *const source_names[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X

struct heat {
    unsigned columns;
    double from[HEAT_COLUMNS], to[HEAT_COLUMNS];
    uint64_t count[METRONOME_LATENCY_SOURCE_COUNT][HEAT_COLUMNS][HEAT_ROWS];
};

static const struct metronome_histogram *headline(const struct metronome_latency *l, unsigned source)
{
    return &l->of[source][metronome_latency_headline(source)];
}

/* Of a bucket, in ns; on a logarithmic scale what is less than 1 is at its lower end. */
static double middle_ns(unsigned bucket, uint64_t tsc_hz)
{
    double ticks = (double)metronome_latency_first(bucket) + (double)metronome_latency_width(bucket) / 2;
    double ns = ticks * 1e9 / (double)(tsc_hz ? tsc_hz : 1);

    return bucket && ns > 1 ? ns : 1;
}

/* ---- What came when ---- */

struct heat *heat_new(void)
{
    return calloc(1, sizeof(struct heat));
}

static unsigned row_of(double ns)
{
    double row = log10(ns) * ROWS_PER_DECADE;

    return row < HEAT_ROWS ? (unsigned)row : HEAT_ROWS - 1;
}

static double row_start_ns(unsigned row)
{
    return pow(10, (double)row / ROWS_PER_DECADE);
}

void heat_add(struct heat *h, const struct metronome_latency *before, const struct metronome_latency *now, uint64_t tsc_hz, double from,
              double to)
{
    unsigned c = h->columns;

    if (c == HEAT_COLUMNS)
        return;
    h->columns++;
    h->from[c] = from;
    h->to[c] = to;
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++) {
            uint64_t n = headline(now, source)->count[b] - headline(before, source)->count[b];

            if (n)
                h->count[source][c][row_of(middle_ns(b, tsc_hz))] += n;
        }
}

/* ---- Gnuplot's input ---- */

/* The share of those that are faster, so that each further nine takes the same room. */
static double tail(uint64_t faster, uint64_t n)
{
    return log10((double)n / (double)(n - faster));
}

/* A staircase: at each time the shares that it is the percentile of. The longest one's has no end; half a time is left there. */
static void put_curve(FILE *f, unsigned source, const struct metronome_histogram *h, uint64_t tsc_hz)
{
    uint64_t n = metronome_latency_total(h), faster = 0;

    fprintf(f, "$curve%u << EOD\n", source);
    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++) {
        double ns = middle_ns(b, tsc_hz);

        if (!h->count[b])
            continue;
        fprintf(f, "%.5f %.2f\n", tail(faster, n), ns);
        faster += h->count[b];
        fprintf(f, "%.5f %.2f\n", faster < n ? tail(faster, n) : log10(2 * (double)n), ns);
    }
    fputs("EOD\n", f);
}

static void put_heat(FILE *f, unsigned source, const struct heat *h)
{
    fprintf(f, "$heat%u << EOD\n", source);
    for (unsigned c = 0; c < h->columns; c++)
        for (unsigned row = 0; row < HEAT_ROWS; row++)
            if (h->count[source][c][row])
                fprintf(f, "%.3f %.3f %.3f %.3f %.3f %.3f %" PRIu64 "\n", (h->from[c] + h->to[c]) / 2, row_start_ns(row), h->from[c],
                        h->to[c], row_start_ns(row), row_start_ns(row + 1), h->count[source][c][row]);
    fputs("EOD\n", f);
}

struct extent {
    double least_ns, most_ns;
    uint64_t most_counted, most_in_a_cell;
};

static struct extent extent_of(const struct metronome_latency *l, uint64_t tsc_hz, const struct heat *heat)
{
    struct extent e = {.least_ns = 1e9, .most_ns = 10, .most_counted = 1, .most_in_a_cell = 2};

    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        const struct metronome_histogram *h = headline(l, source);
        uint64_t n = metronome_latency_total(h);

        e.most_counted = n > e.most_counted ? n : e.most_counted;
        for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++)
            if (h->count[b]) {
                e.least_ns = fmin(e.least_ns, middle_ns(b, tsc_hz));
                e.most_ns = fmax(e.most_ns, middle_ns(b, tsc_hz));
            }
        for (unsigned c = 0; heat && c < heat->columns; c++)
            for (unsigned row = 0; row < HEAT_ROWS; row++)
                e.most_in_a_cell = heat->count[source][c][row] > e.most_in_a_cell ? heat->count[source][c][row] : e.most_in_a_cell;
    }
    return e;
}

/* The decades that hold them all. */
static void put_scale(FILE *f, const struct extent *e)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int first = (int)floor(log10(fmin(e->least_ns, e->most_ns))), last = (int)ceil(log10(e->most_ns * 1.05));

    fprintf(f, "set logscale y\nset yrange [0.8e%d:1.25e%d]\nset ytics (", first, last);
    for (int d = first; d <= last && d < 12; d++)
        fprintf(f, "%s\"%d %s\" 1e%d", d == first ? "" : ", ", d % 3 == 0 ? 1 : d % 3 == 1 ? 10 : 100, units[d / 3], d);
    fputs(")\n", f);
}

static void put_percentiles_scale(FILE *f, uint64_t most)
{
    static const char *const names[] = {"0", "90 %%", "99 %%", "99.9 %%", "99.99 %%", "99.999 %%", "99.9999 %%", "99.99999 %%"};
    double end = log10(2 * (double)most);

    fputs("set xtics (\"50 %%\" 0.30103", f);
    for (unsigned i = 0; i < sizeof names / sizeof names[0] && (i <= 1 || i < end); i++)
        fprintf(f, ", \"%s\" %u", names[i], i);
    fprintf(f, ")\nset xrange [0:%.3f]\n", fmax(end, 1.1));
}

/* Guests are named by people. */
static void put_text(FILE *f, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || strchr("\"\\`", *text) ? '?' : *text, f);
}

static bool is_hot(const struct heat *h, unsigned source)
{
    for (unsigned c = 0; c < h->columns; c++)
        for (unsigned row = 0; row < HEAT_ROWS; row++)
            if (h->count[source][c][row])
                return true;
    return false;
}

static unsigned panels_of(const struct heat *heat)
{
    unsigned panels = 0;

    for (unsigned source = 0; heat && source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        panels += is_hot(heat, source);
    return panels;
}

/* A part of the drawing, by dots from its top. */
static void put_place(FILE *f, unsigned height, unsigned top, unsigned bottom)
{
    fprintf(f, "set lmargin at screen %.5f\nset rmargin at screen %.5f\nset tmargin at screen %.5f\nset bmargin at screen %.5f\n",
            (double)LEFT_MARGIN / WIDTH, 1 - (double)RIGHT_MARGIN / WIDTH, 1 - (double)top / height, 1 - (double)bottom / height);
}

static void put_curves(FILE *f, const struct guest_facts *g, const struct metronome_latency *l, unsigned height, double seconds)
{
    const char *between = "plot ";

    put_place(f, height, 60, CURVES_HEIGHT - 90);
    fputs("set title \"How long interrupts wait until they are injected: ", f);
    put_text(f, g->name);
    fprintf(f, seconds > 0 ? ", %.3g s" : "", seconds);
    fputs("\" font \",17\" offset 0,0.3\n"
          "set ylabel \"time\"\n"
          "set xlabel \"share of interrupts that were as fast (each nine takes the same room)\" offset 0,0.2\n"
          "set key at screen 0.755, graph 1 left top Left reverse samplen 1.6 spacing 2.6 width 0\n", f);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        uint64_t n = metronome_latency_total(headline(l, source));
        bool due = metronome_latency_headline(source) == METRONOME_LATENCY_DUE;

        if (!n)
            continue;
        fprintf(f, "%s$curve%u using 1:2 with lines lw 2.2 lc rgb \"%s\" title \"%s\\nfrom %s, %" PRIu64 " times\"", between, source,
                colours[source], source_names[source], due ? "due" : "its post", n);
        between = ", ";
    }
    fputc('\n', f);
}

static void put_counts_scale(FILE *f, uint64_t most)
{
    fputs("set cbtics (1", f);
    for (uint64_t decade = 1; decade <= most; decade *= 10)
        for (unsigned i = 2; i <= 10 && decade * i <= most; i++)
            if (i == 2 || i == 5 || i == 10)
                fprintf(f, ", %" PRIu64, decade * i);
    fputs(")\n", f);
}

static void put_panels(FILE *f, const struct heat *heat, unsigned height, const struct extent *e)
{
    unsigned top = CURVES_HEIGHT;

    fprintf(f, "unset key\nset xtics autofreq\nset xrange [%.3f:%.3f]\nset xlabel \"seconds\" offset 0,0.5\n"
               "set palette defined (0 \"#fdae3c\", 0.25 \"#ed7953\", 0.5 \"#bd3786\", 0.75 \"#7201a8\", 1 \"#0d0887\")\n"
               "set logscale cb\nset cbrange [1:%" PRIu64 "]\nset cblabel \"interrupts\" offset 1\nset style fill solid noborder\n",
            heat->from[0], heat->to[heat->columns - 1], e->most_in_a_cell);
    put_counts_scale(f, e->most_in_a_cell);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        if (!is_hot(heat, source))
            continue;
        put_place(f, height, top + 30, top + PANEL_HEIGHT - 72);
        fprintf(f, "set colorbox user origin screen %.4f, graph 0 size screen 0.018, graph 1\n", 1 - (double)(RIGHT_MARGIN - 24) / WIDTH);
        fprintf(f, "set title \"%s: what came when\" font \",14\" offset 0,-0.4\n", source_names[source]);
        fprintf(f, "plot $heat%u using 1:2:3:4:5:6:7 with boxxyerror lc palette notitle\n", source);
        top += PANEL_HEIGHT;
    }
}

static void put_all(FILE *f, const struct guest_facts *g, const struct metronome_latency *l, const struct heat *heat)
{
    unsigned height = CURVES_HEIGHT + panels_of(heat) * PANEL_HEIGHT;
    struct extent e = extent_of(l, g->tsc_hz, heat);

    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        put_curve(f, source, headline(l, source), g->tsc_hz);
        if (heat)
            put_heat(f, source, heat);
    }
    fprintf(f, "set terminal svg size %u,%u font \"sans-serif,13\" background rgb \"white\" noenhanced\n", WIDTH, height);
    fputs("set multiplot\nset border lc rgb \"#444444\"\nset grid lc rgb \"#dddddd\" lt 1\n"
          "set tics nomirror out scale 0.5\nset xtics offset 0,0.3\n", f);
    put_scale(f, &e);
    put_percentiles_scale(f, e.most_counted);
    put_curves(f, g, l, height, heat && heat->columns ? heat->to[heat->columns - 1] - heat->from[0] : 0);
    if (panels_of(heat))
        put_panels(f, heat, height, &e);
    fputs("unset multiplot\n", f);
}

/* ---- Gnuplot ---- */

static void become_gnuplot(int in, int out)
{
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    signal(SIGINT, SIG_IGN);
    execlp("gnuplot", "gnuplot", "-", (char *)NULL);
    _exit(127);
}

static pid_t start_gnuplot(int out, FILE **script)
{
    int ends[2];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) || (pid = fork()) < 0)
        return -1;
    if (!pid)
        become_gnuplot(ends[0], out);
    close(ends[0]);
    *script = fdopen(ends[1], "w");
    return *script ? pid : -1;
}

static bool is_program(const char *name)
{
    char path[4096], *folders = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin"), *rest, *folder;
    bool found = false;

    for (folder = strtok_r(folders, ":", &rest); folder && !found; folder = strtok_r(NULL, ":", &rest)) {
        snprintf(path, sizeof path, "%s/%s", folder, name);
        found = !access(path, X_OK);
    }
    free(folders);
    return found;
}

void plot_check(const char *path)
{
    FILE *f;

    if (!is_program("gnuplot"))
        bad_input("--plot: no gnuplot: install the package gnuplot-nox");
    f = fopen(path, "w");
    if (!f || fclose(f))
        bad_input("--plot: %s: %s", path, strerror(errno));
}

int plot(const char *path, const struct guest_facts *g, const struct metronome_latency *l, const struct heat *heat)
{
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), status = 0;
    FILE *script = NULL;
    pid_t pid;

    if (!extent_of(l, g->tsc_hz, NULL).most_counted)
        return EXIT_ENDED;
    signal(SIGPIPE, SIG_IGN);
    pid = out < 0 ? -1 : start_gnuplot(out, &script);
    if (pid < 0) {
        fprintf(stderr, "metronome: %s: %s\n", path, strerror(errno));
        return EXIT_INTERNAL;
    }
    put_all(script, g, l, heat);
    fclose(script);
    close(out);
    if (waitpid(pid, &status, 0) == pid && !status)
        return EXIT_ENDED;
    fprintf(stderr, "metronome: %s: gnuplot failed\n", path);
    return EXIT_INTERNAL;
}
