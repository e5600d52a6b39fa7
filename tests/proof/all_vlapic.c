/*
 * Acknowledge and EOI of a local APIC: every highest vector in service (or none) with every highest vector requested (or
 * none) under every class of TPR, level- or edge-triggered. What else is in service or requested comes up when the highest
 * has gone: one vector of each, in the next class or the same. exhaustive-bits shows that a map's look-up is its highest
 * vector whatever is below.
 */
#include "step.h"
#include "vlapic/vlapic.h"

enum { ACK = 7, EOI = 8, NONE = 15 };

static unsigned long states, steps;

static void try(const struct vlapic *s, unsigned which)
{
    struct vlapic copy = *s;
    struct run r = {.state = (uint8_t *)&copy, .latest = UINT64_MAX};
    struct action a = {.kind = SPECIAL, .which = which, .now = 1};

    steps++;
    checked_action(&r, &a);
    if (which != EOI)
        return;
    EXPECT((copy.out.message.kind == BUS_EOI) == (s->isr.summary && s->tmr[1]), "an EOI is broadcast for a level in service");
}

static void put(struct vector_map *m, unsigned vector)
{
    if (vector > NONE)
        map_set(m, (uint8_t)vector);
}

static void in_every_priority(struct vlapic *s)
{
    for (unsigned tpr = 0; tpr < 256; tpr += tpr & 1 ? 15 : 1) {
        s->tpr = tpr;
        vlapic_update_ppr(s);
        EXPECT(vlapic_check(s), "check accepts every combination");
        for (unsigned level = 0; level < 2; level++) {
            for (unsigned i = 0; i < VECTOR_WORDS; i++)
                s->tmr[i] = level ? ~0u << (i ? 0 : 16) : 0;
            states++;
            try(s, ACK);
            try(s, EOI);
        }
    }
}

int main(void)
{
    struct vlapic fresh, s;

    vlapic_reset(&fresh, 0, 0, true);
    vlapic_write(&fresh, 0, 0xf0, 4, 0x1ff);
    for (unsigned serving = NONE; serving < 256; serving++) {
        for (unsigned wanted = NONE; wanted < 256; wanted++) {
            s = fresh;
            put(&s.isr, serving);
            put(&s.isr, serving >= 32 ? serving - 16 : NONE);
            put(&s.irr, wanted);
            put(&s.irr, wanted > 16 ? wanted - 1 : NONE);
            in_every_priority(&s);
        }
    }
    printf("%lu steps from %lu states\n", steps, states);
    return 0;
}
