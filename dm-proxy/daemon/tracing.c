#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "daemon/client.h"
#include "daemon/hypervisor.h"
#include "daemon/loop.h"
#include "daemon/packet.h"
#include "daemon/tracing.h"

static struct watch reader = {.fd = -1};
static bool tracing; /* the hypervisor has been told to */

static void set_mask(uint32_t mask, void (*done)(void *owner, int status))
{
    hypervisor_command(METRONOME_CONTROL_SET_TRACE, 0, (const uint64_t[]){mask, 0}, done, &reader);
    tracing = mask;
}

/* Killed as well: its end closes its connection. */
static void leave(void)
{
    hypervisor_forget(&reader);
    loop_close(&reader);
    if (tracing)
        set_mask(0, NULL);
}

static void on_begun(void *owner, int status)
{
    struct event e = {.type = EVENT_TRACING};
    int memory = hypervisor_memory();

    (void)owner;
    if (status) {
        client_tell(reader.fd, EVENT_REFUSED, EXIT_INTERNAL, "the hypervisor has no memory for a trace");
        tracing = false;
        leave();
    } else if (!packet_send(reader.fd, &e, sizeof e, &memory, 1, MSG_DONTWAIT)) {
        leave();
    }
}

static void on_stopped(void *owner, int status)
{
    (void)owner;
    (void)status;
    client_tell(reader.fd, EVENT_ENDED, EXIT_ENDED, "");
}

/* It says only that it wants no more; what is in the rings by then it takes out yet. */
static void on_reader(void *owner)
{
    struct order order;
    ssize_t n = recv(reader.fd, &order, sizeof order, MSG_DONTWAIT);

    (void)owner;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        leave();
    else if (tracing)
        set_mask(0, on_stopped);
}

static const char *in_use(void)
{
    static char why[100];
    struct ucred who = {0};
    socklen_t size = sizeof who;

    getsockopt(reader.fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    snprintf(why, sizeof why, "the trace is being read by process %d", (int)who.pid);
    return why;
}

/* What a reader before it has left there is not for this one. */
static void empty_rings(void)
{
    struct metronome_trace *t = hypervisor_trace();

    for (unsigned i = 0; i < METRONOME_TRACE_RINGS; i++)
        __atomic_store_n(&t->ring[i].consumed, __atomic_load_n(&t->ring[i].produced, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

const char *tracing_begin(int client, uint32_t mask)
{
    if (reader.fd >= 0)
        return in_use();
    empty_rings();
    loop_watch(&reader, client, on_reader, NULL);
    set_mask(mask, on_begun);
    return NULL;
}
