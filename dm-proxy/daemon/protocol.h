/*
 * Between `metronome` (the client) and the daemon, over a SOCK_SEQPACKET socket: each packet is one message.
 *
 *   client                                   daemon
 *   one request (request.h) with descriptors
 *                                            ATTACHED with the guest's streams
 *                                            PROGRESS..., then RUNNING, later ENDED; or REFUSED
 *   orders
 *   shutdown(SHUT_WR) after ENDED or REFUSED
 *                                            closes: for the last guest, when the hypervisor is gone as well
 *
 * A guest lives no longer than the client that asked for it: a connection that is lost stops it. After the order DETACH, which
 * DETACHED answers, it lives for itself.
 *
 *   errand: ATTACH
 *                                            ATTACHED, RUNNING and so on as above; or REFUSED
 *
 * A lost connection of such a client leaves the guest as it is.
 *
 *   errand: TRACE
 *                                            TRACING with the control device's memory; or REFUSED
 *   order STOP
 *                                            ENDED when nothing is traced any more
 *
 * It is the only one that reads the trace until it closes its connection, with which the trace ends if it has not. It keeps nobody
 * from ending.
 *
 *   any other errand
 *                                            facts, PROGRESS..., then ENDED when it is done; or REFUSED
 *   shutdown(SHUT_WR)
 *                                            closes: when the hypervisor is gone, if that follows
 */
#ifndef METRONOME_PROTOCOL_H
#define METRONOME_PROTOCOL_H

#include <stdint.h>

#include "public/latency.h"
#include "public/stats.h"

#define PROTOCOL_VERSION  8
#define REQUEST_MAX_BYTES 100000
#define NAME_BYTES        64 /* of a guest's name, with the NUL */

/* Descriptors that come with a request, in this order. */
enum request_fd {
    REQUEST_CWD, /* the client's working directory: relative paths start there */
    REQUEST_FDS,
    REQUEST_IMAGE = REQUEST_FDS, /* of a guest to restore only: the file, which has been checked */
    REQUEST_MOST_FDS
};

/* A guest's streams: who is attached has our ends of them himself, so nothing is relayed. They come with ATTACHED, in this
 * order. */
enum stream {
    STREAM_SERIAL,   /* its serial console */
    STREAM_MONITOR,  /* QEMU's human monitor */
    STREAM_MESSAGES, /* what the device model says on stderr */
    STREAMS,
    STREAM_PAST = STREAMS, /* a file: the end of what the console said while nobody was attached */
    STREAM_FDS
};

/* Exit statuses of `metronome`, which the daemon chooses for what it sees. */
enum exit_status {
    EXIT_ENDED = 0, /* power-off, the expected output was seen, or what was asked for is done */
    EXIT_USAGE = 2, /* bad usage or bad input */
    EXIT_TIMEOUT = 3,
    EXIT_CRASH = 4,    /* the guest crashed */
    EXIT_INTERNAL = 5, /* Metronome, the hypervisor or the device model failed */
    EXIT_NOT_UP = 6,   /* no hypervisor is running */
};

enum event_type {
    EVENT_PROGRESS,
    EVENT_ATTACHED,
    EVENT_RUNNING,
    EVENT_DETACHED,
    EVENT_ENDED,
    EVENT_REFUSED,
    EVENT_TRACING,
    EVENT_GUEST,      /* struct guest_facts */
    EVENT_HYPERVISOR, /* struct hypervisor_facts */
};

struct event {
    uint32_t type;
    uint32_t status; /* ENDED, REFUSED: enum exit_status; ATTACHED: 1: there is a monitor */
    char text[512];
    uint64_t lost;                /* ATTACHED: bytes of the console's past that were not kept */
    struct metronome_stats stats; /* ENDED */
    uint64_t run_ns, steal_ns;    /* of stats.run_ticks and stats.steal_ticks */
    struct metronome_latency_summary latency_ns[METRONOME_LATENCY_SOURCE_COUNT]; /* of metronome_latency_headline() */
};

enum guest_state {
    GUEST_STARTING,
    GUEST_RUNNING, /* a vCPU of it runs or would */
    GUEST_BLOCKED, /* none does */
    GUEST_PAUSED,
    GUEST_SHUTDOWN, /* has switched itself off */
    GUEST_CRASHED,
    GUEST_DYING, /* is being taken apart */
    GUEST_STATES
};

struct guest_facts {
    uint32_t type; /* EVENT_GUEST */
    uint32_t id;
    int32_t slot; /* -1: none yet */
    uint32_t vcpus, state, resets;
    int32_t device_model, client; /* processes; 0: none */
    uint64_t memory;              /* bytes */
    uint64_t run_ns, steal_ns;    /* of its vCPUs: in the guest or for it, and ready but not let */
    uint64_t age_ms;
    uint64_t tsc_hz;              /* of all that is counted in ticks */
    struct metronome_stats stats;
    char name[NAME_BYTES];
};

struct hypervisor_facts {
    uint32_t type; /* EVENT_HYPERVISOR */
    uint32_t stays; /* without guests */
    uint32_t pcpus, slots, slots_used, slots_lost, guests, vcpus;
    uint64_t tsc_hz, memory, free_memory, slot_memory; /* bytes; slot_memory: the largest guest's */
    uint64_t age_ms;
    char version[64], machine[100], log[512];
};

enum order_type { ORDER_STOP, ORDER_POWER_BUTTON, ORDER_RESET, ORDER_DETACH };

struct order {
    uint32_t type;
};

#define ERRAND_MAGIC 0x44525245u /* "ERRD": no request begins so */
enum errand_type {
    ERRAND_SAVE, /* with a descriptor: the file to write */
    ERRAND_NMI,
    ERRAND_POWER_BUTTON,
    ERRAND_RESET,
    ERRAND_PAUSE,
    ERRAND_UNPAUSE,
    ERRAND_DESTROY,
    ERRAND_ATTACH,
    ERRAND_LIST,
    ERRAND_LATENCY, /* with a descriptor: a file in memory that takes a struct metronome_latency for each guest that is told of. Of
                     * one guest, or without a name of all that have one */
    ERRAND_FORGET_LATE, /* METRONOME_CONTROL_FORGET_LATE */
    ERRAND_INFO,
    ERRAND_UP,   /* the hypervisor stays without guests; done when it takes some */
    ERRAND_DOWN, /* it ends */
    ERRAND_TRACE, /* flags: the mask of events */
    ERRAND_AWAIT, /* facts of the guest, then its end */
    ERRANDS
};
#define ERRAND_LEAVE_RUNNING 1u /* SAVE: the guest goes on after having been saved */
#define ERRAND_WAIT          2u /* POWER_BUTTON: for the guest's end */
#define ERRAND_FORCE         4u /* DOWN: even if guests run */

struct errand {
    uint32_t magic, version; /* PROTOCOL_VERSION */
    uint32_t type, flags;
    char guest[NAME_BYTES]; /* its name or number */
};

#endif
