/* What each opcode looks like (SDM 2 appendix A): its operands' encoding, and the handler if it has one. */
#include "internal.h"

#define OP ATTR_DEFINED
#define M (ATTR_DEFINED | ATTR_MODRM)
#define IMM(kind) ((uint32_t)(IMM_##kind) << 8)
#define RUN(name) (uint32_t)(HANDLER_##name)

/* The six encodings of each two-operand ALU instruction. */
#define ALU_ROW(at) \
    [(at)] = M | ATTR_BYTE | RUN(ALU_RM_R), [(at) + 1] = M | RUN(ALU_RM_R), \
    [(at) + 2] = M | ATTR_BYTE | RUN(ALU_R_RM), [(at) + 3] = M | RUN(ALU_R_RM), \
    [(at) + 4] = OP | ATTR_BYTE | IMM(UB), [(at) + 5] = OP | IMM(IZ)

static const uint32_t one_byte[256] = {
    ALU_ROW(0x00), ALU_ROW(0x08), ALU_ROW(0x10), ALU_ROW(0x18), ALU_ROW(0x20), ALU_ROW(0x28), ALU_ROW(0x30), ALU_ROW(0x38),
    [0x06 ... 0x07] = OP | ATTR_NOT64, [0x0e] = OP | ATTR_NOT64, [0x16 ... 0x17] = OP | ATTR_NOT64,
    [0x1e ... 0x1f] = OP | ATTR_NOT64, [0x27] = OP | ATTR_NOT64, [0x2f] = OP | ATTR_NOT64, [0x37] = OP | ATTR_NOT64,
    [0x3f] = OP | ATTR_NOT64,
    [0x40 ... 0x4f] = OP | ATTR_NOT64, /* INC and DEC; REX in 64-bit mode */
    [0x50 ... 0x5f] = OP | ATTR_D64,
    [0x60 ... 0x61] = OP | ATTR_NOT64, [0x62] = M | ATTR_NOT64, [0x63] = M | RUN(MOVSXD),
    [0x68] = OP | ATTR_D64 | IMM(IZ), [0x69] = M | IMM(IZ), [0x6a] = OP | ATTR_D64 | IMM(IB), [0x6b] = M | IMM(IB),
    [0x6c] = OP | ATTR_BYTE | RUN(STRING), [0x6d] = OP | ATTR_PORT | RUN(STRING),
    [0x6e] = OP | ATTR_BYTE | RUN(STRING), [0x6f] = OP | ATTR_PORT | RUN(STRING),
    [0x70 ... 0x7f] = OP | ATTR_D64 | IMM(IB),
    [0x80] = M | ATTR_BYTE | IMM(UB) | RUN(ALU_RM_IMM), [0x81] = M | IMM(IZ) | RUN(ALU_RM_IMM),
    [0x82] = M | ATTR_BYTE | ATTR_NOT64 | IMM(UB) | RUN(ALU_RM_IMM), [0x83] = M | IMM(IB) | RUN(ALU_RM_IMM),
    [0x84] = M | ATTR_BYTE | RUN(TEST_RM_R), [0x85] = M | RUN(TEST_RM_R),
    [0x86] = M | ATTR_BYTE | RUN(XCHG), [0x87] = M | RUN(XCHG),
    [0x88] = M | ATTR_BYTE | RUN(MOV_RM_R), [0x89] = M | RUN(MOV_RM_R),
    [0x8a] = M | ATTR_BYTE | RUN(MOV_R_RM), [0x8b] = M | RUN(MOV_R_RM),
    [0x8c] = M | RUN(MOV_RM_SREG), [0x8d ... 0x8e] = M, [0x8f] = M | ATTR_D64 | RUN(POP_RM),
    [0x90 ... 0x99] = OP, [0x9a] = OP | ATTR_NOT64 | IMM(FAR), [0x9b] = OP, [0x9c ... 0x9d] = OP | ATTR_D64, [0x9e ... 0x9f] = OP,
    [0xa0] = OP | ATTR_BYTE | IMM(MOFFS) | RUN(MOV_ACC_MOFFS), [0xa1] = OP | IMM(MOFFS) | RUN(MOV_ACC_MOFFS),
    [0xa2] = OP | ATTR_BYTE | IMM(MOFFS) | RUN(MOV_MOFFS_ACC), [0xa3] = OP | IMM(MOFFS) | RUN(MOV_MOFFS_ACC),
    [0xa4] = OP | ATTR_BYTE | RUN(STRING), [0xa5] = OP | RUN(STRING), [0xa6] = OP | ATTR_BYTE | RUN(STRING), [0xa7] = OP | RUN(STRING),
    [0xa8] = OP | ATTR_BYTE | IMM(UB), [0xa9] = OP | IMM(IZ),
    [0xaa] = OP | ATTR_BYTE | RUN(STRING), [0xab] = OP | RUN(STRING), [0xac] = OP | ATTR_BYTE | RUN(STRING), [0xad] = OP | RUN(STRING),
    [0xae] = OP | ATTR_BYTE | RUN(STRING), [0xaf] = OP | RUN(STRING),
    [0xb0 ... 0xb7] = OP | ATTR_BYTE | IMM(UB), [0xb8 ... 0xbf] = OP | IMM(IV),
    [0xc0] = M | ATTR_BYTE | IMM(UB) | RUN(SHIFT_IMM), [0xc1] = M | IMM(UB) | RUN(SHIFT_IMM),
    [0xc2] = OP | ATTR_D64 | IMM(IW), [0xc3] = OP | ATTR_D64, [0xc4 ... 0xc5] = M | ATTR_NOT64,
    [0xc6] = M | ATTR_BYTE | IMM(UB) | RUN(MOV_RM_IMM), [0xc7] = M | IMM(IZ) | RUN(MOV_RM_IMM),
    [0xc8] = OP | ATTR_D64 | IMM(ENTER), [0xc9] = OP | ATTR_D64, [0xca] = OP | IMM(IW), [0xcb ... 0xcc] = OP, [0xcd] = OP | IMM(UB),
    [0xce] = OP | ATTR_NOT64, [0xcf] = OP,
    [0xd0] = M | ATTR_BYTE | RUN(SHIFT_1), [0xd1] = M | RUN(SHIFT_1), [0xd2] = M | ATTR_BYTE | RUN(SHIFT_CL), [0xd3] = M | RUN(SHIFT_CL),
    [0xd4 ... 0xd5] = OP | ATTR_NOT64 | IMM(UB), [0xd6] = OP | ATTR_NOT64, [0xd7] = OP, [0xd8 ... 0xdf] = M,
    [0xe0 ... 0xe3] = OP | ATTR_D64 | IMM(IB),
    [0xe4] = OP | ATTR_BYTE | IMM(UB) | RUN(IN), [0xe5] = OP | ATTR_PORT | IMM(UB) | RUN(IN),
    [0xe6] = OP | ATTR_BYTE | IMM(UB) | RUN(OUT), [0xe7] = OP | ATTR_PORT | IMM(UB) | RUN(OUT),
    [0xe8 ... 0xe9] = OP | ATTR_D64 | IMM(JZ), [0xea] = OP | ATTR_NOT64 | IMM(FAR), [0xeb] = OP | ATTR_D64 | IMM(IB),
    [0xec] = OP | ATTR_BYTE | RUN(IN), [0xed] = OP | ATTR_PORT | RUN(IN),
    [0xee] = OP | ATTR_BYTE | RUN(OUT), [0xef] = OP | ATTR_PORT | RUN(OUT),
    [0xf1] = OP, [0xf4 ... 0xf5] = OP,
    [0xf6] = M | ATTR_BYTE | IMM(GROUP3) | RUN(GROUP3), [0xf7] = M | IMM(GROUP3) | RUN(GROUP3),
    [0xf8 ... 0xfd] = OP, [0xfe] = M | ATTR_BYTE | RUN(GROUP4), [0xff] = M | RUN(GROUP5),
};

static const uint32_t two_byte[256] = {
    [0x00 ... 0x03] = M, [0x05 ... 0x09] = OP, [0x0b] = OP, [0x0d] = M, [0x0e] = OP, [0x0f] = M | IMM(UB) /* 3DNow! */,
    [0x10 ... 0x13] = M | RUN(VECTOR), [0x14 ... 0x15] = M, [0x16 ... 0x17] = M | RUN(VECTOR), [0x18 ... 0x1f] = M,
    [0x20 ... 0x23] = M | ATTR_REGISTER,
    [0x28 ... 0x29] = M | RUN(VECTOR), [0x2a] = M, [0x2b] = M | RUN(VECTOR), [0x2c ... 0x2f] = M,
    [0x30 ... 0x35] = OP, [0x37] = OP,
    [0x40 ... 0x4f] = M | RUN(CMOV), [0x50 ... 0x6d] = M, [0x6e ... 0x6f] = M | RUN(VECTOR),
    [0x70 ... 0x73] = M | IMM(UB), [0x74 ... 0x76] = M, [0x77] = OP, [0x78] = M | IMM(EXTRQ), [0x79] = M, [0x7c ... 0x7d] = M,
    [0x7e ... 0x7f] = M | RUN(VECTOR),
    [0x80 ... 0x8f] = OP | ATTR_D64 | IMM(JZ), [0x90 ... 0x9f] = M | ATTR_BYTE | RUN(SETCC),
    [0xa0 ... 0xa1] = OP | ATTR_D64, [0xa2] = OP, [0xa3] = M | RUN(BT_REG), [0xa4] = M | IMM(UB), [0xa5 ... 0xa7] = M,
    [0xa8 ... 0xa9] = OP | ATTR_D64, [0xaa] = OP, [0xab] = M | RUN(BT_REG), [0xac] = M | IMM(UB), [0xad ... 0xaf] = M,
    [0xb0] = M | ATTR_BYTE | RUN(CMPXCHG), [0xb1] = M | RUN(CMPXCHG), [0xb2] = M, [0xb3] = M | RUN(BT_REG), [0xb4 ... 0xb5] = M,
    [0xb6 ... 0xb7] = M | RUN(MOVZX), [0xb8 ... 0xb9] = M, [0xba] = M | IMM(UB) | RUN(BT_IMM), [0xbb] = M | RUN(BT_REG),
    [0xbc ... 0xbd] = M, [0xbe ... 0xbf] = M | RUN(MOVSX),
    [0xc0] = M | ATTR_BYTE | RUN(XADD), [0xc1] = M | RUN(XADD), [0xc2] = M | IMM(UB), [0xc3] = M | ATTR_WIDE | RUN(MOV_RM_R) /* MOVNTI */,
    [0xc4 ... 0xc6] = M | IMM(UB), [0xc7] = M | RUN(GROUP9), [0xc8 ... 0xcf] = OP,
    [0xd0 ... 0xd5] = M, [0xd6] = M | RUN(VECTOR), [0xd7 ... 0xe6] = M, [0xe7] = M | RUN(VECTOR), [0xe8 ... 0xff] = M,
};

uint32_t emu_opcode_attributes(unsigned map, unsigned opcode)
{
    switch (map) {
    case 0: return one_byte[opcode];
    case 1: return two_byte[opcode];
    case 2: return M | (opcode == 0xf0 || opcode == 0xf1 ? RUN(MOVBE) : opcode == 0x2a ? RUN(VECTOR) : 0);
    case 3: return M | IMM(UB);
    default: return 0;
    }
}

/* Instructions that take LOCK when their destination is memory (SDM 2A LOCK); `digits` of a group as a bit mask. */
static const struct {
    uint8_t map, first, last, digits;
} lockable[] = {
    { 0, 0x80, 0x83, 0x7f }, { 0, 0x86, 0x87, 0xff }, { 0, 0xf6, 0xf7, 0x0c }, { 0, 0xfe, 0xff, 0x03 },
    { 1, 0xab, 0xab, 0xff }, { 1, 0xb0, 0xb1, 0xff }, { 1, 0xb3, 0xb3, 0xff }, { 1, 0xba, 0xba, 0xe0 },
    { 1, 0xbb, 0xbb, 0xff }, { 1, 0xc0, 0xc1, 0xff }, { 1, 0xc7, 0xc7, 0x02 },
};

bool emu_lock_allowed(const struct emu_insn *i)
{
    if (!i->has_modrm || modrm_mod(i) == 3)
        return false;
    if (i->opcode_map == 0 && i->opcode < 0x38) /* all ALU instructions but CMP, to memory */
        return (i->opcode & 7) < 2;
    for (unsigned n = 0; n < sizeof(lockable) / sizeof(lockable[0]); n++)
        if (lockable[n].map == i->opcode_map && i->opcode >= lockable[n].first && i->opcode <= lockable[n].last)
            return lockable[n].digits >> modrm_digit(i) & 1;
    return false;
}
