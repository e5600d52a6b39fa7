/* MOVS, CMPS, STOS, LODS, SCAS, INS and OUTS, alone and under REP. */
#include <stddef.h>

#include "internal.h"

/*
 * One iteration makes its accesses, then commits registers other than RCX. A run, where the string operation can have one,
 * does many at once through ops->rep.
 */
struct string_op {
    enum emu_status (*once)(struct emu *e);
    bool compares;             /* REPE and REPNE look at ZF */
    bool port;
    bool from_memory, to_memory; /* DS:rSI is read, ES:rDI written: what a run moves */
    bool may_run;
};

static enum emu_status source(struct emu *e, struct place *p)
{
    uint64_t offset = emu_reg_read(e, EMU_RSI, e->insn.address_size);

    return emu_memory_place(e, e->insn.memory_segment, offset, e->insn.operand_size, EMU_READ, p);
}

/* ES cannot be overridden. */
static enum emu_status destination(struct emu *e, unsigned access, struct place *p)
{
    return emu_memory_place(e, EMU_ES, emu_reg_read(e, EMU_RDI, e->insn.address_size), e->insn.operand_size, access, p);
}

static void advance(struct emu *e, unsigned reg, uint64_t elements)
{
    uint64_t distance = elements * e->insn.operand_size;

    if (e->regs.rflags & FLAG_DF)
        distance = -distance;
    emu_reg_write(e, reg, e->insn.address_size, e->regs.gpr[reg] + distance);
}

static enum emu_status movs_once(struct emu *e)
{
    struct place from, to;
    uint64_t value;

    TRY(source(e, &from));
    TRY(destination(e, EMU_WRITE, &to));
    TRY(emu_place_read(e, &from, &value));
    TRY(emu_place_write(e, &to, value));
    advance(e, EMU_RSI, 1);
    advance(e, EMU_RDI, 1);
    return EMU_OK;
}

static enum emu_status cmps_once(struct emu *e)
{
    struct place first, second;
    uint64_t a, b;

    TRY(source(e, &first));
    TRY(destination(e, EMU_READ, &second));
    TRY(emu_place_read(e, &first, &a));
    TRY(emu_place_read(e, &second, &b));
    emu_alu(ALU_CMP, e->insn.operand_size, a, b, &e->regs.rflags);
    advance(e, EMU_RSI, 1);
    advance(e, EMU_RDI, 1);
    return EMU_OK;
}

static enum emu_status stos_once(struct emu *e)
{
    struct place to;

    TRY(destination(e, EMU_WRITE, &to));
    TRY(emu_place_write(e, &to, emu_reg_read(e, EMU_RAX, e->insn.operand_size)));
    advance(e, EMU_RDI, 1);
    return EMU_OK;
}

static enum emu_status lods_once(struct emu *e)
{
    struct place from;
    uint64_t value;

    TRY(source(e, &from));
    TRY(emu_place_read(e, &from, &value));
    emu_reg_write(e, EMU_RAX, e->insn.operand_size, value);
    advance(e, EMU_RSI, 1);
    return EMU_OK;
}

static enum emu_status scas_once(struct emu *e)
{
    unsigned size = e->insn.operand_size;
    struct place with;
    uint64_t value;

    TRY(destination(e, EMU_READ, &with));
    TRY(emu_place_read(e, &with, &value));
    emu_alu(ALU_CMP, size, emu_reg_read(e, EMU_RAX, size), value, &e->regs.rflags);
    advance(e, EMU_RDI, 1);
    return EMU_OK;
}

static enum emu_status ins_once(struct emu *e)
{
    struct place to;
    uint64_t value;

    TRY(destination(e, EMU_WRITE, &to));
    TRY(emu_port_in(e, (uint16_t)e->regs.gpr[EMU_RDX], e->insn.operand_size, &value));
    TRY(emu_place_write(e, &to, value));
    advance(e, EMU_RDI, 1);
    return EMU_OK;
}

static enum emu_status outs_once(struct emu *e)
{
    struct place from;
    uint64_t value;

    TRY(source(e, &from));
    TRY(emu_place_read(e, &from, &value));
    TRY(emu_port_out(e, (uint16_t)e->regs.gpr[EMU_RDX], e->insn.operand_size, value));
    advance(e, EMU_RSI, 1);
    return EMU_OK;
}

/* By opcode / 2, from INS (6C) on: the even and odd opcode differ in operand size only. */
static const struct string_op ops_6c[2] = {
    { .once = ins_once, .port = true, .to_memory = true, .may_run = true },
    { .once = outs_once, .port = true, .from_memory = true, .may_run = true },
};
static const struct string_op ops_a4[6] = {
    { .once = movs_once, .from_memory = true, .to_memory = true, .may_run = true },
    { .once = cmps_once, .compares = true },
    { .once = NULL }, /* TEST */
    { .once = stos_once, .to_memory = true, .may_run = true },
    { .once = lods_once, .from_memory = true },
    { .once = scas_once, .compares = true },
};

/*
 * One side of a run: the place of its first element, and `count` reduced to what lies in the same page. The last element
 * is checked like the first; between two elements that the segment allows there is none that it does not.
 */
struct side {
    uint64_t gpa;
    bool ram;
};

static enum emu_status run_side(struct emu *e, unsigned seg, unsigned reg, unsigned access, struct side *s, uint32_t *count)
{
    unsigned size = e->insn.operand_size;
    uint64_t mask = size_mask(e->insn.address_size), offset = e->regs.gpr[reg] & mask, span, linear;
    bool backwards = e->regs.rflags & FLAG_DF;
    uint32_t in_page, at;
    struct place p;

    TRY(emu_memory_place(e, seg, offset, size, access, &p));
    s->gpa = p.gpa[0];
    s->ram = emu_is_ram(e, s->gpa, access == EMU_WRITE);
    at = (uint32_t)(s->gpa & PAGE_OFFSET);
    in_page = p.size[1] ? 1 : backwards ? at / size + 1 : (PAGE_BYTES - at) / size;
    if (*count > in_page)
        *count = in_page;
    span = (uint64_t)(*count - 1) * size;
    if (backwards ? span > offset : span > mask - offset)
        *count = 1; /* the offset wraps */
    else if (emu_linearize(e, seg, backwards ? offset - span : offset + span, size, access, &linear) != EMU_OK)
        *count = 1;
    return EMU_OK;
}

/* Fills in who the two sides are; false: not a run between a device and RAM. */
static bool run_sides(const struct emu *e, const struct string_op *op, struct side from, struct side to, struct emu_rep *rep)
{
    if (op->port) {
        rep->is_port = true;
        rep->to_device = op->from_memory;
        rep->device = (uint16_t)e->regs.gpr[EMU_RDX];
        rep->ram_gpa = op->from_memory ? from.gpa : to.gpa;
        return from.ram || to.ram;
    }
    if (!op->from_memory) {
        rep->fill = rep->to_device = true;
        rep->device = to.gpa;
        rep->value = emu_reg_read(e, EMU_RAX, e->insn.operand_size);
        return !to.ram;
    }
    rep->to_device = !to.ram;
    rep->device = to.ram ? from.gpa : to.gpa;
    rep->ram_gpa = to.ram ? to.gpa : from.gpa;
    return from.ram != to.ram;
}

static uint32_t budget_of(const struct emu *e)
{
    return e->budget ? e->budget : 1;
}

/*
 * Tries to do up to `most` of the `count` iterations that are left in one request; *done stays 0 where they must go one by
 * one. A run that what is left of the budget would cut short waits for the next call and its whole budget: a re-execution
 * after EMU_WAIT starts with a whole one too, and must make the same request.
 */
static enum emu_status run(struct emu *e, const struct string_op *op, uint64_t count, uint32_t most, uint32_t *done)
{
    struct emu_rep rep = { .size = e->insn.operand_size, .backwards = e->regs.rflags & FLAG_DF };
    struct side from = {0}, to = {0};
    enum emu_status status;

    rep.count = count < PAGE_BYTES ? (uint32_t)count : PAGE_BYTES;
    if (op->from_memory)
        TRY(run_side(e, e->insn.memory_segment, EMU_RSI, EMU_READ, &from, &rep.count));
    if (op->to_memory)
        TRY(run_side(e, EMU_ES, EMU_RDI, EMU_WRITE, &to, &rep.count));
    if (rep.count < 2 || !run_sides(e, op, from, to, &rep))
        return EMU_OK;
    if (rep.count > most) {
        if (most < budget_of(e))
            return EMU_AGAIN;
        rep.count = most;
    }
    e->accesses++;
    status = e->ops->rep(e->ctx, &rep);
    if (status == EMU_UNHANDLED) {
        e->accesses--;
        return EMU_OK;
    }
    TRY(status);
    *done = rep.done < rep.count ? rep.done : rep.count;
    if (op->from_memory)
        advance(e, EMU_RSI, *done);
    if (op->to_memory)
        advance(e, EMU_RDI, *done);
    return EMU_OK;
}

/* REPE (F3) goes on while ZF is 1, REPNE (F2) while it is 0. */
static bool compare_ends(const struct emu *e)
{
    return !(e->regs.rflags & FLAG_ZF) == (e->insn.rep == 0xf3);
}

static enum emu_status repeat(struct emu *e, const struct string_op *op)
{
    uint32_t left = budget_of(e);
    bool may_run = op->may_run && e->ops->rep;

    for (;;) {
        uint64_t count = emu_reg_read(e, EMU_RCX, e->insn.address_size);
        uint32_t accesses = e->accesses, done = 0;

        if (!count)
            return emu_finish(e);
        if (!left)
            return EMU_OK;
        if (may_run && count > 1)
            TRY(run(e, op, count, left, &done));
        if (!done) {
            TRY(op->once(e));
            done = 1;
        }
        emu_reg_write(e, EMU_RCX, e->insn.address_size, count - done);
        left -= done;
        if (op->compares && compare_ends(e))
            return emu_finish(e);
        if (e->accesses != accesses && e->ops->retire)
            e->ops->retire(e->ctx);
        else if (e->accesses != accesses)
            left = 0;
        if (e->ops->enough && e->ops->enough(e->ctx))
            left = 0;
    }
}

enum emu_status emu_run_string(struct emu *e)
{
    unsigned opcode = e->insn.opcode;
    const struct string_op *op = opcode < 0xa4 ? &ops_6c[(opcode - 0x6c) / 2] : &ops_a4[(opcode - 0xa4) / 2];

    if (e->insn.rep && !emu_reg_read(e, EMU_RCX, e->insn.address_size))
        return emu_finish(e);
    if (op->port)
        TRY(emu_port_check(e, (uint16_t)e->regs.gpr[EMU_RDX], e->insn.operand_size));
    if (e->insn.rep)
        return repeat(e, op);
    TRY(op->once(e));
    return emu_finish(e);
}
