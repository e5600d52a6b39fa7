/* The local APIC's timer, its modes and the guest's TSC, against a naive simulation of every tick. */
#include "vlapic_test.h"

#define ONE_SHOT    0u
#define PERIODIC    0x20000u
#define TSCDEADLINE 0x40000u

static const unsigned divider_code[8] = {0xb, 0, 1, 2, 3, 8, 9, 0xa}; /* divide by 1, 2, 4, ... 128 */

/*
 * The reference goes tick by tick. What is left is kept in 128ths of a count, of which a tick takes 128 / divisor; so a
 * new divider leaves it alone, but for rounding up to whole ticks.
 */
struct naive {
    uint64_t now, adjust, deadline, left, expirations, last;
    uint32_t tmict, mode;
    unsigned divisor;
    bool masked;
};

static void naive_fire(struct naive *n)
{
    if (!n->masked) {
        n->expirations++;
        n->last = n->now;
    }
}

static void naive_check_deadline(struct naive *n)
{
    if (n->deadline && n->now + n->adjust >= n->deadline) {
        n->deadline = 0;
        naive_fire(n);
    }
}

static void naive_tick(struct naive *n)
{
    n->now++;
    naive_check_deadline(n);
    if (!n->left)
        return;
    n->left -= 128 / n->divisor;
    if (!n->left) {
        if (n->mode == PERIODIC)
            n->left = (uint64_t)n->tmict * 128;
        naive_fire(n);
    }
}

static void naive_mode(struct naive *n, uint32_t mode, bool masked)
{
    if (mode != n->mode && (mode == TSCDEADLINE || n->mode == TSCDEADLINE)) {
        n->deadline = 0;
        n->tmict = 0;
        n->left = 0;
    }
    n->mode = mode;
    n->masked = masked;
}

static void naive_start(struct naive *n, uint32_t count)
{
    if (n->mode == TSCDEADLINE)
        return;
    n->tmict = count;
    n->left = (uint64_t)count * 128;
}

static void naive_divide(struct naive *n, unsigned divisor)
{
    uint64_t step = 128 / divisor;
    n->divisor = divisor;
    n->left = (n->left + step - 1) / step * step;
}

/* When would the reference interrupt next? */
static uint64_t naive_deadline(const struct naive *n)
{
    if (n->masked)
        return NEVER;
    if (n->deadline)
        return n->deadline - n->adjust;
    return n->left ? n->now + n->left / (128 / n->divisor) : NEVER;
}

static void compare(struct vlapic *s, const struct naive *n)
{
    uint64_t value;
    assert_int_equal(rd(s, n->now, TMCCT), (n->left + 127) / 128);
    assert_int_equal(rd(s, n->now, TMICT), n->tmict);
    assert_true(vlapic_msr_read(s, n->now, MSR_TSC_DEADLINE, &value));
    assert_true(value == n->deadline);
    assert_true(vlapic_msr_read(s, n->now, MSR_TSC, &value));
    assert_true(value == n->now + n->adjust);
    assert_true(s->timer_due == n->expirations);
    assert_true(s->timer_due_at == n->last);
    assert_true(vlapic_deadline(s) == naive_deadline(n));
    assert_sane(s);
}

/* The same operation on both. */
static void both(struct vlapic *s, struct naive *n, uint64_t r)
{
    static const uint32_t modes[] = {ONE_SHOT, PERIODIC, PERIODIC, TSCDEADLINE};
    uint64_t value = r >> 32;
    unsigned code = (r >> 8) & 7;
    switch (r & 7) {
    case 0: case 1:
        wr(s, n->now, TMICT, value % 40);
        naive_start(n, value % 40);
        break;
    case 2: case 3:
        wr(s, n->now, TIMER, modes[code & 3] | ((code & 4) && (r & 0x800) ? MASKED : 0) | 0xe0);
        naive_mode(n, modes[code & 3], (code & 4) && (r & 0x800));
        break;
    case 4:
        wr(s, n->now, DCR, divider_code[code]);
        naive_divide(n, 1u << code);
        break;
    case 5: case 6:
        value = n->now + n->adjust + value % 1000 - ((r & 0x1000) ? 100 : 0);
        vlapic_msr_write(s, n->now, MSR_TSC_DEADLINE, (r & 0x6000) ? value : 0);
        if (n->mode == TSCDEADLINE)
            n->deadline = (r & 0x6000) ? value : 0;
        break;
    default:
        n->adjust += value % 300;
        if (r & 0x8000)
            vlapic_msr_write(s, n->now, MSR_TSC, n->now + n->adjust);
        else
            vlapic_msr_write(s, n->now, MSR_TSC_ADJUST, n->adjust);
    }
    naive_check_deadline(n);
}

static void timer_equals_tick_simulation(void **state)
{
    UNUSED(state);
    for (uint64_t walk = 1; walk <= 200; walk++) {
        struct naive n = {.divisor = 2, .masked = true};
        struct vlapic s;
        uint64_t seed = walk * 0x9e3779b97f4a7c15ull;
        enabled(&s, 0, walk & 1);
        for (int i = 0; i < 400; i++) {
            uint64_t ticks = random_after(&seed) % ((i & 3) ? 50 : 3000);
            both(&s, &n, random_after(&seed));
            compare(&s, &n);
            while (ticks--)
                naive_tick(&n);
            if (random_after(&seed) & 1)
                continue; /* nobody looks: the next operation finds it late by itself */
            vlapic_advance(&s, n.now);
            compare(&s, &n);
        }
    }
}

/* Each tick of a full count, each divider: the count read and the moment of expiry. */
static void every_divider_counts(void **state)
{
    UNUSED(state);
    for (unsigned d = 0; d < 8; d++)
        for (unsigned periodic = 0; periodic < 2; periodic++) {
            struct vlapic s;
            uint64_t period = (uint64_t)5 << d;
            enabled(&s, 0, false);
            wr(&s, 1000, DCR, divider_code[d] | 4); /* bit 2 is not there */
            assert_int_equal(rd(&s, 1000, DCR), divider_code[d]);
            wr(&s, 1000, TIMER, (periodic ? PERIODIC : ONE_SHOT) | 0x55);
            wr(&s, 1000, TMICT, 5);
            assert_int_equal(vlapic_deadline(&s), 1000 + period);
            for (uint64_t t = 0; t < 3 * period; t++) {
                uint64_t left = periodic ? period - t % period : t < period ? period - t : 0;
                struct vlapic late = s; /* never advanced */
                assert_int_equal(vlapic_read(&late, 1000 + t, TMCCT, 4), (left + (1u << d) - 1) >> d);
                vlapic_advance(&s, 1000 + t);
                assert_int_equal(s.timer_due, periodic ? t / period : t >= period);
                assert_int_equal(late.timer_due, s.timer_due);
                if (t == period)
                    assert_int_equal(vlapic_ack(&s, 1000 + t), 0x55);
            }
            assert_true(periodic || vlapic_deadline(&s) == NEVER);
        }
}

/* What the missed-tick policies know of it: masked, or in another mode, it does not repeat. */
static void period(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, DCR, 0xb);
    for (unsigned i = 0; i < 8; i++) {
        wr(&s, 0, TIMER, PERIODIC | 0x55);
        wr(&s, 0, DCR, divider_code[i]);
        wr(&s, 0, TMICT, 0xffffffff);
        assert_true(vlapic_timer_period(&s) == 0xffffffffull << i);
        wr(&s, 0, TIMER, PERIODIC | MASKED | 0x55);
        assert_true(vlapic_timer_period(&s) == 0);
        wr(&s, 0, TIMER, ONE_SHOT | 0x55);
        assert_true(vlapic_timer_period(&s) == 0);
    }
}

/* A million missed ticks cost what one does. */
static void missed_ticks_are_counted(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 10, TIMER, PERIODIC | 0x55);
    wr(&s, 10, DCR, 0xb);
    wr(&s, 10, TMICT, 1000);
    vlapic_advance(&s, 2010); /* exactly two */
    assert_int_equal(s.timer_due, 2);
    assert_int_equal(vlapic_deadline(&s), 3010);
    vlapic_advance(&s, 10 + 1000ull * 1000000 + 999);
    assert_int_equal(s.timer_due, 1000000);
    assert_int_equal(s.timer_due_at, 10 + 1000ull * 1000000);
    assert_int_equal(vlapic_deadline(&s), 10 + 1000ull * 1000001);
    assert_int_equal(vlapic_pending(&s), 0x55);
    wr(&s, s.timer_due_at, TMICT, 1); /* the shortest period there is, over the longest time */
    vlapic_advance(&s, NEVER - 1);
    assert_sane(&s);
    assert_true(s.timer_due_at == NEVER - 1);
    assert_true(vlapic_deadline(&s) == NEVER);
    vlapic_advance(&s, NEVER);
    assert_sane(&s);
}

/* Masked expirations are nobody's due; unmasking does not bring them back. */
static void masked_timer_runs_silently(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, TIMER, MASKED | PERIODIC | 0x55);
    wr(&s, 0, TMICT, 10);
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_int_equal(rd(&s, 105, TMCCT), 8);
    wr(&s, 105, TIMER, PERIODIC | 0x55);
    assert_int_equal(s.timer_due, 0);
    assert_int_equal(vlapic_deadline(&s), 120);
    wr(&s, 125, TIMER, MASKED | PERIODIC | 0x55); /* what was due before the mask is delivered */
    assert_int_equal(s.timer_due, 1);
    assert_int_equal(vlapic_pending(&s), 0x55);
    wr(&s, 125, TIMER, MASKED | TSCDEADLINE | 0x55);
    vlapic_ack(&s, 125);
    vlapic_msr_write(&s, 125, MSR_TSC_DEADLINE, 200);
    vlapic_advance(&s, 300); /* masked: disarmed without an interrupt */
    wr(&s, 300, TIMER, TSCDEADLINE | 0x55);
    assert_int_equal(s.timer_due, 1);
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_int_equal(s.tsc_deadline, 0);
}

/* What was due before the APIC is disabled is delivered; nothing after. */
static void software_disable_stops_interrupts(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, TIMER, PERIODIC | 0x55);
    wr(&s, 0, TMICT, 10);
    wr(&s, 25, SVR, 0xff);
    assert_int_equal(s.timer_due, 1);
    assert_int_equal(vlapic_pending(&s), 0x55);
    assert_true(vlapic_deadline(&s) == NEVER);
    vlapic_advance(&s, 1000);
    assert_int_equal(s.timer_due, 1);
    assert_int_equal(rd(&s, 1001, TMCCT), 10); /* but it counts on */
}

static void mode_switches(void **state)
{
    struct vlapic s;
    uint64_t value;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, DCR, 0xb);
    wr(&s, 0, TIMER, ONE_SHOT | 0x55);
    wr(&s, 0, TMICT, 100);
    wr(&s, 30, TIMER, PERIODIC | 0x56); /* goes on counting, then repeats */
    assert_int_equal(rd(&s, 30, TMCCT), 70);
    vlapic_advance(&s, 100);
    assert_int_equal(vlapic_deadline(&s), 200);
    wr(&s, 150, TIMER, ONE_SHOT | 0x56);
    assert_int_equal(rd(&s, 150, TMCCT), 50);
    vlapic_advance(&s, 200);
    assert_true(vlapic_deadline(&s) == NEVER);
    wr(&s, 210, TIMER, PERIODIC | 0x56); /* an expired count does not start by itself */
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_int_equal(rd(&s, 210, TMCCT), 0);
    assert_int_equal(rd(&s, 210, TMICT), 100);
    wr(&s, 210, TMICT, 100);
    wr(&s, 220, TIMER, TSCDEADLINE | 0x56); /* disarms */
    assert_true(vlapic_deadline(&s) == NEVER);
    wr(&s, 220, TMICT, 100); /* ignored */
    assert_int_equal(rd(&s, 220, TMICT), 0);
    assert_int_equal(rd(&s, 220, TMCCT), 0);
    vlapic_msr_write(&s, 220, MSR_TSC_DEADLINE, 500);
    wr(&s, 230, TIMER, TSCDEADLINE | 0x57); /* no mode change: stays armed */
    wr(&s, 230, DCR, 0);                    /* the divider is none of its business */
    assert_int_equal(vlapic_deadline(&s), 500);
    wr(&s, 240, TIMER, ONE_SHOT | 0x57);
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_true(vlapic_msr_read(&s, 240, MSR_TSC_DEADLINE, &value) && value == 0);
    vlapic_msr_write(&s, 240, MSR_TSC_DEADLINE, 300); /* ignored outside its mode */
    assert_true(vlapic_msr_read(&s, 240, MSR_TSC_DEADLINE, &value) && value == 0);
    assert_true(vlapic_deadline(&s) == NEVER);
}

static void reserved_timer_mode_stops(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, true);
    wr(&s, 0, TIMER, PERIODIC | 0x55);
    wr(&s, 0, TMICT, 100);
    wr(&s, 0, TIMER, 0x60055);
    assert_int_equal(rd(&s, 0, TIMER), 0x60055);
    wr(&s, 0, TMICT, 100);
    assert_true(vlapic_msr_write(&s, 0, MSR_TSC_DEADLINE, 5));
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_int_equal(rd(&s, 50, TMCCT), 0);
    vlapic_advance(&s, 1000);
    assert_int_equal(s.timer_due, 0);
}

static void divider_change_rescales(void **state)
{
    UNUSED(state);
    for (unsigned from = 0; from < 8; from++)
        for (unsigned to = 0; to < 8; to++)
            for (uint64_t at = 0; at < (uint64_t)9 << from; at++) {
                struct vlapic s;
                enabled(&s, 0, false);
                wr(&s, 0, DCR, divider_code[from]);
                wr(&s, 0, TIMER, PERIODIC | 0x55);
                wr(&s, 0, TMICT, 9);
                uint64_t count = rd(&s, at, TMCCT), left = ((uint64_t)9 << from) - at;
                wr(&s, at, DCR, divider_code[to]);
                assert_int_equal(rd(&s, at, TMCCT), count);
                uint64_t expiry = vlapic_deadline(&s), scaled = ((left << to) + (1u << from) - 1) >> from;
                assert_int_equal(expiry, at + scaled);
                vlapic_advance(&s, expiry);
                assert_int_equal(vlapic_deadline(&s), expiry + ((uint64_t)9 << to));
                assert_int_equal(s.timer_due, 1);
            }
}

static void deadline_fires_once(void **state)
{
    static const int64_t offsets[] = {-1000, -1, 0, 1, 2, 1000};
    UNUSED(state);
    for (size_t i = 0; i < COUNT_OF(offsets); i++) {
        struct vlapic s;
        uint64_t value;
        bool past = offsets[i] <= 0;
        enabled(&s, 0, true);
        vlapic_msr_write(&s, 0, MSR_TSC_ADJUST, 0x100000000);
        wr(&s, 5000, TIMER, TSCDEADLINE | 0xec);
        value = 0x100000000 + 5000 + (uint64_t)offsets[i];
        assert_true(vlapic_msr_write(&s, 5000, MSR_TSC_DEADLINE, value));
        assert_int_equal(vlapic_pending(&s), past ? 0xec : -1);
        assert_true(vlapic_deadline(&s) == (past ? NEVER : 5000 + (uint64_t)offsets[i]));
        assert_true(vlapic_msr_read(&s, 5000, MSR_TSC_DEADLINE, &value));
        assert_true(value == (past ? 0 : 0x100000000 + 5000 + (uint64_t)offsets[i]));
        assert_true(vlapic_msr_read(&s, 7000, MSR_TSC_DEADLINE, &value)); /* nobody advanced, yet it reads 0 */
        assert_int_equal(value, 0);
        assert_int_equal(vlapic_ack(&s, 7000), 0xec);
        vlapic_advance(&s, 100000);
        assert_int_equal(s.timer_due, 1);
        assert_int_equal(s.timer_due_at, past ? 5000 : 5000 + offsets[i]);
        assert_int_equal(vlapic_pending(&s), -1);
    }
}

/* A deadline is a guest TSC value: it moves when the guest moves its TSC. */
static void deadline_follows_tsc_adjust(void **state)
{
    struct vlapic s;
    uint64_t value;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 100, TIMER, TSCDEADLINE | 0xec);
    vlapic_msr_write(&s, 100, MSR_TSC_DEADLINE, 1000);
    assert_true(vlapic_msr_write(&s, 100, MSR_TSC, 400));
    assert_true(vlapic_msr_read(&s, 100, MSR_TSC_ADJUST, &value) && value == 300);
    assert_true(vlapic_msr_read(&s, 150, MSR_TSC, &value) && value == 450);
    assert_true(vlapic_guest_tsc_offset(&s) == 300);
    assert_int_equal(vlapic_deadline(&s), 700);
    assert_true(vlapic_msr_write(&s, 100, MSR_TSC_ADJUST, -50));
    assert_int_equal(vlapic_deadline(&s), 1050);
    vlapic_msr_write(&s, 100, MSR_TSC_ADJUST, 2000); /* jumps over it */
    assert_int_equal(vlapic_pending(&s), 0xec);
    assert_true(vlapic_deadline(&s) == NEVER);
    vlapic_msr_write(&s, 100, MSR_TSC_DEADLINE, ~0ull); /* farther than time goes */
    assert_sane(&s);
    vlapic_msr_write(&s, 100, MSR_TSC_ADJUST, -200); /* a guest TSC below zero is a huge one */
    assert_sane(&s);
}

/* Counting modes count real ticks, whatever the guest does to its TSC. */
/* The slow part of vlapic_advance() may be called at any time: before the expiry it does nothing. */
static void expiring_early_does_nothing(void **state)
{
    struct vlapic s, before;
    UNUSED(state);
    enabled(&s, 0, false);
    for (unsigned armed = 0; armed < 2; armed++) {
        before = s;
        vlapic_timer_expire(&s, armed ? 99 : UINT64_MAX);
        assert_memory_equal(&s, &before, sizeof(s));
        wr(&s, 0, TIMER, 0x30);
        wr(&s, 0, DCR, 0xb); /* by 1 */
        wr(&s, 0, TMICT, 100);
    }
    vlapic_timer_expire(&s, 100);
    assert_int_equal(vlapic_highest_irr(&s), 0x30);
}

static void counting_ignores_tsc_adjust(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, TIMER, PERIODIC | 0x55);
    wr(&s, 0, TMICT, 100);
    vlapic_msr_write(&s, 10, MSR_TSC, 1ull << 60);
    assert_int_equal(vlapic_deadline(&s), 200);
    assert_int_equal(rd(&s, 50, TMCCT), 75);
}

/* Reading the current count divides by nothing that a guest can make 0 (KVM's bug, XSA-504's kind). */
static void current_count_never_divides_by_zero(void **state)
{
    UNUSED(state);
    for (unsigned d = 0; d < 16; d++)
        for (unsigned mode = 0; mode < 4; mode++)
            for (unsigned step = 0; step < 16; step++) {
                struct vlapic s;
                enabled(&s, 0, false);
                wr(&s, 0, TIMER, mode << 17 | 0x55);
                wr(&s, 0, TMICT, 1);
                wr(&s, 0, DCR, d);
                if (step & 1)
                    wr(&s, 1, TMICT, 0);
                if (step & 2)
                    wr(&s, 2, TIMER, PERIODIC | 0x55);
                if (step & 4)
                    vlapic_msr_write(&s, 3, MSR_TSC_DEADLINE, 1);
                if (step & 8)
                    wr(&s, 3, DCR, ~d);
                for (uint64_t t = 0; t < 300; t += 7)
                    assert_true(rd(&s, t, TMCCT) <= 1);
                rd(&s, NEVER, TMCCT);
                assert_sane(&s);
            }
}

/* Time that goes backwards breaks nothing. */
static void time_may_go_backwards(void **state)
{
    UNUSED(state);
    for (unsigned mode = 0; mode < 3; mode++) {
        struct vlapic s;
        enabled(&s, 0, false);
        wr(&s, 1000000, TIMER, mode << 17 | 0x55);
        wr(&s, 1000000, TMICT, 77);
        vlapic_msr_write(&s, 1000000, MSR_TSC_DEADLINE, 1000077);
        assert_int_equal(rd(&s, 5, TMCCT), mode < 2 ? 77 : 0);
        vlapic_advance(&s, 5);
        wr(&s, 5, DCR, 0xb);
        assert_int_equal(vlapic_deadline(&s), mode < 2 ? 5 + 77 : 1000077);
        assert_true(rd(&s, 0, TMCCT) <= 77);
        vlapic_advance(&s, 2000000);
        assert_true(s.timer_due > 0);
        wr(&s, 3, TMICT, ~0u);
        vlapic_msr_write(&s, 0, MSR_TSC_ADJUST, ~0ull);
        assert_sane(&s);
    }
}

static void largest_count(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, true);
    wr(&s, 0, DCR, 0xa);
    wr(&s, 0, TIMER, PERIODIC | 0x55);
    wr(&s, 0, TMICT, ~0u);
    assert_int_equal(rd(&s, 0, TMCCT), ~0u);
    assert_int_equal(vlapic_deadline(&s), (uint64_t)~0u << 7);
    wr(&s, 0, DCR, 0xb);
    assert_int_equal(vlapic_deadline(&s), ~0u);
    wr(&s, 0, DCR, 0xa);
    assert_int_equal(vlapic_deadline(&s), (uint64_t)~0u << 7);
    wr(&s, NEVER - 10, TMICT, ~0u); /* would end after the end of time */
    assert_true(vlapic_deadline(&s) == NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_divider_counts),
        cmocka_unit_test(timer_equals_tick_simulation),
        cmocka_unit_test(missed_ticks_are_counted),
        cmocka_unit_test(masked_timer_runs_silently),
        cmocka_unit_test(software_disable_stops_interrupts),
        cmocka_unit_test(mode_switches),
        cmocka_unit_test(reserved_timer_mode_stops),
        cmocka_unit_test(divider_change_rescales),
        cmocka_unit_test(deadline_fires_once),
        cmocka_unit_test(deadline_follows_tsc_adjust),
        cmocka_unit_test(counting_ignores_tsc_adjust),
        cmocka_unit_test(expiring_early_does_nothing),
        cmocka_unit_test(current_count_never_divides_by_zero),
        cmocka_unit_test(time_may_go_backwards),
        cmocka_unit_test(period),
        cmocka_unit_test(largest_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
