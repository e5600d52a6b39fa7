/* The prover's form of highest_bit() (plain C) against the compiler's, for every argument; and of a map's look-up,
 * every pair. */
#define __FRAMAC__ 1
#include "vlapic/bitmap.h"
#include <stdio.h>
#include <string.h>

static unsigned long wrong;

static void all_words(void)
{
    for (uint64_t x = 1; x <= UINT32_MAX; x++)
        wrong += highest_bit((uint32_t)x) != (31 ^ __builtin_clz((uint32_t)x));
}

/* Sets a and b, looks, clears the higher one, looks, clears the other. */
static void all_pairs(void)
{
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            struct vector_map m;
            memset(&m, 0, sizeof(m));
            map_set(&m, (uint8_t)a);
            map_set(&m, (uint8_t)b);
            wrong += map_highest(&m) != (a > b ? a : b);
            map_clear(&m, (uint8_t)(a > b ? a : b));
            wrong += map_highest(&m) != (a == b ? -1 : a < b ? a : b);
            map_clear(&m, (uint8_t)(a < b ? a : b));
            wrong += map_highest(&m) != -1;
        }
    }
}

int main(void)
{
    all_words();
    all_pairs();
    printf("%lu words, %u pairs, %lu wrong\n", (unsigned long)UINT32_MAX, 256u * 256, wrong);
    return wrong != 0;
}
