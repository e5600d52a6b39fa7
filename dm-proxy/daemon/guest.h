/*
 * A guest and its client: from the request to the last page given back.
 */
#ifndef METRONOME_GUEST_H
#define METRONOME_GUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/device_model.h"
#include "daemon/request.h"
#include "public/control.h"

/* `on_last_left` is called when the last guest has ended and its client has left. */
void guests_init(void (*on_last_left)(void));

/* Takes over a client's connection and descriptors; `request` is what it has sent. */
void guest_begin(int client, const char *request, size_t bytes, const int *fds, unsigned fd_count);

/* The hypervisor's state or a slot's status may have changed. */
void guests_hypervisor_changed(void);

unsigned guests_count(void);

/* A connection has ended without having become a guest: if there is none, `on_last_left` is called. */
void guests_none_came(void);

/* ---- For what is done with a guest by others than its client ---- */

struct guest;

/* The one that runs under this name. NULL: there is none, or several: `why` says so. */
struct guest *guest_find(const char *name, const char **why);

struct guest_view {
    unsigned slot;
    struct device_model *dm;
    const struct request *request;
    int cwd;
    int devices; /* a file for what its QEMU saves; -1: none. It lives as long, so that one that writes late writes no other's */
};

/* `changed` hears of the slot's status until guest_release(); with NULL of the guest's end, which releases it. False:
 * somebody holds it already. */
bool guest_hold(struct guest *g, void (*changed)(void *owner, const struct metronome_slot_status *status), void *owner,
                struct guest_view *view);
void guest_release(struct guest *g);

/* The board's buttons: a METRONOME_CONTROL_* without arguments. */
void guest_command(struct guest *g, uint32_t op);

/* It lies in a file: here it ends. */
void guest_was_saved(struct guest *g);

#endif
