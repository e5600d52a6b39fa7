/*
 * The seven in-hypervisor devices, as their guests use them: each chip's registers, its interrupts through PIC and I/O
 * APIC, its times against the TSC, and the clocks against each other.
 */
#include "devices.h"

void quiet(void)
{
    cli();
    on_hit = NULL;
    pit_mode(0, 0, 2); /* OUT goes high and stays */
    while (!(pit_status(0) & 0x80))
        pause();
    irq4_set(false);
    pic_init();
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    apic_enable();
    hpet_write(0x10, 0);
    reset_hits();
}

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {
    {"pic", test_pic},     {"pit", test_pit}, {"lapic", test_lapic}, {"x2apic", test_x2apic}, {"ioapic", test_ioapic},
    {"hpet", test_hpet},   {"rtc", test_rtc}, {"pm", test_pm},       {"clocks", test_clocks},
};

void guest_main(void)
{
    bool only = false;
    print("TSC %lu Hz%s\n", tsc_hz, strict ? ", exact" : "");
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        only |= option(parts[i].name);
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (only && !option(parts[i].name))
            continue;
        quiet();
        parts[i].run();
    }
}
