/*
 * Saving a guest: its vCPUs stop, its QEMU stops and writes its devices, the hypervisor writes the rest, a process of its
 * own writes the file; then the guest ends, or goes on.
 */
#ifndef METRONOME_SAVE_H
#define METRONOME_SAVE_H

#include "daemon/guest.h"

/* Takes over the client's connection and the file to write. With `leave_running` the guest goes on, if it did. */
void save_begin(int client, struct guest *g, bool leave_running, int file);

#endif
