/*
 * The way to the daemon.
 */
#ifndef METRONOME_CLIENT_H
#define METRONOME_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

/* A connection to the daemon that runs, or to one started now. -1: `error` says why not. */
int client_connect(char *error, size_t error_size);
bool client_started_daemon(void);

/* A connection to the daemon that runs; -1: there is none. */
int client_connect_running(void);

/* We want nothing more: waits until the daemon closes its connection, with which hypervisor and daemon may end. False: not within
 * `patience_ms`. */
bool client_leave(int socket, int patience_ms);

#endif
