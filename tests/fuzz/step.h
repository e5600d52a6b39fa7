/*
 * One operation on a device model, and what must hold before, while and after: the contract of include/device.h, and the
 * model's own invariants. The fuzzer (driver.c) runs programs of such steps; tests/proof/inductive.c takes one from an
 * arbitrary state. docs/proof.md lists the properties. A failure aborts.
 */
#ifndef METRONOME_TESTS_FUZZ_STEP_H
#define METRONOME_TESTS_FUZZ_STEP_H

#include <stdio.h>
#include <stdlib.h>
#include "expect.h"
#include "model.h"

enum {
    READ,
    WRITE,
    READ_ANY,
    WRITE_ANY,
    LINE,
    SPECIAL,
    FORWARD,
    DEADLINE,
    AROUND_DEADLINE,
    BACK,
    JUMP,
    TAKE,
    DRAIN,
    POKE,
    SAVE,
    WRITE_AGAIN,
    KINDS
};

/* As an input of the fuzzer has it. */
struct operation {
    uint8_t kind, size;
    uint16_t argument;
    uint32_t value;
};

/* What it comes to at some time. */
struct action {
    unsigned kind, offset, size;
    unsigned which, argument; /* of a special function */
    uint64_t value, now;
};

struct run {
    uint8_t *state;    /* the uninterrupted run */
    uint8_t *restored; /* the run that is saved and restored before every step; NULL: to begin from `state` */
    uint64_t now, latest;
};

/* An action, the state before and after it, and what it returned. */
struct transition {
    const struct action *action;
    const void *before, *after;
    uint64_t result;
};

/* A model's own part: tests/proof/invariants_NAME.c. */
struct invariants {
    struct registers {
        unsigned size, stride, count; /* as drivers access them */
    } registers;
    /* Makes of any bytes a state that check() accepts, and leaves one that it accepts as it is: so it comes to all. */
    void (*repair)(void *s);
    void (*expect)(const struct transition *t);
};
extern const struct invariants invariants;

/* Where a failure is to be looked for, if the caller knows. */
extern char step_context[100];

#define EXPECT(condition, what) EXPECT_AT(condition, what, step_context)

static inline bool reads(const struct action *a)
{
    return a->kind == READ || a->kind == READ_ANY;
}

static inline bool writes(const struct action *a)
{
    return a->kind == WRITE || a->kind == WRITE_ANY || a->kind == WRITE_AGAIN;
}

/* A time; NEVER does not come. */
static inline uint64_t real_time(uint64_t time)
{
    return time < NEVER ? time : NEVER - 1;
}

/* A block of the state's exact size, so that ASan sees every step outside. */
uint8_t *copy_of(const void *state);
/* 64 bits of an operation's 32: small, repeated, close to now, close to all ones. */
uint64_t value_of(const struct operation *o, uint64_t now);
uint64_t perform(void *state, const struct action *a);
/* Would another action have led from t->before to t->after as well? */
bool leads_there(const struct transition *t, const struct action *other);
/* Did time go by, and nothing else? */
bool only_advanced(const struct transition *t);
/* What an action on a state comes to, held to all that must hold of one. */
void checked_action(struct run *r, const struct action *a);
/* The same for an operation, and then time goes on. */
void step(struct run *r, const struct operation *o);

#endif
