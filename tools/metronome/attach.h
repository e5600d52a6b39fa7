/*
 * At a guest's console: of one that is asked for, or of one that runs already.
 */
#ifndef METRONOME_ATTACH_H
#define METRONOME_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "run.h"

struct attachment {
    int daemon;          /* events and orders */
    int stream[STREAMS]; /* -1: has ended */
    int past;            /* a file: what the console said while nobody was attached; -1: none */
    uint64_t lost;       /* bytes before that */
    bool monitor;        /* there is one */
};

/* False: `refusal` says why. */
bool attach(struct attachment *a, const struct run *r, struct event *refusal);
void attach_close(struct attachment *a);

#endif
