/* The table of handlers, and those of the MOV family. */
#include "internal.h"

static enum emu_status run_none(struct emu *e)
{
    (void)e;
    return EMU_UNHANDLED;
}

static enum emu_status run_ud(struct emu *e)
{
    return emu_raise(e, VECTOR_UD);
}

/* Destination r/m: MOV 88 89, MOVNTI. */
static enum emu_status run_mov_rm_r(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    struct place p;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_write(e, &p, emu_reg_read(e, modrm_reg(&e->insn), size)));
    return emu_finish(e);
}

/* Reads the r/m operand. */
static enum emu_status load_rm(struct emu *e, unsigned size, uint64_t *value)
{
    struct place p;

    TRY(emu_rm_place(e, size, EMU_READ, &p));
    return emu_place_read(e, &p, value);
}

static enum emu_status run_mov_r_rm(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    uint64_t value;

    TRY(load_rm(e, size, &value));
    emu_reg_write(e, modrm_reg(&e->insn), size, value);
    return emu_finish(e);
}

static enum emu_status run_mov_rm_imm(struct emu *e)
{
    struct place p;

    if (modrm_digit(&e->insn))
        return EMU_UNHANDLED; /* XABORT, XBEGIN */
    TRY(emu_rm_place(e, e->insn.operand_size, EMU_WRITE, &p));
    TRY(emu_place_write(e, &p, e->insn.immediate));
    return emu_finish(e);
}

unsigned emu_mov_to_memory(const struct emu *e, uint64_t *value)
{
    const struct emu_insn *i = &e->insn;
    unsigned size = i->operand_size >= 4 ? i->operand_size : 0;

    switch (i->handler) {
    case HANDLER_MOV_RM_R: *value = e->regs.gpr[modrm_reg(i)] & size_mask(i->operand_size); return modrm_mod(i) != 3 ? size : 0;
    case HANDLER_MOV_RM_IMM: *value = i->immediate & size_mask(i->operand_size); return modrm_mod(i) != 3 && !modrm_digit(i) ? size : 0;
    case HANDLER_MOV_MOFFS_ACC: *value = e->regs.gpr[EMU_RAX] & size_mask(i->operand_size); return size;
    default: return 0;
    }
}

unsigned emu_mov_from_memory(const struct emu *e, unsigned *reg)
{
    const struct emu_insn *i = &e->insn;
    unsigned size = i->operand_size >= 4 ? i->operand_size : 0;

    switch (i->handler) {
    case HANDLER_MOV_R_RM: *reg = modrm_reg(i); return modrm_mod(i) != 3 ? size : 0;
    case HANDLER_MOV_ACC_MOFFS: *reg = EMU_RAX; return size;
    default: return 0;
    }
}

static enum emu_status run_mov_acc_moffs(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    struct place p;
    uint64_t value;

    TRY(emu_memory_place(e, e->insn.memory_segment, e->insn.immediate, size, EMU_READ, &p));
    TRY(emu_place_read(e, &p, &value));
    emu_reg_write(e, EMU_RAX, size, value);
    return emu_finish(e);
}

static enum emu_status run_mov_moffs_acc(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    struct place p;

    TRY(emu_memory_place(e, e->insn.memory_segment, e->insn.immediate, size, EMU_WRITE, &p));
    TRY(emu_place_write(e, &p, emu_reg_read(e, EMU_RAX, size)));
    return emu_finish(e);
}

/* To memory always 16 bits; to a register the operand size, zero-extended. */
static enum emu_status run_mov_rm_sreg(struct emu *e)
{
    unsigned digit = modrm_digit(&e->insn);
    struct place p;

    if (digit >= EMU_SEGMENTS)
        return emu_raise(e, VECTOR_UD);
    TRY(emu_rm_place(e, modrm_mod(&e->insn) == 3 ? e->insn.operand_size : 2, EMU_WRITE, &p));
    TRY(emu_place_write(e, &p, e->regs.seg[digit].selector));
    return emu_finish(e);
}

static enum emu_status run_movzx(struct emu *e)
{
    uint64_t value;

    TRY(load_rm(e, 1 + (e->insn.opcode & 1), &value));
    emu_reg_write(e, modrm_reg(&e->insn), e->insn.operand_size, value);
    return emu_finish(e);
}

/* The source's register number must be read as a byte, the destination's not: only the source can be AH to BH. */
static enum emu_status run_movsx(struct emu *e)
{
    unsigned size = 1 + (e->insn.opcode & 1);
    uint64_t value;

    TRY(load_rm(e, size, &value));
    emu_reg_write(e, modrm_reg(&e->insn), e->insn.operand_size, sign_extend(value, size));
    return emu_finish(e);
}

static enum emu_status run_movsxd(struct emu *e)
{
    unsigned size = e->insn.operand_size < 4 ? e->insn.operand_size : 4;
    uint64_t value;

    TRY(load_rm(e, size, &value));
    emu_reg_write(e, modrm_reg(&e->insn), e->insn.operand_size, sign_extend(value, size));
    return emu_finish(e);
}

/* 0F38 F0 loads, F1 stores. */
static enum emu_status run_movbe(struct emu *e)
{
    unsigned size = e->insn.operand_size, reg = modrm_reg(&e->insn);
    bool stores = e->insn.opcode & 1;
    struct place p;
    uint64_t value;

    if (modrm_mod(&e->insn) == 3)
        return emu_raise(e, VECTOR_UD);
    TRY(emu_rm_place(e, size, stores ? EMU_WRITE : EMU_READ, &p));
    if (stores) {
        TRY(emu_place_write(e, &p, __builtin_bswap64(emu_reg_read(e, reg, size)) >> (64 - 8 * size)));
    } else {
        TRY(emu_place_read(e, &p, &value));
        emu_reg_write(e, reg, size, __builtin_bswap64(value) >> (64 - 8 * size));
    }
    return emu_finish(e);
}

/* The source is read, and a 32-bit destination's upper half cleared, whether the condition holds or not. */
static enum emu_status run_cmov(struct emu *e)
{
    unsigned size = e->insn.operand_size, reg = modrm_reg(&e->insn);
    uint64_t value;

    TRY(load_rm(e, size, &value));
    emu_reg_write(e, reg, size, emu_condition(e->insn.opcode, e->regs.rflags) ? value : emu_reg_read(e, reg, size));
    return emu_finish(e);
}

static enum emu_status run_setcc(struct emu *e)
{
    struct place p;

    TRY(emu_rm_place(e, 1, EMU_WRITE, &p));
    TRY(emu_place_write(e, &p, emu_condition(e->insn.opcode, e->regs.rflags)));
    return emu_finish(e);
}

static enum emu_status (*const handlers[HANDLER_COUNT])(struct emu *e) = {
    [HANDLER_NONE] = run_none,
    [HANDLER_UD] = run_ud,
    [HANDLER_MOV_RM_R] = run_mov_rm_r,
    [HANDLER_MOV_R_RM] = run_mov_r_rm,
    [HANDLER_MOV_RM_IMM] = run_mov_rm_imm,
    [HANDLER_MOV_ACC_MOFFS] = run_mov_acc_moffs,
    [HANDLER_MOV_MOFFS_ACC] = run_mov_moffs_acc,
    [HANDLER_MOV_RM_SREG] = run_mov_rm_sreg,
    [HANDLER_MOVZX] = run_movzx,
    [HANDLER_MOVSX] = run_movsx,
    [HANDLER_MOVSXD] = run_movsxd,
    [HANDLER_MOVBE] = run_movbe,
    [HANDLER_CMOV] = run_cmov,
    [HANDLER_SETCC] = run_setcc,
    [HANDLER_ALU_RM_R] = emu_run_alu_rm_r,
    [HANDLER_ALU_R_RM] = emu_run_alu_r_rm,
    [HANDLER_ALU_RM_IMM] = emu_run_alu_rm_imm,
    [HANDLER_TEST_RM_R] = emu_run_test_rm_r,
    [HANDLER_GROUP3] = emu_run_group3,
    [HANDLER_GROUP4] = emu_run_group4,
    [HANDLER_GROUP5] = emu_run_group5,
    [HANDLER_SHIFT_IMM] = emu_run_shift_imm,
    [HANDLER_SHIFT_1] = emu_run_shift_1,
    [HANDLER_SHIFT_CL] = emu_run_shift_cl,
    [HANDLER_XCHG] = emu_run_xchg,
    [HANDLER_XADD] = emu_run_xadd,
    [HANDLER_CMPXCHG] = emu_run_cmpxchg,
    [HANDLER_GROUP9] = emu_run_group9,
    [HANDLER_BT_REG] = emu_run_bt_reg,
    [HANDLER_BT_IMM] = emu_run_bt_imm,
    [HANDLER_POP_RM] = emu_run_pop_rm,
    [HANDLER_STRING] = emu_run_string,
    [HANDLER_IN] = emu_run_in,
    [HANDLER_OUT] = emu_run_out,
    [HANDLER_VECTOR] = emu_run_vector,
};

enum emu_status emu_run_decoded(struct emu *e)
{
    enum emu_status status;

    e->accesses = 0;
    status = handlers[e->insn.handler < HANDLER_COUNT ? e->insn.handler : HANDLER_NONE](e);
    return __builtin_expect(status == EMU_AGAIN, false) ? EMU_OK : status;
}
