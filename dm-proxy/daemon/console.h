/*
 * The console of a guest without device model: between its rings in the slot's memory and the client's socket.
 */
#ifndef METRONOME_DAEMON_CONSOLE_H
#define METRONOME_DAEMON_CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/ivshmem.h"
#include "daemon/loop.h"
#include "public/domain.h"

struct console {
    struct metronome_console *shared; /* NULL: not open */
    const struct ivshmem *slot;
    struct watch doorbell, input;
    struct timer poll;
    uint8_t waiting[1024]; /* typed, but the ring was full */
    unsigned waiting_bytes;
};

void console_init(struct console *c);
/* `socket` stays the caller's. */
bool console_open(struct console *c, const struct ivshmem *slot, int socket);
/* Moves what is there, so that a guest's last words are not lost. */
void console_flush(struct console *c);
void console_close(struct console *c);

#endif
