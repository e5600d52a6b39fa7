/*
 * Says "ends: here" and then does what its command line says, for tests of the command line:
 *   exit=N   ends through the debug-exit port     triple   by a triple fault
 *   echo     answers each byte typed with "<byte>", its code in hexadecimal
 *   nmi      as echo, says "<NMI>" at each NMI, and masks it at port 0x70 after an "m", until a "u"
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
        uint8_t byte;

        while (!(inb(COM1 + 5) & LSR_DATA_READY))
            pause();
        byte = inb(COM1);
        if (option("nmi") && (byte == 'm' || byte == 'u'))
            outb(0x70, byte == 'm' ? 0x80 : 0);
        print("<%02x>", byte);
    }
}

static void on_nmi(struct frame *f)
{
    (void)f;
    print("<NMI>");
}

static void take_nmis(void)
{
    on_vector(2, on_nmi);
    apic_write(APIC_LVT_LINT1, 0x400);
}

void guest_main(void)
{
    print("ends: here\n");
    if (option("exit"))
        outl(0xf4, (uint32_t)option_number("exit", 0));
    if (option("triple"))
        triple_fault();
    if (option("nmi"))
        take_nmis();
    if (option("echo") || option("nmi"))
        echo();
    for (;;)
        __asm__ volatile("hlt");
}
