#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/console.h"

#define POLL_MS 20 /* beside the doorbell: more output that came while the client was slow, input that found no room */
#define MAP_BYTES ((sizeof(struct metronome_console) + 4095) & ~4095ul)

void console_init(struct console *c)
{
    memset(c, 0, sizeof *c);
    c->doorbell.fd = c->input.fd = -1;
}

static void ring(struct console *c)
{
    uint64_t one = 1;

    if (write(c->slot->to_hypervisor, &one, sizeof one) < 0)
        return; /* it has many to see yet */
}

/* Writes as much of the ring as the socket takes: up to the ring's end, then the rest next time. */
static bool move_output(struct console *c)
{
    struct metronome_console *s = c->shared;
    uint32_t consumed = s->out_ring.consumed;
    uint32_t there = __atomic_load_n(&s->out_ring.produced, __ATOMIC_ACQUIRE) - consumed;
    uint32_t at = consumed % sizeof s->out, n = sizeof s->out - at;
    ssize_t written;

    if (there > sizeof s->out || c->input.fd < 0)
        return false;
    if (n > there)
        n = there;
    written = n ? send(c->input.fd, s->out + at, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (written <= 0)
        return false;
    __atomic_store_n(&s->out_ring.consumed, consumed + (uint32_t)written, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&s->out_waits, 0, __ATOMIC_SEQ_CST))
        ring(c);
    return true;
}

static void move_input(struct console *c)
{
    struct metronome_console *s = c->shared;
    uint32_t produced = s->in_ring.produced, moved = 0;
    uint32_t room = sizeof s->in - (produced - __atomic_load_n(&s->in_ring.consumed, __ATOMIC_ACQUIRE));

    if (!c->waiting_bytes || room > sizeof s->in)
        return;
    for (; moved < c->waiting_bytes && moved < room; moved++)
        s->in[(produced + moved) % sizeof s->in] = c->waiting[moved];
    if (!moved)
        return;
    __atomic_store_n(&s->in_ring.produced, produced + moved, __ATOMIC_RELEASE);
    c->waiting_bytes -= moved;
    memmove(c->waiting, c->waiting + moved, c->waiting_bytes);
    ring(c);
}

void console_flush(struct console *c)
{
    while (c->shared && move_output(c))
        ;
}

static void on_doorbell(void *owner)
{
    struct console *c = owner;
    uint64_t count;

    if (read(c->doorbell.fd, &count, sizeof count) == sizeof count)
        console_flush(c);
}

/* When there is no room the socket is left alone, so that the sender waits. */
static void on_input(void *owner)
{
    struct console *c = owner;
    ssize_t n = recv(c->input.fd, c->waiting + c->waiting_bytes, sizeof c->waiting - c->waiting_bytes, MSG_DONTWAIT);

    if (n > 0)
        c->waiting_bytes += (unsigned)n;
    else if (!n || errno != EAGAIN)
        loop_close(&c->input);
    move_input(c);
    if (c->waiting_bytes == sizeof c->waiting)
        loop_pause(&c->input, true);
}

static void on_poll(void *owner)
{
    struct console *c = owner;

    loop_timer(&c->poll, POLL_MS, on_poll, c);
    console_flush(c);
    move_input(c);
    if (c->waiting_bytes < sizeof c->waiting)
        loop_pause(&c->input, false);
}

bool console_open(struct console *c, const struct ivshmem *slot, int socket)
{
    void *shared = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, slot->memory, METRONOME_DOMAIN_CONSOLE);

    if (shared == MAP_FAILED)
        return false;
    c->shared = shared;
    c->slot = slot;
    loop_watch(&c->doorbell, dup(slot->to_dom0), on_doorbell, c);
    loop_watch(&c->input, dup(socket), on_input, c);
    loop_timer(&c->poll, POLL_MS, on_poll, c);
    return true;
}

/* The guest has ended, and its last words shall not wait for a client that is slow to read: the socket takes a whole ring more
 * than it would. */
static void make_room(int socket)
{
    int bytes = 0;
    socklen_t size = sizeof bytes;

    if (!getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, &size))
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes); /* which the kernel doubles */
}

void console_close(struct console *c)
{
    if (!c->shared)
        return;
    if (c->input.fd >= 0)
        make_room(c->input.fd);
    console_flush(c);
    loop_cancel(&c->poll);
    loop_close(&c->doorbell);
    loop_close(&c->input);
    munmap(c->shared, MAP_BYTES);
    c->shared = NULL;
}
