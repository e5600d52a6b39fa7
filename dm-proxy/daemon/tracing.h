/*
 * The trace's reader: a client that empties the hypervisor's rings itself. There is one at most, and nothing is traced for longer
 * than it is there.
 */
#ifndef METRONOME_DAEMON_TRACING_H
#define METRONOME_DAEMON_TRACING_H

#include <stdint.h>

/* `mask`: METRONOME_TRACE_*. Takes over the connection, unless it is returned why not. */
const char *tracing_begin(int client, uint32_t mask);

#endif
