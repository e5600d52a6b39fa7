#include "uart.h"

enum { IER_DATA = 1, IER_THR_EMPTY = 2, IER_LINE = 4, IER_MODEM = 8, IER_KNOWN = 15 };
enum { IIR_MODEM = 0, IIR_NONE = 1, IIR_THR_EMPTY = 2, IIR_DATA = 4, IIR_LINE = 6, IIR_TIMEOUT = 12, IIR_FIFOS = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16, MCR_KNOWN = 31 };
enum { LSR_DATA = 1, LSR_OVERRUN = 2, LSR_THR_EMPTY = 0x20, LSR_IDLE = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

static unsigned rx_capacity(const struct uart *s)
{
    return (s->fcr & FCR_ENABLE) ? UART_FIFO : 1;
}

static unsigned rx_trigger(const struct uart *s)
{
    static const uint8_t level[] = {1, 4, 8, 14};
    return (s->fcr & FCR_ENABLE) ? level[s->fcr >> 6] : 1;
}

/* The pending interrupt of the highest priority, as IIR shows it (8.5, table IV). */
static uint8_t pending(const struct uart *s)
{
    if ((s->ier & IER_LINE) && (s->lsr & LSR_OVERRUN))
        return IIR_LINE;
    if ((s->ier & IER_DATA) && s->rx_count)
        return s->rx_count >= rx_trigger(s) ? IIR_DATA : IIR_TIMEOUT;
    if ((s->ier & IER_THR_EMPTY) && s->thr_empty_pending)
        return IIR_THR_EMPTY;
    if ((s->ier & IER_MODEM) && (s->msr & 15))
        return IIR_MODEM;
    return IIR_NONE;
}

/* OUT2 drives the gate of the PC's interrupt line; loopback takes it off its pin. */
static void update(struct uart *s, uint64_t now)
{
    bool gate = (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    line_set(&s->out.line[0], now, gate && pending(s) != IIR_NONE);
}

/* An empty transmitter takes a whole FIFO without being asked in between: drivers send so many on one interrupt. */
static bool stalled(const struct uart *s)
{
    return s->sent_count > UART_SENT - UART_FIFO;
}

/* The transmitter is empty again; that is an event where it was not, or where a byte has just gone through. */
static void transmitter_empty(struct uart *s)
{
    s->lsr |= LSR_THR_EMPTY | LSR_IDLE;
    s->thr_empty_pending = 1;
}

static void rx_push(struct uart *s, uint8_t byte)
{
    s->rx[(s->rx_first + s->rx_count++) % UART_FIFO] = byte;
}

static void transmit(struct uart *s, uint8_t byte)
{
    s->thr_empty_pending = 0;
    if (s->sent_count == UART_SENT)
        return; /* written into a full transmitter: lost, as on the line, in loopback as well */
    if (!(s->mcr & MCR_LOOP))
        s->sent[(s->sent_first + s->sent_count++) % UART_SENT] = byte;
    else if (s->rx_count < rx_capacity(s))
        rx_push(s, byte);
    else
        s->lsr |= LSR_OVERRUN;
    if (stalled(s))
        s->lsr = (uint8_t)(s->lsr & ~(LSR_THR_EMPTY | LSR_IDLE));
    else
        transmitter_empty(s);
}

/* The modem's lines, or in loopback the chip's own outputs; a change sets its delta bit (RI: only when it goes off). */
static void set_modem_lines(struct uart *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;
    if (s->mcr & MCR_LOOP)
        lines = (uint8_t)(((s->mcr & MCR_RTS) ? MSR_CTS : 0) | ((s->mcr & MCR_DTR) ? MSR_DSR : 0) | ((s->mcr & MCR_OUT1) ? MSR_RI : 0) |
                          ((s->mcr & MCR_OUT2) ? MSR_DCD : 0));
    changed = (uint8_t)((s->msr ^ lines) & (MSR_CTS | MSR_DSR | MSR_DCD));
    changed |= (uint8_t)(s->msr & ~lines & MSR_RI);
    s->msr = (uint8_t)(lines | (s->msr & 15) | changed >> 4);
}

static void write_fcr(struct uart *s, uint8_t value)
{
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;
    if (toggled || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX)))
        s->rx_count = 0;
    s->fcr = (value & FCR_ENABLE) ? (uint8_t)(value & FCR_KEPT) : 0; /* the other bits need FIFOs enabled */
}

static void write_ier(struct uart *s, uint8_t value)
{
    /* Enabling the transmitter's interrupt while it is empty raises it, each time. */
    if ((value & ~s->ier & IER_THR_EMPTY) && (s->lsr & LSR_THR_EMPTY))
        s->thr_empty_pending = 1;
    s->ier = (uint8_t)(value & IER_KNOWN);
}

static uint8_t read_rbr(struct uart *s)
{
    uint8_t byte = s->rx[s->rx_first];
    if (s->rx_count) {
        s->rx_first = (uint8_t)((s->rx_first + 1) % UART_FIFO);
        s->rx_count--;
    }
    return byte;
}

static uint8_t read_iir(struct uart *s)
{
    uint8_t id = pending(s);
    if (id == IIR_THR_EMPTY)
        s->thr_empty_pending = 0;
    return (uint8_t)(id | ((s->fcr & FCR_ENABLE) ? IIR_FIFOS : 0));
}

void uart_reset(struct uart *s, uint64_t now)
{
    struct line line = s->out.line[0];
    *s = (struct uart){.lsr = LSR_THR_EMPTY | LSR_IDLE, .msr = MSR_CTS | MSR_DSR | MSR_DCD, .dll = 1};
    s->out.line[0] = line; /* edges count on over a reset */
    update(s, now);
}

uint64_t uart_read(struct uart *s, uint64_t now, unsigned offset, unsigned size)
{
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t value = 0xff;
    if (size != 1 || offset > 7)
        return all_ones(size);
    switch (offset) {
    case 0: value = dlab ? s->dll : read_rbr(s); break;
    case 1: value = dlab ? s->dlm : s->ier; break;
    case 2: value = read_iir(s); break;
    case 3: value = s->lcr; break;
    case 4: value = s->mcr; break;
    case 5: value = (uint8_t)(s->lsr | (s->rx_count ? LSR_DATA : 0)); s->lsr = (uint8_t)(s->lsr & ~LSR_OVERRUN); break;
    case 6: value = s->msr; s->msr = (uint8_t)(s->msr & ~15); break;
    case 7: value = s->scr; break;
    }
    update(s, now);
    return value;
}

void uart_write(struct uart *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t byte = (uint8_t)value;
    if (size != 1 || offset > 7)
        return;
    switch (offset) {
    case 0: if (dlab) s->dll = byte; else transmit(s, byte); break;
    case 1: if (dlab) s->dlm = byte; else write_ier(s, byte); break;
    case 2: write_fcr(s, byte); break;
    case 3: s->lcr = byte; break;
    case 4: s->mcr = (uint8_t)(byte & MCR_KNOWN); set_modem_lines(s); break;
    case 7: s->scr = byte; break;
    default: break; /* LSR and MSR are read-only */
    }
    update(s, now);
}

void uart_advance(struct uart *s, uint64_t now)
{
    update(s, now);
}

uint64_t uart_deadline(const struct uart *s)
{
    (void)s;
    return NEVER;
}

bool uart_takes(const struct uart *s, unsigned offset, unsigned size)
{
    return offset != 0 || size != 1 || (s->lcr & LCR_DLAB) || s->sent_count < UART_SENT;
}

unsigned uart_take(struct uart *s, uint8_t *bytes, unsigned max)
{
    unsigned n = 0;
    bool was_stalled = stalled(s);
    for (; n < max && s->sent_count; n++, s->sent_count--) {
        bytes[n] = s->sent[s->sent_first];
        s->sent_first = (uint8_t)((s->sent_first + 1) % UART_SENT);
    }
    if (was_stalled && !stalled(s))
        transmitter_empty(s);
    return n;
}

bool uart_put(struct uart *s, uint8_t byte)
{
    if ((s->mcr & MCR_LOOP) || s->rx_count >= rx_capacity(s))
        return false;
    rx_push(s, byte);
    return true;
}

bool uart_check(const struct uart *s)
{
    uint8_t empty = stalled(s) ? 0 : LSR_THR_EMPTY | LSR_IDLE;
    bool registers = s->ier <= IER_KNOWN && s->mcr <= MCR_KNOWN && !(s->fcr & ~FCR_KEPT) && (!s->fcr || (s->fcr & FCR_ENABLE)) &&
                     (s->lsr & ~LSR_OVERRUN) == empty;
    bool fifos = s->rx_first < UART_FIFO && s->rx_count <= rx_capacity(s) && s->sent_first < UART_SENT && s->sent_count <= UART_SENT &&
                 s->thr_empty_pending <= !stalled(s);
    return registers && fifos && !s->zero[0] && !s->zero[1] && !s->out.line[0].zero && s->out.line[0].level <= 1;
}
