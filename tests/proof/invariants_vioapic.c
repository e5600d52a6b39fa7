#include <string.h>
#include "step.h"
#include "vioapic/vioapic.h"

#define VECTOR 0xffull
#define PENDING (1ull << 12)
#define ACTIVE_LOW (1ull << 13)
#define REMOTE_IRR (1ull << 14)
#define LEVEL (1ull << 15)
#define MASKED (1ull << 16)
#define WRITABLE 0xff0000000001afffull
#define SENDABLE 0xb7u /* all delivery modes but 3 and 6 */

static unsigned delivery(uint64_t entry)
{
    return entry >> 8 & 7;
}

static bool is_level(uint64_t entry)
{
    return (entry & LEVEL) && delivery(entry) <= DELIVER_LOWEST;
}

static bool can_send(uint64_t entry)
{
    return !(entry & MASKED) && (SENDABLE >> delivery(entry) & 1);
}

static bool is_active(const struct vioapic *s, unsigned pin)
{
    return ((s->lines ^ s->active_low_pins) >> pin & 1) == !(s->entry[pin] & ACTIVE_LOW);
}

static uint64_t level_pins(const struct vioapic *s)
{
    uint64_t pins = 0;

    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++)
        pins |= (uint64_t)is_level(s->entry[pin]) << pin;
    return pins;
}

/* ---- States ---- */

static void repair_message(struct bus_message *m)
{
    if (m->kind > BUS_INTERRUPT)
        m->kind &= 1;
    m->delivery &= 7;
    if (!(SENDABLE >> m->delivery & 1))
        m->delivery = DELIVER_FIXED;
    m->flags &= BUS_LOGICAL | BUS_LEVEL | BUS_ASSERT;
    m->shorthand = SHORTHAND_NONE;
    m->dest &= 0xff;
    memset(m->zero, 0, sizeof(m->zero));
}

static void forget_storm(struct vioapic *s, unsigned pin)
{
    s->refires[pin] = 0;
    s->hold_shift[pin] = 0;
    s->hold_until[pin] = 0;
    s->held_mask &= ~(1ull << pin);
}

static void repair_edge_pin(struct vioapic *s, unsigned pin)
{
    forget_storm(s, pin);
    s->remote_irr &= ~(1ull << pin);
    if (!can_send(s->entry[pin]))
        s->pending_mask &= ~(1ull << pin);
}

static void repair_level_pin(struct vioapic *s, unsigned pin)
{
    uint64_t bit = 1ull << pin;

    if (s->refires[pin] > VIOAPIC_STORM_RUN)
        s->refires[pin] %= VIOAPIC_STORM_RUN + 1;
    if (s->hold_shift[pin] > VIOAPIC_HOLD_DOUBLINGS)
        s->hold_shift[pin] %= VIOAPIC_HOLD_DOUBLINGS + 1;
    if (!is_active(s, pin))
        forget_storm(s, pin);
    if (s->held_mask & bit) {
        s->remote_irr &= ~bit;
        if (!s->hold_shift[pin])
            s->hold_shift[pin] = 1;
        if (!s->hold_until[pin])
            s->hold_until[pin] = 1;
    } else {
        s->hold_until[pin] = 0;
    }
    if (s->hold_shift[pin])
        s->refires[pin] = VIOAPIC_STORM_RUN;
    s->pending_mask &= ~bit;
    if (is_active(s, pin) && can_send(s->entry[pin]) && !((s->remote_irr | s->held_mask) & bit))
        s->pending_mask |= bit;
}

static void repair(void *state)
{
    struct vioapic *s = state;
    uint64_t pins;

    if (s->pins < VIOAPIC_MIN_PINS || s->pins > VIOAPIC_MAX_PINS)
        s->pins = VIOAPIC_MIN_PINS + s->pins % (VIOAPIC_MAX_PINS - VIOAPIC_MIN_PINS + 1);
    pins = (1ull << s->pins) - 1;
    s->lines &= pins, s->active_low_pins &= pins, s->remote_irr &= pins, s->pending_mask &= pins, s->held_mask &= pins;
    s->id &= 0xf;
    s->zero[0] = s->zero[1] = 0;
    s->out.pin %= s->pins;
    repair_message(&s->out.message);
    memset(s->vector_pins, 0, sizeof(s->vector_pins));
    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++) {
        s->entry[pin] = pin < s->pins ? s->entry[pin] & WRITABLE : MASKED;
        if (pin >= s->pins)
            s->sent_at[pin] = 0;
        if (is_level(s->entry[pin])) {
            s->vector_pins[s->entry[pin] & VECTOR] |= 1ull << pin;
            repair_level_pin(s, pin);
        } else {
            repair_edge_pin(s, pin);
        }
    }
}

/* ---- Steps ---- */

/* Remote IRR comes with the message that the call has put into the slot; it goes with its EOI, or its level mode. */
static void expect_remote_irr(const struct transition *t)
{
    const struct vioapic *was = t->before, *is = t->after;
    const struct action *a = t->action;
    uint64_t came = is->remote_irr & ~was->remote_irr, went = was->remote_irr & ~is->remote_irr;
    bool eoi = (a->kind == SPECIAL && a->which < 12) || (writes(a) && a->offset == 0x40);
    unsigned vector = a->kind == SPECIAL ? (uint8_t)a->argument : (uint8_t)a->value;

    EXPECT(!(is->remote_irr & ~level_pins(is)), "VIOAPIC-1: remote IRR is on level pins only");
    if (a->kind == DRAIN || a->kind == POKE)
        return;
    EXPECT(!(came & (came - 1)), "VIOAPIC-2: one call delivers once");
    if (came) {
        unsigned pin = (unsigned)__builtin_ctzll(came);
        EXPECT(was->out.message.kind == BUS_NONE && is->out.message.kind == BUS_INTERRUPT && is_active(is, pin) &&
                   is->out.message.vector == (is->entry[pin] & VECTOR) && (is->out.message.flags & BUS_LEVEL),
               "VIOAPIC-2: remote IRR comes with the delivery, of an active pin");
    }
    went &= level_pins(is);
    EXPECT(!went || (eoi && !(went & ~was->vector_pins[vector])), "VIOAPIC-3: remote IRR goes with its vector's EOI");
}

/* A write leads to the same with the read-only bits of an entry's low half set or clear. */
static void expect_read_only(const struct transition *t)
{
    const struct vioapic *was = t->before;
    struct action other = *t->action;

    if (!writes(t->action) || t->action->offset != 0x10 || was->index < 0x10 || (was->index & 1))
        return;
    other.value ^= PENDING | REMOTE_IRR;
    EXPECT(leads_there(t, &other), "VIOAPIC-4: delivery status and remote IRR are read-only");
}

static bool loads_edge(const struct vioapic *was, const struct action *a, unsigned pin)
{
    return a->kind == LINE && a->argument % 64 == pin && !is_active(was, pin);
}

/* An edge delivery becomes pending by an edge. */
static void expect_pending(const struct transition *t)
{
    const struct vioapic *was = t->before, *is = t->after;
    uint64_t came = is->pending_mask & ~was->pending_mask & ~level_pins(is);

    for (; came; came &= came - 1)
        EXPECT(loads_edge(was, t->action, (unsigned)__builtin_ctzll(came)), "VIOAPIC-5: an edge pin is pending by an edge");
}

/* A hold-off begins by an EOI of a pin that has stormed, and ends ahead. */
static void expect_hold(const struct transition *t)
{
    const struct vioapic *was = t->before, *is = t->after;
    uint64_t came = is->held_mask & ~was->held_mask;

    for (; came; came &= came - 1) {
        unsigned pin = (unsigned)__builtin_ctzll(came);
        EXPECT(was->refires[pin] == VIOAPIC_STORM_RUN && (was->remote_irr >> pin & 1), "VIOAPIC-7: one that stormed is held");
        EXPECT(is->storms[pin] == was->storms[pin] + 1, "VIOAPIC-7: it is counted");
        EXPECT(is->hold_until[pin] > t->action->now || t->action->now >= NEVER - 1, "VIOAPIC-7: until a time ahead");
    }
}

/* The high half of an entry is a plain store. */
static void expect_high_half(const struct transition *t)
{
    struct vioapic *expected;
    const struct vioapic *was = t->before;
    unsigned pin = (was->index - 0x10u) / 2;

    if (!writes(t->action) || t->action->offset != 0x10 || t->action->size != 4 || !(was->index & 1) || pin >= was->pins)
        return;
    expected = (void *)copy_of(was);
    vioapic_advance(expected, t->action->now);
    expected->entry[pin] = ((const struct vioapic *)t->after)->entry[pin];
    if (was->out.message.kind != BUS_NONE) /* else the message has its destination from before or from behind the store */
        EXPECT(memcmp(expected, t->after, sizeof(*expected)) == 0, "VIOAPIC-8: a high half is a plain store");
    EXPECT((expected->entry[pin] ^ was->entry[pin]) >> 56 << 56 == (expected->entry[pin] ^ was->entry[pin]) &&
               expected->entry[pin] >> 56 == (uint8_t)(t->action->value >> 24), "VIOAPIC-8: of the destination");
    free(expected);
}

static void expect(const struct transition *t)
{
    expect_remote_irr(t);
    expect_read_only(t);
    expect_pending(t);
    expect_hold(t);
    expect_high_half(t);
    if (reads(t->action))
        EXPECT(only_advanced(t), "VIOAPIC-6: reading has no effect");
}

const struct invariants invariants = {{4, 16, 5}, repair, expect};
