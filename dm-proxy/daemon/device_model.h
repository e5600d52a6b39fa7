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

#define DEVICE_MODEL_QUESTIONS 8u

/* A QMP command whose answer has not come. */
struct question {
    void (*answered)(void *owner, const char *error); /* error: NULL, or QEMU's words; may be NULL: nobody waits */
    void *owner;
};

struct device_model {
    struct process process;
    struct watch qmp;
    char line[4096]; /* of QMP, being read */
    size_t line_bytes;
    struct question question[DEVICE_MODEL_QUESTIONS]; /* in the order asked */
    unsigned questions;
    void (*ended)(void *owner);
    void (*power_button)(void *owner);
    void (*reset)(void *owner); /* the user's "system_reset": QEMU has reset its devices, and only them */
    void *owner;
};

void device_model_init(struct device_model *d);

struct device_model_place {
    int cwd;            /* where relative paths start */
    int saved;          /* a file with the devices' state to begin with, or -1 */
    const int *streams; /* its ends of them, by enum stream */
};

/* False: `error` says why. */
bool device_model_start(struct device_model *d, const struct device_model_place *p, const struct request *r,
                        const struct ivshmem *slot, char *error, size_t error_size);

/* A QMP command, as JSON. False: QEMU does not take it. A QEMU that ends does not answer. */
bool device_model_ask(struct device_model *d, const char *command, void (*answered)(void *owner, const char *error),
                      void *owner);
/* The answers that `owner` waits for go to nobody. `d` may be NULL. */
void device_model_forget(struct device_model *d, const void *owner);

#endif
