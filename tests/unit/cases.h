/* Very many cases: how many there are to be, and what came of them. */
#ifndef METRONOME_TESTS_CASES_H
#define METRONOME_TESTS_CASES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long cases, mismatches;

static inline unsigned long case_count(unsigned long usual)
{
    const char *scale = getenv("EMU_CASES");

    return scale ? strtoul(scale, NULL, 0) : usual;
}

static inline void expect(bool right, const char *what, uint64_t a, uint64_t b)
{
    cases++;
    if (right)
        return;
    if (mismatches++ < 30)
        printf("  %s: %llx %llx\n", what, (unsigned long long)a, (unsigned long long)b);
}

static inline void conclude(const char *what)
{
    unsigned long bad = mismatches;

    printf("%s: %lu cases, %lu mismatches\n", what, cases, mismatches);
    cases = mismatches = 0;
    assert_int_equal(bad, 0);
}

#endif
