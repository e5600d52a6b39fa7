/* Can the local APIC be in this state? A restored state must pass before it is used: nothing else checks it. */
#include "internal.h"

static bool map_is_consistent(const struct vector_map *m)
{
    uint32_t summary = 0;
    for (unsigned i = 0; i < VECTOR_WORDS; i++)
        if (m->word[i])
            summary |= 1u << i;
    return m->summary == summary && !(m->word[0] & 0xffff);
}

/* An interrupt is taken only if its class is above all in service, so ISR has at most one bit per class. */
static bool isr_is_nested(const struct vector_map *m)
{
    for (unsigned i = 0; i < 2 * VECTOR_WORDS; i++) {
        uint32_t class = (m->word[i / 2] >> (16 * (i & 1))) & 0xffff;
        if (class & (class - 1))
            return false;
    }
    return true;
}

static bool vectors_are_legal(const struct vlapic *s)
{
    struct vlapic copy = *s;
    if (!map_is_consistent(&s->irr) || !map_is_consistent(&s->isr) || !isr_is_nested(&s->isr) || (s->tmr[0] & 0xffff))
        return false;
    vlapic_update_ppr(&copy);
    return s->tpr <= 0xff && copy.ppr == s->ppr;
}

static bool lvt_is_legal(const struct vlapic *s)
{
    static const uint32_t writable[LVT_COUNT] = {LVT_TIMER_WRITABLE, LVT_SENSOR_WRITABLE, LVT_SENSOR_WRITABLE,
                                                 LVT_LINT_WRITABLE,  LVT_LINT_WRITABLE,   LVT_ERROR_WRITABLE,
                                                 LVT_SENSOR_WRITABLE};
    uint32_t lint0 = s->lvt[LVT_LINT0];
    for (unsigned i = 0; i < LVT_COUNT; i++) {
        uint32_t allowed = writable[i] | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0);
        if ((s->lvt[i] & ~allowed) || (!(s->svr & SVR_ENABLE) && !(s->lvt[i] & LVT_MASKED)))
            return false;
    }
    if ((s->lvt[LVT_TIMER] & TIMER_DEADLINE) && !(s->features & VLAPIC_TSC_DEADLINE))
        return false;
    if (s->lvt[LVT_CMCI] != LVT_MASKED && !(s->features & VLAPIC_CMCI))
        return false;
    return !(lint0 & LVT_REMOTE_IRR) || ((lint0 & LVT_LEVEL) && lvt_delivery(lint0) == DELIVER_FIXED);
}

static bool timer_is_legal(const struct vlapic *s)
{
    bool counting = s->timer_expiry != NEVER;
    switch (s->lvt[LVT_TIMER] & TIMER_MODE) {
    case TIMER_DEADLINE:
        if (counting && s->timer_expiry != s->tsc_deadline - s->tsc_adjust)
            return false;
        return s->tmict == 0 && (s->tsc_deadline != 0 || !counting);
    case TIMER_MODE_RESERVED:
        return s->tmict == 0 && s->tsc_deadline == 0 && !counting;
    default:
        return s->tsc_deadline == 0 && (s->tmict != 0 || !counting);
    }
}

/* A globally disabled APIC: nothing but TPR, through CR8, can be written since its registers were reset. */
static bool is_as_reset(const struct vlapic *s)
{
    uint32_t zero = s->irr.summary | s->isr.summary | s->esr | s->esr_pending | s->ldr | s->icr | s->icr_dest | s->tmict | s->dcr;
    for (unsigned i = 0; i < VECTOR_WORDS; i++)
        zero |= s->tmr[i];
    for (unsigned i = 0; i < LVT_COUNT; i++)
        zero |= s->lvt[i] ^ LVT_MASKED;
    return !zero && !s->tsc_deadline && s->timer_expiry == NEVER && s->svr == 0xff && s->dfr == ~0u;
}

static bool base_is_consistent(const struct vlapic *s)
{
    bool en = (s->apic_base & APIC_BASE_EN) != 0, x2apic = vlapic_x2apic(s);
    if (s->phys_bits < 32 || s->phys_bits > 52 || (s->features & ~(uint32_t)VLAPIC_FEATURES))
        return false;
    if ((s->apic_base & 0x2ff) || (s->apic_base >> s->phys_bits))
        return false;
    if (x2apic && (!en || !(s->features & VLAPIC_X2APIC)))
        return false;
    if (s->xapic_id > 0xff || ((x2apic || !en) && s->xapic_id != (s->apic_id & 0xff)))
        return false;
    return en || is_as_reset(s);
}

static bool message_is_legal(const struct bus_message *m)
{
    return m->kind <= BUS_EOI && m->delivery <= DELIVER_EXTINT && m->shorthand <= SHORTHAND_OTHERS && m->flags <= 15 &&
           !m->zero[0] && !m->zero[1] && !m->zero[2];
}

bool vlapic_check(const struct vlapic *s)
{
    if (!base_is_consistent(s) || !vectors_are_legal(s) || !lvt_is_legal(s) || !timer_is_legal(s))
        return false;
    if ((s->svr & ~SVR_WRITABLE) || ((s->esr | s->esr_pending) & ~ESR_ALL) || (s->dcr & ~DCR_WRITABLE))
        return false;
    if ((s->ldr & 0xffffff) || (s->dfr & DFR_FIXED) != DFR_FIXED || (s->icr & ~ICR_WRITABLE))
        return false;
    if (!vlapic_x2apic(s) && s->icr_dest > 0xff)
        return false;
    return s->activity <= VLAPIC_WAIT_SIPI && s->sipi_vector <= 0xff && s->lines <= 3 &&
           message_is_legal(&s->out.message);
}
