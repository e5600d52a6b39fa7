/*
 * The latency ledgers of guests that run: copies, as the daemon makes them.
 */
#ifndef METRONOME_LEDGERS_H
#define METRONOME_LEDGERS_H

#include <stdbool.h>

#include "daemon/protocol.h"

struct ledgers {
    unsigned n;
    struct guest_facts guest[METRONOME_MAX_SLOTS];
    struct metronome_latency *of; /* n of them */
};

/* Of one guest, or of all (NULL). Returns an exit status, having said why where it is not 0. */
int ledgers_take(struct ledgers *l, const char *guest);
/* From a file that latency_write() has made; ends by bad_input() where it is none. */
int ledgers_read(struct ledgers *l, const char *path);
void ledgers_free(struct ledgers *l);

#endif
