/*
 * The deadline heap against a naive array: random settings, moves and removals, and every expiry in order and on time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "deadlines.h"
#include "deadline.h"

#define SLOTS DEADLINE_SLOTS

static struct deadline slot[SLOTS];
static uint64_t expired[SLOTS]; /* times each slot has expired */

static void expire(struct deadline *d)
{
    assert_int_equal(d->when, DEADLINE_UNSET);
    expired[d - slot]++;
}

static uint64_t naive_next(const uint64_t *when)
{
    uint64_t next = DEADLINE_UNSET;

    for (unsigned i = 0; i < SLOTS; i++)
        next = when[i] < next ? when[i] : next;
    return next;
}

static void begin(struct deadline_heap *h, uint64_t *when)
{
    memset(h, 0, sizeof(*h));
    memset(expired, 0, sizeof(expired));
    for (unsigned i = 0; i < SLOTS; i++) {
        deadline_init(&slot[i], expire);
        when[i] = DEADLINE_UNSET;
    }
}

static void test_against_naive(void **state)
{
    static struct deadline_heap h;
    uint64_t when[SLOTS], due[SLOTS] = {0}, now = 0;

    srand(1);
    begin(&h, when);
    for (unsigned step = 0; step < 300000; step++) {
        unsigned i = (unsigned)rand() % SLOTS;

        when[i] = rand() % 4 ? now + (unsigned)rand() % 1000 : DEADLINE_UNSET;
        deadline_set(&h, &slot[i], when[i]);
        assert_int_equal(deadline_next(&h), naive_next(when));
        if (rand() % 8)
            continue;
        now += (unsigned)rand() % 300;
        expire_due(&h, now);
        for (unsigned k = 0; k < SLOTS; k++)
            if (when[k] <= now) {
                when[k] = DEADLINE_UNSET;
                due[k]++;
            }
        assert_memory_equal(expired, due, sizeof(due));
        assert_int_equal(deadline_next(&h), naive_next(when));
    }
}

static bool is_less(const void *owner, const void *than)
{
    return *(const unsigned *)owner < *(const unsigned *)than;
}

/* Of the owned ones that are due, one whose owner comes before is found wherever it is in the heap, and no other. */
static void test_one_that_comes_before(void **state)
{
    static struct deadline_heap h;
    static unsigned rank[SLOTS];
    uint64_t when[SLOTS];

    (void)state;
    srand(2);
    begin(&h, when);
    for (unsigned step = 0; step < 100000; step++) {
        unsigned i = (unsigned)rand() % SLOTS, than = (unsigned)rand() % 4, found = 0;
        uint64_t by = (unsigned)rand() % 1000;
        const struct deadline *d;

        rank[i] = (unsigned)rand() % 40;
        slot[i].owner = rand() % 5 ? &rank[i] : NULL;
        when[i] = rand() % 4 ? (unsigned)rand() % 1000 : DEADLINE_UNSET;
        deadline_set(&h, &slot[i], when[i]);
        for (unsigned k = 0; k < SLOTS; k++)
            found += when[k] <= by && when[k] != DEADLINE_UNSET && slot[k].owner && rank[k] < than;
        d = deadline_before(&h, by, is_less, &than);
        assert_int_equal(d != NULL, found != 0);
        assert_true(!d || (d->when <= by && is_less(d->owner, &than)));
    }
}

/* A handler may set its own slot again: periodic timers do. */
static struct deadline_heap *again_heap;
static unsigned again_count;

static void expire_again(struct deadline *d)
{
    again_count++;
    if (again_count < 5)
        deadline_set(again_heap, d, again_count * 10);
}

static void test_set_from_expiry(void **state)
{
    static struct deadline_heap h;
    struct deadline d;

    again_heap = &h;
    again_count = 0;
    deadline_init(&d, expire_again);
    deadline_set(&h, &d, 5);
    expire_due(&h, 25);
    assert_int_equal(again_count, 3);
    assert_int_equal(deadline_next(&h), 30);
    expire_due(&h, 1000);
    assert_int_equal(again_count, 5);
    assert_int_equal(h.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_naive), cmocka_unit_test(test_one_that_comes_before),
                                       cmocka_unit_test(test_set_from_expiry)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
