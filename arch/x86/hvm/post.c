/*
 * Posting between pCPUs, lock-free. Sender: TMR, then PIR or work, then test-and-set ON; only who finds it clear kicks.
 * Owner: clear ON, then take work and PIR; publish IN_GUEST or IDLE, full fence, look at ON again, then enter or halt.
 */
#include "hvm.h"

void vcpu_look_at(struct place at)
{
    __atomic_fetch_or(&hvm_pcpus[at.cpu]->wake, 1ull << at.local, __ATOMIC_SEQ_CST);
    hvm_kick(at.cpu); /* who runs on this pCPU looks at the mask before each entry */
}

void vcpu_look(struct vcpu *v)
{
    vcpu_look_at(vcpu_place(v));
}

/* In every other state it drains before it runs anyway; one that waits for its turn has it soon. */
static void kick(struct vcpu *v)
{
    uint32_t state = __atomic_load_n(&v->state, __ATOMIC_SEQ_CST);
    unsigned cpu = vcpu_place(v).cpu;

    if (state == VCPU_IDLE || state == VCPU_OFF || (state == VCPU_RUNNABLE && sched_shared(hvm_pcpus[cpu])))
        vcpu_look(v);
    else if (state == VCPU_IN_GUEST)
        hvm_kick(cpu);
}

static void ring(struct vcpu *v)
{
    if (!__atomic_exchange_n(&v->posted.on, 1, __ATOMIC_SEQ_CST))
        kick(v);
}

void vcpu_post(struct vcpu *v, uint8_t vector, bool level, enum metronome_inject_source source)
{
    struct posted *p = &v->posted;
    uint64_t bit = 1ull << (vector & 63);
    uint64_t *tmr = &p->tmr[vector >> 6];

    __atomic_store_n(&p->source[vector], (uint8_t)source, __ATOMIC_RELAXED);
    trace_put(TRACE_POST, trace_id(v), vector | level << 8 | (uint32_t)source << 16);
    if (level)
        __atomic_fetch_or(tmr, bit, __ATOMIC_RELAXED);
    else if (__atomic_load_n(tmr, __ATOMIC_RELAXED) & bit)
        __atomic_fetch_and(tmr, ~bit, __ATOMIC_RELAXED);
    __atomic_fetch_or(&p->pir[vector >> 6], bit, __ATOMIC_RELEASE);
    ring(v);
}

void vcpu_post_work(struct vcpu *v, uint32_t work)
{
    __atomic_fetch_or(&v->posted.work, work, __ATOMIC_RELEASE);
    ring(v);
}

/* Of a vCPU that stands still. In the drain's order: what is posted meanwhile is there or gone, but not there without ON.
 * TMR stays: each post sets it anew, perhaps just now. */
void vcpu_discard_posts(struct vcpu *v)
{
    struct posted *p = &v->posted;

    __atomic_exchange_n(&p->on, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&p->work, 0, __ATOMIC_RELAXED);
    for (unsigned w = 0; w < 4; w++)
        __atomic_store_n(&p->pir[w], 0, __ATOMIC_RELAXED);
}

/* The PIC's INT as LINT0 sees it: at least one edge for each that has risen since the last look. */
static void follow_lint0(struct vcpu *v, uint64_t now)
{
    const struct line *line = &v->domain->chipset.vpic.out.line[0];
    uint64_t rises = __atomic_load_n(&line->rises, __ATOMIC_ACQUIRE);

    if (rises != v->lint0_rises) {
        v->lint0_rises = rises;
        vlapic_set_line(&v->vlapic, now, 0, false);
        vlapic_set_line(&v->vlapic, now, 0, true);
    }
    vlapic_set_line(&v->vlapic, now, 0, line->level);
}

static void do_init(struct vcpu *v, uint64_t now)
{
    vcpu_book_ticks(v);
    vlapic_init(&v->vlapic, now);
    ticks_lost(&v->ticks);
    ticks_forget(&v->ticks);
    vendor->vcpu_reset(v, false, 0);
    v->emu.regs.cpl = 0;
    ioreq_cancel(v);
    v->event_pending = v->nmi_blocked = v->extint_pending = v->halted = false;
    v->nmi_pending = 0;
    vcpu_arm_timer(v);
}

/* INIT and SIPI replace state that the CPU itself holds while the guest runs: they wait until the vCPU has left. So does an
 * NMI that has come behind the INIT. */
static uint32_t put_off(struct vcpu *v, uint32_t work)
{
    uint32_t later = work & (WORK_INIT | WORK_SIPI | (work & WORK_INIT ? WORK_NMI : 0));

    if (!later || v->state != VCPU_IN_GUEST)
        return work;
    __atomic_fetch_or(&v->posted.work, later, __ATOMIC_RELAXED);
    __atomic_store_n(&v->posted.on, 1, __ATOMIC_SEQ_CST);
    v->state = VCPU_RUNNABLE;
    this_hvm()->resched = true;
    return work & ~later;
}

static void do_work(struct vcpu *v, uint32_t work)
{
    uint64_t now = vtime_tsc(&v->domain->time);

    work = put_off(v, work);
    if (work & WORK_EXTINT)
        v->extint_pending = true;
    if (work & WORK_LINT0)
        follow_lint0(v, now);
    if (work & WORK_LINT1) {
        vlapic_set_line(&v->vlapic, now, 1, true);
        vlapic_set_line(&v->vlapic, now, 1, false);
    }
    if (work & WORK_INIT)
        do_init(v, now);
    if (work & WORK_NMI) /* behind INIT, as sent: deliver() takes back those from before it */
        v->nmi_pending = 1;
    if ((work & WORK_SIPI) && vlapic_sipi(&v->vlapic, now, v->posted.sipi_vector))
        vendor->vcpu_reset(v, true, v->posted.sipi_vector);
    fabric_take_apic_output(v);
}

void vcpu_drain(struct vcpu *v)
{
    struct posted *p = &v->posted;
    uint64_t now;
    uint32_t work;

    if (!__atomic_load_n(&p->on, __ATOMIC_RELAXED))
        return;
    __atomic_exchange_n(&p->on, 0, __ATOMIC_SEQ_CST);
    work = __atomic_load_n(&p->work, __ATOMIC_RELAXED) ? __atomic_exchange_n(&p->work, 0, __ATOMIC_ACQUIRE) : 0;
    if (work)
        do_work(v, work);
    now = vtime_tsc(&v->domain->time);
    for (unsigned w = 0; w < 4; w++) {
        uint64_t bits = __atomic_load_n(&p->pir[w], __ATOMIC_RELAXED);

        if (!bits)
            continue;
        bits = __atomic_exchange_n(&p->pir[w], 0, __ATOMIC_ACQUIRE);
        for (; bits; bits &= bits - 1) {
            unsigned bit = (unsigned)__builtin_ctzll(bits);
            bool level = __atomic_load_n(&p->tmr[w], __ATOMIC_RELAXED) >> bit & 1;

            if (!vlapic_post(&v->vlapic, now, (uint8_t)(w * 64 + bit), level))
                v->latency.stamp[w * 64 + bit].posted = 0;
        }
    }
}
