/*
 * Errands: what a client wants beside a guest of its own. One table says what each is.
 */
#ifndef METRONOME_DAEMON_ERRAND_H
#define METRONOME_DAEMON_ERRAND_H

#include "daemon/protocol.h"

/* Takes over the client's connection and its descriptors. */
void errand_begin(int client, const struct errand *e, const int *fds, unsigned fd_count);

/* The hypervisor's state may have changed. */
void errands_hypervisor_changed(void);

#endif
