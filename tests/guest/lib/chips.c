/* 8259 pair, 8254, COM1's interrupt, CMOS, PM timer. */
#include "guest.h"

void pic_init(void)
{
    static const uint8_t words[][2] = {{0x20, 0x11}, {0x21, PIC_BASE}, {0x21, 4}, {0x21, 1}, {0xa0, 0x11}, {0xa1, PIC_BASE + 8}, {0xa1, 2}, {0xa1, 1}};
    for (unsigned i = 0; i < sizeof(words) / 2; i++)
        outb(words[i][0], words[i][1]);
    pic_mask(0xffff);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
}

void pic_mask(uint16_t mask)
{
    outb(0x21, (uint8_t)mask);
    outb(0xa1, (uint8_t)(mask >> 8));
}

static uint16_t pic_register(uint8_t ocw3)
{
    outb(0x20, ocw3);
    outb(0xa0, ocw3);
    return (uint16_t)(inb(0x20) | inb(0xa0) << 8);
}

uint16_t pic_irr(void)
{
    return pic_register(0x0a);
}

uint16_t pic_isr(void)
{
    return pic_register(0x0b);
}

void pic_eoi(unsigned irq)
{
    if (irq >= 8) {
        outb(0xa0, (uint8_t)(0x60 | (irq & 7)));
        irq = 2;
    }
    outb(0x20, (uint8_t)(0x60 | irq));
}

void pit_mode(unsigned channel, unsigned mode, uint16_t count)
{
    outb(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb((uint16_t)(0x40 + channel), (uint8_t)count);
    outb((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

uint16_t pit_count(unsigned channel)
{
    outb(0x43, (uint8_t)(channel << 6));
    uint8_t low = inb((uint16_t)(0x40 + channel));
    return (uint16_t)(low | inb((uint16_t)(0x40 + channel)) << 8);
}

uint8_t pit_status(unsigned channel)
{
    outb(0x43, (uint8_t)(0xe0 | 2 << channel));
    return inb((uint16_t)(0x40 + channel));
}

void irq4_set(bool level)
{
    outb(0x3f8 + 4, 8);              /* OUT2 lets it through */
    outb(0x3f8 + 1, level ? 2 : 0); /* the transmitter is always empty here */
}

uint8_t cmos_read(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

void cmos_write(uint8_t index, uint8_t v)
{
    outb(0x70, index);
    outb(0x71, v);
}

uint32_t pm_timer(void)
{
    return inl(pm.timer) & 0xffffff;
}

uint64_t pm_since(uint32_t start)
{
    return (pm_timer() - start) & 0xffffff;
}
