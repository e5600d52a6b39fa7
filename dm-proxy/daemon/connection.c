#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/guest.h"
#include "daemon/loop.h"
#include "daemon/protocol.h"
#include "daemon/save.h"

struct connection {
    struct watch client;
    int fds[REQUEST_MOST_FDS];
    unsigned fd_count;
    char text[REQUEST_MAX_BYTES];
};

static void take_fds(struct connection *c, struct msghdr *m)
{
    struct cmsghdr *h = CMSG_FIRSTHDR(m);

    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return;
    c->fd_count = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(c->fds, CMSG_DATA(h), c->fd_count * sizeof(int));
}

static void close_all(struct connection *c)
{
    for (unsigned i = 0; i < c->fd_count; i++)
        close(c->fds[i]);
    loop_close(&c->client);
    free(c);
}

static bool is_errand(const struct connection *c, size_t bytes)
{
    const struct errand *e = (const void *)c->text;

    return bytes == sizeof *e && e->magic == ERRAND_MAGIC;
}

static void answer(int client, enum event_type type, int status, const char *text)
{
    struct event e = {.type = type, .status = (uint32_t)status};

    snprintf(e.text, sizeof e.text, "%s", text);
    if (send(client, &e, sizeof e, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        perror("metronome-daemon: a client does not hear");
    close(client);
}

static void trigger(int client, const struct errand *e)
{
    static const uint32_t commands[TRIGGERS] = {[TRIGGER_NMI] = METRONOME_CONTROL_NMI,
                                                [TRIGGER_POWER] = METRONOME_CONTROL_POWER_BUTTON,
                                                [TRIGGER_RESET] = METRONOME_CONTROL_RESET};
    const char *why;
    struct guest *g = guest_find(e->guest, &why);

    if (!g) {
        answer(client, EVENT_REFUSED, EXIT_USAGE, why);
        return;
    }
    guest_command(g, commands[e->flags]);
    answer(client, EVENT_ENDED, EXIT_ENDED, "");
}

static void do_errand(int client, const struct errand *e, struct connection *c)
{
    bool known = e->version == PROTOCOL_VERSION && !e->guest[sizeof e->guest - 1];

    if (known && e->type == ERRAND_SAVE && c->fd_count == 1) {
        save_begin(client, e, c->fds[0]);
        c->fd_count = 0;
    } else if (known && e->type == ERRAND_TRIGGER && e->flags < TRIGGERS) {
        trigger(client, e);
    } else {
        answer(client, EVENT_REFUSED, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
    }
}

/* Who takes it over has the client's socket and the descriptors. */
static void hand_over(struct connection *c, size_t bytes)
{
    int client = fcntl(c->client.fd, F_DUPFD_CLOEXEC, 0);

    if (client < 0)
        return;
    if (is_errand(c, bytes)) {
        do_errand(client, (const struct errand *)(const void *)c->text, c);
        return;
    }
    guest_begin(client, c->text, bytes, c->fds, c->fd_count);
    c->fd_count = 0;
}

static void on_client(void *owner)
{
    struct connection *c = owner;
    char control[CMSG_SPACE(sizeof c->fds)];
    struct iovec data = {c->text, sizeof c->text};
    /* Not sizeof control: rounded up it would have room for one descriptor more than we have. */
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof c->fds)};
    ssize_t n = recvmsg(c->client.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0) {
        take_fds(c, &m);
        hand_over(c, (size_t)n);
    } else {
        guests_none_came();
    }
    close_all(c);
}

void connection_accept(int connection)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c) {
        close(connection);
        return;
    }
    loop_watch(&c->client, connection, on_client, c);
}
