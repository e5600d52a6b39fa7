/*
 * Starting the HVM core, and the loop of each pCPU: interrupts, due deadlines, calls for attention, then a vCPU.
 */
#include "hvm.h"

#define POLL_US 20u
#define ENTRY_AT_LEAST 32u /* TSC ticks from an await's end to the guest's first instruction: as many instructions, and VMRUN */
#define ADVANCE_DECAY 512u  /* of what an entry waited, the share that the timer fires later */
#define BREATHS 4u
#define INJECTION_TICKS 2500u /* before the moment an entry chooses what it injects, by way of the PIC too; it is left for nobody any more */
#define QUIET_TICKS 300u /* behind the moment: by then the handler has begun */
#define BREATH_TICKS 500u   /* nobody is let in any more so shortly before the moment that an entry waits for */

const struct vendor_ops *vendor;
struct hvm_pcpu *hvm_pcpus[MAX_PCPUS];

void hvm_kick(unsigned cpu)
{
    if (cpu == this_cpu()->id)
        return;
    trace_put(TRACE_KICK, cpu);
    ipi_send(cpu, VECTOR_KICK);
}

void hvm_attention(unsigned cpu, uint32_t what)
{
    if (what & ~__atomic_fetch_or(&hvm_pcpus[cpu]->attention, what, __ATOMIC_SEQ_CST))
        hvm_kick(cpu);
}

static void arm(struct hvm_pcpu *p, uint64_t deadline)
{
    uint64_t early = deadline > p->advance ? deadline - p->advance : 0;

    p->timer_armed = deadline;
    if (early < p->quiet_until)
        early = p->quiet_until;
    host_timer_arm(deadline == DEADLINE_UNSET ? deadline : early);
}

void deadline_arm(struct deadline *d, uint64_t host_tsc)
{
    struct hvm_pcpu *p = this_hvm();
    uint64_t next;

    deadline_set(&p->deadlines, d, host_tsc);
    next = deadline_next(&p->deadlines);
    if (next != p->timer_armed)
        arm(p, next);
}

void hvm_hold(uint64_t *hold_until, uint64_t host_tsc)
{
    if (host_tsc > *hold_until && host_tsc <= rdtsc() + ADVANCE_MAX)
        *hold_until = host_tsc;
}

/* Entries that wait move the timer back by a little, those that come too late forward by that: so few are late, by some ticks. */
static void waited(struct hvm_pcpu *p, struct vcpu *v, uint64_t ticks)
{
    uint32_t less = (uint32_t)ticks / ADVANCE_DECAY;

    v->counts.held_ticks += ticks;
    trace_put(TRACE_HOLD, (uint32_t)ticks);
    p->advance -= less < p->advance ? less : p->advance;
}

static bool comes_before(const void *owner, const void *than)
{
    return sched_comes_before(owner, than);
}

void hvm_be_quiet(struct vcpu *v, uint64_t host_tsc)
{
    struct hvm_pcpu *p = this_hvm();
    uint64_t until = host_tsc + QUIET_TICKS;

    if (host_tsc > rdtsc() + ADVANCE_MAX)
        return;
    p->quiet_until = deadline_before(&p->deadlines, until + p->advance, comes_before, v) ? 0 : until;
    p->quiet_for = v->domain;
}

bool hvm_await_injection(struct vcpu *v, uint64_t until)
{
    struct hvm_pcpu *p = this_hvm();
    uint64_t from = rdtsc();

    if (from >= until)
        return true;
    if (!p->quiet_until) {
        hvm_be_quiet(v, until);
        arm(p, deadline_next(&p->deadlines));
    }
    while (rdtsc() + INJECTION_TICKS < until && (p->quiet_until || !p->timer_fired))
        hvm_breathe();
    waited(p, v, rdtsc() - from);
    return p->quiet_until || !p->timer_fired;
}

/* What nobody was let in for, or asked the loop for, while the entry waited: the timer's interrupt behind the entry stands for it. */
static void end_quiet(struct hvm_pcpu *p, const struct vcpu *v)
{
    if (p->quiet_until && (hvm_called(p) || __atomic_load_n(&v->posted.on, __ATOMIC_RELAXED)))
        host_timer_arm(p->quiet_until);
    p->quiet_until = 0;
}

/* What is late by far was held up by something else. */
void hvm_await(struct hvm_pcpu *p, struct vcpu *v, uint64_t until)
{
    uint64_t from;

    until -= until ? ENTRY_AT_LEAST : 0;
    v->hold_until = v->domain->chipset.hold_until = 0;
    hvm_breathe();
    from = rdtsc();
    if (from < until) {
        while (rdtsc() + BREATH_TICKS < until)
            hvm_breathe();
        end_quiet(p, v);
        while (rdtsc() < until)
            ;
        waited(p, v, until - from);
        return;
    }
    end_quiet(p, v);
    if (from - until < 2 * ADVANCE_MAX) {
        p->advance += (uint32_t)(from - until) + 1;
        if (p->advance > ADVANCE_MAX)
            p->advance = ADVANCE_MAX;
    }
}

static void timer_interrupt(void *argument)
{
    (void)argument;
    this_hvm()->timer_fired = true;
}

static void kick_interrupt(void *argument)
{
    (void)argument; /* its work is the exit it makes */
}

static void slice_over(struct deadline *d)
{
    (void)d;
    this_hvm()->resched = true;
}

/* The first one, unless the owner of another one comes before its owner. */
static struct deadline *next_due(const struct hvm_pcpu *p)
{
    uint64_t by = rdtsc() + p->advance;
    struct deadline *d = deadline_first(&p->deadlines), *before;

    if (!d || d->when > by)
        return NULL;
    before = d->owner ? deadline_before(&p->deadlines, by, comes_before, d->owner) : NULL;
    return before ? before : d;
}

static bool is_put_off(const struct hvm_pcpu *p, const struct deadline *d)
{
    const struct vcpu *owner = d->owner;

    return p->quiet_until && !(owner && owner->domain == p->quiet_for);
}

static void run_timer(struct hvm_pcpu *p)
{
    struct deadline *d;

    p->timer_fired = false;
    p->timer_armed = DEADLINE_UNSET;
    while ((d = next_due(p)) && !is_put_off(p, d)) {
        deadline_expire(&p->deadlines, d);
        hvm_breathe();
    }
    arm(p, deadline_next(&p->deadlines));
}

/* Starts or stops a vCPU as its domain wants it, on the vCPU's own pCPU. */
static void start(struct vcpu *v)
{
    v->timer_due = false;
    sched_wake(v);
    if (v->io.waiting) /* paused while it waited */
        sched_block(v, VCPU_WAIT_IOREQ);
    vcpu_arm_timer(v);
    if (v->id == 0)
        chipset_rearm(v->domain);
}

static void arrive(struct vcpu *v)
{
    sched_wake(v);
    vcpu_arm_timer(v);
}

/* What runs, resets or takes it apart next may be another pCPU: nothing of it stays in this one's registers. */
static void let_go(struct hvm_pcpu *p, struct vcpu *v)
{
    if (this_cpu()->current == v)
        vcpu_unload();
    deadline_set(&p->deadlines, &v->deadline, DEADLINE_UNSET);
}

static void take_off(struct hvm_pcpu *p, struct vcpu *v)
{
    sched_block(v, VCPU_STOPPED);
    let_go(p, v);
    p->io_waiting &= ~(1ull << v->place.local);
    if (v->id == 0)
        deadline_set(&p->deadlines, &v->domain->chipset.deadline, DEADLINE_UNSET);
}

/* The domain's home goes with vCPU 0. There the timers that came due meanwhile are found when they are armed. */
static void hand_over(struct hvm_pcpu *p, struct vcpu *v, struct place to)
{
    struct domain *d = v->domain;
    bool home = v->id == 0;

    let_go(p, v);
    v->p2m_generation = 0; /* translations that it has left there may be old when it comes back */
    if (home)
        chipset_leave(d, to.cpu);
    sched_move(v, to);
    if (home) /* `v` is not ours any more */
        hvm_attention(to.cpu, ATTENTION_DEADLINES | ATTENTION_SLOTS);
}

static void stop(struct hvm_pcpu *p, struct vcpu *v)
{
    if (v->io.waiting && !ioreq_poll(v)) {
        /* Its answer must be in before the request page is used again, or the domain saved. */
        sched_block(v, VCPU_WAIT_IOREQ);
        return;
    }
    take_off(p, v);
    domain_vcpu_stopped(v->domain);
}

/* The domain ends: from here on this pCPU knows nothing of the vCPU, nor, with vCPU 0, of the domain. */
static void leave(struct hvm_pcpu *p, struct vcpu *v)
{
    take_off(p, v);
    sched_remove(v);
    domain_vcpu_left(v->domain);
}

static void look_at(struct hvm_pcpu *p, struct vcpu *v)
{
    uint32_t action = v->domain->action;

    if (action == ACTION_END)
        leave(p, v);
    else if (action && v->state != VCPU_STOPPED)
        stop(p, v);
    else if (!action && v->state == VCPU_STARTING)
        start(v);
    else if (!action && v->state == VCPU_ARRIVING)
        arrive(v);
    else if (v->state == VCPU_RUNNABLE)
        sched_urge(v);
    else if (v->state == VCPU_IDLE || v->state == VCPU_OFF)
        sched_wake(v);
}

static void take_wakes(struct hvm_pcpu *p)
{
    uint64_t wake = __atomic_exchange_n(&p->wake, 0, __ATOMIC_SEQ_CST);

    for (; wake; wake &= wake - 1) {
        struct vcpu *v = p->local[__builtin_ctzll(wake)];

        if (v)
            look_at(p, v);
        hvm_breathe();
    }
}

/* vCPUs whose request may have been answered. */
static void poll_requests(struct hvm_pcpu *p)
{
    for (uint64_t m = p->io_waiting; m; m &= m - 1) {
        struct vcpu *v = p->local[__builtin_ctzll(m)];

        if (!v || !ioreq_poll(v))
            continue;
        if (v->domain->action)
            look_at(p, v);
        else
            sched_wake(v);
    }
}

static void serve(struct domain *d, uint32_t what)
{
    if (what & ATTENTION_DEADLINES)
        chipset_rearm(d);
    if ((what & ATTENTION_SLOTS) && d->slot->rung) {
        d->slot->rung = false;
        slot_service(d);
    }
}

/* A domain is at home where its vCPU 0 lives: while that is here, the domain cannot be taken apart. */
static void give_attention(struct hvm_pcpu *p)
{
    uint32_t what = __atomic_exchange_n(&p->attention, 0, __ATOMIC_SEQ_CST);

    if (what & ATTENTION_CONTROL)
        control_service();
    if (what & ATTENTION_WORK)
        work_service();
    for (unsigned i = 0; i < 64 && (what & (ATTENTION_SLOTS | ATTENTION_DEADLINES)); i++) {
        struct vcpu *v = __atomic_load_n(&p->local[i], __ATOMIC_ACQUIRE);

        if (v && v->id == 0)
            serve(v->domain, what);
        hvm_breathe();
    }
}

/* The loop's only places where interrupts are on, and the ends of its spans without. */
void hvm_let_in(struct hvm_pcpu *p, bool halt)
{
    off_ends(p, p->off_longest);
    if (halt)
        sti_hlt_cli();
    else
        sti_nop_cli();
    p->off_since = rdtsc();
    p->off_longest = &p->longest_off;
}

void hvm_take_breath(struct hvm_pcpu *p)
{
    uint64_t from = rdtsc(), took;

    if (!p->handled) {
        hvm_let_in(p, false);
        return;
    }
    vendor->let_in(p->handled);
    took = rdtsc() - from;
    if (took < p->breath_takes) {
        p->breath_takes = took;
        p->breath_after = BREATHS * took;
    }
}

static bool has_work(const struct hvm_pcpu *p)
{
    return p->runnable || p->timer_fired || p->attention || __atomic_load_n(&p->wake, __ATOMIC_SEQ_CST);
}

static void tell_waits(struct hvm_pcpu *p, uint64_t vcpus, bool waits)
{
    for (; vcpus; vcpus &= vcpus - 1) {
        const struct vcpu *v = p->local[__builtin_ctzll(vcpus)];

        if (v)
            slot_set_waits(v->domain->slot, waits);
    }
}

/* Answers mostly come within microseconds: looked for a while before the CPU halts and the device model must ring. */
static void poll_a_while(struct hvm_pcpu *p)
{
    uint64_t waiting = p->io_waiting;
    uint64_t end = rdtsc() + tsc_hz / 1000000 * POLL_US;

    tell_waits(p, waiting, false);
    while (!has_work(p) && rdtsc() < end) {
        poll_requests(p);
        hvm_let_in(p, false);
    }
    tell_waits(p, waiting, true);
    for (; waiting; waiting &= waiting - 1) {
        const struct vcpu *v = p->local[__builtin_ctzll(waiting)];

        if (v)
            slot_look(v->domain);
    }
    poll_requests(p);
}

static void idle(struct hvm_pcpu *p)
{
    sched_idle(p, true);
    flight_idles(p);
    if (p->io_waiting)
        poll_a_while(p);
    if (!has_work(p))
        hvm_let_in(p, true);
    sched_idle(p, false);
}

static void let_run(struct hvm_pcpu *p, struct vcpu *v)
{
    struct vcpu *surplus;
    struct place to;

    if (p->quiet_for != v->domain)
        p->quiet_until = 0;
    if (sched_shared(p) && sched_surplus(p, &surplus, &to))
        hand_over(p, surplus, to);
    flight_picked(p, v);
    vcpu_run(v);
    sched_ran(p, v);
    flight_ran(p, v);
}

static void round(struct hvm_pcpu *p)
{
    struct vcpu *v;

    hvm_let_in(p, false);
    p->quiet_until = 0;
    if (p->timer_fired)
        run_timer(p);
    hvm_breathe();
    if (p->attention)
        give_attention(p);
    hvm_breathe();
    take_wakes(p);
    if (p->io_waiting)
        poll_requests(p);
    hvm_breathe();
    if (!control_present() && p->id == 0)
        standalone_poll();
    v = sched_pick(p);
    trace_pick(p, v);
    if (!v) {
        idle(p);
        return;
    }
    if (v->domain->action)
        look_at(p, v);
    else
        let_run(p, v);
}

static struct hvm_pcpu *make_pcpu(unsigned id)
{
    struct hvm_pcpu *p = alloc_pages(0);

    BUG_ON(!p);
    p->id = id;
    p->exit_begins = METRONOME_EXIT_OTHER | id << 8;
    p->timer_armed = DEADLINE_UNSET;
    p->advance = ADVANCE_MAX; /* the first entry waits for the rest, the next ones for less */
    p->breath_takes = UINT64_MAX;
    p->breath_after = tsc_hz >> 22; /* until it is known */
    p->off_longest = &p->longest_off;
    deadline_init(&p->slice, slice_over);
    return p;
}

void hvm_boot(void)
{
    vendor = cpu_features.svm ? &svm_ops : NULL;
    for (unsigned i = 0; i < pcpu_count; i++)
        pcpus[i]->hvm = hvm_pcpus[i] = make_pcpu(i);
    irq_set_handler(VECTOR_TIMER, timer_interrupt, NULL);
    irq_set_handler(VECTOR_KICK, kick_interrupt, NULL);
    control_init();
    if (!vendor) {
        control_failed("this CPU has neither AMD-V nor VT-x");
        log_error("this CPU has no AMD-V\n");
        machine_stop(2);
    }
}

/* A CPU that is not in its loop yet has nobody to let in. */
static void breathe_amid_a_line(void)
{
    struct hvm_pcpu *p = this_hvm();

    if (p && p->off_since)
        hvm_breathe();
}

void hvm_cpu_loop(void)
{
    struct hvm_pcpu *p = this_hvm();
    const char *why = vendor->cpu_init(p);

    if (why) {
        log_error("CPU %u: %s\n", p->id, why);
        control_failed(why);
        machine_stop(2);
    }
    if (p->id == 0) {
        console_set_pause(breathe_amid_a_line);
        log_info("%s, %u CPUs, TSC %llu Hz\n", vendor->name, pcpu_count, (unsigned long long)tsc_hz);
        if (control_present())
            control_ready();
        else
            standalone_init();
    }
    p->off_since = rdtsc();
    p->longest_off = 0; /* what was before the loop does not count */
    for (;;)
        round(p);
}
