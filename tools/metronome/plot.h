/*
 * Latencies drawn, by gnuplot: percentile curves, and what came when.
 */
#ifndef METRONOME_PLOT_H
#define METRONOME_PLOT_H

#include "daemon/protocol.h"

struct heat; /* what came when: by source, moment and time taken */

struct heat *heat_new(void);
/* What `now` has more than `before`, in the seconds from `from` to `to`. */
void heat_add(struct heat *h, const struct metronome_latency *before, const struct metronome_latency *now, uint64_t tsc_hz, double from,
              double to);

void plot_check(const char *path); /* ends by bad_input() where nothing could be drawn there */
/* `heat` may be NULL. Returns an exit status, having said why where it is not 0. */
int plot(const char *path, const struct guest_facts *g, const struct metronome_latency *l, const struct heat *heat);

#endif
