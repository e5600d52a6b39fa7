/*
 * The control device's rings.
 */
#ifndef METRONOME_DAEMON_CONTROL_H
#define METRONOME_DAEMON_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

/* `memory`: the control device's. */
void control_init(uint8_t *memory);

/* Queues a command; false: the ring is full. The caller rings the doorbell. */
bool control_send(uint32_t op, unsigned slot, const uint64_t arguments[2], void (*done)(void *owner, int status), void *owner);

/* No `done` is called for this owner any more. */
void control_forget(const void *owner);

/* Calls `done` for every completion that has arrived. */
void control_receive(void);

#endif
