/*
 * A device model as the fuzzer and the prover see it: its functions with the types taken off. Each
 * tests/fuzz/model_NAME.c fills one in; driver.c (fuzzing) and tests/proof/eva.c (Frama-C) use it and know nothing else
 * about any model.
 */
#ifndef METRONOME_TESTS_FUZZ_MODEL_H
#define METRONOME_TESTS_FUZZ_MODEL_H

#include "device.h"

struct model {
    unsigned size;              /* of the state */
    bool exact;                 /* at its deadline an enabled output does change (else it only may) */
    unsigned offsets;           /* offsets from here on are undefined */
    unsigned first_line, lines; /* where struct line out.line[] lies, and how many there are */
    unsigned message;           /* where out.message lies; 0: there is none */
    unsigned refills; /* of the slot, at most, until it stays empty; 0: the caller takes the message after each call */
    void (*reset)(void *s, uint64_t now, unsigned argument, uint64_t value);
    uint64_t (*read)(void *s, uint64_t now, unsigned offset, unsigned size);
    void (*write)(void *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
    void (*set_line)(void *s, uint64_t now, unsigned line, bool level); /* NULL: no inputs */
    void (*advance)(void *s, uint64_t now);
    uint64_t (*deadline)(const void *s);
    bool (*check)(const void *s);
    /* The model's further functions, by number. NULL: none. */
    uint64_t (*special)(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value);
    /* A number that changes when an enabled output does something by itself. NULL: none ever does. */
    uint64_t (*events)(const void *s);
};

extern const struct model model;

/* The functions that all models have in common, and set_line, which most have. */
#define MODEL_ACCESS(m)                                                                                                \
    static uint64_t model_read(void *s, uint64_t now, unsigned offset, unsigned size)                                  \
    {                                                                                                                  \
        return m##_read(s, now, offset, size);                                                                         \
    }                                                                                                                  \
    static void model_write(void *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)                     \
    {                                                                                                                  \
        m##_write(s, now, offset, size, value);                                                                        \
    }
#define MODEL_TIME(m)                                                                                                  \
    static void model_advance(void *s, uint64_t now)                                                                   \
    {                                                                                                                  \
        m##_advance(s, now);                                                                                           \
    }                                                                                                                  \
    static uint64_t model_deadline(const void *s)                                                                      \
    {                                                                                                                  \
        return m##_deadline(s);                                                                                        \
    }                                                                                                                  \
    static bool model_check(const void *s)                                                                             \
    {                                                                                                                  \
        return m##_check(s);                                                                                           \
    }
#define MODEL_SET_LINE(m)                                                                                              \
    static void model_set_line(void *s, uint64_t now, unsigned line, bool level)                                       \
    {                                                                                                                  \
        m##_set_line(s, now, line, level);                                                                             \
    }
#define MODEL_FUNCTIONS                                                                                                \
    .read = model_read, .write = model_write, .advance = model_advance, .deadline = model_deadline, .check = model_check

#endif
