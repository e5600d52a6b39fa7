/*
 * A guest's streams (protocol.h): whose our ends are. A client that is attached has them; while none is, what the serial console
 * says is kept, the last STREAMS_PAST_BYTES of it, and the device model's messages go to the log.
 */
#ifndef METRONOME_STREAMS_H
#define METRONOME_STREAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/loop.h"
#include "daemon/protocol.h"

#define STREAMS_PAST_BYTES (64u << 10)

struct streams {
    const char *owner; /* its name in the log */
    int ours[STREAMS], theirs[STREAMS]; /* -1: closed */
    struct watch serial, messages;      /* copies of ours, while nobody is attached */
    struct timer gather;
    uint8_t past[STREAMS_PAST_BYTES];
    uint64_t past_bytes; /* since the last client left: more than `past` holds, if need be */
    char line[400];      /* of the messages, being read */
    size_t line_bytes;
};

void streams_init(struct streams *s);

/* False: errno says why. */
bool streams_open(struct streams *s, const char *owner);

/* Sends ATTACHED with our ends and the past to a client, who has them from now on. `monitor`: somebody is at its other end.
 * False: the client does not take them. */
bool streams_hand_over(struct streams *s, int client, bool monitor);

/* The client has left. */
void streams_take_back(struct streams *s);

/* The guest is gone: its ends are closed, and what it still said is in the log. */
void streams_end(struct streams *s);
void streams_close(struct streams *s);

#endif
