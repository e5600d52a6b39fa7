/*
 * 256-bit vector maps (IRR, ISR). A summary word has one bit per non-zero 32-bit word, so the highest vector is two
 * bit scans away however many are set.
 */
#ifndef METRONOME_VLAPIC_BITMAP_H
#define METRONOME_VLAPIC_BITMAP_H

#include "device.h"

#define VECTOR_WORDS 8u

struct vector_map {
    uint32_t word[VECTOR_WORDS]; /* as the registers show them: vector v is bit v % 32 of word v / 32 */
    uint32_t summary;            /* bit w: word[w] != 0 */
};

/* The number of the highest set bit. `x` is not 0. */
static inline int highest_bit(uint32_t x)
{
#if defined(__GNUC__) && !defined(__FRAMAC__)
    return 31 ^ __builtin_clz(x);
#else
    int n = 31;
    while (n > 0 && !(x >> n))
        n--;
    return n;
#endif
}

/* The highest vector in the map, or -1. */
static inline int map_highest(const struct vector_map *m)
{
    int w;
    if (!m->summary)
        return -1;
    w = highest_bit(m->summary);
    return w * 32 + highest_bit(m->word[w & 7]);
}

static inline bool map_has(const struct vector_map *m, uint8_t vector)
{
    return m->word[vector >> 5] >> (vector & 31) & 1;
}

static inline void map_set(struct vector_map *m, uint8_t vector)
{
    m->word[vector >> 5] |= 1u << (vector & 31);
    m->summary |= 1u << (vector >> 5);
}

static inline void map_clear(struct vector_map *m, uint8_t vector)
{
    m->word[vector >> 5] &= ~(1u << (vector & 31));
    if (!m->word[vector >> 5])
        m->summary &= ~(1u << (vector >> 5));
}

#endif
