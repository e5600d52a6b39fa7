/*
 * The trace's points that need more than a line: who runs where, what goes in at an entry, and accesses to devices.
 */
#include "hvm.h"

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
