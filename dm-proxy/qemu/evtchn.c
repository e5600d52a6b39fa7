/*
 * libxenevtchn: one eventfd and a few shared bits become the event channels that QEMU waits on: a port per vCPU (vCPU
 * number + 1) and one for posted writes. Requests that the library answers itself, or refuses, never reach QEMU.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenevtchn.h>

#include "dm.h"
#include "evtchn.h"

struct xenevtchn_handle {
    int fd;
    bool real; /* the one that requests come through; further ones never fire */
};

static uint64_t vcpus_waiting; /* taken from the hypervisor, not yet given to QEMU */
static bool buffered_bound, buffered_masked, doorbell_absorbed, reset_follows, opened;

static void drain_doorbell(void)
{
    uint64_t count;

    while (read(dm.options.wait_fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

/* Makes QEMU's main loop come back although the hypervisor does not ring again. */
static void kick_self(void)
{
    uint64_t one = 1;

    while (write(dm.options.wait_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void collect(void)
{
    vcpus_waiting |= __atomic_exchange_n(&dm.notify->vcpu_pending, 0, __ATOMIC_ACQ_REL);
}

void dm_absorb_doorbell(void)
{
    drain_doorbell();
    doorbell_absorbed = true;
}

void dm_return_doorbell(void)
{
    if (doorbell_absorbed)
        kick_self();
    doorbell_absorbed = false;
}

void dm_reset_follows(void)
{
    reset_follows = true;
}

bool dm_ports_bound(void)
{
    return buffered_bound;
}

static bool buffer_holds_writes(void)
{
    return __atomic_load_n(&dm.buffered->write_pointer, __ATOMIC_ACQUIRE) != dm.buffered->read_pointer;
}

static struct metronome_ioreq *ready_request(unsigned vcpu)
{
    struct metronome_ioreq *request = &dm.ioreq->vcpu[vcpu];
    uint8_t state = __atomic_load_n(&request->state_dir_df, __ATOMIC_ACQUIRE) & METRONOME_IOREQ_STATE_MASK;

    return vcpu < dm.header.vcpus && state == METRONOME_IOREQ_READY ? request : NULL;
}

/* True if QEMU shall have the vCPU's request; else it has been answered here, or there is none. */
static bool is_for_qemu(unsigned vcpu)
{
    struct metronome_ioreq *request = ready_request(vcpu);

    if (!request)
        return false;
    if (!request_acceptable(request))
        request_answer(request, UINT64_MAX);
    else if (!fw_cfg_port_answers(request))
        return true;
    dm_ring();
    return false;
}

static int next_vcpu(void)
{
    while (vcpus_waiting) {
        unsigned vcpu = __builtin_ctzll(vcpus_waiting);
        vcpus_waiting &= vcpus_waiting - 1;
        if (is_for_qemu(vcpu))
            return (int)vcpu;
    }
    return -1;
}

/* Posted writes are announced once; QEMU then polls their ring until it is quiet and unmasks the port. */
static bool writes_to_announce(void)
{
    return !buffered_masked &&
           (__atomic_load_n(&dm.notify->buffered_pending, __ATOMIC_ACQUIRE) || buffer_holds_writes());
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    int vcpu;

    if (!xce->real) {
        errno = EAGAIN;
        return -1;
    }
    dm.in_request = false;
    /* The doorbell is cleared before the bits are taken: one that rings in between is seen again. */
    drain_doorbell();
    collect();
    vcpu = next_vcpu();
    if (vcpu >= 0) {
        dm.in_request = true;
        if (vcpus_waiting || writes_to_announce())
            kick_self();
        return VCPU_PORT(vcpu);
    }
    if (writes_to_announce()) {
        buffered_masked = true;
        return BUFFERED_PORT;
    }
    errno = EAGAIN;
    return -1;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    if (!xce->real || port != BUFFERED_PORT)
        return 0;
    buffered_masked = false;
    /* From here on the hypervisor rings for the next posted write; one that came just before is looked for. */
    __atomic_exchange_n(&dm.notify->buffered_pending, 0, __ATOMIC_SEQ_CST);
    if (buffer_holds_writes())
        kick_self();
    return 0;
}

/*
 * The guest asked for the reset in the request just answered, and QEMU has already reset its devices. Only now, with no
 * request left in QEMU's hands, may the hypervisor start the vCPUs again and use the request slots anew.
 */
static void finish_reset(void)
{
    reset_follows = false;
    collect();
    for (; vcpus_waiting; vcpus_waiting &= vcpus_waiting - 1) {
        struct metronome_ioreq *request = ready_request(__builtin_ctzll(vcpus_waiting));
        if (request)
            request_answer(request, UINT64_MAX);
    }
    dm_send(METRONOME_DM_RESET_DONE, 0, 0, 0, 0);
}

/* QEMU has answered the request in place. */
int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)port;
    if (!xce->real)
        return 0;
    if (reset_follows)
        finish_reset();
    dm.in_request = false;
    dm_ring();
    return 0;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    xenevtchn_handle *xce = calloc(1, sizeof *xce);

    (void)logger, (void)flags;
    dm_attach();
    if (!xce)
        return NULL;
    xce->real = !opened;
    opened = true;
    xce->fd = xce->real ? dm.options.wait_fd : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (xce->real)
        fcntl(xce->fd, F_SETFL, fcntl(xce->fd, F_GETFL) | O_NONBLOCK);
    return xce;
}

int xenevtchn_close(xenevtchn_handle *xce)
{
    if (xce && !xce->real)
        close(xce->fd);
    free(xce);
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    return xce->fd;
}

/* Ports are bound to themselves: devicemodel.c hands out the remote ports. */
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domain, evtchn_port_t port)
{
    (void)xce, (void)domain;
    if (port < VCPU_PORT(0) || port > BUFFERED_PORT) {
        errno = EINVAL;
        return -1;
    }
    if (port == BUFFERED_PORT)
        buffered_bound = true;
    return (int)port;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}
