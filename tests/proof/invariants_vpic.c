#include <string.h>
#include "step.h"
#include "vpic/vpic.h"

enum { AEOI = 2, NESTED = 0x10, IC4 = 1, SNGL = 2, LTIM = 8, CASCADE = 4, CLOCK = 1 };

static const uint8_t elcr_writable[2] = {0xf8, 0xde};

static uint8_t level_lines(const struct vpic_chip *c)
{
    return c->icw1 & LTIM ? 0xff : c->elcr;
}

static uint8_t irr(const struct vpic_chip *c)
{
    return (uint8_t)((c->pins & level_lines(c)) | (c->edge & ~level_lines(c)));
}

static bool cascaded(const struct vpic *s)
{
    return !(s->chip[0].icw1 & SNGL) && (s->chip[0].icw3 & CASCADE);
}

static unsigned request(const struct vpic *s, unsigned which)
{
    const struct vpic_chip *c = &s->chip[which];
    unsigned mode = (c->special_mask ? VPIC_SPECIAL_MASK : 0) |
                    (which == 0 && (c->icw4 & NESTED) && cascaded(s) ? VPIC_SPECIAL_NESTED : 0);
    return c->step == VPIC_READY ? vpic_resolve(irr(c), c->isr, c->imr, c->highest, mode) : VPIC_NONE;
}

/* ---- States ---- */

static void repair_initialisation(struct vpic_chip *c)
{
    if (c->step > VPIC_POWER_ON)
        c->step %= VPIC_POWER_ON + 1;
    if (c->step == VPIC_ICW3)
        c->icw1 &= ~SNGL;
    if (c->step == VPIC_ICW4)
        c->icw1 |= IC4;
    if (!(c->icw1 & IC4))
        c->icw4 = 0;
    if (c->step == VPIC_POWER_ON)
        c->isr = c->icw1 = c->icw2 = c->icw3 = c->icw4 = 0;
    else if (c->step != VPIC_READY)
        c->isr = c->imr = c->icw4 = 0;
}

static void repair_chip(struct vpic_chip *c, unsigned which)
{
    c->elcr &= elcr_writable[which];
    c->icw1 &= IC4 | SNGL | LTIM;
    c->icw2 &= 0xf8;
    c->icw3 &= which ? 7 : 0xff;
    c->icw4 &= 0x1f;
    c->highest &= 7;
    c->read_isr &= 1;
    c->poll &= 1;
    c->special_mask &= 1;
    c->rotate_aeoi &= 1;
    c->zero = 0;
    repair_initialisation(c);
    if (c->icw4 & AEOI)
        c->isr = 0;
}

static void repair_edges(struct vpic_chip *c)
{
    c->edge &= c->pins | (level_lines(c) & CLOCK ? 0 : CLOCK);
}

static void repair(void *state)
{
    struct vpic *s = state;
    struct vpic_chip *master = &s->chip[0];
    unsigned line;

    repair_chip(&s->chip[0], 0);
    repair_chip(&s->chip[1], 1);
    repair_edges(&s->chip[1]);
    master->pins = (uint8_t)((master->pins & ~CASCADE) | (request(s, 1) != VPIC_NONE ? CASCADE : 0));
    repair_edges(master);
    line = request(s, 0);
    s->out.line[0].level = line != VPIC_NONE;
    s->out.line[0].zero = 0;
    s->from_slave &= 1;
    if (line != VPIC_NONE)
        s->from_slave = line == 2 && cascaded(s);
    else if (!cascaded(s) || master->step != VPIC_READY || s->chip[1].step != VPIC_READY)
        s->from_slave = 0;
    memset(s->zero, 0, sizeof(s->zero));
}

/* ---- Steps ---- */

/* The resolver's line; or the master's IR2, where a slave has raised INT and withdrawn its request since. */
static bool may_come(const struct vpic *s, unsigned which, uint8_t bit)
{
    unsigned line = request(s, which);

    if (line == VPIC_NONE)
        return which == 0 && s->from_slave && bit == CASCADE;
    return bit == 1u << line;
}

static void expect_isr(const struct transition *t, unsigned which)
{
    const struct vpic *was = t->before, *is = t->after;
    const struct vpic_chip *before = &was->chip[which], *after = &is->chip[which];
    uint8_t came = after->isr & ~before->isr, went = before->isr & ~after->isr;
    bool polled = reads(t->action) && before->poll;

    EXPECT(!came || ((t->action->kind == SPECIAL || polled) && may_come(was, which, came)),
           "VPIC-1: a line comes into ISR by an INTA or a poll, if the resolver has it");
    EXPECT(!went || writes(t->action), "VPIC-2: a line leaves ISR by an EOI or ICW1");
}

static void expect_vector(const struct transition *t)
{
    const struct vpic *was = t->before;
    uint8_t vector = (uint8_t)t->result;
    unsigned line = vector & 7;

    if (t->action->kind != SPECIAL || vector == 0xff)
        return;
    EXPECT((vector & 0xf8) == was->chip[0].icw2 || (vector & 0xf8) == was->chip[1].icw2, "VPIC-3: a vector has a chip's base");
    EXPECT(line == 7 || line == request(was, 0) || line == request(was, 1), "VPIC-3: and the line of its request, or 7");
}

static void expect(const struct transition *t)
{
    const struct vpic *s = t->before;

    for (unsigned which = 0; which < 2; which++)
        expect_isr(t, which);
    expect_vector(t);
    if (reads(t->action) && !s->chip[0].poll && !s->chip[1].poll)
        EXPECT(memcmp(t->before, t->after, sizeof(*s)) == 0, "VPIC-4: but for a poll, reading has no effect");
}

const struct invariants invariants = {{1, 1, 6}, repair, expect};
