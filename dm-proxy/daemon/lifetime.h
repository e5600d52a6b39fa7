/*
 * How long the daemon lives, and the hypervisor with it: as long as somebody needs it; once told to stay, until told to leave.
 * The connections that are still open then are closed by the process's end: so a client sees when everything has ended.
 */
#ifndef METRONOME_LIFETIME_H
#define METRONOME_LIFETIME_H

#include <stdbool.h>

/* For a guest, or a client with an errand. One that has not said yet what it wants tries again if it meets our end, */
void lifetime_hold(void);
void lifetime_drop(void);

/* but the first one is waited for, until it has said so. */
void lifetime_begin(void);
void lifetime_first_came(void);

void lifetime_stay(void);
void lifetime_leave(void);

bool lifetime_stays(void);
bool lifetime_leaving(void); /* takes no more guests */

#endif
