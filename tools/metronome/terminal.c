#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "terminal.h"

#define ESCAPE    1    /* Ctrl-a */
#define XL_ESCAPE 0x1d /* Ctrl-] */

static struct termios before;
static volatile sig_atomic_t raw;
static bool escaped, xl_keys;

void terminal_leave(void)
{
    if (!raw)
        return;
    raw = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

/* Our own end by a fault must not leave the user with a terminal that shows nothing. */
static void on_fault(int signal_number)
{
    terminal_leave();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void terminal_enter(bool as_xl)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct termios now;

    /* In the background a change of the terminal would stop us. */
    if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() || tcgetattr(STDIN_FILENO, &before))
        return;
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++)
        signal(faults[i], on_fault);
    xl_keys = as_xl;
    now = before;
    cfmakeraw(&now);
    now.c_oflag |= OPOST | ONLCR; /* for what we and QEMU say ourselves */
    raw = 1;
    tcsetattr(STDIN_FILENO, TCSANOW, &now);
}

bool terminal_is_raw(void)
{
    return raw;
}

static enum terminal_key key_of(char c)
{
    static const struct {
        char letter;
        enum terminal_key key;
    } keys[] = {{'x', KEY_END},  {'d', KEY_DETACH}, {'c', KEY_MONITOR}, {'h', KEY_HELP},
                {'?', KEY_HELP}, {'p', KEY_POWER},  {'r', KEY_RESET}};

    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (c == keys[i].letter)
            return keys[i].key;
    return KEY_NONE;
}

size_t terminal_keys(char *bytes, size_t n, size_t *used, enum terminal_key *key)
{
    size_t out = 0;

    *key = KEY_NONE;
    for (*used = 0; *used < n && *key == KEY_NONE;) {
        char c = bytes[(*used)++];

        if (!raw) {
            bytes[out++] = c;
        } else if (escaped) {
            escaped = false;
            *key = key_of(c);
            if (c == ESCAPE || c == XL_ESCAPE)
                bytes[out++] = c;
        } else if (c == ESCAPE) {
            escaped = true;
        } else if (c == XL_ESCAPE && xl_keys) {
            *key = KEY_DETACH;
        } else {
            bytes[out++] = c;
        }
    }
    return out;
}

bool terminal_write(const char *bytes, size_t n)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

    while (n) {
        ssize_t written = write(STDOUT_FILENO, bytes, n);

        if (written < 0 && errno == EAGAIN)
            poll(&p, 1, 100);
        else if (written < 0 && errno != EINTR)
            return false;
        else if (written > 0) {
            bytes += written;
            n -= (size_t)written;
        }
    }
    return true;
}
