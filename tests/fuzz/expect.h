/* A property that must hold. Where it does not, the program ends, and says which one it was. */
#ifndef METRONOME_TESTS_FUZZ_EXPECT_H
#define METRONOME_TESTS_FUZZ_EXPECT_H

#include <stdio.h>
#include <stdlib.h>

#define EXPECT_AT(condition, what, where)                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "PROPERTY: %s: %s%s\n", what, #condition, where);                                          \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
