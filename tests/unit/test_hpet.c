/* The HPET: registers, modes, and random programs against a simulator that counts tick by tick. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hpet/hpet.h"
#include "random.h"

enum { CAP = 0, CONF = 0x10, STS = 0x20, CNT = 0xf0 };
#define TCONF(n) (0x100u + 0x20u * (n))
#define TCMP(n) (TCONF(n) + 8)
#define TFSB(n) (TCONF(n) + 16)
enum { LEVEL = 2, ENB = 4, PER = 8, SETVAL = 0x40, M32 = 0x100, FSB = 0x4000 };

static void enable(struct hpet *s, uint64_t now)
{
    hpet_write(s, now, CONF, 8, hpet_read(s, now, CONF, 8) | 1);
}

static void test_reset(void **state)
{
    struct hpet s;
    hpet_reset(&s, 1000);
    assert_true(hpet_check(&s));
    assert_int_equal(hpet_read(&s, 1000, CAP, 8), 0x0429b1768086a701ull);
    assert_int_equal(hpet_read(&s, 1000, CAP + 4, 4), 69841270);
    assert_int_equal(hpet_read(&s, 2000, CNT, 8), 0);
    assert_int_equal(hpet_read(&s, 2000, CONF, 8), 0);
    assert_int_equal(hpet_read(&s, 2000, STS, 8), 0);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        assert_int_equal(hpet_read(&s, 2000, TCONF(n), 8), 0x00f0000000008030ull);
        assert_int_equal(hpet_read(&s, 2000, TCMP(n), 8), UINT64_MAX);
        assert_int_equal(hpet_read(&s, 2000, TFSB(n), 8), 0);
        assert_int_equal(hpet_route(&s, n), 0);
    }
    assert_int_equal(hpet_route(&s, 8), 0);
    assert_int_equal(hpet_deadline(&s), NEVER);
    assert_false(hpet_legacy(&s));
}

static void test_counter_counts_master_ticks(void **state)
{
    struct hpet s;
    hpet_reset(&s, 50);
    enable(&s, 100);
    assert_int_equal(hpet_read(&s, 100, CNT, 8), 0);
    assert_int_equal(hpet_read(&s, 1ull << 40, CNT, 8), (1ull << 40) - 100);
    hpet_write(&s, 1100, CONF, 4, 0);
    assert_int_equal(hpet_read(&s, 5000, CNT, 8), 1000);
    hpet_write(&s, 5000, CNT, 8, 0xfffffffffffffff0ull);
    enable(&s, 6000);
    assert_int_equal(hpet_read(&s, 6000 + 0x20, CNT, 8), 0x10);
}

static void test_counter_write_only_halted(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, CNT, 4, 77);
    hpet_write(&s, 0, CNT + 4, 4, 5);
    hpet_write(&s, 0, CNT + 1, 1, 0xab);
    assert_int_equal(hpet_read(&s, 9, CNT, 8), 0x50000ab4dull);
    enable(&s, 10);
    hpet_write(&s, 20, CNT, 8, 1);
    assert_int_equal(hpet_read(&s, 20, CNT, 8), 0x50000ab4dull + 10);
}

/* Two 32-bit halves with the usual high-low-high loop give a value between the two moments. */
static void test_counter_halves(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, CNT, 8, 0xfffffff0ull);
    enable(&s, 0);
    for (uint64_t t = 0; t < 64; t++) {
        uint64_t now = t, hi, lo, again = hpet_read(&s, now, CNT + 4, 4);
        do {
            hi = again;
            lo = hpet_read(&s, ++now, CNT, 4);
            again = hpet_read(&s, ++now, CNT + 4, 4);
        } while (hi != again);
        assert_in_range((hi << 32 | lo) - 0xfffffff0ull, t, now);
    }
}

static void test_undefined_access(void **state)
{
    struct hpet s, copy;
    hpet_reset(&s, 0);
    enable(&s, 0);
    copy = s;
    for (unsigned offset = 0; offset < 0x420; offset++) {
        for (unsigned size = 0; size <= 9; size++) {
            unsigned slot = offset & ~7u;
            bool known = slot == CAP || slot == CONF || slot == STS || slot == CNT ||
                         (slot >= 0x100 && slot < 0x200 && (slot & 0x1f) != 0x18);
            if (known && (size == 1 || size == 2 || size == 4 || size == 8) && offset % size == 0)
                continue;
            assert_int_equal(hpet_read(&s, 0, offset, size), all_ones(size));
            hpet_write(&s, 0, offset, size, UINT64_MAX);
            hpet_write(&s, 0, offset, size, 0);
            assert_memory_equal(&s, &copy, sizeof(s));
        }
    }
    assert_int_equal(hpet_read(&s, 0, UINT32_MAX, 1), 0xff);
}

static void test_read_only_registers(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, CAP, 8, 0);
    assert_int_equal(hpet_read(&s, 0, CAP, 1), 1);
    hpet_write(&s, 0, CONF, 8, UINT64_MAX);
    assert_int_equal(hpet_read(&s, 0, CONF, 8), 3);
    assert_true(hpet_legacy(&s));
    hpet_write(&s, 0, CONF, 8, 2);
    assert_false(hpet_legacy(&s));
    hpet_write(&s, 0, TCONF(3), 8, UINT64_MAX & ~(0x1full << 9));
    assert_int_equal(hpet_read(&s, 0, TCONF(3), 8), 0x00f000000000c13eull);
    assert_true(hpet_check(&s));
}

static void test_one_shot_edge(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(2), 4, ENB);
    hpet_write(&s, 0, TCMP(2), 8, 500);
    assert_int_equal(hpet_deadline(&s), NEVER);
    enable(&s, 100);
    assert_int_equal(hpet_deadline(&s), 600);
    hpet_advance(&s, 599);
    assert_int_equal(s.out.line[2].rises, 0);
    assert_int_equal(hpet_deadline(&s), 600);
    hpet_advance(&s, 600);
    assert_int_equal(s.out.line[2].rises, 1);
    assert_int_equal(s.out.line[2].last_rise, 600);
    assert_int_equal(s.out.line[2].level, 0);
    hpet_advance(&s, UINT64_MAX / 2);
    assert_int_equal(s.out.line[2].rises, 1);
    assert_int_equal(s.timer[2].matches, 1);
    assert_int_equal(hpet_deadline(&s), NEVER);
}

/* A comparator at or behind the counter is a whole turn away: 2^32 ticks in 32-bit mode, never in 64 bits. */
static void test_match_is_on_arrival(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(0), 4, ENB | M32);
    hpet_write(&s, 0, TCMP(0), 4, 0);
    enable(&s, 0);
    assert_int_equal(hpet_deadline(&s), 1ull << 32);
    hpet_write(&s, 1000, TCMP(0), 4, 1000);
    assert_int_equal(hpet_deadline(&s), 1000 + (1ull << 32));
    hpet_write(&s, 1000, TCMP(0), 4, 999);
    assert_int_equal(hpet_deadline(&s), 999 + (1ull << 32));
    hpet_write(&s, 1000, TCMP(0), 4, 1001);
    assert_int_equal(hpet_deadline(&s), 1001);
    hpet_write(&s, 1000, TCONF(0), 4, ENB);
    hpet_write(&s, 1000, TCMP(0), 8, 1000);
    assert_int_equal(hpet_deadline(&s), NEVER);
    hpet_advance(&s, NEVER);
    assert_int_equal(s.out.line[0].rises, 0);
    hpet_reset(&s, 0); /* nor after all the time there is */
    hpet_write(&s, 0, TCONF(0), 4, ENB);
    hpet_write(&s, 0, TCMP(0), 8, 0);
    enable(&s, 0);
    hpet_advance(&s, NEVER);
    assert_int_equal(s.out.line[0].rises, 0);
}

/* A one-shot timer of 32 bits goes off at every wrap, 300 s apart, while nobody rewrites it. */
static void test_one_shot_32bit_fires_every_wrap(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(1), 4, ENB | M32);
    hpet_write(&s, 0, TCMP(1), 8, 0x1234500001000ull);
    assert_int_equal(hpet_read(&s, 0, TCMP(1), 8), 0x1000);
    enable(&s, 0);
    hpet_advance(&s, 99ull << 32);
    assert_int_equal(s.out.line[1].rises, 99);
    assert_int_equal(s.out.line[1].last_rise, (98ull << 32) + 0x1000);
    hpet_advance(&s, UINT64_MAX);
    assert_int_equal(s.out.line[1].rises, 1ull << 32);
}

static void test_32bit_mode_clears_upper_half(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCMP(5), 8, 0x123456789abcull);
    hpet_write(&s, 0, TCONF(5), 4, M32);
    assert_int_equal(hpet_read(&s, 0, TCMP(5), 8), 0x56789abc);
    hpet_write(&s, 0, TCMP(5) + 4, 4, 7);
    hpet_write(&s, 0, TCONF(5), 4, 0);
    assert_int_equal(hpet_read(&s, 0, TCMP(5), 8), 0x56789abc);
    hpet_write(&s, 0, TCMP(5) + 4, 4, 7);
    assert_int_equal(hpet_read(&s, 0, TCMP(5), 8), 0x756789abcull);
}

/* Linux: comparator with SETVAL, then the period. */
static void test_periodic_two_writes(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    enable(&s, 0);
    hpet_write(&s, 1000, TCONF(0), 4, ENB | PER | SETVAL | M32);
    hpet_write(&s, 1000, TCMP(0), 4, 3000);
    hpet_write(&s, 1020, TCMP(0), 4, 700);
    assert_int_equal(hpet_read(&s, 1020, TCMP(0), 4), 3000);
    assert_int_equal(hpet_deadline(&s), 3000);
    hpet_advance(&s, 3000 + 700 * 99);
    assert_int_equal(s.out.line[0].rises, 100);
    assert_int_equal(s.out.line[0].last_rise, 3000 + 700 * 99);
    assert_int_equal(hpet_read(&s, 3000 + 700 * 99, TCMP(0), 8), 3000 + 700 * 100);
    assert_int_equal(hpet_deadline(&s), 3000 + 700 * 100);
}

/* The document's example: one write with SETVAL sets both. */
static void test_periodic_one_write(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(7), 4, ENB | PER | SETVAL);
    hpet_write(&s, 0, TCMP(7), 8, 250);
    enable(&s, 10);
    hpet_advance(&s, 10 + 1000);
    assert_int_equal(s.out.line[7].rises, 4);
    hpet_advance(&s, UINT64_MAX);
    assert_int_equal(s.out.line[7].rises, (UINT64_MAX - 10) / 250);
    assert_true(hpet_check(&s));
}

static void test_setval_clears_after_any_write(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(0), 4, PER | SETVAL);
    assert_int_equal(hpet_read(&s, 0, TCONF(0), 4) & SETVAL, 0); /* reads 0 */
    hpet_write(&s, 0, TCMP(0) + 4, 4, 1);
    assert_int_equal(hpet_read(&s, 0, TCMP(0), 8), 0x1ffffffffull);
    hpet_write(&s, 0, TCMP(0), 4, 5); /* the period alone */
    assert_int_equal(hpet_read(&s, 0, TCMP(0), 8), 0x1ffffffffull);
    assert_int_equal(s.timer[0].period, 0x100000005ull);
    hpet_write(&s, 0, TCONF(0), 4, PER | SETVAL);
    hpet_write(&s, 0, TCMP(0), 1, 0x42);
    assert_int_equal(hpet_read(&s, 0, TCMP(0), 8), 0x1ffffff42ull);
    hpet_write(&s, 0, TCMP(0), 1, 0x43);
    assert_int_equal(hpet_read(&s, 0, TCMP(0), 8), 0x1ffffff42ull);
}

static void test_periodic_zero_period(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(0), 4, ENB | PER | SETVAL | M32);
    hpet_write(&s, 0, TCMP(0), 4, 100);
    hpet_write(&s, 0, TCMP(0), 4, 0);
    enable(&s, 0);
    hpet_advance(&s, (3ull << 32) + 100);
    assert_int_equal(s.out.line[0].rises, 4);
    hpet_write(&s, 4ull << 32, TCONF(0), 4, ENB | PER | SETVAL);
    hpet_write(&s, 4ull << 32, TCMP(0), 8, (4ull << 32) + 5);
    hpet_write(&s, 4ull << 32, TCMP(0), 8, 0);
    hpet_advance(&s, NEVER);
    assert_int_equal(s.out.line[0].rises, 5);
}

static void test_level_and_status(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        hpet_write(&s, 0, TCONF(n), 4, ENB | LEVEL | PER | SETVAL);
        hpet_write(&s, 0, TCMP(n), 8, 100 + n);
    }
    enable(&s, 0);
    hpet_advance(&s, 5000);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        assert_int_equal(s.out.line[n].level, 1);
        assert_int_equal(s.out.line[n].rises, 1);
        assert_int_equal(s.out.line[n].last_rise, 100 + n);
        assert_int_equal(s.timer[n].matches, 5000 / (100 + n));
    }
    assert_int_equal(hpet_deadline(&s), NEVER); /* nothing changes until the guest acts */
    assert_int_equal(hpet_read(&s, 5000, STS, 8), 0xff);
    hpet_write(&s, 5000, STS + 1, 1, 0xff); /* another byte: clears nothing */
    hpet_write(&s, 5000, STS + 4, 4, 0xffffffff);
    assert_int_equal(hpet_read(&s, 5000, STS, 8), 0xff);
    hpet_write(&s, 5000, STS, 1, 0x05);
    assert_int_equal(hpet_read(&s, 5000, STS, 4), 0xfa);
    assert_int_equal(s.out.line[0].level, 0);
    assert_int_equal(s.out.line[1].level, 1);
    assert_int_equal(s.out.line[2].level, 0);
    assert_int_equal(hpet_deadline(&s), 5000 + 100);
    hpet_write(&s, 5000, STS, 8, UINT64_MAX);
    assert_int_equal(hpet_read(&s, 5000, STS, 8), 0);
    hpet_advance(&s, 5100);
    assert_int_equal(s.out.line[0].rises, 2);
}

/* Status is set without INT_ENB too; enabling then raises the line; disabling the block drops it. */
static void test_level_gates(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(3), 4, LEVEL);
    hpet_write(&s, 0, TCMP(3), 8, 100);
    enable(&s, 0);
    assert_int_equal(hpet_deadline(&s), NEVER);
    assert_int_equal(hpet_read(&s, 100, STS, 4), 8);
    assert_int_equal(s.out.line[3].level, 0);
    assert_int_equal(s.timer[3].matches, 0);
    hpet_write(&s, 200, TCONF(3), 4, LEVEL | ENB);
    assert_int_equal(s.out.line[3].level, 1);
    assert_int_equal(s.out.line[3].last_rise, 200);
    hpet_write(&s, 300, CONF, 4, 0);
    assert_int_equal(s.out.line[3].level, 0);
    assert_int_equal(hpet_read(&s, 300, STS, 4), 8);
    enable(&s, 400);
    assert_int_equal(s.out.line[3].level, 1);
    assert_int_equal(s.out.line[3].rises, 2);
    hpet_write(&s, 400, TCONF(3), 4, LEVEL | ENB | FSB);
    assert_int_equal(s.out.line[3].level, 0);
}

static void test_edge_has_no_status(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    hpet_write(&s, 0, TCONF(0), 4, ENB);
    hpet_write(&s, 0, TCMP(0), 8, 10);
    hpet_write(&s, 0, TCONF(1), 4, ENB | LEVEL);
    hpet_write(&s, 0, TCMP(1), 8, 10);
    enable(&s, 0);
    assert_int_equal(hpet_read(&s, 20, STS, 8), 2);
    hpet_write(&s, 20, TCONF(1), 4, ENB);
    assert_int_equal(hpet_read(&s, 20, STS, 8), 0);
    assert_int_equal(s.out.line[1].level, 0);
}

static void test_route_capability(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        for (unsigned route = 0; route < 32; route++) {
            bool ok = route == 0 || (route >= 20 && route <= 23);
            hpet_write(&s, 0, TCONF(n), 4, 21 << 9);
            hpet_write(&s, 0, TCONF(n), 4, route << 9 | ENB);
            assert_int_equal(hpet_route(&s, n), ok ? route : 21);
            assert_int_equal(hpet_read(&s, 0, TCONF(n), 4) & ENB, ENB);
        }
    }
}

static void program_fsb(struct hpet *s, unsigned n, uint64_t when, uint64_t address)
{
    hpet_write(s, 0, TFSB(n), 4, 0x4060 + n);
    hpet_write(s, 0, TFSB(n) + 4, 4, address);
    hpet_write(s, 0, TCMP(n), 8, when);
    hpet_write(s, 0, TCONF(n), 4, ENB | FSB);
}

/* Eight messages at one tick go through the one slot, lowest timer first, and none is lost. */
static void test_fsb_none_lost(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        program_fsb(&s, n, 100, 0xfee00000 | n << 12 | 4);
    enable(&s, 0);
    assert_int_equal(hpet_deadline(&s), 100);
    hpet_advance(&s, 100);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct bus_message m = s.out.message, want = bus_message_from_msi(0xfee00004 | n << 12, 0x4060 + n);
        assert_memory_equal(&m, &want, sizeof(m));
        assert_int_equal(m.vector, 0x60 + n);
        assert_int_equal(m.dest, n);
        assert_true(hpet_check(&s));
        hpet_read(&s, 100 + n, CONF, 4); /* other calls do not disturb the slot */
        assert_memory_equal(&m, &s.out.message, sizeof(m));
        s.out.message.kind = BUS_NONE;
        hpet_advance(&s, 100 + n);
        assert_int_equal(s.out.line[n].rises, 0);
        assert_int_equal(s.timer[n].matches, 1);
    }
    assert_int_equal(s.out.message.kind, BUS_NONE);
}

static void test_fsb_address_outside_apic_range(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    program_fsb(&s, 0, 100, 0x12345000);
    program_fsb(&s, 1, 100, 0xfee01000);
    enable(&s, 0);
    hpet_advance(&s, 100);
    assert_int_equal(s.out.message.vector, 0x61);
    s.out.message.kind = BUS_NONE;
    hpet_advance(&s, 101);
    assert_int_equal(s.out.message.kind, BUS_NONE);
    assert_int_equal(s.fsb_pending, 0);
}

static void test_fsb_pending_withdrawn(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    program_fsb(&s, 0, 100, 0xfee00000);
    program_fsb(&s, 1, 100, 0xfee00000);
    enable(&s, 0);
    hpet_advance(&s, 100);
    assert_int_equal(s.fsb_pending, 2);
    hpet_write(&s, 100, TCONF(1), 4, FSB);
    assert_int_equal(s.fsb_pending, 0);
    assert_int_equal(s.out.message.kind, BUS_INTERRUPT);
}

static void test_time_goes_back(void **state)
{
    struct hpet s;
    hpet_reset(&s, 1000000);
    hpet_write(&s, 1000000, TCONF(0), 4, ENB | PER | SETVAL);
    hpet_write(&s, 1000000, TCMP(0), 8, 100);
    enable(&s, 1000000);
    hpet_advance(&s, 1001000);
    for (unsigned i = 0; i < 100; i++) {
        hpet_read(&s, i * 10, TCMP(0), 8);
        assert_int_equal(hpet_read(&s, i * 10, CNT, 8), 1000);
        hpet_write(&s, i * 10, STS, 8, 0);
        assert_true(hpet_check(&s));
    }
    assert_int_equal(s.out.line[0].rises, 10);
    assert_int_equal(hpet_deadline(&s), 1001100);
}

static void test_check_rejects(void **state)
{
    struct hpet good, s;
    hpet_reset(&good, 5);
#define BAD(change) s = good; change; assert_false(hpet_check(&s))
    BAD(s.config = 4);
    BAD(s.status = 1);
    BAD(s.status = 0x100);
    BAD(s.fsb_pending = 1);
    BAD(s.timer[1].config = 1);
    BAD(s.timer[1].config = 1 << 9);
    BAD(s.timer[1].config = M32);
    BAD(s.out.line[0].level = 1);
    BAD(s.out.line[0].zero = 1);
    BAD(s.out.line[0].last_rise = 6);
    BAD(s.out.message.kind = BUS_EOI);
    BAD(s.out.message.dest = 256);
    BAD(s.out.message.delivery = 8);
    BAD(s.out.message.shorthand = SHORTHAND_SELF);
    BAD(s.out.message.flags = BUS_X2APIC);
    for (unsigned i = 0; i < 3; i++) {
        BAD(s.out.message.zero[i] = 1);
    }
    BAD(s.out.timer = HPET_TIMERS);
#undef BAD
    assert_true(hpet_check(&good));
}

/* Edges count modulo 2^64: a line that is up with none counted is one whose count has come round. */
static void test_count_of_edges_comes_round(void **state)
{
    struct hpet s;
    hpet_reset(&s, 0);
    s.out.line[0].rises = UINT64_MAX;
    enable(&s, 0);
    hpet_write(&s, 0, TCONF(0), 4, LEVEL | ENB);
    hpet_write(&s, 0, TCMP(0), 8, 10);
    hpet_advance(&s, 10);
    assert_int_equal(s.out.line[0].level, 1);
    assert_int_equal(s.out.line[0].rises, 0);
    assert_true(hpet_check(&s));
}

/* ---- A simulator that counts tick by tick ---- */

struct naive {
    uint64_t now, counter, conf, sts, cfg[8], cmp[8], per[8], fsb[8], rises[8], last_rise[8], matches[8];
    bool level[8], pending[8], slot;
    struct bus_message message;
    uint64_t first_change; /* when an output first changed in the last run */
};

static bool n_want_level(struct naive *v, int n)
{
    return (v->conf & 1) && (v->sts >> n & 1) && (v->cfg[n] & ENB) && !(v->cfg[n] & FSB);
}

static void n_lines(struct naive *v)
{
    for (int n = 0; n < 8; n++) {
        bool want = n_want_level(v, n);
        if (want && !v->level[n]) {
            v->rises[n]++;
            v->last_rise[n] = v->now;
        }
        v->level[n] = want;
        if (!(v->conf & 1) || !(v->cfg[n] & ENB) || !(v->cfg[n] & FSB))
            v->pending[n] = false;
    }
}

static void n_slot(struct naive *v)
{
    for (int n = 0; n < 8; n++) {
        if (v->slot || !v->pending[n])
            continue;
        v->pending[n] = false;
        if (v->fsb[n] >> 52 == 0xfee) {
            v->slot = true;
            v->message = bus_message_from_msi(v->fsb[n] >> 32, v->fsb[n]);
        }
    }
}

static void n_tick(struct naive *v)
{
    v->now++;
    if (!(v->conf & 1))
        return;
    v->counter++;
    for (int n = 0; n < 8; n++) {
        bool narrow = v->cfg[n] & M32;
        if (narrow ? (uint32_t)v->counter != (uint32_t)v->cmp[n] : v->counter != v->cmp[n])
            continue;
        if (v->cfg[n] & PER)
            v->cmp[n] = narrow ? (uint32_t)(v->cmp[n] + v->per[n]) : v->cmp[n] + v->per[n];
        if (v->cfg[n] & LEVEL)
            v->sts |= 1u << n;
        if (!(v->cfg[n] & ENB))
            continue;
        v->matches[n]++;
        if ((v->cfg[n] & FSB) || !v->level[n]) {
            if (v->first_change == NEVER)
                v->first_change = v->now;
        }
        if (v->cfg[n] & FSB) {
            v->pending[n] = true;
            v->last_rise[n] = v->now;
        } else if (!(v->cfg[n] & LEVEL)) {
            v->rises[n]++;
            v->last_rise[n] = v->now;
        }
    }
    n_lines(v);
}

static void n_run(struct naive *v, uint64_t until)
{
    v->first_change = NEVER;
    while (v->now < until)
        n_tick(v);
    n_slot(v);
}

static void n_write_byte(struct naive *v, unsigned offset, uint8_t byte)
{
    unsigned n = (offset - 0x100) / 0x20, shift = offset % 8 * 8, slot = offset & ~7u;
    uint64_t m = 0xffull << shift, b = (uint64_t)byte << shift;
    if (slot == CONF)
        v->conf = ((v->conf & ~m) | b) & 3;
    if (slot == STS)
        v->sts &= ~b;
    if (slot == CNT && !(v->conf & 1))
        v->counter = (v->counter & ~m) | b;
    if (offset < 0x100)
        return;
    if (slot == TCONF(n)) {
        uint64_t old = v->cfg[n];
        v->cfg[n] = ((old & ~m) | b) & 0x7f4e;
        unsigned r = v->cfg[n] >> 9 & 31;
        if (r && (r < 20 || r > 23))
            v->cfg[n] = (v->cfg[n] & ~0x3e00ull) | (old & 0x3e00);
        if (v->cfg[n] & M32) {
            v->cmp[n] = (uint32_t)v->cmp[n];
            v->per[n] = (uint32_t)v->per[n];
        }
        if (!(v->cfg[n] & LEVEL))
            v->sts &= ~(1ull << n);
    } else if (slot == TCMP(n) && !((v->cfg[n] & M32) && shift >= 32)) {
        if (!(v->cfg[n] & PER) || (v->cfg[n] & SETVAL))
            v->cmp[n] = (v->cmp[n] & ~m) | b;
        v->per[n] = (v->per[n] & ~m) | b;
    } else if (slot == TFSB(n)) {
        v->fsb[n] = (v->fsb[n] & ~m) | b;
    }
}

static void n_write(struct naive *v, unsigned offset, unsigned size, uint64_t value)
{
    unsigned n = (offset - 0x100) / 0x20;

    for (unsigned i = 0; i < size; i++)
        n_write_byte(v, offset + i, value >> 8 * i);
    if (offset >= 0x100 && offset % 0x20 / 8 == 1)
        v->cfg[n] &= ~(uint64_t)SETVAL;
    n_lines(v);
}

static void same(const struct hpet *s, const struct naive *v)
{
    assert_int_equal(s->counter, v->counter);
    assert_int_equal(s->status, v->sts);
    assert_int_equal(s->config, v->conf);
    for (int n = 0; n < 8; n++) {
        assert_int_equal(s->timer[n].config, v->cfg[n]);
        assert_int_equal(s->timer[n].comparator, v->cmp[n]);
        assert_int_equal(s->timer[n].period, v->per[n]);
        assert_int_equal(s->timer[n].matches, v->matches[n]);
        assert_int_equal(s->out.line[n].rises, v->rises[n]);
        assert_int_equal(s->out.line[n].last_rise, v->last_rise[n]);
        assert_int_equal(s->out.line[n].level, v->level[n]);
        assert_int_equal(s->fsb_pending >> n & 1, v->pending[n]);
    }
    assert_int_equal(s->out.message.kind != BUS_NONE, v->slot);
    if (v->slot)
        assert_memory_equal(&s->out.message, &v->message, sizeof(v->message));
}

/* A write that makes something happen soon more often than not. */
static void random_write(unsigned *offset, unsigned *size, uint64_t *value, const struct naive *v)
{
    unsigned n = below(8);
    *size = 1u << below(4);
    switch (below(12)) {
    case 0:
        *offset = CONF, *value = below(8) ? 1 | below(4) : 0;
        break;
    case 1: case 2:
        *offset = STS, *value = random64();
        break;
    case 3:
        *offset = CNT, *value = below(3) ? 0ull - below(300) : 0x100000000ull - below(300);
        break;
    case 4: case 5: case 6: case 7:
        *offset = TCONF(n), *value = (random64() & ~0x3e00ull) | (below(4) ? ENB : 0) | (18 + below(7)) << 9;
        break;
    case 8:
        *offset = TFSB(n), *value = (0xfee00000ull + (below(16) << 12)) << 32 | (random64() & 0xffff);
        if (!below(8))
            *value = random64();
        break;
    default:
        *offset = TCMP(n), *value = below(3) ? v->counter + below(400) : below(200);
    }
    if (below(4))
        *size = *size < 4 ? 8 : *size;
    if (*size < 8) {
        unsigned sub = below(8 / *size) * *size;
        *offset += sub;
        *value >>= 8 * sub;
    }
}

static void test_random_programs_tick_by_tick(void **state)
{
    for (unsigned program = 0; program < 300; program++) {
        struct hpet s;
        struct naive v = {.now = below(1000)};
        for (int n = 0; n < 8; n++)
            v.cmp[n] = UINT64_MAX;
        hpet_reset(&s, v.now);
        for (unsigned step = 0; step < 150; step++) {
            uint64_t until = v.now + (below(8) ? below(120) : below(3000)), value, deadline = hpet_deadline(&s);
            unsigned offset, size;
            n_run(&v, until);
            hpet_advance(&s, until);
            same(&s, &v);
            assert_true(deadline > until ? v.first_change == NEVER : v.first_change == deadline);
            random_write(&offset, &size, &value, &v);
            n_write(&v, offset, size, value);
            hpet_write(&s, until, offset, size, value);
            same(&s, &v);
            assert_true(hpet_check(&s));
            while (below(3) && v.slot) {
                v.slot = false;
                s.out.message.kind = BUS_NONE;
                n_slot(&v);
                hpet_advance(&s, until);
                same(&s, &v);
            }
        }
    }
}

/* Any states and gaps: one long advance equals many short ones, and a copied state goes on as the original does. */
static void test_random_walk_gaps(void **state)
{
    struct hpet s, copy;
    uint64_t now = 0;
    hpet_reset(&s, 0);
    for (unsigned step = 0; step < 300000; step++) {
        struct naive hint = {.counter = s.counter};
        unsigned offset, size;
        uint64_t value, target = now + (random64() >> (16 + below(48)));
        if (target < now || !below(5000)) {
            now = 0;
            hpet_reset(&s, 0);
            continue;
        }
        copy = s;
        for (unsigned part = below(4); part; part--)
            hpet_advance(&copy, now + below(target - now + 1));
        hpet_advance(&copy, target);
        hpet_advance(&s, target);
        /* Which of several messages comes first does depend on how often one looks. */
        copy.fsb_pending = s.fsb_pending;
        copy.out.message = s.out.message;
        copy.out.timer = s.out.timer;
        assert_memory_equal(&s, &copy, sizeof(s));
        now = target;
        random_write(&offset, &size, &value, &hint);
        hpet_write(&s, now, offset, size, value);
        hpet_read(&s, now, below(0x400), 1u << below(4));
        assert_true(hpet_check(&s));
        if (below(2))
            s.out.message.kind = BUS_NONE;
        assert_true(hpet_deadline(&s) > now);
    }
}

/* The tick that a missed-tick policy sends after, in each way of delivery: as at a match, but nothing more is due. */
static void test_repeat(void **state)
{
    static const struct {
        uint64_t config;
        enum hpet_delivery delivery;
    } rows[] = {{0x0c, HPET_EDGE}, {0x0e, HPET_LEVEL}, {0x400c, HPET_FSB}};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct hpet s;

        hpet_reset(&s, 0);
        hpet_write(&s, 0, 0x150, 8, 0xfee0000000000041);
        hpet_write(&s, 0, 0x140, 8, rows[i].config | 0x40);
        hpet_write(&s, 0, 0x148, 8, 700);
        hpet_write(&s, 0, 0x148, 8, 500);
        assert_int_equal(hpet_period(&s, 2), 0);
        hpet_write(&s, 0, 0x10, 8, 1);
        assert_int_equal(hpet_period(&s, 2), 500);
        assert_int_equal(hpet_period(&s, 3), 0);
        assert_int_equal(hpet_period(&s, HPET_TIMERS), 0);
        assert_int_equal(hpet_delivery(&s, 2), rows[i].delivery);
        hpet_repeat(&s, 100, 2);
        assert_int_equal(s.timer[2].matches, 0);
        assert_int_equal(s.out.line[2].rises, rows[i].delivery != HPET_FSB);
        assert_int_equal(s.out.line[2].level, rows[i].delivery == HPET_LEVEL);
        assert_int_equal(s.status, rows[i].delivery == HPET_LEVEL ? 4 : 0);
        assert_int_equal(s.out.message.kind, rows[i].delivery == HPET_FSB ? BUS_INTERRUPT : BUS_NONE);
        assert_int_equal(s.out.timer, rows[i].delivery == HPET_FSB ? 2 : 0);
        assert_true(hpet_check(&s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_counter_counts_master_ticks),
        cmocka_unit_test(test_counter_write_only_halted),
        cmocka_unit_test(test_counter_halves),
        cmocka_unit_test(test_undefined_access),
        cmocka_unit_test(test_read_only_registers),
        cmocka_unit_test(test_one_shot_edge),
        cmocka_unit_test(test_match_is_on_arrival),
        cmocka_unit_test(test_one_shot_32bit_fires_every_wrap),
        cmocka_unit_test(test_32bit_mode_clears_upper_half),
        cmocka_unit_test(test_periodic_two_writes),
        cmocka_unit_test(test_periodic_one_write),
        cmocka_unit_test(test_setval_clears_after_any_write),
        cmocka_unit_test(test_periodic_zero_period),
        cmocka_unit_test(test_level_and_status),
        cmocka_unit_test(test_level_gates),
        cmocka_unit_test(test_edge_has_no_status),
        cmocka_unit_test(test_route_capability),
        cmocka_unit_test(test_fsb_none_lost),
        cmocka_unit_test(test_fsb_address_outside_apic_range),
        cmocka_unit_test(test_fsb_pending_withdrawn),
        cmocka_unit_test(test_time_goes_back),
        cmocka_unit_test(test_check_rejects),
        cmocka_unit_test(test_count_of_edges_comes_round),
        cmocka_unit_test(test_random_programs_tick_by_tick),
        cmocka_unit_test(test_repeat),
        cmocka_unit_test(test_random_walk_gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
