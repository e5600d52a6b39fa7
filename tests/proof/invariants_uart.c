#include <string.h>
#include "step.h"
#include "uart/uart.h"

enum { ENABLE_FIFOS = 1, OVERRUN = 2, EMPTY = 0x60, LOOP = 16, DLAB = 0x80 };

static bool stalled(const struct uart *s)
{
    return s->sent_count > UART_SENT - UART_FIFO;
}

static unsigned capacity(const struct uart *s)
{
    return s->fcr & ENABLE_FIFOS ? UART_FIFO : 1;
}

static void repair(void *state)
{
    struct uart *s = state;

    s->ier &= 15;
    s->mcr &= 31;
    s->fcr &= s->fcr & ENABLE_FIFOS ? 0xc9 : 0;
    s->rx_first %= UART_FIFO;
    if (s->rx_count > capacity(s))
        s->rx_count %= capacity(s) + 1;
    s->sent_first %= UART_SENT;
    if (s->sent_count > UART_SENT)
        s->sent_count %= UART_SENT + 1;
    s->lsr = (uint8_t)((s->lsr & OVERRUN) | (stalled(s) ? 0 : EMPTY));
    s->thr_empty_pending &= !stalled(s);
    s->zero[0] = s->zero[1] = 0;
    s->out.line[0].level &= 1;
    s->out.line[0].zero = 0;
}

/* What is sent is what was written, in order; what is received is what came, in order. */
static void expect_queues(const struct transition *t)
{
    const struct uart *was = t->before, *is = t->after;
    const struct action *a = t->action;
    bool data = writes(a) && a->offset == 0 && a->size == 1 && !(was->lcr & DLAB);
    int sent = is->sent_count - was->sent_count;

    EXPECT(sent <= 0 || (sent == 1 && data && !(was->mcr & LOOP)), "UART-1: a byte is sent by writing it");
    EXPECT(sent == 1 || !data || (was->mcr & LOOP) || !uart_takes(was, 0, 1), "UART-1: what the transmitter takes is not lost");
    if (sent == 1)
        EXPECT(is->sent_first == was->sent_first &&
                   is->sent[(was->sent_first + was->sent_count) % UART_SENT] == (uint8_t)a->value,
               "UART-1: behind those before it");
    EXPECT(sent >= 0 || a->kind == SPECIAL, "UART-2: sent bytes wait until taken");
    EXPECT(is->rx_count <= was->rx_count + 1, "UART-3: bytes come one by one");
    if (is->rx_count == was->rx_count + 1)
        EXPECT((data && (was->mcr & LOOP)) || (a->kind == SPECIAL && a->which < 8), "UART-3: from the line, or looped back");
}

/* The transmitter's interrupt comes when it becomes empty, and when it is enabled while empty. */
static void expect_transmitter(const struct transition *t)
{
    const struct uart *was = t->before, *is = t->after;
    const struct action *a = t->action;
    bool taken = a->kind == SPECIAL && stalled(was) && !stalled(is);

    EXPECT(is->thr_empty_pending <= was->thr_empty_pending || taken || (writes(a) && a->offset <= 1),
           "UART-5: the transmitter's interrupt comes by a write, or by bytes taken from a stalled one");
}

static void expect_read(const struct transition *t)
{
    const struct uart *was = t->before, *is = t->after;
    struct uart rest = *is;
    bool dlab = was->lcr & DLAB;

    rest.out = was->out;
    switch (t->action->size == 1 ? t->action->offset : 8) {
    case 0:
        if (!dlab)
            rest.rx_first = was->rx_first, rest.rx_count = was->rx_count;
        break;
    case 2: rest.thr_empty_pending = was->thr_empty_pending; break;
    case 5: rest.lsr |= was->lsr & OVERRUN; break;
    case 6: rest.msr |= was->msr & 15; break;
    default: break;
    }
    EXPECT(memcmp(&rest, was, sizeof(rest)) == 0, "UART-4: RBR, IIR, LSR and MSR change by being read; no other does");
}

static void expect(const struct transition *t)
{
    expect_queues(t);
    expect_transmitter(t);
    if (reads(t->action))
        expect_read(t);
}

const struct invariants invariants = {{1, 1, 8}, repair, expect};
