/* From segment and offset to linear addresses: limits, types, canonical form; and the exceptions they raise. */
#include "internal.h"

enum emu_status emu_raise(struct emu *e, uint8_t vector)
{
    e->exception = (struct emu_exception){ .vector = vector };
    return EMU_EXCEPTION;
}

/* In real mode no exception pushes an error code (SDM 3B 21.3). */
enum emu_status emu_raise_code(struct emu *e, uint8_t vector, uint32_t code)
{
    e->exception = (struct emu_exception){ .vector = vector, .has_error_code = e->regs.cr0 & CR0_PE, .error_code = code };
    return EMU_EXCEPTION;
}

static enum emu_status segment_fault(struct emu *e, unsigned seg)
{
    return emu_raise_code(e, seg == EMU_SS ? VECTOR_SS : VECTOR_GP, 0);
}

/* Do the type and presence of a segment allow the access (SDM 3A 5.5)? Real and VM86 segments have no type. */
static bool type_allows(const struct emu_regs *r, const struct emu_segment *s, unsigned access)
{
    if (!in_protected_mode(r))
        return true;
    if (!(s->attributes & SEG_PRESENT))
        return false;
    if (s->attributes & SEG_CODE)
        return !(access & EMU_WRITE) && (s->attributes & SEG_READABLE);
    return !(access & EMU_WRITE) || (s->attributes & SEG_WRITABLE);
}

static bool limit_allows(const struct emu_segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;

    if ((s->attributes & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN)
        return offset > s->limit && last <= (s->attributes & SEG_BIG ? 0xffffffff : 0xffff);
    return last <= s->limit;
}

/* #AC is for CPL 3 only (SDM 3A 6.15); sizes over 8 are checked by their instructions. */
static bool misaligned(const struct emu_regs *r, uint64_t linear, unsigned size)
{
    return r->cpl == 3 && (r->cr0 & CR0_AM) && (r->rflags & FLAG_AC) && size <= 8 && (linear & (size - 1));
}

enum emu_status emu_linearize(struct emu *e, unsigned seg, uint64_t offset, unsigned size, unsigned access, uint64_t *linear)
{
    const struct emu_regs *r = &e->regs;
    const struct emu_segment *s = &r->seg[seg];

    if (in_64bit_mode(r)) {
        *linear = seg >= EMU_FS ? offset + s->base : offset;
        if (!is_canonical(r, *linear) || !is_canonical(r, *linear + size - 1))
            return segment_fault(e, seg);
    } else {
        if (!type_allows(r, s, access) || !limit_allows(s, offset, size))
            return segment_fault(e, seg);
        *linear = (uint32_t)(s->base + offset);
    }
    if (__builtin_expect(misaligned(r, *linear, size), false))
        return emu_raise_code(e, VECTOR_AC, 0);
    return EMU_OK;
}

uint64_t emu_linear_rip(const struct emu_regs *r)
{
    return in_64bit_mode(r) ? r->rip : (uint32_t)(r->seg[EMU_CS].base + r->rip);
}
