/*
 * The harness for Frama-C's Eva: from any state that the model's check() accepts, any sequence of calls of its
 * functions, each with any arguments at any time. The model is whichever tests/fuzz/model_NAME.c is linked; MODEL and
 * HEADER name its state. docs/proof.md says what follows from this.
 */
#include "__fc_builtin.h"
#include "model.h"
#include HEADER

#ifndef UNIT
#define UNIT  1u
#define UNITS 16u
#endif

static struct MODEL state;

#ifdef ASSUME
#include ASSUME
#else
static bool assumption(void)
{
    return true;
}
#endif

static uint64_t any64(void)
{
    return Frama_C_unsigned_long_interval(0, UINT64_MAX);
}

static unsigned any32(void)
{
    return Frama_C_unsigned_int_interval(0, UINT32_MAX);
}

/* What the caller does with the outputs: takes the message. */
static void take(void)
{
    if (model.message)
        ((struct bus_message *)((char *)&state + model.message))->kind = BUS_NONE;
}

static void access(uint64_t now, unsigned offset, unsigned size)
{
    if (Frama_C_interval(0, 1))
        model.read(&state, now, offset, size);
    else
        model.write(&state, now, offset, size, any64());
}

/* Low offsets are looked at UNIT by UNIT, the others together. */
static void access_of_size(uint64_t now, unsigned size)
{
    unsigned offset = any32(), byte = Frama_C_unsigned_int_interval(0, UNIT - 1), unit;

    if (offset >= UNIT * UNITS) {
        access(now, offset, size);
        return;
    }
    unit = offset / UNIT;
    //@ split unit;
    access(now, unit * UNIT + byte, size);
}

/* So are small sizes. */
static void any_access(uint64_t now)
{
    unsigned size = any32();

    if (size > 8) {
        access_of_size(now, size);
    } else {
        //@ split size;
        access_of_size(now, size);
    }
}

static void step(void)
{
    uint64_t now = any64();

    switch (Frama_C_interval(0, 6)) {
    case 0:
    case 1:
        any_access(now);
        break;
    case 2:
        if (model.set_line)
            model.set_line(&state, now, any32(), Frama_C_interval(0, 1) != 0);
        break;
    case 3:
        if (model.special)
            model.special(&state, now, any32(), any32(), any64());
        break;
    case 4:
        model.advance(&state, now);
        break;
    case 5:
        model.deadline(&state);
        break;
    case 6:
        model.check(&state);
        break;
    default:
        take();
        break;
    }
}

void main(void)
{
    if (Frama_C_interval(0, 1)) {
        model.reset(&state, any64(), any32(), any64());
    } else {
        Frama_C_make_unknown((char *)&state, sizeof(state));
        if (!model.check(&state) || !assumption())
            return;
    }
    while (Frama_C_interval(0, 1))
        step();
}
