/*
 * --expect: does a line of what the guest says match?
 */
#ifndef METRONOME_EXPECT_H
#define METRONOME_EXPECT_H

#include <stdbool.h>
#include <stddef.h>

/* `pattern`: POSIX extended, known to compile; NULL: nothing is expected. */
void expect_init(const char *pattern);

/* True once a line, or the one being written, has matched. Its end (`$`) is only seen when it is complete. */
bool expect_feed(const char *bytes, size_t n);

#endif
