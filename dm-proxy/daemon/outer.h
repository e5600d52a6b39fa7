/*
 * The command line of the outer QEMU, in which the hypervisor runs when it is hosted.
 */
#ifndef METRONOME_OUTER_H
#define METRONOME_OUTER_H

#include <stdbool.h>
#include <stddef.h>

#define OUTER_MAX_ARGS 192

struct outer {
    unsigned slots;
    int console; /* socket: COM1 */
    int control; /* ivshmem sockets */
    int slot[16];
};

struct outer_command {
    char *argv[OUTER_MAX_ARGS];
    int keep[32];
    char machine[100]; /* for people */
};

/* False: `error` says why not. Its strings live as long as the daemon. */
bool outer_command(struct outer_command *c, const struct outer *o, char *error, size_t error_size);

#endif
