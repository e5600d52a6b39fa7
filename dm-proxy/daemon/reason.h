/*
 * Why a guest has ended, for people, and the exit status of the command at whose terminal it was.
 */
#ifndef METRONOME_REASON_H
#define METRONOME_REASON_H

#include <stddef.h>

#include "public/control.h"

/* Returns an enum exit_status. */
int reason_text(const struct metronome_slot_status *s, char *text, size_t size);

#endif
