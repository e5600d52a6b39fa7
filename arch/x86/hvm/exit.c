/*
 * What exits mean, for every vendor. Called with the guest's rip, rflags, rax and rsp in emu.regs.
 */
#include "hvm.h"

static void inject_emulated(struct vcpu *v)
{
    const struct emu_exception *x = &v->emu.exception;

    if (x->vector == 14)
        vendor->set_cr2(v, x->cr2);
    inject_exception(v, x->vector, x->has_error_code, x->error_code);
}

static void crash_unhandled(struct vcpu *v)
{
    uint8_t b[15] = {0};
    unsigned n = 0;

    (void)emu_fetch(&v->emu, b, &n);
    exit_crash(v, "cannot emulate %02x %02x %02x %02x %02x %02x %02x %02x (%u bytes read)", b[0], b[1], b[2], b[3], b[4], b[5],
               b[6], b[7], n);
}

static uint32_t mode_key(const struct emu_regs *r)
{
    uint32_t cs = r->seg[EMU_CS].attributes & 0x600;

    return cs | (uint32_t)(r->cr0 & CR0_PE) | (r->rflags & RFLAGS_VM ? 2 : 0) | (r->efer & EFER_LMA ? 4 : 0);
}

/* Skips or runs the instruction at RIP by way of the decode cache: the bytes are fetched anew each time (translations may change
 * unseen), and only the decoding is saved when they are the same. */
static enum emu_status work(struct vcpu *v, enum emu_status (*whole)(struct emu *), enum emu_status (*decoded)(struct emu *))
{
    struct emu *e = &v->emu;
    uint64_t linear = emu_linear_rip(&e->regs);
    struct decode_entry *c = &v->decode[(linear ^ linear >> 6) % DECODE_CACHE];
    uint32_t mode = mode_key(&e->regs);
    uint8_t bytes[15];
    unsigned n;
    enum emu_status status;

    if (c->mode == mode && emu_is_here(e, &c->insn)) {
        e->insn = c->insn;
        return decoded(e);
    }
    status = emu_fetch(e, bytes, &n);
    if (status != EMU_OK)
        return status;
    hvm_breathe();
    if (c->insn.length && c->mode == mode && n >= c->insn.length && !memcmp(bytes, c->insn.bytes, c->insn.length)) {
        e->insn = c->insn;
        return decoded(e);
    }
    if (!emu_decode(&e->regs, bytes, n, &e->insn))
        return whole(e); /* too long, or its end cannot be fetched: it knows the exception */
    c->mode = mode;
    c->insn = e->insn;
    hvm_breathe();
    return decoded(e);
}

static void load_regs(struct vcpu *v)
{
    vendor->load_regs(v);
    v->emu.ram_generation = __atomic_load_n(&v->domain->p2m.generation, __ATOMIC_ACQUIRE);
}

bool exit_decode_skip(struct vcpu *v)
{
    enum emu_status status;

    hvm_breathe();
    load_regs(v);
    status = work(v, emu_skip, emu_skip_decoded);
    if (status == EMU_EXCEPTION)
        inject_emulated(v);
    else if (status == EMU_UNHANDLED)
        crash_unhandled(v);
    hvm_breathe();
    return status == EMU_OK;
}

bool exit_skip(struct vcpu *v)
{
    uint64_t next = vendor->next_rip ? vendor->next_rip(v) : 0;

    if (!next) {
        if (!exit_decode_skip(v))
            return false;
        if (vendor->skipped)
            vendor->skipped(v);
        return true;
    }
    v->emu.regs.rip = next;
    v->emu.regs.rflags &= ~RFLAGS_RF;
    return true;
}

void exit_crash(struct vcpu *v, const char *format, ...)
{
    char text[160];
    va_list args;

    va_start(args, format);
    vformat_line(text, sizeof(text), format, args);
    va_end(args);
    domain_end(v->domain, METRONOME_END_CRASH, 0, "vCPU %u at %#llx: %s", v->id, (unsigned long long)v->emu.regs.rip, text);
}

enum exit_action exit_cpuid(struct vcpu *v)
{
    uint64_t *gpr = v->emu.regs.gpr;
    struct cpuid_result r;

    count_exit(v, METRONOME_EXIT_CPUID);
    if (!exit_skip(v))
        return EXIT_RESUME;
    r = cpuid_policy(v, (uint32_t)gpr[EMU_RAX], (uint32_t)gpr[EMU_RCX]);
    trace_put(TRACE_HVM_CPUID, (uint32_t)gpr[EMU_RAX], (uint32_t)gpr[EMU_RCX], r.eax, r.ebx, r.ecx, r.edx);
    gpr[EMU_RAX] = r.eax;
    gpr[EMU_RBX] = r.ebx;
    gpr[EMU_RCX] = r.ecx;
    gpr[EMU_RDX] = r.edx;
    return EXIT_RESUME;
}

enum exit_action exit_hlt(struct vcpu *v)
{
    bool goes_on;

    count_exit(v, METRONOME_EXIT_HLT);
    if (!exit_skip(v))
        return EXIT_RESUME;
    vcpu_drain(v);
    goes_on = inject_pending(v) || (v->emu.regs.rflags & RFLAGS_TF); /* a single step ends it as well */
    trace_put(TRACE_HVM_HLT, goes_on);
    if (goes_on)
        return EXIT_RESUME;
    v->halted = true;
    sched_block(v, VCPU_IDLE);
    return EXIT_LEAVE;
}

enum exit_action exit_msr(struct vcpu *v, bool write)
{
    uint64_t *gpr = v->emu.regs.gpr;
    uint32_t msr = (uint32_t)gpr[EMU_RCX];
    uint64_t value = (gpr[EMU_RDX] << 32) | (uint32_t)gpr[EMU_RAX];
    bool done;

    count_exit(v, msr - MSR_X2APIC_FIRST < 0x100 ? METRONOME_EXIT_MSR_X2APIC : METRONOME_EXIT_MSR);
    done = write ? msr_write(v, msr, value) : msr_read(v, msr, &value);
    if (write)
        trace_put(TRACE_HVM_MSR_WRITE, msr, TRACE_LONG(value));
    else
        trace_put(TRACE_HVM_MSR_READ, msr, TRACE_LONG(value));
    if (!done) {
        log_debug("d%u v%u: #GP for %s of MSR %#x at %#llx\n", v->domain->slot->index, v->id, write ? "write" : "read", msr,
                  (unsigned long long)v->emu.regs.rip);
        inject_exception(v, 13, true, 0);
        return EXIT_RESUME;
    }
    if (!exit_skip(v))
        return EXIT_RESUME;
    if (!write) {
        gpr[EMU_RAX] = (uint32_t)value;
        gpr[EMU_RDX] = value >> 32;
    }
    return EXIT_RESUME;
}

/* RIP moves on before the answer is in: an IN that must wait completes into RAX later. What waits without a request, for room in
 * the console, is not begun. */
enum exit_action exit_port(struct vcpu *v, uint16_t port, unsigned size, bool in, uint64_t next)
{
    uint64_t *rax = &v->emu.regs.gpr[EMU_RAX];
    uint64_t mask = all_ones(size);
    uint64_t value = in ? 0 : *rax & mask;

    v->io.port_in = in;
    v->io.emulating = false;
    if (io_port(v, port, size, !in, &value) == EMU_WAIT) {
        if (v->io.waiting)
            v->emu.regs.rip = next;
        return EXIT_LEAVE;
    }
    v->emu.regs.rip = next;
    v->io.port_in = false;
    if (trace_on(TRACE_HVM_IOPORT_READ))
        trace_io(true, !in, port, value);
    if (in)
        *rax = size == 4 ? value & mask : (*rax & ~mask) | (value & mask);
    return EXIT_RESUME;
}

/* A MOV at one of our own devices, for which the CPU has translated the address: nothing there waits. */
static bool move(struct vcpu *v)
{
    struct emu *e = &v->emu;
    uint64_t gpa = v->io.fault_gpa, value = 0;
    bool write = v->io.fault_write;
    unsigned reg = 0, size = write ? emu_mov_to_memory(e, &value) : emu_mov_from_memory(e, &reg);

    if (!size || (gpa & (size - 1)))
        return false;
    io_mmio(v, gpa, size, write, &value);
    if (trace_on(TRACE_HVM_IOPORT_READ))
        trace_io(false, write, gpa, value);
    if (!write)
        e->regs.gpr[reg] = value & all_ones(size);
    return true;
}

static enum emu_status run_at_ours(struct emu *e)
{
    return move(e->ctx) ? emu_skip_decoded(e) : emu_run_decoded(e);
}

static enum exit_action emulate(struct vcpu *v, enum emu_status (*run_decoded)(struct emu *))
{
    enum emu_status status;

    hvm_breathe();
    load_regs(v);
    v->io.emulating = true;
    v->io.replayed = 0;
    status = work(v, emu_run, run_decoded);
    if (status == EMU_WAIT && v->io.waiting)
        return EXIT_LEAVE;
    v->io.logged = v->io.replayed = 0;
    if (status == EMU_WAIT) /* for room in the console: something else may run before it */
        return EXIT_LEAVE;
    if (status == EMU_EXCEPTION)
        inject_emulated(v);
    else if (status == EMU_UNHANDLED)
        crash_unhandled(v);
    hvm_breathe();
    return EXIT_RESUME;
}

enum exit_action exit_emulate(struct vcpu *v)
{
    return emulate(v, emu_run_decoded);
}

#define BUDGET_OWN 1u /* with our own devices each iteration takes its time here: interrupts come in between */

enum exit_action exit_string_io(struct vcpu *v, uint16_t port)
{
    bool request = v->domain->has_dm && v->domain->port_owner[port] == OWNER_DM;

    v->emu.budget = request ? BUDGET_REQUEST : BUDGET_OWN;
    v->io.further = false;
    return exit_emulate(v);
}

enum exit_action exit_npf(struct vcpu *v, uint64_t gpa, bool write, bool present, bool operand)
{
    bool request = v->domain->has_dm && !io_is_ours(v, gpa) && !domain_ram(v->domain, gpa, false);

    /* RAM that another vCPU has mapped since, or whose translation was being split: just try again. */
    if (!present && !io_is_ours(v, gpa) && domain_ram(v->domain, gpa, write)) {
        count_exit(v, METRONOME_EXIT_NPF);
        return EXIT_RESUME;
    }
    if (v->event_pending) { /* it is not the instruction at RIP that accesses it */
        exit_crash(v, "event %u cannot be delivered: its stack or tables at %#llx are no memory", v->event_vector,
                   (unsigned long long)gpa);
        return EXIT_LEAVE;
    }
    v->emu.budget = request ? BUDGET_REQUEST : BUDGET_OWN;
    v->io.further = false;
    v->io.fault_gpa = gpa;
    v->io.fault_write = write;
    return emulate(v, operand && io_is_ours(v, gpa) ? run_at_ours : emu_run_decoded);
}

enum exit_action exit_vmmcall(struct vcpu *v)
{
    count_exit(v, METRONOME_EXIT_VMMCALL);
    trace_put(TRACE_HVM_VMMCALL, (uint32_t)v->emu.regs.gpr[EMU_RAX]);
    if (exit_skip(v))
        v->emu.regs.gpr[EMU_RAX] = (uint64_t)-METRONOME_ENOSYS; /* no hypercalls yet */
    return EXIT_RESUME;
}

enum exit_action exit_triple_fault(struct vcpu *v)
{
    struct domain *d = v->domain;

    count_exit(v, METRONOME_EXIT_SHUTDOWN);
    if (d->has_dm)
        domain_request_reset(d);
    else
        domain_end(d, METRONOME_END_TRIPLE_FAULT, 0, "triple fault of vCPU %u at %#llx", v->id,
                   (unsigned long long)v->emu.regs.rip);
    return EXIT_LEAVE;
}
