/*
 * A trace as a timeline: Chrome's JSON trace events, which Perfetto's viewer opens.
 */
#ifndef METRONOME_PERFETTO_H
#define METRONOME_PERFETTO_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* `file`: a trace, in a plain file. `tsc_hz`: 0: what the trace says. False: `error` says why. */
bool perfetto_write(int file, uint64_t tsc_hz, FILE *to, const char **error);

#endif
