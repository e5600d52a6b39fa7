/*
 * The inductive step of a model's invariants: from any state that check() accepts, reachable or not, one operation with
 * any arguments at any time, held to all that step.h says. Then base (a reset) and step are both checked, and what holds
 * after one step holds after all.
 *
 *   inductive_NAME STATES [FIRST]    STATES states, from number FIRST on; the same number is always the same state
 *
 * States are bytes of many kinds that the model's repair() makes acceptable. It leaves what check() accepts as it is, so
 * that it comes to every such state: that is checked on neighbours of states, and on what steps lead to.
 */
#include <inttypes.h>
#include <string.h>
#include "step.h"

static uint64_t seed;
static uint64_t near_misses;

static uint64_t rnd(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
    return rnd() % n;
}

/* A number of any magnitude. */
static uint64_t magnitude(void)
{
    return rnd() >> below(64);
}

static uint64_t close_to(uint64_t x)
{
    return x + below(9) - 4;
}

static uint64_t bytes(void)
{
    uint64_t flags = rnd() & 0x0101010101010101, mask = rnd() & rnd() & 0x0101010101010101;
    return flags | (rnd() & mask * 255);
}

/* Eight bytes of a state: what fields tend to be, and what relates them to each other and to time. */
static uint64_t word(const uint64_t *state, unsigned words, uint64_t now)
{
    switch (below(9)) {
    case 0:
        return rnd();
    case 1:
        return rnd() & rnd() & rnd();
    case 2:
        return rnd() | rnd() | rnd();
    case 3:
        return magnitude();
    case 4:
        return close_to(now);
    case 5:
        return close_to(state[below(words)]);
    case 6:
        return 1ull << below(64);
    case 7:
        return ~(below(2) ? 0 : magnitude());
    default:
        return bytes();
    }
}

static void make_state(uint8_t *state, uint64_t now)
{
    unsigned words = model.size / 8, zeros = (unsigned)below(4) * 30;
    uint64_t *w = (uint64_t *)(void *)state;

    for (unsigned i = 0; i < words; i++)
        w[i] = 0;
    for (unsigned i = 0; i < words; i++)
        w[i] = below(100) < zeros ? 0 : word(w, words, now);
}

/* A state that check() accepts is one that repair() comes to. */
static void expect_kept(const uint8_t *state)
{
    uint8_t *copy = copy_of(state);

    invariants.repair(copy);
    EXPECT(memcmp(copy, state, model.size) == 0, "repair leaves alone what check accepts");
    free(copy);
}

/* check() itself picks the states here: bits of one are flipped without repair. */
static void expect_neighbour_kept(const uint8_t *state)
{
    uint8_t *copy = copy_of(state);

    for (uint64_t flips = 1 + below(3); flips; flips--)
        copy[below(model.size)] ^= (uint8_t)(1u << below(8));
    if (model.check(copy)) {
        near_misses++;
        expect_kept(copy);
    }
    free(copy);
}

static uint64_t make_time(const uint8_t *state, uint64_t now)
{
    uint64_t deadline = model.deadline(state), word;

    memcpy(&word, state + below(model.size / 8) * 8, sizeof(word));
    switch (below(6)) {
    case 0:
        return real_time(close_to(word));
    case 1:
        return real_time(rnd());
    case 2:
        return real_time(deadline == NEVER ? now : close_to(deadline));
    default:
        return real_time(now);
    }
}

/* Sizes of 1, 2, 4 and 8 bytes, as an operation encodes them. */
static uint8_t encoded_size(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 4 : size == 4 ? 7 : 12;
}

/* A value: nothing, of any magnitude, or what is somewhere in the state but for a bit. */
static uint32_t make_value(const uint8_t *state)
{
    uint32_t there;

    switch (below(4)) {
    case 0:
        return 0;
    case 1:
        return (uint32_t)magnitude();
    default:
        memcpy(&there, state + below(model.size / 4) * 4, sizeof(there));
        return there ^ (uint32_t)(rnd() & 1) << below(32);
    }
}

/* Every other one is an access or a call such as a driver makes: of a register, of all of it or of a part. */
static struct operation make_operation(const uint8_t *state)
{
    static const uint8_t usual[8] = {READ, WRITE, WRITE, WRITE, WRITE, LINE, SPECIAL, SPECIAL};
    const struct registers *registers = &invariants.registers;
    uint64_t bits = rnd();
    struct operation o;

    memcpy(&o, &bits, sizeof(o));
    if (below(2)) {
        o.kind &= 0x3f; /* value as it is */
        o.value = make_value(state);
    }
    if (below(2))
        return o;
    o.kind = (uint8_t)((o.kind & ~15) | usual[below(8)]);
    if ((o.kind & 15) == READ || (o.kind & 15) == WRITE) {
        o.size = encoded_size(below(4) ? registers->size : 1u << below(4));
        o.argument = (uint16_t)(registers->stride * below(registers->count));
    } else if (below(2)) {
        o.argument &= 0x3f;
    }
    return o;
}

/* The base: a reset, of storage with anything in it. */
static void expect_reset(uint64_t now)
{
    uint8_t *state = malloc(model.size);

    make_state(state, now);
    model.reset(state, now, (unsigned)rnd(), rnd());
    EXPECT(model.check(state), "check holds after reset");
    expect_kept(state);
    free(state);
}

static void one(uint64_t number)
{
    struct run r = {.state = malloc(model.size), .latest = UINT64_MAX};
    struct operation o;
    uint64_t now;

    seed = number * 0xd1342543de82ef95;
    now = below(8) ? magnitude() : real_time(~magnitude());
    expect_reset(now);
    make_state(r.state, now);
    invariants.repair(r.state);
    EXPECT(model.check(r.state), "check accepts what repair makes");
    expect_kept(r.state);
    expect_neighbour_kept(r.state);
    r.now = make_time(r.state, now);
    r.restored = copy_of(r.state);
    o = make_operation(r.state);
    step(&r, &o);
    expect_kept(r.state);
    free(r.restored);
    free(r.state);
}

int main(int argc, char **argv)
{
    uint64_t states = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, first = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;

    for (uint64_t i = first; i < first + states; i++) {
        snprintf(step_context, sizeof(step_context), " (state %" PRIu64 ")", i);
        one(i);
    }
    printf("one step from each of %" PRIu64 " states, %" PRIu64 " neighbours\n", states, near_misses);
    return 0;
}
