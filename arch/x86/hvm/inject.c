/*
 * Injection: which event goes in at this entry, and what to ask of the hardware where one has to wait.
 */
#include "hvm.h"

void inject_again(struct vcpu *v, uint8_t vector, uint8_t type, bool has_error, uint32_t error)
{
    v->event_pending = true;
    v->event_vector = vector;
    v->event_type = type;
    v->event_has_error = has_error;
    v->event_error = error;
}

/* Exceptions 10-13 and 0 are contributory, 14 is a page fault (Intel SDM 3A 6.15, table 6-5). */
static bool contributory(uint8_t vector)
{
    return vector == 0 || (vector >= 10 && vector <= 13);
}

void inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
    if (v->event_pending && v->event_type == EVENT_EXCEPTION) {
        uint8_t first = v->event_vector;

        if (first == 8) {
            exit_triple_fault(v);
            return;
        }
        if ((contributory(first) && contributory(vector)) || (first == 14 && (contributory(vector) || vector == 14))) {
            vector = 8;
            has_error = true;
            error = 0;
        }
    }
    inject_again(v, vector, EVENT_EXCEPTION, has_error, error);
    v->counts.injected[METRONOME_INJECT_EXCEPTION]++;
}

static bool pic_requests(const struct vcpu *v)
{
    return pic_asserts(v) && (v->extint_pending || (v->id == 0 && vlapic_accepts_extint(&v->vlapic)));
}

bool inject_pending(struct vcpu *v)
{
    if (v->event_pending || (v->nmi_pending && !v->nmi_blocked))
        return true;
    return (v->emu.regs.rflags & RFLAGS_IF) && (vlapic_pending(&v->vlapic) >= 0 || pic_requests(v));
}

static struct injection take_event(struct vcpu *v)
{
    struct injection i = {true, v->event_has_error, v->event_vector, v->event_type, v->event_error};

    if (i.type == EVENT_INTR)
        latency_again(&v->latency, i.vector);
    v->event_pending = false;
    return i;
}

static struct injection take_nmi(struct vcpu *v)
{
    struct injection i = {.valid = true, .vector = 2, .type = EVENT_NMI};

    v->nmi_pending--;
    v->nmi_blocked = true;
    v->counts.injected[METRONOME_INJECT_NMI]++;
    return i;
}

/* The local APIC's timer posts by itself: where a tick of it is pending already, the IRR takes no second one. */
void vcpu_book_ticks(struct vcpu *v)
{
    const struct vlapic *a = &v->vlapic;
    struct ledger *l = &v->ticks;
    uint64_t n = a->timer_due - v->ticks_seen, now;

    if (!n)
        return;
    v->ticks_seen = a->timer_due;
    trace_put(TRACE_EMUL_LAPIC_TICK);
    if (!map_has(&a->irr, (uint8_t)l->route))
        ticks_lost(l);
    ticks_due(l, n, vlapic_timer_period(a));
    trace_put(TRACE_TICKS, METRONOME_TICKS_OF_LAPIC, trace_id(v), (uint32_t)n, (uint32_t)l->n.owed);
    if (l->n.pending)
        return;
    now = vtime_tsc(&v->domain->time);
    ticks_signalled(l, now);
    l->route = (uint8_t)a->lvt[LVT_TIMER];
    __atomic_store_n(&v->posted.source[l->route], METRONOME_INJECT_LAPIC_TIMER, __ATOMIC_RELAXED);
    if (map_has(&a->irr, (uint8_t)l->route))
        latency_posted(&v->latency, (uint8_t)l->route, METRONOME_LATENCY_OF_LAPIC, a->timer_due_at - (n - 1) * l->period, now);
}

void vcpu_repay_ticks(struct vcpu *v)
{
    struct vlapic *a = &v->vlapic;
    struct ledger *l = &v->ticks;
    uint64_t now;

    if (!l->n.owed)
        return;
    now = vtime_tsc(&v->domain->time);
    ticks_due(l, 0, vlapic_timer_period(a));
    if (!ticks_next(l, now))
        return;
    l->route = (uint8_t)a->lvt[LVT_TIMER];
    __atomic_store_n(&v->posted.source[l->route], METRONOME_INJECT_LAPIC_TIMER, __ATOMIC_RELAXED);
    if (vlapic_post(a, now, (uint8_t)l->route, false))
        latency_posted(&v->latency, (uint8_t)l->route, METRONOME_LATENCY_OF_LAPIC, now, now);
}

void inject_self_ipi(struct vcpu *v, unsigned reg, uint64_t value, uint64_t now)
{
    bool self = reg == APIC_SELF_IPI || ((value >> 18 & 3) == SHORTHAND_SELF && (value >> 8 & 7) == DELIVER_FIXED);

    if (!self || !map_has(&v->vlapic.irr, (uint8_t)value))
        return;
    __atomic_store_n(&v->posted.source[(uint8_t)value], METRONOME_INJECT_IPI, __ATOMIC_RELAXED);
    latency_posted(&v->latency, (uint8_t)value, METRONOME_LATENCY_OF_IPI, 0, now);
}

/* Who posted it; what the local APIC's own pins and errors request (delivery mode 000) nobody has posted. */
static enum metronome_inject_source source_of(const struct vcpu *v, uint8_t vector)
{
    for (unsigned i = LVT_LINT0; i <= LVT_ERROR; i++)
        if ((v->vlapic.lvt[i] & (LVT_MASKED | 0x7ff)) == vector)
            return METRONOME_INJECT_LAPIC_LOCAL;
    return __atomic_load_n(&v->posted.source[vector], __ATOMIC_RELAXED);
}

static uint8_t acknowledge(struct vcpu *v)
{
    uint8_t vector;

    vcpu_book_ticks(v);
    vector = (uint8_t)vlapic_ack(&v->vlapic, 0);
    v->counts.injected[source_of(v, vector)]++;
    latency_acknowledged(&v->latency, vector);
    chipset_acknowledged(v->domain, vector);
    if (v->ticks.n.pending && v->ticks.route == vector) {
        ticks_taken(&v->ticks);
        if (v->ticks.n.owed) {
            vcpu_repay_ticks(v);
            vcpu_arm_timer(v);
        }
    }
    return vector;
}

static struct injection take_interrupt(struct vcpu *v)
{
    struct injection i = {.type = EVENT_INTR};

    if (pic_requests(v)) {
        int vector = chipset_intack(v);

        v->extint_pending = false;
        if (vector >= 0) {
            latency_acknowledged(&v->latency, (uint8_t)vector);
            i.valid = true;
            i.vector = (uint8_t)vector;
            v->counts.injected[METRONOME_INJECT_PIC]++;
            return i;
        }
    }
    if (vlapic_pending(&v->vlapic) >= 0) {
        i.valid = true;
        i.vector = acknowledge(v);
    }
    return i;
}

struct injection inject_next(struct vcpu *v, struct injectability can, int *want)
{
    bool nmi = v->nmi_pending && !v->nmi_blocked;
    bool interrupt = vlapic_pending(&v->vlapic) >= 0 || pic_requests(v);
    struct injection i = {.valid = false};

    if (v->event_pending) {
        i = take_event(v);
    } else if (nmi && !can.shadow) {
        i = take_nmi(v);
        nmi = false;
    } else if (interrupt && can.interrupts) {
        hvm_breathe();
        i = take_interrupt(v);
        vcpu_drain(v);
        nmi = v->nmi_pending && !v->nmi_blocked;
        interrupt = vlapic_pending(&v->vlapic) >= 0 || pic_requests(v);
    }
    /* Taking it may have posted to this very vCPU, behind its last look, and with ON set others do not kick. What the drain
     * leaves makes it leave again at once; and so does an NMI that must wait for the event. */
    *want = __atomic_load_n(&v->posted.on, __ATOMIC_SEQ_CST) || (nmi && i.valid) ? WANT_EXIT : 0;
    if (nmi || interrupt)
        *want |= can.shadow && !i.valid ? WANT_STEP : interrupt ? WANT_WINDOW : 0;
    if (!interrupt && vlapic_highest_irr(&v->vlapic) >= 0)
        *want |= WANT_TPR;
    if (trace_on(TRACE_HVM_INJ_VIRQ) && (i.valid || *want))
        trace_injection(v, &i, *want);
    return i;
}
