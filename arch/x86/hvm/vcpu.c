/*
 * One vCPU: made, reset, run on its pCPU, and what is checked before each entry.
 */
#include "hvm.h"

static void timer_expired(struct deadline *deadline)
{
    struct vcpu *v = (struct vcpu *)((char *)deadline - offsetof(struct vcpu, deadline));

    v->timer_due = true;
    if (v->state == VCPU_IDLE)
        sched_wake(v);
    else
        sched_urge(v);
    hvm_be_quiet(v, vtime_host_of_tsc(&v->domain->time, vlapic_deadline(&v->vlapic)));
}

/* The local APIC's next expiry, or its next tick that is owed, as a deadline of this pCPU; one that has passed is taken at
 * the next entry. */
void vcpu_arm_timer(struct vcpu *v)
{
    uint64_t expiry = vlapic_deadline(&v->vlapic), owed = ticks_deadline(&v->ticks);
    uint64_t host = vtime_host_of_tsc(&v->domain->time, expiry < owed ? expiry : owed);

    if (host == v->deadline.when)
        return;
    if (host <= rdtsc())
        v->timer_due = true;
    else
        deadline_arm(&v->deadline, host);
}

/* Now, or the moment to come that the timer has fired for: the guest is entered when it has. */
static uint64_t timer_now(struct vcpu *v)
{
    const struct vtime *t = &v->domain->time;
    uint64_t now = vtime_tsc(t), due = vlapic_deadline(&v->vlapic);

    if (due > now + ADVANCE_MAX)
        return now;
    hvm_hold(&v->hold_until, vtime_host_of_tsc(t, due));
    return due > now ? due : now;
}

static void take_timer(struct vcpu *v)
{
    struct vlapic *a = &v->vlapic;

    v->timer_due = false;
    vlapic_advance(a, timer_now(v));
    vcpu_book_ticks(v);
    vcpu_repay_ticks(v);
    vcpu_arm_timer(v);
    hvm_breathe();
}

bool vcpu_prepare(struct vcpu *v)
{
    struct hvm_pcpu *p = this_hvm();

    if (hvm_called(p) && !p->quiet_until)
        return false;
    vcpu_drain(v);
    /* A read of the APIC may have seen its tick before the host's timer came. */
    if (v->timer_due || v->vlapic.timer_due != v->ticks_seen)
        take_timer(v);
    return v->state == VCPU_IN_GUEST && !v->domain->action;
}

#define VIEW_ORDER 2u
_Static_assert(P2M_VIEW_TABLES == 1u << VIEW_ORDER, "the view's tables are one block");

/* The domain's, or, while its APIC's page lies over RAM, a view of its own: accesses there exit, and the others see the RAM. */
uint64_t vcpu_new_root(struct vcpu *v)
{
    struct p2m *p = &v->domain->p2m;
    uint64_t page = vlapic_base(&v->vlapic);

    v->p2m_generation = __atomic_load_n(&p->generation, __ATOMIC_ACQUIRE);
    if (!vlapic_mmio_enabled(&v->vlapic) || !domain_ram(v->domain, page, false))
        return p->root;
    if (!v->view)
        v->view = alloc_pages(VIEW_ORDER);
    if (v->view)
        return p2m_hide(p, page, v->view);
    exit_crash(v, "too little memory for an APIC over RAM");
    return p->root;
}

void vcpu_forget_walks(struct vcpu *v)
{
    v->p2m_generation = 0;
    memset(v->emu.memo, 0, sizeof(v->emu.memo));
    memset(v->ram, 0, sizeof(v->ram));
}

/* XSAVE's layout where the CPU has it, else FXSAVE's 512 bytes. */
static void fpu_save(struct vcpu *v)
{
    if (!cpu_features.xsave) {
        fxsave(v->fpu);
        return;
    }
    v->xcr0 = xgetbv(0);
    xsetbv(0, xcr0_allowed());
    xsave(v->fpu);
}

static void fpu_load(struct vcpu *v)
{
    if (!cpu_features.xsave) {
        fxrstor(v->fpu);
        return;
    }
    xsetbv(0, xcr0_allowed());
    xrstor(v->fpu);
    xsetbv(0, v->xcr0);
}

static void debug_save(uint64_t dr[4])
{
    dr[0] = read_dr0();
    dr[1] = read_dr1();
    dr[2] = read_dr2();
    dr[3] = read_dr3();
}

static void debug_load(const uint64_t dr[4])
{
    write_dr0(dr[0]);
    write_dr1(dr[1]);
    write_dr2(dr[2]);
    write_dr3(dr[3]);
}

void vcpu_unload(void)
{
    struct pcpu *cpu = this_cpu();

    if (cpu->current && !cpu->current->fpu_fresh) {
        fpu_save(cpu->current);
        debug_save(cpu->current->dr);
    }
    cpu->current = NULL;
}

static void load(struct vcpu *v)
{
    struct pcpu *cpu = this_cpu();

    if (cpu->current == v && !v->fpu_fresh)
        return;
    vcpu_unload();
    fpu_load(v);
    debug_load(v->dr);
    if (cpu_features.rdtscp)
        wrmsr(MSR_TSC_AUX, v->tsc_aux);
    v->fpu_fresh = false;
    cpu->current = v;
}

void vcpu_run(struct vcpu *v)
{
    struct hvm_pcpu *p = this_hvm();

    if (v->io.waiting) {
        if (!ioreq_poll(v)) { /* it has taken its answer back */
            sched_block(v, VCPU_WAIT_IOREQ);
            return;
        }
        if (!ioreq_complete(v))
            return;
    }
    hvm_breathe();
    vcpu_drain(v);
    if (v->halted) {
        if (v->timer_due)
            take_timer(v);
        if (!inject_pending(v)) {
            sched_block(v, VCPU_IDLE);
            return;
        }
        v->halted = false;
    }
    if (v->vlapic.activity == VLAPIC_WAIT_SIPI) {
        sched_block(v, VCPU_OFF);
        return;
    }
    load(v);
    hvm_breathe();
    v->off_longest = p->off_longest;
    p->handled = v;
    vendor->run(v);
    p->handled = NULL;
    p->off_longest = v->off_longest;
    if (v->state == VCPU_IN_GUEST)
        v->state = VCPU_RUNNABLE;
}

static void reset_events(struct vcpu *v)
{
    v->nmi_pending = 0;
    v->nmi_blocked = v->extint_pending = v->event_pending = v->halted = v->timer_due = false;
    v->lint0_rises = 0;
    ticks_lost(&v->ticks);
    ticks_forget(&v->ticks);
    v->ticks_seen = 0;
    vcpu_discard_posts(v);
    for (unsigned i = 0; i < DECODE_CACHE; i++)
        v->decode[i].insn.length = 0;
}

void vcpu_reset(struct vcpu *v)
{
    uint16_t control_word = 0x37f;
    uint32_t mxcsr = 0x1f80;

    vlapic_reset(&v->vlapic, vtime_tsc(&v->domain->time), v->id, v->id == 0);
    vlapic_configure(&v->vlapic, cpu_features.phys_bits, VLAPIC_X2APIC | VLAPIC_TSC_DEADLINE);
    if (v->id != 0)
        v->vlapic.activity = VLAPIC_WAIT_SIPI;
    reset_events(v);
    hvm_breathe();
    msr_reset(v);
    ioreq_cancel(v);
    memset(v->fpu, 0, 1024);
    memcpy((uint8_t *)v->fpu, &control_word, sizeof(control_word));
    memcpy((uint8_t *)v->fpu + 24, &mxcsr, sizeof(mxcsr));
    v->xcr0 = 1;
    memset(v->dr, 0, sizeof(v->dr));
    v->fpu_fresh = true;
    vcpu_forget_walks(v);
    memset(v->emu.regs.gpr, 0, sizeof(v->emu.regs.gpr));
    hvm_breathe();
    vendor->vcpu_reset(v, false, 0);
    hvm_breathe();
    fabric_publish_apic(v);
}

/* The XSAVE area at its largest. */
uint32_t vcpu_fpu_bytes(void)
{
    return cpu_features.xsave ? cpuid(0xd, 0).ecx : 512;
}

void vcpu_init(struct vcpu *v, struct domain *d, unsigned id)
{
    v->domain = d;
    v->id = id;
    v->state = VCPU_STOPPED;
    v->runstate = RUNSTATE_OFFLINE;
    v->emu.ops = &emulator_ops;
    v->emu.ctx = v;
    v->emu.regs.physical_bits = cpu_features.phys_bits;
    v->emu.regs.pdpte_accessed = cpu_features.on_tcg;
    v->latency.ledger = d->latency;
    v->latency.bar = d->late.bar;
    deadline_init(&v->deadline, timer_expired);
    v->deadline.owner = v;
    if (id == 0)
        d->chipset.deadline.owner = v; /* at home with it */
    ticks_init(&v->ticks, ticks_policy(d->header.ticks, METRONOME_TICKS_OF_LAPIC));
}
