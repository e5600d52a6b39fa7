/*
 * Fuzzes one device model. An input is a program: records of eight bytes, each one operation. After every step the
 * driver holds the model to the contract of include/device.h; docs/proof.md lists the properties. A failure aborts, and
 * libFuzzer writes the input to a file: `build/fuzz/fuzz_NAME FILE` runs it again and prints each step with
 * FUZZ_TRACE=1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

struct operation {
    uint8_t kind, size;
    uint16_t argument;
    uint32_t value;
};

struct run {
    uint8_t *state;    /* the uninterrupted run */
    uint8_t *restored; /* the run that was saved and restored; NULL before that */
    uint64_t now, latest;
};

static const char *const names[KINDS] = {
    "read", "write", "read any", "write any", "line", "special", "forward",     "deadline", "around deadline",
    "back", "jump",  "take",     "drain",     "poke", "save",    "write again",
};

#define EXPECT(condition, what)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "PROPERTY: %s: %s\n", what, #condition);                                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A block of the state's exact size, so that ASan sees every step outside. */
static uint8_t *copy_of(const uint8_t *state)
{
    return memcpy(malloc(model.size), state, model.size);
}

static const struct line *line_of(const uint8_t *state, unsigned n)
{
    return (const struct line *)(state + model.first_line) + n;
}

static struct bus_message *message_of(uint8_t *state)
{
    return (struct bus_message *)(state + model.message);
}

/* A time; NEVER does not come. */
static uint64_t real_time(uint64_t time)
{
    return time < NEVER ? time : NEVER - 1;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return real_time(b > UINT64_MAX - a ? UINT64_MAX : a + b);
}

/* ---- Decoding an operation ---- */

static unsigned size_of(const struct operation *o)
{
    static const uint8_t sizes[32] = {1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 4,  4,  8,  8,  8,  8,
                                      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16};
    return sizes[o->size & 31];
}

static unsigned kind_of(const struct operation *o)
{
    return o->kind % KINDS;
}

static unsigned offset_of(const struct operation *o)
{
    if (kind_of(o) == READ || kind_of(o) == WRITE || kind_of(o) == WRITE_AGAIN)
        return o->argument % model.offsets;
    return o->argument < 0x8000 ? o->argument : (unsigned)(int16_t)o->argument;
}

/* 64 bits of 32: small, repeated, close to now, close to all ones. */
static uint64_t value_of(const struct operation *o, uint64_t now)
{
    switch (o->kind >> 6) {
    case 0:
        return o->value;
    case 1:
        return (uint64_t)o->value << 32 | o->value;
    case 2:
        return now + (uint64_t)(int32_t)o->value;
    default:
        return ~(uint64_t)o->value;
    }
}

/* The time at which an operation happens. */
static uint64_t time_of(const struct run *r, const struct operation *o)
{
    uint64_t distance = (uint64_t)o->value << (o->size & 31), deadline;

    switch (kind_of(o)) {
    case FORWARD:
        return add(r->now, distance);
    case BACK:
        return r->now - (distance < r->now ? distance : r->now);
    case JUMP:
        return real_time(value_of(o, r->now));
    case DEADLINE:
    case AROUND_DEADLINE:
        deadline = model.deadline(r->state);
        if (deadline == NEVER)
            return r->now;
        if (kind_of(o) == AROUND_DEADLINE)
            deadline = add(deadline - 3, o->value);
        return deadline > r->now ? real_time(deadline) : r->now;
    default:
        return r->now;
    }
}

/* ---- Properties ---- */

static bool is_size(unsigned size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static void expect_lines(const struct run *r, const uint8_t *before)
{
    for (unsigned i = 0; i < model.lines; i++) {
        const struct line *was = line_of(before, i), *is = line_of(r->state, i);
        EXPECT(is->level <= 1 && is->zero == 0, "a line is 0 or 1");
        EXPECT(is->rises >= was->rises, "rising edges are never taken back");
        EXPECT(was->level || !is->level || is->rises > was->rises, "a line that goes up counts an edge");
        EXPECT(is->rises == was->rises || is->last_rise <= r->latest, "no edge lies in the future");
    }
}

/* An access that is undefined reads all ones, and nothing but time goes by. */
static void expect_undefined(const struct run *r, const struct operation *o, uint8_t *before, uint64_t result)
{
    unsigned kind = kind_of(o), size = size_of(o);
    bool reads = kind == READ || kind == READ_ANY, writes = kind == WRITE || kind == WRITE_ANY || kind == WRITE_AGAIN;

    EXPECT(!reads || result <= all_ones(size), "a read is as wide as its size");
    if (!(reads || writes) || (is_size(size) && offset_of(o) < model.offsets))
        return;
    EXPECT(!reads || result == all_ones(size), "an undefined read is all ones");
    if (memcmp(before, r->state, model.size) == 0)
        return;
    model.advance(before, r->now);
    EXPECT(memcmp(before, r->state, model.size) == 0, "an undefined access changes nothing");
}

static void expect_message(const struct run *r, const struct operation *o, uint8_t *before)
{
    unsigned kind = kind_of(o);

    if (!model.refills || kind == TAKE || kind == DRAIN || kind == POKE || message_of(before)->kind == BUS_NONE)
        return;
    EXPECT(memcmp(message_of(before), message_of(r->state), sizeof(struct bus_message)) == 0,
           "a message waits until taken");
}

/* The deadline lies ahead; before it nothing happens; at it, if it is exact, something does. */
static void expect_deadline(const struct run *r, const uint8_t *advanced)
{
    uint64_t deadline = model.deadline(advanced);
    uint8_t *later = copy_of(advanced);

    EXPECT(deadline > r->now, "a deadline lies ahead of what is handled");
    model.advance(later, deadline - 1);
    EXPECT(model.check(later), "check holds at the deadline");
    if (model.events)
        EXPECT(model.events(later) == model.events(advanced), "nothing happens before the deadline");
    if (model.events && deadline != NEVER && model.exact) {
        model.advance(later, deadline);
        EXPECT(model.events(later) != model.events(advanced), "something happens at the deadline");
    }
    free(later);
}

/* A copy in which nothing can take the message slot: which message comes first may depend on the steps of time. */
static uint8_t *copy_with_full_slot(const uint8_t *state)
{
    uint8_t *copy = copy_of(state);

    if (model.refills)
        message_of(copy)->kind = BUS_INTERRUPT;
    return copy;
}

/* It does not matter in how many steps time goes by. */
static void expect_lazy(const struct run *r, const struct operation *o, const uint8_t *advanced)
{
    uint64_t deadline = model.deadline(advanced);
    uint64_t span = deadline == NEVER ? (uint64_t)o->value << 12 : (deadline - r->now) * 3;
    uint64_t end = add(r->now, span), middle = r->now + (end - r->now) / (1 + o->argument % 7);
    uint8_t *two = copy_with_full_slot(advanced), *one = copy_with_full_slot(advanced);

    model.advance(two, middle);
    model.advance(two, end);
    model.advance(one, end);
    EXPECT(memcmp(one, two, model.size) == 0, "two steps of time are one");
    free(one);
    free(two);
}

static void expect_time(const struct run *r, const struct operation *o)
{
    uint8_t *advanced = copy_of(r->state);

    model.advance(advanced, r->now);
    EXPECT(model.check(advanced), "check holds after advance");
    expect_deadline(r, advanced);
    expect_lazy(r, o, advanced);
    free(advanced);
}

/* ---- Operations ---- */

/* Takes every message there is; the model says how many there can be. */
static uint64_t drain(uint8_t *state, uint64_t now)
{
    unsigned n = 0;

    model.advance(state, now);
    for (; message_of(state)->kind != BUS_NONE; n++) {
        EXPECT(n <= model.refills, "the message slot stays empty at last");
        message_of(state)->kind = BUS_NONE;
        model.advance(state, now);
    }
    return n;
}

static uint64_t perform(uint8_t *state, const struct operation *o, uint64_t now)
{
    uint64_t value = value_of(o, now);

    switch (kind_of(o)) {
    case READ:
    case READ_ANY:
        return model.read(state, now, offset_of(o), size_of(o));
    case WRITE:
    case WRITE_AGAIN:
    case WRITE_ANY:
        return model.write(state, now, offset_of(o), size_of(o), value), 0;
    case LINE:
        if (model.set_line)
            model.set_line(state, now, o->argument % 64, value & 1);
        return 0;
    case SPECIAL:
        return model.special ? model.special(state, now, o->size & 15, o->argument, value) : 0;
    case TAKE:
        if (model.message)
            message_of(state)->kind = BUS_NONE;
        return 0;
    case DRAIN:
        return model.refills ? drain(state, now) : 0;
    case POKE:
    case SAVE:
        return 0;
    default:
        return model.advance(state, now), 0;
    }
}

/* A restored state is whatever check lets pass: changes a byte, if the result is still a legal state. */
static void poke(struct run *r, const struct operation *o)
{
    uint8_t *byte = &r->state[o->argument % model.size];

    *byte ^= o->size;
    if (!model.check(r->state)) {
        *byte ^= o->size;
        return;
    }
    r->latest = UINT64_MAX;
    free(r->restored);
    r->restored = NULL;
}

static void save(struct run *r)
{
    free(r->restored);
    r->restored = copy_of(r->state);
    EXPECT(model.check(r->restored), "a saved state passes check");
}

static void trace(const struct run *r, const struct operation *o)
{
    fprintf(stderr,
            "%20" PRIu64 " %-15s offset %#x size %u (%u, argument %#x) value %#" PRIx64 ", deadline was %" PRIu64 "\n",
            r->now, names[kind_of(o)], offset_of(o), size_of(o), o->size & 15, o->argument, value_of(o, r->now),
            model.deadline(r->state));
}

static void step(struct run *r, const struct operation *o)
{
    uint8_t *before;
    uint64_t result;

    r->now = time_of(r, o);
    r->latest = r->now > r->latest ? r->now : r->latest;
    if (getenv("FUZZ_TRACE"))
        trace(r, o);
    if (kind_of(o) == POKE)
        poke(r, o);
    else if (kind_of(o) == SAVE)
        save(r);
    before = copy_of(r->state);
    result = perform(r->state, o, r->now);
    EXPECT(model.check(r->state), "check holds after each step");
    if (r->restored) {
        EXPECT(perform(r->restored, o, r->now) == result, "a restored run returns the same");
        EXPECT(memcmp(r->state, r->restored, model.size) == 0, "a restored run is the same");
    }
    expect_lines(r, before);
    expect_undefined(r, o, before, result);
    expect_message(r, o, before);
    free(before);
    if (model.message && !model.refills) {
        message_of(r->state)->kind = BUS_NONE;
        if (r->restored)
            message_of(r->restored)->kind = BUS_NONE;
    }
    expect_time(r, o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct operation o = {0};
    struct run r = {0};

    if (size < sizeof(o))
        return 0;
    memcpy(&o, data, sizeof(o));
    r.now = r.latest = real_time(value_of(&o, 0));
    r.state = memset(malloc(model.size), 0xa5, model.size);
    model.reset(r.state, r.now, o.argument, o.size & 1 ? value_of(&o, r.now) : o.value >> 16);
    EXPECT(model.check(r.state), "check holds after reset");
    for (size_t at = sizeof(o); at + sizeof(o) <= size; at += sizeof(o)) {
        memcpy(&o, data + at, sizeof(o));
        step(&r, &o);
    }
    free(r.restored);
    free(r.state);
    return 0;
}
