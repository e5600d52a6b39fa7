/*
 * Who runs: vCPUs live on one pCPU each; those that can run take turns of SLICE_US. A vCPU alone on its pCPU owns it.
 */
#include "hvm.h"

#define SLICE_US 5000u

static void set_slice(struct hvm_pcpu *p)
{
    bool shared = (p->runnable & (p->runnable - 1)) != 0;

    if (!shared)
        deadline_set(&p->deadlines, &p->slice, DEADLINE_UNSET);
    else if (p->slice.when == DEADLINE_UNSET)
        deadline_arm(&p->slice, rdtsc() + tsc_hz / 1000000 * SLICE_US);
}

unsigned sched_place(void)
{
    unsigned best = pcpu_count - 1;

    for (unsigned i = pcpu_count; i-- > 0;) {
        unsigned load = 0, least = 0;

        for (unsigned k = 0; k < 64; k++) {
            load += hvm_pcpus[i]->local[k] != NULL;
            least += hvm_pcpus[best]->local[k] != NULL;
        }
        if (load < least)
            best = i;
    }
    return best;
}

bool sched_room(unsigned vcpus)
{
    unsigned places = 0;

    for (unsigned i = 0; i < pcpu_count; i++)
        for (unsigned k = 0; k < 64; k++)
            places += hvm_pcpus[i]->local[k] == NULL;
    return vcpus <= places;
}

/* On CPU 0, the only one that fills places. */
void sched_add(struct vcpu *v, unsigned cpu)
{
    struct hvm_pcpu *p = hvm_pcpus[cpu];
    unsigned i = 0;

    while (i < 64 && p->local[i])
        i++;
    BUG_ON(i == 64); /* sched_room() has counted them, and sched_place() found the emptiest */
    v->cpu = cpu;
    v->local = i;
    __atomic_store_n(&p->local[i], v, __ATOMIC_RELEASE);
}

void sched_remove(struct vcpu *v)
{
    struct hvm_pcpu *p = hvm_pcpus[v->cpu];
    uint64_t bit = 1ull << v->local;

    p->runnable &= ~bit;
    p->io_waiting &= ~bit;
    __atomic_fetch_and(&p->wake, ~bit, __ATOMIC_SEQ_CST);
    __atomic_store_n(&p->local[v->local], NULL, __ATOMIC_SEQ_CST);
}

void sched_wake(struct vcpu *v)
{
    struct hvm_pcpu *p = hvm_pcpus[v->cpu];

    v->state = VCPU_RUNNABLE;
    p->runnable |= 1ull << v->local;
    p->io_waiting &= ~(1ull << v->local);
    set_slice(p);
}

void sched_block(struct vcpu *v, enum vcpu_state state)
{
    struct hvm_pcpu *p = hvm_pcpus[v->cpu];

    p->runnable &= ~(1ull << v->local);
    if (state == VCPU_WAIT_IOREQ)
        p->io_waiting |= 1ull << v->local;
    __atomic_store_n(&v->state, state, __ATOMIC_SEQ_CST);
    /* What was posted before the state could be seen did not kick. */
    if ((state == VCPU_IDLE || state == VCPU_OFF) && __atomic_load_n(&v->posted.on, __ATOMIC_SEQ_CST))
        sched_wake(v);
}

struct vcpu *sched_pick(struct hvm_pcpu *p)
{
    uint64_t after = p->runnable & ~((2ull << p->last) - 1);

    p->resched = false;
    if (!p->runnable)
        return NULL;
    p->last = (unsigned)__builtin_ctzll(after ? after : p->runnable);
    set_slice(p);
    return p->local[p->last];
}
