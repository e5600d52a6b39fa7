#include <string.h>
#include "step.h"
#include "vpit/vpit.h"

enum { LATCH = 0, BOTH = 3, LSB = 1, MSB = 2 };
#define LAST_TICK (UINT64_MAX / MASTER_PER_PIT_TICK)

static unsigned mode(const struct vpit_channel *c)
{
    unsigned m = (c->control >> 1) & 7;
    return m > 5 ? m - 4 : m;
}

static uint32_t modulus(const struct vpit_channel *c)
{
    return c->control & 1 ? 10000 : 65536;
}

/* ---- States ---- */

static void repair_registers(struct vpit_channel *c)
{
    uint8_t *flags[] = {&c->status_latched, &c->half, &c->read_msb, &c->gate, &c->trigger,
                        &c->written, &c->null, &c->counting, &c->done, &c->odd};
    unsigned rw;

    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        *flags[i] &= 1;
    c->zero[0] = c->zero[1] = 0;
    c->control &= 0x3f;
    if (c->control >> 4 == LATCH)
        c->control |= BOTH << 4;
    rw = c->control >> 4;
    if (rw != BOTH)
        c->half = c->read_msb = 0;
    c->latched &= rw;
    if (rw == BOTH && c->latched == LSB)
        c->latched |= MSB;
    if (!c->half)
        c->low_byte = 0;
    if (mode(c) == 0 || mode(c) == 4)
        c->trigger = 0;
}

static void repair_idle(struct vpit_channel *c, struct line *out)
{
    c->null = 1;
    c->done = c->odd = 0;
    c->ce &= 0xffff;
    out->level = mode(c) != 0;
}

static void repair_square_wave(struct vpit_channel *c, struct line *out)
{
    c->done = 0;
    if (c->ce > modulus(c))
        c->ce %= modulus(c) + 1;
    c->ce &= ~1u;
    if (!c->gate || c->trigger)
        out->level = 1;
    if (!c->ce && !(c->odd && out->level))
        c->ce = 2;
}

static void repair_rate(struct vpit_channel *c, struct line *out)
{
    c->done = c->odd = 0;
    if (c->ce < 1 || c->ce > modulus(c) + 1)
        c->ce = 1 + c->ce % (modulus(c) + 1);
    out->level = c->ce != 1 || !c->gate || c->trigger;
}

static void repair_once(struct vpit_channel *c, struct line *out)
{
    c->odd = 0;
    if (c->done ? c->ce >= modulus(c) : c->ce < 1 || c->ce > modulus(c))
        c->ce = c->ce % modulus(c) + !c->done;
    if (mode(c) >= 4)
        out->level |= !(c->done && !c->ce);
    else if (!(mode(c) == 0 && (c->half || (c->null && c->written)) && !out->level))
        out->level = c->done;
}

static void repair_channel(struct vpit_channel *c, struct line *out)
{
    repair_registers(c);
    out->level &= 1;
    out->zero = 0;
    if (!c->written)
        c->counting = 0;
    if (!c->counting)
        repair_idle(c, out);
    else if (mode(c) == 3)
        repair_square_wave(c, out);
    else if (mode(c) == 2)
        repair_rate(c, out);
    else
        repair_once(c, out);
}

static void repair(void *state)
{
    struct vpit *s = state;

    for (unsigned i = 0; i < VPIT_CHANNELS; i++)
        repair_channel(&s->channel[i], &s->out.line[i]);
    if (s->tick > LAST_TICK)
        s->tick %= LAST_TICK + 1;
    s->port61 &= 0x0e;
    memset(s->zero, 0, sizeof(s->zero));
}

/* ---- Steps ---- */

/* The channel as it is but for its latches, which are what reading changes. */
static struct vpit_channel without_latches(struct vpit_channel c)
{
    c.latched = c.status_latched = c.read_msb = 0;
    return c;
}

static void expect_read(const struct transition *t)
{
    struct vpit *was = (void *)copy_of(t->before);
    const struct vpit *is = t->after;
    unsigned n = t->action->offset;

    vpit_advance(was, t->action->now);
    if (n < VPIT_CHANNELS) {
        struct vpit_channel a = without_latches(was->channel[n]), b = without_latches(is->channel[n]);
        EXPECT(memcmp(&a, &b, sizeof(a)) == 0, "VPIT-1: reading changes latches alone");
        was->channel[n] = is->channel[n];
    }
    EXPECT(memcmp(was, is, sizeof(*was)) == 0, "VPIT-1: of the channel that is read");
    free(was);
}

/* A latched status comes first, then a latched count, LSB first. */
static void expect_latches(const struct transition *t, unsigned n)
{
    const struct vpit_channel *was = &((const struct vpit *)t->before)->channel[n];
    const struct vpit_channel *is = &((const struct vpit *)t->after)->channel[n];

    if (was->status_latched) {
        EXPECT(t->result == was->status && !is->status_latched && is->latched == was->latched, "VPIT-2: a status is read once");
    } else if (was->latched) {
        EXPECT(t->result == (was->latched & LSB ? was->latch & 0xff : was->latch >> 8), "VPIT-2: a latched count is read");
        EXPECT(is->latched == (was->latched & (was->latched - 1)), "VPIT-2: byte by byte, LSB first, each once");
    }
}

static void expect(const struct transition *t)
{
    const struct vpit *was = t->before, *is = t->after;
    uint64_t tick = t->action->now / MASTER_PER_PIT_TICK;
    bool timeless = t->action->kind == SPECIAL || t->action->kind == POKE || t->action->kind == SAVE ||
                    t->action->kind == TAKE || t->action->kind == DRAIN;

    if (reads(t->action))
        expect_read(t);
    if (reads(t->action) && t->action->size == 1 && t->action->offset < VPIT_CHANNELS)
        expect_latches(t, t->action->offset);
    EXPECT(is->tick == (timeless || tick < was->tick ? was->tick : tick), "VPIT-3: time goes on to now, and never back");
    for (unsigned i = 0; i < VPIT_CHANNELS; i++)
        EXPECT(is->out.line[i].rises == was->out.line[i].rises || is->out.line[i].last_rise != 0 || t->action->now == 0,
               "VPIT-4: an edge has its time");
}

const struct invariants invariants = {{1, 1, 5}, repair, expect};
