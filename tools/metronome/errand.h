/*
 * Something wanted of the daemon that is no guest of our own.
 */
#ifndef METRONOME_ERRAND_H
#define METRONOME_ERRAND_H

#include <stdint.h>

#include "daemon/protocol.h"

struct errand_order {
    enum errand_type type;
    const char *guest; /* its name or number; NULL: none */
    uint32_t flags;
    int file; /* goes with it; -1: none */
    void (*fact)(const void *fact); /* takes a struct guest_facts or hypervisor_facts; may be NULL: none comes */
};

/* Asks a daemon and waits until it is done. Returns the exit status, having said why where it is not 0. `text`: what was said at
 * the end; may be NULL. */
int errand_to(int daemon, const struct errand_order *o, char text[512]);

/* The same, of the daemon that runs; where there is none that is said. */
int errand(const struct errand_order *o);

/* What an errand needs: ends by bad_input(), or where no hypervisor is running. */
int errand_connect(void);

/* `metronome trigger`, and the commands named in its table: pause, unpause, reset, destroy, shutdown. */
int trigger_command(int argc, char **argv);
int guest_command(int argc, char **argv);

#endif
