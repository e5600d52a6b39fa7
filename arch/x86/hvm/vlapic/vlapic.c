/* The local APIC's core: reset, accepting and delivering interrupts, errors, local interrupt pins. See vlapic.h. */
#include "internal.h"

/* The state after power-up, INIT or a global disable, of everything but IDs, APIC_BASE and TSC (SDM 11.4.7.1). */
void vlapic_reset_registers(struct vlapic *s)
{
    static const struct vector_map empty;
    s->irr = empty;
    s->isr = empty;
    for (unsigned i = 0; i < VECTOR_WORDS; i++)
        s->tmr[i] = 0;
    s->tpr = s->ppr = 0;
    s->svr = 0xff;
    s->esr = s->esr_pending = 0;
    s->ldr = 0;
    s->dfr = ~0u;
    s->icr = s->icr_dest = 0;
    s->tmict = s->dcr = 0;
    s->tsc_deadline = 0;
    s->timer_expiry = NEVER;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        s->lvt[i] = LVT_MASKED;
    s->map_generation++;
}

void vlapic_reset(struct vlapic *s, uint64_t now, uint32_t apic_id, bool bsp)
{
    static const struct vlapic zero;
    uint32_t generation = s->map_generation;
    (void)now;
    *s = zero;
    s->map_generation = generation;
    s->apic_base = 0xfee00000u | APIC_BASE_EN | (bsp ? APIC_BASE_BSP : 0);
    s->apic_id = apic_id;
    s->xapic_id = apic_id & 0xff;
    s->activity = bsp ? VLAPIC_RUNNING : VLAPIC_WAIT_SIPI;
    vlapic_configure(s, 40, VLAPIC_X2APIC | VLAPIC_TSC_DEADLINE);
    vlapic_reset_registers(s);
}

void vlapic_configure(struct vlapic *s, unsigned phys_bits, uint32_t features)
{
    s->phys_bits = phys_bits < 32 ? 32 : phys_bits > 52 ? 52 : phys_bits;
    s->features = features & VLAPIC_FEATURES;
}

/* SDM 11.4.7.3 and 11.12.5: ID and mode survive an INIT; a BSP starts again at the reset vector, others wait. */
void vlapic_init(struct vlapic *s, uint64_t now)
{
    (void)now;
    vlapic_reset_registers(s);
    s->activity = (s->apic_base & APIC_BASE_BSP) ? VLAPIC_RUNNING : VLAPIC_WAIT_SIPI;
    s->sipi_vector = 0;
}

bool vlapic_sipi(struct vlapic *s, uint64_t now, uint8_t vector)
{
    (void)now;
    if (s->activity != VLAPIC_WAIT_SIPI)
        return false;
    s->sipi_vector = vector;
    s->activity = VLAPIC_RUNNING;
    return true;
}

void vlapic_accept(struct vlapic *s, uint8_t vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);
    map_set(&s->irr, vector);
    if (level)
        s->tmr[vector >> 5] |= bit;
    else
        s->tmr[vector >> 5] &= ~bit;
}

/*
 * Logs an error. The interrupt fires on the first one since ESR was written; its own illegal vector is logged here,
 * without coming back (XSA-462).
 */
void vlapic_error(struct vlapic *s, uint32_t bit)
{
    bool armed = s->esr_pending == 0;
    uint32_t lvt = s->lvt[LVT_ERROR];
    s->esr_pending |= bit;
    if (!armed || (lvt & LVT_MASKED))
        return;
    if ((uint8_t)lvt < 16)
        s->esr_pending |= ESR_RECEIVE_VECTOR;
    else
        vlapic_accept(s, (uint8_t)lvt, false);
}

bool vlapic_post(struct vlapic *s, uint64_t now, uint8_t vector, bool level)
{
    (void)now;
    if (!(s->svr & SVR_ENABLE))
        return false;
    if (vector < 16) {
        vlapic_error(s, ESR_RECEIVE_VECTOR);
        return false;
    }
    vlapic_accept(s, vector, level);
    return true;
}

int vlapic_ack(struct vlapic *s, uint64_t now)
{
    int v = vlapic_pending(s);
    (void)now;
    if (v < 0)
        return (int)(s->svr & 0xff);
    map_clear(&s->irr, (uint8_t)v);
    map_set(&s->isr, (uint8_t)v);
    s->ppr = (uint32_t)v & 0xf0; /* above the old PPR, so above TPR and every other ISR bit */
    return v;
}

/* The rest of an EOI of a level-triggered vector (SDM 11.8.5): broadcast it, and let LINT0 interrupt again. */
void vlapic_eoi_level(struct vlapic *s, uint8_t vector)
{
    uint32_t lint0 = s->lvt[LVT_LINT0];
    if (!(s->svr & SVR_SUPPRESS_EOI)) {
        struct bus_message m = {.kind = BUS_EOI, .vector = vector};
        s->out.message = m;
    }
    if ((lint0 & LVT_REMOTE_IRR) && (uint8_t)lint0 == vector) {
        s->lvt[LVT_LINT0] &= ~LVT_REMOTE_IRR;
        vlapic_lint0_level(s);
    }
}

/* Is the pin asserted, after its polarity bit? */
static bool lint_asserted(const struct vlapic *s, unsigned line)
{
    bool high = ((s->lines >> line) & 1) != 0;
    return high != ((s->lvt[LVT_LINT0 + line] & LVT_ACTIVE_LOW) != 0);
}

/* LINT0, fixed and level-triggered: interrupts while it is asserted and its last interrupt has had its EOI. */
void vlapic_lint0_level(struct vlapic *s)
{
    uint32_t lvt = s->lvt[LVT_LINT0];
    if ((lvt & (LVT_MASKED | LVT_REMOTE_IRR | LVT_LEVEL)) != LVT_LEVEL || lvt_delivery(lvt) != DELIVER_FIXED)
        return;
    if (lint_asserted(s, 0) && vlapic_post(s, 0, (uint8_t)lvt, true))
        s->lvt[LVT_LINT0] |= LVT_REMOTE_IRR;
}

/* An edge at an LVT entry: delivers as its mode says. ExtINT is vlapic_accepts_extint()'s. */
static void lvt_edge(struct vlapic *s, uint32_t lvt)
{
    if (lvt & LVT_MASKED)
        return;
    switch (lvt_delivery(lvt)) {
    case DELIVER_FIXED:
        vlapic_post(s, 0, (uint8_t)lvt, false);
        break;
    case DELIVER_SMI:
        s->out.smi++;
        break;
    case DELIVER_NMI:
        s->out.nmi++;
        break;
    case DELIVER_INIT:
        s->out.init++;
        break;
    default:
        break;
    }
}

void vlapic_set_line(struct vlapic *s, uint64_t now, unsigned line, bool level)
{
    uint32_t bit, lvt;
    bool was;
    (void)now;
    line &= 1;
    bit = 1u << line;
    lvt = s->lvt[LVT_LINT0 + line];
    was = lint_asserted(s, line);
    s->lines = level ? s->lines | bit : s->lines & ~bit;
    if (!(s->apic_base & APIC_BASE_EN)) { /* the pins are plain INTR and NMI (SDM 11.4.3) */
        if (line == 1 && level && !was)
            s->out.nmi++;
        return;
    }
    if (line == 0 && (lvt & LVT_LEVEL) && lvt_delivery(lvt) == DELIVER_FIXED)
        vlapic_lint0_level(s);
    else if (lint_asserted(s, line) && !was)
        lvt_edge(s, lvt);
}

bool vlapic_accepts_extint(const struct vlapic *s)
{
    uint32_t lvt = s->lvt[LVT_LINT0];
    if (!(s->apic_base & APIC_BASE_EN))
        return true;
    return !(lvt & LVT_MASKED) && lvt_delivery(lvt) == DELIVER_EXTINT;
}

void vlapic_raise(struct vlapic *s, uint64_t now, unsigned entry)
{
    (void)now;
    if (entry != LVT_THERMAL && entry != LVT_PMC && entry != LVT_CMCI)
        return;
    lvt_edge(s, s->lvt[entry]);
    if (entry == LVT_PMC)
        s->lvt[entry] |= LVT_MASKED;
}
