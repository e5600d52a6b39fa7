/*
 * Who runs. vCPUs live on one pCPU each, and one that is alone there owns it. Where several can run:
 *
 *   - Next is the one that has had the least time (`had`), for SLICE_US. Who sleeps saves no more than a slice up.
 *   - What an interrupt wakes, or sends to a vCPU that waits for its turn, and a deadline that is due are urgent: the vCPU counts as
 *     having had CREDIT_US less until it has run for URGENT_US. It runs at once; if it is ahead of the others by more than that,
 *     as soon as they have caught up. Of several such, the one goes first that has had the least time as such (`urgent_had`).
 *   - A vCPU that spins (PAUSE) lets another one go first.
 *   - A pCPU with more than one gives one to a pCPU that has none; and one each SPREAD_US to a pCPU that has less of them.
 *
 * So no vCPU that can run is ahead of another one on its pCPU by more than CREDIT_US and two slices, and none waits for longer than
 * that makes with all others.
 */
#include "hvm.h"

#define SLICE_US 2000u
#define URGENT_US 20u
#define SAVED_US 100u
#define LEAST_US 5u
#define CREDIT_US 4000u
#define SPREAD_US 20000u

static uint64_t idle_pcpus; /* those that halt, or are about to */

static int64_t ticks_of(unsigned us)
{
    return (int64_t)(tsc_hz / 1000000 * us);
}

static unsigned bits(uint64_t mask)
{
    unsigned n = 0;

    for (; mask; mask &= mask - 1)
        n++;
    return n;
}

static bool is_urgent(const struct vcpu *v)
{
    return v->turn.had < v->turn.urgent_until;
}

static int64_t rank(const struct vcpu *v)
{
    return v->turn.had - (is_urgent(v) ? ticks_of(CREDIT_US) : 0);
}

/* Is `v` to run rather than `than`? */
static bool comes_first(const struct vcpu *v, const struct vcpu *than)
{
    int64_t ahead = v->turn.had - than->turn.had;
    bool alike = is_urgent(v) && is_urgent(than) && ahead < ticks_of(CREDIT_US) && -ahead < ticks_of(CREDIT_US);

    return alike ? v->turn.urgent_had < than->turn.urgent_had : rank(v) < rank(than);
}

static bool goes_on(const struct hvm_pcpu *p, uint64_t now)
{
    return p->runnable >> p->last & 1 && !p->yielded && now < p->slice_end;
}

/* Within its slice the one that ran makes way for urgent ones only; if it yields, for any. */
static struct vcpu *next(struct hvm_pcpu *p, uint64_t now)
{
    bool stays = goes_on(p, now);
    struct vcpu *best = stays ? p->local[p->last] : NULL;
    uint64_t others = p->runnable & ~(1ull << p->last);

    for (uint64_t m = p->yielded && others ? others : p->runnable; m; m &= m - 1) {
        struct vcpu *v = p->local[__builtin_ctzll(m)];

        if (!best || ((!stays || is_urgent(v)) && comes_first(v, best)))
            best = v;
        hvm_breathe();
    }
    return best;
}

/* Until its slice is over, or it has had enough for an urgent one to come first. */
static uint64_t may_run_until(const struct hvm_pcpu *p, const struct vcpu *v, uint64_t now)
{
    uint64_t until = p->slice_end;

    for (uint64_t m = p->runnable & ~(1ull << p->last); m; m &= m - 1) {
        const struct vcpu *other = p->local[__builtin_ctzll(m)];
        int64_t left = is_urgent(v) && comes_first(v, other) ? v->turn.urgent_until - v->turn.had
                                                             : rank(other) - rank(v) + ticks_of(LEAST_US);

        if (left < ticks_of(LEAST_US))
            left = ticks_of(LEAST_US);

        if (is_urgent(other) && now + (uint64_t)left < until)
            until = now + (uint64_t)left;
        hvm_breathe();
    }
    return until;
}

static void begin_slice(struct hvm_pcpu *p, const struct vcpu *v, uint64_t now)
{
    int64_t length = is_urgent(v) ? v->turn.urgent_until - v->turn.had : ticks_of(SLICE_US);

    if (v->place.local != p->last || now >= p->slice_end || p->yielded)
        p->slice_end = now + (uint64_t)length;
    p->last = v->place.local;
    p->yielded = false;
    if (sched_shared(p))
        deadline_arm(&p->slice, may_run_until(p, v, now) + p->advance); /* timers fire early by that */
    else
        deadline_set(&p->deadlines, &p->slice, DEADLINE_UNSET);
}

struct vcpu *sched_pick(struct hvm_pcpu *p)
{
    uint64_t now = rdtsc();
    struct vcpu *v;

    p->resched = false;
    if (!p->runnable)
        return NULL;
    v = next(p, now);
    if (is_urgent(v) && v->turn.urgent_had > p->urgent_had)
        p->urgent_had = v->turn.urgent_had;
    begin_slice(p, v, now);
    v->counts.steal_ticks += now - v->turn.since;
    v->turn.since = now;
    return v;
}

void sched_ran(struct hvm_pcpu *p, struct vcpu *v)
{
    uint64_t now = rdtsc();
    int64_t ran = (int64_t)(now - v->turn.since), urgent = v->turn.urgent_until - v->turn.had, least;

    if (urgent > 0)
        v->turn.urgent_had += ran < urgent ? ran : urgent;
    least = v->turn.had += ran;
    v->counts.run_ticks += (uint64_t)ran;
    v->turn.since = now;
    for (uint64_t m = p->runnable; m; m &= m - 1) {
        const struct vcpu *other = p->local[__builtin_ctzll(m)];

        least = other->turn.had < least ? other->turn.had : least;
        hvm_breathe();
    }
    p->least_had = least > p->least_had ? least : p->least_had;
}

/* Who was not urgent for long saves little of it up. */
static int64_t urgent_had_from_now(const struct vcpu *v)
{
    int64_t least = hvm_pcpus[v->place.cpu]->urgent_had - ticks_of(SAVED_US);

    return v->turn.urgent_had > least ? v->turn.urgent_had : least;
}

bool sched_comes_before(const struct vcpu *v, const struct vcpu *than)
{
    return v->domain != than->domain && v->turn.had - than->turn.had < ticks_of(CREDIT_US) &&
           urgent_had_from_now(v) < than->turn.urgent_had;
}

void sched_urge(struct vcpu *v)
{
    v->turn.urgent_had = urgent_had_from_now(v);
    v->turn.urgent_until = v->turn.had + ticks_of(URGENT_US);
}

void sched_pause(struct hvm_pcpu *p)
{
    p->yielded = p->resched = true;
}

/* ---- Places ---- */

unsigned sched_place(void)
{
    unsigned best = pcpu_count - 1;

    for (unsigned i = pcpu_count; i-- > 0;)
        if (bits(hvm_pcpus[i]->taken) < bits(hvm_pcpus[best]->taken))
            best = i;
    return best;
}

bool sched_room(unsigned vcpus)
{
    unsigned places = 0;

    for (unsigned i = 0; i < pcpu_count; i++)
        places += 64 - bits(hvm_pcpus[i]->taken);
    return vcpus <= places;
}

#define NO_PLACE 64u

/* From any pCPU. */
static unsigned take_place(struct hvm_pcpu *p)
{
    uint64_t taken = __atomic_load_n(&p->taken, __ATOMIC_RELAXED), first;

    do {
        first = ~taken & (taken + 1);
        if (!first)
            return NO_PLACE;
    } while (!__atomic_compare_exchange_n(&p->taken, &taken, taken | first, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return (unsigned)__builtin_ctzll(first);
}

static void settle(struct vcpu *v, struct place at)
{
    v->turn.here_since = rdtsc();
    vcpu_set_place(v, at);
    __atomic_store_n(&hvm_pcpus[at.cpu]->local[at.local], v, __ATOMIC_SEQ_CST);
}

void sched_add(struct vcpu *v, unsigned cpu)
{
    unsigned local = take_place(hvm_pcpus[cpu]);

    for (unsigned i = 0; i < pcpu_count && local == NO_PLACE; i++) /* others move */
        local = take_place(hvm_pcpus[cpu = i]);
    BUG_ON(local == NO_PLACE); /* sched_room() has counted them */
    v->turn.urgent_had = hvm_pcpus[cpu]->urgent_had; /* who is new has saved nothing up */
    settle(v, (struct place){cpu, local});
}

void sched_remove(struct vcpu *v)
{
    struct hvm_pcpu *p = hvm_pcpus[v->place.cpu];
    uint64_t bit = 1ull << v->place.local;

    p->runnable &= ~bit;
    p->io_waiting &= ~bit;
    __atomic_fetch_and(&p->wake, ~bit, __ATOMIC_SEQ_CST);
    __atomic_store_n(&p->local[v->place.local], NULL, __ATOMIC_SEQ_CST);
    __atomic_fetch_and(&p->taken, ~bit, __ATOMIC_SEQ_CST);
    trace_forget(p, v);
}

/* ---- Between pCPUs ---- */

void sched_idle(struct hvm_pcpu *p, bool idle)
{
    if (idle)
        __atomic_fetch_or(&idle_pcpus, 1ull << p->id, __ATOMIC_RELAXED);
    else if (__atomic_load_n(&idle_pcpus, __ATOMIC_RELAXED) >> p->id & 1)
        __atomic_fetch_and(&idle_pcpus, ~(1ull << p->id), __ATOMIC_RELAXED);
}

/* One that halts gets no second vCPU before it has looked at the first. */
static bool find_idle(unsigned *cpu)
{
    uint64_t idle = __atomic_load_n(&idle_pcpus, __ATOMIC_RELAXED), bit = idle & -idle;

    if (!idle || !(__atomic_fetch_and(&idle_pcpus, ~bit, __ATOMIC_RELAXED) & bit))
        return false;
    *cpu = (unsigned)__builtin_ctzll(bit);
    return true;
}

/* The next one round, so that what is too much for all pCPUs goes over all of them. */
static bool find_less_loaded(const struct hvm_pcpu *p, unsigned *cpu)
{
    for (unsigned i = 1; i < pcpu_count; i++) {
        *cpu = (p->id + i) % pcpu_count;
        if (bits(__atomic_load_n(&hvm_pcpus[*cpu]->runnable, __ATOMIC_RELAXED)) < bits(p->runnable))
            return true;
    }
    return false;
}

static struct vcpu *longest_here(const struct hvm_pcpu *p, struct vcpu *longest)
{
    for (uint64_t m = p->runnable; m; m &= m - 1) {
        struct vcpu *v = p->local[__builtin_ctzll(m)];

        if (v->turn.here_since < longest->turn.here_since)
            longest = v;
        hvm_breathe();
    }
    return longest;
}

/* Both have done so for a while. */
static void spread_later(struct hvm_pcpu *p, unsigned cpu, uint64_t now)
{
    p->spread_at = now + (uint64_t)ticks_of(SPREAD_US);
    __atomic_store_n(&hvm_pcpus[cpu]->spread_at, p->spread_at, __ATOMIC_RELAXED);
}

bool sched_surplus(struct hvm_pcpu *p, struct vcpu **v, struct place *to)
{
    uint64_t others = p->runnable & ~(1ull << p->last), now = rdtsc();

    if (!others)
        return false;
    *v = p->local[__builtin_ctzll(others)];
    if (!find_idle(&to->cpu)) {
        *v = longest_here(p, *v);
        if (now < p->spread_at || (*v)->place.local == p->last || !find_less_loaded(p, &to->cpu))
            return false;
        spread_later(p, to->cpu, now);
    }
    to->local = take_place(hvm_pcpus[to->cpu]);
    return to->local != NO_PLACE;
}

void sched_move(struct vcpu *v, struct place to)
{
    int64_t ahead = v->turn.had - hvm_pcpus[v->place.cpu]->least_had;
    int64_t urgent_ahead = v->turn.urgent_had - hvm_pcpus[v->place.cpu]->urgent_had;

    v->state = VCPU_ARRIVING;
    sched_remove(v);
    v->turn.had = hvm_pcpus[to.cpu]->least_had + ahead;
    v->turn.urgent_until = v->turn.had;
    v->turn.urgent_had = hvm_pcpus[to.cpu]->urgent_had + urgent_ahead;
    settle(v, to);
    vcpu_look_at(to); /* it may have left there by now, for good */
}

/* ---- States ---- */

void sched_wake(struct vcpu *v)
{
    struct hvm_pcpu *p = hvm_pcpus[v->place.cpu];
    int64_t least = p->least_had - ticks_of(SLICE_US);

    v->state = VCPU_RUNNABLE;
    trace_runstate(v, RUNSTATE_RUNNABLE);
    p->runnable |= 1ull << v->place.local;
    p->io_waiting &= ~(1ull << v->place.local);
    v->turn.since = rdtsc();
    if (v->turn.had < least)
        v->turn.had = least;
    sched_urge(v);
}

void sched_block(struct vcpu *v, enum vcpu_state state)
{
    struct hvm_pcpu *p = hvm_pcpus[v->place.cpu];

    p->runnable &= ~(1ull << v->place.local);
    if (state == VCPU_WAIT_IOREQ)
        p->io_waiting |= 1ull << v->place.local;
    __atomic_store_n(&v->state, state, __ATOMIC_SEQ_CST);
    trace_runstate(v, state == VCPU_IDLE || state == VCPU_WAIT_IOREQ ? RUNSTATE_BLOCKED : RUNSTATE_OFFLINE);
    /* What was posted before the state could be seen did not kick. */
    if ((state == VCPU_IDLE || state == VCPU_OFF) && __atomic_load_n(&v->posted.on, __ATOMIC_SEQ_CST))
        sched_wake(v);
}
