/* Instructions that read, compute and perhaps write back: the ALU groups, shifts, exchanges and bit tests. */
#include "internal.h"

/* Writes a result, then its flags: the write may have to wait. */
static enum emu_status write_back(struct emu *e, const struct place *p, uint64_t old, uint64_t result, uint64_t rflags)
{
    TRY(emu_place_update(e, p, old, result));
    e->regs.rflags = rflags;
    return emu_finish(e);
}

/* ADD to CMP with r/m as the destination. */
static enum emu_status alu_to_rm(struct emu *e, enum alu_op op, uint64_t source)
{
    unsigned size = e->insn.operand_size;
    uint64_t rflags = e->regs.rflags, old, result;
    struct place p;

    TRY(emu_rm_place(e, size, op == ALU_CMP ? EMU_READ : EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    result = emu_alu(op, size, old, source, &rflags);
    if (op != ALU_CMP)
        return write_back(e, &p, old, result, rflags);
    e->regs.rflags = rflags;
    return emu_finish(e);
}

enum emu_status emu_run_alu_rm_r(struct emu *e)
{
    return alu_to_rm(e, e->insn.opcode >> 3 & 7, emu_reg_read(e, modrm_reg(&e->insn), e->insn.operand_size));
}

enum emu_status emu_run_alu_rm_imm(struct emu *e)
{
    return alu_to_rm(e, modrm_digit(&e->insn), e->insn.immediate);
}

enum emu_status emu_run_alu_r_rm(struct emu *e)
{
    unsigned size = e->insn.operand_size, reg = modrm_reg(&e->insn);
    enum alu_op op = e->insn.opcode >> 3 & 7;
    struct place p;
    uint64_t value;

    TRY(emu_rm_place(e, size, EMU_READ, &p));
    TRY(emu_place_read(e, &p, &value));
    value = emu_alu(op, size, emu_reg_read(e, reg, size), value, &e->regs.rflags);
    if (op != ALU_CMP)
        emu_reg_write(e, reg, size, value);
    return emu_finish(e);
}

static enum emu_status test_rm(struct emu *e, uint64_t with)
{
    unsigned size = e->insn.operand_size;
    struct place p;
    uint64_t value;

    TRY(emu_rm_place(e, size, EMU_READ, &p));
    TRY(emu_place_read(e, &p, &value));
    emu_alu(ALU_AND, size, value, with, &e->regs.rflags);
    return emu_finish(e);
}

enum emu_status emu_run_test_rm_r(struct emu *e)
{
    return test_rm(e, emu_reg_read(e, modrm_reg(&e->insn), e->insn.operand_size));
}

/* F6 and F7: TEST, NOT, NEG; MUL to IDIV are not emulated. */
enum emu_status emu_run_group3(struct emu *e)
{
    unsigned size = e->insn.operand_size, digit = modrm_digit(&e->insn);
    uint64_t rflags = e->regs.rflags, old, result;
    struct place p;

    if (digit < 2)
        return test_rm(e, e->insn.immediate);
    if (digit > 3)
        return EMU_UNHANDLED;
    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    result = digit == 2 ? ~old & size_mask(size) : emu_alu(ALU_SUB, size, 0, old, &rflags);
    return write_back(e, &p, old, result, rflags);
}

/* INC and DEC leave CF alone. */
static enum emu_status step_rm(struct emu *e, enum alu_op op)
{
    unsigned size = e->insn.operand_size;
    uint64_t rflags = e->regs.rflags, old, result;
    struct place p;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    result = emu_alu(op, size, old, 1, &rflags);
    rflags = (rflags & ~(uint64_t)FLAG_CF) | (e->regs.rflags & FLAG_CF);
    return write_back(e, &p, old, result, rflags);
}

/* FE: INC, DEC. */
enum emu_status emu_run_group4(struct emu *e)
{
    unsigned digit = modrm_digit(&e->insn);

    return digit < 2 ? step_rm(e, digit ? ALU_SUB : ALU_ADD) : EMU_UNHANDLED;
}

/* FF: INC, DEC, PUSH; jumps and calls through device memory are not emulated. */
enum emu_status emu_run_group5(struct emu *e)
{
    return modrm_digit(&e->insn) == 6 ? emu_run_push_rm(e) : emu_run_group4(e);
}

static enum emu_status shift_rm(struct emu *e, unsigned count)
{
    unsigned size = e->insn.operand_size;
    uint64_t rflags = e->regs.rflags, old, result;
    struct place p;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    result = emu_alu_shift(modrm_digit(&e->insn), size, old, count, &rflags);
    return write_back(e, &p, old, result, rflags);
}

enum emu_status emu_run_shift_imm(struct emu *e)
{
    return shift_rm(e, (unsigned)e->insn.immediate);
}

enum emu_status emu_run_shift_1(struct emu *e)
{
    return shift_rm(e, 1);
}

enum emu_status emu_run_shift_cl(struct emu *e)
{
    return shift_rm(e, e->regs.gpr[EMU_RCX] & 0xff);
}

enum emu_status emu_run_xchg(struct emu *e)
{
    unsigned size = e->insn.operand_size, reg = modrm_reg(&e->insn);
    struct place p;
    uint64_t old;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    TRY(emu_place_update(e, &p, old, emu_reg_read(e, reg, size)));
    emu_reg_write(e, reg, size, old);
    return emu_finish(e);
}

enum emu_status emu_run_xadd(struct emu *e)
{
    unsigned size = e->insn.operand_size, reg = modrm_reg(&e->insn);
    uint64_t rflags = e->regs.rflags, old, sum;
    struct place p;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    sum = emu_alu(ALU_ADD, size, old, emu_reg_read(e, reg, size), &rflags);
    TRY(emu_place_update(e, &p, old, sum));
    emu_reg_write(e, reg, size, old);
    if (p.reg >= 0) /* with the same register twice the sum stays */
        emu_reg_write(e, (unsigned)p.reg, size, sum);
    e->regs.rflags = rflags;
    return emu_finish(e);
}

/* Memory is written in either case (SDM 2A CMPXCHG); a register that differs is not touched, its upper half neither. */
enum emu_status emu_run_cmpxchg(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    uint64_t rflags = e->regs.rflags, old;
    struct place p;

    TRY(emu_rm_place(e, size, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    emu_alu(ALU_CMP, size, emu_reg_read(e, EMU_RAX, size), old, &rflags);
    if (rflags & FLAG_ZF)
        TRY(emu_place_update(e, &p, old, emu_reg_read(e, modrm_reg(&e->insn), size)));
    else if (p.reg < 0)
        TRY(emu_place_update(e, &p, old, old));
    if (!(rflags & FLAG_ZF))
        emu_reg_write(e, EMU_RAX, size, old);
    e->regs.rflags = rflags;
    return emu_finish(e);
}

static enum emu_status cmpxchg8b(struct emu *e)
{
    uint64_t expected = emu_reg_read(e, EMU_RAX, 4) | emu_reg_read(e, EMU_RDX, 4) << 32, old;
    struct place p;

    TRY(emu_rm_place(e, 8, EMU_WRITE, &p));
    TRY(emu_place_read(e, &p, &old));
    if (old == expected) {
        TRY(emu_place_update(e, &p, old, emu_reg_read(e, EMU_RBX, 4) | emu_reg_read(e, EMU_RCX, 4) << 32));
        e->regs.rflags |= FLAG_ZF;
    } else {
        TRY(emu_place_update(e, &p, old, old));
        emu_reg_write(e, EMU_RAX, 4, old);
        emu_reg_write(e, EMU_RDX, 4, old >> 32);
        e->regs.rflags &= ~(uint64_t)FLAG_ZF;
    }
    return emu_finish(e);
}

static enum emu_status cmpxchg16b(struct emu *e)
{
    uint64_t *gpr = e->regs.gpr, old[2], new[2] = { gpr[EMU_RBX], gpr[EMU_RCX] }, linear;
    struct place p;

    TRY(emu_linearize(e, e->insn.memory_segment, emu_effective_address(e), 16, EMU_WRITE, &linear));
    if (linear & 15)
        return emu_raise_code(e, VECTOR_GP, 0);
    TRY(emu_linear_place(e, linear, 16, EMU_WRITE, &p));
    TRY(emu_place_read16(e, &p, old));
    if (old[0] == gpr[EMU_RAX] && old[1] == gpr[EMU_RDX]) {
        TRY(emu_place_update16(e, &p, old, new));
        e->regs.rflags |= FLAG_ZF;
    } else {
        TRY(emu_place_update16(e, &p, old, old));
        gpr[EMU_RAX] = old[0];
        gpr[EMU_RDX] = old[1];
        e->regs.rflags &= ~(uint64_t)FLAG_ZF;
    }
    return emu_finish(e);
}

/* 0F C7 /1. The others (VMPTRLD, RDRAND, XSAVEC...) are not emulated. */
enum emu_status emu_run_group9(struct emu *e)
{
    if (modrm_digit(&e->insn) != 1)
        return EMU_UNHANDLED;
    if (modrm_mod(&e->insn) == 3)
        return emu_raise(e, VECTOR_UD);
    return e->insn.operand_size == 8 ? cmpxchg16b(e) : cmpxchg8b(e);
}

/* BT, BTS, BTR, BTC by the two bits that tell them apart in both encodings. */
enum { BT, BTS, BTR, BTC };

static enum emu_status bit_test(struct emu *e, const struct place *p, unsigned op, unsigned bit)
{
    uint64_t rflags = e->regs.rflags & ~(uint64_t)FLAG_CF, old, result;

    TRY(emu_place_read(e, p, &old));
    rflags |= old >> bit & 1;
    result = op == BTS ? old | 1ull << bit : op == BTR ? old & ~(1ull << bit) : old ^ 1ull << bit;
    if (op != BT)
        return write_back(e, p, old, result, rflags);
    e->regs.rflags = rflags;
    return emu_finish(e);
}

/* With a bit number from a register, memory is a bit string: the number, signed, moves the address by whole operands. */
enum emu_status emu_run_bt_reg(struct emu *e)
{
    const struct emu_insn *i = &e->insn;
    unsigned size = i->operand_size, op = i->opcode >> 3 & 3, access = op == BT ? EMU_READ : EMU_WRITE;
    int64_t bit = (int64_t)sign_extend(emu_reg_read(e, modrm_reg(i), size), size);
    unsigned shift = size == 8 ? 6 : size == 4 ? 5 : 4;
    uint64_t address;
    struct place p;

    if (modrm_mod(i) == 3) {
        TRY(emu_rm_place(e, size, access, &p));
    } else {
        address = (emu_effective_address(e) + (uint64_t)(bit >> shift) * size) & size_mask(i->address_size);
        TRY(emu_memory_place(e, i->memory_segment, address, size, access, &p));
    }
    return bit_test(e, &p, op, (unsigned)bit & (8 * size - 1));
}

enum emu_status emu_run_bt_imm(struct emu *e)
{
    unsigned size = e->insn.operand_size, op = modrm_digit(&e->insn) & 3;
    struct place p;

    if (modrm_digit(&e->insn) < 4)
        return emu_raise(e, VECTOR_UD);
    TRY(emu_rm_place(e, size, op == BT ? EMU_READ : EMU_WRITE, &p));
    return bit_test(e, &p, op, (unsigned)e->insn.immediate & (8 * size - 1));
}
