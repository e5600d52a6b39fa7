/* The ACPI PM timer and PM1a event block: every register and bit, and random accesses against a counter that ticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "pmtimer/pmtimer.h"
#include "random.h"

#define STS 0u
#define EN 2u
#define TMR 8u
#define HALF24 ((uint64_t)1 << 25) /* master ticks between two changes of bit 23 */
#define HALF32 ((uint64_t)1 << 33) /* ... of bit 31 */

static struct pmtimer pm;
static uint64_t now;

static int setup(void **state)
{
    now = 1000;
    memset(&pm, 0xa5, sizeof(pm));
    pmtimer_reset(&pm, now, false);
    return 0;
}

static int setup32(void **state)
{
    setup(state);
    pmtimer_reset(&pm, now, true);
    return 0;
}

static uint64_t in(unsigned offset, unsigned size)
{
    uint64_t v = pmtimer_read(&pm, now, offset, size);
    assert_true(pmtimer_check(&pm));
    return v;
}

static void out(unsigned offset, unsigned size, uint64_t value)
{
    pmtimer_write(&pm, now, offset, size, value);
    assert_true(pmtimer_check(&pm));
}

static bool sci(void)
{
    return pm.out.line[0].level;
}

static void press(unsigned line)
{
    pmtimer_set_line(&pm, now, line, true);
    pmtimer_set_line(&pm, now, line, false);
    assert_true(pmtimer_check(&pm));
}

static void test_reset(void **state)
{
    assert_true(pmtimer_check(&pm));
    assert_int_equal(in(0, 4), 0);
    assert_false(sci());
    assert_true(pmtimer_deadline(&pm) == NEVER);
}

static void test_count(void **state)
{
    for (now = 0; now < 100; now++)
        assert_int_equal(in(TMR, 4), now / 4);
    now = 4ull * 0xffffff;
    assert_int_equal(in(TMR, 4), 0xffffff);
    now += 3;
    assert_int_equal(in(TMR, 4), 0xffffff);
    now += 1;
    assert_int_equal(in(TMR, 4), 0);
}

static void test_count_32bit(void **state)
{
    now = 4ull * 0xffffffff;
    assert_int_equal(in(TMR, 4), 0xffffffff);
    now += 4;
    assert_int_equal(in(TMR, 4), 0);
    now += 4ull * 0x1234567;
    assert_int_equal(in(TMR, 4), 0x1234567);
}

static void test_partial_reads(void **state)
{
    pmtimer_reset(&pm, now, true);
    now = 4ull * 0x89abcdef;
    assert_int_equal(in(8, 1), 0xef);
    assert_int_equal(in(9, 1), 0xcd);
    assert_int_equal(in(10, 1), 0xab);
    assert_int_equal(in(11, 1), 0x89);
    assert_int_equal(in(8, 2), 0xcdef);
    assert_int_equal(in(9, 2), 0xabcd);
    assert_int_equal(in(10, 2), 0x89ab);
    assert_int_equal(in(8, 4), 0x89abcdef);
}

static void test_timer_is_read_only(void **state)
{
    struct pmtimer before = pm;

    for (unsigned offset = 8; offset < 12; offset++)
        for (unsigned size = 1; size <= 4; size *= 2)
            out(offset, size, 0x55555555);
    assert_memory_equal(&before, &pm, sizeof(pm));
}

/* The datasheet's and ACPI's word: TMR_STS is set whenever the MSB changes, up or down. */
static void test_msb_sets_status(void **state)
{
    now = HALF24 - 1;
    assert_int_equal(in(STS, 2), 0);
    now = HALF24;
    assert_int_equal(in(STS, 2), PM1_TMR);
    out(STS, 2, PM1_TMR);
    now = 2 * HALF24 - 1;
    assert_int_equal(in(STS, 2), 0);
    now = 2 * HALF24;
    assert_int_equal(in(STS, 2), PM1_TMR);
    now += 1000 * HALF24; /* an even number of changes is not none */
    out(STS, 2, PM1_TMR);
    now += 2 * HALF24;
    assert_int_equal(in(STS, 2), PM1_TMR);
}

static void test_msb_sets_status_32bit(void **state)
{
    now = HALF32 - 1;
    assert_int_equal(in(STS, 2), 0);
    now = HALF32;
    assert_int_equal(in(STS, 2), PM1_TMR);
}

static void test_status_is_write_one_to_clear(void **state)
{
    press(PMTIMER_POWER_BUTTON);
    press(PMTIMER_RTC_ALARM);
    press(PMTIMER_WAKE);
    now = HALF24;
    assert_int_equal(in(STS, 2), PM1_TMR | PM1_PWRBTN | PM1_RTC | PM1_WAK);
    out(STS, 2, 0);
    assert_int_equal(in(STS, 2), PM1_TMR | PM1_PWRBTN | PM1_RTC | PM1_WAK);
    out(STS, 1, 0xff); /* a byte clears its own bits only */
    assert_int_equal(in(STS, 2), PM1_PWRBTN | PM1_RTC | PM1_WAK);
    out(STS + 1, 1, PM1_RTC >> 8);
    assert_int_equal(in(STS, 2), PM1_PWRBTN | PM1_WAK);
    assert_int_equal(in(STS + 1, 1), (PM1_PWRBTN | PM1_WAK) >> 8);
    out(STS, 2, PM1_WAK);
    assert_int_equal(in(STS, 2), PM1_PWRBTN);
}

static void test_enable(void **state)
{
    out(EN, 2, 0xffff);
    assert_int_equal(in(EN, 2), PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC);
    out(EN + 1, 1, 0);
    assert_int_equal(in(EN, 2), PM1_TMR | PM1_GBL);
    out(EN, 1, PM1_GBL);
    assert_int_equal(in(EN, 1), PM1_GBL);
    out(EN + 1, 1, PM1_PWRBTN >> 8);
    assert_int_equal(in(EN, 2), PM1_GBL | PM1_PWRBTN);
    assert_int_equal(in(STS, 2), 0);
}

static void test_status_and_enable_together(void **state)
{
    press(PMTIMER_POWER_BUTTON);
    press(PMTIMER_RTC_ALARM);
    out(0, 4, (uint32_t)PM1_RTC << 16 | PM1_PWRBTN);
    assert_int_equal(in(0, 4), (uint32_t)PM1_RTC << 16 | PM1_RTC);
    out(1, 2, (uint32_t)PM1_TMR << 8 | PM1_RTC >> 8); /* the high half of STS, the low half of EN */
    assert_int_equal(in(0, 4), (uint32_t)(PM1_RTC | PM1_TMR) << 16);
    assert_int_equal(in(1, 2), (uint32_t)PM1_TMR << 8);
}

static void test_inputs_are_edges(void **state)
{
    static const unsigned bits[] = {PM1_PWRBTN, PM1_RTC, PM1_WAK};

    for (unsigned line = 0; line < 3; line++) {
        pmtimer_set_line(&pm, now, line, true);
        assert_int_equal(in(STS, 2), bits[line]);
        out(STS, 2, 0xffff);
        pmtimer_set_line(&pm, now, line, true);
        assert_int_equal(in(STS, 2), 0);
        pmtimer_set_line(&pm, now, line, false);
        assert_int_equal(in(STS, 2), 0);
        pmtimer_set_line(&pm, now, line, true);
        assert_int_equal(in(STS, 2), bits[line]);
        out(STS, 2, 0xffff);
    }
    pmtimer_set_line(&pm, now, 3, true);
    pmtimer_set_line(&pm, now, ~0u, true);
    assert_int_equal(in(STS, 2), 0);
}

static void test_sci(void **state)
{
    static const unsigned lines[] = {PMTIMER_POWER_BUTTON, PMTIMER_RTC_ALARM};

    pmtimer_set_sci_enable(&pm, now, true);
    for (unsigned i = 0; i < 2; i++) {
        unsigned bit = i ? PM1_RTC : PM1_PWRBTN;
        press(lines[i]);
        assert_false(sci());
        out(EN, 2, bit);
        assert_true(sci());
        out(STS, 2, bit);
        assert_false(sci());
        press(lines[i]);
        assert_true(sci());
        out(EN, 2, 0);
        assert_false(sci());
        out(STS, 2, bit);
    }
    assert_int_equal(pm.out.line[0].rises, 4);
    out(EN, 2, 0xffff);
    press(PMTIMER_WAKE); /* has no enable bit: WAK_STS tells, it does not interrupt */
    assert_false(sci());
}

static void test_sci_enable(void **state)
{
    out(EN, 2, PM1_PWRBTN | PM1_TMR);
    press(PMTIMER_POWER_BUTTON);
    assert_false(sci());
    assert_true(pmtimer_deadline(&pm) == NEVER);
    pmtimer_set_sci_enable(&pm, now, true);
    assert_true(sci());
    assert_true(pmtimer_deadline(&pm) == HALF24);
    pmtimer_set_sci_enable(&pm, now, false);
    assert_false(sci());
}

static void test_deadline(void **state)
{
    pmtimer_set_sci_enable(&pm, now, true);
    out(EN, 2, PM1_TMR);
    assert_true(pmtimer_deadline(&pm) == HALF24);
    pmtimer_advance(&pm, HALF24 - 1);
    assert_false(sci());
    assert_true(pmtimer_deadline(&pm) == HALF24);
    now = HALF24 + 12345;
    pmtimer_advance(&pm, now);
    assert_true(sci());
    assert_true(pm.out.line[0].last_rise == HALF24); /* when it was due, not when it was seen */
    assert_true(pmtimer_deadline(&pm) == NEVER);
    out(STS, 2, PM1_TMR);
    assert_true(pmtimer_deadline(&pm) == 2 * HALF24);
    out(EN, 2, 0);
    assert_true(pmtimer_deadline(&pm) == NEVER);
}

static void test_enable_after_the_change(void **state)
{
    pmtimer_set_sci_enable(&pm, now, true);
    now = HALF24 + 99;
    out(EN, 2, PM1_TMR);
    assert_true(sci());
    assert_true(pm.out.line[0].last_rise == now);
}

/* A year of SCIs: exactly one for each change of the MSB. */
static void test_exact_over_a_year(void **state)
{
    uint64_t year = 157500000ull * 86400 * 365 / 11;

    pmtimer_set_sci_enable(&pm, now, true);
    out(EN, 2, PM1_TMR);
    while ((now = pmtimer_deadline(&pm)) <= year)
        out(STS, 2, PM1_TMR);
    assert_true(pm.out.line[0].rises == year / HALF24);
}

static void test_reset_keeps_counting(void **state)
{
    now = 4 * 0x123456;
    pmtimer_reset(&pm, now, false);
    assert_int_equal(in(TMR, 4), 0x123456);
    now = 3 * HALF24 + 5;
    pmtimer_reset(&pm, now, false);
    assert_int_equal(in(STS, 2), 0);
    now = 4 * HALF24;
    assert_int_equal(in(STS, 2), PM1_TMR);
}

/* XSA-112: an access across a region's edge. */
static void test_undefined_accesses(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, ~0u};
    struct pmtimer before;

    press(PMTIMER_POWER_BUTTON);
    out(EN, 2, PM1_PWRBTN);
    before = pm;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        for (unsigned offset = 0; offset < 20; offset++) {
            unsigned size = sizes[i], end = offset + size;
            bool good = size == 1 || size == 2 || size == 4;
            if (good && (end <= 4 || (offset >= 8 && end <= 12)))
                continue;
            assert_true(in(offset, size) == all_ones(size));
            out(offset, size, UINT64_MAX);
        }
    }
    assert_true(in(~0u, 2) == 0xffff);
    assert_true(in(~0u - 1, 4) == 0xffffffff);
    out(~0u, 2, 0xffff);
    assert_memory_equal(&before, &pm, sizeof(pm));
}

static void test_time_going_back(void **state)
{
    pmtimer_set_sci_enable(&pm, now, true);
    out(EN, 2, PM1_TMR);
    now = 5 * HALF24 + 1;
    out(STS, 2, PM1_TMR);
    pmtimer_advance(&pm, HALF24);
    pmtimer_advance(&pm, 0);
    assert_int_equal(pmtimer_read(&pm, 400, TMR, 4), 100);
    assert_int_equal(in(STS, 2), 0);
    assert_true(pmtimer_deadline(&pm) == 6 * HALF24);
}

static void test_end_of_time(void **state)
{
    pmtimer_set_sci_enable(&pm, now, true);
    out(EN, 2, PM1_TMR);
    now = UINT64_MAX - 3;
    out(STS, 2, PM1_TMR);
    assert_true(pmtimer_deadline(&pm) == NEVER);
    now = UINT64_MAX;
    assert_int_equal(in(STS, 2), 0);
    assert_int_equal(in(TMR, 4), 0xffffff);
}

static void test_check_refuses(void **state)
{
    struct pmtimer good;

    pmtimer_set_sci_enable(&pm, now, true);
    out(EN, 2, PM1_PWRBTN);
    press(PMTIMER_POWER_BUTTON);
    good = pm;
#define REFUSED(change) \
    do { \
        pm = good; \
        change; \
        assert_false(pmtimer_check(&pm)); \
    } while (0)
    REFUSED(pm.sts |= 2);
    REFUSED(pm.sts |= PM1_GBL);
    REFUSED(pm.en |= PM1_WAK);
    REFUSED(pm.inputs = 8);
    REFUSED(pm.sci_en = 2);
    REFUSED(pm.sci_en = 0);
    REFUSED(pm.timer_32bit = 2);
    REFUSED(pm.zero = 1);
    REFUSED(pm.out.line[0].zero = 1);
    REFUSED(pm.out.line[0].level = 0);
    REFUSED(pm.out.line[0].level = 2);
    REFUSED(pm.en = 0);
    REFUSED(pm.sts = 0);
#undef REFUSED
}

/* The reference: a counter that is incremented, its MSB watched; registers of single bits. */
struct ref {
    uint64_t time;
    unsigned width;
    bool msb, sts[16], en[16], in[3], sci_en, sci;
    uint64_t rises, last;
};

static void ref_update(struct ref *r, uint64_t when)
{
    bool any = false;
    for (unsigned i = 0; i < 16; i++)
        any |= r->sts[i] && r->en[i];
    any &= r->sci_en;
    if (any && !r->sci) {
        r->rises++;
        r->last = when;
    }
    r->sci = any;
}

/* Time passes; only the moments when bit width-1 may change are looked at, each of them. */
static void ref_run(struct ref *r, uint64_t when)
{
    while (r->time < when) {
        uint64_t step = 1ull << (r->width + 1);
        uint64_t next = r->time - r->time % step + step;
        r->time = next < when ? next : when;
        bool msb = r->time / 4 >> (r->width - 1) & 1;
        if (msb != r->msb)
            r->sts[0] = true;
        r->msb = msb;
        ref_update(r, r->time);
    }
}

static void ref_write_byte(struct ref *r, unsigned offset, unsigned value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned bit = 8 * (offset & 1) + i;
        if (offset < 2)
            r->sts[bit] &= !(value >> i & 1);
        else if (bit == 0 || bit == 5 || bit == 8 || bit == 10)
            r->en[bit] = value >> i & 1;
    }
}

static unsigned ref_read_byte(const struct ref *r, unsigned offset)
{
    unsigned value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (unsigned)(offset < 2 ? r->sts : r->en)[8 * (offset & 1) + i] << i;
    if (offset >= 8)
        value = (r->time / 4 & ((1ull << r->width) - 1)) >> (8 * (offset - 8)) & 0xff;
    return value;
}

static bool ref_has(unsigned offset, unsigned size)
{
    for (unsigned i = offset; i < offset + size; i++)
        if ((i >= 4 && i < 8) || i >= 12)
            return false;
    return offset / 4 == (offset + size - 1) / 4;
}

static void random_step(struct ref *r)
{
    static const unsigned sts_bit[] = {8, 10, 15};
    unsigned offset = below(13), size = 1u << below(3), value = (unsigned)below(1ull << 32), line = below(3);
    bool level = below(2);
    uint64_t got, want = 0;

    switch (below(5)) {
    case 0:
        pmtimer_set_line(&pm, now, line, level);
        if (level && !r->in[line])
            r->sts[sts_bit[line]] = true;
        r->in[line] = level;
        break;
    case 1:
        pmtimer_set_sci_enable(&pm, now, level);
        r->sci_en = level;
        break;
    case 2:
    case 3:
        pmtimer_write(&pm, now, offset, size, value);
        for (unsigned i = 0; i < size && ref_has(offset, size) && offset < 4; i++)
            ref_write_byte(r, offset + i, value >> (8 * i) & 0xff);
        break;
    default:
        got = pmtimer_read(&pm, now, offset, size);
        for (unsigned i = 0; i < size; i++)
            want |= (uint64_t)(ref_has(offset, size) ? ref_read_byte(r, offset + i) : 0xff) << (8 * i);
        assert_true(got == want);
    }
    ref_update(r, now);
}

static void against_reference(bool wide)
{
    struct ref r = {.width = wide ? 32 : 24};
    struct pmtimer copy;
    uint64_t half = wide ? HALF32 : HALF24;

    seed = wide ? 32 : 24;
    now = 0;
    pmtimer_reset(&pm, now, wide);
    for (unsigned i = 0; i < 300000; i++) {
        now = below(2) ? now + below(16) : below(2) ? now + below(3 * half) : now - now % half + half - below(3) + below(3);
        if (now < r.time)
            now = r.time;
        copy = pm;
        assert_true(pmtimer_check(&copy));
        ref_run(&r, now);
        if (below(2))
            pmtimer_advance(&pm, now);
        pmtimer_advance(&copy, now - below(now - copy.seen + 1)); /* saved, restored, advanced in other steps */
        pmtimer_advance(&copy, now);
        random_step(&r);
        pmtimer_advance(&pm, now);
        assert_true(pmtimer_check(&pm) && pmtimer_check(&copy));
        assert_int_equal(pm.out.line[0].level, r.sci);
        assert_int_equal(pm.out.line[0].rises, r.rises);
        assert_int_equal(pm.out.line[0].last_rise, r.last);
        bool due = r.sci_en && r.en[0] && !r.sts[0];
        assert_true(pmtimer_deadline(&pm) == (due ? (now / half + 1) * half : NEVER));
    }
}

static void test_against_reference(void **state)
{
    against_reference(false);
    against_reference(true);
}

/* Advanced in one step or many, restored or not: the same state, byte for byte. */
static void test_restored_runs_the_same(void **state)
{
    struct pmtimer copy;

    seed = 7;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t gap = below(HALF24);
        unsigned offset = below(13), size = 1u << below(3), value = (unsigned)below(1ull << 32);
        memcpy(&copy, &pm, sizeof(pm));
        pmtimer_advance(&pm, now + below(gap + 1));
        now += gap;
        pmtimer_write(&pm, now, offset, size, value);
        pmtimer_write(&copy, now, offset, size, value);
        pmtimer_set_sci_enable(&pm, now, value & 1);
        pmtimer_set_sci_enable(&copy, now, value & 1);
        assert_true(pmtimer_read(&pm, now, offset, size) == pmtimer_read(&copy, now, offset, size));
        assert_memory_equal(&copy, &pm, sizeof(pm));
    }
}

static void test_random_walk_stays_valid(void **state)
{
    seed = 9;
    for (unsigned i = 0; i < 300000; i++) {
        now = below(UINT64_MAX) >> below(64); /* time in both directions */
        switch (below(5)) {
        case 0:
            pmtimer_set_line(&pm, now, below(4), below(2));
            break;
        case 1:
            pmtimer_set_sci_enable(&pm, now, below(2));
            break;
        case 2:
            pmtimer_read(&pm, now, below(14), 1u << below(5));
            break;
        default:
            pmtimer_write(&pm, now, below(14), 1u << below(5), below(UINT64_MAX));
            break;
        }
        assert_true(pmtimer_check(&pm));
        assert_true(pmtimer_deadline(&pm) > pm.seen || pm.seen == UINT64_MAX);
        if (i % 100 == 0)
            pmtimer_reset(&pm, below(UINT64_MAX) >> below(64), below(2));
    }
}

#define TEST(name) cmocka_unit_test_setup(name, setup)
#define TEST32(name) cmocka_unit_test_setup(name, setup32)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset),
        TEST(test_count),
        TEST32(test_count_32bit),
        TEST(test_partial_reads),
        TEST(test_timer_is_read_only),
        TEST(test_msb_sets_status),
        TEST32(test_msb_sets_status_32bit),
        TEST(test_status_is_write_one_to_clear),
        TEST(test_enable),
        TEST(test_status_and_enable_together),
        TEST(test_inputs_are_edges),
        TEST(test_sci),
        TEST(test_sci_enable),
        TEST(test_deadline),
        TEST(test_enable_after_the_change),
        TEST(test_exact_over_a_year),
        TEST(test_reset_keeps_counting),
        TEST(test_undefined_accesses),
        TEST(test_time_going_back),
        TEST(test_end_of_time),
        TEST(test_check_refuses),
        TEST(test_against_reference),
        TEST(test_restored_runs_the_same),
        TEST(test_random_walk_stays_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
