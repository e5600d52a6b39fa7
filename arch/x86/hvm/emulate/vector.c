/* Loads and stores of XMM registers: MOVUPS and its relatives, MOVD, MOVQ, the non-temporal forms. Memory forms only. */
#include <stddef.h>

#include "internal.h"

enum { LOAD, STORE };
enum {
    ALIGNED = 1,  /* #GP unless 16-byte aligned */
    HIGH = 2,     /* the upper half; the rest of the register stays */
    LOW = 4,      /* the lower half; the rest stays */
    BY_REX = 8,   /* 4 bytes, or 8 with REX.W */
};

/* A form: map, opcode and mandatory prefix select it. Loads without HIGH or LOW clear what they do not load. */
static const struct vector_form {
    uint8_t map, opcode, prefix, size, direction, flags;
} forms[] = {
    { 1, 0x10, 0x00, 16, LOAD, 0 },        { 1, 0x11, 0x00, 16, STORE, 0 },        /* MOVUPS */
    { 1, 0x10, 0x66, 16, LOAD, 0 },        { 1, 0x11, 0x66, 16, STORE, 0 },        /* MOVUPD */
    { 1, 0x10, 0xf3, 4, LOAD, 0 },         { 1, 0x11, 0xf3, 4, STORE, 0 },         /* MOVSS */
    { 1, 0x10, 0xf2, 8, LOAD, 0 },         { 1, 0x11, 0xf2, 8, STORE, 0 },         /* MOVSD */
    { 1, 0x12, 0x00, 8, LOAD, LOW },       { 1, 0x13, 0x00, 8, STORE, LOW },       /* MOVLPS */
    { 1, 0x12, 0x66, 8, LOAD, LOW },       { 1, 0x13, 0x66, 8, STORE, LOW },       /* MOVLPD */
    { 1, 0x16, 0x00, 8, LOAD, HIGH },      { 1, 0x17, 0x00, 8, STORE, HIGH },      /* MOVHPS */
    { 1, 0x16, 0x66, 8, LOAD, HIGH },      { 1, 0x17, 0x66, 8, STORE, HIGH },      /* MOVHPD */
    { 1, 0x28, 0x00, 16, LOAD, ALIGNED },  { 1, 0x29, 0x00, 16, STORE, ALIGNED },  /* MOVAPS */
    { 1, 0x28, 0x66, 16, LOAD, ALIGNED },  { 1, 0x29, 0x66, 16, STORE, ALIGNED },  /* MOVAPD */
    { 1, 0x2b, 0x00, 16, STORE, ALIGNED }, { 1, 0x2b, 0x66, 16, STORE, ALIGNED },  /* MOVNTPS, MOVNTPD */
    { 1, 0x6e, 0x66, 0, LOAD, BY_REX },    { 1, 0x7e, 0x66, 0, STORE, BY_REX },    /* MOVD, MOVQ */
    { 1, 0x6f, 0x66, 16, LOAD, ALIGNED },  { 1, 0x7f, 0x66, 16, STORE, ALIGNED },  /* MOVDQA */
    { 1, 0x6f, 0xf3, 16, LOAD, 0 },        { 1, 0x7f, 0xf3, 16, STORE, 0 },        /* MOVDQU */
    { 1, 0x7e, 0xf3, 8, LOAD, 0 },         { 1, 0xd6, 0x66, 8, STORE, 0 },         /* MOVQ */
    { 1, 0xe7, 0x66, 16, STORE, ALIGNED }, { 2, 0x2a, 0x66, 16, LOAD, ALIGNED },   /* MOVNTDQ, MOVNTDQA */
};

static const struct vector_form *form_of(const struct emu_insn *i)
{
    unsigned prefix = i->rep ? i->rep : i->operand_override ? 0x66 : 0;

    for (unsigned n = 0; n < sizeof(forms) / sizeof(forms[0]); n++)
        if (forms[n].opcode == i->opcode && forms[n].prefix == prefix && forms[n].map == i->opcode_map)
            return &forms[n];
    return NULL;
}

static enum emu_status load(struct emu *e, const struct vector_form *f, const struct place *p, unsigned size)
{
    unsigned reg = modrm_reg(&e->insn);
    uint64_t value[2] = { 0, 0 };

    if (size == 16) {
        TRY(emu_place_read16(e, p, value));
    } else {
        uint64_t part;

        TRY(emu_place_read(e, p, &part));
        if (f->flags & (LOW | HIGH))
            e->ops->xmm_read(e->ctx, reg, value);
        value[f->flags & HIGH ? 1 : 0] = part;
    }
    e->ops->xmm_write(e->ctx, reg, value);
    return EMU_OK;
}

static enum emu_status store(struct emu *e, const struct vector_form *f, const struct place *p, unsigned size)
{
    uint64_t value[2];

    e->ops->xmm_read(e->ctx, modrm_reg(&e->insn), value);
    if (size == 16)
        return emu_place_write16(e, p, value);
    return emu_place_write(e, p, value[f->flags & HIGH ? 1 : 0]);
}

enum emu_status emu_run_vector(struct emu *e)
{
    const struct vector_form *f = form_of(&e->insn);
    unsigned size, access;
    uint64_t linear;
    struct place p;

    if (!f || modrm_mod(&e->insn) == 3)
        return EMU_UNHANDLED;
    if ((e->regs.cr0 & CR0_EM) || !(e->regs.cr4 & CR4_OSFXSR))
        return emu_raise(e, VECTOR_UD);
    if (e->regs.cr0 & CR0_TS)
        return emu_raise(e, VECTOR_NM);
    size = f->flags & BY_REX ? (e->insn.rex & 8 ? 8 : 4) : f->size;
    access = f->direction == STORE ? EMU_WRITE : EMU_READ;
    TRY(emu_linearize(e, e->insn.memory_segment, emu_effective_address(e), size, access, &linear));
    if ((f->flags & ALIGNED) && (linear & 15))
        return emu_raise_code(e, VECTOR_GP, 0);
    TRY(emu_linear_place(e, linear, size, access, &p));
    TRY(f->direction == STORE ? store(e, f, &p, size) : load(e, f, &p, size));
    return emu_finish(e);
}
