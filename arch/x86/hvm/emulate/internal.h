/* What the emulator's files share: bits of the architecture, places in memory, and the list of handlers. */
#ifndef METRONOME_EMULATE_INTERNAL_H
#define METRONOME_EMULATE_INTERNAL_H

#include "emulate.h"

/* Hands on any status but EMU_OK. */
#define TRY(call)                             \
    do {                                      \
        enum emu_status status_ = (call);     \
        if (__builtin_expect(status_, EMU_OK)) \
            return status_;                   \
    } while (0)

/*
 * Inside only: the call ends as EMU_OK with RIP unmoved, and the guest runs the instruction again. Another vCPU changed the
 * RAM that was about to be updated; or a run of a REP wants a whole budget.
 */
#define EMU_AGAIN ((enum emu_status)(EMU_UNHANDLED + 1))

enum { FLAG_CF = 1, FLAG_PF = 4, FLAG_AF = 0x10, FLAG_ZF = 0x40, FLAG_SF = 0x80, FLAG_DF = 0x400, FLAG_OF = 0x800,
       FLAG_IOPL_SHIFT = 12, FLAG_RF = 0x10000, FLAG_VM = 0x20000, FLAG_AC = 0x40000 };
#define FLAGS_ARITHMETIC ((uint64_t)(FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF))

#define CR0_PE (1u << 0)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_PG (1u << 31)
#define CR4_PSE (1u << 4)
#define CR4_PAE (1u << 5)
#define CR4_OSFXSR (1u << 9)
#define CR4_LA57 (1u << 12)
#define CR4_SMEP (1u << 20)
#define CR4_SMAP (1u << 21)
#define CR4_PKE (1u << 22)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

/* Segment attributes (APM 2 B.2). */
enum { SEG_WRITABLE = 2, SEG_READABLE = 2, SEG_EXPAND_DOWN = 4, SEG_CODE = 8, SEG_PRESENT = 0x80, SEG_LONG = 0x200, SEG_BIG = 0x400 };

enum { VECTOR_UD = 6, VECTOR_NM = 7, VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14, VECTOR_AC = 17 };

enum { PAGE_BYTES = 4096, PAGE_OFFSET = 4095, INSN_MAX = 15 };

/* The functions that run instructions (execute.c has the table). HANDLER_NONE: only the length is known. */
enum handler {
    HANDLER_NONE, HANDLER_UD,
    HANDLER_MOV_RM_R, HANDLER_MOV_R_RM, HANDLER_MOV_RM_IMM, HANDLER_MOV_ACC_MOFFS, HANDLER_MOV_MOFFS_ACC, HANDLER_MOV_RM_SREG,
    HANDLER_MOVZX, HANDLER_MOVSX, HANDLER_MOVSXD, HANDLER_MOVBE, HANDLER_CMOV, HANDLER_SETCC,
    HANDLER_ALU_RM_R, HANDLER_ALU_R_RM, HANDLER_ALU_RM_IMM, HANDLER_TEST_RM_R, HANDLER_GROUP3, HANDLER_GROUP4, HANDLER_GROUP5,
    HANDLER_SHIFT_IMM, HANDLER_SHIFT_1, HANDLER_SHIFT_CL,
    HANDLER_XCHG, HANDLER_XADD, HANDLER_CMPXCHG, HANDLER_GROUP9, HANDLER_BT_REG, HANDLER_BT_IMM,
    HANDLER_POP_RM, HANDLER_STRING, HANDLER_IN, HANDLER_OUT, HANDLER_VECTOR, HANDLER_COUNT
};

/* Where an operand lies: in a register, or in one page, or in two. */
struct place {
    uint64_t gpa[2];
    uint8_t size[2]; /* bytes in each page; size[1] is 0 where one page holds all */
    int8_t reg;      /* register number, or -1 */
};

static inline uint64_t size_mask(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

static inline uint64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - 8 * size;

    return (uint64_t)((int64_t)(value << shift) >> shift);
}

static inline bool in_64bit_mode(const struct emu_regs *r)
{
    return (r->efer & EFER_LMA) && (r->seg[EMU_CS].attributes & SEG_LONG);
}

/* Protected mode proper: segments have types. */
static inline bool in_protected_mode(const struct emu_regs *r)
{
    return (r->cr0 & CR0_PE) && !(r->rflags & FLAG_VM);
}

static inline bool is_canonical(const struct emu_regs *r, uint64_t address)
{
    unsigned shift = r->cr4 & CR4_LA57 ? 7 : 16;

    return (uint64_t)((int64_t)(address << shift) >> shift) == address;
}

static inline unsigned modrm_mod(const struct emu_insn *i) { return i->modrm >> 6; }
static inline unsigned modrm_digit(const struct emu_insn *i) { return (i->modrm >> 3) & 7; } /* the manual's /0 to /7 */
static inline unsigned modrm_reg(const struct emu_insn *i) { return modrm_digit(i) | (i->rex & 4) << 1; }
static inline unsigned modrm_rm(const struct emu_insn *i) { return (i->modrm & 7) | (i->rex & 1) << 3; }

/* register.c */
uint64_t emu_reg_read(const struct emu *e, unsigned reg, unsigned size);
void emu_reg_write(struct emu *e, unsigned reg, unsigned size, uint64_t value);

/* segment.c */
enum emu_status emu_raise(struct emu *e, uint8_t vector);
enum emu_status emu_raise_code(struct emu *e, uint8_t vector, uint32_t code);
enum emu_status emu_linearize(struct emu *e, unsigned seg, uint64_t offset, unsigned size, unsigned access, uint64_t *linear);

/* memory.c */
enum emu_status emu_memory_place(struct emu *e, unsigned seg, uint64_t offset, unsigned size, unsigned access, struct place *p);
enum emu_status emu_linear_place(struct emu *e, uint64_t linear, unsigned size, unsigned access, struct place *p);
enum emu_status emu_rm_place(struct emu *e, unsigned size, unsigned access, struct place *p);
enum emu_status emu_place_read(struct emu *e, const struct place *p, uint64_t *value);
enum emu_status emu_place_write(struct emu *e, const struct place *p, uint64_t value);
enum emu_status emu_place_update(struct emu *e, const struct place *p, uint64_t old, uint64_t value);
enum emu_status emu_place_read16(struct emu *e, const struct place *p, uint64_t value[2]);
enum emu_status emu_place_write16(struct emu *e, const struct place *p, const uint64_t value[2]);
enum emu_status emu_place_update16(struct emu *e, const struct place *p, const uint64_t old[2], const uint64_t value[2]);
uint64_t emu_effective_address(const struct emu *e);
bool emu_is_ram(struct emu *e, uint64_t gpa, bool write);

/* decode.c */
enum decode_result { DECODED, DECODE_SHORT /* more bytes are needed */, DECODE_LONG /* over 15 bytes */, DECODE_UNKNOWN };
enum decode_result emu_decode_bytes(const struct emu_regs *r, const uint8_t *bytes, unsigned n, struct emu_insn *insn);

/*
 * attributes.c: what an opcode looks like. Bits 0-7 are its handler, 8-11 its immediate, the rest flags.
 */
enum immediate {
    IMM_NONE, IMM_IB /* sign-extended byte */, IMM_UB /* byte */, IMM_IW, IMM_IZ /* 2 or 4, sign-extended */, IMM_IV /* 2, 4 or 8 */,
    IMM_ID /* 4 */, IMM_MOFFS /* address size */, IMM_JZ, IMM_FAR /* selector and offset */, IMM_ENTER, IMM_GROUP3 /* TEST only */, IMM_EXTRQ
};
enum {
    ATTR_MODRM = 1 << 12,
    ATTR_BYTE = 1 << 13,    /* operand of one byte */
    ATTR_D64 = 1 << 14,     /* 64-bit operand by default in 64-bit mode */
    ATTR_DEFINED = 1 << 15,
    ATTR_NOT64 = 1 << 16,   /* undefined in 64-bit mode */
    ATTR_PORT = 1 << 17,    /* operand of 4 bytes at most */
    ATTR_WIDE = 1 << 19,    /* operand of 4 bytes at least */
    ATTR_REGISTER = 1 << 18 /* ModRM names registers whatever its mod bits: MOV to and from CR and DR */
};
uint32_t emu_opcode_attributes(unsigned map, unsigned opcode);
bool emu_lock_allowed(const struct emu_insn *i);

/* alu.c: pure arithmetic on values of 1, 2, 4 or 8 bytes, with flags */
enum alu_op { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
uint64_t emu_alu(enum alu_op op, unsigned size, uint64_t a, uint64_t b, uint64_t *rflags);
uint64_t emu_alu_shift(unsigned digit, unsigned size, uint64_t value, unsigned count, uint64_t *rflags);
bool emu_condition(unsigned code, uint64_t rflags);

/* execute.c */
enum emu_status emu_finish(struct emu *e);

/* handlers outside execute.c */
enum emu_status emu_run_alu_rm_r(struct emu *e);
enum emu_status emu_run_alu_r_rm(struct emu *e);
enum emu_status emu_run_alu_rm_imm(struct emu *e);
enum emu_status emu_run_test_rm_r(struct emu *e);
enum emu_status emu_run_group3(struct emu *e);
enum emu_status emu_run_group4(struct emu *e);
enum emu_status emu_run_group5(struct emu *e);
enum emu_status emu_run_shift_imm(struct emu *e);
enum emu_status emu_run_shift_1(struct emu *e);
enum emu_status emu_run_shift_cl(struct emu *e);
enum emu_status emu_run_xchg(struct emu *e);
enum emu_status emu_run_xadd(struct emu *e);
enum emu_status emu_run_cmpxchg(struct emu *e);
enum emu_status emu_run_group9(struct emu *e);
enum emu_status emu_run_bt_reg(struct emu *e);
enum emu_status emu_run_bt_imm(struct emu *e);
enum emu_status emu_run_push_rm(struct emu *e);
enum emu_status emu_run_pop_rm(struct emu *e);
enum emu_status emu_run_string(struct emu *e);
enum emu_status emu_run_in(struct emu *e);
enum emu_status emu_run_out(struct emu *e);
enum emu_status emu_run_vector(struct emu *e);

/* port.c */
enum emu_status emu_port_check(struct emu *e, uint16_t port, unsigned size);
enum emu_status emu_port_in(struct emu *e, uint16_t port, unsigned size, uint64_t *value);
enum emu_status emu_port_out(struct emu *e, uint16_t port, unsigned size, uint64_t value);

#endif
