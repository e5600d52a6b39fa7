/* General registers by their encoded number and operand size. */
#include "internal.h"

/* Without REX, byte registers 4 to 7 are AH, CH, DH and BH. */
static bool is_high_byte(const struct emu *e, unsigned reg, unsigned size)
{
    return size == 1 && !e->insn.rex && reg >= 4;
}

uint64_t emu_reg_read(const struct emu *e, unsigned reg, unsigned size)
{
    if (is_high_byte(e, reg, size))
        return (e->regs.gpr[reg - 4] >> 8) & 0xff;
    return e->regs.gpr[reg] & size_mask(size);
}

/* A 4-byte result clears the upper half; shorter ones leave the rest alone (SDM 1 3.4.1.1). */
void emu_reg_write(struct emu *e, unsigned reg, unsigned size, uint64_t value)
{
    uint64_t *gpr = &e->regs.gpr[reg];
    uint64_t mask = size_mask(size);

    if (is_high_byte(e, reg, size))
        gpr[-4] = (gpr[-4] & ~0xff00ull) | (value & 0xff) << 8;
    else if (size == 4)
        *gpr = (uint32_t)value;
    else
        *gpr = (*gpr & ~mask) | (value & mask);
}
