/*
 * A connection whose client has not said yet what it wants: a guest of its own (guest.h), or something else (errand.h).
 */
#ifndef METRONOME_CONNECTION_H
#define METRONOME_CONNECTION_H

void connection_accept(int connection);

#endif
