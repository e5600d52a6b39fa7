/* Instruction bytes from the guest's memory, and the three ways to use them: fetch, skip and run. */
#include <stddef.h>

#include "internal.h"

/* How many bytes from RIP the code segment or the canonical range leaves, up to 15. */
static unsigned room_at_rip(const struct emu_regs *r)
{
    uint64_t room = INSN_MAX, rip = (uint32_t)r->rip, limit = r->seg[EMU_CS].limit;

    if (in_64bit_mode(r)) {
        while (room && !is_canonical(r, r->rip + room - 1))
            room--;
        return is_canonical(r, r->rip) ? (unsigned)room : 0;
    }
    if (rip > limit)
        return 0;
    return limit - rip + 1 < room ? (unsigned)(limit - rip + 1) : (unsigned)room;
}

static enum emu_status translate_code(struct emu *e, unsigned at, uint64_t *gpa)
{
    uint64_t linear = emu_linear_rip(&e->regs) + at;

    if (!in_64bit_mode(&e->regs))
        linear = (uint32_t)linear;
    return emu_translate(e, linear, EMU_FETCH | (e->regs.cpl == 3 ? EMU_USER : 0), gpa);
}

enum emu_status emu_fetch(struct emu *e, uint8_t bytes[15], unsigned *n)
{
    unsigned room = room_at_rip(&e->regs);

    *n = 0;
    if (!room)
        return emu_raise_code(e, VECTOR_GP, 0);
    while (*n < room) {
        uint64_t gpa;
        const uint8_t *page;
        unsigned part;

        if (translate_code(e, *n, &gpa) != EMU_OK)
            return *n ? EMU_OK : EMU_EXCEPTION;
        page = e->ops->ram_page(e->ctx, gpa & ~(uint64_t)PAGE_OFFSET, false);
        if (!page)
            return *n ? EMU_OK : EMU_UNHANDLED;
        part = PAGE_BYTES - (unsigned)(gpa & PAGE_OFFSET);
        if (part > room - *n)
            part = room - *n;
        if (!*n)
            e->code = part >= 4 ? page + (gpa & PAGE_OFFSET) : NULL;
        __builtin_memcpy(bytes + *n, page + (gpa & PAGE_OFFSET), part);
        *n += part;
    }
    return EMU_OK;
}

bool emu_is_here(struct emu *e, const struct emu_insn *insn)
{
    uint64_t gpa, now, then;
    const uint8_t *page;

    if (!insn->length || insn->length > sizeof(now) || room_at_rip(&e->regs) < insn->length || translate_code(e, 0, &gpa) != EMU_OK ||
        (gpa & PAGE_OFFSET) > PAGE_BYTES - sizeof(now))
        return false;
    page = e->ops->ram_page(e->ctx, gpa & ~(uint64_t)PAGE_OFFSET, false);
    if (!page)
        return false;
    e->code = page + (gpa & PAGE_OFFSET);
    __builtin_memcpy(&now, e->code, sizeof(now));
    __builtin_memcpy(&then, insn->bytes, sizeof(then));
    return !((now ^ then) << (64 - 8 * insn->length));
}

/* The fault for the first byte that emu_fetch() could not give. */
static enum emu_status fetch_fault(struct emu *e, unsigned n)
{
    uint64_t gpa;

    if (n >= room_at_rip(&e->regs))
        return emu_raise_code(e, VECTOR_GP, 0);
    TRY(translate_code(e, n, &gpa));
    return EMU_UNHANDLED; /* code outside RAM */
}

static enum emu_status fetch_and_decode(struct emu *e)
{
    uint8_t bytes[INSN_MAX];
    unsigned n;

    TRY(emu_fetch(e, bytes, &n));
    switch (emu_decode_bytes(&e->regs, bytes, n, &e->insn)) {
    case DECODED: return EMU_OK;
    case DECODE_SHORT: return fetch_fault(e, n);
    case DECODE_LONG: return emu_raise_code(e, VECTOR_GP, 0);
    default: return EMU_UNHANDLED;
    }
}

enum emu_status emu_finish(struct emu *e)
{
    uint64_t next = e->regs.rip + e->insn.length;

    e->regs.rip = in_64bit_mode(&e->regs) ? next : (uint32_t)next;
    e->regs.rflags &= ~(uint64_t)FLAG_RF;
    return EMU_OK;
}

enum emu_status emu_skip_decoded(struct emu *e)
{
    return emu_finish(e);
}

enum emu_status emu_skip(struct emu *e)
{
    TRY(fetch_and_decode(e));
    return emu_finish(e);
}

enum emu_status emu_run(struct emu *e)
{
    e->accesses = 0;
    TRY(fetch_and_decode(e));
    return emu_run_decoded(e);
}
