/*
 * The latency ledger: its buckets and percentiles against exact references, and a vector's stamp from the post to the EOI.
 */
#include "latency/latency.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static bool within_a_percent(uint64_t shown, uint64_t exact)
{
    uint64_t error = shown > exact ? shown - exact : exact - shown;

    return error <= exact / 100;
}

/* Each bucket's ends, and the value of its middle for both: what lies between is nearer. */
static void test_buckets_cover_all_times(void **state)
{
    uint64_t next = 0;

    (void)state;
    for (unsigned b = 0; b < METRONOME_LATENCY_BUCKETS; b++) {
        uint64_t first = metronome_latency_first(b), last = first + (metronome_latency_width(b) - 1), middle;

        middle = first + metronome_latency_width(b) / 2;
        assert_int_equal(first, next);
        assert_int_equal(metronome_latency_bucket(first), b);
        assert_int_equal(metronome_latency_bucket(last), b);
        if (middle > first)
            assert_true((middle - first) * 125 <= first && last - middle <= middle - first); /* 0.8 % */
        next = last + 1;
    }
    assert_int_equal(next - 1, METRONOME_LATENCY_MAX);
}

static void test_buckets_one_by_one(void **state)
{
    (void)state;
    for (uint64_t v = 0; v < 1 << 22; v++) {
        unsigned b = metronome_latency_bucket(v);

        assert_true(v >= metronome_latency_first(b) && v - metronome_latency_first(b) < metronome_latency_width(b));
    }
    for (unsigned i = 0; i < 1000000; i++) {
        uint64_t v = random64() >> 2 >> below(63), first = metronome_latency_first(metronome_latency_bucket(v));

        assert_true(v - first < metronome_latency_width(metronome_latency_bucket(v)));
        assert_true(within_a_percent(first + metronome_latency_width(metronome_latency_bucket(v)) / 2, v));
    }
}

/* ---- Percentiles ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void expect_permille(const uint64_t *sorted, uint64_t n, unsigned p, uint64_t shown)
{
    uint64_t rank = (n * p + 999) / 1000, exact = sorted[rank - 1];

    if (!within_a_percent(shown, exact))
        fail_msg("%lu of 1000 of %lu: %lu is shown, %lu it is", (uint64_t)p, n, shown, exact);
}

static void test_percentiles_against_sorting(void **state)
{
    static struct metronome_histogram h;
    static uint64_t times[5000];

    (void)state;
    for (unsigned program = 0; program < 300; program++) {
        uint64_t n = 1 + below(program % 2 ? 5000 : 20), limit = 1ull << (1 + below(40));
        struct metronome_latency_summary s;

        memset(&h, 0, sizeof(h));
        for (uint64_t i = 0; i < n; i++) {
            times[i] = below(10) ? below(limit) : below(1ull << 40);
            latency_count(&h, 7, 7 + times[i]);
        }
        qsort(times, n, sizeof(times[0]), by_value);
        s = metronome_latency_summary(&h);
        assert_int_equal(s.n, n);
        expect_permille(times, n, 500, s.p50);
        expect_permille(times, n, 990, s.p99);
        expect_permille(times, n, 999, s.p999);
        expect_permille(times, n, 1000, s.max);
        for (unsigned p = 1; p <= 1000; p += 1 + (unsigned)below(40))
            expect_permille(times, n, p, metronome_latency_permille(&h, n, p));
    }
}

static void test_nothing_counted(void **state)
{
    static const struct metronome_histogram h;
    struct metronome_latency_summary s = metronome_latency_summary(&h);

    (void)state;
    assert_true(s.n == 0 && s.p50 == 0 && s.p99 == 0 && s.p999 == 0 && s.max == 0);
}

/* ---- Stamps ---- */

static struct metronome_latency ledger, expected;
static struct latency l;
static uint64_t bar[METRONOME_LATENCY_SOURCE_COUNT];

static int empty(void **state)
{
    (void)state;
    memset(&ledger, 0, sizeof(ledger));
    memset(&expected, 0, sizeof(expected));
    memset(bar, 0xff, sizeof(bar));
    l = (struct latency){.ledger = &ledger, .bar = bar};
    return 0;
}

static void expect(unsigned source, unsigned stage, uint64_t ticks)
{
    expected.of[source][stage].count[metronome_latency_bucket(ticks)]++;
}

static void expect_nothing_else(void)
{
    assert_memory_equal(&ledger, &expected, sizeof(ledger));
}

static void enter(uint8_t vector, unsigned how, uint64_t now)
{
    if (how == LATENCY_AGAIN)
        latency_again(&l, vector);
    else
        latency_acknowledged(&l, vector);
    latency_entered(&l, 0, now);
    assert_int_equal(l.entering, 0);
}

static void test_a_timers_way(void **state)
{
    (void)state;
    latency_posted(&l, 0x40, METRONOME_LATENCY_OF_PIT, 1000, 1300);
    enter(0x40, LATENCY_INJECTED, 5000);
    latency_ended(&l, 0x40, 9000);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_DUE, 4000);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_POSTED, 3700);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_EOI, 4000);
    expect_nothing_else();
}

static void test_an_ipis_way(void **state)
{
    (void)state;
    latency_posted(&l, 0xff, METRONOME_LATENCY_OF_IPI, 0, 1);
    enter(0xff, LATENCY_INJECTED, 2);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_POSTED, 1);
    expect_nothing_else();
}

/* One request, one interrupt: what came first waits longest. */
static void test_the_first_post_counts(void **state)
{
    (void)state;
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_MSI, 0, 100);
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_RTC, 150, 200);
    enter(0x50, LATENCY_INJECTED, 1100);
    expect(METRONOME_LATENCY_OF_MSI, METRONOME_LATENCY_POSTED, 1000);
    expect_nothing_else();
}

/* Its EOI comes while the same vector has been posted anew, by another source. */
static void test_posted_again_while_in_service(void **state)
{
    (void)state;
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_MSI, 0, 100);
    enter(0x50, LATENCY_INJECTED, 200);
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_LINE, 0, 300);
    latency_ended(&l, 0x50, 500);
    enter(0x50, LATENCY_INJECTED, 600);
    latency_ended(&l, 0x50, 650);
    expect(METRONOME_LATENCY_OF_MSI, METRONOME_LATENCY_POSTED, 100);
    expect(METRONOME_LATENCY_OF_MSI, METRONOME_LATENCY_EOI, 300);
    expect(METRONOME_LATENCY_OF_LINE, METRONOME_LATENCY_POSTED, 300);
    expect(METRONOME_LATENCY_OF_LINE, METRONOME_LATENCY_EOI, 50);
    expect_nothing_else();
}

/* As ticks are that follow each other: the next one is posted when the vector has been acknowledged, before the entry. */
static void test_posted_again_before_the_entry(void **state)
{
    (void)state;
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_PIT, 90, 100);
    latency_acknowledged(&l, 0x50);
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_PIT, 150, 150);
    latency_entered(&l, 0, 200);
    enter(0x50, LATENCY_INJECTED, 1000);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_POSTED, 100);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_DUE, 110);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_POSTED, 850);
    expect(METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_DUE, 850);
    expect_nothing_else();
}

/* What nobody has posted is injected and ended without being counted. */
static void test_never_posted(void **state)
{
    (void)state;
    latency_posted(&l, 0x50, METRONOME_LATENCY_OF_MSI, 0, 100);
    enter(0x50, LATENCY_INJECTED, 200);
    expect(METRONOME_LATENCY_OF_MSI, METRONOME_LATENCY_POSTED, 100);
    enter(0x50, LATENCY_INJECTED, 300);
    latency_ended(&l, 0x50, 400);
    enter(0x60, LATENCY_AGAIN, 500);
    latency_ended(&l, 0x60, 600);
    expect_nothing_else();
}

static void test_injected_again(void **state)
{
    (void)state;
    latency_posted(&l, 0x31, METRONOME_LATENCY_OF_LAPIC, 90, 100);
    enter(0x31, LATENCY_INJECTED, 200);
    enter(0x31, LATENCY_AGAIN, 700);
    latency_ended(&l, 0x31, 1000);
    expect(METRONOME_LATENCY_OF_LAPIC, METRONOME_LATENCY_DUE, 110);
    expect(METRONOME_LATENCY_OF_LAPIC, METRONOME_LATENCY_POSTED, 100);
    expect(METRONOME_LATENCY_OF_LAPIC, METRONOME_LATENCY_AGAIN, 500);
    expect(METRONOME_LATENCY_OF_LAPIC, METRONOME_LATENCY_EOI, 300);
    expect_nothing_else();
}

/* Two CPUs' TSCs: no time is negative, nor is it very long. */
static void test_posted_later_than_entered(void **state)
{
    (void)state;
    latency_posted(&l, 0x31, METRONOME_LATENCY_OF_IPI, 0, 1050);
    enter(0x31, LATENCY_INJECTED, 1000);
    latency_ended(&l, 0x31, 900);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_POSTED, 0);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_EOI, 0);
    expect_nothing_else();
}

/* Behind an exit; and none that is known of. */
static void test_from_the_exit(void **state)
{
    (void)state;
    latency_posted(&l, 0x31, METRONOME_LATENCY_OF_IPI, 0, 50);
    latency_acknowledged(&l, 0x31);
    latency_entered(&l, 140, 200);
    latency_posted(&l, 0x31, METRONOME_LATENCY_OF_IPI, 0, 250);
    enter(0x31, LATENCY_INJECTED, 260);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_POSTED, 150);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_EXIT, 60);
    expect(METRONOME_LATENCY_OF_IPI, METRONOME_LATENCY_POSTED, 10);
    expect_nothing_else();
}

/* What takes longer than the bar is to be kept: from its moment, where one is known, else from its post. */
static void test_over_the_bar(void **state)
{
    (void)state;
    bar[METRONOME_LATENCY_OF_PIT] = 100;
    latency_posted(&l, 0x40, METRONOME_LATENCY_OF_PIT, 1000, 1050);
    enter(0x40, LATENCY_INJECTED, 1100);
    assert_int_equal(l.late, 0);
    latency_posted(&l, 0x40, METRONOME_LATENCY_OF_PIT, 2000, 2050);
    enter(0x40, LATENCY_INJECTED, 2101);
    assert_true(l.late == 101 && l.late_source == METRONOME_LATENCY_OF_PIT && l.late_vector == 0x40);
    l.late = 0;
    latency_posted(&l, 0x41, METRONOME_LATENCY_OF_PIT, 0, 2050);
    enter(0x41, LATENCY_INJECTED, 2150);
    assert_int_equal(l.late, 0);
    latency_posted(&l, 0x41, METRONOME_LATENCY_OF_IPI, 0, 2050); /* another source, another bar */
    enter(0x41, LATENCY_INJECTED, 5000);
    assert_int_equal(l.late, 0);
}

static void test_forgotten_but_what_is_still_posted(void **state)
{
    const uint64_t kept[4] = {0, 1ull << 1, 0, 1ull << 63};

    (void)state;
    for (unsigned v = 0; v < 256; v++)
        latency_posted(&l, (uint8_t)v, METRONOME_LATENCY_OF_IPI, 0, 10);
    latency_forget(&l, kept);
    for (unsigned v = 0; v < 256; v++)
        latency_posted(&l, (uint8_t)v, METRONOME_LATENCY_OF_MSI, 0, 20);
    for (unsigned v = 0; v < 256; v++) {
        bool stays = v == 65 || v == 255;

        enter((uint8_t)v, LATENCY_INJECTED, 30);
        expect(stays ? METRONOME_LATENCY_OF_IPI : METRONOME_LATENCY_OF_MSI, METRONOME_LATENCY_POSTED, stays ? 20 : 10);
    }
    expect_nothing_else();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_cover_all_times),
        cmocka_unit_test(test_buckets_one_by_one),
        cmocka_unit_test(test_percentiles_against_sorting),
        cmocka_unit_test(test_nothing_counted),
        cmocka_unit_test_setup(test_a_timers_way, empty),
        cmocka_unit_test_setup(test_an_ipis_way, empty),
        cmocka_unit_test_setup(test_the_first_post_counts, empty),
        cmocka_unit_test_setup(test_posted_again_while_in_service, empty),
        cmocka_unit_test_setup(test_posted_again_before_the_entry, empty),
        cmocka_unit_test_setup(test_never_posted, empty),
        cmocka_unit_test_setup(test_injected_again, empty),
        cmocka_unit_test_setup(test_posted_later_than_entered, empty),
        cmocka_unit_test_setup(test_from_the_exit, empty),
        cmocka_unit_test_setup(test_over_the_bar, empty),
        cmocka_unit_test_setup(test_forgotten_but_what_is_still_posted, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
