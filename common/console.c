/*
 * The console: whole lines on the serial port, from any CPU.
 */
#include "console.h"
#include "boot.h"
#include "cpu.h"
#include "serial.h"
#include "spinlock.h"
#include "string.h"

#define LINE_SIZE 512

/* Each CPU collects a line before it takes the lock, so lines do not mix and a line may be printed in parts. */
static struct {
    char text[LINE_SIZE];
    unsigned length;
} lines[MAX_PCPUS];
static struct spinlock console_lock;
static enum log_level level = LOG_INFO;
static bool unlocked; /* a panic prints whoever holds the lock */

void console_set_level(enum log_level l)
{
    level = l;
}

void console_init(void)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char value[16];
    serial_init();
    if (!boot_option("loglevel", value, sizeof value))
        return;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(value, names[i]))
            console_set_level((enum log_level)i);
}

void console_unlock_for_panic(void)
{
    unlocked = true;
}

static void (*breathe)(void);
#define PAUSE_CHARACTERS 32u

void console_set_pause(void (*between_characters)(void))
{
    breathe = between_characters;
}

static void let_in(void)
{
    if (breathe && !unlocked)
        breathe();
}

static uint64_t enter(void)
{
    uint64_t flags = irq_save();
    if (!unlocked)
        spin_lock(&console_lock);
    return flags;
}

static void leave(uint64_t flags)
{
    if (!unlocked)
        spin_unlock(&console_lock);
    irq_restore(flags);
}

static void print(const char *bytes, size_t n)
{
    for (; n; n--, bytes++) {
        if (n % PAUSE_CHARACTERS == 0)
            let_in();
        if (*bytes == '\n')
            serial_put('\r');
        serial_put(*bytes);
    }
}

static void put_line(const char *prefix, const char *text)
{
    uint64_t flags = irq_save();
    typeof(lines[0]) *line = &lines[this_cpu()->id];
    const char *parts[] = {line->length ? "" : prefix, text};
    for (unsigned i = 0; i < 2; i++) {
        size_t n = strlen(parts[i]), room = LINE_SIZE - line->length;
        memcpy(line->text + line->length, parts[i], n < room ? n : room);
        line->length += (unsigned)(n < room ? n : room);
    }
    if (line->length == LINE_SIZE || (line->length && line->text[line->length - 1] == '\n')) {
        uint64_t inner = enter();
        print(line->text, line->length);
        leave(inner);
        line->length = 0;
    }
    irq_restore(flags);
}

void log_at(enum log_level l, const char *format, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", ""};
    char text[LINE_SIZE];
    va_list args;

    if (l > level)
        return;
    let_in();
    va_start(args, format);
    vformat_line(text, sizeof text, format, args);
    va_end(args);
    let_in();
    put_line(prefix[l], text);
}

void console_print(const char *format, ...)
{
    char text[LINE_SIZE];
    va_list args;
    va_start(args, format);
    vformat_line(text, sizeof text, format, args);
    va_end(args);
    put_line("", text);
}

void console_write(const char *bytes, size_t n)
{
    uint64_t flags = enter();
    while (n--)
        serial_put(*bytes++);
    leave(flags);
}

int console_read(void)
{
    uint64_t flags = enter();
    int c = serial_get();
    leave(flags);
    return c;
}
