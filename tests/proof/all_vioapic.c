/*
 * Every step of an I/O APIC's pin. What is left out cannot make a difference:
 *   - Pins are alike: a pin's number is a shift count and an index, and no more than the order for the slot. The slot is
 *     free, full, or wanted by a lower pin too.
 *   - Vectors are alike: indices. One is the pin's, one is not.
 *   - Destination and its mode are copied into the message, and nothing looks at them.
 *   - Time is compared with the end of a hold-off and with a delivery, and added to: on all sides of both.
 *   - The run of re-fires is compared with its limit: at the beginning, inside, one before it, at it.
 */
#include "step.h"
#include "vioapic/vioapic.h"

#define PIN 7u
#define OTHER_PIN 2u
#define NOW 100000000ull
#define VECTOR 0x61u
#define OTHER_VECTOR 0x62u
#define CONTROLS 64u
#define MASKED (1ull << 16)

static unsigned long states, steps;

/* Delivery mode, polarity, trigger and mask, of six bits. */
static uint64_t controls(unsigned n)
{
    return (uint64_t)(n & 7) << 8 | (uint64_t)(n >> 3 & 1) << 13 | (uint64_t)(n >> 4 & 1) << 15 | (uint64_t)(n >> 5 & 1) << 16;
}

static void try(const struct vioapic *s, struct action a)
{
    struct vioapic copy = *s;
    struct run r = {.state = (uint8_t *)&copy, .latest = UINT64_MAX};

    a.now = NOW;
    steps++;
    checked_action(&r, &a);
}

static void every_action(struct vioapic *s)
{
    for (unsigned n = 0; n < 2 * CONTROLS; n++)
        try(s, (struct action){.kind = WRITE, .offset = 0x10, .size = 4,
                               .value = controls(n % CONTROLS) | (n < CONTROLS ? VECTOR : OTHER_VECTOR)});
    for (unsigned offset = 0; offset <= 0x40; offset += 0x10) {
        try(s, (struct action){.kind = READ, .offset = offset, .size = 4});
        try(s, (struct action){.kind = READ, .offset = offset, .size = 8});
    }
    for (unsigned vector = VECTOR; vector <= OTHER_VECTOR; vector++) {
        try(s, (struct action){.kind = SPECIAL, .which = 0, .argument = vector});
        try(s, (struct action){.kind = WRITE, .offset = 0x40, .size = 4, .value = vector});
    }
    for (unsigned level = 0; level < 2; level++) {
        try(s, (struct action){.kind = LINE, .argument = PIN, .value = level});
        try(s, (struct action){.kind = LINE, .argument = OTHER_PIN, .value = level});
        try(s, (struct action){.kind = SPECIAL, .which = 12, .value = (uint64_t)level << PIN});
    }
    try(s, (struct action){.kind = FORWARD});
    try(s, (struct action){.kind = TAKE});
    s->index++; /* the high half */
    try(s, (struct action){.kind = WRITE, .offset = 0x10, .size = 4, .value = 0xff000000});
    try(s, (struct action){.kind = READ, .offset = 0x10, .size = 4});
    s->index--;
}

/* Nothing changes before the deadline; at it the pin is delivered again, or it was masked meanwhile. */
static void every_deadline(const struct vioapic *s)
{
    struct vioapic before = *s, at = *s;
    uint64_t deadline = vioapic_deadline(s), bit = 1ull << PIN;

    if (deadline == NEVER || deadline < NOW || deadline - NOW > VIOAPIC_HOLD_MAX)
        return;
    vioapic_advance(&before, NOW);
    EXPECT(deadline == NOW || (before.held_mask & bit), "a hold-off lasts until its deadline");
    vioapic_advance(&at, deadline);
    EXPECT(!(at.held_mask & bit), "and no longer");
    EXPECT((s->entry[PIN] & MASKED) || ((at.pending_mask | at.remote_irr) & bit), "then the pin is delivered, or waits");
}

static void in_every_slot(struct vioapic *s)
{
    for (unsigned slot = 0; slot < 3; slot++) {
        struct vioapic copy = *s;
        if (slot == 1)
            copy.out.message.kind = BUS_INTERRUPT;
        if (slot == 2) {
            copy.entry[OTHER_PIN] = OTHER_VECTOR;
            copy.pending_mask |= 1u << OTHER_PIN;
        }
        if (!vioapic_check(&copy))
            return;
        states++;
        every_deadline(&copy);
        every_action(&copy);
    }
}

static void in_every_time(struct vioapic *s)
{
    static const uint64_t sent[] = {0, NOW - VIOAPIC_STORM_QUICK - 1, NOW - VIOAPIC_STORM_QUICK, NOW, NOW + 1};
    static const uint64_t held[] = {1, NOW - 1, NOW, NOW + 1, NOW + VIOAPIC_HOLD_MAX, NOW + VIOAPIC_HOLD_MAX + 1};

    for (unsigned i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
        s->sent_at[PIN] = sent[i];
        s->hold_until[PIN] = 0;
        if (!(s->held_mask >> PIN & 1)) {
            in_every_slot(s);
            continue;
        }
        for (unsigned j = 0; j < sizeof(held) / sizeof(held[0]); j++) {
            s->hold_until[PIN] = held[j];
            in_every_slot(s);
        }
    }
}

static void in_every_run(struct vioapic *s)
{
    static const uint16_t run[] = {0, 1, VIOAPIC_STORM_RUN - 1, VIOAPIC_STORM_RUN};

    for (unsigned i = 0; i < sizeof(run) / sizeof(run[0]); i++) {
        for (uint8_t shift = 0; shift <= VIOAPIC_HOLD_DOUBLINGS; shift++) {
            s->refires[PIN] = run[i];
            s->hold_shift[PIN] = shift;
            in_every_time(s);
        }
    }
}

int main(void)
{
    for (unsigned n = 0; n < CONTROLS; n++) {
        for (unsigned bits = 0; bits < 32; bits++) {
            struct vioapic s;
            uint64_t bit = 1ull << PIN;

            vioapic_reset(&s, 0, 24, 0);
            s.index = (uint8_t)(0x10 + 2 * PIN);
            s.entry[PIN] = controls(n) | VECTOR;
            if ((s.entry[PIN] & 1ull << 15) && (n & 7) <= DELIVER_LOWEST)
                s.vector_pins[VECTOR] = bit;
            s.lines = bits & 1 ? bit : 0;
            s.active_low_pins = bits & 2 ? bit : 0;
            s.remote_irr = bits & 4 ? bit : 0;
            s.pending_mask = bits & 8 ? bit : 0;
            s.held_mask = bits & 16 ? bit : 0;
            in_every_run(&s);
        }
    }
    printf("%lu steps from %lu states\n", steps, states);
    return 0;
}
