/* PUSH and POP of memory. */
#include "internal.h"

static unsigned stack_address_size(const struct emu_regs *r)
{
    if (in_64bit_mode(r))
        return 8;
    return r->seg[EMU_SS].attributes & SEG_BIG ? 4 : 2;
}

enum emu_status emu_run_push_rm(struct emu *e)
{
    unsigned size = e->insn.operand_size, width = stack_address_size(&e->regs);
    uint64_t sp = (e->regs.gpr[EMU_RSP] - size) & size_mask(width), value;
    struct place from, to;

    TRY(emu_rm_place(e, size, EMU_READ, &from));
    TRY(emu_memory_place(e, EMU_SS, sp, size, EMU_WRITE, &to));
    TRY(emu_place_read(e, &from, &value));
    TRY(emu_place_write(e, &to, value));
    emu_reg_write(e, EMU_RSP, width, sp);
    return emu_finish(e);
}

static enum emu_status pop_to_rm(struct emu *e, const struct place *from)
{
    struct place to;
    uint64_t value;

    TRY(emu_rm_place(e, e->insn.operand_size, EMU_WRITE, &to));
    TRY(emu_place_read(e, from, &value));
    TRY(emu_place_write(e, &to, value));
    return emu_finish(e);
}

/* An address by RSP counts from the RSP after the pop (SDM 2B POP). */
enum emu_status emu_run_pop_rm(struct emu *e)
{
    unsigned size = e->insn.operand_size, width = stack_address_size(&e->regs);
    uint64_t rsp = e->regs.gpr[EMU_RSP];
    enum emu_status status;
    struct place from;

    if (modrm_digit(&e->insn))
        return emu_raise(e, VECTOR_UD);
    TRY(emu_memory_place(e, EMU_SS, rsp & size_mask(width), size, EMU_READ, &from));
    emu_reg_write(e, EMU_RSP, width, rsp + size);
    status = pop_to_rm(e, &from);
    if (status != EMU_OK)
        e->regs.gpr[EMU_RSP] = rsp;
    return status;
}
