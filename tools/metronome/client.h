/*
 * The way to the daemon.
 */
#ifndef METRONOME_CLIENT_H
#define METRONOME_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

/* A connection to the daemon that runs, or to one started now. -1: `error` says why not. */
int client_connect(char *error, size_t error_size);

/* A connection to the daemon that runs; -1: there is none. */
int client_connect_running(void);

/* Sends a packet with descriptors. */
bool client_send(int socket, const void *bytes, size_t n, const int *fds, unsigned fd_count);

/* When the daemon has closed its connection: waits for its process, if it is our child. */
void client_reap_daemon(void);

#endif
