#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"
#include "daemon/latency.h"
#include "errand.h"
#include "ledgers.h"
#include "run.h"

static struct ledgers *taken;

static void on_guest(const void *fact)
{
    const struct guest_facts *f = fact;

    if (f->type != EVENT_GUEST || taken->n == METRONOME_MAX_SLOTS)
        return;
    taken->guest[taken->n] = *f;
    taken->guest[taken->n++].name[NAME_BYTES - 1] = 0;
}

static int read_copies(struct ledgers *l, int file)
{
    size_t size = l->n * sizeof *l->of;

    l->of = calloc(l->n + 1, sizeof *l->of);
    if (l->of && pread(file, l->of, size, 0) == (ssize_t)size)
        return EXIT_ENDED;
    fputs("metronome: the daemon's answer is incomplete\n", stderr);
    return EXIT_INTERNAL;
}

int ledgers_take(struct ledgers *l, const char *guest)
{
    int file = memfd_create("metronome-ledgers", MFD_CLOEXEC), daemon = client_connect_running(), status;

    *l = (struct ledgers){0};
    taken = l;
    if (daemon < 0)
        fputs("metronome: " NOT_UP "\n", stderr);
    else if (file < 0)
        fprintf(stderr, "metronome: %s\n", strerror(errno));
    status = daemon < 0 ? EXIT_NOT_UP : file < 0 ? EXIT_INTERNAL : EXIT_ENDED;
    if (!status)
        status = errand_to(daemon, &(struct errand_order){.type = ERRAND_LATENCY, .guest = guest, .file = file, .fact = on_guest}, NULL);
    if (!status)
        status = read_copies(l, file);
    if (file >= 0)
        close(file);
    if (daemon >= 0)
        close(daemon);
    return status;
}

int ledgers_read(struct ledgers *l, const char *path)
{
    *l = (struct ledgers){.n = 1, .of = calloc(1, sizeof *l->of)};
    l->guest[0].slot = -1;
    snprintf(l->guest[0].name, sizeof l->guest[0].name, "%s", path);
    if (!l->of || !latency_read(l->of, &l->guest[0].tsc_hz, path))
        bad_input("%s: %s", path, errno ? strerror(errno) : "is no file of `metronome run --latency`");
    return EXIT_ENDED;
}

void ledgers_free(struct ledgers *l)
{
    free(l->of);
    l->of = NULL;
}
