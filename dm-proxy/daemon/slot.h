/*
 * A slot's memory as the daemon lays it out for a new guest.
 */
#ifndef METRONOME_SLOT_H
#define METRONOME_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/ivshmem.h"
#include "daemon/request.h"

/* Writes header, firmware or module. `cwd`: where the request's relative paths start. False: `error` says why. */
bool slot_fill(const struct ivshmem *slot, const struct request *r, int cwd, char *error, size_t error_size);

/* What a slot needs whose guest comes from a file. */
bool slot_begin(const struct ivshmem *slot);

/* The memory that a guest gets which asks for so much: a multiple of 2 MiB. */
uint64_t slot_memory(uint64_t wanted);

/* Gives every page back; all of it reads as zero afterwards. */
void slot_empty(const struct ivshmem *slot);

#endif
