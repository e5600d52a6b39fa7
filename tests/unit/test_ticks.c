/*
 * Missed ticks: the policies as pure functions over a ledger. The reference keeps every tick by itself and moves one at a
 * time; what the fabric and the local APIC make of it is in test_ticks_core.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "random.h"
#include "ticks/ticks.h"

#define PERIOD 1000u

static struct ledger fresh(enum metronome_tick_policy policy)
{
    struct ledger l;

    memset(&l, 0xa5, sizeof(l));
    ticks_init(&l, policy);
    assert_true(ticks_check(&l));
    return l;
}

/* A guest that takes whatever is signalled; returns how much that was until time `until`. */
static unsigned listen(struct ledger *l, uint64_t *now, uint64_t until)
{
    unsigned taken = l->n.pending != 0;

    ticks_taken(l);
    while (ticks_deadline(l) <= until) {
        *now = ticks_deadline(l) > *now ? ticks_deadline(l) : *now;
        assert_true(ticks_next(l, *now));
        ticks_taken(l);
        taken++;
    }
    *now = until;
    return taken;
}

/* Ten ticks come due while the guest is deaf, then it listens for one period. */
static void test_deaf_for_ten_ticks(void **state)
{
    static const struct {
        enum metronome_tick_policy policy;
        unsigned taken, collapsed, dropped, owed;
    } rows[] = {
        {METRONOME_TICKS_DROP, 1, 0, 9, 0},
        {METRONOME_TICKS_ONE_PENDING, 2, 8, 0, 0},
        {METRONOME_TICKS_BURST, 10, 0, 0, 0},
        {METRONOME_TICKS_CATCH_UP, 1 + METRONOME_CATCH_UP_RATE, 0, 0, 9 - METRONOME_CATCH_UP_RATE},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (unsigned at_once = 0; at_once < 2; at_once++) { /* whoever looks: at each tick, or only at the end */
            struct ledger l = fresh(rows[i].policy);
            uint64_t now = 5000;

            for (unsigned n = 0; n < (at_once ? 1 : 10); n++) {
                ticks_due(&l, at_once ? 10 : 1, PERIOD);
                ticks_next(&l, now);
                assert_int_equal(l.n.pending, 1);
            }
            assert_int_equal(listen(&l, &now, now + PERIOD), rows[i].taken);
            assert_int_equal(l.n.due, 10);
            assert_int_equal(l.n.delivered, rows[i].taken);
            assert_int_equal(l.n.collapsed, rows[i].collapsed);
            assert_int_equal(l.n.dropped, rows[i].dropped);
            assert_int_equal(l.n.owed, rows[i].owed);
            assert_true(ticks_check(&l));
        }
}

/* Late ticks come no closer than the rate allows, and are all there after owed / (rate - 1) periods. */
static void test_catch_up_rate(void **state)
{
    struct ledger l = fresh(METRONOME_TICKS_CATCH_UP);
    uint64_t now = PERIOD, last = 0, gap = PERIOD / METRONOME_CATCH_UP_RATE;
    unsigned periods = 0;

    ticks_due(&l, 301, PERIOD);
    assert_true(ticks_next(&l, now));
    while (l.n.owed || l.n.pending) {
        ticks_taken(&l);
        if (now % PERIOD == 0) {
            ticks_due(&l, 1, PERIOD);
            periods++;
        }
        if (ticks_next(&l, now)) {
            assert_true(now - last >= gap);
            last = now;
        }
        now += 10;
    }
    assert_in_range(periods, 300 / (METRONOME_CATCH_UP_RATE - 1) - 1, 300 / (METRONOME_CATCH_UP_RATE - 1) + 1);
    assert_int_equal(l.n.delivered, l.n.due);
}

static void test_owed_has_an_end(void **state)
{
    struct ledger l = fresh(METRONOME_TICKS_BURST);

    ticks_due(&l, UINT32_MAX, PERIOD);
    ticks_next(&l, 0);
    assert_int_equal(l.n.owed, TICKS_OWED_MAX);
    assert_int_equal(l.n.dropped, UINT32_MAX - 1 - TICKS_OWED_MAX);
    assert_true(ticks_check(&l));
}

/* A one-shot owes nothing, whatever the policy; a timer with another period does not owe what the one before did. */
static void test_new_timer(void **state)
{
    for (unsigned p = METRONOME_TICKS_DEFAULT + 1; p < METRONOME_TICK_POLICY_COUNT; p++) {
        struct ledger l = fresh((enum metronome_tick_policy)p);

        ticks_due(&l, 3, 0);
        assert_true(ticks_next(&l, 0));
        assert_int_equal(l.n.owed, 0);
        assert_int_equal(l.n.dropped, 2);
        ticks_due(&l, 5, PERIOD);
        ticks_due(&l, 0, PERIOD + 1);
        assert_int_equal(l.n.owed, 0);
        assert_int_equal(l.n.pending, 1);
        assert_true(ticks_check(&l));
    }
}

static void test_defaults(void **state)
{
    static const unsigned expected[] = {METRONOME_TICKS_BURST, METRONOME_TICKS_DROP, METRONOME_TICKS_DROP, METRONOME_TICKS_BURST};

    for (unsigned s = 0; s < METRONOME_TICK_SOURCE_COUNT; s++) {
        assert_int_equal(ticks_policy(0, (enum metronome_tick_source)s), expected[s]);
        for (unsigned p = 1; p < METRONOME_TICK_POLICY_COUNT; p++)
            assert_int_equal(ticks_policy(p << METRONOME_TICKS_SHIFT(s), (enum metronome_tick_source)s), p);
    }
}

static void test_choice_as_text(void **state)
{
    static const char *const wrong[] = {"", "pit", "pit=", "pit=often", "cmos=burst", "pit=burst,", "pit=burst,rtc", "pi=burst",
                                        "pit=bursts", "pit=bur", "pit=burst rtc=drop", "=burst", "pit,burst"};
    uint32_t ticks = METRONOME_TICKS_DROP << METRONOME_TICKS_SHIFT(METRONOME_TICKS_OF_PIT);

    assert_null(metronome_ticks_parse("lapic=one-pending,pit=catch-up,rtc=burst,hpet=default", &ticks));
    assert_int_equal(ticks_policy(ticks, METRONOME_TICKS_OF_LAPIC), METRONOME_TICKS_ONE_PENDING);
    assert_int_equal(ticks_policy(ticks, METRONOME_TICKS_OF_PIT), METRONOME_TICKS_CATCH_UP);
    assert_int_equal(ticks_policy(ticks, METRONOME_TICKS_OF_RTC), METRONOME_TICKS_BURST);
    assert_int_equal(ticks_policy(ticks, METRONOME_TICKS_OF_HPET), METRONOME_TICKS_DROP);
    assert_true(metronome_ticks_valid(ticks));
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_non_null(metronome_ticks_parse(wrong[i], &ticks));
    assert_false(metronome_ticks_valid(METRONOME_TICK_POLICY_COUNT));
    assert_false(metronome_ticks_valid(1u << METRONOME_TICKS_SHIFT(METRONOME_TICK_SOURCE_COUNT)));
}

/* ---- The reference: every tick by itself ---- */

enum { WAITS, PENDS, DELIVERED, COLLAPSED, DROPPED, FATES };
struct naive {
    uint8_t tick[20000];
    unsigned ticks, keeps, missed;
    uint64_t period, last, gap;
};

static unsigned count(const struct naive *v, unsigned fate)
{
    unsigned n = 0;

    for (unsigned i = 0; i < v->ticks; i++)
        n += v->tick[i] == fate;
    return n;
}

static void move_all(struct naive *v, unsigned from, unsigned to)
{
    for (unsigned i = 0; i < v->ticks; i++)
        if (v->tick[i] == from)
            v->tick[i] = (uint8_t)to;
}

static void n_due(struct naive *v, unsigned n, uint64_t period)
{
    if (period != v->period)
        move_all(v, WAITS, DROPPED);
    v->period = period;
    for (; n; n--) {
        unsigned waiting = count(v, WAITS), others = count(v, PENDS) + waiting;
        bool kept = !others || waiting < (period ? v->keeps : 0) + !count(v, PENDS);

        v->tick[v->ticks++] = (uint8_t)(kept ? WAITS : period ? v->missed : DROPPED);
    }
}

static bool n_next(struct naive *v, uint64_t now)
{
    if (count(v, PENDS) || !count(v, WAITS) || (v->gap && now < v->last + v->period / v->gap))
        return false;
    for (unsigned i = 0; i < v->ticks; i++)
        if (v->tick[i] == WAITS) {
            v->tick[i] = PENDS;
            break;
        }
    v->last = now;
    return true;
}

static void same(const struct ledger *l, const struct naive *v)
{
    assert_true(ticks_check(l));
    assert_true(l->n.delivered <= l->n.due);
    assert_int_equal(l->n.due, v->ticks);
    assert_int_equal(l->n.owed, count(v, WAITS));
    assert_int_equal(l->n.pending, count(v, PENDS));
    assert_int_equal(l->n.delivered, count(v, DELIVERED));
    assert_int_equal(l->n.collapsed, count(v, COLLAPSED));
    assert_int_equal(l->n.dropped, count(v, DROPPED));
}

static void test_random_programs_against_reference(void **state)
{
    static struct naive v;

    for (unsigned program = 0; program < 200; program++) {
        enum metronome_tick_policy p = (enum metronome_tick_policy)(1 + program % (METRONOME_TICK_POLICY_COUNT - 1));
        struct ledger l = fresh(p);
        uint64_t now = 0, period = PERIOD;

        v = (struct naive){.keeps = p == METRONOME_TICKS_DROP ? 0 : p == METRONOME_TICKS_ONE_PENDING ? 1 : TICKS_OWED_MAX,
                           .missed = p == METRONOME_TICKS_ONE_PENDING ? COLLAPSED : DROPPED,
                           .gap = p == METRONOME_TICKS_CATCH_UP ? METRONOME_CATCH_UP_RATE : 0};
        for (unsigned step = 0; step < 300; step++) {
            unsigned n = (unsigned)below(below(40) ? 3 : 1200);

            if (v.ticks + n > sizeof(v.tick))
                break;
            now += below(2 * PERIOD);
            if (!below(50))
                period = below(2) ? 0 : PERIOD + below(500);
            switch (below(8)) {
            case 0:
            case 1:
            case 2:
                ticks_due(&l, n, period);
                n_due(&v, n, period);
                break;
            case 3:
            case 4:
                assert_int_equal(ticks_next(&l, now), n_next(&v, now));
                break;
            case 5:
            case 6:
                ticks_taken(&l);
                move_all(&v, PENDS, DELIVERED);
                break;
            default:
                if (below(20)) {
                    ticks_lost(&l);
                    move_all(&v, PENDS, DROPPED);
                } else {
                    ticks_forget(&l);
                    move_all(&v, WAITS, DROPPED);
                    v.period = 0;
                }
            }
            same(&l, &v);
        }
    }
}

static void test_check_rejects(void **state)
{
    struct ledger good = fresh(METRONOME_TICKS_BURST), l;

    ticks_due(&good, 9, PERIOD);
    ticks_next(&good, 0);
#define BAD(change) l = good; change; assert_false(ticks_check(&l))
    BAD(l.n.due++);
    BAD(l.n.owed--);
    BAD(l.n.pending = 2; l.n.owed--);
    BAD(l.policy = METRONOME_TICKS_DEFAULT);
    BAD(l.policy = METRONOME_TICK_POLICY_COUNT);
    BAD(l.policy = METRONOME_TICKS_DROP);
    BAD(l.period = 0);
#undef BAD
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deaf_for_ten_ticks),
        cmocka_unit_test(test_catch_up_rate),
        cmocka_unit_test(test_owed_has_an_end),
        cmocka_unit_test(test_new_timer),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_choice_as_text),
        cmocka_unit_test(test_random_programs_against_reference),
        cmocka_unit_test(test_check_rejects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
