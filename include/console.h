/*
 * The hypervisor's console on COM1, and the end of the road.
 */
#ifndef METRONOME_CONSOLE_H
#define METRONOME_CONSOLE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* Finds and sets up COM1 (115200 8N1); output is dropped if there is none. Command line `loglevel=error|warning|info|debug`. */
void console_init(void);
void console_set_level(enum log_level level);
/* To be called now and then amid a line, which takes milliseconds where the port is real: it may let interrupts in. */
void console_set_pause(void (*between_characters)(void));

/*
 * Prints one line or part of one, with a level. %d %i %u %x %X %p %s %c %% with l, ll, z, width, precision, 0 and -.
 * From any CPU, also with interrupts off; lines of different CPUs do not mix.
 */
void log_at(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/* Part of a line, whatever the level, without "error: " and the like. */
void console_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes bytes as they are: a guest's console, in a machine where it has no other. */
void console_write(const char *bytes, size_t n);
/* A byte typed on COM1, or -1. */
int console_read(void);

int format_line(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int vformat_line(char *to, size_t size, const char *format, va_list args);

/* Stops every CPU after printing the reason, the registers and a symbolised backtrace. Only for bugs of our own: nothing
 * that a guest or dom0 does may reach it. */
void panic(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define BUG_ON(condition) \
    do { \
        if (__builtin_expect(!!(condition), 0)) \
            panic("%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

/* From here on the lock is ignored: its holder has been stopped. */
void console_unlock_for_panic(void);

/* Ends the outer machine: on an emulator through its isa-debug-exit port 0xf4 where the command line has `exit=PORT`,
 * else ACPI-less: CPUs halt. `code` 0: all went well. */
void machine_stop(int code) __attribute__((noreturn));

#endif
