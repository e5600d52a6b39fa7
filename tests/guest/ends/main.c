/*
 * Says "ends: here" and then does what its command line says, for tests of the command line:
 *   exit=N   ends through the debug-exit port     triple   by a triple fault
 *   echo     answers each byte typed with "<byte>", its code in hexadecimal
 *   nmi      as echo, says "<NMI>" at each NMI, and masks it at port 0x70 after an "m", until a "u"
 *   flood=N  prints N numbered lines of 16 bytes and does what else is there; with "com1" through the serial port, each when
 *            the transmitter's interrupt has said that it is empty, with "rude" through it without asking
 *   sum=N    takes N bytes that are typed, and says "sum N HASH" of them (FNV-1a, 32 bits)
 *   count    prints "count NUMBER TICKS" every 2^25 ticks of its TSC
 *   button   ends with code 0 when the power button is pressed; with "deaf" it only says "<power>"
 *   (none)   waits for ever
 */
#include "guest.h"

#define COM1           0x3f8
#define LSR_DATA_READY 1
#define LSR_THR_EMPTY  0x20
#define PM1_STATUS     0x600 /* of a guest without device model */
#define PM1_BUTTON     0x100

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

static void take_interrupts(void)
{
    pic_init();
    count_vector(PIC_BASE + 4, EOI_PIC);
    pic_mask(0xffff & ~(1u << 4));
    apic_write(APIC_LVT_LINT0, 0x700);
    outb(COM1 + 4, 8);
    outb(COM1 + 1, 2);
}

/* 16 bytes, a transmitter's FIFO. */
static void send_line(unsigned number)
{
    char line[] = "flood 000000000\n";

    for (char *digit = line + 14; number; number /= 10)
        *digit-- = (char)('0' + number % 10);
    while (option("com1") && !(inb(COM1 + 5) & LSR_THR_EMPTY)) {
        halt();
        inb(COM1 + 2);
    }
    for (unsigned i = 0; i < 16; i++)
        outb(COM1, (uint8_t)line[i]);
}

static void flood(uint64_t lines)
{
    bool serial = option("com1") || option("rude");

    if (option("com1"))
        take_interrupts();
    for (uint64_t i = 0; i < lines; i++)
        if (serial)
            send_line((unsigned)i);
        else
            print("flood %09u\n", (unsigned)i);
}

static void sum(uint64_t bytes)
{
    uint32_t hash = 0x811c9dc5;

    for (uint64_t i = 0; i < bytes; i++) {
        while (!(inb(COM1 + 5) & LSR_DATA_READY))
            pause();
        hash = (hash ^ inb(COM1)) * 0x01000193;
    }
    print("sum %lu %08x\n", bytes, hash);
}

static void count(void)
{
    for (unsigned i = 0;; i++) {
        uint64_t start = rdtsc();

        while (rdtsc() - start < 1 << 25)
            pause();
        print("count %u %lu\n", i, start);
    }
}

static void await_button(void)
{
    for (;;) {
        while (!(inw(PM1_STATUS) & PM1_BUTTON))
            pause();
        outw(PM1_STATUS, PM1_BUTTON);
        if (!option("deaf"))
            outl(0xf4, 0);
        print("<power>");
    }
}

void guest_main(void)
{
    if (option("nmi"))
        take_nmis();
    print("ends: here\n");
    flood(option_number("flood", 0));
    if (option("sum"))
        sum(option_number("sum", 0));
    if (option("exit"))
        outl(0xf4, (uint32_t)option_number("exit", 0));
    if (option("triple"))
        triple_fault();
    if (option("echo") || option("nmi"))
        echo();
    if (option("count"))
        count();
    if (option("button"))
        await_button();
    for (;;)
        __asm__ volatile("hlt");
}
