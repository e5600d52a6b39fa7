/*
 * Makes one instruction: prefixes, opcode, a random way to address the operand, an immediate; and the registers with which
 * the address is the one wanted.
 */
#include "emulate.h"

enum { AX, CX, DX, BX, SP, BP, SI, DI };
#define FLAGS_RANDOM 0x8d5u /* OF SF ZF AF PF CF */
#define FLAG_DF 0x400u
#define PORT 0x80 /* nobody's */

/* What is being built. */
struct draft {
    struct test *t;
    uint8_t rex, reg, modrm[7]; /* ModRM, SIB, displacement */
    unsigned modrm_length;
    bool override; /* the address is relative to SS: say DS or ES */
    bool rip_relative;
    uint64_t address;
};

static unsigned pick(unsigned n)
{
    return random32() % n;
}

static void put(struct test *t, uint64_t v, unsigned n)
{
    for (; n; n--, v >>= 8)
        t->code[t->length++] = (uint8_t)v;
}

static uint64_t mask_of(unsigned bytes)
{
    return bytes == 8 ? UINT64_MAX : (1ull << 8 * bytes) - 1;
}

/* Gives a register the value that completes an address; what the address size cuts off is left as it is. */
static void set_low(struct draft *d, unsigned r, uint64_t v)
{
    uint64_t mask = mask_of(d->t->address_size);
    d->t->gpr[r] = (d->t->gpr[r] & ~mask) | (v & mask);
}

/* 16-bit addressing (Intel SDM 2A, table 2-1). */
static void address16(struct draft *d)
{
    static const uint8_t first[] = {BX, BX, BP, BP, SI, DI, BP, BX}, second[] = {SI, DI, SI, DI, 0xff, 0xff, 0xff, 0xff};
    unsigned rm = pick(8), mod = pick(3), n = mod;
    int16_t disp = mod == 0 ? 0 : mod == 1 ? (int8_t)random32() : (int16_t)random32();
    uint16_t rest;
    if (mod == 0 && rm == 6) { /* an absolute address */
        n = 2;
        disp = (int16_t)d->address;
    } else {
        rest = (uint16_t)(d->address - (uint16_t)disp);
        if (second[rm] != 0xff) {
            set_low(d, second[rm], random32());
            rest = (uint16_t)(rest - d->t->gpr[second[rm]]);
        }
        set_low(d, first[rm], rest);
        d->override = first[rm] == BP;
    }
    d->modrm[0] = (uint8_t)(mod << 6 | (d->reg & 7) << 3 | rm);
    memcpy(d->modrm + 1, &disp, n);
    d->modrm_length = 1 + n;
}

/* A register for an address: any but the stack pointer, which the mode switch needs. */
static unsigned pick_register(const struct draft *d)
{
    unsigned r;
    do
        r = pick(d->t->mode == LONG64 ? 16 : 8);
    while (r == SP || (d->t->form->kind == BITS && r == d->reg));
    return r;
}

/* No base: an absolute address, in long mode relative to RIP (filled in when the length is known) or by a SIB byte. */
static void address_absolute(struct draft *d)
{
    int32_t disp = (int32_t)d->address;
    bool sib = d->t->mode == LONG64 && pick(2);
    unsigned n = 0;
    d->modrm[n++] = (uint8_t)((d->reg & 7) << 3 | (sib ? 4 : 5));
    if (sib)
        d->modrm[n++] = 0x25;
    d->rip_relative = d->t->mode == LONG64 && !sib;
    memcpy(d->modrm + n, &disp, 4);
    d->modrm_length = n + 4;
}

/* 32 and 64-bit addressing with a base, perhaps an index (tables 2-2 and 2-3). */
static void address_based(struct draft *d)
{
    unsigned base = pick_register(d), index = SP, scale = pick(4), mod = pick(3), n = 0;
    bool sib = pick(2) || (base & 7) == SP;
    int32_t disp;
    if (mod == 0 && (base & 7) == BP)
        mod = 1;
    disp = mod == 0 ? 0 : mod == 1 ? (int8_t)random32() : (int32_t)random32();
    if (sib && pick(4)) {
        do
            index = pick_register(d);
        while (index == base);
        set_low(d, index, random32());
    }
    set_low(d, base, d->address - (uint64_t)(int64_t)disp - (index == SP ? 0 : d->t->gpr[index] << scale));
    d->rex |= (uint8_t)((base >> 3) | (index >> 3) << 1);
    d->modrm[n++] = (uint8_t)(mod << 6 | (d->reg & 7) << 3 | (sib ? 4 : base & 7));
    if (sib)
        d->modrm[n++] = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
    memcpy(d->modrm + n, &disp, 4);
    d->modrm_length = n + (mod == 0 ? 0 : mod == 1 ? 1 : 4);
    d->override = base == BP;
}

static void make_address(struct draft *d)
{
    if (d->t->address_size == 2)
        address16(d);
    else if (pick(6) == 0)
        address_absolute(d);
    else
        address_based(d);
}

static bool small_code(enum mode m)
{
    return m == COMPAT16 || m >= PROT16;
}

static void put_prefixes(struct draft *d, uint8_t repeat)
{
    struct test *t = d->t;
    unsigned natural = t->mode == LONG64 ? 8 : small_code(t->mode) ? 2 : 4;
    const struct form *f = t->form;
    bool by_66 = t->operand_size == 2 ? !small_code(t->mode) : t->operand_size == 4 && small_code(t->mode);
    if (by_66)
        put(t, 0x66, 1);
    if (t->address_size != natural)
        put(t, 0x67, 1);
    if (f->mandatory)
        put(t, f->mandatory, 1);
    if (repeat)
        put(t, repeat, 1);
    if ((f->kind == LOCKABLE) && pick(4) == 0)
        put(t, 0xf0, 1);
    if (d->override && t->mode != LONG64)
        put(t, pick(2) ? 0x3e : 0x26, 1);
    /* PUSH and POP are 64 bits wide in long mode without it. */
    if (t->operand_size == 8 && f->kind != STACK)
        d->rex |= 8;
    if (d->rex || (t->mode == LONG64 && pick(4) == 0))
        put(t, 0x40 | d->rex, 1);
    if (f->map)
        put(t, 0x0f, 1);
    put(t, f->opcode, 1);
}

static void put_immediate(struct test *t)
{
    if (t->form->immediate == IB)
        put(t, random32(), 1);
    else if (t->form->immediate == IZ)
        put(t, random32(), t->operand_size == 2 ? 2 : 4);
}

/* A bit offset that stays near: the operand is then up to 16 bytes away. */
static void near_bit(struct draft *d, unsigned reg)
{
    int64_t bit = (int64_t)pick(256) - 128;
    uint64_t mask = mask_of(d->t->operand_size);
    d->t->gpr[reg] = (d->t->gpr[reg] & ~mask) | ((uint64_t)bit & mask);
}

static void build_modrm(struct draft *d)
{
    struct test *t = d->t;
    const struct form *f = t->form;
    d->reg = f->extension == ANY ? (uint8_t)pick(t->mode == LONG64 ? 16 : 8) : (uint8_t)f->extension;
    if (f->sizes == S128)
        d->reg &= 7;
    else if (f->kind == BITS && (d->reg == SP || t->address_size == 2))
        d->reg = (uint8_t)pick(3); /* AX, CX or DX: in no address of 16 bits */
    if (f->extension == ANY)
        d->rex |= (uint8_t)((d->reg >> 3) << 2);
    make_address(d);
    if (f->kind == BITS)
        near_bit(d, d->reg);
    put_prefixes(d, 0);
    unsigned at = t->length;
    put(t, 0, 0);
    memcpy(t->code + at, d->modrm, d->modrm_length);
    t->length += d->modrm_length;
    put_immediate(t);
    if (d->rip_relative) {
        int32_t disp = (int32_t)(d->address - (CODE_ADDRESS + t->length));
        memcpy(t->code + at + 1, &disp, 4);
    }
}

/* REP's count is small, and the elements stay around the offset. */
static void build_string(struct draft *d)
{
    struct test *t = d->t;
    uint8_t repeat = pick(3) == 0 ? 0 : pick(2) ? 0xf3 : 0xf2;
    uint64_t base = window_base(t->mode, t->address_size);
    bool both = t->form->opcode == 0xa4 || t->form->opcode == 0xa5 || t->form->opcode == 0xa6 || t->form->opcode == 0xa7;
    unsigned side = both ? pick(3) : 0;
    if (t->form->kind == IO && repeat == 0xf2)
        repeat = 0xf3;
    t->to_scratch = side == 1;
    t->from_scratch = side == 2;
    set_low(d, SI, base + t->offset + (t->from_scratch ? SCRATCH_OFFSET : 0) + (both && !side ? pick(3) * 8 : 0));
    set_low(d, DI, base + t->offset + (t->to_scratch ? SCRATCH_OFFSET : 0));
    if (repeat)
        set_low(d, CX, pick(9));
    if (t->form->kind == IO)
        t->gpr[DX] = (t->gpr[DX] & ~0xffffull) | PORT;
    put_prefixes(d, repeat);
}

static unsigned pick_address_size(const struct test *t)
{
    if (t->mode == LONG64)
        return pick(4) ? 8 : 4;
    if (small_code(t->mode))
        return pick(2) ? 2 : 4;
    return 4;
}

/* Where in the page: anywhere, often at its very end or start, with room for strings and far bits. */
static unsigned pick_offset(const struct test *t)
{
    unsigned n = t->form->memory ? t->form->memory : t->operand_size;
    bool room = t->form->kind == BITS || t->form->kind == STRING || t->form->kind == IO;
    unsigned low = room ? 128 : 0, high = 4096 - (room ? 256 : n), at = low + pick(high - low + 1);
    if (!room && pick(8) == 0)
        at = pick(2) ? 0 : high;
    return t->form->kind == ALIGNED ? at & ~15u : at;
}

bool build_test(struct test *t, enum mode m, const struct form *f, unsigned operand_size)
{
    struct draft d = {.t = t};
    if (m != LONG64 && (operand_size == 8 || f->kind == LONGONLY))
        return false;
    if (m == LONG64 && f->kind == STACK && operand_size == 4)
        return false;
    memset(t, 0, sizeof(*t));
    t->mode = m;
    t->form = f;
    t->operand_size = operand_size;
    t->address_size = pick_address_size(t);
    t->offset = pick_offset(t);
    t->flags = 2 | (random32() & FLAGS_RANDOM) | (pick(2) && (f->kind == STRING || f->kind == IO) ? FLAG_DF : 0);
    for (unsigned i = 0; i < 16; i++)
        t->gpr[i] = m == LONG64 ? random64() : random32();
    t->gpr[SP] = STACK_ADDRESS;
    d.address = window_base(m, t->address_size) + t->offset;
    if (f->kind == STRING || f->kind == IO) {
        build_string(&d);
    } else if (f->kind == MOFFS) {
        put_prefixes(&d, 0);
        put(t, d.address, t->address_size);
    } else {
        build_modrm(&d);
    }
    return true;
}
