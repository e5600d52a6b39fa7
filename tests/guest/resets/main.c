/*
 * Resets its machine by port 0xcf9, times=N times: each time the hypervisor starts it anew, from its image as it was, with the
 * devices as a reset leaves them. CMOS bytes 60h and 61h, which stay, count the resets.
 */
#include "guest.h"

#define COUNT_LOW   0x60
#define COUNT_HIGH  0x61
#define HPET_CONFIG 0x10
#define PIN         23
#define IMAGE       0x600d600du

static volatile uint32_t data = IMAGE, zero;

static bool image_is_fresh(void)
{
    return data == IMAGE && !zero;
}

static bool devices_are_reset(void)
{
    return ioapic_entry(PIN) == IO_MASKED && hpet_read(HPET_CONFIG) == 0 && apic_read(APIC_LDR) == 0;
}

static void change_all(void)
{
    data = zero = ~IMAGE;
    ioapic_set(PIN, 0x61);
    hpet_write(HPET_CONFIG, 1);
    apic_write(APIC_LDR, 1u << 24);
}

static void __attribute__((noreturn)) reset(unsigned count)
{
    cmos_write(COUNT_LOW, (uint8_t)count);
    cmos_write(COUNT_HIGH, (uint8_t)(count >> 8));
    outb(0xcf9, 6);
    for (;;)
        __asm__ volatile("hlt");
}

void guest_main(void)
{
    unsigned count = cmos_read(COUNT_LOW) + 256u * cmos_read(COUNT_HIGH);

    if (count < option_number("times", 20) && image_is_fresh() && devices_are_reset()) {
        change_all();
        reset(count + 1);
    }
    print("%u resets\n", count);
    check(image_is_fresh(), "resets: the image is as loaded", "%x and %x", data, zero);
    check(devices_are_reset(), "resets: the devices are as after a reset", "pin %lx, HPET %lx, LDR %x", ioapic_entry(PIN),
          hpet_read(HPET_CONFIG), apic_read(APIC_LDR));
}
