/*
 * Guests: from the request to the last page given back. Each has a number of its own, counted from 1, and a name that several
 * may have.
 */
#ifndef METRONOME_GUEST_H
#define METRONOME_GUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/device_model.h"
#include "daemon/protocol.h"
#include "daemon/request.h"
#include "public/control.h"

struct guest;

/* Takes over a client's connection and descriptors; `request` is what it has sent. */
void guest_begin(int client, const char *request, size_t bytes, const int *fds, unsigned fd_count);

/* The hypervisor's state or a slot's status may have changed. */
void guests_hypervisor_changed(void);

unsigned guests_count(void);             /* that have not ended yet */
struct guest *guest_after(uint32_t id); /* of those, the one with the next number */
uint32_t guest_id(const struct guest *g);
unsigned guests_slots_lost(void);        /* which the hypervisor has not given back */

/* ---- For what is done with a guest ---- */

/* The one that has this name or number. With `running` it has to run, else it may be starting or ending too. NULL: `why` says
 * why not. */
struct guest *guest_find(const char *name_or_number, bool running, const char **why);

void guest_describe(struct guest *g, struct guest_facts *to);
void guest_status(const struct guest *g, struct metronome_slot_status *copy); /* of one that runs */

/* A METRONOME_CONTROL_* without arguments; `done` may be NULL. */
void guest_command(struct guest *g, uint32_t op, void (*done)(void *owner, int status), void *owner);

/* Ends it, whatever it is doing. */
void guest_stop(struct guest *g, const char *why);
void guests_stop_all(const char *why);

/* Attaches a client: it hears the guest's events and gives orders. Takes over the connection, unless `why` is returned. */
const char *guest_attach(struct guest *g, int client);

/* ---- Those who wait for something to happen to it ---- */

enum guest_news {
    GUEST_NEWS_STATUS, /* the slot's status may have changed */
    GUEST_NEWS_ENDING, /* it is being taken apart */
    GUEST_NEWS_GONE,   /* nothing is left of it; the last news */
};

struct guest_watcher {
    void (*hear)(void *owner, enum guest_news news, struct guest *g, const struct metronome_slot_status *status);
    void *owner; /* status: of NEWS_STATUS */
    struct guest *guest; /* NULL: watches none */
    struct guest_watcher *next;
};

void guest_watch(struct guest *g, struct guest_watcher *w);
void guest_unwatch(struct guest_watcher *w);

/* How it ends, and whether the hypervisor goes on with what is left of it. */
const struct event *guest_end(const struct guest *g);
bool guest_is_lost(const struct guest *g);

/* ---- Saving ---- */

struct guest_view {
    unsigned slot;
    struct device_model *dm;
    const struct request *request;
    int cwd;
    int devices; /* a file for what its QEMU saves; -1: none. It lives as long, so that one that writes late writes no other's */
};

/* For one at a time, until guest_release() or its end. False: somebody saves it already. */
bool guest_hold(struct guest *g, struct guest_view *view);
void guest_release(struct guest *g);
bool guest_held(const struct guest *g);

/* It lies in a file: here it ends. */
void guest_was_saved(struct guest *g);

#endif
