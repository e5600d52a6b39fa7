/*
 * Saving a guest: its vCPUs stop, its QEMU stops and writes its devices, the hypervisor writes the rest, a process of its
 * own writes the file; then the guest ends, or goes on.
 */
#ifndef METRONOME_SAVE_H
#define METRONOME_SAVE_H

#include "daemon/protocol.h"

/* Takes over the client's connection and the file to write. */
void save_begin(int client, const struct errand *e, int file);

#endif
