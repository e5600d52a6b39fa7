#include "model.h"
#include "uart/uart.h"

MODEL_ACCESS(uart)
MODEL_TIME(uart)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    static const struct line low;
    ((struct uart *)s)->out.line[0] = low;
    uart_reset(s, now);
}

static uint64_t take(struct uart *s, unsigned max)
{
    uint8_t bytes[UART_SENT] = {0};
    unsigned n = uart_take(s, bytes, max % (UART_SENT + 1));
    uint64_t sum = n;

    for (unsigned i = 0; i < n && i < UART_SENT; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    if (which < 8)
        return uart_put(s, (uint8_t)argument);
    if (which < 15)
        return take(s, argument);
    uart_reset(s, now);
    return 0;
}

const struct model model = {
    MODEL_FUNCTIONS,    .size = sizeof(struct uart),
    .offsets = 8,       .first_line = offsetof(struct uart, out.line),
    .lines = 1,         .reset = reset,
    .special = special,
};
