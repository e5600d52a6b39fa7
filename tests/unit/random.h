/*
 * Random numbers that are the same each time (xorshift64*). A test program has one seed, which a test may set.
 */
#ifndef METRONOME_TESTS_RANDOM_H
#define METRONOME_TESTS_RANDOM_H

#include <stdint.h>

static uint64_t seed = 88172645463325252ull;

static inline uint64_t random_after(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

static inline uint64_t random64(void) { return random_after(&seed); }

/* n: up to 2^53 */
static inline uint64_t random_below(uint64_t *state, uint64_t n) { return (random_after(state) >> 11) % n; }
static inline uint64_t below(uint64_t n) { return random_below(&seed, n); }

#endif
