/*
 * The 16550 on COM1.
 */
#ifndef METRONOME_SERIAL_H
#define METRONOME_SERIAL_H

#include <stdbool.h>

bool serial_init(void); /* false if there is none; the rest then does nothing */
void serial_put(char byte);
int serial_get(void);    /* -1: nothing there */
void serial_drain(void); /* until the last byte has left */

#endif
