/*
 * Where things are: the daemon's folder and socket, the programs and images that both sides need.
 */
#ifndef METRONOME_PATHS_H
#define METRONOME_PATHS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define SEABIOS_IMAGE "/usr/share/seabios/bios-256k.bin"

/* METRONOME_RUNTIME_DIR, else $XDG_RUNTIME_DIR/metronome, else /tmp/metronome-$UID. Made if need be, with mode 0700;
 * refused if it belongs to somebody else. False: `error` says why. */
bool runtime_folder(char path[PATH_MAX], char *error, size_t error_size);

/* A file beside the running program: build/metronome.elf beside build/metronome. `variable` in the environment wins. */
void beside_program(char path[PATH_MAX], const char *name, const char *variable);

/* Finds a program named with or without a folder; false: there is none. */
bool find_program(char path[PATH_MAX], const char *name);

/* The QEMU that the hypervisor runs in (METRONOME_OUTER_QEMU). */
bool find_outer_qemu(char path[PATH_MAX]);

/* QEMU removes what it listens at ("unix:PATH,..."), unless it was killed. `folder`: where a relative path starts. */
void remove_socket(int folder, const char *address);

#endif
