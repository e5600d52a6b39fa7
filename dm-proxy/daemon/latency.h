/*
 * A guest's latency histograms: as a file, in JSON, and summed up.
 */
#ifndef METRONOME_DAEMON_LATENCY_H
#define METRONOME_DAEMON_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "public/latency.h"

static inline uint64_t ticks_ns(uint64_t ticks, uint64_t tsc_hz)
{
    return (uint64_t)((double)ticks * 1e9 / (double)(tsc_hz ? tsc_hz : 1));
}

/* `path` may be relative to the directory `cwd`. False: errno says why. */
bool latency_write(const struct metronome_latency *l, uint64_t tsc_hz, int cwd, const char *path);

/* What was written so. False: errno says why, or is 0 where it is no such file. */
bool latency_read(struct metronome_latency *l, uint64_t *tsc_hz, const char *path);

/* Of each source that stage which tables show, in ns. */
void latency_ns(const struct metronome_latency *l, uint64_t tsc_hz, struct metronome_latency_summary *to);

#endif
