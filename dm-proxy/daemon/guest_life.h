/*
 * A guest's life, for the three files that make it: guest_start.c up to its first instruction, guest.c while it runs,
 * guest_end.c from the first reason to end it to the last page given back.
 */
#ifndef METRONOME_GUEST_LIFE_H
#define METRONOME_GUEST_LIFE_H

#include "daemon/console.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/streams.h"

enum phase {
    PHASE_WAITING,  /* for the hypervisor */
    PHASE_LOADING,  /* its memory is read from a file */
    PHASE_CREATING, /* the hypervisor makes the domain */
    PHASE_STARTING, /* its device model starts */
    PHASE_RUNNING,
    PHASE_DESTROYING, /* the hypervisor takes it apart */
    PHASE_STOPPING,   /* its device model ends */
    PHASE_GONE,       /* the client knows how it ended */
};

struct guest {
    struct guest *next;
    uint32_t id;
    char label[NAME_BYTES + 16];
    enum phase phase;
    struct watch client; /* who is attached; -1: nobody */
    bool tied;           /* it lives no longer than its client */
    struct streams streams;
    int cwd, image;               /* -1: not given */
    char text[REQUEST_MAX_BYTES]; /* what the request points into */
    struct request request;
    int slot; /* -1: none */
    struct device_model dm;
    struct console console;
    struct process_work loading;
    int devices; /* a file in memory: what QEMU loads of a saved guest, or saves; -1: none yet */
    bool held;   /* is being saved */
    bool lost;   /* the hypervisor did not give its slot back */
    struct guest_watcher *watchers, *next_to_tell;
    struct timer patience;
    uint64_t began_ms;
    struct event end;
};

/* guest.c */
extern struct guest *guests;
void guest_tell_text(struct guest *g, enum event_type type, const char *text);
void guest_tell_watchers(struct guest *g, enum guest_news news, const struct metronome_slot_status *status);
void guest_forget(struct guest *g);
void guest_make_devices(struct guest *g);

/* guest_start.c: the hypervisor is ready for it. */
void guest_create(struct guest *g);

/* guest_end.c: the first reason counts. */
void guest_end_because(struct guest *g, enum event_type type, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void guest_refuse(struct guest *g, int status, const char *text);
void guest_shut_down(struct guest *g, const struct metronome_slot_status *s); /* it has ended by itself */
void guest_hypervisor_failed(struct guest *g);
void guest_device_model_ended(void *guest);
bool guest_slot_lost(unsigned slot);

#endif
