#include <stdarg.h>
#include "guest.h"

#define DEBUG_CONSOLE 0xe9
#define DEBUG_EXIT 0xf4
#define COM1 0x3f8
#define LSR_THR_EMPTY 0x20

unsigned passed, failed;
bool strict;
void (*also_print)(char c);

/* A debug console reads as its own port number. */
static void put_char(char c)
{
    static int console = -1;
    if (console < 0)
        console = inb(DEBUG_CONSOLE) == DEBUG_CONSOLE;
    if (also_print)
        also_print(c);
    if (console) {
        outb(DEBUG_CONSOLE, (uint8_t)c);
        return;
    }
    for (unsigned i = 0; i < 100000 && !(inb(COM1 + 5) & LSR_THR_EMPTY); i++)
        pause();
    outb(COM1, (uint8_t)c);
}

static void put_string(const char *s, unsigned width)
{
    unsigned n = 0;
    for (; s[n]; n++)
        put_char(s[n]);
    for (; n < width; n++)
        put_char(' ');
}

static void put_number(uint64_t v, unsigned base, unsigned width, char fill)
{
    char digits[24];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    for (; width > n; width--)
        put_char(fill);
    while (n)
        put_char(digits[--n]);
}

static void put_signed(int64_t v, unsigned width, char fill)
{
    if (v < 0)
        put_char('-');
    put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width, fill);
}

static void vprint(const char *f, va_list args)
{
    for (; *f; f++) {
        unsigned width = 0;
        char fill = ' ';
        bool wide = false;
        if (*f != '%') {
            put_char(*f);
            continue;
        }
        if (*++f == '0')
            fill = '0';
        for (; *f >= '0' && *f <= '9'; f++)
            width = width * 10 + (unsigned)(*f - '0');
        for (; *f == 'l'; f++)
            wide = true;
        switch (*f) {
        case 'd': put_signed(wide ? va_arg(args, int64_t) : va_arg(args, int), width, fill); break;
        case 'u': put_number(wide ? va_arg(args, uint64_t) : va_arg(args, unsigned), 10, width, fill); break;
        case 'x': put_number(wide ? va_arg(args, uint64_t) : va_arg(args, unsigned), 16, width, fill); break;
        case 's': put_string(va_arg(args, const char *), width); break;
        case 'c': put_char((char)va_arg(args, int)); break;
        default: put_char(*f); break;
        }
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

bool check(bool ok, const char *name, const char *why, ...)
{
    va_list args;
    if (ok) {
        passed++;
        print("ok %s\n", name);
        return true;
    }
    failed++;
    print("not ok %s: ", name);
    va_start(args, why);
    vprint(why, args);
    va_end(args);
    print("\n");
    return false;
}

void skip(const char *name, const char *why)
{
    print("skip %s: %s\n", name, why);
}

bool differs_on_qemu(const char *name, const char *why)
{
    if (on_metronome())
        return false;
    skip(name, why);
    return true;
}

void guest_end(void)
{
    cli();
    print("guest: %u passed, %u failed\n", passed, failed);
    outl(DEBUG_EXIT, failed);
    outw(pm.control, 0x2000); /* soft off, where there is no such port */
    for (;;)
        __asm__ volatile("cli; hlt");
}
