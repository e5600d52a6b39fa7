/*
 * The seven in-hypervisor devices, register by register and event by event, in a form in which machines can be compared:
 * see script.h, docs/conformance.md and tests/system/test_conformance.py.
 */
#include "script.h"

#define COM1 0x3f8
#define VGA_TEXT 0xb8000ul
enum { COLUMNS = 80, ROWS = 25, GREY = 0x0700 };

static volatile uint16_t *const screen = (volatile uint16_t *)VGA_TEXT;
static unsigned column;

/* The last row of the text screen; the others move up. */
static void screen_put(char c)
{
    if (c == '\n') {
        for (unsigned i = 0; i < COLUMNS * (ROWS - 1); i++)
            screen[i] = screen[i + COLUMNS];
        for (unsigned i = 0; i < COLUMNS; i++)
            screen[COLUMNS * (ROWS - 1) + i] = GREY | ' ';
        column = 0;
    } else if (column < COLUMNS) {
        screen[COLUMNS * (ROWS - 1) + column++] = (uint16_t)(GREY | (uint8_t)c);
    }
}

/* 115,200 baud, 8N1, no FIFO; and the text screen, where there is one. */
static void console_init(void)
{
    static const uint8_t setup[][2] = {{3, 0x80}, {0, 1}, {1, 0}, {3, 3}, {2, 0}, {4, 8}};
    for (unsigned i = 0; i < sizeof(setup) / 2; i++)
        outb((uint16_t)(COM1 + setup[i][0]), setup[i][1]);
    if (option("screen"))
        also_print = screen_put;
}

void console_drain(void)
{
    for (unsigned i = 0; i < 100000 && !(inb(COM1 + 5) & 0x40); i++)
        pause();
}

void irq4(unsigned level)
{
    irq4_set(level);
}

/* OUT 0 goes low and, 100 clocks later, high, where it stays. */
void irq0_pulse(unsigned unused)
{
    (void)unused;
    pit_mode(0, 0, 100);
    spin_us(200);
}

/* A level on the SCI's line: TMR_STS stays set (main() has waited for it), its enable bit opens the way. */
void sci(unsigned level)
{
    outw((uint16_t)(pm.event + 2), level ? 1 : 0);
}

static void wait_for_timer_status(void)
{
    uint64_t start = rdtsc();
    while (!(inw(pm.event) & 1) && rdtsc() - start < us(3000000))
        nap_us(5000);
}

static void measure_lapic_timer(void)
{
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_TMICT, 0xffffffff);
    spin_us(10000);
    lapic_timer_per_ms = (0xffffffff - apic_read(APIC_TMCCT)) / 10;
}

static bool hpet_there(void)
{
    uint32_t period = mmio_read(HPET + 4);
    return period && period <= 100000000;
}

static void hpet_quiet(void)
{
    if (!hpet_there())
        return;
    hpet_write(0x10, 0);
    for (unsigned n = 0; n <= (hpet_read(0) >> 8 & 31); n++)
        hpet_write(0x100 + 0x20 * n, 0);
    hpet_write(0x20, 0xffffffff);
}

static bool in_service(void)
{
    uint32_t any = 0;
    for (unsigned i = 0; i < 8; i++)
        any |= apic_read(APIC_ISR + 16 * i);
    return any;
}

/* Not every 8259A that people have made forgets its modes with ICW1. */
static void pic_quiet(void)
{
    static const uint8_t commands[] = {0x48, 0x00, 0xc7, 0x0a}; /* special mask off, no rotation, IRQ 7 lowest, IRR selected */
    pic_init();
    for (unsigned i = 0; i < sizeof(commands); i++) {
        outb(0x20, commands[i]);
        outb(0xa0, commands[i]);
    }
}

/* Nothing requested, nothing in service. */
static void lapic_quiet(void)
{
    apic_enable();
    for (unsigned i = 0; i < 64; i++) {
        open_us(5);
        if (!in_service())
            break;
        apic_write(APIC_EOI, 0);
    }
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
}

void quiet(void)
{
    cli();
    on_hit = NULL;
    irq4_set(false);
    sci(0);
    hpet_quiet();
    outb(0x61, 1);
    pit_mode(0, 0, 2);
    pit_mode(2, 0, 2);
    spin_us(20);
    outb(0x61, 0);
    cmos_write(0x0a, 0x26);
    cmos_write(0x0b, 0x02);
    spin_us(100);
    cmos_read(0x0c);
    pic_quiet();
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    lapic_quiet();
    reset_hits();
}

/* What neither firmware nor GRUB has touched, on the machines that we compare. */
static const struct op reset_ops[] = {
    LINE("reset.ioapic.entry-0"),  IOAPIC_R(0x10), IOAPIC_R(0x11),
    THEN("reset.ioapic.entry-23"), IOAPIC_R(0x3e), IOAPIC_R(0x3f),
    THEN("reset.ioapic.id"),       IOAPIC_R(0),
    THEN("reset.hpet.config"),     NEEDS(hpet_there), HPET_R(0x10),
    THEN("reset.hpet.status"),     HPET_R(0x20),
    THEN("reset.hpet.counter"),    HPET_R(0xf0),
    THEN("reset.hpet.timer-0"),    READ(MEM, 4, HPET + 0x100, 0xffffffcf), HPET_R(0x108),
    THEN("reset.hpet.timer-2"),    READ(MEM, 4, HPET + 0x140, 0xffffffcf), HPET_R(0x148),
};

const struct script reset_script = {"reset", NULL, SCRIPT(reset_ops)};

void guest_main(void)
{
    static const struct script *const scripts[] = {
        &reset_script, &pic_script, &ioapic_script, &lapic_script,  &pit_script,
        &hpet_script,  &rtc_script, &pm_script,     &x2apic_script, &lapic_end_script,
    };
    bool only = false;

    if (apic_is_x2())
        apic_set_x2(false);
    console_init();
    measure_lapic_timer();
    wait_for_timer_status();
    for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        only |= option(scripts[i]->device);
    for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        if (!only || option(scripts[i]->device))
            run_script(scripts[i]);
    print("conformance: done\n");
}
