/*
 * Wide arithmetic for Eva: no run-time error for any operands, and (with -warn-unsigned-overflow) no sum or product in
 * mul_u64_split wraps, which is what makes it exact: see docs/proof.md.
 */
#include "__fc_builtin.h"
#include "wide.h"

static uint64_t any64(void)
{
    return Frama_C_unsigned_long_interval(0, UINT64_MAX);
}

#ifdef ONLY_MUL
void main(void)
{
    mul_u64_split(any64(), any64());
}
#else
void main(void)
{
    mulhi_u64(any64(), any64());
    muldiv_u64(any64(), any64(), any64());
    muldiv_up_u64(any64(), any64(), any64());
}
#endif
