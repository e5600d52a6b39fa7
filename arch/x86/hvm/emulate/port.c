/* IN and OUT, and what INS and OUTS share with them. */
#include "internal.h"

/* The permission of SDM 1 19.5: IOPL, else (and always in VM86) the TSS bitmap. */
enum emu_status emu_port_check(struct emu *e, uint16_t port, unsigned size)
{
    const struct emu_regs *r = &e->regs;
    bool vm86 = (r->rflags & FLAG_VM) && (r->cr0 & CR0_PE);

    if (!(r->cr0 & CR0_PE) || (!vm86 && r->cpl <= (r->rflags >> FLAG_IOPL_SHIFT & 3)))
        return EMU_OK;
    return e->ops->port_allowed(e->ctx, port, size) ? EMU_OK : emu_raise_code(e, VECTOR_GP, 0);
}

enum emu_status emu_port_in(struct emu *e, uint16_t port, unsigned size, uint64_t *value)
{
    e->accesses++;
    TRY(e->ops->port_read(e->ctx, port, size, value));
    *value &= size_mask(size);
    return EMU_OK;
}

enum emu_status emu_port_out(struct emu *e, uint16_t port, unsigned size, uint64_t value)
{
    e->accesses++;
    return e->ops->port_write(e->ctx, port, size, value & size_mask(size));
}

/* E4 to E7 name the port, EC to EF take it from DX. */
static uint16_t port_of(const struct emu *e)
{
    return (uint16_t)(e->insn.opcode & 8 ? e->regs.gpr[EMU_RDX] : e->insn.immediate);
}

enum emu_status emu_run_in(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    uint16_t port = port_of(e);
    uint64_t value;

    TRY(emu_port_check(e, port, size));
    TRY(emu_port_in(e, port, size, &value));
    emu_reg_write(e, EMU_RAX, size, value);
    return emu_finish(e);
}

enum emu_status emu_run_out(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    uint16_t port = port_of(e);

    TRY(emu_port_check(e, port, size));
    TRY(emu_port_out(e, port, size, emu_reg_read(e, EMU_RAX, size)));
    return emu_finish(e);
}
