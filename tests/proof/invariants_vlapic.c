#include <string.h>
#include "step.h"
#include "vlapic/internal.h"

/* Of special(), by number. */
enum { POST = 6, ACK = 7, EOI = 8, INIT = 9, OUTPUTS = 15 };

static bool has(const uint32_t *words, unsigned vector)
{
    return words[vector / 32] >> (vector % 32) & 1;
}

static bool enabled(const struct vlapic *s)
{
    return (s->apic_base & APIC_BASE_EN) != 0;
}

/* ---- States ---- */

static void repair_base(struct vlapic *s)
{
    if (s->phys_bits < 32 || s->phys_bits > 52)
        s->phys_bits = 32 + s->phys_bits % 21;
    s->features &= VLAPIC_FEATURES;
    s->apic_base &= ((1ull << s->phys_bits) - 1) & ~0x2ffull;
    if (!enabled(s) || !(s->features & VLAPIC_X2APIC))
        s->apic_base &= ~(uint64_t)APIC_BASE_EXTD;
    s->xapic_id &= 0xff;
    if (vlapic_x2apic(s) || !enabled(s))
        s->xapic_id = s->apic_id & 0xff;
}

static void repair_map(struct vector_map *m)
{
    m->word[0] &= ~0xffffu;
    m->summary = 0;
    for (unsigned i = 0; i < VECTOR_WORDS; i++)
        m->summary |= (uint32_t)(m->word[i] != 0) << i;
}

static uint32_t lowest_bit(uint32_t x)
{
    return x & -x;
}

static void repair_vectors(struct vlapic *s)
{
    for (unsigned i = 0; i < VECTOR_WORDS; i++)
        s->isr.word[i] = lowest_bit(s->isr.word[i] & 0xffff) | lowest_bit(s->isr.word[i] & 0xffff0000);
    s->isr.word[0] &= ~0xffffu;
    repair_map(&s->irr);
    repair_map(&s->isr);
    s->tmr[0] &= ~0xffffu;
    s->tpr &= 0xff;
    vlapic_update_ppr(s);
}

static void repair_lvt(struct vlapic *s)
{
    static const uint32_t writable[LVT_COUNT] = {0x700ff, 0x107ff, 0x107ff, 0x1e7ff, 0x1a7ff, 0x100ff, 0x107ff};
    uint32_t *lint0 = &s->lvt[LVT_LINT0];

    for (unsigned i = 0; i < LVT_COUNT; i++)
        s->lvt[i] = (s->lvt[i] & writable[i]) | (s->svr & SVR_ENABLE ? 0 : LVT_MASKED);
    if (!(s->features & VLAPIC_TSC_DEADLINE))
        s->lvt[LVT_TIMER] &= ~TIMER_DEADLINE;
    if (!(s->features & VLAPIC_CMCI))
        s->lvt[LVT_CMCI] = LVT_MASKED;
    if (!(*lint0 & LVT_LEVEL) || lvt_delivery(*lint0) != DELIVER_FIXED)
        *lint0 &= ~LVT_REMOTE_IRR;
}

static void repair_timer(struct vlapic *s)
{
    uint32_t mode = s->lvt[LVT_TIMER] & TIMER_MODE;

    if (mode & TIMER_DEADLINE)
        s->tmict = 0;
    if (mode != TIMER_DEADLINE)
        s->tsc_deadline = 0;
    if (mode == TIMER_DEADLINE && s->timer_expiry != NEVER)
        s->timer_expiry = s->tsc_deadline - s->tsc_adjust;
    if (!s->tmict && !s->tsc_deadline)
        s->timer_expiry = NEVER;
}

static void repair_registers(struct vlapic *s)
{
    struct bus_message *m = &s->out.message;

    s->esr &= ESR_ALL, s->esr_pending &= ESR_ALL;
    s->dcr &= DCR_WRITABLE;
    s->ldr &= 0xff000000, s->dfr |= DFR_FIXED;
    s->icr &= ICR_WRITABLE;
    if (!vlapic_x2apic(s))
        s->icr_dest &= 0xff;
    s->activity &= 1, s->sipi_vector &= 0xff, s->lines &= 3;
    if (m->kind > BUS_EOI)
        m->kind %= BUS_EOI + 1;
    m->delivery &= 7, m->shorthand &= 3, m->flags &= 15;
    memset(m->zero, 0, sizeof(m->zero));
}

static void repair(void *state)
{
    struct vlapic *s = state;

    s->svr &= SVR_WRITABLE;
    repair_base(s);
    if (!enabled(s)) {
        uint32_t tpr = s->tpr, generation = s->map_generation;
        vlapic_reset_registers(s);
        s->tpr = tpr;
        s->map_generation = generation;
    }
    repair_vectors(s);
    repair_lvt(s);
    repair_timer(s);
    repair_registers(s);
}

/* ---- Steps ---- */

/* INIT, and APIC_BASE.EN cleared. */
static bool is_reset(const struct transition *t)
{
    return (t->action->kind == SPECIAL && t->action->which == INIT) || (enabled(t->before) && !enabled(t->after));
}

static bool is_special(const struct transition *t, unsigned which)
{
    return t->action->kind == SPECIAL && t->action->which == which;
}

/* By the function, the MSR or the page. */
static bool is_eoi(const struct transition *t)
{
    const struct action *a = t->action;
    bool msr = a->kind == SPECIAL && a->which < 4 && (a->argument & 0xff) == REG_EOI;
    return is_special(t, EOI) || msr || (writes(a) && a->offset == REG_EOI << 4);
}

/* An acknowledge moves the vector that pending() names, and it alone. */
static void expect_ack(const struct transition *t)
{
    const struct vlapic *was = t->before, *is = t->after;
    struct vlapic moved = *was;
    int v = vlapic_pending(was);

    if (!is_special(t, ACK))
        return;
    EXPECT((int)t->result == (v < 0 ? (int)(was->svr & 0xff) : v), "VLAPIC-1: an acknowledge returns the pending vector");
    if (v >= 0) {
        EXPECT(!has(was->isr.word, (unsigned)v) && ((uint32_t)v & 0xf0) > (was->tpr & 0xf0) && v > map_highest(&was->isr),
               "VLAPIC-1: it is above TPR and all in service");
        map_clear(&moved.irr, (uint8_t)v);
        map_set(&moved.isr, (uint8_t)v);
        moved.ppr = (uint32_t)v & 0xf0;
    }
    EXPECT(memcmp(&moved, is, sizeof(moved)) == 0, "VLAPIC-1: it moves from IRR to ISR, and nothing else changes");
}

static void expect_vectors(const struct transition *t)
{
    const struct vlapic *was = t->before, *is = t->after;
    int in_service = map_highest(&was->isr);

    for (unsigned v = 0; v < 256; v++) {
        bool came = !has(was->isr.word, v) && has(is->isr.word, v), went = has(was->isr.word, v) && !has(is->isr.word, v);
        bool withdrawn = has(was->irr.word, v) && !has(is->irr.word, v);

        EXPECT(!came || (is_special(t, ACK) && has(was->irr.word, v)), "VLAPIC-2: nothing is in ISR but by an acknowledge");
        EXPECT(!went || ((int)v == in_service && is_eoi(t)) || is_reset(t), "VLAPIC-3: an EOI ends the highest, and no other");
        EXPECT(!withdrawn || is_special(t, ACK) || is_reset(t), "VLAPIC-4: a request stays until acknowledged");
        EXPECT(has(was->tmr, v) == has(is->tmr, v) || has(is->irr.word, v) || is_reset(t), "VLAPIC-5: TMR comes with IRR");
    }
}

/* A post sets its bits of IRR and TMR whatever was there: the last one's trigger mode counts. */
static void expect_post(const struct transition *t)
{
    const struct vlapic *is = t->after;
    unsigned v = t->action->argument & 0xff;

    if (!is_special(t, POST))
        return;
    EXPECT((t->result != 0) == ((is->svr & SVR_ENABLE) && v >= 16), "VLAPIC-6: a post is taken if enabled, from 16 on");
    EXPECT(!t->result || (has(is->irr.word, v) && has(is->tmr, v) == (t->action->value & 1)),
           "VLAPIC-6: a post sets IRR, and TMR to its trigger mode");
}

/* LINT0's remote IRR comes with its interrupt, and goes with its EOI or its mode. Nobody writes it. */
static void expect_remote_irr(const struct transition *t)
{
    const struct vlapic *was = t->before, *is = t->after;
    uint32_t old = was->lvt[LVT_LINT0], new = is->lvt[LVT_LINT0], v = new & 0xff;
    bool level = (new & LVT_LEVEL) && lvt_delivery(new) == DELIVER_FIXED;

    EXPECT(!(new & LVT_REMOTE_IRR) || level, "VLAPIC-7: remote IRR is for fixed and level");
    EXPECT(!(new & ~old & LVT_REMOTE_IRR) || (has(is->irr.word, v) && has(is->tmr, v)), "VLAPIC-7: it comes with the interrupt");
    EXPECT(!(old & ~new & LVT_REMOTE_IRR) || !level || (old & 0xff) == (uint32_t)map_highest(&was->isr) || is_reset(t),
           "VLAPIC-7: it goes with the EOI");
}

/* The same write with the bits that only the APIC sets. */
static void expect_read_only(const struct transition *t)
{
    const struct action *a = t->action;
    struct action other = *a;
    unsigned reg = a->offset % 16 ? REG_COUNT : a->offset >> 4;
    bool lint = reg == REG_LVT_LINT0 || reg == REG_LVT_LINT1;
    bool status = (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR) || reg == REG_LVT_CMCI || reg == REG_ICR;

    other.value ^= (status ? LVT_STATUS : 0) | (lint ? LVT_REMOTE_IRR : 0);
    if (writes(a) && other.value != a->value)
        EXPECT(leads_there(t, &other), "VLAPIC-8: delivery status and remote IRR are read-only");
    if (reads(a) && a->size == 4 && status && vlapic_mmio_enabled(t->before))
        EXPECT(!(t->result & LVT_STATUS), "VLAPIC-8: delivery status is idle");
}

/* What decides whether a message is for this APIC, against the generation that the fabric looks at. */
static void expect_generation(const struct transition *t)
{
    const struct vlapic *a = t->before, *b = t->after;
    bool same = a->xapic_id == b->xapic_id && a->apic_id == b->apic_id && a->ldr == b->ldr && a->dfr == b->dfr &&
                !((a->svr ^ b->svr) & SVR_ENABLE) && !((a->apic_base ^ b->apic_base) & (APIC_BASE_EN | APIC_BASE_EXTD));

    EXPECT(same || a->map_generation != b->map_generation, "VLAPIC-9: what routing depends on changes with the generation");
}

static void expect_timer(const struct transition *t)
{
    const struct vlapic *was = t->before, *is = t->after;

    EXPECT(is->timer_due >= was->timer_due || (was->timer_due | t->action->now) >> 63, "VLAPIC-10: what is due stays due");
    EXPECT(is->timer_due == was->timer_due || !(was->lvt[LVT_TIMER] & LVT_MASKED), "VLAPIC-10: a masked timer owes nothing");
    EXPECT(is->timer_expiry > t->action->now || is->timer_expiry == was->timer_expiry, "VLAPIC-10: what is armed lies ahead");
}

/* Reading brings the timer up to date; a register that does not exist is an error. */
static void expect_read(const struct transition *t)
{
    struct vlapic *was;

    if (!reads(t->action) || only_advanced(t))
        return;
    was = (void *)copy_of(t->before);
    vlapic_advance(was, t->action->now);
    vlapic_error(was, ESR_REGISTER);
    EXPECT(memcmp(was, t->after, sizeof(*was)) == 0, "VLAPIC-11: reading has no effect, but for ESR bit 7");
    free(was);
}

static void expect(const struct transition *t)
{
    expect_ack(t);
    expect_vectors(t);
    expect_post(t);
    expect_remote_irr(t);
    expect_read_only(t);
    expect_generation(t);
    expect_timer(t);
    expect_read(t);
}

const struct invariants invariants = {{4, 16, 64}, repair, expect};
