/*
 * AMD-V's exit codes: what each means in the core's terms. One table; RIP is at the instruction (APM 2 15.7, 15.10-15.15).
 */
#include "svm/svm.h"

#define DR6_BS (1ull << 14)

/* #BP and #OF stay the guest's: their exits would come before the instruction, not behind it. */
void svm_step(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);

    v->vendor->stepping = true;
    v->vendor->step_tf = c->rflags & RFLAGS_TF;
    v->vendor->step_bs = c->dr6 & DR6_BS;
    c->rflags |= RFLAGS_TF;
    c->dr6 &= ~DR6_BS;
    c->intercept_exceptions = ~(1u << 3 | 1u << 4);
}

void svm_without_step(const struct vcpu *v, uint64_t *rflags, uint64_t *dr6)
{
    const struct vendor_state *s = v->vendor;

    if (s->stepping && !s->step_tf)
        *rflags &= ~RFLAGS_TF;
    if (s->stepping && s->step_bs)
        *dr6 |= DR6_BS;
}

/* Any exit ends a step. True: its #DB was only the step's. */
static bool end_step(struct vcpu *v)
{
    struct vendor_state *s = v->vendor;
    struct vmcb *c = vmcb_of(v);
    bool done = (uint32_t)c->exitcode == VMEXIT_EXCEPTION + 1 && (c->dr6 & DR6_BS);

    if (done && s->over_iret)
        v->nmi_blocked = false; /* and TF is what it took from its frame */
    else if (!s->step_tf)
        v->emu.regs.rflags &= ~RFLAGS_TF;
    if (!s->step_tf)
        c->dr6 &= ~DR6_BS;
    if (s->step_bs)
        c->dr6 |= DR6_BS;
    c->intercept_exceptions = EXCEPTIONS;
    s->stepping = s->over_iret = false;
    return done && !s->step_tf;
}

static enum exit_action on_interrupt(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_INTERRUPT);
    trace_put(TRACE_HVM_INTR);
    return EXIT_LEAVE;
}

static enum exit_action on_nmi(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_NMI);
    trace_put(TRACE_HVM_NMI);
    return EXIT_LEAVE;
}

static enum exit_action on_window(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_WINDOW);
    return EXIT_RESUME;
}

static enum exit_action on_pause(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_PAUSE);
    exit_skip(v);
    sched_pause(this_hvm());
    return EXIT_RESUME;
}

static enum exit_action on_msr(struct vcpu *v)
{
    return exit_msr(v, vmcb_of(v)->exitinfo1 & 1);
}

/* EXITINFO1: bit 0 IN, 2 string, 4-6 size, 16-31 port; EXITINFO2: the next RIP. */
static enum exit_action on_ioio(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);
    uint64_t info = c->exitinfo1;

    if (info & 4)
        return exit_string_io(v, (uint16_t)(info >> 16));
    return exit_port(v, (uint16_t)(info >> 16), info >> 4 & 7, info & 1, c->exitinfo2);
}

static __attribute__((noinline)) void trace_npf(const struct vcpu *v, uint64_t gpa)
{
    bool ram = !io_is_ours(v, gpa) && domain_ram(v->domain, gpa, false);

    trace_record(TRACE_HVM_NPF, TRACE_LONG(gpa), TRACE_LONG(UINT64_MAX), 0, ram ? 0 : 4);
}

/* EXITINFO1: bit 0 present, 1 write, 32 not amid the walk of the guest's tables. EXITINFO2: the guest-physical address. */
static enum exit_action on_npf(struct vcpu *v)
{
    const struct vmcb *c = vmcb_of(v);

    if (trace_on(TRACE_HVM_NPF))
        trace_npf(v, c->exitinfo2);
    return exit_npf(v, c->exitinfo2, c->exitinfo1 & 2, c->exitinfo1 & 1, c->exitinfo1 >> 32 & 1);
}

static enum exit_action on_iret(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_INSTRUCTION);
    v->vendor->over_iret = true; /* NMIs come again behind it: it is stepped over */
    return EXIT_RESUME;
}

/* Exceptions that are intercepted only to break endless loops, or in a step, go back to the guest. */
static enum exit_action on_exception(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);
    uint8_t vector = (uint8_t)(c->exitcode - VMEXIT_EXCEPTION);

    count_exit(v, METRONOME_EXIT_EXCEPTION);
    trace_put(TRACE_HVM_TRAP, vector);
    if (vector == 18) {
        exit_crash(v, "machine check");
        return EXIT_LEAVE;
    }
    if (vector == 14)
        c->cr2 = c->exitinfo2;
    inject_exception(v, vector, WITH_ERROR_CODE >> vector & 1, (uint32_t)c->exitinfo1);
    return EXIT_RESUME;
}

/* Decodes the MOV to CRn or XSETBV at RIP; false: an exception was injected. */
static bool decode_here(struct vcpu *v)
{
    uint64_t rip = v->emu.regs.rip;

    if (!exit_decode_skip(v))
        return false;
    v->emu.insn.immediate = v->emu.regs.rip;
    v->emu.regs.rip = rip;
    return true;
}

static void skip_decoded(struct vcpu *v)
{
    v->emu.regs.rip = v->emu.insn.immediate;
}

static uint64_t source_register(const struct vcpu *v)
{
    const struct emu_insn *i = &v->emu.insn;
    uint64_t value = v->emu.regs.gpr[(i->modrm & 7) | (i->rex & 1 ? 8 : 0)];

    return (v->emu.regs.efer & EFER_LMA) && (v->emu.regs.seg[EMU_CS].attributes & 0x200) ? value : (uint32_t)value;
}

/* MOV to CR4: bits of hidden features and forbidden transitions are #GP (APM 2 3.1.3, 5.1). */
static enum exit_action on_cr4_write(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);
    uint64_t value, changed;

    count_exit(v, METRONOME_EXIT_CR);
    if (!decode_here(v))
        return EXIT_RESUME;
    value = source_register(v);
    trace_put(TRACE_HVM_CR_WRITE64, 4, TRACE_LONG(value));
    changed = value ^ c->cr4;
    if ((value & ~cr4_allowed()) || ((c->efer & EFER_LMA) && !(value & CR4_PAE)) ||
        ((value & CR4_PCIDE) && (changed & CR4_PCIDE) && (!(c->efer & EFER_LMA) || (c->cr3 & 0xfff)))) {
        inject_exception(v, 13, true, 0);
        return EXIT_RESUME;
    }
    c->cr4 = v->emu.regs.cr4 = value;
    if (v->vendor->lme_hidden || ((c->efer & EFER_LME) && !(value & CR4_PAE)))
        svm_set_efer(v, svm_get_efer(v));
    v->vendor->flush = true;
    skip_decoded(v);
    return EXIT_RESUME;
}

static enum exit_action on_cr8_write(struct vcpu *v)
{
    uint64_t value;

    count_exit(v, METRONOME_EXIT_CR);
    if (!decode_here(v))
        return EXIT_RESUME;
    value = source_register(v);
    trace_put(TRACE_HVM_CR_WRITE64, 8, TRACE_LONG(value));
    if (value >> 4) {
        inject_exception(v, 13, true, 0);
        return EXIT_RESUME;
    }
    vlapic_set_cr8(&v->vlapic, value);
    skip_decoded(v);
    return EXIT_RESUME;
}

/* XCR0: x87 always, AVX only with SSE, nothing that the policy hides (APM 2 11.5.2). */
static enum exit_action on_xsetbv(struct vcpu *v)
{
    const uint64_t *gpr = v->emu.regs.gpr;
    uint64_t value = gpr[EMU_RDX] << 32 | (uint32_t)gpr[EMU_RAX];
    bool bad = (uint32_t)gpr[EMU_RCX] != 0 || vmcb_of(v)->cpl || !(value & 1) || (value & ~xcr0_allowed()) ||
               ((value & 4) && !(value & 2));

    count_exit(v, METRONOME_EXIT_INSTRUCTION);
    trace_put(TRACE_HVM_XCR_WRITE64, (uint32_t)gpr[EMU_RCX], TRACE_LONG(value));
    if (bad) {
        inject_exception(v, 13, true, 0);
        return EXIT_RESUME;
    }
    if (exit_skip(v)) {
        v->xcr0 = value;
        xsetbv(0, value);
    }
    return EXIT_RESUME;
}

/* Caches are coherent and memory is write-back: INVD and WBINVD have nothing to do. */
static enum exit_action on_cache_flush(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_INSTRUCTION);
    exit_skip(v);
    return EXIT_RESUME;
}

/* Instructions of features that CPUID hides. */
static enum exit_action on_undefined(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_INSTRUCTION);
    inject_exception(v, 6, false, 0);
    return EXIT_RESUME;
}

static enum exit_action on_rdpmc(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_INSTRUCTION);
    inject_exception(v, 13, true, 0);
    return EXIT_RESUME;
}

static enum exit_action (*const handlers[0x90])(struct vcpu *v) = {
    [VMEXIT_CR_WRITE + 4] = on_cr4_write, [VMEXIT_CR_WRITE + 8] = on_cr8_write,
    [VMEXIT_EXCEPTION ... VMEXIT_EXCEPTION + 31] = on_exception,
    [VMEXIT_INTR] = on_interrupt, [VMEXIT_NMI] = on_nmi, [VMEXIT_SMI] = on_interrupt, [VMEXIT_INIT] = on_interrupt,
    [VMEXIT_VINTR] = on_window, [VMEXIT_RDPMC] = on_rdpmc, [VMEXIT_CPUID] = exit_cpuid, [VMEXIT_IRET] = on_iret,
    [VMEXIT_INVD] = on_cache_flush, [VMEXIT_PAUSE] = on_pause, [VMEXIT_HLT] = exit_hlt, [VMEXIT_INVLPGA] = on_undefined,
    [VMEXIT_IOIO] = on_ioio, [VMEXIT_MSR] = on_msr, [VMEXIT_SHUTDOWN] = exit_triple_fault, [VMEXIT_VMRUN] = on_undefined,
    [VMEXIT_VMMCALL] = exit_vmmcall, [VMEXIT_VMLOAD] = on_undefined, [VMEXIT_VMSAVE] = on_undefined,
    [VMEXIT_STGI] = on_undefined, [VMEXIT_CLGI] = on_undefined, [VMEXIT_SKINIT] = on_undefined,
    [VMEXIT_WBINVD] = on_cache_flush, [VMEXIT_MONITOR] = on_undefined, [VMEXIT_MWAIT] = on_undefined,
    [VMEXIT_MWAIT_ARMED] = on_undefined, [VMEXIT_XSETBV] = on_xsetbv,
};

static enum exit_action handle(struct vcpu *v)
{
    uint32_t code = (uint32_t)vmcb_of(v)->exitcode;

    if (code == VMEXIT_NPF)
        return on_npf(v);
    if (code < sizeof(handlers) / sizeof(handlers[0]) && handlers[code])
        return handlers[code](v);
    exit_crash(v, code == VMEXIT_INVALID ? "the CPU refuses its state" : "unknown exit code %#x", code);
    return EXIT_LEAVE;
}

/* An instruction that we have done in the guest's place traps after it like one that the CPU did (APM 2 13.1.4). */
static void trap_step(struct vcpu *v, uint64_t rip)
{
    if (v->emu.regs.rip == rip || v->event_pending)
        return;
    vmcb_of(v)->dr6 |= DR6_BS;
    inject_exception(v, 1, false, 0);
}

static enum exit_action with_step(struct vcpu *v, enum exit_action (*what)(struct vcpu *v))
{
    uint64_t rip = v->emu.regs.rip;
    bool step = v->emu.regs.rflags & RFLAGS_TF;
    enum exit_action action = what(v);

    if (step)
        trap_step(v, rip);
    return action;
}

enum exit_action svm_exit(struct vcpu *v)
{
    if (v->vendor->stepping && end_step(v)) {
        count_exit(v, METRONOME_EXIT_WINDOW);
        trace_put(TRACE_HVM_TRAP, 1);
        return EXIT_RESUME;
    }
    return with_step(v, handle);
}

enum exit_action svm_again(struct vcpu *v)
{
    return with_step(v, exit_emulate);
}
