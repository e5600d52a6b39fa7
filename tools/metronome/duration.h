/*
 * Times for people: three digits and a unit.
 */
#ifndef METRONOME_DURATION_H
#define METRONOME_DURATION_H

#include <stdint.h>

#define DURATION_BYTES 16

const char *duration_text(char to[DURATION_BYTES], uint64_t ns);

#endif
