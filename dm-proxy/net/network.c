#include <errno.h>
#include <libslirp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "network.h"

#define MAX_FRAME 65536
#define BATCH 64
#define MAX_POLL 4096
#define NEVER INT64_MAX

struct timer {
    struct timer *next;
    SlirpTimerCb call;
    void *argument;
    int64_t due_ms;
};

struct network {
    Slirp *slirp;
    int fd;
    struct timer *timers;
    struct pollfd polls[MAX_POLL]; /* the first is the guest's */
    unsigned poll_count;
};

/* What libslirp calls. */

static ssize_t send_packet(const void *frame, size_t bytes, void *opaque)
{
    struct network *n = opaque;

    /* A guest that does not keep up loses frames, as on a wire. */
    return send(n->fd, frame, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? 0 : (ssize_t)bytes;
}

static void guest_error(const char *message, void *opaque)
{
    (void)opaque;
    fprintf(stderr, "metronome-net: %s\n", message);
}

static int64_t clock_get_ns(void *opaque)
{
    struct timespec t;

    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int64_t now_ms(void)
{
    return clock_get_ns(NULL) / 1000000;
}

static void *timer_new(SlirpTimerCb call, void *argument, void *opaque)
{
    struct network *n = opaque;
    struct timer *t = calloc(1, sizeof *t);

    if (!t)
        abort();
    *t = (struct timer){n->timers, call, argument, NEVER};
    n->timers = t;
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct network *n = opaque;
    struct timer **at;

    for (at = &n->timers; *at && *at != timer; at = &(*at)->next)
        ;
    if (*at)
        *at = (*at)->next;
    free(timer);
}

static void timer_mod(void *timer, int64_t due_ms, void *opaque)
{
    (void)opaque;
    ((struct timer *)timer)->due_ms = due_ms;
}

static void ignore_fd(int fd, void *opaque)
{
    (void)fd, (void)opaque;
}

static void ignore_notify(void *opaque)
{
    (void)opaque; /* there is one thread: it looks again before it sleeps */
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = ignore_fd,
    .unregister_poll_fd = ignore_fd,
    .notify = ignore_notify,
};

/* Polling. */

static const struct {
    int slirp;
    short poll;
} events[] = {{SLIRP_POLL_IN, POLLIN},
              {SLIRP_POLL_OUT, POLLOUT},
              {SLIRP_POLL_PRI, POLLPRI},
              {SLIRP_POLL_ERR, POLLERR},
              {SLIRP_POLL_HUP, POLLHUP}};

static int add_poll(int fd, int wanted, void *opaque)
{
    struct network *n = opaque;
    struct pollfd *p = &n->polls[n->poll_count];

    if (n->poll_count == MAX_POLL)
        return -1;
    *p = (struct pollfd){.fd = fd};
    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++)
        if (wanted & events[i].slirp)
            p->events |= events[i].poll;
    return (int)n->poll_count++;
}

static int get_revents(int index, void *opaque)
{
    struct network *n = opaque;
    int got = 0;

    if (index < 0)
        return 0;
    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++)
        if (n->polls[index].revents & events[i].poll)
            got |= events[i].slirp;
    return got;
}

static uint32_t until_next_timer(const struct network *n, uint32_t timeout)
{
    int64_t now = now_ms();

    for (const struct timer *t = n->timers; t; t = t->next) {
        int64_t left = t->due_ms == NEVER ? NEVER : t->due_ms > now ? t->due_ms - now : 0;
        if (left < (int64_t)timeout)
            timeout = (uint32_t)left;
    }
    return timeout;
}

static void run_timers(struct network *n)
{
    int64_t now = now_ms();
    struct timer *t = n->timers;

    while (t) {
        if (t->due_ms > now) {
            t = t->next;
            continue;
        }
        t->due_ms = NEVER;
        t->call(t->argument);
        t = n->timers; /* the call may have changed the list; a due timer is no longer due */
    }
}

/* A batch, so that sockets get their turn. False: the guest's side is gone. */
static bool take_frames(struct network *n)
{
    static uint8_t frame[MAX_FRAME];

    for (unsigned i = 0; i < BATCH; i++) {
        ssize_t bytes = recv(n->fd, frame, sizeof frame, MSG_DONTWAIT);
        if (bytes < 0)
            return errno == EAGAIN || errno == EINTR;
        if (bytes == 0)
            return false;
        slirp_input(n->slirp, frame, (int)bytes);
    }
    return true;
}

static bool turn(struct network *n)
{
    uint32_t timeout = 1000000;
    int ready;

    n->polls[0] = (struct pollfd){.fd = n->fd, .events = POLLIN};
    n->poll_count = 1;
    slirp_pollfds_fill(n->slirp, &timeout, add_poll, n);
    ready = poll(n->polls, n->poll_count, (int)until_next_timer(n, timeout));
    if (ready < 0 && errno != EINTR)
        return false;
    slirp_pollfds_poll(n->slirp, ready < 0, get_revents, n);
    run_timers(n);
    return !n->polls[0].revents || ready < 0 || take_frames(n);
}

static SlirpConfig config_of(const struct net_options *o)
{
    SlirpConfig c = {
        .version = 1,
        .restricted = o->restricted,
        .in_enabled = true,
        .vnetwork = o->network,
        .vnetmask = o->mask,
        .vhost = o->host,
        .in6_enabled = o->ipv6,
        .vprefix_len = 64,
        .vhostname = o->host_name,
        .tftp_server_name = o->tftp_server,
        .tftp_path = o->tftp,
        .bootfile = o->boot_file,
        .vdhcp_start = o->dhcp_start,
        .vnameserver = o->dns,
        .vdomainname = o->domain_name,
    };

    inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &c.vhost6);
    inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
    return c;
}

static bool forward_ports(struct network *n, const struct net_options *o, char *error, size_t error_bytes)
{
    for (unsigned i = 0; i < o->forward_count; i++) {
        const struct net_forward *f = &o->forwards[i];
        struct in_addr guest = f->guest.s_addr ? f->guest : o->dhcp_start;
        if (slirp_add_hostfwd(n->slirp, f->udp, f->host, f->host_port, guest, f->guest_port)) {
            snprintf(error, error_bytes, "user network: cannot listen on %s port %d: %s", f->udp ? "UDP" : "TCP",
                     f->host_port, strerror(errno));
            return false;
        }
    }
    return true;
}

struct network *network_new(int fd, const struct net_options *o, char *error, size_t error_bytes)
{
    struct network *n = calloc(1, sizeof *n);
    SlirpConfig config = config_of(o);

    if (!n)
        return NULL;
    n->fd = fd;
    n->slirp = slirp_new(&config, &callbacks, n);
    if (!n->slirp || !forward_ports(n, o, error, error_bytes)) {
        network_free(n);
        return NULL;
    }
    return n;
}

void network_run(struct network *n)
{
    while (turn(n))
        ;
}

void network_free(struct network *n)
{
    if (n->slirp)
        slirp_cleanup(n->slirp);
    while (n->timers)
        timer_free(n->timers, n);
    free(n);
}
