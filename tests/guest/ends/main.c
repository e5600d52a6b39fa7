/*
 * Says "ends: here" and then does what its command line says, for tests of the command line:
 *   exit=N   ends through the debug-exit port     triple   by a triple fault
 *   echo     answers each byte typed with "<byte>", its code in hexadecimal
 *   (none)   waits for ever
 */
#include "guest.h"

#define COM1           0x3f8
#define LSR_DATA_READY 1

static void triple_fault(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0; int3" : : "m"(none));
}

static void echo(void)
{
    for (;;) {
        while (!(inb(COM1 + 5) & LSR_DATA_READY))
            pause();
        print("<%02x>", inb(COM1));
    }
}

void guest_main(void)
{
    print("ends: here\n");
    if (option("exit"))
        outl(0xf4, (uint32_t)option_number("exit", 0));
    if (option("triple"))
        triple_fault();
    if (option("echo"))
        echo();
    for (;;)
        __asm__ volatile("hlt");
}
