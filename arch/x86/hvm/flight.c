/*
 * The flight recorder, always on: each vCPU's last exits, where the loop keeps what has run in between; and of each source's latest
 * interrupts a copy of those before them. An exit writes its record as it goes (hvm.h); a copy is made in the loop behind the next exit,
 * where interrupts can be let in.
 */
#include "hvm.h"

#define AT_A_TIME 8u /* exits copied without letting interrupts in */

static uint32_t id_of(const struct vcpu *v)
{
    return METRONOME_VCPU_ID(v->domain->slot->index, v->id);
}

/* What others have had of the pCPU since it was left, or idle last, goes to the exit that waits for its entry. */
void flight_picked(const struct hvm_pcpu *p, struct vcpu *v)
{
    struct flight *f = &v->flight;
    struct metronome_exit_record *e = flight_exit(f, f->at);
    uint64_t from = f->cpu == p->id && f->cpu_ticks > p->idle_ticks ? f->cpu_ticks : p->idle_ticks;
    uint64_t ticks = p->ran_ticks - from + e->other_ticks;

    f->run_ticks = v->counts.run_ticks;
    if (p->ran_last == id_of(v))
        return;
    e->other = (uint16_t)p->ran_last;
    e->other_ticks = !p->ran_last ? 0 : ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
}

/* The place of the source's that is the least late. */
static unsigned least(const uint64_t ticks[METRONOME_LATE_KEPT])
{
    unsigned best = 0;

    for (unsigned i = 1; i < METRONOME_LATE_KEPT; i++)
        best = ticks[i] < ticks[best] ? i : best;
    return best;
}

/* Who reads copies it from its start to its end. */
static void begin(struct late *l, struct metronome_late *to)
{
    __atomic_store_n(&to->begun, ++l->writes, __ATOMIC_SEQ_CST);
}

static void end(const struct late *l, struct metronome_late *to)
{
    __atomic_store_n(&to->done, l->writes, __ATOMIC_RELEASE);
}

static void copy_exits(struct metronome_late *to, struct flight *f)
{
    uint32_t at = f->late_at + sizeof(f->exit) - (METRONOME_LATE_EXITS - 1) * sizeof(f->exit[0]);

    for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++, at += sizeof(f->exit[0])) {
        to->exit[i] = *flight_exit(f, at % sizeof(f->exit));
        if (i % AT_A_TIME == AT_A_TIME - 1)
            hvm_breathe();
    }
}

static void keep(struct vcpu *v, struct metronome_late *to)
{
    const struct latency *l = &v->latency;
    uint64_t offset = v->domain->time.tsc_offset, since = l->due ? l->due : l->posted;

    to->source = l->late_source;
    to->vcpu = v->id;
    to->vector = l->late_vector;
    to->due = l->due ? l->due - offset : 0;
    to->posted = l->posted - offset;
    to->entered = since + l->late - offset;
    to->ticks = l->late;
    copy_exits(to, &v->flight);
}

/* Another vCPU's may have raised the bar meanwhile. */
static void take(struct vcpu *v)
{
    struct domain *d = v->domain;
    unsigned source = v->latency.late_source;
    uint64_t *ticks = d->late.ticks[source];
    unsigned i = least(ticks);
    struct metronome_late *to = &d->latency->late[source][i];

    if (v->latency.late <= ticks[i])
        return;
    begin(&d->late, to);
    keep(v, to);
    end(&d->late, to);
    ticks[i] = v->latency.late;
    __atomic_store_n(&d->late.bar[source], ticks[least(ticks)], __ATOMIC_RELAXED);
}

void flight_ran(struct hvm_pcpu *p, struct vcpu *v)
{
    struct flight *f = &v->flight;

    p->ran_ticks += v->counts.run_ticks - f->run_ticks;
    p->ran_last = id_of(v);
    f->cpu_ticks = p->ran_ticks;
    f->cpu = p->id;
    if (!v->latency.late)
        return;
    spin_lock(&v->domain->late.lock);
    take(v);
    spin_unlock(&v->domain->late.lock);
    v->latency.late = 0;
}

void flight_forget(struct domain *d)
{
    spin_lock(&d->late.lock);
    memset(d->late.ticks, 0, sizeof(d->late.ticks));
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++)
        __atomic_store_n(&d->late.bar[i], 0, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT * METRONOME_LATE_KEPT; i++) {
        struct metronome_late *to = &d->latency->late[0][0] + i;

        begin(&d->late, to);
        to->ticks = 0;
        end(&d->late, to);
        hvm_breathe();
    }
    spin_unlock(&d->late.lock);
}
