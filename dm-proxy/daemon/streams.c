#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/packet.h"
#include "daemon/streams.h"

#define GATHER_MS 2 /* a serial port's bytes come one by one: those of so long together, for one wake-up */

void streams_init(struct streams *s)
{
    for (unsigned i = 0; i < STREAMS; i++)
        s->ours[i] = s->theirs[i] = -1;
    s->serial.fd = s->messages.fd = -1;
}

bool streams_open(struct streams *s, const char *owner)
{
    int ends[2];

    s->owner = owner;
    for (unsigned i = 0; i < STREAMS; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
            return false;
        s->ours[i] = ends[0];
        s->theirs[i] = ends[1];
    }
    return true;
}

static void close_all(int fds[STREAMS])
{
    for (unsigned i = 0; i < STREAMS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static void keep(struct streams *s, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->past[s->past_bytes++ % STREAMS_PAST_BYTES] = bytes[i];
}

/* False: there is nothing more at the moment. */
static bool take_serial(struct streams *s)
{
    uint8_t bytes[4096];
    ssize_t n = recv(s->serial.fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n > 0)
        keep(s, bytes, (size_t)n);
    else if (!n || errno != EAGAIN)
        loop_close(&s->serial);
    return n > 0;
}

static void on_gathered(void *owner)
{
    struct streams *s = owner;

    loop_pause(&s->serial, false);
}

static void on_serial(void *owner)
{
    struct streams *s = owner;

    take_serial(s);
    loop_pause(&s->serial, true);
    loop_timer(&s->gather, GATHER_MS, on_gathered, s);
}

static void end_line(struct streams *s)
{
    s->line[s->line_bytes] = 0;
    if (s->line_bytes)
        log_line("%s: device model: %s", s->owner, s->line);
    s->line_bytes = 0;
}

static bool take_messages(struct streams *s)
{
    char bytes[1024];
    ssize_t n = recv(s->messages.fd, bytes, sizeof bytes, MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\n')
            end_line(s);
        else if (s->line_bytes < sizeof s->line - 1)
            s->line[s->line_bytes++] = bytes[i];
    if (!n || (n < 0 && errno != EAGAIN)) {
        end_line(s);
        loop_close(&s->messages);
    }
    return n > 0;
}

static void on_messages(void *owner)
{
    take_messages(owner);
}

void streams_take_back(struct streams *s)
{
    if (s->ours[STREAM_SERIAL] < 0)
        return;
    loop_watch(&s->serial, dup(s->ours[STREAM_SERIAL]), on_serial, s);
    loop_watch(&s->messages, dup(s->ours[STREAM_MESSAGES]), on_messages, s);
}

static void leave_alone(struct streams *s)
{
    loop_cancel(&s->gather);
    loop_close(&s->serial);
    loop_close(&s->messages);
}

static int past_file(const struct streams *s, uint64_t *lost)
{
    int file = memfd_create("metronome-console", MFD_CLOEXEC);
    uint64_t from = s->past_bytes > STREAMS_PAST_BYTES ? s->past_bytes - STREAMS_PAST_BYTES : 0;
    uint64_t at = from % STREAMS_PAST_BYTES, n = s->past_bytes - from;
    uint64_t first = n < STREAMS_PAST_BYTES - at ? n : STREAMS_PAST_BYTES - at;

    *lost = from;
    if (file >= 0 && (pwrite(file, s->past + at, first, 0) != (ssize_t)first ||
                      pwrite(file, s->past, n - first, (off_t)first) != (ssize_t)(n - first))) {
        close(file);
        return -1;
    }
    return file;
}

bool streams_hand_over(struct streams *s, int client, bool monitor)
{
    struct event e = {.type = EVENT_ATTACHED, .status = monitor};
    int file = past_file(s, &e.lost);
    const int fds[STREAM_FDS] = {s->ours[STREAM_SERIAL], s->ours[STREAM_MONITOR], s->ours[STREAM_MESSAGES], file};
    bool sent = file >= 0 && packet_send(client, &e, sizeof e, fds, STREAM_FDS, MSG_DONTWAIT);

    if (file >= 0)
        close(file);
    if (!sent)
        return false;
    leave_alone(s);
    s->past_bytes = 0;
    return true;
}

/* With a client attached the rest is the client's to read. */
void streams_end(struct streams *s)
{
    close_all(s->theirs);
    while (s->messages.fd >= 0 && take_messages(s))
        ;
    leave_alone(s);
}

void streams_close(struct streams *s)
{
    leave_alone(s);
    close_all(s->ours);
    close_all(s->theirs);
}
