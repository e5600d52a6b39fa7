#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "progress.h"

static struct timespec start;
static bool silent, tty, shown;
static char step[200];

double progress_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
}

void progress_init(bool quiet)
{
    clock_gettime(CLOCK_MONOTONIC, &start);
    silent = quiet;
    tty = isatty(STDERR_FILENO);
}

void progress_tick(void)
{
    if (silent || !tty || !*step)
        return;
    fprintf(stderr, "\r\033[Kmetronome: %s ... %.1f s", step, progress_seconds());
    shown = true;
}

void progress_step(const char *what)
{
    snprintf(step, sizeof step, "%s", what);
    if (!silent && !tty)
        fprintf(stderr, "metronome: %5.1f s  %s\n", progress_seconds(), step);
    progress_tick();
}

static void clear(void)
{
    if (shown)
        fputs("\r\033[K", stderr);
    shown = false;
    *step = 0;
}

void progress_done(const char *what)
{
    if (!*step)
        return;
    clear();
    if (!silent && what)
        fprintf(stderr, "metronome: %s after %.1f s\n", what, progress_seconds());
}
