/*
 * The daemon's end of the control ring, with the test in the hypervisor's place: who asked hears the answer, in whatever order
 * answers come.
 */
#include "dm-proxy/daemon/control.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static uint8_t *memory;
static int heard[3], last_status;

static int make_memory(void **state)
{
    (void)state;
    memory = calloc(1, METRONOME_CONTROL_SLOTS);
    control_init(memory);
    memset(pending, 0, sizeof pending);
    memset(heard, 0, sizeof heard);
    return !memory;
}

static int free_memory(void **state)
{
    (void)state;
    free(memory);
    return 0;
}

static void on_done(void *owner, int status)
{
    ++*(int *)owner;
    last_status = status;
}

/* Takes the next command out of the ring: its sequence. */
static uint32_t take(void)
{
    struct metronome_command_ring *r = (void *)(memory + METRONOME_CONTROL_COMMANDS);

    assert_int_not_equal(r->ring.consumed, r->ring.produced);
    return r->entry[r->ring.consumed++ % METRONOME_RING_ENTRIES].sequence;
}

static void complete(uint32_t sequence, int status)
{
    struct metronome_completion_ring *r = (void *)(memory + METRONOME_CONTROL_COMPLETIONS);

    r->entry[r->ring.produced++ % METRONOME_RING_ENTRIES] = (struct metronome_completion){.sequence = sequence, .status = status};
    control_receive();
}

static void test_answers_in_any_order(void **state)
{
    uint32_t first, second;

    (void)state;
    assert_true(control_send(METRONOME_CONTROL_PAUSE, 0, NULL, on_done, &heard[0]));
    assert_true(control_send(METRONOME_CONTROL_PAUSE, 1, NULL, on_done, &heard[1]));
    first = take();
    second = take();
    complete(second, -METRONOME_EBUSY);
    assert_int_equal(heard[0], 0);
    assert_int_equal(heard[1], 1);
    assert_int_equal(last_status, -METRONOME_EBUSY);
    complete(second, 0); /* once is enough */
    assert_int_equal(heard[1], 1);
    complete(first, 0);
    assert_int_equal(heard[0], 1);
}

/* One that takes long, as a DESTROY may, is in nobody's way, however many come after it. */
static void test_slow_command_does_not_block_the_ring(void **state)
{
    uint32_t slow;

    (void)state;
    assert_true(control_send(METRONOME_CONTROL_DESTROY, 0, NULL, on_done, &heard[0]));
    slow = take();
    for (unsigned i = 0; i < 10 * METRONOME_RING_ENTRIES; i++) {
        assert_true(control_send(METRONOME_CONTROL_NOP, 0, NULL, on_done, &heard[1]));
        complete(take(), 0);
    }
    assert_int_equal(heard[1], 10 * METRONOME_RING_ENTRIES);
    assert_int_equal(heard[0], 0);
    complete(slow, 0);
    assert_int_equal(heard[0], 1);
}

static void test_full_ring_takes_no_more(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRONOME_RING_ENTRIES; i++)
        assert_true(control_send(METRONOME_CONTROL_NOP, 0, NULL, NULL, NULL));
    assert_false(control_send(METRONOME_CONTROL_NOP, 0, NULL, NULL, NULL));
}

static void test_forgotten_hears_nothing(void **state)
{
    (void)state;
    assert_true(control_send(METRONOME_CONTROL_NOP, 0, NULL, on_done, &heard[2]));
    control_forget(&heard[2]);
    complete(take(), 0);
    assert_int_equal(heard[2], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers_in_any_order, make_memory, free_memory),
        cmocka_unit_test_setup_teardown(test_slow_command_does_not_block_the_ring, make_memory, free_memory),
        cmocka_unit_test_setup_teardown(test_full_ring_takes_no_more, make_memory, free_memory),
        cmocka_unit_test_setup_teardown(test_forgotten_hears_nothing, make_memory, free_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
