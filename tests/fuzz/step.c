#include <inttypes.h>
#include <string.h>
#include "step.h"

static const char *const names[KINDS] = {
    "read", "write", "read any", "write any", "line", "special", "forward",     "deadline", "around deadline",
    "back", "jump",  "take",     "drain",     "poke", "save",    "write again",
};

char step_context[100];

uint8_t *copy_of(const void *state)
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

uint64_t value_of(const struct operation *o, uint64_t now)
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

static struct action action_of(const struct run *r, const struct operation *o)
{
    uint64_t now = time_of(r, o);
    struct action a = {.kind = kind_of(o), .offset = offset_of(o), .size = size_of(o), .which = o->size & 15,
                       .argument = o->argument, .value = value_of(o, now), .now = now};
    return a;
}

/* ---- Properties ---- */

static bool is_size(unsigned size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

bool leads_there(const struct transition *t, const struct action *other)
{
    uint8_t *twin = copy_of(t->before);
    bool same;

    perform(twin, other);
    same = memcmp(twin, t->after, model.size) == 0;
    free(twin);
    return same;
}

bool only_advanced(const struct transition *t)
{
    struct action advance = {.kind = FORWARD, .now = t->action->now};
    return memcmp(t->before, t->after, model.size) == 0 || leads_there(t, &advance);
}

static void expect_lines(const struct transition *t, uint64_t latest)
{
    for (unsigned i = 0; i < model.lines; i++) {
        const struct line *was = line_of(t->before, i), *is = line_of(t->after, i);
        EXPECT(is->level <= 1 && is->zero == 0, "a line is 0 or 1");
        EXPECT(is->rises >= was->rises || (was->rises | t->action->now) >> 63, "rising edges are never taken back");
        EXPECT(was->level || !is->level || is->rises != was->rises, "a line that goes up counts an edge");
        EXPECT(is->rises == was->rises || is->last_rise <= latest, "no edge lies in the future");
    }
}

/* An access that is undefined reads all ones, and nothing but time goes by. */
static void expect_undefined(const struct transition *t)
{
    const struct action *a = t->action;

    EXPECT(!reads(a) || t->result <= all_ones(a->size), "a read is as wide as its size");
    if (!(reads(a) || writes(a)) || (is_size(a->size) && a->offset < model.offsets))
        return;
    EXPECT(!reads(a) || t->result == all_ones(a->size), "an undefined read is all ones");
    EXPECT(only_advanced(t), "an undefined access changes nothing");
}

static void expect_message(const struct transition *t)
{
    unsigned kind = t->action->kind;
    const struct bus_message *was = (const void *)((const uint8_t *)t->before + model.message);

    if (!model.refills || kind == TAKE || kind == DRAIN || kind == POKE || was->kind == BUS_NONE)
        return;
    EXPECT(memcmp(was, (const uint8_t *)t->after + model.message, sizeof(*was)) == 0, "a message waits until taken");
}

/* The deadline lies ahead; before it nothing happens; at it something does, or the next deadline is a later one. */
static void expect_deadline(const struct run *r, const uint8_t *advanced)
{
    uint64_t deadline = model.deadline(advanced);
    uint8_t *later = copy_of(advanced);
    bool happened;

    EXPECT(deadline > r->now, "a deadline lies ahead of what is handled");
    model.advance(later, deadline - 1);
    EXPECT(model.check(later), "check holds at the deadline");
    EXPECT(!model.events || model.events(later) == model.events(advanced), "nothing happens before the deadline");
    EXPECT(model.deadline(later) == deadline, "a deadline stays until it comes");
    if (deadline != NEVER) {
        model.advance(later, deadline);
        happened = model.events && model.events(later) != model.events(advanced);
        EXPECT(happened || !model.exact, "something happens at the deadline");
        EXPECT(happened || model.deadline(later) > deadline, "a deadline at which nothing happens moves on");
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

/* ---- Actions ---- */

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

uint64_t perform(void *state, const struct action *a)
{
    switch (a->kind) {
    case READ:
    case READ_ANY:
        return model.read(state, a->now, a->offset, a->size);
    case WRITE:
    case WRITE_AGAIN:
    case WRITE_ANY:
        return model.write(state, a->now, a->offset, a->size, a->value), 0;
    case LINE:
        if (model.set_line)
            model.set_line(state, a->now, a->argument % 64, a->value & 1);
        return 0;
    case SPECIAL:
        return model.special ? model.special(state, a->now, a->which, a->argument, a->value) : 0;
    case TAKE:
        if (model.message)
            message_of(state)->kind = BUS_NONE;
        return 0;
    case DRAIN:
        return model.refills ? drain(state, a->now) : 0;
    case POKE:
    case SAVE:
        return 0;
    default:
        return model.advance(state, a->now), 0;
    }
}

void checked_action(struct run *r, const struct action *a)
{
    uint8_t *before = copy_of(r->state);
    uint64_t result = perform(r->state, a);
    struct transition t = {a, before, r->state, result};

    EXPECT(model.check(r->state), "check holds after each step");
    if (r->restored) {
        EXPECT(perform(r->restored, a) == result, "a restored run returns the same");
        EXPECT(memcmp(r->state, r->restored, model.size) == 0, "a restored run is the same");
    }
    expect_lines(&t, r->latest);
    expect_undefined(&t);
    expect_message(&t);
    invariants.expect(&t);
    free(before);
}

/* A restored state is whatever check lets pass: changes a byte, and with it what has to go with it. */
static void poke(struct run *r, const struct operation *o)
{
    r->state[o->argument % model.size] ^= o->size;
    invariants.repair(r->state);
    EXPECT(model.check(r->state), "a repaired state passes check");
    r->latest = UINT64_MAX;
    free(r->restored);
    r->restored = NULL;
}

/* Saves, checks and restores the second run; on SAVE it begins anew, from the first. */
static void interrupt(struct run *r, bool anew)
{
    uint8_t *restored = copy_of(anew || !r->restored ? r->state : r->restored);

    EXPECT(model.check(restored), "a saved state passes check");
    free(r->restored);
    r->restored = restored;
}

static void trace(const struct run *r, const struct action *a)
{
    fprintf(stderr,
            "%20" PRIu64 " %-15s offset %#x size %u (%u, argument %#x) value %#" PRIx64 ", deadline was %" PRIu64 "\n",
            r->now, names[a->kind], a->offset, a->size, a->which, a->argument, a->value, model.deadline(r->state));
}

void step(struct run *r, const struct operation *o)
{
    struct action a = action_of(r, o);

    r->now = a.now;
    r->latest = r->now > r->latest ? r->now : r->latest;
    if (getenv("FUZZ_TRACE"))
        trace(r, &a);
    if (a.kind == POKE)
        poke(r, o);
    interrupt(r, a.kind == SAVE);
    checked_action(r, &a);
    if (model.message && !model.refills)
        message_of(r->state)->kind = message_of(r->restored)->kind = BUS_NONE;
    expect_time(r, o);
}
