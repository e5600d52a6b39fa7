/* Arithmetic on values of 1, 2, 4 and 8 bytes with the flags it leaves (SDM 1 appendix A). Undefined flags are cleared. */
#include "internal.h"

static uint64_t result_flags(unsigned size, uint64_t result)
{
    uint64_t flags = 0;

    result &= size_mask(size);
    if (!result)
        flags |= FLAG_ZF;
    if (result >> (8 * size - 1))
        flags |= FLAG_SF;
    if (!__builtin_parity((unsigned)(result & 0xff)))
        flags |= FLAG_PF;
    return flags;
}

/* CF, AF and OF from the vector of carries (or borrows) out of each bit. */
static uint64_t carry_flags(unsigned size, uint64_t carries)
{
    unsigned top = 8 * size - 1;
    uint64_t flags = (carries >> top) & 1;

    flags |= ((carries >> 3) & 1) << 4;
    flags |= (((carries >> top) ^ (carries >> (top - 1))) & 1) << 11;
    return flags;
}

uint64_t emu_alu(enum alu_op op, unsigned size, uint64_t a, uint64_t b, uint64_t *rflags)
{
    uint64_t carry = *rflags & FLAG_CF, carries = 0, result = 0;

    switch (op) {
    case ALU_ADD:
    case ALU_ADC:
        result = a + b + (op == ALU_ADC ? carry : 0);
        carries = (a & b) | ((a | b) & ~result);
        break;
    case ALU_SUB:
    case ALU_CMP:
    case ALU_SBB:
        result = a - b - (op == ALU_SBB ? carry : 0);
        carries = (~a & b) | ((~a | b) & result);
        break;
    case ALU_OR: result = a | b; break;
    case ALU_AND: result = a & b; break;
    case ALU_XOR: result = a ^ b; break;
    }
    *rflags = (*rflags & ~FLAGS_ARITHMETIC) | result_flags(size, result) | carry_flags(size, carries);
    return result & size_mask(size);
}

/* ROL, ROR, RCL and RCR touch CF and OF only. */
static uint64_t rotate(unsigned digit, unsigned size, uint64_t value, unsigned count, uint64_t *rflags)
{
    unsigned bits = 8 * size;
    uint64_t cf = *rflags & FLAG_CF, of;

    while (count--) {
        uint64_t top = value >> (bits - 1) & 1, low = value & 1;

        switch (digit) {
        case 0: value = value << 1 | top; cf = top; break;
        case 1: value = value >> 1 | low << (bits - 1); cf = low; break;
        case 2: value = value << 1 | cf; cf = top; break;
        default: value = value >> 1 | cf << (bits - 1); cf = low; break;
        }
        value &= size_mask(size);
    }
    /* Left: the sign against the carry; right: the two upper bits. */
    of = value >> (bits - 1) & 1;
    of ^= digit & 1 ? value >> (bits - 2) & 1 : cf;
    *rflags = (*rflags & ~(uint64_t)(FLAG_CF | FLAG_OF)) | cf | of << 11;
    return value;
}

/* Group 2: ROL ROR RCL RCR SHL SHR SAL SAR. The count is masked here; a count of 0 leaves the flags alone. */
uint64_t emu_alu_shift(unsigned digit, unsigned size, uint64_t value, unsigned count, uint64_t *rflags)
{
    unsigned bits = 8 * size;
    uint64_t result, cf, of;

    count &= size == 8 ? 63 : 31;
    if (!count)
        return value;
    if (digit < 4)
        return rotate(digit, size, value, count, rflags);
    if (digit == 5) {
        result = value >> count;
        cf = value >> (count - 1) & 1;
        of = value >> (bits - 1) & 1;
    } else if (digit == 7) {
        int64_t signed_value = (int64_t)sign_extend(value, size);

        result = (uint64_t)(signed_value >> count) & size_mask(size);
        cf = (uint64_t)(signed_value >> (count - 1)) & 1;
        of = 0;
    } else {
        result = value << count & size_mask(size);
        cf = count <= bits ? value >> (bits - count) & 1 : 0;
        of = (result >> (bits - 1) & 1) ^ cf;
    }
    *rflags = (*rflags & ~FLAGS_ARITHMETIC) | result_flags(size, result) | cf | of << 11;
    return result;
}

/* The condition code in the low four bits of Jcc, SETcc and CMOVcc. */
bool emu_condition(unsigned code, uint64_t rflags)
{
    bool sf_is_not_of = !(rflags & FLAG_SF) != !(rflags & FLAG_OF), holds = false;

    switch (code >> 1 & 7) {
    case 0: holds = rflags & FLAG_OF; break;
    case 1: holds = rflags & FLAG_CF; break;
    case 2: holds = rflags & FLAG_ZF; break;
    case 3: holds = rflags & (FLAG_CF | FLAG_ZF); break;
    case 4: holds = rflags & FLAG_SF; break;
    case 5: holds = rflags & FLAG_PF; break;
    case 6: holds = sf_is_not_of; break;
    case 7: holds = sf_is_not_of || (rflags & FLAG_ZF); break;
    }
    return holds != (code & 1);
}
