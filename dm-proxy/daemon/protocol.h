/*
 * Between `metronome` (the client) and the daemon, over a SOCK_SEQPACKET socket: each packet is one message.
 *
 *   client                                   daemon
 *   one request (request.h) with descriptors
 *                                            events: PROGRESS..., then RUNNING, later ENDED; or REFUSED
 *   order STOP, if it does not want to wait
 *   shutdown(SHUT_WR) after ENDED or REFUSED
 *                                            closes: for the last guest, when the hypervisor is gone as well
 *
 * A guest lives no longer than its client: a connection that is lost stops it.
 *
 *   errand about a guest of another client
 *                                            ENDED when it is done, or REFUSED; closes
 */
#ifndef METRONOME_PROTOCOL_H
#define METRONOME_PROTOCOL_H

#include <stdint.h>

#include "public/latency.h"
#include "public/stats.h"

#define PROTOCOL_VERSION  3
#define REQUEST_MAX_BYTES 100000

/* Descriptors that come with a request, in this order. */
enum request_fd {
    REQUEST_CWD,      /* the client's working directory: relative paths start there */
    REQUEST_SERIAL,   /* a socket: the guest's serial console */
    REQUEST_MONITOR,  /* a socket: QEMU's human monitor */
    REQUEST_MESSAGES, /* a pipe: what the device model says on stderr */
    REQUEST_FDS,
    REQUEST_IMAGE = REQUEST_FDS, /* of a guest to restore only: the file, which has been checked */
    REQUEST_MOST_FDS
};

/* Exit statuses of `metronome`, which the daemon chooses for what it sees. */
enum exit_status {
    EXIT_ENDED = 0, /* power-off, or the expected output was seen */
    EXIT_USAGE = 2, /* bad usage or bad input */
    EXIT_TIMEOUT = 3,
    EXIT_CRASH = 4,    /* the guest crashed */
    EXIT_INTERNAL = 5, /* Metronome, the hypervisor or the device model failed */
};

enum event_type { EVENT_PROGRESS, EVENT_RUNNING, EVENT_ENDED, EVENT_REFUSED };

struct event {
    uint32_t type;
    uint32_t status; /* ENDED, REFUSED: enum exit_status */
    char text[512];
    struct metronome_stats stats; /* ENDED */
    struct metronome_latency_summary latency_ns[METRONOME_LATENCY_SOURCE_COUNT]; /* of metronome_latency_headline() */
};

enum order_type { ORDER_STOP, ORDER_POWER_BUTTON, ORDER_RESET };

struct order {
    uint32_t type;
};

#define ERRAND_MAGIC 0x44525245u /* "ERRD": no request begins so */
enum errand_type {
    ERRAND_SAVE,    /* with a descriptor: the file to write; flags: ERRAND_LEAVE_RUNNING */
    ERRAND_TRIGGER, /* flags: enum errand_trigger */
};
#define ERRAND_LEAVE_RUNNING 1u /* the guest goes on after having been saved */
enum errand_trigger { TRIGGER_NMI, TRIGGER_POWER, TRIGGER_RESET, TRIGGERS };

struct errand {
    uint32_t magic, version; /* PROTOCOL_VERSION */
    uint32_t type, flags;
    char guest[64]; /* its name */
};

#endif
