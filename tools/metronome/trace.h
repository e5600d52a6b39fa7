/*
 * The trace's rings, and files of what was in them: Xen's format, which xenalyze(1) reads.
 */
#ifndef METRONOME_TRACE_FILE_H
#define METRONOME_TRACE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "public/trace.h"

struct trace_choice {
    uint32_t mask;    /* METRONOME_TRACE_* */
    uint32_t domains; /* a bit for each; 0: all, and what is nobody's */
};

/* One reader of all rings. What is in them is data: how much of it is there is read once, and looked at only in a copy. */
struct trace_reader {
    struct metronome_trace *shared;
    uint64_t ring_bytes;
    unsigned rings;
    uint64_t tsc_hz;
    struct trace_choice choice;
    int to; /* the file */
    bool clock_told;
    uint32_t *words;                          /* the copy */
    uint64_t taken[METRONOME_TRACE_RINGS];    /* words of each ring */
    uint32_t domain[METRONOME_TRACE_RINGS];   /* that runs on each pCPU */
    uint64_t records, bytes, lost;            /* in the file; `lost`: told there */
    const char *error;                        /* what went wrong */
};

/* `bytes`: what there is of `t`. False: it is no trace, or there is no memory. */
bool trace_open(struct trace_reader *r, struct metronome_trace *t, uint64_t bytes);
void trace_close(struct trace_reader *r);

/* Takes what is in the rings. False: `error` says why. */
bool trace_take(struct trace_reader *r);

/* When nothing is traced any more: takes the rest, and tells how many records were lost that no record tells of. */
bool trace_take_rest(struct trace_reader *r);

#endif
