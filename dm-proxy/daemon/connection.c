#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/errand.h"
#include "daemon/guest.h"
#include "daemon/lifetime.h"
#include "daemon/loop.h"
#include "daemon/packet.h"
#include "daemon/protocol.h"

#define PATIENCE_MS 10000

struct connection {
    struct watch client;
    struct timer patience;
    int fds[PACKET_MOST_FDS];
    unsigned fd_count;
    char text[REQUEST_MAX_BYTES];
};

static void forget(struct connection *c)
{
    loop_cancel(&c->patience);
    loop_close(&c->client);
    free(c);
    lifetime_first_came();
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

    if (client >= 0 && is_errand(c, bytes))
        errand_begin(client, (const struct errand *)(const void *)c->text, c->fds, c->fd_count);
    else if (client >= 0)
        guest_begin(client, c->text, bytes, c->fds, c->fd_count);
    else
        for (unsigned i = 0; i < c->fd_count; i++)
            close(c->fds[i]);
}

static void on_client(void *owner)
{
    struct connection *c = owner;
    ssize_t n = packet_receive(c->client.fd, c->text, sizeof c->text, c->fds, &c->fd_count, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0)
        hand_over(c, (size_t)n);
    forget(c);
}

static void on_silent(void *owner)
{
    forget(owner);
}

void connection_accept(int connection)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c) {
        close(connection);
        return;
    }
    loop_watch(&c->client, connection, on_client, c);
    loop_timer(&c->patience, PATIENCE_MS, on_silent, c);
}
