#include <string.h>
#include "step.h"
#include "hpet/hpet.h"

enum { ENABLE = 1, LEVEL = 2, INT_ENB = 4, WIDTH_32 = 1 << 8, ROUTE = 0x1f << 9, FSB_EN = 1 << 14 };
enum { CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
#define WRITABLE 0x7f4eull

/* ---- States ---- */

static void repair_timer(struct hpet *s, unsigned n)
{
    struct hpet_timer *t = &s->timer[n];
    struct line *l = &s->out.line[n];
    uint64_t route, bit = 1ull << n;

    t->config &= WRITABLE;
    route = (t->config & ROUTE) >> 9;
    if (!(HPET_ROUTE_CAP >> route & 1))
        t->config &= ~(uint64_t)ROUTE;
    if (t->config & WIDTH_32) {
        t->comparator &= UINT32_MAX;
        t->period &= UINT32_MAX;
    }
    if (!(t->config & LEVEL))
        s->status &= ~bit;
    if (!(s->config & ENABLE) || (t->config & (INT_ENB | FSB_EN)) != (INT_ENB | FSB_EN))
        s->fsb_pending &= ~bit;
    l->level = (s->config & ENABLE) && (s->status & bit) && (t->config & (INT_ENB | FSB_EN)) == INT_ENB;
    l->zero = 0;
    if (l->last_rise > s->last)
        l->last_rise = s->last;
}

static void repair(void *state)
{
    struct hpet *s = state;
    struct bus_message *m = &s->out.message;

    s->config &= 3;
    s->status &= 0xff;
    s->fsb_pending &= 0xff;
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        repair_timer(s, n);
    if (m->kind > BUS_INTERRUPT)
        m->kind &= 1;
    m->delivery &= 7, m->flags &= BUS_LOGICAL | BUS_LEVEL | BUS_ASSERT, m->shorthand = SHORTHAND_NONE, m->dest &= 0xff;
    memset(m->zero, 0, sizeof(m->zero));
    s->out.timer %= HPET_TIMERS;
}

/* ---- Steps ---- */

static void expect_counter(const struct transition *t, const struct hpet *was)
{
    const struct hpet *is = t->after;
    bool written = writes(t->action) && (t->action->offset & ~7u) == COUNTER && !(was->config & ENABLE);

    EXPECT(written || is->counter - was->counter == (was->config & ENABLE ? is->last - was->last : 0),
           "HPET-1: the counter goes with time while enabled, and is written only while not");
}

/* Of special(), by number. */
static bool is_repeat(const struct action *a)
{
    return a->kind == SPECIAL && a->which < 4;
}

/* W1C: of the bits that time has left set, a write clears those that it has as ones, or of timers turned to edge. */
static void expect_status(const struct transition *t)
{
    const struct action *a = t->action;
    struct hpet *was = (void *)copy_of(t->before);
    const struct hpet *is = t->after;
    bool written = writes(a) && (a->offset & ~7u) == STATUS && a->size && !(a->size & (a->size - 1)) && a->offset % a->size == 0;
    uint64_t cleared, ones = written && a->size <= 8 ? (a->value & all_ones(a->size)) << a->offset % 8 * 8 : 0;

    hpet_advance(was, is->last);
    cleared = was->status & ~is->status;
    EXPECT(!(is->status & ~was->status) || is_repeat(a), "HPET-2: only time sets status bits, or a repeated interrupt");
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        bool edge = !(is->timer[n].config & LEVEL);
        EXPECT(!((cleared & ~ones) >> n & 1) || edge, "HPET-2: a status bit is cleared by writing it as 1");
    }
    EXPECT(!(is->status & ones), "HPET-2: which does clear it");
    free(was);
}

static void expect_edges(const struct transition *t)
{
    const struct hpet *was = t->before, *is = t->after;

    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        bool counted = is->timer[n].matches != was->timer[n].matches;
        EXPECT(!counted || ((was->config & ENABLE) && (was->timer[n].config & INT_ENB)), "HPET-3: only what is enabled matches");
    }
    EXPECT(is->fsb_pending == was->fsb_pending || is->fsb_pending < 1u << HPET_TIMERS, "HPET-3: one message per timer");
}

static void expect(const struct transition *t)
{
    const struct action *a = t->action;

    expect_counter(t, t->before);
    if (a->kind != POKE)
        expect_status(t);
    expect_edges(t);
    if (reads(a))
        EXPECT(only_advanced(t), "HPET-4: reading has no effect");
    if (reads(a) && (a->offset & ~7u) == COUNTER)
        EXPECT(memcmp(t->before, t->after, sizeof(struct hpet)) == 0, "HPET-4: of the counter not even time's");
}

const struct invariants invariants = {{8, 8, 64}, repair, expect};
