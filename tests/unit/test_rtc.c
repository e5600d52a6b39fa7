/* The RTC: registers, calendar, alarm, update cycle and periodic interrupt, against a chip that counts every tick. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "clock.h"
#include "random.h"
#include "rtc/rtc.h"

enum { A = 10, B, C, D, CENTURY = 0x32 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, SQWE = 8, BINARY = 4, H24 = 2, DSE = 1 };
enum { IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10, UIP = 0x80 };
#define SECOND 32768ull

/* The first master count of a tick, and the tick of a master count. */
static uint64_t at(uint64_t tick)
{
    return ((unsigned __int128)tick * RTC_PER_MASTER_DEN + RTC_PER_MASTER_NUM - 1) / RTC_PER_MASTER_NUM;
}
static uint64_t tick(uint64_t now)
{
    return (unsigned __int128)now * RTC_PER_MASTER_NUM / RTC_PER_MASTER_DEN;
}

static uint8_t get(struct rtc *s, uint64_t now, uint8_t index)
{
    rtc_write(s, now, 0, 1, index);
    return rtc_read(s, now, 1, 1);
}

static void put(struct rtc *s, uint64_t now, uint8_t index, uint8_t value)
{
    rtc_write(s, now, 0, 1, index);
    rtc_write(s, now, 1, 1, value);
}

/* Sets the clock: century, year, month, day, hour, minute, second as bytes. */
static void set_time(struct rtc *s, const uint8_t bytes[7])
{
    const uint8_t index[7] = {CENTURY, 9, 8, 7, 4, 2, 0};
    for (unsigned i = 0; i < 7; i++)
        rtc_cmos_set(s, index[i], bytes[i]);
}

static void assert_time(struct rtc *s, const uint8_t bytes[7])
{
    const uint8_t index[7] = {CENTURY, 9, 8, 7, 4, 2, 0};
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(rtc_cmos_get(s, index[i]), bytes[i]);
}

#define TIME(...) ((const uint8_t[7]){__VA_ARGS__})

static uint8_t bcd(unsigned n)
{
    return (n / 10 << 4) + n % 10;
}

/* Is the clock at this second of Unix time, in BCD and 24 hours? */
static void assert_unix(struct rtc *s, int64_t seconds)
{
    time_t t = seconds;
    struct tm m;
    gmtime_r(&t, &m);
    int year = m.tm_year + 1900;
    assert_time(s, TIME(bcd(year / 100), bcd(year % 100), bcd(m.tm_mon + 1), bcd(m.tm_mday), bcd(m.tm_hour), bcd(m.tm_min),
                        bcd(m.tm_sec)));
    assert_int_equal(rtc_cmos_get(s, 6), m.tm_wday + 1);
}

static void test_power_on(void **state)
{
    const int64_t last = 253402300799;
    const int64_t times[] = {0, 59, 951782400, 951868799, 1709164800, 4107542400, 4107456000, last, 1753700000};
    struct rtc s;
    for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        rtc_reset(&s, 12345678, times[i]);
        assert_true(rtc_check(&s));
        assert_unix(&s, times[i]);
    }
    rtc_reset(&s, 0, -5);
    assert_unix(&s, 0);
    rtc_reset(&s, 0, INT64_MAX);
    assert_unix(&s, last);
    assert_int_equal(get(&s, 0, A), 0x26);
    assert_int_equal(get(&s, 0, B), H24);
    assert_int_equal(get(&s, 0, C), 0);
    assert_int_equal(get(&s, 0, D), 0x80);
    assert_int_equal(rtc_deadline(&s), NEVER);
    rtc_advance(&s, at(SECOND + 2)); /* the year 10000 is the year 0 */
    assert_time(&s, TIME(0, 0, 1, 1, 0, 0, 0));
}

static void test_index_ports(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    rtc_write(&s, 0, 0, 1, 0x8f);
    assert_int_equal(rtc_read(&s, 0, 0, 1), 0xff);
    assert_true(rtc_nmi_masked(&s));
    rtc_write(&s, 0, 1, 1, 0x5a);
    assert_int_equal(rtc_cmos_get(&s, 15), 0x5a);
    rtc_write(&s, 0, 0, 1, 0x0f);
    assert_false(rtc_nmi_masked(&s));
    assert_int_equal(rtc_read(&s, 0, 1, 1), 0x5a);
    rtc_write(&s, 0, 2, 1, 0xfe);
    assert_int_equal(rtc_read(&s, 0, 2, 1), 0x7e);
    assert_false(rtc_nmi_masked(&s));
}

static void test_cmos_ram(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    for (unsigned i = 0; i < 128; i++) {
        if (i >= 14 && i != CENTURY)
            put(&s, 0, i, i ^ 0x55);
        rtc_write(&s, 0, 2, 1, i);
        rtc_write(&s, 0, 3, 1, i ^ 0xaa);
    }
    rtc_advance(&s, at(100 * SECOND));
    for (unsigned i = 0; i < 128; i++) {
        if (i >= 14 && i != CENTURY)
            assert_int_equal(get(&s, 0, i), i ^ 0x55);
        rtc_write(&s, 0, 2, 1, i);
        assert_int_equal(rtc_read(&s, 0, 3, 1), i ^ 0xaa);
        assert_int_equal(rtc_cmos_get(&s, 128 + i), i ^ 0xaa);
        rtc_cmos_set(&s, 128 + i, i);
        assert_int_equal(rtc_read(&s, 0, 3, 1), i);
    }
    assert_int_equal(rtc_cmos_get(&s, 256), 0xff);
    rtc_cmos_set(&s, 256, 0);
    rtc_cmos_set(&s, UINT32_MAX, 0);
    assert_true(rtc_check(&s));
}

/* XSA-503: index and data in one access are one transaction. */
static void test_wide_access(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    rtc_write(&s, 0, 0, 2, 0x77c0);
    assert_int_equal(rtc_cmos_get(&s, 0x40), 0x77);
    assert_true(rtc_nmi_masked(&s));
    assert_int_equal(rtc_read(&s, 0, 0, 2), 0x77ff);
    rtc_write(&s, 0, 0, 4, 0x22013341);
    assert_int_equal(rtc_cmos_get(&s, 0x41), 0x33);
    assert_int_equal(rtc_cmos_get(&s, 0x81), 0x22);
    assert_int_equal(rtc_read(&s, 0, 0, 4), 0x220133ff);
    assert_int_equal(rtc_read(&s, 0, 1, 2), 0x0133);
}

static void test_undefined_access(void **state)
{
    struct rtc s, copy;
    rtc_reset(&s, 0, 0);
    copy = s;
    for (unsigned offset = 0; offset < 16; offset++) {
        for (unsigned size = 0; size <= 9; size++) {
            if (offset + size <= 4 && (size == 1 || size == 2 || size == 4))
                continue;
            assert_int_equal(rtc_read(&s, 0, offset, size), all_ones(size));
            rtc_write(&s, 0, offset, size, UINT64_MAX);
            assert_memory_equal(&s, &copy, sizeof(s));
        }
    }
    assert_int_equal(rtc_read(&s, 0, UINT32_MAX, 2), 0xffff);
}

static void test_register_bits(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, A, 0xff);
    assert_int_equal(get(&s, 0, A), 0x7f);
    put(&s, 0, B, 0xff);
    assert_int_equal(get(&s, 0, B), 0xff & ~UIE); /* SET clears UIE */
    put(&s, 0, B, 0x7f);
    assert_int_equal(get(&s, 0, B), 0x7f);
    put(&s, 0, C, 0xff);
    assert_int_equal(get(&s, 0, C), 0);
    put(&s, 0, D, 0x7f);
    assert_int_equal(get(&s, 0, D), 0xbf);
}

static void test_vrt(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, D, 0);
    assert_int_equal(get(&s, 0, D), 0x80);
    rtc_cmos_set(&s, D, 0x05); /* the battery was flat */
    assert_int_equal(get(&s, 0, D), 0x05);
    assert_int_equal(get(&s, 0, D), 0x85);
}

/* 244 us before the update, through its 1,984 us, and old time until its end; exact to the tick. */
static void test_update_cycle(void **state)
{
    struct rtc s;
    rtc_reset(&s, at(1000), 86400 * 365 - 1);
    for (uint64_t t = 0; t < 3 * SECOND; t++) {
        bool up = t % SECOND >= SECOND - 73;
        if (t % SECOND > 100 && t % SECOND < SECOND - 100)
            continue;
        assert_int_equal(get(&s, at(1000 + t), A), 0x26 | (up ? UIP : 0));
        assert_unix(&s, 86400 * 365 - 1 + t / SECOND);
    }
}

/* OVMF and Linux wait for UIP to go down, or up and down; both happen within a second. */
static void test_uip_is_never_stuck(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    uint64_t now = 0, highest = 0;
    for (unsigned n = 0; n < 2000; n++) {
        uint64_t start = now += below(40000000);
        while (get(&s, now, A) & UIP)
            now += 1000;
        highest = now - start > highest ? now - start : highest;
    }
    assert_true(highest > 0 && highest < 35000); /* 2.44 ms */
}

static void test_set_stops_updates(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 1000);
    put(&s, at(SECOND / 2), B, H24 | SET | UIE);
    assert_int_equal(get(&s, at(SECOND - 1), A), 0x26); /* no UIP */
    rtc_advance(&s, at(10 * SECOND + SECOND / 2));
    assert_unix(&s, 1000);
    assert_int_equal(get(&s, at(10 * SECOND + SECOND / 2), C) & UF, 0);
    set_time(&s, TIME(0x20, 0x25, 0x12, 0x31, 0x23, 0x59, 0x59));
    put(&s, at(10 * SECOND + SECOND / 2), B, H24);
    rtc_advance(&s, at(11 * SECOND) - 1);
    assert_time(&s, TIME(0x20, 0x25, 0x12, 0x31, 0x23, 0x59, 0x59));
    rtc_advance(&s, at(11 * SECOND));
    assert_time(&s, TIME(0x20, 0x26, 1, 1, 0, 0, 0));
}

/* Held, nothing moves; released, the first update begins 500 ms later. */
static void test_divider_reset(void **state)
{
    for (unsigned dv = 0x60; dv <= 0x70; dv += 0x10) {
        struct rtc s;
        uint64_t t = 5 * SECOND + 12345;
        rtc_reset(&s, 0, 1000);
        put(&s, at(SECOND / 2), B, H24 | PIE | UIE);
        put(&s, at(SECOND / 2), A, dv | 6);
        assert_int_equal(rtc_deadline(&s), NEVER);
        get(&s, at(t), C);
        assert_unix(&s, 1000);
        assert_int_equal(get(&s, at(t), C), 0);
        put(&s, at(t), A, 0x26);
        assert_int_equal(get(&s, at(t + SECOND / 2 - 9), A), 0x26);
        assert_int_equal(get(&s, at(t + SECOND / 2 - 8), A), 0x26 | UIP);
        rtc_advance(&s, at(t + SECOND / 2 + 64));
        assert_unix(&s, 1000);
        rtc_advance(&s, at(t + SECOND / 2 + 65));
        assert_unix(&s, 1001);
    }
}

static void test_divider_settings(void **state)
{
    for (unsigned dv = 0; dv < 6; dv++) {
        struct rtc s;
        rtc_reset(&s, 0, 1000);
        put(&s, 0, A, dv << 4 | 6);
        rtc_advance(&s, at(7 * SECOND));
        assert_unix(&s, 1007);
    }
}

static void test_12_hours(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, B, 0);
    rtc_cmos_set(&s, 4, 0x12); /* 12 AM: midnight */
    for (unsigned hour = 0; hour < 48; hour++) {
        unsigned h = hour % 12 ? hour % 12 : 12;
        rtc_advance(&s, at(hour * 3600 * SECOND));
        assert_int_equal(rtc_cmos_get(&s, 4), bcd(h) | (hour % 24 >= 12 ? 0x80 : 0));
        assert_int_equal(rtc_cmos_get(&s, 7), 1 + hour / 24);
    }
    put(&s, 0, B, BINARY);
    rtc_cmos_set(&s, 4, 0x8b);
    rtc_advance(&s, at(48 * 3600 * SECOND));
    assert_int_equal(rtc_cmos_get(&s, 4), 12);
}

/* ---- Put forward, for a world that went on meanwhile ---- */

static void expect_forward(uint8_t b, const uint8_t *from, uint64_t seconds, const uint8_t *to)
{
    struct rtc s;

    rtc_reset(&s, 0, 0);
    put(&s, 0, B, b);
    set_time(&s, from);
    rtc_forward(&s, at(100), seconds);
    assert_time(&s, to);
    assert_true(rtc_check(&s));
}

static void test_forward_by_the_calendar(void **state)
{
    struct rtc s;

    expect_forward(H24, TIME(0x20, 0x24, 2, 0x28, 0x23, 0x59, 0x59), 1, TIME(0x20, 0x24, 2, 0x29, 0, 0, 0));
    expect_forward(H24, TIME(0x20, 0x24, 2, 0x29, 0x23, 0x59, 0x59), 1, TIME(0x20, 0x24, 3, 1, 0, 0, 0));
    expect_forward(H24, TIME(0x20, 0x23, 2, 0x28, 0x12, 0, 0), 86400, TIME(0x20, 0x23, 3, 1, 0x12, 0, 0));
    expect_forward(H24, TIME(0x21, 0, 2, 0x28, 0x12, 0, 0), 86400, TIME(0x21, 0, 3, 1, 0x12, 0, 0));
    expect_forward(H24, TIME(0x20, 0, 2, 0x28, 0x12, 0, 0), 86400, TIME(0x20, 0, 2, 0x29, 0x12, 0, 0));
    expect_forward(H24, TIME(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58), 3, TIME(0x20, 0, 1, 1, 0, 0, 1));
    expect_forward(H24, TIME(0x20, 0x26, 7, 0x28, 0x12, 0, 0), 0, TIME(0x20, 0x26, 7, 0x28, 0x12, 0, 0));
    for (unsigned n = 0; n < 10000; n++) {
        int64_t start = below(4102444800), seconds = below(n & 1 ? 100000 : 4102444800);
        rtc_reset(&s, at(n), start);
        rtc_forward(&s, at(n), seconds);
        assert_unix(&s, start + seconds);
    }
    rtc_forward(&s, at(10000), UINT64_MAX); /* and comes back */
    assert_true(rtc_check(&s));
}

static void test_forward_in_every_format(void **state)
{
    const uint8_t *evening = TIME(0x20, 0x26, 0x12, 0x31, 0x91, 0x59, 0x59); /* 11 PM */

    expect_forward(0, evening, 1, TIME(0x20, 0x27, 1, 1, 0x12, 0, 0));
    expect_forward(0, evening, 3601, TIME(0x20, 0x27, 1, 1, 1, 0, 0));
    expect_forward(0, evening, 43201, TIME(0x20, 0x27, 1, 1, 0x92, 0, 0));
    expect_forward(BINARY, TIME(20, 26, 12, 31, 0x8b, 59, 59), 1, TIME(20, 27, 1, 1, 12, 0, 0));
    expect_forward(BINARY, TIME(20, 26, 12, 31, 11, 59, 59), 1, TIME(20, 26, 12, 31, 0x8c, 0, 0));
    expect_forward(BINARY | H24, TIME(20, 26, 12, 31, 23, 59, 59), 61, TIME(20, 27, 1, 1, 0, 1, 0));
}

/* As for somebody who sets the clock: what was passed over is no alarm, and the second goes on where it is. */
static void test_forward_does_not_ring(void **state)
{
    struct rtc s, still;
    uint64_t next;

    rtc_reset(&s, 0, 0);
    set_time(&s, TIME(0x20, 0x26, 7, 0x28, 0x12, 0, 0));
    rtc_cmos_set(&s, 1, 0x30);
    rtc_cmos_set(&s, 3, 0);
    rtc_cmos_set(&s, 5, 0x12);
    put(&s, 0, B, H24 | AIE | UIE);
    get(&s, 0, C);
    still = s;
    next = rtc_deadline(&s);
    rtc_forward(&s, at(1), 60);
    assert_int_equal(get(&s, at(1), C), 0);
    assert_int_equal(s.out.line[0].rises, still.out.line[0].rises);
    assert_int_equal(rtc_deadline(&s), next); /* the next update's */
    put(&s, at(1), B, H24 | AIE);
    next = rtc_deadline(&s);
    assert_true(next > at(86300 * SECOND) && next < at(86400 * SECOND)); /* tomorrow */
    rtc_advance(&s, next);
    assert_int_equal(get(&s, next, C) & (IRQF | AF), IRQF | AF);
    assert_int_equal(rtc_cmos_get(&s, 0), 0x30);
}

/* Whoever has stopped the clock is setting it: it stands still for them. */
static void test_forward_leaves_a_stopped_clock(void **state)
{
    const uint8_t *noon = TIME(0x20, 0x26, 7, 0x28, 0x12, 0, 0);
    struct rtc s;

    expect_forward(H24 | SET, noon, 3600, noon);
    rtc_reset(&s, 0, 0);
    put(&s, 0, A, 0x76); /* divider reset */
    set_time(&s, noon);
    rtc_forward(&s, at(SECOND), 3600);
    assert_time(&s, noon);
}

static void test_binary(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, B, H24 | BINARY);
    set_time(&s, TIME(19, 99, 12, 31, 23, 59, 59));
    rtc_advance(&s, at(SECOND));
    assert_time(&s, TIME(20, 0, 1, 1, 0, 0, 0));
    rtc_advance(&s, at(60 * SECOND));
    assert_int_equal(rtc_cmos_get(&s, 0), 59);
}

static void test_dse_has_no_effect(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, B, H24 | DSE);
    set_time(&s, TIME(0x20, 0x26, 4, 0x26, 1, 0x59, 0x59)); /* last Sunday of April */
    rtc_cmos_set(&s, 6, 1);
    rtc_advance(&s, at(SECOND));
    assert_time(&s, TIME(0x20, 0x26, 4, 0x26, 2, 0, 0));
    assert_int_equal(get(&s, at(SECOND), B), H24 | DSE);
}

static void test_century(void **state)
{
    const struct {
        uint8_t century, year, day, month;
    } feb28[] = {{0x19, 0x00, 1, 3}, {0x20, 0x00, 0x29, 2}, {0x21, 0x00, 1, 3}, {0x20, 0x24, 0x29, 2}, {0x20, 0x23, 1, 3},
                 {0xff, 0x00, 0x29, 2}, {0xff, 0x01, 1, 3}, {0x20, 0xff, 1, 3}};
    struct rtc s;
    for (unsigned i = 0; i < sizeof(feb28) / sizeof(feb28[0]); i++) {
        rtc_reset(&s, 0, 0);
        set_time(&s, TIME(feb28[i].century, feb28[i].year, 2, 0x28, 0x23, 0x59, 0x59));
        rtc_advance(&s, at(SECOND));
        assert_time(&s, TIME(feb28[i].century, feb28[i].year, feb28[i].month, feb28[i].day, 0, 0, 0));
    }
    rtc_reset(&s, 0, 0);
    set_time(&s, TIME(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59));
    rtc_advance(&s, at(SECOND));
    assert_time(&s, TIME(0x20, 0, 1, 1, 0, 0, 0));
    set_time(&s, TIME(0xff, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59)); /* no century: becomes one */
    rtc_advance(&s, at(2 * SECOND));
    assert_time(&s, TIME(0, 0, 1, 1, 0, 0, 0));
}

/* Every day from 1970 to 9999, one midnight at a time and in random leaps. */
static void test_calendar(void **state)
{
    struct rtc s;
    int64_t day = 86400, last = 253402300799 / day, skip;
    rtc_reset(&s, 0, day - 1);
    for (int64_t n = 1; n <= last; n += n < 60000 ? 1 : 17) {
        rtc_advance(&s, at((n * day - (day - 1)) * SECOND));
        assert_unix(&s, n * day);
    }
    for (unsigned i = 0; i < 3000; i++) {
        int64_t from = below(253402300799);
        skip = below(253402300799 - from + 1) >> below(30);
        rtc_reset(&s, 777, from);
        rtc_advance(&s, at(tick(777) + skip * SECOND));
        assert_unix(&s, from + skip);
    }
}

static void test_invalid_time(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    set_time(&s, TIME(0xaa, 0xbb, 0x00, 0x00, 0x37, 0x75, 0x7f));
    rtc_advance(&s, at(SECOND));
    assert_time(&s, TIME(0xaa, 0xbb, 0x00, 0x01, 0, 0, 0)); /* all of them carried, day 0 became 1 */
    rtc_advance(&s, at((1 + 31 * 86400) * SECOND));
    assert_time(&s, TIME(0xaa, 0xbb, 0x01, 0x01, 0, 0, 0));
    rtc_advance(&s, at((1 + (31 + 365) * 86400ull) * SECOND));
    assert_time(&s, TIME(0x00, 0x00, 0x01, 0x01, 0, 0, 0));
}

static void test_update_interrupt(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, B, H24 | UIE);
    assert_int_equal(rtc_deadline(&s), at(SECOND));
    rtc_advance(&s, at(SECOND) - 1);
    assert_int_equal(s.out.line[0].level, 0);
    rtc_advance(&s, at(SECOND) + 5);
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.out.line[0].last_rise, at(SECOND));
    assert_int_equal(rtc_deadline(&s), NEVER);
    rtc_advance(&s, at(5 * SECOND));
    assert_int_equal(s.out.line[0].rises, 1);
    assert_int_equal(get(&s, at(5 * SECOND), C) & (IRQF | UF), IRQF | UF);
    assert_int_equal(s.out.line[0].level, 0);
    assert_int_equal(get(&s, at(5 * SECOND), C), 0);
    assert_int_equal(rtc_deadline(&s), at(6 * SECOND));
}

/* Flags come up without their enables; enabling one that is up raises the line at once. */
static void test_flags_without_enables(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    for (unsigned i = 1; i <= 5; i += 2)
        put(&s, 0, i, 0xff);
    rtc_advance(&s, at(SECOND));
    assert_int_equal(rtc_cmos_get(&s, C), PF | AF | UF);
    assert_int_equal(s.out.line[0].level, 0);
    put(&s, at(SECOND) + 7, B, H24 | AIE);
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.out.line[0].last_rise, at(SECOND) + 7);
    put(&s, at(SECOND) + 9, B, H24);
    assert_int_equal(s.out.line[0].level, 0);
    put(&s, at(SECOND) + 9, B, H24 | PIE);
    assert_int_equal(get(&s, at(SECOND) + 9, C), IRQF | PF | AF | UF);
    assert_int_equal(s.out.line[0].rises, 2);
}

static void test_periodic_rates(void **state)
{
    const unsigned hz[16] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
    for (unsigned rate = 0; rate < 16; rate++) {
        struct rtc s;
        uint64_t period = hz[rate] ? SECOND / hz[rate] : 0, due, previous = 0;
        rtc_reset(&s, 0, 0);
        put(&s, 0, A, 0x20 | rate);
        put(&s, 0, B, H24 | PIE);
        due = rtc_deadline(&s);
        if (!rate) {
            assert_int_equal(due, NEVER);
            continue;
        }
        for (unsigned n = 0; n < 50; n++, previous = due) {
            due = rtc_deadline(&s);
            assert_int_equal(due, at(tick(due)));
            assert_true(n == 0 ? tick(due) <= period : tick(due) == tick(previous) + period);
            rtc_advance(&s, due - 1);
            assert_int_equal(s.out.line[0].level, 0);
            rtc_advance(&s, due);
            assert_int_equal(s.out.line[0].level, 1);
            assert_int_equal(s.out.line[0].last_rise, due);
            assert_int_equal(get(&s, due, C) & (IRQF | PF), IRQF | PF);
        }
        assert_int_equal(s.periodic_due, 50);
        rtc_advance(&s, at(tick(due) + 1000000 * period));
        assert_int_equal(s.periodic_due, 1000050);
        assert_int_equal(s.out.line[0].rises, 51);
        put(&s, at(tick(due) + 1000000 * period), B, H24);
        rtc_advance(&s, at(tick(due) + 1000100 * period));
        assert_int_equal(s.periodic_due, 1000050); /* without PIE nothing is due */
    }
}

/* UIP follows the periodic flag by half a period (data sheet, figure of update and periodic timing). */
static void test_periodic_phase(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    put(&s, 0, A, 0x2f);
    put(&s, 0, B, H24 | PIE);
    assert_int_equal(tick(rtc_deadline(&s)), SECOND - 73 - SECOND / 4 - SECOND / 2);
    rtc_advance(&s, rtc_deadline(&s));
    get(&s, 0, C);
    assert_int_equal(tick(rtc_deadline(&s)), SECOND - 73 - SECOND / 4);
}

static uint64_t next_alarm(const uint8_t now[7], uint8_t hour, uint8_t minute, uint8_t second)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    set_time(&s, now);
    rtc_cmos_set(&s, 5, hour);
    rtc_cmos_set(&s, 3, minute);
    rtc_cmos_set(&s, 1, second);
    rtc_cmos_set(&s, B, H24 | AIE);
    uint64_t due = rtc_deadline(&s);
    if (due == NEVER)
        return NEVER;
    rtc_advance(&s, due - 1);
    assert_int_equal(s.out.line[0].level, 0);
    rtc_advance(&s, due);
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.out.line[0].last_rise, due);
    assert_int_equal(due, at(tick(due)));
    assert_int_equal(tick(due) % SECOND, 0);
    return tick(due) / SECOND;
}

static void test_alarm(void **state)
{
    const uint8_t *noon = TIME(0x20, 0x26, 7, 0x28, 0x12, 0, 0);
    assert_int_equal(next_alarm(noon, 0x12, 0, 1), 1);
    assert_int_equal(next_alarm(noon, 0x12, 0, 0), 86400);
    assert_int_equal(next_alarm(noon, 0x12, 0x30, 0x15), 1815);
    assert_int_equal(next_alarm(noon, 0x11, 0x59, 0x59), 86399);
    assert_int_equal(next_alarm(noon, 0xc0, 0xff, 0xdd), 1);
    assert_int_equal(next_alarm(noon, 0xff, 0xff, 0), 60);
    assert_int_equal(next_alarm(noon, 0xff, 0, 0), 3600);
    assert_int_equal(next_alarm(noon, 0, 0xff, 0xff), 43200);
    assert_int_equal(next_alarm(noon, 0x12, 0, 0xff), 1);
    assert_int_equal(next_alarm(noon, 0x24, 0, 0), NEVER);
    assert_int_equal(next_alarm(noon, 0xff, 0x60, 0), NEVER);
    assert_int_equal(next_alarm(noon, 0xff, 0xff, 0x1a), NEVER);
    assert_int_equal(next_alarm(TIME(0x20, 0x26, 7, 0x28, 0x37, 0x15, 0), 0x37, 0x16, 5), 65); /* an hour that is none */
}

/* Day of the month in register D; it may take two months to come round. */
static void test_day_alarm(void **state)
{
    struct rtc s;
    const struct {
        uint8_t day, days;
    } cases[] = {{0x14, 0}, {0x15, 1}, {0x01, 15}, {0x13, 27}, {0x31, 14 + 31}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rtc_reset(&s, 0, 0);
        put(&s, 0, B, H24 | AIE);
        put(&s, 0, D, cases[i].day);
        rtc_cmos_set(&s, 5, 0x12);
        set_time(&s, TIME(0x20, 0x26, 2, 0x14, 0x11, 0x59, 0x59)); /* 14 February, a second before noon */
        assert_int_equal(tick(rtc_deadline(&s)), (1 + cases[i].days * 86400ull) * SECOND);
        rtc_advance(&s, rtc_deadline(&s));
        assert_int_equal(rtc_cmos_get(&s, 7), cases[i].day);
        assert_int_equal(s.out.line[0].level, 1);
    }
    put(&s, 0, D, 0x3f); /* no such day */
    get(&s, 0, C);
    assert_int_equal(rtc_deadline(&s), NEVER);
    rtc_advance(&s, at(400 * 86400 * SECOND));
    assert_int_equal(s.out.line[0].rises, 1);
}

static void test_month_alarm(void **state)
{
    struct rtc s;
    const struct {
        uint8_t month, day;
        unsigned days; /* from 14 February 2026 */
    } cases[] = {{0x02, 0x14, 0},         {0x02, 0, 0},       {0x03, 0, 15},      {0x03, 0x31, 45},
                 {0x01, 0x01, 321},       {0x02, 0x13, 364},  {0xff, 0x15, 1},    {0x02, 0x29, 2 * 365 + 15},
                 {0xc0, 0x14, 0},         {0, 0x13, 27}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rtc_reset(&s, 0, 0);
        put(&s, 0, B, H24 | AIE);
        put(&s, 0, D, cases[i].day);
        put(&s, 0, RTC_MONTH_ALARM, cases[i].month);
        rtc_cmos_set(&s, 5, 0x12);
        set_time(&s, TIME(0x20, 0x26, 2, 0x14, 0x11, 0x59, 0x59)); /* a second before noon */
        assert_int_equal(tick(rtc_deadline(&s)), (1 + cases[i].days * 86400ull) * SECOND);
        rtc_advance(&s, rtc_deadline(&s));
        assert_int_equal(s.out.line[0].level, 1);
    }
    put(&s, 0, RTC_MONTH_ALARM, 0x02); /* the longest wait, over a year that is no leap year */
    put(&s, 0, D, 0x29);
    get(&s, 0, C);
    set_time(&s, TIME(0x20, 0x96, 3, 0x01, 0x11, 0x59, 0x59));
    assert_int_equal(tick(rtc_deadline(&s)) - s.last, (1 + 2920 * 86400ull) * SECOND);
    put(&s, 0, RTC_MONTH_ALARM, 0x13); /* no such month */
    get(&s, 0, C);
    assert_int_equal(rtc_deadline(&s), NEVER);
    put(&s, 0, RTC_MONTH_ALARM, 0x04); /* no such day in it */
    put(&s, 0, D, 0x31);
    assert_int_equal(rtc_deadline(&s), NEVER);
}

/* Any date, valid or not, and any month and day for the alarm: as a walk day by day finds it, over nine years. */
static void test_alarm_date_day_by_day(void **state)
{
    for (unsigned program = 0; program < 3000; program++) {
        struct rtc s, walk;
        uint64_t day, found = NEVER, deadline;
        uint8_t date, month;
        rtc_reset(&s, 0, below(8000000000));
        rtc_cmos_set(&s, B, AIE | H24 | (random64() & BINARY));
        for (unsigned index = 6; index < 10 && program % 2; index++)
            rtc_cmos_set(&s, index, program % 8 == 1 ? random64() : below(0x20));
        for (unsigned index = 1; index < 6; index += 2)
            rtc_cmos_set(&s, index, rtc_cmos_get(&s, index - 1)); /* at this time of the day */
        date = below(3) ? below(0x40) : below(2) ? 0 : 0x29;
        month = below(3) ? below(0x14) : below(2) ? 0 : 2;
        rtc_cmos_set(&s, D, date);
        rtc_cmos_set(&s, RTC_MONTH_ALARM, month);
        if (rtc_cmos_get(&s, 0) > 0x3a || rtc_cmos_get(&s, 2) > 0x3a || rtc_cmos_get(&s, 4) > 0x17)
            continue; /* no number in both modes */
        walk = s;
        walk.cmos[B] &= ~AIE;
        for (day = 1; day < 9 * 366 && found == NEVER; day++) {
            rtc_advance(&walk, at(day * 86400 * SECOND));
            if ((!date || date == walk.cmos[7]) && (!month || month == walk.cmos[8]))
                found = day;
        }
        deadline = rtc_deadline(&s);
        assert_true(found == NEVER ? deadline == NEVER || deadline > at(day * 86400 * SECOND - SECOND)
                                   : deadline == at(found * 86400 * SECOND));
    }
}

static void test_reset_pin(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 1000);
    put(&s, 0, 0x80 | B, H24 | PIE | UIE | AIE | SQWE);
    rtc_advance(&s, at(3 * SECOND));
    assert_int_equal(s.out.line[0].level, 1);
    rtc_reset_pin(&s, at(4 * SECOND));
    assert_unix(&s, 1004);
    assert_int_equal(s.out.line[0].level, 0);
    assert_int_equal(get(&s, at(4 * SECOND), B), H24);
    assert_int_equal(get(&s, at(4 * SECOND), C), 0);
    assert_false(rtc_nmi_masked(&s));
    assert_true(rtc_check(&s));
}

/* The clock is an exact ratio of the crystal: a year later it is right to the tick. */
static void test_no_drift(void **state)
{
    struct rtc s;
    uint64_t year = 365 * 86400, master = year * 157500000ull / 11; /* one year of the crystal */
    rtc_reset(&s, 0, 0);
    for (unsigned i = 1; i <= 1000; i++)
        rtc_advance(&s, master / 1000 * i);
    rtc_advance(&s, at(year * SECOND) - 1);
    assert_unix(&s, year - 1);
    rtc_advance(&s, at(year * SECOND));
    assert_unix(&s, year);
    assert_in_range(at(year * SECOND), master, master + 1);
}

static void test_time_goes_back(void **state)
{
    struct rtc s;
    rtc_reset(&s, at(1000 * SECOND), 5000);
    put(&s, at(1000 * SECOND), B, H24 | UIE);
    rtc_advance(&s, at(1001 * SECOND));
    get(&s, 0, C);
    for (unsigned i = 0; i < 1000; i++) {
        put(&s, at(i * SECOND), B, H24 | UIE);
        assert_unix(&s, 5001);
        assert_true(rtc_check(&s));
    }
    rtc_advance(&s, at(1003 * SECOND));
    assert_unix(&s, 5003);
}

static void test_check_rejects(void **state)
{
    struct rtc good, s;
    rtc_reset(&good, 0, 0);
#define BAD(change) s = good; change; assert_false(rtc_check(&s))
    BAD(s.last = UINT64_MAX);
    BAD(s.phase = SECOND);
    BAD(s.index = 128);
    BAD(s.index2 = 128);
    BAD(s.nmi_masked = 2);
    BAD(s.zero[4] = 1);
    BAD(s.cmos[A] |= UIP);
    BAD(s.cmos[C] = 1);
    BAD(s.cmos[C] = IRQF);
    BAD(s.cmos[D] |= 0x40);
    BAD(s.cmos[B] = SET | UIE);
    BAD(s.cmos[B] = UIE; s.cmos[C] = UF);
    BAD(s.out.line[0].level = 1);
    BAD(s.out.line[0].zero = 1);
#undef BAD
    assert_true(rtc_check(&good));
}

/* Edges count modulo 2^64: a line that is up with none counted is one whose count has come round. */
static void test_count_of_edges_comes_round(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    s.out.line[0].rises = UINT64_MAX;
    s.cmos[B] |= PIE;
    rtc_advance(&s, at(SECOND));
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.out.line[0].rises, 0);
    assert_true(rtc_check(&s));
}

/* ---- A chip that counts every tick, and its bytes by lists of encodings ---- */

struct naive {
    uint64_t tick, due, rises, rise_tick, chain;
    uint8_t cmos[256];
    bool level;
};

static uint8_t n_code(const struct naive *v, unsigned n)
{
    return v->cmos[B] & BINARY ? n : bcd(n);
}

/* Counts a byte to the next in its list (from 0 to last); beyond the list or at its end it goes to `first` and carries. */
static bool n_count(struct naive *v, unsigned index, unsigned first, unsigned last)
{
    for (unsigned n = 0; n < last; n++) {
        if (v->cmos[index] == n_code(v, n)) {
            v->cmos[index] = n_code(v, n + 1);
            return false;
        }
    }
    v->cmos[index] = n_code(v, first);
    return true;
}

static bool n_count_hour(struct naive *v)
{
    if (v->cmos[B] & H24)
        return n_count(v, 4, 0, 23);
    uint8_t list[24];
    for (unsigned n = 0; n < 24; n++)
        list[n] = n_code(v, n % 12 ? n % 12 : 12) | (n >= 12 ? 0x80 : 0);
    for (unsigned n = 0; n < 23; n++) {
        if (v->cmos[4] == list[n]) {
            v->cmos[4] = list[n + 1];
            return false;
        }
    }
    v->cmos[4] = list[0];
    return true;
}

static unsigned n_days(const struct naive *v)
{
    const uint8_t days[13] = {31, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int month = 0, year = -1, century = -1;
    for (int n = 0; n < 100; n++) {
        month = v->cmos[8] == n_code(v, n) && n <= 12 ? n : month;
        year = v->cmos[9] == n_code(v, n) ? n : year;
        century = v->cmos[CENTURY] == n_code(v, n) ? n : century;
    }
    bool leap = (year < 0 ? v->cmos[9] : year) % 4 == 0 && (year != 0 || century < 0 || century % 4 == 0);
    return days[month] + (month == 2 && leap);
}

static void n_second(struct naive *v)
{
    if (!n_count(v, 0, 0, 59) || !n_count(v, 2, 0, 59) || !n_count_hour(v))
        return;
    n_count(v, 6, 1, 7);
    if (n_count(v, 7, 1, n_days(v)) && n_count(v, 8, 1, 12) && n_count(v, 9, 0, 99))
        n_count(v, CENTURY, 0, 99);
}

static bool n_alarm(const struct naive *v)
{
    for (unsigned i = 0; i <= 4; i += 2) {
        if (v->cmos[i + 1] < 0xc0 && v->cmos[i + 1] != v->cmos[i])
            return false;
    }
    if (v->cmos[0x7e] && v->cmos[0x7e] < 0xc0 && v->cmos[0x7e] != v->cmos[8])
        return false;
    return !(v->cmos[D] & 0x3f) || (v->cmos[D] & 0x3f) == v->cmos[7];
}

static void n_drive(struct naive *v)
{
    bool level = v->cmos[B] & v->cmos[C] & 0x70;
    if (level && !v->level) {
        v->rises++;
        v->rise_tick = v->tick;
    }
    v->level = level;
}

static bool n_held(const struct naive *v)
{
    return (v->cmos[A] & 0x60) == 0x60;
}

static void n_tick(struct naive *v)
{
    unsigned rate = v->cmos[A] & 15, period = rate == 0 ? 0 : rate == 1 ? 128 : rate == 2 ? 256 : 1u << (rate - 1);
    v->tick++;
    if (n_held(v))
        return;
    v->chain = (v->chain + 1) % SECOND;
    if (period && v->chain % period == period / 2) {
        v->cmos[C] |= PF;
        v->due += (v->cmos[B] & PIE) != 0;
    }
    if (v->chain == 73 && !(v->cmos[B] & SET)) {
        n_second(v);
        v->cmos[C] |= UF | (n_alarm(v) ? AF : 0);
    }
    n_drive(v);
}

static void n_write(struct naive *v, unsigned index, uint8_t value)
{
    bool held = n_held(v);
    if (index == A)
        value &= 0x7f;
    if (index == B && (value & SET))
        value &= ~UIE;
    if (index == D)
        value = 0x80 | (value & 0x3f);
    if (index != C)
        v->cmos[index] = value;
    if (held && !n_held(v))
        v->chain = SECOND / 2 + 8;
    n_drive(v);
}

static uint8_t n_read(struct naive *v, unsigned index)
{
    uint8_t value = v->cmos[index];
    if (index == A && !n_held(v) && !(v->cmos[B] & SET) && v->chain < 73)
        value |= UIP;
    if (index == C) {
        value |= v->level ? IRQF : 0;
        v->cmos[C] = 0;
        n_drive(v);
    }
    return value;
}

static uint8_t random_byte(unsigned index, const struct naive *v)
{
    static const uint8_t near_end[10] = {0x58, 0x59, 0x59, 0x59, 0x23, 0x23, 7, 0x28, 0x12, 0x99};
    if (index == A)
        return below(4) ? 0x20 | below(16) : random64();
    if (index == B)
        return below(4) ? random64() & 0x77 : random64();
    if (index == RTC_MONTH_ALARM)
        return below(2) ? v->cmos[8] : random64();
    if (index == D)
        return below(2) ? 0 : below(2) ? v->cmos[7] : random64();
    if ((index == 1 || index == 3 || index == 5) && below(3))
        return below(3) ? 0xff : v->cmos[index - 1] + 1;
    if (index < 10 && below(3))
        return v->cmos[B] & BINARY ? (near_end[index] >> 4) * 10 + (near_end[index] & 15) : near_end[index];
    return random64();
}

static void same(struct rtc *s, struct naive *v)
{
    assert_memory_equal(s->cmos, v->cmos, 256);
    assert_int_equal(s->periodic_due, v->due);
    assert_int_equal(s->out.line[0].rises, v->rises);
    assert_int_equal(s->out.line[0].level, v->level);
    if (v->rises)
        assert_int_equal(tick(s->out.line[0].last_rise), v->rise_tick);
}

static void test_random_programs_tick_by_tick(void **state)
{
    for (unsigned program = 0; program < 40; program++) {
        struct rtc s, copy;
        struct naive v = {.tick = tick(below(1u << 30)), .chain = 73};
        rtc_reset(&s, at(v.tick), below(4000000000));
        memcpy(v.cmos, s.cmos, 256);
        for (unsigned step = 0; step < 300; step++) {
            uint64_t until = v.tick + (below(3) ? below(100) : below(60000)), now = at(until), deadline = rtc_deadline(&s);
            uint64_t rises = v.rises;
            unsigned index = below(12) ? below(14) : below(6) ? CENTURY : below(2) ? RTC_MONTH_ALARM : below(128);
            uint8_t value = random_byte(index, &v);
            copy = s; /* save and restore */
            memset(&s, 0xa5, sizeof(s));
            s = copy;
            while (v.tick < until)
                n_tick(&v);
            rtc_advance(&s, now);
            same(&s, &v);
            assert_true(deadline > now ? v.rises == rises : v.rises == rises + 1 && v.rise_tick == tick(deadline));
            if (below(2)) {
                put(&s, now, index, value);
                n_write(&v, index, value);
            } else {
                assert_int_equal(get(&s, now, index), n_read(&v, index));
            }
            same(&s, &v);
            assert_true(rtc_check(&s));
        }
    }
}

/* Any stored time, valid or not, in every mode: one long gap equals second after second, the alarm included. */
static void test_long_gaps_second_by_second(void **state)
{
    for (unsigned program = 0; program < 3000; program++) {
        struct rtc s;
        struct naive v = {0};
        uint64_t seconds = 1 + below(program % 100 == 0 ? 400000 : program % 4 ? 1000 : 20000), first_alarm = 0;
        uint8_t mode = random64() & (BINARY | H24);
        rtc_reset(&s, 0, below(4000000000));
        rtc_cmos_set(&s, B, mode | AIE);
        v.cmos[B] = mode;
        for (unsigned index = 0; index < 10; index++)
            rtc_cmos_set(&s, index, v.cmos[index] = random_byte(index, &v));
        rtc_cmos_set(&s, CENTURY, v.cmos[CENTURY] = below(2) ? 0x19 + below(3) : random64());
        rtc_cmos_set(&s, D, v.cmos[D] = random_byte(D, &v) & 0x3f);
        if (below(4) == 0)
            rtc_cmos_set(&s, RTC_MONTH_ALARM, v.cmos[0x7e] = below(2) ? v.cmos[8] : random_byte(8, &v));
        v.cmos[B] |= AIE;
        uint64_t deadline = rtc_deadline(&s);
        for (uint64_t n = 1; n <= seconds; n++) {
            n_second(&v);
            if (!first_alarm && n_alarm(&v))
                first_alarm = n;
        }
        rtc_advance(&s, at(seconds * SECOND));
        assert_memory_equal(s.cmos, v.cmos, 10);
        assert_int_equal(s.cmos[CENTURY], v.cmos[CENTURY]);
        assert_int_equal((s.cmos[C] & AF) != 0, first_alarm != 0);
        assert_true(first_alarm ? deadline == at(first_alarm * SECOND) : deadline > at(seconds * SECOND));
    }
}

/* Long leaps over dates that do not exist: the same in smaller steps. */
static void test_invalid_dates_over_centuries(void **state)
{
    for (unsigned program = 0; program < 2000; program++) {
        struct rtc s, steps;
        uint64_t days = below(program % 8 ? 3000 : 1000000), widest = 1 + below(1 + days / 10);
        rtc_reset(&s, 0, 0);
        rtc_cmos_set(&s, B, random64() & (BINARY | H24));
        for (unsigned index = 0; index < 10; index += index < 6 ? 2 : 1)
            rtc_cmos_set(&s, index, random64());
        rtc_cmos_set(&s, CENTURY, random64());
        steps = s;
        for (uint64_t day = 1; day < days; day += 1 + below(widest))
            rtc_advance(&steps, at(day * 86400 * SECOND));
        rtc_advance(&steps, at(days * 86400 * SECOND));
        rtc_advance(&s, at(days * 86400 * SECOND));
        assert_memory_equal(&s, &steps, sizeof(s));
    }
}

/* Anything at all, with time going anywhere: the state stays sound. */
static void test_random_walk_any_time(void **state)
{
    struct rtc s;
    rtc_reset(&s, 0, 0);
    for (unsigned step = 0; step < 200000; step++) {
        uint64_t now = random64() >> below(64);
        if (!below(200))
            rtc_reset(&s, now >> 8, random64());
        else if (below(2))
            put(&s, now >> 8, below(60), random64());
        else if (below(2))
            rtc_write(&s, now, below(5), 1u << below(4), random64());
        else
            rtc_read(&s, now, below(5), 1u << below(4));
        assert_true(rtc_check(&s));
        uint64_t deadline = rtc_deadline(&s);
        assert_true(deadline == NEVER || tick(deadline) > s.last);
    }
}

/* The tick that a missed-tick policy sends after: PF is set and IRQ 8 rises, and nothing more is due. */
static void test_repeat(void **state)
{
    struct rtc s;
    uint64_t due;

    (void)state;
    rtc_reset(&s, 0, 0);
    assert_int_equal(rtc_period(&s), 0);
    rtc_write(&s, 0, 0, 1, 0x0b);
    rtc_write(&s, 0, 1, 1, 0x42);
    assert_int_equal(rtc_period(&s), (157500000ull * 32 + 11 * 32768 - 1) / (11 * 32768));
    rtc_advance(&s, 1000000);
    rtc_write(&s, 1000000, 0, 1, 0x0c);
    rtc_read(&s, 1000000, 1, 1);
    assert_int_equal(s.out.line[0].level, 0);
    due = s.periodic_due;
    rtc_repeat(&s, 1000000);
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.periodic_due, due);
    assert_true(rtc_check(&s));
    assert_int_equal(rtc_read(&s, 1000000, 1, 1), 0xc0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_on),
        cmocka_unit_test(test_index_ports),
        cmocka_unit_test(test_cmos_ram),
        cmocka_unit_test(test_wide_access),
        cmocka_unit_test(test_undefined_access),
        cmocka_unit_test(test_register_bits),
        cmocka_unit_test(test_vrt),
        cmocka_unit_test(test_update_cycle),
        cmocka_unit_test(test_uip_is_never_stuck),
        cmocka_unit_test(test_set_stops_updates),
        cmocka_unit_test(test_divider_reset),
        cmocka_unit_test(test_divider_settings),
        cmocka_unit_test(test_12_hours),
        cmocka_unit_test(test_forward_by_the_calendar),
        cmocka_unit_test(test_forward_in_every_format),
        cmocka_unit_test(test_forward_does_not_ring),
        cmocka_unit_test(test_forward_leaves_a_stopped_clock),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_dse_has_no_effect),
        cmocka_unit_test(test_century),
        cmocka_unit_test(test_calendar),
        cmocka_unit_test(test_invalid_time),
        cmocka_unit_test(test_update_interrupt),
        cmocka_unit_test(test_flags_without_enables),
        cmocka_unit_test(test_periodic_rates),
        cmocka_unit_test(test_periodic_phase),
        cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_day_alarm),
        cmocka_unit_test(test_month_alarm),
        cmocka_unit_test(test_alarm_date_day_by_day),
        cmocka_unit_test(test_reset_pin),
        cmocka_unit_test(test_no_drift),
        cmocka_unit_test(test_time_goes_back),
        cmocka_unit_test(test_check_rejects),
        cmocka_unit_test(test_count_of_edges_comes_round),
        cmocka_unit_test(test_random_programs_tick_by_tick),
        cmocka_unit_test(test_long_gaps_second_by_second),
        cmocka_unit_test(test_invalid_dates_over_centuries),
        cmocka_unit_test(test_repeat),
        cmocka_unit_test(test_random_walk_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
