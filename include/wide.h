/*
 * Wide arithmetic: the only place where products exceed 64 bits.
 *
 * The split form is plain C99 for the prover and for any compiler; the native form is one multiplication and one
 * division. tests/unit/test_wide.c holds the two equal to __int128.
 */
#ifndef METRONOME_WIDE_H
#define METRONOME_WIDE_H

#include <stdint.h>

/* A 128-bit unsigned number. */
struct u128 {
    uint64_t hi, lo;
};

/* a * b in full, from four 32-bit products. */
static inline struct u128 mul_u64_split(uint64_t a, uint64_t b)
{
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t ll = al * bl, lh = al * bh, hl = ah * bl;
    uint64_t mid = (ll >> 32) + (uint32_t)lh + (uint32_t)hl;
    struct u128 r = {ah * bh + (lh >> 32) + (hl >> 32) + (mid >> 32), (uint64_t)(uint32_t)mid << 32 | (uint32_t)ll};
    return r;
}

/* n / d by long division, bit by bit; *rem gets the remainder. The caller guarantees n.hi < d. */
static inline uint64_t div_u128_split(struct u128 n, uint64_t d, uint64_t *rem)
{
    uint64_t q = 0, r = n.hi;
    for (int i = 63; i >= 0; i--) {
        uint64_t carry = r >> 63;
        r = (r << 1) | ((n.lo >> i) & 1);
        q <<= 1;
        if (carry || r >= d) {
            r -= d;
            q |= 1;
        }
    }
    *rem = r;
    return q;
}

#if defined(__x86_64__) && !defined(__FRAMAC__)
static inline struct u128 mul_u64(uint64_t a, uint64_t b)
{
    struct u128 r;
    __asm__("mulq %3" : "=a"(r.lo), "=d"(r.hi) : "a"(a), "r"(b) : "cc");
    return r;
}
static inline uint64_t div_u128(struct u128 n, uint64_t d, uint64_t *rem)
{
    uint64_t q, r;
    __asm__("divq %4" : "=a"(q), "=d"(r) : "a"(n.lo), "d"(n.hi), "r"(d) : "cc");
    *rem = r;
    return q;
}
#else
#define mul_u64 mul_u64_split
#define div_u128 div_u128_split
#endif

/* The high 64 bits of a * b. */
static inline uint64_t mulhi_u64(uint64_t a, uint64_t b)
{
    return mul_u64(a, b).hi;
}

/* floor(a * b / d); UINT64_MAX where that does not fit in 64 bits or d is 0. */
static inline uint64_t muldiv_u64(uint64_t a, uint64_t b, uint64_t d)
{
    struct u128 p = mul_u64(a, b);
    uint64_t rem;
    return p.hi >= d ? UINT64_MAX : div_u128(p, d, &rem);
}

/* ceil(a * b / d); UINT64_MAX where that does not fit in 64 bits or d is 0. */
static inline uint64_t muldiv_up_u64(uint64_t a, uint64_t b, uint64_t d)
{
    struct u128 p = mul_u64(a, b);
    uint64_t rem, q;
    if (p.hi >= d)
        return UINT64_MAX;
    q = div_u128(p, d, &rem);
    return q + (rem != 0 && q != UINT64_MAX);
}

#endif
