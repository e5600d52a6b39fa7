/*
 * AMD-V: switching it on, a guest's VMCB, entering and injecting. APM 2 chapter 15.
 */
#include "svm/svm.h"

#define MSR_VM_CR 0xc0010114u
#define VM_CR_SVMDIS 0x10u
#define MSR_VM_HSAVE_PA 0xc0010117u
#define IOPM_ORDER 2u  /* 12 KiB, rounded up */
#define MSRPM_ORDER 1u /* 8 KiB */

struct vendor_pcpu {
    uint64_t host_vmcb;      /* physical: the host's FS, GS, TR, LDTR and syscall MSRs */
    const struct vcpu *last; /* that ran here: all share one ASID, so another one's translations must go */
};

static uint8_t *iopm, *msrpm;

static inline void vmload(uint64_t physical)
{
    __asm__ volatile("vmload %%rax" : : "a"(physical) : "memory");
}

static inline void vmsave(uint64_t physical)
{
    __asm__ volatile("vmsave %%rax" : : "a"(physical) : "memory");
}

static inline void clgi(void)
{
    __asm__ volatile("clgi" : : : "memory");
}

static inline void stgi(void)
{
    __asm__ volatile("stgi" : : : "memory");
}

/* ---- Switching on ---- */

/* MSRs that belong to the guest while it runs: VMLOAD and VMSAVE switch them. */
static void pass_through(uint32_t msr)
{
    unsigned base = msr < 0x2000 ? 0 : msr - 0xc0000000u < 0x2000 ? 0x800 : 0x1000;
    unsigned bit = (msr & 0x1fff) * 2;

    msrpm[base + bit / 8] &= (uint8_t)~(3u << (bit % 8));
}

static bool make_maps(void)
{
    static const uint32_t guest_msrs[] = {0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                          0xc0000100, 0xc0000101, 0xc0000102};

    iopm = alloc_pages(IOPM_ORDER);
    msrpm = alloc_pages(MSRPM_ORDER);
    if (!iopm || !msrpm)
        return false;
    memset(iopm, 0xff, PAGE_SIZE << IOPM_ORDER);
    memset(msrpm, 0xff, PAGE_SIZE << MSRPM_ORDER);
    for (unsigned i = 0; i < sizeof(guest_msrs) / sizeof(guest_msrs[0]); i++)
        pass_through(guest_msrs[i]);
    return true;
}

static const char *svm_cpu_init(struct hvm_pcpu *p)
{
    struct vendor_pcpu *vp = alloc_pages(0);
    void *hsave = alloc_pages(0), *host = alloc_pages(0);

    if (!cpu_features.svm)
        return "this CPU has no AMD-V";
    if (!cpu_features.npt)
        return "this CPU's AMD-V has no nested paging";
    if (rdmsr(MSR_VM_CR) & VM_CR_SVMDIS)
        return "AMD-V is disabled by the firmware";
    if (!vp || !hsave || !host || (p->id == 0 && !make_maps()))
        return "too little memory for AMD-V";
    write_cr0(read_cr0() & ~(CR0_TS | CR0_EM));
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | (cpu_features.xsave ? CR4_OSXSAVE : 0) |
              (cpu_features.pku ? CR4_PKE : 0));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, virt_to_phys(hsave));
    vp->host_vmcb = virt_to_phys(host);
    vmsave(vp->host_vmcb);
    p->vendor = vp;
    return NULL;
}

/* ---- A guest's VMCB ---- */

static void fill_controls(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);

    c->intercept_cr_write = 1u << 4;
    c->intercept_exceptions = EXCEPTIONS;
    c->intercept1 = I1_INTR | I1_NMI | I1_SMI | I1_INIT | I1_RDPMC | I1_CPUID | I1_INVD | I1_PAUSE | I1_HLT | I1_INVLPGA |
                    I1_IOIO | I1_MSR | I1_SHUTDOWN;
    c->intercept2 = I2_VMRUN | I2_VMMCALL | I2_VMLOAD | I2_VMSAVE | I2_STGI | I2_CLGI | I2_SKINIT | I2_WBINVD | I2_MONITOR |
                    I2_MWAIT | I2_MWAIT_ARMED | I2_XSETBV;
    if (cpu_features.pause_filter)
        c->pause_count = 3000;
    c->iopm = virt_to_phys(iopm);
    c->msrpm = virt_to_phys(msrpm);
    c->asid = 1;
    c->v_control = V_PRIORITY_MAX | V_IGNORE_TPR;
    c->v_enable = V_INTR_MASKING;
    c->np_enable = 1;
}

_Static_assert(sizeof(struct vendor_state) <= PAGE_SIZE, "it has a page");

static bool svm_vcpu_init(struct vcpu *v)
{
    struct vendor_state *s = alloc_pages(0);

    v->vendor = s;
    if (!s)
        return false;
    hvm_breathe();
    s->vmcb = alloc_pages(0);
    if (!s->vmcb)
        return false;
    s->vmcb_physical = virt_to_phys(s->vmcb);
    fill_controls(v);
    return true;
}

static void svm_vcpu_destroy(struct vcpu *v)
{
    if (v->vendor->vmcb)
        free_pages(v->vendor->vmcb, 0);
    free_pages(v->vendor, 0);
}

static struct vmcb_segment segment(uint16_t selector, uint16_t attributes, uint32_t limit, uint64_t base)
{
    return (struct vmcb_segment){selector, attributes, limit, base};
}

/* What every exit brings into emu.regs; written back before entry. */
static void take_regs(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    struct emu_regs *r = &v->emu.regs;

    r->gpr[EMU_RAX] = c->rax;
    r->gpr[EMU_RSP] = c->rsp;
    r->rip = c->rip;
    r->rflags = c->rflags;
    r->cr4 = c->cr4;
}

static void put_regs(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);
    const struct emu_regs *r = &v->emu.regs;

    if (c->rip != r->rip)
        c->interrupt_shadow = 0; /* an instruction was emulated or skipped: its shadow is over */
    c->rax = r->gpr[EMU_RAX];
    c->rsp = r->gpr[EMU_RSP];
    c->rip = r->rip;
    c->rflags = r->rflags;
}

/* State after RESET#, INIT or (cs from the vector) SIPI: APM 2 14.1.3, table 14-1. */
static void svm_vcpu_reset(struct vcpu *v, bool sipi, uint8_t vector)
{
    struct vmcb *c = vmcb_of(v);
    struct vmcb_segment data = segment(0, 0x93, 0xffff, 0);

    c->es = c->ss = c->ds = c->fs = c->gs = data;
    c->cs = sipi ? segment((uint16_t)(vector << 8), 0x9b, 0xffff, (uint64_t)vector << 12)
                 : segment(0xf000, 0x9b, 0xffff, 0xffff0000);
    c->gdtr = c->idtr = segment(0, 0, 0xffff, 0);
    c->ldtr = segment(0, 0x82, 0xffff, 0);
    c->tr = segment(0, 0x8b, 0xffff, 0);
    c->cpl = 0;
    c->efer = EFER_SVME;
    c->cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->cr2 = c->cr3 = c->cr4 = 0;
    c->dr6 = 0xffff0ff0;
    c->dr7 = 0x400;
    c->rflags = 2;
    c->rip = sipi ? 0 : 0xfff0;
    c->rax = c->rsp = 0;
    c->g_pat = v->pat;
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->interrupt_shadow = c->eventinj = 0;
    c->intercept_exceptions = EXCEPTIONS;
    v->vendor->stepping = v->vendor->over_iret = false;
    v->vendor->lme_hidden = false;
    v->vendor->flush = true;
    memset(v->emu.regs.gpr, 0, sizeof(v->emu.regs.gpr));
    v->emu.regs.gpr[EMU_RDX] = cpuid(1, 0).eax;
    take_regs(v);
}

static void svm_vcpu_start_flat(struct vcpu *v, const struct loader_entry *entry)
{
    struct vmcb *c = vmcb_of(v);

    c->cs = segment(LOADER_CS, 0xc9b, UINT32_MAX, 0);
    c->ds = c->es = c->ss = c->fs = c->gs = segment(LOADER_DS, 0xc93, UINT32_MAX, 0);
    c->gdtr = segment(0, 0, (uint16_t)entry->gdt_limit, entry->gdt);
    c->cr0 = CR0_PE | CR0_ET;
    c->rip = entry->eip;
    take_regs(v);
}

static void svm_set_cr2(struct vcpu *v, uint64_t value)
{
    vmcb_of(v)->cr2 = value;
}

static void svm_set_pat(struct vcpu *v)
{
    vmcb_of(v)->g_pat = v->pat;
}

uint64_t svm_get_efer(const struct vcpu *v)
{
    return (vmcb_of(v)->efer & ~EFER_SVME) | (v->vendor->lme_hidden ? EFER_LME : 0);
}

/* TCG leaves the host without paging after an exit with LME set, PAE and PG clear. */
static void put_efer(struct vcpu *v, uint64_t value)
{
    struct vmcb *c = vmcb_of(v);

    v->vendor->lme_hidden = cpu_features.on_tcg && (value & EFER_LME) && !(c->cr4 & CR4_PAE) && !(c->cr0 & CR0_PG);
    c->efer = (v->vendor->lme_hidden ? value & ~EFER_LME : value) | EFER_SVME;
}

bool svm_set_efer(struct vcpu *v, uint64_t value)
{
    struct vmcb *c = vmcb_of(v);
    uint64_t old = svm_get_efer(v);

    if (((value ^ old) & EFER_LME) && (c->cr0 & CR0_PG))
        return false;
    put_efer(v, (value & ~EFER_LMA) | (old & EFER_LMA));
    return true;
}

static void take_segment(struct emu_segment *to, const struct vmcb_segment *from)
{
    to->selector = from->selector;
    to->attributes = from->attributes;
    to->limit = from->limit;
    to->base = from->base;
}

void svm_load_regs(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    struct emu_regs *r = &v->emu.regs;

    vmsave(v->vendor->vmcb_physical); /* FS and GS are in the CPU until then */
    take_segment(&r->seg[EMU_ES], &c->es);
    take_segment(&r->seg[EMU_CS], &c->cs);
    take_segment(&r->seg[EMU_SS], &c->ss);
    take_segment(&r->seg[EMU_DS], &c->ds);
    take_segment(&r->seg[EMU_FS], &c->fs);
    take_segment(&r->seg[EMU_GS], &c->gs);
    r->cr0 = c->cr0;
    r->cr3 = c->cr3;
    r->efer = c->efer;
    r->cpl = c->cpl;
    r->pkru = 0;
    if (r->cr4 & CR4_PKE)
        __asm__ volatile("rdpkru" : "=a"(r->pkru) : "c"(0) : "edx");
}

static struct skipped *skipped_at(const struct vcpu *v, uint64_t rip)
{
    return &v->vendor->skipped[rip * 0x9e3779b97f4a7c15ull >> (64 - SKIPPED_BITS)]; /* by the golden ratio: neighbours are apart */
}

static uint32_t four_bytes(const uint8_t *at)
{
    uint32_t bytes;

    __builtin_memcpy(&bytes, at, sizeof(bytes));
    return bytes;
}

/* Saved at every exit that an instruction makes by an intercept of its own, or known from the last time. */
static uint64_t svm_next_rip(const struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    const struct skipped *s = skipped_at(v, c->rip);

    if (cpu_features.nrips)
        return c->next_rip;
    if (s->rip != c->rip || s->exitcode != (uint32_t)c->exitcode || s->cr3 != c->cr3 || s->cs_base != c->cs.base ||
        s->generation != __atomic_load_n(&v->domain->p2m.generation, __ATOMIC_RELAXED) || four_bytes(s->code) != s->bytes)
        return 0;
    return s->next;
}

static void svm_skipped(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    const uint8_t *code = v->emu.code;

    if (code && v->emu.insn.length <= sizeof(uint32_t))
        *skipped_at(v, c->rip) = (struct skipped){c->rip, c->cs.base, c->cr3, v->emu.ram_generation, v->emu.regs.rip, code,
                                                  (uint32_t)c->exitcode, four_bytes(code)};
}

/* ---- Entering ---- */

/* Asks the hardware for the exits that what waits needs. */
static void ask(struct vcpu *v, int want)
{
    struct vmcb *c = vmcb_of(v);
    bool over_iret = v->vendor->over_iret;

    /* Real hardware loads the shadow at VMRUN, so the window opens behind it. */
    if ((want & WANT_STEP) && !cpu_features.on_tcg)
        want |= WANT_WINDOW;
    if (over_iret || ((want & WANT_STEP) && cpu_features.on_tcg))
        svm_step(v);
    c->v_irq = (want & WANT_WINDOW) ? V_IRQ : 0;
    c->intercept1 = (c->intercept1 & ~(I1_VINTR | I1_IRET)) | ((want & WANT_WINDOW) ? I1_VINTR : 0) |
                    (v->nmi_blocked && !over_iret ? I1_IRET : 0);
    /* CR8 exits only while its value decides over a request; on TCG also while V_IRQ is set, or QEMU aborts. */
    if ((want & WANT_TPR) || ((want & WANT_WINDOW) && cpu_features.on_tcg))
        c->intercept_cr_write |= 1u << 8;
    else
        c->intercept_cr_write &= (uint16_t)~(1u << 8);
}

/*
 * TCG keeps the vector of an EVENTINJ interrupt as an exception to deliver, until the next exit or exception: if it leaves
 * its loop before (a kick, the end of an icount slice), the guest gets the interrupt again, inside its handler and with IF
 * clear. So it goes in as a virtual interrupt, which nothing holds back here; where V_IRQ is wanted for the window, an exit
 * follows at once. So it does where a kick is on its way, which would come before a virtual interrupt, each time anew.
 */
static void inject_on_tcg(struct vcpu *v, uint8_t vector, int want)
{
    struct vmcb *c = vmcb_of(v);

    if (want & (WANT_WINDOW | WANT_EXIT)) {
        v->vendor->leave = true;
        return;
    }
    c->eventinj = 0;
    c->v_irq = V_IRQ;
    c->v_vector = vector;
    v->vendor->virtual_interrupt = true;
}

static void choose_event(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);
    bool shadow = c->interrupt_shadow & 1;
    int want;
    struct injection i = inject_next(v, (struct injectability){(c->rflags & RFLAGS_IF) && !shadow, shadow}, &want);

    c->eventinj = !i.valid ? 0
                           : i.vector | (uint64_t)i.type << 8 | EVENT_VALID | (i.has_error ? EVENT_HAS_ERROR : 0) |
                                 (uint64_t)i.error << 32;
    if (i.valid)
        v->vendor->over_iret = false; /* the event's handler comes before the IRET, which then exits again */
    ask(v, want);
    v->vendor->leave = want & WANT_EXIT;
    if (i.valid && i.type == EVENT_INTR && cpu_features.on_tcg)
        inject_on_tcg(v, i.vector, want);
    v->vendor->at_rest = !i.valid && !want && !v->nmi_blocked && !v->vendor->over_iret;
}

/* Most entries inject nothing and ask for nothing, like the one before them. */
static inline void inject(struct vcpu *v)
{
    if (!v->vendor->at_rest || inject_needed(v))
        choose_event(v);
}

static void before_entry(struct vcpu *v)
{
    struct vendor_state *s = v->vendor;
    struct vmcb *c = s->vmcb;

    put_regs(v);
    s->entry_shadow = c->interrupt_shadow & 1;
    inject(v);
    c->v_tpr = (uint8_t)vlapic_get_cr8(&v->vlapic);
    c->tsc_offset = v->domain->time.tsc_offset + vlapic_guest_tsc_offset(&v->vlapic);
    c->tlb_control = 0;
    if (v->p2m_generation != __atomic_load_n(&v->domain->p2m.generation, __ATOMIC_ACQUIRE)) {
        c->n_cr3 = vcpu_new_root(v);
        s->flush = true;
    }
    if (s->flush) {
        s->flush = false;
        c->tlb_control = TLB_FLUSH_ALL;
    }
}

/* TCG does not load the shadow, so an exit that comes before the shadowed instruction finds none: it is still to be held. */
static void keep_shadow(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);
    bool stepped = (uint32_t)c->exitcode == VMEXIT_EXCEPTION + 1;

    if (v->vendor->entry_shadow && c->rip == v->emu.regs.rip && !stepped)
        c->interrupt_shadow = 1;
}

static void after_exit(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    uint64_t event = c->exitintinfo;

    if (cpu_features.on_tcg)
        keep_shadow(v);
    take_regs(v);
    if (v->vendor->virtual_interrupt) {
        v->vendor->virtual_interrupt = false;
        if (c->v_irq & V_IRQ) /* the exit came first, or in its delivery */
            event = EVENT_VALID | EVENT_INTR << 8 | c->v_vector;
    }
    if (c->v_tpr != vlapic_get_cr8(&v->vlapic))
        vlapic_set_cr8(&v->vlapic, c->v_tpr & 15);
    if (event & EVENT_VALID) {
        uint8_t type = event >> 8 & 7, vector = (uint8_t)event;

        /* INT n, INT3 and INTO have not moved RIP: they run again by themselves. */
        if (type != EVENT_SOFTWARE && !(type == EVENT_EXCEPTION && (vector == 3 || vector == 4)))
            inject_again(v, vector, type, event & EVENT_HAS_ERROR, (uint32_t)(event >> 32));
    }
}

static __attribute__((noinline)) void trace_exit(const struct vmcb *c)
{
    if (c->efer & EFER_LMA)
        trace_record(TRACE_HVM_VMEXIT64, c->exitcode, TRACE_LONG(c->rip));
    else
        trace_record(TRACE_HVM_VMEXIT, c->exitcode, c->rip);
}

/* Without the filter every PAUSE exits: worth it only while others wait for the pCPU. */
static void intercept_pause(struct vmcb *c, bool on)
{
    c->intercept1 = (c->intercept1 & ~I1_PAUSE) | (on ? I1_PAUSE : 0);
}

/* NMIs come with the interrupts, and need our TR. A self-IPI stands for what they ask for: this entry may be past its last look. */
static void svm_let_in(struct vcpu *v)
{
    struct hvm_pcpu *p = this_hvm();
    struct vendor_pcpu *host = p->vendor;

    vmsave(v->vendor->vmcb_physical);
    vmload(host->host_vmcb);
    off_ends(p, v->off_longest);
    p->handled = NULL; /* a handler that has something to say lets others in as the loop would */
    stgi();
    sti_nop_cli();
    clgi();
    p->handled = v;
    p->off_since = rdtsc();
    vmload(v->vendor->vmcb_physical);
    if (!p->quiet_until && (hvm_called(p) || __atomic_load_n(&v->posted.on, __ATOMIC_RELAXED)))
        ipi_send(this_cpu()->id, VECTOR_KICK);
}

static void svm_run(struct vcpu *v)
{
    struct vendor_state *s = v->vendor;
    struct vendor_pcpu *p = this_hvm()->vendor;

    s->flush = s->flush || p->last != v;
    p->last = v;
    if (!cpu_features.pause_filter)
        intercept_pause(s->vmcb, sched_shared(this_hvm()));
    clgi();
    vmload(s->vmcb_physical);
    __atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    if (v->io.again) {
        v->io.again = false;
        if (svm_again(v) == EXIT_LEAVE)
            goto out;
    }
    while (vcpu_prepare(v) && hvm_may_inject(v)) {
        before_entry(v);
        hvm_before_entry(v, s->leave);
        trace_put(TRACE_HVM_VMENTRY);
        svm_enter(v->emu.regs.gpr, s->vmcb_physical);
        hvm_after_exit(v, s->vmcb->rip);
        after_exit(v);
        if (trace_on(TRACE_HVM_VMEXIT))
            trace_exit(vmcb_of(v));
        if (svm_exit(v) == EXIT_LEAVE)
            break;
    }
out:
    put_regs(v);
    vmsave(s->vmcb_physical);
    vmload(p->host_vmcb);
    stgi();
}

/* ---- A saved domain's registers ---- */

/* Where a register or segment lies in a VMCB and in what is saved. */
#define SEGMENTS(X) X(es) X(cs) X(ss) X(ds) X(fs) X(gs) X(ldtr) X(tr) X(gdtr) X(idtr)
#define REGISTERS(X) \
    X(cr0) X(cr2) X(cr3) X(cr4) X(dr6) X(dr7) X(rflags) X(rip) X(star) X(lstar) X(cstar) X(sfmask) X(kernel_gs_base) \
    X(sysenter_cs) X(sysenter_esp) X(sysenter_eip) X(cpl)

static void svm_get_registers(const struct vcpu *v, struct metronome_state_registers *r)
{
    const struct vmcb *c = vmcb_of(v);

#define X(name) r->name = (struct metronome_state_segment){c->name.selector, c->name.attributes, c->name.limit, c->name.base};
    SEGMENTS(X)
#undef X
#define X(name) r->name = c->name;
    REGISTERS(X)
#undef X
    r->efer = svm_get_efer(v);
    r->interrupt_shadow = c->interrupt_shadow & 1;
    svm_without_step(v, &r->rflags, &r->dr6);
}

/* A step that was under way begins anew: what it waited for is still there. */
static void svm_set_registers(struct vcpu *v, const struct metronome_state_registers *r)
{
    struct vmcb *c = vmcb_of(v);

#define X(name) c->name = segment(r->name.selector, r->name.attributes, r->name.limit, r->name.base);
    SEGMENTS(X)
#undef X
#define X(name) c->name = (__typeof__(c->name))r->name;
    REGISTERS(X)
#undef X
    put_efer(v, r->efer);
    c->interrupt_shadow = r->interrupt_shadow;
    c->rax = r->gpr[EMU_RAX];
    c->rsp = r->gpr[EMU_RSP];
    v->vendor->flush = true;
    take_regs(v);
}

const struct vendor_ops svm_ops = {
    .name = "AMD-V",
    .cpu_init = svm_cpu_init,
    .vcpu_init = svm_vcpu_init,
    .vcpu_destroy = svm_vcpu_destroy,
    .vcpu_reset = svm_vcpu_reset,
    .vcpu_start_flat = svm_vcpu_start_flat,
    .run = svm_run,
    .let_in = svm_let_in,
    .load_regs = svm_load_regs,
    .next_rip = svm_next_rip,
    .skipped = svm_skipped,
    .set_cr2 = svm_set_cr2,
    .get_efer = svm_get_efer,
    .set_efer = svm_set_efer,
    .set_pat = svm_set_pat,
    .get_registers = svm_get_registers,
    .set_registers = svm_set_registers,
};
