/*
 * What a client is told: events and facts (protocol.h), a packet each. False: it does not hear it; one that has left is noticed
 * by its descriptor.
 */
#ifndef METRONOME_CLIENT_H
#define METRONOME_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/protocol.h"

/* `client`: its socket; -1: there is none. */
bool client_send(int client, const void *bytes, size_t n);
bool client_tell(int client, enum event_type type, int status, const char *text);

#endif
