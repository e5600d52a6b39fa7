/*
 * The 16550 on COM1, polled (National Semiconductor PC16550D data sheet, 8.0).
 */
#include "serial.h"
#include "asm.h"

#define COM1 0x3f8
enum { DATA = 0, IER = 1, FCR = 2, LCR = 3, MCR = 4, LSR = 5, SCRATCH = 7, DIVISOR_LOW = 0, DIVISOR_HIGH = 1 };
enum { LCR_8N1 = 0x03, LCR_DIVISOR = 0x80, LSR_READY = 0x01, LSR_EMPTY = 0x20, LSR_IDLE = 0x40 };

/* A transmitter that is not empty after this many reads, about 1 us each on real hardware, is stuck: the byte is dropped. */
#define WAIT_LIMIT 100000u

static bool present;

bool serial_init(void)
{
    static const uint8_t setup[][2] = {
        {IER, 0}, {LCR, LCR_DIVISOR}, {DIVISOR_LOW, 1}, {DIVISOR_HIGH, 0}, {LCR, LCR_8N1}, {FCR, 0x07}, {MCR, 0x03},
    };
    outb(COM1 + SCRATCH, 0x5a);
    present = inb(COM1 + SCRATCH) == 0x5a && inb(COM1 + LSR) != 0xff;
    for (unsigned i = 0; present && i < sizeof setup / sizeof *setup; i++)
        outb((uint16_t)(COM1 + setup[i][0]), setup[i][1]);
    return present;
}

static bool wait_for(uint8_t bit)
{
    for (unsigned i = 0; i < WAIT_LIMIT; i++)
        if (inb(COM1 + LSR) & bit)
            return true;
    return false;
}

void serial_put(char byte)
{
    if (present && wait_for(LSR_EMPTY))
        outb(COM1 + DATA, (uint8_t)byte);
}

int serial_get(void)
{
    if (!present || !(inb(COM1 + LSR) & LSR_READY))
        return -1;
    return inb(COM1 + DATA);
}

void serial_drain(void)
{
    if (present)
        wait_for(LSR_IDLE);
}
