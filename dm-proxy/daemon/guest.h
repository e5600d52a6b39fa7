/*
 * A guest and its client: from the request to the last page given back.
 */
#ifndef METRONOME_GUEST_H
#define METRONOME_GUEST_H

#include <stdbool.h>

/* `on_last_left` is called when the last guest has ended and its client has left. */
void guests_init(void (*on_last_left)(void));

/* Takes a connection over: reads its request when it comes. */
void guest_accept(int connection);

/* The hypervisor's state or a slot's status may have changed. */
void guests_hypervisor_changed(void);

unsigned guests_count(void);

#endif
