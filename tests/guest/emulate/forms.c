#include "emulate.h"

#define AF 0x10
#define BIT_FLAGS 0x894 /* OF SF AF PF after BT and its like */
#define SZ (S16 | S32 | S64)

/* The eight operations of the first half of the opcode map, to memory, from memory, and with immediates. */
#define ALU(name, n, kind, undefined) \
    {name " m8, r8", 0, 0, 8 * n, ANY, S8, NONE, kind, 0, undefined}, {name " m, r", 0, 0, 8 * n + 1, ANY, SZ, NONE, kind, 0, undefined}, \
    {name " r8, m8", 0, 0, 8 * n + 2, ANY, S8, NONE, PLAIN, 0, undefined}, {name " r, m", 0, 0, 8 * n + 3, ANY, SZ, NONE, PLAIN, 0, undefined}, \
    {name " m8, imm8", 0, 0, 0x80, n, S8, IB, kind, 0, undefined}, {name " m, imm", 0, 0, 0x81, n, SZ, IZ, kind, 0, undefined}, \
    {name " m, imm8", 0, 0, 0x83, n, SZ, IB, kind, 0, undefined}
#define BIT(name, opcode, n, kind) \
    {name " m, r", 1, 0, opcode, ANY, SZ, NONE, BITS, 0, BIT_FLAGS}, {name " m, imm8", 1, 0, 0xba, n, SZ, IB, kind, 0, BIT_FLAGS}
#define STR(name, opcode, kind) {name "b", 0, 0, opcode, ANY, S8, NONE, kind, 0, 0}, {name, 0, 0, opcode + 1, ANY, SZ, NONE, kind, 0, 0}

const struct form forms[] = {
    {"mov m8, r8", 0, 0, 0x88, ANY, S8, NONE, PLAIN, 0, 0},
    {"mov m, r", 0, 0, 0x89, ANY, SZ, NONE, PLAIN, 0, 0},
    {"mov r8, m8", 0, 0, 0x8a, ANY, S8, NONE, PLAIN, 0, 0},
    {"mov r, m", 0, 0, 0x8b, ANY, SZ, NONE, PLAIN, 0, 0},
    {"mov m8, imm8", 0, 0, 0xc6, 0, S8, IB, PLAIN, 0, 0},
    {"mov m, imm", 0, 0, 0xc7, 0, SZ, IZ, PLAIN, 0, 0},
    {"mov al, moffs", 0, 0, 0xa0, ANY, S8, NONE, MOFFS, 0, 0},
    {"mov ax, moffs", 0, 0, 0xa1, ANY, SZ, NONE, MOFFS, 0, 0},
    {"mov moffs, al", 0, 0, 0xa2, ANY, S8, NONE, MOFFS, 0, 0},
    {"mov moffs, ax", 0, 0, 0xa3, ANY, SZ, NONE, MOFFS, 0, 0},
    {"movzx r, m8", 1, 0, 0xb6, ANY, SZ, NONE, PLAIN, 1, 0},
    {"movzx r, m16", 1, 0, 0xb7, ANY, SZ, NONE, PLAIN, 2, 0},
    {"movsx r, m8", 1, 0, 0xbe, ANY, SZ, NONE, PLAIN, 1, 0},
    {"movsx r, m16", 1, 0, 0xbf, ANY, SZ, NONE, PLAIN, 2, 0},
    {"movsxd r, m32", 0, 0, 0x63, ANY, S64, NONE, LONGONLY, 4, 0},
    {"movnti m, r", 1, 0, 0xc3, ANY, S32 | S64, NONE, PLAIN, 0, 0},
    {"movups x, m", 1, 0, 0x10, ANY, S128, NONE, PLAIN, 16, 0},
    {"movups m, x", 1, 0, 0x11, ANY, S128, NONE, PLAIN, 16, 0},
    {"movaps x, m", 1, 0, 0x28, ANY, S128, NONE, ALIGNED, 16, 0},
    {"movaps m, x", 1, 0, 0x29, ANY, S128, NONE, ALIGNED, 16, 0},
    {"movdqu x, m", 1, 0xf3, 0x6f, ANY, S128, NONE, PLAIN, 16, 0},
    {"movdqu m, x", 1, 0xf3, 0x7f, ANY, S128, NONE, PLAIN, 16, 0},
    {"movdqa x, m", 1, 0x66, 0x6f, ANY, S128, NONE, ALIGNED, 16, 0},
    {"movdqa m, x", 1, 0x66, 0x7f, ANY, S128, NONE, ALIGNED, 16, 0},
    ALU("add", 0, LOCKABLE, 0),
    ALU("or", 1, LOCKABLE, AF),
    ALU("adc", 2, LOCKABLE, 0),
    ALU("sbb", 3, LOCKABLE, 0),
    ALU("and", 4, LOCKABLE, AF),
    ALU("sub", 5, LOCKABLE, 0),
    ALU("xor", 6, LOCKABLE, AF),
    ALU("cmp", 7, PLAIN, 0),
    {"test m8, r8", 0, 0, 0x84, ANY, S8, NONE, PLAIN, 0, AF},
    {"test m, r", 0, 0, 0x85, ANY, SZ, NONE, PLAIN, 0, AF},
    {"test m8, imm8", 0, 0, 0xf6, 0, S8, IB, PLAIN, 0, AF},
    {"test m, imm", 0, 0, 0xf7, 0, SZ, IZ, PLAIN, 0, AF},
    {"not m8", 0, 0, 0xf6, 2, S8, NONE, LOCKABLE, 0, 0},
    {"not m", 0, 0, 0xf7, 2, SZ, NONE, LOCKABLE, 0, 0},
    {"neg m8", 0, 0, 0xf6, 3, S8, NONE, LOCKABLE, 0, 0},
    {"neg m", 0, 0, 0xf7, 3, SZ, NONE, LOCKABLE, 0, 0},
    {"inc m8", 0, 0, 0xfe, 0, S8, NONE, LOCKABLE, 0, 0},
    {"inc m", 0, 0, 0xff, 0, SZ, NONE, LOCKABLE, 0, 0},
    {"dec m8", 0, 0, 0xfe, 1, S8, NONE, LOCKABLE, 0, 0},
    {"dec m", 0, 0, 0xff, 1, SZ, NONE, LOCKABLE, 0, 0},
    {"xchg m8, r8", 0, 0, 0x86, ANY, S8, NONE, LOCKABLE, 0, 0},
    {"xchg m, r", 0, 0, 0x87, ANY, SZ, NONE, LOCKABLE, 0, 0},
    {"cmpxchg m8, r8", 1, 0, 0xb0, ANY, S8, NONE, LOCKABLE, 0, 0},
    {"cmpxchg m, r", 1, 0, 0xb1, ANY, SZ, NONE, LOCKABLE, 0, 0},
    {"xadd m8, r8", 1, 0, 0xc0, ANY, S8, NONE, LOCKABLE, 0, 0},
    {"xadd m, r", 1, 0, 0xc1, ANY, SZ, NONE, LOCKABLE, 0, 0},
    BIT("bt", 0xa3, 4, PLAIN),
    BIT("bts", 0xab, 5, LOCKABLE),
    BIT("btr", 0xb3, 6, LOCKABLE),
    BIT("btc", 0xbb, 7, LOCKABLE),
    {"push m", 0, 0, 0xff, 6, SZ, NONE, STACK, 0, 0},
    {"pop m", 0, 0, 0x8f, 0, SZ, NONE, STACK, 0, 0},
    STR("movs", 0xa4, STRING),
    STR("cmps", 0xa6, STRING),
    STR("stos", 0xaa, STRING),
    STR("lods", 0xac, STRING),
    STR("scas", 0xae, STRING),
    {"insb", 0, 0, 0x6c, ANY, S8, NONE, IO, 0, 0},
    {"ins", 0, 0, 0x6d, ANY, S16 | S32, NONE, IO, 0, 0},
    {"outsb", 0, 0, 0x6e, ANY, S8, NONE, IO, 0, 0},
    {"outs", 0, 0, 0x6f, ANY, S16 | S32, NONE, IO, 0, 0},
};
const unsigned form_count = sizeof(forms) / sizeof(forms[0]);
