/*
 * The console of a domain without device model: its UART and port 0xe9 on one side, the rings in its slot on the other. Nothing
 * is lost on the way: what finds no room in the ring stays in the UART, whose transmitter is not empty then; an OUT that finds
 * no room even there is not done, and its vCPU waits; both go on when dom0 has made room and rings. Typed bytes stay in their
 * ring until the UART takes them.
 *
 * All of it, the rings' counts as well, is under the chipset's lock.
 */
#include "hvm.h"

#define KEPT UART_SENT /* of the ring, for what a guest that ends has left in its UART */

static struct metronome_console *shared_of(const struct domain *d)
{
    return (void *)(d->slot->memory + METRONOME_DOMAIN_CONSOLE);
}

static uint32_t room_now(const struct domain *d, uint32_t kept)
{
    const struct metronome_console *c = shared_of(d);
    uint32_t used = d->console_produced - __atomic_load_n(&c->out_ring.consumed, __ATOMIC_SEQ_CST);

    return used < sizeof(c->out) - kept ? (uint32_t)sizeof(c->out) - kept - used : 0;
}

/* 0: dom0 rings when it has made room. Either we see that it has, or it sees that it is to ring. */
static uint32_t room(struct domain *d, uint32_t kept)
{
    uint32_t n = d->slot->registers ? room_now(d, kept) : UINT32_MAX;

    if (n)
        return n;
    __atomic_store_n(&shared_of(d)->out_waits, 1, __ATOMIC_SEQ_CST);
    return room_now(d, kept);
}

/* There is room for them. */
static void put(struct domain *d, const uint8_t *bytes, uint32_t n)
{
    struct metronome_console *c = shared_of(d);

    if (!d->slot->registers) {
        standalone_console(d, bytes, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        c->out[d->console_produced++ % sizeof(c->out)] = bytes[i];
    __atomic_store_n(&c->out_ring.produced, d->console_produced, __ATOMIC_RELEASE);
    slot_ring(d->slot);
}

/* False: there was nothing to do. */
static bool send(struct domain *d, uint32_t kept)
{
    struct uart *u = &d->chipset.uart;
    uint8_t bytes[UART_SENT];
    bool done = false;
    uint32_t n;

    for (; u->sent_count && (n = room(d, kept)); done = true)
        put(d, bytes, uart_take(u, bytes, n < sizeof(bytes) ? n : sizeof(bytes)));
    return done;
}

/* The next byte typed for the guest, or -1. */
static int typed_byte(struct domain *d)
{
    struct metronome_console *c = shared_of(d);
    uint8_t byte;

    if (!d->slot->registers)
        return console_read();
    if (d->console_consumed == __atomic_load_n(&c->in_ring.produced, __ATOMIC_ACQUIRE))
        return -1;
    byte = c->in[d->console_consumed++ % sizeof(c->in)];
    __atomic_store_n(&c->in_ring.consumed, d->console_consumed, __ATOMIC_RELEASE);
    return byte;
}

static bool receive(struct domain *d)
{
    bool done = false;

    if (!d->console_holds)
        d->console_held = typed_byte(d);
    for (; d->console_held >= 0 && uart_put(&d->chipset.uart, (uint8_t)d->console_held); done = true)
        d->console_held = typed_byte(d);
    d->console_holds = d->console_held >= 0;
    return done;
}

/* Typed bytes that found the UART full follow when the guest has read it empty. */
void domain_console_exchange(struct domain *d, uint64_t now)
{
    bool sent = send(d, KEPT), received = d->console_holds && !d->chipset.uart.rx_count && receive(d);

    if (sent || received)
        uart_advance(&d->chipset.uart, now);
}

/* Those that still find no room wait again. */
static void wake_writers(struct domain *d)
{
    if (!d->console_waited_for || !room(d, KEPT))
        return;
    d->console_waited_for = false;
    for (unsigned i = 0; i < d->vcpus; i++) {
        vcpu_look(d->vcpu[i]);
        hvm_breathe();
    }
}

void domain_console_poll(struct domain *d)
{
    struct chipset *c = &d->chipset;
    bool sent, received;

    if (d->has_dm || d->action) /* when it starts again we are called again */
        return;
    spin_lock(&c->lock);
    sent = send(d, KEPT);
    received = receive(d);
    if (sent || received) {
        uint64_t now = vtime_master(&d->time);

        uart_advance(&c->uart, now);
        chipset_update(d, now, PART_UART);
    }
    wake_writers(d);
    spin_unlock(&c->lock);
}

void domain_console_end(struct domain *d)
{
    spin_lock(&d->chipset.lock);
    send(d, 0);
    spin_unlock(&d->chipset.lock);
}

/* The vCPU wakes for interrupts too: it comes to the same OUT again, behind them. */
static enum emu_status wait_for_room(struct vcpu *v)
{
    v->domain->console_waited_for = true;
    sched_block(v, VCPU_IDLE);
    return EMU_WAIT;
}

enum emu_status domain_console_make_room(struct vcpu *v, uint64_t now, unsigned offset, unsigned size)
{
    struct domain *d = v->domain;

    if (uart_takes(&d->chipset.uart, offset, size))
        return EMU_OK;
    domain_console_exchange(d, now);
    return uart_takes(&d->chipset.uart, offset, size) ? EMU_OK : wait_for_room(v);
}

enum emu_status domain_console_put(struct vcpu *v, uint8_t byte)
{
    struct domain *d = v->domain;
    enum emu_status status = EMU_OK;

    spin_lock(&d->chipset.lock);
    send(d, KEPT); /* that came before it */
    if (!d->chipset.uart.sent_count && room(d, KEPT))
        put(d, &byte, 1);
    else
        status = wait_for_room(v);
    spin_unlock(&d->chipset.lock);
    return status;
}
