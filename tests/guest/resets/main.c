/*
 * Resets its machine by port 0xcf9, again and again: each time the hypervisor starts it anew. CMOS byte 60h, which stays, counts
 * the resets; with times=N it ends after so many.
 */
#include "guest.h"

#define COUNT_LOW 0x60
#define COUNT_HIGH 0x61

void guest_main(void)
{
    uint64_t times = option_number("times", 0);
    unsigned count = cmos_read(COUNT_LOW) + 256u * cmos_read(COUNT_HIGH);

    if (times && count >= times) {
        print("resets: %u\n", count);
        outl(0xf4, 0);
    }
    count++;
    cmos_write(COUNT_LOW, (uint8_t)count);
    cmos_write(COUNT_HIGH, (uint8_t)(count >> 8));
    outb(0xcf9, 6);
    for (;;)
        __asm__ volatile("hlt");
}
