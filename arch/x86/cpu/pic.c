/*
 * The legacy 8259A pair: out of the way. Its vectors are moved off the exceptions, since a spurious IRQ7 comes also
 * from a masked one.
 */
#include "setup.h"

void pic_disable(void)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } setup[] = {
        {0x20, 0x11}, {0xa0, 0x11}, /* ICW1: edges, cascade, ICW4 follows */
        {0x21, 0x20}, {0xa1, 0x28}, /* ICW2: vectors */
        {0x21, 0x04}, {0xa1, 0x02}, /* ICW3: the slave is on IR2 */
        {0x21, 0x01}, {0xa1, 0x01}, /* ICW4: 8086 mode */
        {0x21, 0xff}, {0xa1, 0xff}, /* OCW1: all masked */
    };
    for (unsigned i = 0; i < sizeof setup / sizeof *setup; i++)
        outb(setup[i].port, setup[i].value);
}
