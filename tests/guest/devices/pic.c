/* 8259A pair and ELCR. IRQ 4 (the UART) is a level that the guest sets at will; IRQ 0 is the PIT. */
#include "devices.h"

#define V(irq) (PIC_BASE + (irq))

/* INTR reaches the CPU through LINT0. */
static void begin(uint16_t mask)
{
    quiet();
    apic_write(APIC_LVT_LINT0, 0x700);
    for (unsigned i = 0; i < 16; i++)
        count_vector(V(i), EOI_PIC);
    pic_mask(mask);
}

/* The PIT's OUT goes high; reading it makes sure that it has. */
static void irq0_raise(void)
{
    pit_mode(0, 0, 100);
    while (!(pit_status(0) & 0x80))
        pause();
}

static void test_registers(void)
{
    quiet();
    pic_mask(0xa55a);
    equal("pic: the masks read back", (unsigned)(inb(0x21) | inb(0xa1) << 8), 0xa55a);
    pic_mask(0xffff);
    outb(0x4d0, 0xff);
    outb(0x4d1, 0xff);
    equal("pic: ELCR1 keeps IRQ 0-2 edge", inb(0x4d0), 0xf8);
    equal("pic: ELCR2 keeps IRQ 8 and 13 edge", inb(0x4d1), 0xde);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
}

static void test_edge(void)
{
    begin((uint16_t)~(1 << 4));
    irq4_set(true);
    equal("pic: an edge sets IRR", pic_irr() & 0x10, 0x10);
    open_interrupts();
    open_interrupts();
    equal("pic: an edge interrupts once", hits[V(4)], 1);
    equal("pic: and is not in service after EOI", pic_isr(), 0);
    irq4_set(false);
    irq4_set(true);
    open_interrupts();
    equal("pic: the next edge interrupts again", hits[V(4)], 2);
    irq4_set(false);
}

static void test_level(void)
{
    begin((uint16_t)~(1 << 4));
    outb(0x4d0, 1 << 4);
    on_hit = lower_at_fifth;
    irq4_set(true);
    run_us(1000);
    equal("pic: a level interrupts until it goes", hits[V(4)], 5);
    on_hit = NULL;
    irq4_set(false);
    outb(0x4d0, 0);
}

static void test_priority(void)
{
    begin((uint16_t)~(1 << 4 | 1 << 0));
    irq0_raise();
    irq4_set(true);
    equal("pic: both requests show in IRR", pic_irr() & 0x11, 0x11);
    open_interrupts();
    open_interrupts();
    check(order_count == 2 && order[0] == V(0) && order[1] == V(4), "pic: IRQ 0 goes before IRQ 4", "%u interrupts, first 0x%x", order_count,
          order[0]);
    irq4_set(false);
    begin((uint16_t)~(1 << 4 | 1 << 0));
    outb(0x20, 0xc0 | 0); /* rotate: IRQ 0 is lowest */
    irq0_raise();
    irq4_set(true);
    open_interrupts();
    open_interrupts();
    check(order_count == 2 && order[0] == V(4) && order[1] == V(0), "pic: after rotation IRQ 4 goes first", "%u interrupts, first 0x%x",
          order_count, order[0]);
    irq4_set(false);
}

/* An interrupt in service holds back those of the same and lower priority until EOI, and lets higher ones through. */
static void test_in_service(void)
{
    begin((uint16_t)~(1 << 4 | 1 << 0));
    count_vector(V(4), EOI_NONE);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    equal("pic: ISR shows what is in service", pic_isr(), 0x10);
    irq4_set(true);
    open_interrupts();
    equal("pic: the same IRQ waits for EOI", hits[V(4)], 1);
    irq0_raise();
    open_interrupts();
    equal("pic: a higher one nests", hits[V(0)], 1);
    outb(0x20, 0x20); /* unspecific */
    open_interrupts();
    equal("pic: unspecific EOI lets it in", hits[V(4)], 2);
    outb(0x20, 0x20);
    irq4_set(false);
}

static void test_special_mask(void)
{
    begin((uint16_t)~(1 << 0 | 1 << 4));
    count_vector(V(0), EOI_NONE);
    irq0_raise();
    open_interrupts();
    irq4_set(true);
    open_interrupts();
    equal("pic: a lower one waits", hits[V(4)], 0);
    outb(0x20, 0x68);                          /* special mask mode */
    outb(0x21, (uint8_t)~(1 << 4));            /* mask IRQ 0, which is in service */
    open_interrupts();
    equal("pic: special mask mode lets it in", hits[V(4)], 1);
    outb(0x20, 0x48);
    irq4_set(false);
    outb(0x20, 0x60);
}

static void test_poll(void)
{
    quiet();
    pic_mask((uint16_t)~(1 << 4));
    irq4_set(true);
    outb(0x20, 0x0c);
    equal("pic: poll takes the request", inb(0x20), 0x84);
    equal("pic: poll puts it in service", pic_isr(), 0x10);
    pic_eoi(4);
    irq4_set(false);
    outb(0x20, 0x0c);
    equal("pic: poll without a request", inb(0x20) & 0x80, 0);
}

static void test_auto_eoi(void)
{
    begin(0xffff);
    outb(0x20, 0x11);
    outb(0x21, PIC_BASE);
    outb(0x21, 4);
    outb(0x21, 3); /* automatic EOI */
    pic_mask((uint16_t)~(1 << 4));
    count_vector(V(4), EOI_NONE);
    for (unsigned i = 0; i < 3; i++) {
        irq4_set(true);
        open_interrupts();
        irq4_set(false);
    }
    equal("pic: automatic EOI", hits[V(4)], 3);
    equal("pic: automatic EOI leaves nothing in service", pic_isr(), 0);
}

/* The slave: RTC's periodic interrupt through the cascade. */
static void test_cascade(void)
{
    uint8_t b;
    begin((uint16_t)~(1 << 8 | 1 << 2));
    cmos_write(0x0a, 0x26);
    b = cmos_read(0x0b);
    cmos_read(0x0c);
    cmos_write(0x0b, b | 0x40);
    check(wait_hits(V(8), 1, 200), "pic: IRQ 8 comes through the cascade", "no interrupt");
    cmos_write(0x0b, b);
    cmos_read(0x0c);
    begin((uint16_t)~(1 << 8));
    cmos_write(0x0b, b | 0x40);
    check(!wait_hits(V(8), 1, 5), "pic: not while the cascade is masked", "%u interrupts", hits[V(8)]);
    cmos_write(0x0b, b);
    cmos_read(0x0c);
    pic_eoi(8);
}

static void test_spurious(void)
{
    begin((uint16_t)~(1 << 4));
    /* INT drops with the request, so the CPU may or may not still acknowledge; but what comes then is IRQ 7, never IRQ 4. */
    outb(0x4d0, 1 << 4);
    irq4_set(true);
    irq4_set(false);
    open_interrupts();
    check(hits[V(4)] == 0 && hits[V(7)] <= 1, "pic: a request that went does not come", "IRQ 4 %u times, IRQ 7 %u times", hits[V(4)], hits[V(7)]);
    equal("pic: a spurious IRQ 7 is not in service", pic_isr() & 0x80, 0);
    outb(0x4d0, 0);
}

static void test_init_clears(void)
{
    begin((uint16_t)~(1 << 4));
    count_vector(V(4), EOI_NONE);
    irq4_set(true);
    open_interrupts();
    equal("pic: in service before ICW1", pic_isr(), 0x10);
    irq4_set(false);
    pic_init();
    equal("pic: ICW1 clears ISR", pic_isr(), 0);
}

void test_pic(void)
{
    test_registers();
    test_edge();
    test_level();
    test_priority();
    test_in_service();
    test_special_mask();
    test_poll();
    test_auto_eoi();
    test_cascade();
    test_spurious();
    test_init_clears();
}
