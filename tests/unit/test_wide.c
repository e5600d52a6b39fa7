/* wide.h against the compiler's own 128-bit arithmetic: the native and the split form, on every edge and at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "clock.h"
#include "random.h"
#include "wide.h"

typedef unsigned __int128 wide;

/* Where carries are born: powers of two, their neighbours, and the constants that the clocks use. */
static uint64_t edges[3 * 64 + 16];
static unsigned edge_count;

static int collect_edges(void **state)
{
    static const uint64_t more[] = {
        0, UINT64_MAX, UINT64_MAX - 1, 0xffffffff00000000, 0xaaaaaaaaaaaaaaaa, 0x5555555555555555, 3, 10,
        MASTER_HZ_NUM, MASTER_HZ_DEN, RTC_PER_MASTER_NUM, RTC_PER_MASTER_DEN, 69841279, 1000000000, 2800000000, 0xfffffffe00000001,
    };

    for (unsigned i = 0; i < 64; i++) {
        edges[edge_count++] = (1ull << i) - 1;
        edges[edge_count++] = 1ull << i;
        edges[edge_count++] = (1ull << i) + 1;
    }
    for (unsigned i = 0; i < sizeof(more) / sizeof(*more); i++)
        edges[edge_count++] = more[i];
    return 0;
}

/* Of any length. */
static uint64_t rnd(void)
{
    uint64_t n = random64();

    return n >> (seed & 63);
}

static wide join(struct u128 n)
{
    return (wide)n.hi << 64 | n.lo;
}

static void check_product(uint64_t a, uint64_t b)
{
    wide p = (wide)a * b;

    assert_true(join(mul_u64(a, b)) == p);
    assert_true(join(mul_u64_split(a, b)) == p);
    assert_true(mulhi_u64(a, b) == (uint64_t)(p >> 64));
}

/* The quotient of two words by one; the contract is n.hi < d. */
static void check_quotient(uint64_t hi, uint64_t lo, uint64_t d)
{
    struct u128 n = {hi, lo};
    uint64_t rem = 0, rem_split = 0;

    if (hi >= d)
        return;
    assert_true(div_u128(n, d, &rem) == (uint64_t)(join(n) / d));
    assert_true(div_u128_split(n, d, &rem_split) == (uint64_t)(join(n) / d));
    assert_true(rem == (uint64_t)(join(n) % d) && rem_split == rem);
}

static void check_muldiv(uint64_t a, uint64_t b, uint64_t d)
{
    wide p = (wide)a * b, down = d ? p / d : (wide)UINT64_MAX + 1, up = d ? down + (p % d != 0) : down;

    assert_true(muldiv_u64(a, b, d) == (down > UINT64_MAX ? UINT64_MAX : (uint64_t)down));
    assert_true(muldiv_up_u64(a, b, d) == (up > UINT64_MAX ? UINT64_MAX : (uint64_t)up));
}

static void test_products(void **state)
{
    for (unsigned i = 0; i < edge_count; i++)
        for (unsigned j = 0; j < edge_count; j++)
            check_product(edges[i], edges[j]);
    for (unsigned i = 0; i < 1000000; i++)
        check_product(rnd(), rnd());
}

static void test_quotients(void **state)
{
    for (unsigned i = 0; i < edge_count; i++) {
        for (unsigned j = 0; j < edge_count; j += 3) {
            check_quotient(edges[i] - 1, edges[j], edges[i]); /* the greatest quotients */
            check_quotient(0, edges[j], edges[i]);
            check_quotient(edges[j], edges[i], edges[j] + 1);
        }
    }
    for (unsigned i = 0; i < 1000000; i++) {
        uint64_t d = rnd() | 1;
        check_quotient(rnd() % d, rnd(), d);
    }
}

static void test_muldiv(void **state)
{
    for (unsigned i = 0; i < edge_count; i++)
        for (unsigned j = 0; j < edge_count; j++)
            for (unsigned k = 0; k < edge_count; k += 1 + (i + j) % 7)
                check_muldiv(edges[i], edges[j], edges[k]);
    for (unsigned i = 0; i < 1000000; i++)
        check_muldiv(rnd(), rnd(), rnd());
}

/* The contract's corners, spelled out. */
static void test_saturation(void **state)
{
    assert_true(muldiv_u64(1, 1, 0) == UINT64_MAX);
    assert_true(muldiv_up_u64(0, 0, 0) == UINT64_MAX);
    assert_true(muldiv_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == UINT64_MAX);
    assert_true(muldiv_u64(UINT64_MAX, 2, 2) == UINT64_MAX);
    assert_true(muldiv_u64(UINT64_MAX, 2, 1) == UINT64_MAX);
    assert_true(muldiv_u64(7, 3, 2) == 10);
    assert_true(muldiv_up_u64(7, 3, 2) == 11);
    /* ceil((2^64 - 1 + something) / 1) does not wrap to 0 */
    assert_true(muldiv_up_u64(0x5555555555555555, 6, 2) == UINT64_MAX);
    assert_true(muldiv_up_u64(UINT64_MAX, UINT64_MAX - 1, UINT64_MAX) == UINT64_MAX - 1);
    assert_true(muldiv_up_u64(0xfffffffffffffff1, 0xfffffffffffffff1, 0xffffffffffffffe2) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_quotients),
        cmocka_unit_test(test_muldiv),
        cmocka_unit_test(test_saturation),
    };
    return cmocka_run_group_tests(tests, collect_edges, NULL);
}
