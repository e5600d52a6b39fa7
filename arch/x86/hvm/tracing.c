/*
 * The trace's points that need more than a line: who runs where, what goes in at an entry, accesses to devices, and timers that
 * a guest starts and stops.
 */
#include "hvm.h"
#include "wide.h"

void trace_runstate(struct vcpu *v, unsigned runstate)
{
    if (v->runstate == runstate)
        return;
    if (trace_on(TRACE_SCHED_RUNSTATE))
        trace_record(TRACE_SCHED_RUNSTATE | v->runstate << 8 | runstate << 4, trace_id(v));
    v->runstate = runstate;
}

static void trace_idle(const struct hvm_pcpu *p, unsigned from, unsigned to)
{
    if (trace_on(TRACE_SCHED_RUNSTATE))
        trace_record(TRACE_SCHED_RUNSTATE | from << 8 | to << 4, p->id | TRACE_IDLE_DOMAIN << 16);
}

/* What has been stopped for another one can run; what has blocked has said so. */
static void trace_stop(const struct hvm_pcpu *p)
{
    if (!p->traced)
        trace_idle(p, RUNSTATE_RUNNING, RUNSTATE_RUNNABLE);
    else if (p->traced->runstate == RUNSTATE_RUNNING)
        trace_runstate(p->traced, RUNSTATE_RUNNABLE);
}

void trace_pick(struct hvm_pcpu *p, struct vcpu *v)
{
    bool known = p->trace_settings == trace_settings;

    /* It may have blocked, and been woken, since it was picked last. */
    if (p->traced == v && known && (!v || v->runstate == RUNSTATE_RUNNING))
        return;
    if (known)
        trace_stop(p);
    else if (v)
        v->runstate = RUNSTATE_RUNNABLE; /* a reader that begins now does not know that it runs */
    p->traced = v;
    p->trace_settings = trace_settings;
    if (trace_groups)
        trace_running(v ? v->domain->slot->index | v->id << 16 : TRACE_IDLE_DOMAIN | p->id << 16);
    if (v)
        trace_runstate(v, RUNSTATE_RUNNING);
    else
        trace_idle(p, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING);
}

void trace_forget(struct hvm_pcpu *p, struct vcpu *v)
{
    if (p->traced != v)
        return;
    trace_stop(p);
    p->traced = NULL;
    trace_idle(p, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING);
}

bool trace_set(uint32_t mask)
{
    if (!trace_set_mask(mask))
        return false;
    for (unsigned i = 0; i < pcpu_count; i++)
        hvm_kick(i); /* so that each says who runs */
    return true;
}

/* Exceptions have been waited for by nobody, and software interrupts are the guest's own. */
static void trace_event(const struct vcpu *v, const struct injection *i)
{
    if (i->type == EVENT_EXCEPTION)
        trace_record(TRACE_HVM_INJ_EXC, i->vector, i->error);
    else if (v->latency.entering & LATENCY_AGAIN)
        trace_record(TRACE_HVM_REINJ_VIRQ, i->vector);
    else
        trace_record(TRACE_HVM_INJ_VIRQ, i->vector, 0);
}

static void trace_window(const struct vcpu *v, const struct injection *i)
{
    enum { SOURCE_OF_PIC = 1, SOURCE_OF_LAPIC, SOURCE_OF_NMI };
    int vector = vlapic_pending(&v->vlapic);
    uint32_t source = v->nmi_pending ? SOURCE_OF_NMI : vector >= 0 ? SOURCE_OF_LAPIC : SOURCE_OF_PIC;

    trace_record(TRACE_HVM_INTR_WINDOW, source == SOURCE_OF_LAPIC ? (uint32_t)vector : 0, source, i->valid ? i->vector : UINT32_MAX);
}

void trace_injection(const struct vcpu *v, const struct injection *i, int want)
{
    if (i->valid)
        trace_event(v, i);
    if (want & (WANT_WINDOW | WANT_STEP))
        trace_window(v, i);
}

void trace_io(bool port, bool write, uint64_t address, uint64_t value)
{
    uint32_t event = (port ? TRACE_HVM_IOPORT_READ : TRACE_HVM_IOMEM_READ) + (write ? TRACE_HVM_IOPORT_WRITE - TRACE_HVM_IOPORT_READ : 0);

    if (address >> 32)
        trace_record(event | TRACE_64, TRACE_LONG(address), value);
    else
        trace_record(event, address, value);
}

/* ---- Timers, as a write has left them ---- */

#define NS_PER_MASTER_TICK_NUM 4400u /* 1e9 / (157500000/11) */
#define NS_PER_MASTER_TICK_DEN 63u

static uint64_t ns_of_master(uint64_t ticks)
{
    return muldiv_u64(ticks, NS_PER_MASTER_TICK_NUM, NS_PER_MASTER_TICK_DEN);
}

/* `was`: the deadline before; one that has passed is not the write's doing. */
static void trace_line_timer(uint32_t start, uint32_t stop, uint64_t was, uint64_t due, uint64_t now, uint64_t period)
{
    if (due == was || was <= now)
        return;
    if (due == NEVER)
        trace_record(stop);
    else
        trace_record(start, ns_of_master(due - now), ns_of_master(period));
}

/* One whose flag waits to be read goes on after that. */
static bool rtc_stands(const struct rtc *s)
{
    enum { REG_B = 11, INTERRUPTS = 0x70 };

    return !(s->cmos[REG_B] & INTERRUPTS);
}

static void trace_comparator(struct chipset *c, unsigned n)
{
    enum { ENABLE = 1, INTERRUPTS = 4, OF_32_BITS = 0x100 };
    const struct hpet_timer *t = &c->hpet.timer[n];
    bool runs = (c->hpet.config & ENABLE) && (t->config & INTERRUPTS);
    uint64_t left = t->comparator - c->hpet.counter;
    uint32_t line = hpet_legacy(&c->hpet) && n < 2 ? n * 8 : hpet_route(&c->hpet, n);

    left = ns_of_master(t->config & OF_32_BITS ? (uint32_t)left : left);
    if (runs)
        trace_record(TRACE_EMUL_HPET_START, n, line, TRACE_LONG(left), TRACE_LONG(ns_of_master(hpet_period(&c->hpet, n))));
    else if (c->hpet_traced >> n & 1)
        trace_record(TRACE_EMUL_HPET_STOP, n);
    c->hpet_traced = (c->hpet_traced & ~(1u << n)) | (uint32_t)runs << n;
}

void trace_chipset_timers(struct chipset *c, uint64_t now, unsigned part)
{
    uint64_t rtc = rtc_deadline(&c->rtc);

    if (part == PART_PIT)
        trace_line_timer(TRACE_EMUL_PIT_START, TRACE_EMUL_PIT_STOP, c->deadlines[DEADLINE_PIT], vpit_deadline(&c->vpit), now, vpit_period(&c->vpit));
    else if (part == PART_RTC && (rtc != NEVER || rtc_stands(&c->rtc)))
        trace_line_timer(TRACE_EMUL_RTC_START, TRACE_EMUL_RTC_STOP, c->deadlines[DEADLINE_RTC], rtc, now, rtc_period(&c->rtc));
}

void trace_hpet_timers(struct chipset *c, unsigned offset)
{
    enum { CONFIG = 0x10, TIMERS = 0x100, TIMER_BYTES = 0x20, TIMER_FSB = 0x10 };

    for (unsigned n = 0; n < HPET_TIMERS; n++)
        if (offset / 8 == CONFIG / 8 || (offset >= TIMERS && (offset - TIMERS) / TIMER_BYTES == n && offset % TIMER_BYTES < TIMER_FSB))
            trace_comparator(c, n);
}

/* `reg`: as in its page; of the deadline's MSR the initial count's. */
void trace_apic_timer(struct vcpu *v, unsigned reg, uint64_t now)
{
    const struct vlapic *a = &v->vlapic;
    uint64_t due = vlapic_deadline(a), hz = v->domain->time.tsc_hz;
    bool runs = due != NEVER;

    if (reg != APIC_LVT_TIMER && reg != APIC_TIMER_COUNT && reg != APIC_TIMER_DIVISOR)
        return;
    if (runs)
        trace_record(TRACE_EMUL_LAPIC_START, TRACE_LONG(muldiv_u64(due > now ? due - now : 0, 1000000000, hz)),
                     TRACE_LONG(muldiv_u64(vlapic_timer_period(a), 1000000000, hz)), (uint8_t)a->lvt[LVT_TIMER]);
    else if (v->timer_traced)
        trace_record(TRACE_EMUL_LAPIC_STOP);
    v->timer_traced = runs;
}
