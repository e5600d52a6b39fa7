/*
 * A guest's QEMU: its process, its control socket (QMP), its end.
 */
#ifndef METRONOME_DEVICE_MODEL_H
#define METRONOME_DEVICE_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/ivshmem.h"
#include "daemon/process.h"
#include "daemon/request.h"

struct device_model {
    struct process process;
    struct watch qmp;
    char line[4096]; /* of QMP, being read */
    size_t line_bytes;
    void (*ended)(void *owner);
    void (*power_button)(void *owner);
    void (*reset)(void *owner); /* the user's "system_reset": QEMU has reset its devices, and only them */
    void *owner;
};

void device_model_init(struct device_model *d);

/* `fds`: the client's, by enum request_fd. False: `error` says why. */
bool device_model_start(struct device_model *d, unsigned slot_number, const struct request *r,
                        const struct ivshmem *slot, const int *fds, char *error, size_t error_size);

/* A QMP command without arguments. */
void device_model_command(struct device_model *d, const char *command);

#endif
