/*
 * The trace's rings, and files of what was in them: Xen's format, which xenalyze(1) reads.
 */
#ifndef METRONOME_TRACE_FILE_H
#define METRONOME_TRACE_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "public/trace.h"

/* Takes what is in the rings; returns the number of bytes. */
uint64_t trace_take(struct metronome_trace *t, FILE *to);

/* After the last trace_take(): how many records were lost that no record tells of. */
void trace_tell_lost(const struct metronome_trace *t, FILE *to);

#endif
