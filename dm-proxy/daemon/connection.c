#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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

/* Who takes it over has the client's socket and the descriptors. */
static void hand_over(struct connection *c, size_t bytes)
{
    int client = fcntl(c->client.fd, F_DUPFD_CLOEXEC, 0);

    if (client < 0)
        return;
    if (is_errand(c, bytes))
        save_begin(client, (const struct errand *)(const void *)c->text, c->fds, c->fd_count);
    else
        guest_begin(client, c->text, bytes, c->fds, c->fd_count);
    c->fd_count = 0;
}

static void on_client(void *owner)
{
    struct connection *c = owner;
    char control[CMSG_SPACE(sizeof c->fds)];
    struct iovec data = {c->text, sizeof c->text};
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
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
