/*
 * 16550A UART, for guests without a device model.
 *
 * State          complete
 * Features       FIFOs of 16 bytes each way, trigger levels, all four interrupt sources with their priorities (line status,
 *                received data with time-out, transmitter empty, modem status), modem control with loopback, scratch register.
 *                As a PC wires it: OUT2 gates the interrupt. A terminal is always attached: CTS, DSR and DCD are on.
 * Missing        parity, framing and break errors (no line to have them on); break is accepted and not sent.
 * Difference     - a byte takes no time on the line: it is sent when written, received when put. So the transmitter is empty again
 *                  at once, unless `sent` has not room for a whole FIFO more, because nobody takes from it
 *                  [test_transmit_stalls_when_full], and less than the trigger level is a character time-out at once
 *                  [test_timeout_is_immediate].
 *                - a byte written while `sent` is full is lost, as one written into a chip's full FIFO; who calls this asks
 *                  uart_takes() before and lets the CPU wait [test_takes, console:test_out_waits_for_a_late_reader].
 *                - nothing overruns outside loopback: uart_put() refuses instead [test_put_refuses_when_full].
 *                - the divisor is stored and ignored.
 *                - only byte accesses are defined [test_undefined_accesses].
 * Documentation  National Semiconductor PC16550D (June 1995), 8.0-8.6.
 *
 * Offsets from 0x3f8: 0 RBR/THR or DLL, 1 IER or DLM, 2 IIR/FCR, 3 LCR, 4 MCR, 5 LSR, 6 MSR, 7 SCR.
 */
#ifndef METRONOME_UART_H
#define METRONOME_UART_H

#include "device.h"

#define UART_FIFO 16u
#define UART_SENT 64u

struct uart {
    struct {
        struct line line[1]; /* IRQ 4 */
    } out;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr, dll, dlm;
    uint8_t thr_empty_pending; /* the transmitter-empty interrupt waits to be read or served */
    uint8_t rx_first, rx_count;
    uint8_t sent_first, sent_count;
    uint8_t zero[2];
    uint8_t rx[UART_FIFO];
    uint8_t sent[UART_SENT]; /* transmitted, waiting for uart_take() */
};
ct_assert(sizeof(struct uart) == 24 + 16 + UART_FIFO + UART_SENT);

void     uart_reset   (struct uart *s, uint64_t now);
uint64_t uart_read    (struct uart *s, uint64_t now, unsigned offset, unsigned size);
void     uart_write   (struct uart *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void     uart_advance (struct uart *s, uint64_t now);
uint64_t uart_deadline(const struct uart *s); /* NEVER: nothing here takes time */
bool     uart_check   (const struct uart *s);

/* False: a byte that is written there now is lost, in a transmitter that is full. */
bool     uart_takes   (const struct uart *s, unsigned offset, unsigned size);
/* Takes up to `max` transmitted bytes. The transmitter may become empty by it: uart_advance() brings the line up to date. */
unsigned uart_take(struct uart *s, uint8_t *bytes, unsigned max);
/* A byte arrives (uart_advance() raises the line); false, and nothing changed, if there is no room: try again later. */
bool     uart_put (struct uart *s, uint8_t byte);

#endif
