/*
 * Names of our own functions, for backtraces.
 */
#ifndef METRONOME_SYMBOLS_H
#define METRONOME_SYMBOLS_H

#include <stdint.h>

/* The function that `address` lies in and where in it; NULL outside the text. */
const char *symbol_at(uint64_t address, uint64_t *offset);

#endif
