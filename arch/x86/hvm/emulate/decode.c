/* From bytes to struct emu_insn: prefixes, opcode, ModRM, SIB, displacement, immediate. */
#include "internal.h"

/* Reads bytes one after the other; past the end it gives zeros and remembers. */
struct cursor {
    const uint8_t *bytes;
    unsigned n, at;
    bool over;
};

static uint64_t take(struct cursor *c, unsigned count)
{
    uint64_t value = 0;

    if (c->at + count > c->n) {
        c->over = true;
        return 0;
    }
    for (unsigned i = 0; i < count; i++)
        value |= (uint64_t)c->bytes[c->at + i] << (8 * i);
    c->at += count;
    return value;
}

static unsigned peek(const struct cursor *c)
{
    return c->at < c->n ? c->bytes[c->at] : 0;
}

/* Default operand and address size of the code, in bits. */
static unsigned code_bits(const struct emu_regs *r)
{
    if (in_64bit_mode(r))
        return 64;
    return r->seg[EMU_CS].attributes & SEG_BIG ? 32 : 16;
}

/* What the prefixes said, beside what struct emu_insn keeps. */
struct prefixes {
    unsigned bits;
    bool address_override;
};

/* A prefix's effect; false: it is none. */
static bool prefix(struct emu_insn *i, struct prefixes *p, unsigned byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: /* ES CS SS DS: without effect in 64-bit mode */
        if (p->bits != 64)
            i->segment = (int8_t)((byte >> 3) & 3);
        return true;
    case 0x64: i->segment = EMU_FS; return true;
    case 0x65: i->segment = EMU_GS; return true;
    case 0x66: i->operand_override = true; return true;
    case 0x67: p->address_override = true; return true;
    case 0xf0: i->lock = true; return true;
    case 0xf2: case 0xf3: i->rep = (uint8_t)byte; return true;
    default: return false;
    }
}

static unsigned take_prefixes(struct cursor *c, struct emu_insn *i, struct prefixes *p)
{
    for (;;) {
        unsigned byte = (unsigned)take(c, 1);

        if (c->over)
            return 0;
        if (prefix(i, p, byte))
            i->rex = 0; /* REX counts only right before the opcode */
        else if (p->bits == 64 && (byte & 0xf0) == 0x40)
            i->rex = (uint8_t)byte;
        else
            return byte;
    }
}

/* Attributes of an opcode under VEX or EVEX, of which only the length is known: maps 1 to 3, and 5 and 6 of EVEX. */
static uint32_t vex_attributes(unsigned map, unsigned opcode, bool evex)
{
    uint32_t modrm = ATTR_DEFINED | ATTR_MODRM, imm8 = modrm | (uint32_t)IMM_UB << 8;

    switch (map) {
    case 1:
        if (opcode == 0x77 && !evex)
            return ATTR_DEFINED;
        return (opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6) ? imm8 : modrm;
    case 2: return modrm;
    case 3: return imm8;
    case 5: case 6: return evex ? modrm : 0;
    default: return 0;
    }
}

static uint32_t take_vex(struct cursor *c, struct emu_insn *i, unsigned first)
{
    unsigned map = 1;

    if (first != 0xc5)
        map = (unsigned)take(c, 1) & (first == 0x62 ? 0x0f : 0x1f);
    take(c, 1);
    if (first == 0x62) {
        if (!(c->bytes[c->at - 1] & 4)) /* a fixed 1 */
            return 0;
        take(c, 1);
    }
    i->opcode_map = (uint8_t)map;
    i->opcode = (uint8_t)take(c, 1);
    return vex_attributes(map, i->opcode, first == 0x62);
}

/* XOP maps 8 to 10 (APM 6): an immediate of 1, 0 and 4 bytes. */
static uint32_t take_xop(struct cursor *c, struct emu_insn *i)
{
    static const uint8_t immediates[3] = { IMM_UB, IMM_NONE, IMM_ID };
    unsigned map = (unsigned)take(c, 1) & 0x1f;

    take(c, 1);
    i->opcode_map = (uint8_t)map;
    i->opcode = (uint8_t)take(c, 1);
    return map <= 10 ? ATTR_DEFINED | ATTR_MODRM | (uint32_t)immediates[map - 8] << 8 : 0;
}

/* VEX, EVEX and XOP exist in protected mode only, and take no 66, F2, F3, LOCK or REX before them. */
static uint32_t take_extended(struct cursor *c, struct emu_insn *i, unsigned first, const struct emu_regs *r)
{
    if (!in_protected_mode(r) || i->operand_override || i->rep || i->lock || i->rex)
        return 0;
    return first == 0x8f ? take_xop(c, i) : take_vex(c, i, first);
}

/* LDS, LES and BOUND have no register form, so that C5, C4 and 62 are free for VEX and EVEX there; 8F likewise from /1 on. */
static bool is_extended(const struct cursor *c, const struct prefixes *p, unsigned byte)
{
    if (byte == 0x8f)
        return (peek(c) & 0x1f) >= 8;
    if (byte != 0xc4 && byte != 0xc5 && byte != 0x62)
        return false;
    return p->bits == 64 || (peek(c) & 0xc0) == 0xc0;
}

static uint32_t take_opcode(struct cursor *c, struct emu_insn *i, const struct prefixes *p, unsigned first, const struct emu_regs *r)
{
    if (is_extended(c, p, first))
        return take_extended(c, i, first, r);
    i->opcode = (uint8_t)first;
    if (first == 0x0f) {
        i->opcode_map = 1;
        i->opcode = (uint8_t)take(c, 1);
        if (i->opcode == 0x38 || i->opcode == 0x3a) {
            i->opcode_map = i->opcode == 0x38 ? 2 : 3;
            i->opcode = (uint8_t)take(c, 1);
        }
    }
    return emu_opcode_attributes(i->opcode_map, i->opcode);
}

/* Instructions of group 5 whose operand is 64 bits wide by default: near CALL and JMP, PUSH. */
static bool is_d64(const struct emu_insn *i, uint32_t attributes)
{
    if (attributes & ATTR_D64)
        return true;
    return i->opcode_map == 0 && i->opcode == 0xff && (0x54 >> modrm_digit(i) & 1);
}

static void set_sizes(struct emu_insn *i, const struct prefixes *p, uint32_t attributes)
{
    unsigned size = (p->bits == 16) != i->operand_override ? 2 : 4;

    if (p->bits == 64)
        size = i->rex & 8 ? 8 : i->operand_override ? 2 : is_d64(i, attributes) ? 8 : 4;
    if (attributes & ATTR_BYTE)
        size = 1;
    if (((attributes & ATTR_PORT) && size == 8) || ((attributes & ATTR_WIDE) && size == 2))
        size = 4;
    i->operand_size = (uint8_t)size;
}

static void set_address_size(struct emu_insn *i, const struct prefixes *p)
{
    if (p->bits == 64)
        i->address_size = p->address_override ? 4 : 8;
    else
        i->address_size = (p->bits == 16) != p->address_override ? 2 : 4;
}

static void take_displacement(struct cursor *c, struct emu_insn *i, unsigned size)
{
    if (size)
        i->displacement = (int64_t)sign_extend(take(c, size), size);
}

/* 16-bit addressing (SDM 2A table 2-1). */
static void take_address16(struct cursor *c, struct emu_insn *i)
{
    static const uint8_t bases[8] = { EMU_RBX, EMU_RBX, EMU_RBP, EMU_RBP, EMU_RSI, EMU_RDI, EMU_RBP, EMU_RBX };
    static const uint8_t indices[4] = { EMU_RSI, EMU_RDI, EMU_RSI, EMU_RDI };
    unsigned mod = modrm_mod(i), rm = i->modrm & 7;

    if (mod == 0 && rm == 6) {
        take_displacement(c, i, 2);
        return;
    }
    i->base = bases[rm];
    i->index = rm < 4 ? indices[rm] : EMU_NO_REGISTER;
    take_displacement(c, i, mod);
}

/* 32- and 64-bit addressing (SDM 2A tables 2-2 and 2-3). */
static void take_address(struct cursor *c, struct emu_insn *i, const struct prefixes *p)
{
    unsigned mod = modrm_mod(i), base = i->modrm & 7;

    if (base == 4) {
        unsigned index;

        i->sib = (uint8_t)take(c, 1);
        base = i->sib & 7;
        index = (i->sib >> 3 & 7) | (i->rex & 2) << 2;
        i->index = index == 4 ? EMU_NO_REGISTER : (uint8_t)index;
        i->scale = i->sib >> 6;
    } else if (mod == 0 && base == 5 && p->bits == 64) {
        i->base = EMU_BASE_RIP;
    }
    if (mod == 0 && base == 5) {
        take_displacement(c, i, 4);
        return;
    }
    i->base = (uint8_t)(base | (i->rex & 1) << 3);
    take_displacement(c, i, mod == 2 ? 4 : mod);
}

static void take_modrm(struct cursor *c, struct emu_insn *i, const struct prefixes *p, uint32_t attributes)
{
    i->has_modrm = true;
    i->modrm = (uint8_t)take(c, 1);
    if (modrm_mod(i) == 3 || (attributes & ATTR_REGISTER))
        return;
    if (i->address_size == 2)
        take_address16(c, i);
    else
        take_address(c, i, p);
    /* The stack registers by number, not R12 and R13. */
    if (i->segment < 0 && (i->base == EMU_RSP || i->base == EMU_RBP))
        i->memory_segment = EMU_SS;
}

static void take_immediate(struct cursor *c, struct emu_insn *i, const struct prefixes *p, unsigned kind)
{
    unsigned size = i->operand_size, z = size == 8 ? 4 : size;

    switch (kind) {
    case IMM_IB: i->immediate = sign_extend(take(c, 1), 1); break;
    case IMM_UB: i->immediate = take(c, 1); break;
    case IMM_IW: i->immediate = take(c, 2); break;
    case IMM_IZ: i->immediate = sign_extend(take(c, z), z); break;
    case IMM_ID: i->immediate = take(c, 4); break;
    case IMM_IV: i->immediate = take(c, size); break;
    case IMM_MOFFS: i->immediate = take(c, i->address_size); break;
    case IMM_JZ: /* Intel ignores 66 before near branches in 64-bit mode; AMD does not */
        z = p->bits == 64 ? 4 : z;
        i->immediate = sign_extend(take(c, z), z);
        break;
    case IMM_FAR: i->immediate = take(c, z); take(c, 2); break;
    case IMM_ENTER: i->immediate = take(c, 2); take(c, 1); break;
    case IMM_GROUP3:
        if (modrm_digit(i) < 2)
            i->immediate = sign_extend(take(c, z), z);
        break;
    case IMM_EXTRQ: /* SSE4a's EXTRQ and INSERTQ; without a prefix it is VMREAD */
        if (i->operand_override || i->rep == 0xf2)
            i->immediate = take(c, 2);
        break;
    }
}

/* The handler, where it depends on more than the opcode. */
static unsigned handler_of(const struct emu_insn *i, const struct prefixes *p, uint32_t attributes)
{
    unsigned handler = attributes & 0xff;

    if (i->lock && !emu_lock_allowed(i))
        return HANDLER_UD;
    if (handler == HANDLER_MOVSXD && p->bits != 64) /* ARPL */
        return HANDLER_NONE;
    if (handler == HANDLER_MOVBE && i->rep) /* CRC32 */
        return HANDLER_NONE;
    if (i->opcode_map == 1 && i->opcode == 0xc3 && modrm_mod(i) == 3) /* MOVNTI */
        return HANDLER_UD;
    return handler;
}

enum decode_result emu_decode_bytes(const struct emu_regs *r, const uint8_t *bytes, unsigned n, struct emu_insn *i)
{
    struct cursor c = { .bytes = bytes, .n = n < INSN_MAX ? n : INSN_MAX };
    struct prefixes p = { .bits = code_bits(r) };
    uint32_t attributes;
    unsigned first;

    *i = (struct emu_insn){ .segment = -1, .base = EMU_NO_REGISTER, .index = EMU_NO_REGISTER, .memory_segment = EMU_DS };
    first = take_prefixes(&c, i, &p);
    set_address_size(i, &p);
    if (i->segment >= 0)
        i->memory_segment = (uint8_t)i->segment;
    attributes = c.over ? 0 : take_opcode(&c, i, &p, first, r);
    if (!c.over && (!(attributes & ATTR_DEFINED) || ((attributes & ATTR_NOT64) && p.bits == 64)))
        return DECODE_UNKNOWN;
    if (attributes & ATTR_MODRM)
        take_modrm(&c, i, &p, attributes);
    set_sizes(i, &p, attributes);
    take_immediate(&c, i, &p, attributes >> 8 & 15);
    if (c.over)
        return c.n == INSN_MAX ? DECODE_LONG : DECODE_SHORT;
    i->length = (uint8_t)c.at;
    __builtin_memcpy(i->bytes, bytes, c.at);
    i->handler = (uint8_t)handler_of(i, &p, attributes);
    return DECODED;
}

bool emu_decode(const struct emu_regs *r, const uint8_t *bytes, unsigned n, struct emu_insn *insn)
{
    if (emu_decode_bytes(r, bytes, n, insn) == DECODED)
        return true;
    insn->length = 0;
    return false;
}
