/*
 * The 8254 and port 0x61: the figures of the datasheet, each stated difference, and random commands against a reference
 * chip that is simulated clock by clock, digit by digit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "vpit/vpit.h"

#define TICK ((uint64_t)MASTER_PER_PIT_TICK)
#define START (1000 * TICK)

static struct vpit pit;
static uint64_t now;

static int setup(void **state)
{
    now = START;
    memset(&pit, 0xa5, sizeof(pit));
    vpit_reset(&pit, now);
    return 0;
}

/* Lets `n` clocks pass. */
static void clocks(uint64_t n)
{
    now += n * TICK;
    vpit_advance(&pit, now);
    assert_true(vpit_check(&pit));
}

static void out(unsigned offset, unsigned value)
{
    vpit_write(&pit, now, offset, 1, value);
    assert_true(vpit_check(&pit));
}

static unsigned in(unsigned offset)
{
    return (unsigned)vpit_read(&pit, now, offset, 1);
}

static void gate(unsigned channel, bool level)
{
    vpit_set_line(&pit, now, channel, level);
    assert_true(vpit_check(&pit));
}

static void program(unsigned channel, unsigned mode, bool bcd, unsigned count)
{
    out(3, channel << 6 | 0x30 | mode << 1 | bcd);
    out(channel, count & 0xff);
    out(channel, count >> 8);
}

static unsigned count_of(unsigned channel)
{
    unsigned low;
    out(3, channel << 6);
    low = in(channel);
    return in(channel) << 8 | low;
}

static unsigned status_of(unsigned channel)
{
    out(3, 0xe0 | 2u << channel);
    return in(channel);
}

static bool level(unsigned channel)
{
    return pit.out.line[channel].level;
}

static uint64_t rises(unsigned channel)
{
    return pit.out.line[channel].rises;
}

/* After each of the next clocks: the count, and OUT as '+' (high) or '-' (low). */
static void expect(unsigned channel, unsigned n, const unsigned *counts, const char *levels)
{
    for (unsigned i = 0; i < n; i++) {
        clocks(1);
        assert_int_equal(count_of(channel), counts[i]);
        assert_int_equal(level(channel), levels[i] == '+');
    }
}
#define EXPECT(channel, levels, ...) \
    expect(channel, sizeof(levels) - 1, (const unsigned[sizeof(levels) - 1]){__VA_ARGS__}, levels)

/* The datasheet's figures, mode by mode. */

static void test_mode0(void **state)
{
    program(0, 0, false, 4);
    assert_false(level(0));
    EXPECT(0, "----+++", 4, 3, 2, 1, 0, 0xffff, 0xfffe);
    assert_int_equal(rises(0), 1);
    assert_int_equal(pit.out.line[0].last_rise, START + 5 * TICK);
    clocks(200000);
    assert_int_equal(rises(0), 1); /* it goes around, but OUT stays high */
}

static void test_mode0_gate_suspends(void **state)
{
    program(0, 0, false, 3);
    EXPECT(0, "--", 3, 2);
    gate(0, false);
    EXPECT(0, "---", 2, 2, 2);
    gate(0, true);
    EXPECT(0, "-+", 1, 0);
}

static void test_mode0_loads_with_gate_low(void **state)
{
    gate(0, false);
    program(0, 0, false, 3);
    EXPECT(0, "--", 3, 3);
    gate(0, true);
    EXPECT(0, "--+", 2, 1, 0); /* N clocks, not N + 1: it is loaded already */
}

static void test_mode0_new_count(void **state)
{
    out(3, 0x10);
    out(0, 3);
    clocks(3);
    out(0, 2);
    clocks(1);
    assert_false(level(0));
    clocks(1);
    assert_false(level(0));
    clocks(1);
    assert_true(level(0));
    out(0, 7);
    assert_false(level(0)); /* at once, without a clock */
}

static void test_mode0_first_byte_stops_counting(void **state)
{
    program(0, 0, false, 10);
    clocks(4);
    assert_int_equal(count_of(0), 7);
    out(0, 5);
    clocks(5);
    assert_int_equal(count_of(0), 7);
    assert_false(level(0));
    assert_int_equal(vpit_deadline(&pit), NEVER);
    out(0, 0);
    EXPECT(0, "-----+", 5, 4, 3, 2, 1, 0);
}

static void test_mode1(void **state)
{
    program(2, 1, false, 3);
    clocks(5);
    assert_true(level(2));
    assert_int_equal(status_of(2), 0x80 | 0x40 | 0x30 | 1 << 1);
    gate(2, true);
    assert_true(level(2));
    EXPECT(2, "---++", 3, 2, 1, 0, 0xffff);
    gate(2, false);
    EXPECT(2, "+", 0xfffe);
    gate(2, true);
    EXPECT(2, "--", 3, 2);
    gate(2, false);
    gate(2, true); /* retriggered: between two clocks is enough */
    EXPECT(2, "---++", 3, 2, 1, 0, 0xffff);
    assert_int_equal(rises(2), 2);
}

static void test_mode1_new_count_waits_for_trigger(void **state)
{
    program(2, 1, false, 2);
    gate(2, true);
    clocks(1);
    out(2, 4);
    out(2, 0);
    assert_true(status_of(2) & 0x40);
    EXPECT(2, "-++", 1, 0, 0xffff);
    gate(2, false);
    gate(2, true);
    EXPECT(2, "----+", 4, 3, 2, 1, 0);
    assert_false(status_of(2) & 0x40);
}

static void test_mode1_trigger_without_count(void **state)
{
    out(3, 0xb2);
    gate(2, true);
    clocks(1);
    out(2, 3);
    out(2, 0);
    clocks(10);
    assert_true(level(2));
}

static void test_mode2(void **state)
{
    program(0, 2, false, 3);
    EXPECT(0, "++-++-++-", 3, 2, 1, 3, 2, 1, 3, 2, 1);
    assert_int_equal(rises(0), 2);
    clocks(1);
    assert_int_equal(rises(0), 3);
    assert_int_equal(pit.out.line[0].last_rise, START + 10 * TICK);
}

static void test_mode2_gate(void **state)
{
    program(0, 2, false, 3);
    EXPECT(0, "++-", 3, 2, 1);
    gate(0, false);
    assert_true(level(0)); /* at once */
    assert_int_equal(rises(0), 1);
    EXPECT(0, "++", 1, 1);
    gate(0, true);
    EXPECT(0, "++-+", 3, 2, 1, 3);
    gate(0, false);
    gate(0, true); /* no clock missed it low, but it has risen */
    EXPECT(0, "++-", 3, 2, 1);
}

static void test_mode2_new_count_at_end_of_cycle(void **state)
{
    program(0, 2, false, 4);
    EXPECT(0, "++", 4, 3);
    out(0, 5);
    out(0, 0);
    assert_true(status_of(0) & 0x40);
    EXPECT(0, "+-", 2, 1);
    assert_true(status_of(0) & 0x40);
    EXPECT(0, "++++-+", 5, 4, 3, 2, 1, 5);
    assert_false(status_of(0) & 0x40);
}

static void test_mode2_new_count_at_trigger(void **state)
{
    program(0, 2, false, 4);
    EXPECT(0, "++", 4, 3);
    out(0, 5);
    out(0, 0);
    gate(0, false);
    gate(0, true);
    EXPECT(0, "++++-+", 5, 4, 3, 2, 1, 5);
}

static void test_mode3_even(void **state)
{
    program(0, 3, false, 4);
    EXPECT(0, "++--++--+", 4, 2, 4, 2, 4, 2, 4, 2, 4);
    assert_int_equal(rises(0), 2);
}

static void test_mode3_odd(void **state)
{
    program(0, 3, false, 5);
    EXPECT(0, "+++--+++--+", 4, 2, 0, 4, 2, 4, 2, 0, 4, 2, 4);
    assert_int_equal(rises(0), 2);
}

static void test_mode3_gate(void **state)
{
    program(0, 3, false, 4);
    EXPECT(0, "++-", 4, 2, 4);
    gate(0, false);
    assert_true(level(0));
    EXPECT(0, "++", 4, 4);
    gate(0, true);
    EXPECT(0, "++--+", 4, 2, 4, 2, 4);
}

static void test_mode3_new_count_at_end_of_half_cycle(void **state)
{
    program(0, 3, false, 4);
    EXPECT(0, "+", 4);
    out(0, 7);
    out(0, 0);
    EXPECT(0, "+---++++---", 2, 6, 4, 2, 6, 4, 2, 0, 6, 4, 2);
    out(0, 4);
    out(0, 0);
    EXPECT(0, "++--", 4, 2, 4, 2);
}

static void test_mode4(void **state)
{
    program(0, 4, false, 3);
    assert_true(level(0));
    EXPECT(0, "+++-++", 3, 2, 1, 0, 0xffff, 0xfffe);
    assert_int_equal(rises(0), 1);
    assert_int_equal(pit.out.line[0].last_rise, START + 5 * TICK);
    clocks(65536 * 3);
    assert_int_equal(rises(0), 1);
}

static void test_mode4_gate_and_new_count(void **state)
{
    program(0, 4, false, 3);
    EXPECT(0, "++", 3, 2);
    gate(0, false);
    EXPECT(0, "++", 2, 2);
    gate(0, true);
    EXPECT(0, "+-", 1, 0);
    gate(0, false);
    EXPECT(0, "+", 0); /* GATE holds the count, not OUT */
    gate(0, true);
    out(0, 2);
    out(0, 0);
    EXPECT(0, "++", 2, 1);
    out(0, 3);
    EXPECT(0, "-", 0); /* the first byte changes nothing */
    out(0, 0);
    EXPECT(0, "+++-+", 3, 2, 1, 0, 0xffff);
}

static void test_mode5(void **state)
{
    program(2, 5, false, 3);
    clocks(4);
    gate(2, true);
    EXPECT(2, "+++-+", 3, 2, 1, 0, 0xffff);
    gate(2, false);
    EXPECT(2, "+", 0xfffe); /* the level does not matter */
    gate(2, true);
    EXPECT(2, "++", 3, 2);
    gate(2, false);
    gate(2, true);
    EXPECT(2, "+++-+", 3, 2, 1, 0, 0xffff);
    assert_int_equal(rises(2), 2);
}

static void test_modes_6_and_7(void **state)
{
    program(0, 6, false, 3);
    EXPECT(0, "++-+", 3, 2, 1, 3);
    assert_int_equal(status_of(0) & 0x3f, 0x30 | 6 << 1); /* the mode as written */
    program(0, 7, false, 4);
    EXPECT(0, "++--+", 4, 2, 4, 2, 4);
}

static void test_out_when_programmed(void **state)
{
    for (unsigned mode = 0; mode < 6; mode++) {
        program(0, 0, false, 100);
        assert_false(level(0));
        uint64_t before = rises(0);
        now += 5;
        out(3, 0x30 | mode << 1);
        assert_int_equal(level(0), mode != 0);
        assert_int_equal(rises(0), before + (mode != 0));
        if (mode)
            assert_int_equal(pit.out.line[0].last_rise, now);
    }
}

/* Counts, access modes, latches. */

static void test_count_zero(void **state)
{
    program(0, 2, false, 0);
    clocks(1 + 65536);
    assert_int_equal(rises(0), 1);
    assert_int_equal(count_of(0), 0);
    program(0, 2, true, 0);
    clocks(1 + 10000);
    assert_int_equal(rises(0), 2);
    assert_int_equal(count_of(0), 0);
    EXPECT(0, "+", 0x9999);
}

static void test_bcd(void **state)
{
    program(0, 0, true, 0x1000);
    EXPECT(0, "--", 0x1000, 0x0999);
    clocks(899);
    assert_int_equal(count_of(0), 0x0100);
    clocks(100);
    assert_true(level(0));
    EXPECT(0, "+", 0x9999);
    program(0, 3, true, 0x0013);
    EXPECT(0, "+++++++------+", 0x12, 0x10, 8, 6, 4, 2, 0, 0x12, 0x10, 8, 6, 4, 2, 0x12);
}

static void test_one_byte_access(void **state)
{
    out(3, 0x14);
    out(0, 0x30);
    clocks(1);
    assert_int_equal(in(0), 0x30);
    assert_int_equal(in(0), 0x30);
    out(3, 0x24);
    out(0, 0x12);
    clocks(2);
    assert_int_equal(in(0), 0x11);
    assert_int_equal(pit.channel[0].ce, 0x11ff);
    out(3, 0);
    clocks(0x200);
    assert_int_equal(in(0), 0x11); /* latched */
    assert_int_equal(in(0), 0x0f); /* live again */
}

static void test_live_reads_alternate(void **state)
{
    program(0, 0, false, 0x1234);
    clocks(1);
    assert_int_equal(in(0), 0x34);
    out(0, 0x78); /* reads and writes keep their own order of bytes */
    assert_int_equal(in(0), 0x12);
    out(0, 0x56);
    clocks(1);
    assert_int_equal(in(0), 0x78);
    assert_int_equal(in(0), 0x56);
}

static void test_latch_holds(void **state)
{
    program(0, 2, false, 0x1000);
    clocks(2);
    out(3, 0);
    clocks(100);
    out(3, 0); /* ignored: not read yet */
    assert_int_equal(in(0), 0xff);
    clocks(1);
    out(3, 0); /* ignored: half read */
    assert_int_equal(in(0), 0x0f);
    assert_int_equal(count_of(0), 0xfff - 101);
    out(3, 0);
    out(3, 0x34); /* a control word drops the latch */
    out(0, 9);
    out(0, 0);
    clocks(1);
    assert_int_equal(in(0), 9);
}

static void test_latch_between_two_reads(void **state)
{
    program(0, 2, false, 0x1000);
    clocks(1);
    assert_int_equal(in(0), 0x00);
    out(3, 0);
    assert_int_equal(in(0), 0x00);
    assert_int_equal(in(0), 0x10);
    assert_int_equal(in(0), 0x10); /* the live read's second byte */
}

static void test_read_back(void **state)
{
    program(0, 2, false, 0x1000);
    program(2, 0, true, 0x0050);
    clocks(1);
    out(3, 0xc0 | 2 | 8); /* count and status of channels 0 and 2 */
    clocks(50);
    out(3, 0xc0 | 2); /* ignored */
    assert_int_equal(in(0), 0x80 | 0x34);
    assert_int_equal(in(0), 0x00);
    assert_int_equal(in(0), 0x10);
    assert_int_equal(in(2), 0x31);
    assert_int_equal(in(2), 0x50);
    assert_int_equal(in(2), 0x00);
    out(3, 0xd0 | 2); /* count only */
    assert_int_equal(in(0), 0xce);
    assert_int_equal(in(0), 0x0f);
    out(3, 0xe0 | 4); /* status only; channel 1 has not been programmed */
    assert_int_equal(in(1), 0x80 | 0x40 | 0x36);
    out(3, 0xf0 | 0x0e); /* neither */
    assert_int_equal(in(0), 0xce);
}

static void test_null_count(void **state)
{
    out(3, 0x34);
    assert_true(status_of(0) & 0x40);
    out(0, 5);
    assert_true(status_of(0) & 0x40);
    out(0, 0);
    assert_true(status_of(0) & 0x40);
    clocks(1);
    assert_false(status_of(0) & 0x40);
    out(0, 6);
    assert_false(status_of(0) & 0x40); /* two-byte counts: the second byte sets it */
    out(0, 0);
    assert_true(status_of(0) & 0x40);
    clocks(4);
    assert_true(status_of(0) & 0x40);
    clocks(1);
    assert_false(status_of(0) & 0x40);
}

/* Port 0x61. */

static void test_port61(void **state)
{
    assert_int_equal(in(4) & ~0x10u, 0x20);
    out(4, 0xff);
    assert_int_equal(in(4) & ~0x10u, 0x2f);
    program(2, 0, false, 100);
    assert_int_equal(in(4) & ~0x10u, 0x0f);
    clocks(100);
    assert_int_equal(in(4) & 0x20, 0);
    clocks(1);
    assert_int_equal(in(4) & 0x20, 0x20);
    out(4, 0);
    assert_int_equal(in(4) & ~0x10u, 0x20);
    gate(2, true);
    assert_int_equal(in(4) & 1, 1);
}

/* The way Linux and SeaBIOS calibrate: GATE 2 up, one shot, poll OUT 2. */
static void test_port61_calibration(void **state)
{
    uint64_t start;

    out(4, (in(4) & ~2u) | 1);
    program(2, 0, false, 11931);
    start = now;
    while (!(in(4) & 0x20))
        now += 7;
    assert_in_range(now - start, 11932 * TICK, 11932 * TICK + 7);
}

static void test_refresh_toggle(void **state)
{
    unsigned last = in(4) & 0x10, flips = 0;
    uint64_t end = now + 1000 * 18 * TICK;

    for (; now < end; now += 5) {
        unsigned bit = in(4) & 0x10;
        flips += bit != last;
        last = bit;
    }
    assert_in_range(flips, 999, 1000);
    program(1, 2, false, 9); /* channel 1 has no say */
    last = in(4) & 0x10;
    now += 18 * TICK;
    assert_int_not_equal(in(4) & 0x10, last);
}

/* The stated differences. */

static void test_power_on(void **state)
{
    assert_int_equal(pit.tick, START / TICK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(status_of(i), 0x80 | 0x40 | 0x36);
        assert_int_equal(rises(i), 0);
        assert_int_equal(pit.channel[i].gate, i != 2);
    }
    clocks(1000000);
    assert_int_equal(rises(0) + rises(1) + rises(2), 0);
    assert_int_equal(vpit_deadline(&pit), NEVER);
}

static void test_count_of_one(void **state)
{
    for (unsigned mode = 2; mode < 4; mode++) {
        for (unsigned bcd = 0; bcd < 2; bcd++) {
            uint64_t period = bcd ? 10001 : 65537;
            program(0, mode, bcd, 1);
            uint64_t before = rises(0);
            clocks(1);
            assert_int_equal(count_of(0), mode == 2);
            clocks(1);
            assert_int_equal(count_of(0), mode == 2 ? 0 : bcd ? 0x9998 : 0xfffe);
            clocks(period * 10 - 2);
            assert_int_equal(rises(0), before + 9);
            clocks(1);
            assert_int_equal(rises(0), before + 10);
        }
    }
    program(0, 0, false, 1); /* elsewhere it is a count like any other */
    EXPECT(0, "-+", 1, 0);
}

static void test_bcd_digits_above_nine(void **state)
{
    program(0, 0, true, 0x00af);
    EXPECT(0, "--", 0x0115, 0x0114);
    program(0, 0, true, 0xffff);
    EXPECT(0, "--", 0x6665, 0x6664);
    program(0, 0, true, 0x99a0);
    EXPECT(0, "--", 0x0000, 0x9999);
}

static void test_half_a_count_is_not_taken(void **state)
{
    program(0, 2, false, 4);
    clocks(1);
    out(0, 9);
    EXPECT(0, "++-+++-+", 3, 2, 1, 4, 3, 2, 1, 4);
    out(0, 0);
    EXPECT(0, "++-+", 3, 2, 1, 9);
}

static void test_control_word_stops_counting(void **state)
{
    program(0, 2, false, 100);
    clocks(10);
    out(3, 0x34);
    EXPECT(0, "+++", 91, 91, 91);
    out(3, 0x35); /* the same bits, as BCD */
    EXPECT(0, "+", 91);
    out(0, 3);
    out(0, 0);
    EXPECT(0, "++-", 3, 2, 1);
}

static void test_undefined_accesses(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, ~0u};
    struct vpit before;

    program(0, 2, false, 1000);
    before = pit;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        for (unsigned offset = 0; offset < 9; offset++) {
            if (sizes[i] == 1 && offset < 5)
                continue;
            assert_true(vpit_read(&pit, now, offset, sizes[i]) == all_ones(sizes[i]));
            vpit_write(&pit, now, offset, sizes[i], 0x3636363636363636);
        }
    }
    assert_true(vpit_read(&pit, now, ~0u, 1) == 0xff);
    vpit_write(&pit, now, ~0u, 1, 0);
    vpit_set_line(&pit, now, 3, true);
    vpit_set_line(&pit, now, ~0u, false);
    assert_int_equal(in(3), 0xff);
    assert_memory_equal(&before, &pit, sizeof(pit));
}

/* Time. */

/* XSA-504: a mode change left Xen dividing by zero. */
static void test_no_division_by_zero_xsa504(void **state)
{
    for (unsigned cw = 0; cw < 256; cw++) {
        for (unsigned count = 0; count < 3; count++) {
            out(3, cw);
            clocks(cw % 3);
            out(0, count);
            out(0, 0);
            out(2, count);
            clocks(count);
            gate(2, cw & 1);
            vpit_deadline(&pit);
            clocks(1ull << 40);
        }
    }
}

static void test_exact_over_a_year(void **state)
{
    uint64_t year = 157500000ull * 86400 * 365 / 11; /* master ticks */

    program(0, 2, false, 1193);
    now += year;
    vpit_advance(&pit, now);
    assert_int_equal(rises(0), (year / 12 - 1) / 1193);
    assert_int_equal(pit.out.line[0].last_rise, START + TICK + rises(0) * 1193 * TICK);
}

static void test_edges_are_counted_not_sampled(void **state)
{
    program(0, 2, false, 100);
    for (unsigned i = 0; i < 99; i++)
        clocks(100);
    assert_int_equal(rises(0), 98);
    clocks(1);
    assert_int_equal(rises(0), 99);
}

static void test_end_of_time(void **state)
{
    static const unsigned counts[] = {0, 1, 2, 3, 0xffff};

    for (unsigned mode = 0; mode < 6; mode++) {
        for (unsigned i = 0; i < 5; i++) {
            setup(NULL);
            program(0, mode, false, counts[i]);
            gate(0, false);
            gate(0, true);
            now = UINT64_MAX - 100 * i;
            vpit_advance(&pit, now);
            assert_true(vpit_check(&pit));
            assert_true(vpit_deadline(&pit) > now || now == UINT64_MAX);
            out(0, 7);
            out(0, 0);
            assert_true(vpit_deadline(&pit) > now || now == UINT64_MAX);
        }
    }
}

static void test_last_deadline(void **state)
{
    uint64_t last = UINT64_MAX / 12 * 12;

    now = last - 10 * TICK;
    program(0, 0, false, 9);
    assert_true(vpit_deadline(&pit) == last);
    program(0, 0, false, 10);
    assert_true(vpit_deadline(&pit) == NEVER);
}

static void test_time_going_back(void **state)
{
    struct vpit before;

    program(0, 2, false, 100);
    clocks(1000);
    before = pit;
    vpit_advance(&pit, now - 500 * TICK);
    vpit_advance(&pit, 0);
    assert_memory_equal(&before, &pit, sizeof(pit));
    now -= 700 * TICK;
    program(0, 3, false, 5);
    assert_true(vpit_check(&pit));
    assert_true(vpit_deadline(&pit) >= before.tick * TICK);
}

/* The three chips stay in phase: clock k is at master time 12 * k wherever the accesses fall between. */
static void test_phase(void **state)
{
    now += 11;
    program(0, 2, false, 10);
    now -= 11;
    clocks(11);
    assert_int_equal(pit.out.line[0].last_rise, START + 11 * TICK);
    assert_int_equal(vpit_deadline(&pit), START + 21 * TICK);
    vpit_advance(&pit, START + 21 * TICK - 1);
    assert_int_equal(rises(0), 1);
    vpit_advance(&pit, START + 21 * TICK);
    assert_int_equal(rises(0), 2);
}

static void test_deadline(void **state)
{
    static const struct {
        unsigned mode, count;
        uint64_t clocks; /* to the first rise after the count is written; 0: never */
    } cases[] = {
        {0, 5, 6}, {0, 0, 65537}, {1, 5, 0}, {2, 5, 6}, {2, 0, 65537}, {3, 4, 5}, {3, 5, 6}, {3, 0, 65537}, {4, 5, 7}, {5, 5, 0},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        program(0, cases[i].mode, false, cases[i].count);
        assert_true(vpit_deadline(&pit) == (cases[i].clocks ? now + cases[i].clocks * TICK : NEVER));
        clocks(200000);
        if (cases[i].mode != 2 && cases[i].mode != 3)
            assert_true(vpit_deadline(&pit) == NEVER);
    }
    program(2, 2, false, 100); /* not channel 0 */
    program(0, 0, false, 5);
    gate(0, false);
    assert_true(vpit_deadline(&pit) == NEVER);
    program(0, 1, false, 5);
    gate(0, true);
    assert_true(vpit_deadline(&pit) == now + 6 * TICK);
    program(0, 5, false, 5);
    gate(0, false);
    gate(0, true);
    assert_true(vpit_deadline(&pit) == now + 7 * TICK);
}

/* check() refuses what no chip can be in. */
#define REFUSED(...) \
    do { \
        pit = good; \
        __VA_ARGS__; \
        assert_false(vpit_check(&pit)); \
    } while (0)

static void test_check_refuses(void **state)
{
    struct vpit good;

    program(0, 2, false, 100);
    program(1, 0, false, 100);
    clocks(5);
    good = pit;
    for (unsigned i = 0; i < sizeof(pit.zero); i++)
        REFUSED(pit.zero[i] = 1);
    REFUSED(pit.port61 = 0x10);
    REFUSED(pit.tick = UINT64_MAX / 12 + 1);
    REFUSED(pit.out.line[0].level = 2);
    REFUSED(pit.out.line[0].level = 0);
    REFUSED(pit.out.line[1].level = 1);
    REFUSED(pit.out.line[1].zero = 1);
    REFUSED(pit.channel[0].ce = 0);
    REFUSED(pit.channel[0].ce = 65538);
    REFUSED(pit.channel[1].ce = 0);
    REFUSED(pit.channel[1].ce = 65537);
    REFUSED(pit.channel[1].done = 1);
    REFUSED(pit.channel[1].done = 1; pit.out.line[1].level = 1; pit.channel[1].ce = 65536);
    REFUSED(pit.channel[1].trigger = 1);
    REFUSED(pit.channel[0].odd = 1);
    REFUSED(pit.channel[0].written = 0);
    REFUSED(pit.channel[0].counting = 0);
    REFUSED(pit.channel[2].counting = 1);
    REFUSED(pit.channel[2].null = 0);
    REFUSED(pit.channel[2].done = 1);
    REFUSED(pit.channel[2].odd = 1);
    REFUSED(pit.channel[2].ce = 65536);
}

static void test_check_refuses_registers(void **state)
{
    struct vpit good;

    program(0, 2, false, 100);
    clocks(5);
    good = pit;
    REFUSED(pit.channel[0].zero[0] = 1);
    REFUSED(pit.channel[0].zero[1] = 1);
    REFUSED(pit.channel[0].control = 0x40);
    REFUSED(pit.channel[0].control = 0x04);
    REFUSED(pit.channel[0].latched = 1);
    REFUSED(pit.channel[0].latched = 4);
    REFUSED(pit.channel[0].low_byte = 1);
    REFUSED(pit.channel[0].half = 1; pit.channel[0].control = 0x14);
    REFUSED(pit.channel[0].read_msb = 1; pit.channel[0].control = 0x24);
    REFUSED(pit.channel[0].latched = 2; pit.channel[0].control = 0x14);
    REFUSED(pit.channel[0].status_latched = 2);
    REFUSED(pit.channel[0].half = 2);
    REFUSED(pit.channel[0].read_msb = 2);
    REFUSED(pit.channel[0].gate = 2);
    REFUSED(pit.channel[0].trigger = 2);
    REFUSED(pit.channel[0].written = 2);
    REFUSED(pit.channel[0].null = 2);
    REFUSED(pit.channel[0].counting = 2);
    REFUSED(pit.channel[0].done = 2);
    REFUSED(pit.channel[0].odd = 2);
}

static void test_check_refuses_counters(void **state)
{
    struct vpit good;

    program(0, 3, false, 100);
    clocks(5);
    good = pit;
    REFUSED(pit.channel[0].ce = 65538);
    REFUSED(pit.channel[0].ce = 51);
    REFUSED(pit.channel[0].ce = 0); /* even counts never show 0 */
    REFUSED(pit.channel[0].odd = 1; pit.channel[0].ce = 0; pit.out.line[0].level = 0); /* odd ones only with OUT high */
    REFUSED(pit.channel[0].gate = 0; pit.out.line[0].level = 0);
    REFUSED(pit.channel[0].done = 1);
    program(0, 2, false, 100);
    clocks(5);
    good = pit;
    REFUSED(pit.channel[0].done = 1);
    program(0, 4, false, 100);
    clocks(5);
    good = pit;
    REFUSED(pit.out.line[0].level = 0);
    REFUSED(pit.out.line[0].level = 0; pit.channel[0].done = 1);
    out(3, 0x34); /* waits for its count with OUT high */
    good = pit;
    REFUSED(pit.out.line[0].level = 0);
    program(0, 1, false, 100); /* triggered: OUT is low until the count is over */
    vpit_set_line(&pit, now, 0, false);
    vpit_set_line(&pit, now, 0, true);
    clocks(5);
    good = pit;
    REFUSED(pit.out.line[0].level = 1);
}

/* In mode 3 OUT rose when GATE fell. Low, it would rise at the clock that takes the trigger, and no edge be counted. */
static void test_low_square_wave_cannot_be_triggered(void **state)
{
    struct vpit good;

    program(0, 3, false, 100);
    clocks(60);
    good = pit;
    assert_int_equal(pit.out.line[0].level, 0);
    REFUSED(pit.channel[0].trigger = 1);
    pit = good;
    vpit_set_line(&pit, now, 0, false);
    vpit_set_line(&pit, now, 0, true);
    assert_int_equal(pit.channel[0].trigger, 1);
    assert_int_equal(pit.out.line[0].rises, good.out.line[0].rises + 1);
    assert_true(vpit_check(&pit));
}
#undef REFUSED

/*
 * The reference chip: one channel, one clock at a time, on 16 raw bits. It follows the datasheet's prose and shares nothing with
 * the model, neither state nor arithmetic.
 */
struct ref {
    uint16_t ce, cr;
    unsigned rw, mode, cw;
    bool bcd, gate, edge, null, cr_full, loaded, second_byte, finished, expired, out, odd;
    uint8_t first;
    bool have_latch, have_status, read_second;
    unsigned latch_next, latch_end;
    uint16_t latch;
    uint8_t status;
    uint64_t rises, last;
};

static uint16_t ref_minus_one(const struct ref *r, uint16_t v)
{
    if (!r->bcd)
        return (uint16_t)(v - 1);
    for (unsigned shift = 0; shift < 16; shift += 4) {
        if (v & (0xf << shift))
            return (uint16_t)(v - (1 << shift));
        v = (uint16_t)(v | 9 << shift);
    }
    return v;
}

static void ref_out(struct ref *r, bool level, uint64_t when)
{
    if (level && !r->out) {
        r->rises++;
        r->last = when;
    }
    r->out = level;
}

static void ref_load(struct ref *r)
{
    r->ce = r->cr;
    r->odd = r->cr & 1;
    if (r->mode == 3 && r->odd)
        r->ce = ref_minus_one(r, r->ce);
    r->null = false;
    r->loaded = true;
    r->finished = r->expired = false;
}

static void ref_clock_square(struct ref *r, uint64_t when)
{
    bool flip;

    if (r->odd && r->out) {
        flip = r->expired;
        if (!flip) {
            r->ce = ref_minus_one(r, ref_minus_one(r, r->ce));
            r->expired = r->ce == 0;
        }
    } else {
        flip = r->ce == 2;
        if (!flip)
            r->ce = ref_minus_one(r, ref_minus_one(r, r->ce));
    }
    if (flip) {
        ref_load(r);
        ref_out(r, !r->out, when);
    }
}

static void ref_clock(struct ref *r, uint64_t when)
{
    bool edge = r->edge;

    r->edge = false;
    switch (r->mode) {
    case 0:
        if (r->cr_full && r->null) {
            ref_load(r);
        } else if (r->loaded && r->gate && !r->second_byte) {
            r->ce = ref_minus_one(r, r->ce);
            if (r->ce == 0)
                ref_out(r, true, when);
        }
        break;
    case 1:
        if (edge && r->cr_full) {
            ref_load(r);
            ref_out(r, false, when);
        } else if (r->loaded) {
            r->ce = ref_minus_one(r, r->ce);
            if (r->ce == 0)
                ref_out(r, true, when);
        }
        break;
    case 2:
        if (r->cr_full && (edge || !r->loaded)) {
            ref_load(r);
        } else if (r->loaded && r->gate && !r->out) {
            ref_load(r);
            ref_out(r, true, when);
        } else if (r->loaded && r->gate) {
            r->ce = ref_minus_one(r, r->ce);
            if (r->ce == 1)
                ref_out(r, false, when);
        }
        break;
    case 3:
        if (r->cr_full && (edge || !r->loaded))
            ref_load(r);
        else if (r->loaded && r->gate)
            ref_clock_square(r, when);
        break;
    case 4:
    case 5:
        if (!r->out)
            ref_out(r, true, when);
        if (r->cr_full && (r->mode == 4 ? r->null : edge)) {
            ref_load(r);
        } else if (r->loaded && (r->gate || r->mode == 5)) {
            r->ce = ref_minus_one(r, r->ce);
            if (r->ce == 0 && !r->finished) {
                r->finished = true;
                ref_out(r, false, when);
            }
        }
        break;
    }
}

static void ref_control(struct ref *r, unsigned value, uint64_t when)
{
    r->cw = value & 0x3f;
    r->rw = (value >> 4) & 3;
    r->mode = (value >> 1) & 7;
    if (r->mode > 5)
        r->mode -= 4;
    r->bcd = value & 1;
    r->null = true;
    r->edge = r->cr_full = r->loaded = r->second_byte = r->finished = r->expired = false;
    r->have_latch = r->have_status = r->read_second = false;
    ref_out(r, r->mode != 0, when);
}

static void ref_write(struct ref *r, uint8_t value, uint64_t when)
{
    if (r->mode == 0)
        ref_out(r, false, when);
    switch (r->rw) {
    case 1:
        r->cr = value;
        break;
    case 2:
        r->cr = (uint16_t)(value << 8);
        break;
    default:
        r->second_byte = !r->second_byte;
        if (r->second_byte) {
            r->first = value;
            return;
        }
        r->cr = (uint16_t)(value << 8 | r->first);
        break;
    }
    r->cr_full = r->null = true;
}

static uint8_t ref_byte(uint16_t v, unsigned which)
{
    return (uint8_t)(which ? v >> 8 : v & 0xff);
}

static uint8_t ref_read(struct ref *r)
{
    unsigned which = r->rw - 1;

    if (r->have_status) {
        r->have_status = false;
        return r->status;
    }
    if (r->have_latch) {
        which = r->latch_next++;
        r->have_latch = r->latch_next <= r->latch_end;
        return ref_byte(r->latch, which);
    }
    if (r->rw == 3) {
        which = r->read_second;
        r->read_second = !r->read_second;
    }
    return ref_byte(r->ce, which);
}

static void ref_latch(struct ref *r)
{
    if (r->have_latch)
        return;
    r->have_latch = true;
    r->latch = r->ce;
    r->latch_next = r->rw == 2;
    r->latch_end = r->rw != 1;
}

static void ref_latch_status(struct ref *r)
{
    if (!r->have_status)
        r->status = (uint8_t)(r->out << 7 | r->null << 6 | r->cw);
    r->have_status = true;
}

static void ref_gate(struct ref *r, bool level, uint64_t when)
{
    if (level && !r->gate && (r->mode == 1 || r->mode == 2 || r->mode == 3 || r->mode == 5))
        r->edge = true;
    if (!level && (r->mode == 2 || r->mode == 3))
        ref_out(r, true, when);
    r->gate = level;
}

/* Three reference channels behind the ports. */
struct board {
    struct ref ch[3];
    uint64_t tick;
    unsigned stored61;
};

static void board_reset(struct board *b, uint64_t when)
{
    memset(b, 0, sizeof(*b));
    b->tick = when / 12;
    for (unsigned i = 0; i < 3; i++) {
        b->ch[i].out = true;
        ref_control(&b->ch[i], 0x36, when);
        b->ch[i].gate = i < 2;
    }
}

static void board_run(struct board *b, uint64_t when)
{
    while (b->tick < when / 12) {
        b->tick++;
        for (unsigned i = 0; i < 3; i++)
            ref_clock(&b->ch[i], b->tick * 12);
    }
}

static void board_write(struct board *b, uint64_t when, unsigned offset, unsigned value)
{
    if (offset < 3) {
        ref_write(&b->ch[offset], (uint8_t)value, when);
    } else if (offset == 4) {
        b->stored61 = value & 14;
        ref_gate(&b->ch[2], value & 1, when);
    } else if (value >> 6 < 3 && (value & 0x30)) {
        ref_control(&b->ch[value >> 6], value, when);
    } else if (value >> 6 < 3) {
        ref_latch(&b->ch[value >> 6]);
    } else {
        for (unsigned i = 0; i < 3; i++) {
            if ((value >> (i + 1) & 1) && !(value & 0x20))
                ref_latch(&b->ch[i]);
            if ((value >> (i + 1) & 1) && !(value & 0x10))
                ref_latch_status(&b->ch[i]);
        }
    }
}

static unsigned board_read(struct board *b, uint64_t when, unsigned offset)
{
    if (offset < 3)
        return ref_read(&b->ch[offset]);
    if (offset == 3)
        return 0xff;
    return b->stored61 | b->ch[2].gate | (when / 216 % 2) << 4 | b->ch[2].out << 5;
}

/* Mostly a few clocks; sometimes past a short count, rarely past a long one. */
static uint64_t random_gap(void)
{
    switch (below(64)) {
    case 0:
        return below(12 * 1000);
    case 1:
        return below(12 * 70000) >> below(10);
    default:
        return below(3) ? below(12 * 6) : 0;
    }
}

/* A byte of a count: mostly small, and always good as BCD. */
static unsigned random_byte(void)
{
    unsigned digits = below(3) ? below(10) : below(10) << 4 | below(10);
    return below(4) ? digits : 0;
}

static void random_command(struct board *b)
{
    unsigned ch = below(3), value;
    bool high;

    switch (below(8)) {
    case 0: /* a control word, half of them with a mode that the channel has not seen for long */
        value = ch << 6 | (1 + below(3)) << 4 | below(8) << 1 | below(2);
        board_write(b, now, 3, value);
        vpit_write(&pit, now, 3, 1, value);
        break;
    case 1: /* latch, read-back */
        value = below(2) ? ch << 6 : 0xc0 | below(64);
        board_write(b, now, 3, value);
        vpit_write(&pit, now, 3, 1, value);
        break;
    case 2:
        high = below(2);
        ref_gate(&b->ch[ch], high, now);
        vpit_set_line(&pit, now, ch, high);
        break;
    case 3:
        value = below(256);
        board_write(b, now, 4, value);
        vpit_write(&pit, now, 4, 1, value);
        break;
    case 4:
    case 5:
        value = random_byte();
        board_write(b, now, ch, value);
        vpit_write(&pit, now, ch, 1, value);
        break;
    default:
        value = below(5);
        assert_int_equal(board_read(b, now, value), vpit_read(&pit, now, value, 1));
        break;
    }
}

static void assert_same(const struct board *b)
{
    assert_true(vpit_check(&pit));
    for (unsigned i = 0; i < 3; i++) {
        const struct line *l = &pit.out.line[i];
        assert_int_equal(l->level, b->ch[i].out);
        assert_int_equal(l->rises, b->ch[i].rises);
        assert_int_equal(l->last_rise, b->ch[i].last);
        assert_int_equal(pit.channel[i].null, b->ch[i].null);
    }
}

/* The reference rises first at the deadline; where the deadline is far, it does not rise for a while. */
static void assert_deadline(const struct board *b)
{
    struct board ahead = *b;
    uint64_t deadline = vpit_deadline(&pit), limit = b->tick + 300;
    uint64_t before = b->ch[0].rises;

    assert_true(deadline % 12 == 0 || deadline == NEVER);
    assert_true(deadline / 12 > b->tick);
    if (deadline != NEVER && deadline / 12 < limit + 2000)
        limit = deadline / 12;
    while (ahead.tick < limit) {
        assert_int_equal(ahead.ch[0].rises, before);
        ahead.tick++;
        ref_clock(&ahead.ch[0], ahead.tick * 12);
    }
    assert_int_equal(ahead.ch[0].rises, before + (deadline == limit * 12));
}

static unsigned steps_wanted(void)
{
    const char *n = getenv("VPIT_STEPS");
    return n ? (unsigned)strtoul(n, NULL, 0) : 1000000;
}

static void test_against_reference(void **state)
{
    static struct board b;

    seed = 0x8254;
    board_reset(&b, now);
    for (unsigned i = 0, n = steps_wanted(); i < n; i++) {
        now += random_gap();
        board_run(&b, now);
        if (below(2))
            vpit_advance(&pit, now); /* else the access has to do it */
        random_command(&b);
        vpit_advance(&pit, now);
        assert_same(&b);
        if (i % 16 == 0)
            assert_deadline(&b);
    }
}

/* Every mode, count and residue: one long jump equals the reference, clock by clock. */
static void test_every_jump(void **state)
{
    static struct board b;

    for (unsigned cw = 0; cw < 12; cw++) {
        for (unsigned count = 0; count < 12; count++) {
            setup(NULL);
            board_reset(&b, now);
            board_write(&b, now, 3, 0x30 | cw);
            board_write(&b, now, 0, count % 10);
            board_write(&b, now, 0, count / 10);
            program(0, cw >> 1, cw & 1, count % 10 | count / 10 << 8);
            gate(0, false);
            gate(0, true);
            ref_gate(&b.ch[0], false, now);
            ref_gate(&b.ch[0], true, now);
            struct vpit start = pit;
            for (unsigned d = 0; d < 60; d++) {
                board_run(&b, now);
                pit = start;
                vpit_advance(&pit, now);
                assert_same(&b);
                assert_int_equal(count_of(0), b.ch[0].ce);
                now += TICK;
            }
        }
    }
}

/* Saved and restored at any time, or advanced in other steps: the same state, byte for byte. */
static void test_restored_runs_the_same(void **state)
{
    static struct vpit copy;

    seed = 0x61;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t gap = random_gap(), part = below(gap + 1);
        unsigned offset = below(5), value = below(256);

        memcpy(&copy, &pit, sizeof(pit));
        assert_true(vpit_check(&copy));
        vpit_advance(&pit, now + part);
        now += gap;
        if (i & 1) {
            vpit_write(&pit, now, offset, 1, value);
            vpit_write(&copy, now, offset, 1, value);
        } else {
            assert_int_equal(vpit_read(&pit, now, offset, 1), vpit_read(&copy, now, offset, 1));
        }
        assert_memory_equal(&copy, &pit, sizeof(pit));
    }
}

/* Whatever is called with whatever arguments, time backwards included: the state stays one that hardware can be in. */
static void test_random_walk_stays_valid(void **state)
{
    seed = 0x43;
    for (unsigned i = 0; i < 200000; i++) {
        now = below(100) ? now + random_gap() : below(8) ? now + (below(UINT64_MAX) >> below(64)) : below(UINT64_MAX);
        unsigned size = below(8) ? 1 : 1u << below(5), offset = below(7);
        switch (below(4)) {
        case 0:
            vpit_set_line(&pit, now, below(4), below(2));
            break;
        case 1:
            vpit_read(&pit, now, offset, size);
            break;
        default:
            vpit_write(&pit, now, offset, size, below(UINT64_MAX));
            break;
        }
        assert_true(vpit_check(&pit));
        assert_true(vpit_deadline(&pit) > pit.tick * 12);
        if (i % 1000 == 0)
            setup(NULL);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

/* What the missed-tick policies know of channel 0: modes 2 and 3 repeat, once their count has been taken. */
static void test_period(void **state)
{
    assert_int_equal(vpit_period(&pit), 0);
    for (unsigned mode = 0; mode < 8; mode++) {
        bool repeats = mode & 2; /* 6 and 7 are 2 and 3 */

        program(0, mode, false, 1193);
        assert_int_equal(vpit_period(&pit), 0);
        clocks(2);
        assert_int_equal(vpit_period(&pit), repeats ? 1193 * TICK : 0);
        if (repeats) {
            gate(0, false);
            assert_int_equal(vpit_period(&pit), 0);
            gate(0, true);
        }
    }
    program(0, 2, false, 0);
    program(1, 2, false, 5);
    clocks(2);
    assert_int_equal(vpit_period(&pit), 65536 * TICK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mode0),
        TEST(test_mode0_gate_suspends),
        TEST(test_mode0_loads_with_gate_low),
        TEST(test_mode0_new_count),
        TEST(test_mode0_first_byte_stops_counting),
        TEST(test_mode1),
        TEST(test_mode1_new_count_waits_for_trigger),
        TEST(test_mode1_trigger_without_count),
        TEST(test_mode2),
        TEST(test_mode2_gate),
        TEST(test_mode2_new_count_at_end_of_cycle),
        TEST(test_mode2_new_count_at_trigger),
        TEST(test_mode3_even),
        TEST(test_mode3_odd),
        TEST(test_mode3_gate),
        TEST(test_mode3_new_count_at_end_of_half_cycle),
        TEST(test_mode4),
        TEST(test_mode4_gate_and_new_count),
        TEST(test_mode5),
        TEST(test_modes_6_and_7),
        TEST(test_out_when_programmed),
        TEST(test_count_zero),
        TEST(test_bcd),
        TEST(test_one_byte_access),
        TEST(test_live_reads_alternate),
        TEST(test_latch_holds),
        TEST(test_latch_between_two_reads),
        TEST(test_read_back),
        TEST(test_null_count),
        TEST(test_port61),
        TEST(test_port61_calibration),
        TEST(test_refresh_toggle),
        TEST(test_power_on),
        TEST(test_count_of_one),
        TEST(test_bcd_digits_above_nine),
        TEST(test_half_a_count_is_not_taken),
        TEST(test_control_word_stops_counting),
        TEST(test_undefined_accesses),
        TEST(test_no_division_by_zero_xsa504),
        TEST(test_exact_over_a_year),
        TEST(test_edges_are_counted_not_sampled),
        TEST(test_end_of_time),
        TEST(test_last_deadline),
        TEST(test_time_going_back),
        TEST(test_phase),
        TEST(test_deadline),
        TEST(test_check_refuses),
        TEST(test_check_refuses_registers),
        TEST(test_check_refuses_counters),
        TEST(test_low_square_wave_cannot_be_triggered),
        TEST(test_against_reference),
        TEST(test_every_jump),
        TEST(test_restored_runs_the_same),
        TEST(test_period),
        TEST(test_random_walk_stays_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
