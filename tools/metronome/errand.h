/*
 * Something done with a guest that runs at another terminal.
 */
#ifndef METRONOME_ERRAND_H
#define METRONOME_ERRAND_H

#include <stdint.h>

#include "daemon/protocol.h"

/* Asks the daemon and waits until it is done; `fd` goes with it, -1: none. Returns the exit status, having said why where it
 * is not 0. */
int errand(int daemon, const char *guest, enum errand_type type, uint32_t flags, int fd);

/* `metronome trigger` */
int trigger_command(int argc, char **argv);

#endif
