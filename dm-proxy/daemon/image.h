/*
 * A saved guest's file: a head, then sections of type, length, checksum (CRC-32 over its head and contents) and contents,
 * the last an END that counts them. docs/save.md describes it.
 */
#ifndef METRONOME_IMAGE_H
#define METRONOME_IMAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/protocol.h"

#define IMAGE_VERSION 1u

enum image_section {
    IMAGE_END,     /* struct image_end */
    IMAGE_GUEST,   /* struct image_guest */
    IMAGE_REQUEST, /* what the guest was to be, as packed by request_pack() */
    IMAGE_STATE,   /* what the hypervisor saved (public/state.h) */
    IMAGE_KEPT,    /* METRONOME_DOMAIN_KEPT */
    IMAGE_DEVICES, /* what QEMU saved */
    IMAGE_MEMORY,  /* struct image_memory, then bytes of the arena that are not all zero */
    IMAGE_SECTIONS
};

/* What the file is made from, or was. */
struct image_guest {
    int64_t wallclock;   /* seconds since 1970-01-01 UTC when it was saved */
    char folder[PATH_MAX]; /* where the request's relative paths start */
};

/* Writes a saved guest. `memory`: the slot's, of `slot_bytes`; `devices`: QEMU's file, or -1. False: `error` says why. */
struct image_parts {
    int file, memory, devices;
    uint64_t slot_bytes;
    struct image_guest guest;
    char request[REQUEST_MAX_BYTES];
    size_t request_bytes;
};
bool image_write(const struct image_parts *p, char *error, size_t error_size);

/* Reads all of a file and checks it. False: `error` says what is wrong with it. */
struct image {
    struct image_guest guest;
    char request[REQUEST_MAX_BYTES];
    size_t request_bytes;
    bool has_devices;
};
bool image_read(int file, struct image *out, char *error, size_t error_size);

/* Puts a file's contents into a new slot's memory, and QEMU's part into the file `devices`. */
bool image_load(int file, int memory, uint64_t slot_bytes, int devices, char *error, size_t error_size);

#endif
