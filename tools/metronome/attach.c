#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach.h"
#include "client.h"
#include "daemon/packet.h"

#define DAEMON_PATIENCE_MS 10000
#define TRIES              3

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void attach_close(struct attachment *a)
{
    close_fd(&a->daemon);
    close_fd(&a->past);
    for (unsigned i = 0; i < STREAMS; i++)
        close_fd(&a->stream[i]);
}

static void refuse(struct event *e, int status, const char *text)
{
    *e = (struct event){.type = EVENT_REFUSED, .status = (uint32_t)status};
    snprintf(e->text, sizeof e->text, "%s", text);
}

static bool send_request(int daemon, const struct run *r)
{
    static char text[REQUEST_MAX_BYTES];
    size_t n = request_pack(&r->request, text, sizeof text);
    const int fds[REQUEST_MOST_FDS] = {open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), r->image};
    bool sent = n && fds[0] >= 0 && packet_send(daemon, text, n, fds, r->image >= 0 ? REQUEST_MOST_FDS : REQUEST_FDS, 0);

    if (fds[0] >= 0)
        close(fds[0]);
    return sent;
}

static bool send_errand(int daemon, const char *guest)
{
    struct errand e = {.magic = ERRAND_MAGIC, .version = PROTOCOL_VERSION, .type = ERRAND_ATTACH};

    snprintf(e.guest, sizeof e.guest, "%s", guest);
    return packet_send(daemon, &e, sizeof e, NULL, 0, 0);
}

/* False, and nothing in `refusal`: the daemon was about to end and has not taken it. */
static bool take_streams(struct attachment *a, struct event *refusal)
{
    struct pollfd p = {.fd = a->daemon, .events = POLLIN};
    int fds[PACKET_MOST_FDS];
    unsigned fd_count = 0;
    struct event e;

    if (poll(&p, 1, DAEMON_PATIENCE_MS) <= 0 || packet_receive(a->daemon, &e, sizeof e, fds, &fd_count, 0) != sizeof e)
        return false;
    if (e.type == EVENT_ATTACHED && fd_count == STREAM_FDS) {
        memcpy(a->stream, fds, sizeof a->stream);
        a->past = fds[STREAM_PAST];
        a->lost = e.lost;
        a->monitor = e.status;
        return true;
    }
    e.text[sizeof e.text - 1] = 0;
    *refusal = e;
    return false;
}

static bool try_to(struct attachment *a, const struct run *r, struct event *refusal)
{
    char error[400] = "";

    *a = (struct attachment){.stream = {-1, -1, -1}, .past = -1};
    a->daemon = r->guest ? client_connect_running() : client_connect(error, sizeof error);
    if (a->daemon < 0) {
        refuse(refusal, r->guest ? EXIT_NOT_UP : EXIT_INTERNAL, r->guest ? NOT_UP : error);
        return false;
    }
    return (r->guest ? send_errand(a->daemon, r->guest) : send_request(a->daemon, r)) && take_streams(a, refusal);
}

/* A daemon that is about to end does not answer, and then a new one is needed. */
bool attach(struct attachment *a, const struct run *r, struct event *refusal)
{
    *refusal = (struct event){0};
    for (unsigned i = 0; i < TRIES && !*refusal->text; i++) {
        if (try_to(a, r, refusal))
            return true;
        if (!*refusal->text)
            attach_close(a);
    }
    if (!*refusal->text)
        refuse(refusal, EXIT_INTERNAL, "the daemon does not answer");
    return false;
}
