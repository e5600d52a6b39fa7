#include <inttypes.h>
#include <stdio.h>

#include "run.h"

#define X(name, text) text,
static const char *const exit_names[] = {METRONOME_EXIT_REASONS(X)};
static const char *const inject_names[] = {METRONOME_INJECT_SOURCES(X)};
#undef X

static void table(const char *title, const char *const *names, unsigned count, const uint64_t *values)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < count; i++)
        total += values[i];
    fprintf(stderr, "  %-34s %14" PRIu64 "\n", title, total);
    for (unsigned i = 0; i < count; i++)
        if (values[i])
            fprintf(stderr, "    %-32s %14" PRIu64 "  %5.1f %%\n", names[i], values[i],
                    100.0 * (double)values[i] / (double)total);
}

void report_stats(const struct metronome_stats *s)
{
    table("exits", exit_names, METRONOME_EXIT_COUNT, s->exits);
    table("interrupts injected", inject_names, METRONOME_INJECT_COUNT, s->injected);
}
