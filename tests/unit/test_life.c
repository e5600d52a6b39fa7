/*
 * Domains come and go without a trace: whatever is made, restored, reset, saved, ended or refused, at whatever point, every
 * page comes back, the slot is free and the pCPU knows nothing of it. What takes long is done in parts, between which
 * commands come and other guests run. On fabric_machine.h's whole domains.
 */
#include "fabric_machine.h"

#include <setjmp.h>
#include <cmocka.h>

static void violated(const char *what, const char *condition)
{
    fail_msg("%s: %s", what, condition);
}

/* Kept by the pCPU alone. */
#define PAGES_AT_REST 1u

static uint64_t free_bytes(void)
{
    return ((const struct metronome_control_header *)(const void *)control_memory)->free_bytes;
}

static struct metronome_slot_status *status(unsigned slot)
{
    return status_of_slot(&slots[slot]);
}

static void expect_nothing_left(unsigned slot)
{
    assert_null(slots[slot].domain);
    assert_int_equal(status(slot)->state, METRONOME_SLOT_FREE);
    assert_true(is_idle(this_hvm()));
    assert_int_equal(pages_out, PAGES_AT_REST);
    assert_int_equal(free_bytes(), (total_page_count() - PAGES_AT_REST) * PAGE_SIZE);
}

/* Time goes by with each look at it: a batch of work is one part. */
static void work_by_parts(bool parts)
{
    tsc_per_look = parts ? tsc_hz / 10000 : 0;
}

static int set_up(void **state)
{
    (void)state;
    boot_once();
    work_by_parts(false);
    allocation_fails = 0;
    twin_now = &twins[0];
    for (unsigned i = 0; i < TWINS; i++)
        twins[i].outputs = 0;
    expect_nothing_left(0);
    return 0;
}

static int create(unsigned slot, unsigned vcpus, bool has_dm)
{
    fill_slot(&slots[slot], vcpus, has_dm);
    return control_command(&slots[slot], METRONOME_CONTROL_CREATE, 0, 0);
}

static void start_slot(unsigned slot)
{
    start_with_dm(&twins[slot]);
    assert_int_equal(status(slot)->state, METRONOME_SLOT_RUNNING);
}

static void run_a_while(unsigned slot)
{
    static const struct operation programs[] = {{RECIPE, 0, 4, 0}, {RECIPE, 0, 11, 3}, {PORT_OUT, 0, 3, 7}, {COUNT, 0, 0, 1}};

    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]) && !over(slots[slot].domain); i++)
        step_twin(&twins[slot], &programs[i]);
}

/* ---- Cycles ---- */

static void test_cycles(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3000; n++) {
        assert_int_equal(create(0, 1 + n % 4, n & 4), 0);
        if (n & 8)
            start_slot(0);
        if ((n & 24) == 24)
            run_a_while(0);
        destroy(&slots[0]);
        expect_nothing_left(0);
    }
}

/* ---- Ends of every kind ---- */

static void triple_fault(unsigned slot)
{
    exit_triple_fault(slots[slot].domain->vcpu[0]);
}

static void crash(unsigned slot)
{
    exit_crash(slots[slot].domain->vcpu[0], "a test wants it");
}

static void overrun_ring(unsigned slot)
{
    ((struct metronome_command_ring *)(void *)(slots[slot].memory + METRONOME_DOMAIN_COMMANDS))->ring.produced += 1000;
    slot_rung(&slots[slot]);
}

static void power_off(unsigned slot)
{
    dm_command(&twins[slot], METRONOME_DM_SHUTDOWN, METRONOME_SHUTDOWN_POWEROFF, 0, 0);
}

static void wait_for_answer(unsigned slot)
{
    static const struct operation o = {PORT_ANY, 0, 0x1f0, 0};

    step_twin(&twins[slot], &o);
    assert_true(slots[slot].domain->vcpu[0]->io.waiting);
}

static void request_reset(unsigned slot)
{
    assert_int_equal(control_command(&slots[slot], METRONOME_CONTROL_RESET, 0, 0), 0);
}

/* An APIC over RAM has a view of its own, and tables have been retired. */
static void move_apic_and_tables(unsigned slot)
{
    struct domain *d = slots[slot].domain;
    struct vcpu *v = d->vcpu[0];

    assert_true(msr_write(v, MSR_APIC_BASE, 0x100000 | 0x900));
    vcpu_new_root(v);
    assert_non_null(v->view);
    dm_command(&twins[slot], METRONOME_DM_MAP, 0x40000, 0, 512);
    dm_command(&twins[slot], METRONOME_DM_MAP, 0x40000, 4096, 1);
    v->state = VCPU_IN_GUEST; /* with old translations: what is replaced now cannot be freed yet */
    dm_command(&twins[slot], METRONOME_DM_MAP, 0x40000, 0, 512);
    assert_non_null(d->p2m.retired);
    v->state = VCPU_RUNNABLE;
}

static void test_every_end(void **state)
{
    static void (*const ends[])(unsigned slot) = {triple_fault, crash, overrun_ring, power_off, wait_for_answer, request_reset,
                                                  move_apic_and_tables};
    (void)state;
    for (unsigned n = 0; n < 50 * sizeof(ends) / sizeof(ends[0]); n++) {
        assert_int_equal(create(0, 1 + n % 3, true), 0);
        start_slot(0);
        ends[n % (sizeof(ends) / sizeof(ends[0]))](0);
        settle();
        destroy(&slots[0]);
        expect_nothing_left(0);
    }
}

/* ---- Memory that runs out ---- */

/* Every allocation of a creation fails once; `make` says with what status. How many there are. */
static unsigned fail_each(int (*make)(void))
{
    for (unsigned n = 1;; n++) {
        int error;

        allocation_fails = n;
        error = make();
        if (!error) {
            assert_true(allocation_fails);
            allocation_fails = 0;
            destroy(&slots[0]);
            expect_nothing_left(0);
            return n - 1;
        }
        allocation_fails = 0;
        assert_int_equal(error, -METRONOME_ENOMEM);
        expect_nothing_left(0);
    }
}

static int make_with_dm(void) { return create(0, 3, true); }
static int make_without_dm(void) { return create(0, 2, false); }
static int make_saved(void) { return restore(&twins[0]); }

static void test_every_allocation_fails(void **state)
{
    unsigned with, without;

    (void)state;
    with = fail_each(make_with_dm);
    without = fail_each(make_without_dm);
    print_message("allocations: %u with a device model and 3 vCPUs, %u without and 2\n", with, without);
    assert_true(with >= 1 + 4 + 3 * 3 && without >= 1 + 4 + 1 + 2 * 3);
}

static void test_every_allocation_of_a_restore_fails(void **state)
{
    (void)state;
    assert_int_equal(create(0, 2, true), 0);
    start_slot(0);
    run_a_while(0);
    answer_all(&twins[0]);
    save(&twins[0]);
    destroy(&slots[0]);
    assert_true(fail_each(make_saved) > 12);
}

/* A view for an APIC over RAM is its guest's alone to want: it ends, and all comes back. */
static void test_no_memory_for_a_view(void **state)
{
    struct vcpu *v;

    (void)state;
    assert_int_equal(create(0, 2, true), 0);
    start_slot(0);
    v = slots[0].domain->vcpu[0];
    assert_true(msr_write(v, MSR_APIC_BASE, 0x100000 | 0x900));
    allocation_fails = 1;
    vcpu_new_root(v);
    allocation_fails = 0;
    settle();
    assert_int_equal(status(0)->reason, METRONOME_END_CRASH);
    destroy(&slots[0]);
    expect_nothing_left(0);
}

/* ---- Descriptions that cannot be ---- */

static int create_with(void (*spoil)(struct metronome_domain_header *h))
{
    fill_slot(&slots[0], 1, true);
    spoil((void *)slots[0].memory);
    return control_command(&slots[0], METRONOME_CONTROL_CREATE, 0, 0);
}

#define BAD_HEADERS(X) \
    X(magic, EINVAL, h->magic++) \
    X(version, EVERSION, h->version++) \
    X(no_vcpus, EINVAL, h->vcpus = 0) \
    X(vcpus, EINVAL, h->vcpus = METRONOME_MAX_VCPUS + 1) \
    X(places, ENOMEM, h->vcpus = METRONOME_MAX_VCPUS) /* one is taken */ \
    X(no_cores, EINVAL, h->cores = 0) \
    X(cores, EINVAL, h->cores = 2) \
    X(cores_uneven, EINVAL, (h->vcpus = 4, h->cores = 3)) \
    X(cores_of_gaps, EINVAL, (h->vcpus = 6, h->cores = 3)) \
    X(cores_wrap, EINVAL, (h->vcpus = 2, h->cores = UINT32_MAX)) \
    X(zero, EINVAL, h->zero = 1) \
    X(no_ram, EINVAL, h->ram_low = h->extra = 0) \
    X(ram_low, EINVAL, h->ram_low = METRONOME_RAM_LOW_MAX + LARGE_PAGE_SIZE) \
    X(ram_aligned, EINVAL, (h->ram_low += PAGE_SIZE, h->extra += PAGE_SIZE)) \
    X(ram_high, EINVAL, (h->ram_high = 1ull << 40, h->extra += 1ull << 40)) \
    X(ram_high_wraps, EINVAL, (h->ram_high = ~(LARGE_PAGE_SIZE - 1), h->extra += h->ram_high)) \
    X(extra, EINVAL, h->extra -= LARGE_PAGE_SIZE) \
    X(extra_bytes, EINVAL, h->extra_bytes = UINT64_MAX) \
    X(ticks, EINVAL, h->ticks = UINT32_MAX) \
    X(no_firmware, EINVAL, h->firmware_bytes = 0) \
    X(firmware, EINVAL, h->firmware = UINT64_MAX & ~(PAGE_SIZE - 1)) \
    X(firmware_aligned, EINVAL, h->firmware++) \
    X(firmware_bytes, EINVAL, h->firmware_bytes = 1 << 21) \
    X(module, EINVAL, (h->flags = 0, h->module = UINT64_MAX)) \
    X(initrd, EINVAL, (h->flags = 0, h->initrd_bytes = UINT64_MAX)) \
    X(no_image, ENOEXEC, (h->flags = 0, h->module_bytes = 0)) \
    X(zeros, ENOEXEC, (h->flags = 0, h->module = 0x100000))

#define X(name, error, wrong) static void spoil_##name(struct metronome_domain_header *h) { wrong; }
BAD_HEADERS(X)
#undef X

static void test_bad_headers(void **state)
{
    static const struct {
        const char *name;
        int error;
        void (*spoil)(struct metronome_domain_header *h);
    } bad[] = {
#define X(name, error, wrong) {#name, -METRONOME_##error, spoil_##name},
        BAD_HEADERS(X)
#undef X
    };

    (void)state;
    assert_int_equal(create(1, 1, true), 0); /* nothing else suffers */
    start_slot(1);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        unsigned before = pages_out;
        int error = create_with(bad[i].spoil);

        if (error != bad[i].error)
            fail_msg("%s: %d where it should be %d", bad[i].name, error, bad[i].error);
        assert_null(slots[0].domain);
        assert_int_equal(pages_out, before);
        assert_int_equal(status(0)->state, METRONOME_SLOT_FREE);
        run_a_while(1);
    }
    destroy(&slots[1]);
    expect_nothing_left(0);
}

/* ---- Commands between the parts ---- */

/* Completions in the order in which they came. */
static struct metronome_completion completion_at(uint32_t n)
{
    const struct metronome_completion_ring *r = (void *)(control_memory + METRONOME_CONTROL_COMPLETIONS);

    return r->entry[n % METRONOME_RING_ENTRIES];
}

static uint32_t completed(void)
{
    return ((const struct metronome_completion_ring *)(void *)(control_memory + METRONOME_CONTROL_COMPLETIONS))->ring.produced;
}

static void send(unsigned slot, uint32_t op)
{
    struct metronome_command_ring *r = (void *)(control_memory + METRONOME_CONTROL_COMMANDS);

    r->entry[r->ring.produced % METRONOME_RING_ENTRIES] =
        (struct metronome_command){.op = op, .sequence = op, .flags = METRONOME_COMMAND_COMPLETE, .args = {slot}};
    r->ring.produced++;
    hvm_attention(0, ATTENTION_CONTROL);
}

/* One time round the pCPU's loop, as far as it is not guests. */
static void round_of_work(void)
{
    hvm_attention(0, ATTENTION_WORK);
    give_attention(this_hvm());
    take_wakes(this_hvm());
}

/* The completions since `from`, each of one op once; the statuses by op. */
static void expect_statuses(uint32_t from, unsigned n, int *by_op)
{
    assert_int_equal(completed() - from, n);
    for (unsigned i = 0; i < n; i++)
        by_op[completion_at(from + i).sequence] = completion_at(from + i).status;
}

/* DESTROY in every part of a creation: both are completed, and nothing is left. */
static void destroy_while_making(unsigned vcpus, bool has_dm)
{
    unsigned parts = 0;

    for (bool in_time = true; in_time; parts++) {
        uint32_t before = completed();
        int by_op[16] = {0};

        fill_slot(&slots[0], vcpus, has_dm);
        send(0, METRONOME_CONTROL_CREATE);
        give_attention(this_hvm());
        for (unsigned n = 0; n < parts && domain_in_progress(&slots[0]); n++)
            round_of_work();
        in_time = domain_in_progress(&slots[0]);
        send(0, METRONOME_CONTROL_DESTROY);
        settle();
        expect_statuses(before, 2, by_op);
        assert_int_equal(by_op[METRONOME_CONTROL_CREATE], 0);
        assert_int_equal(by_op[METRONOME_CONTROL_DESTROY], 0);
        expect_nothing_left(0);
    }
    print_message("destroyed behind each of %u parts of making %u vCPUs\n", parts - 1, vcpus);
    assert_true(parts > 400);
}

static void test_destroy_while_making(void **state)
{
    (void)state;
    work_by_parts(true);
    destroy_while_making(2, true);
    destroy_while_making(1, false);
    work_by_parts(false);
}

/* Other commands for a slot with whose domain something is under way are refused, and what is under way goes on. */
static void test_busy(void **state)
{
    static const uint32_t refused_while_making[] = {METRONOME_CONTROL_CREATE, METRONOME_CONTROL_RESTORE, METRONOME_CONTROL_SAVE,
                                                    METRONOME_CONTROL_PAUSE, METRONOME_CONTROL_UNPAUSE, METRONOME_CONTROL_RESET,
                                                    METRONOME_CONTROL_NMI, METRONOME_CONTROL_POWER_BUTTON};

    (void)state;
    for (unsigned i = 0; i < sizeof(refused_while_making) / sizeof(uint32_t); i++) {
        for (unsigned when = 0; when < 2; when++) { /* while it is made; while it is taken apart */
            uint32_t before = completed(), op = refused_while_making[i];

            fill_slot(&slots[0], 2, true);
            if (when)
                assert_int_equal(control_command(&slots[0], METRONOME_CONTROL_CREATE, 0, 0), 0);
            before += when;
            work_by_parts(true);
            send(0, when ? METRONOME_CONTROL_DESTROY : METRONOME_CONTROL_CREATE);
            while (!domain_in_progress(&slots[0]) || !slots[0].domain)
                round_of_work();
            send(0, op);
            round_of_work();
            work_by_parts(false);
            assert_int_equal(completed() - before, 1);
            assert_int_equal(completion_at(before).status, -METRONOME_EBUSY);
            settle();
            assert_int_equal(completed() - before, 2);
            assert_int_equal(completion_at(before + 1).status, 0);
            if (!when)
                destroy(&slots[0]);
            expect_nothing_left(0);
        }
    }
}

/* A second DESTROY has nothing of its own to do; one of a slot that is free finds nothing. */
static void test_destroy_twice(void **state)
{
    uint32_t before;

    (void)state;
    assert_int_equal(create(0, 1, true), 0);
    before = completed();
    work_by_parts(true);
    send(0, METRONOME_CONTROL_DESTROY);
    send(0, METRONOME_CONTROL_DESTROY);
    give_attention(this_hvm());
    work_by_parts(false);
    settle();
    assert_int_equal(completion_at(before).status, -METRONOME_EBUSY);
    assert_int_equal(completion_at(before + 1).status, 0);
    assert_int_equal(control_command(&slots[0], METRONOME_CONTROL_DESTROY, 0, 0), -METRONOME_ENOENT);
    expect_nothing_left(0);
}

/* A domain that is being reset, its device model done. */
static void begin_reset_of(unsigned slot)
{
    struct domain *d = slots[slot].domain;

    if (d->has_dm) {
        dm_command(&twins[slot], METRONOME_DM_SHUTDOWN, METRONOME_SHUTDOWN_REBOOT, 0, 0);
        assert_true(d->paused && d->resetting);
        work_by_parts(true);
        ((struct metronome_command_ring *)(void *)(slots[slot].memory + METRONOME_DOMAIN_COMMANDS))->entry[
            d->commands_consumed % METRONOME_RING_ENTRIES] = (struct metronome_command){.op = METRONOME_DM_RESET_DONE};
        ((struct metronome_command_ring *)(void *)(slots[slot].memory + METRONOME_DOMAIN_COMMANDS))->ring.produced++;
        slot_rung(&slots[slot]);
    } else {
        work_by_parts(true);
        send(slot, METRONOME_CONTROL_RESET);
    }
    while (!domain_in_progress(&slots[slot])) {
        give_attention(this_hvm());
        take_wakes(this_hvm());
    }
}

/* DESTROY, PAUSE and UNPAUSE, the button, and another reset in every part of a reset. */
static void test_commands_while_resetting(void **state)
{
    static const uint32_t commands[] = {METRONOME_CONTROL_DESTROY, METRONOME_CONTROL_PAUSE, METRONOME_CONTROL_UNPAUSE,
                                        METRONOME_CONTROL_RESET, METRONOME_CONTROL_SAVE, METRONOME_CONTROL_POWER_BUTTON};
    unsigned parts = 0;

    (void)state;
    for (bool in_time = true; in_time; parts++)
        for (unsigned i = 0; i < 2 * sizeof(commands) / sizeof(uint32_t); i++) {
            uint32_t op = commands[i / 2];

            assert_int_equal(create(0, 2, i & 1), 0);
            start_slot(0);
            begin_reset_of(0);
            for (unsigned n = 0; n < parts && domain_in_progress(&slots[0]); n++)
                round_of_work();
            in_time = domain_in_progress(&slots[0]);
            send(0, op);
            round_of_work();
            work_by_parts(false);
            settle();
            if (op != METRONOME_CONTROL_DESTROY) {
                assert_int_equal(slots[0].domain->resets >= 1, 1);
                if (in_time)
                    assert_int_equal(status(0)->state, METRONOME_SLOT_RUNNING);
                destroy(&slots[0]);
            }
            expect_nothing_left(0);
        }
    print_message("commands in each of %u parts of a reset\n", parts - 1);
    assert_true(parts > 10);
}

/* DESTROY, and the reset button, in every part of a saving. */
static void test_commands_while_saving(void **state)
{
    static const uint32_t commands[] = {METRONOME_CONTROL_DESTROY, METRONOME_CONTROL_RESET, METRONOME_CONTROL_UNPAUSE};
    unsigned parts = 0;

    (void)state;
    for (bool in_time = true; in_time; parts++)
        for (unsigned i = 0; i < sizeof(commands) / sizeof(uint32_t); i++) {
            uint32_t before;
            int by_op[16] = {0};

            assert_int_equal(create(0, 2, false), 0);
            run_a_while(0);
            pause_domain(&twins[0]);
            before = completed();
            work_by_parts(true);
            send(0, METRONOME_CONTROL_SAVE);
            give_attention(this_hvm());
            for (unsigned n = 0; n < parts && domain_in_progress(&slots[0]); n++)
                round_of_work();
            in_time = domain_in_progress(&slots[0]);
            send(0, commands[i]);
            round_of_work();
            work_by_parts(false);
            settle();
            expect_statuses(before, 2, by_op);
            assert_int_equal(by_op[commands[i]], 0);
            if (commands[i] == METRONOME_CONTROL_DESTROY)
                assert_int_equal(by_op[METRONOME_CONTROL_SAVE], 0);
            else
                assert_true(by_op[METRONOME_CONTROL_SAVE] == 0 || (in_time && by_op[METRONOME_CONTROL_SAVE] == -METRONOME_EBUSY));
            if (slots[0].domain) {
                assert_int_equal(status(0)->state, METRONOME_SLOT_RUNNING);
                destroy(&slots[0]);
            }
            expect_nothing_left(0);
        }
    assert_true(parts > 20);
}

/* ---- Others meanwhile ---- */

/* While a domain is made, reset and taken apart, another one on the same pCPU has its turn between any two parts. */
static void test_others_run_meanwhile(void **state)
{
    struct hvm_pcpu *p = this_hvm();
    unsigned turns = 0;

    (void)state;
    assert_int_equal(create(1, 1, true), 0);
    start_slot(1);
    fill_slot(&slots[0], 2, true);
    work_by_parts(true);
    send(0, METRONOME_CONTROL_CREATE);
    give_attention(p);
    for (unsigned n = 0; n < 100; n++) {
        while (!p->attention) { /* until the guests' turn is over */
            tsc = deadline_next(&p->deadlines);
            run_timer(p);
        }
        give_attention(p);
        take_wakes(p);
        assert_int_equal(p->attention & ATTENTION_WORK, 0);
        assert_true(p->runnable);
        turns++;
    }
    assert_true(domain_in_progress(&slots[0]));
    work_by_parts(false);
    settle();
    assert_int_equal(turns, 100);
    destroy(&slots[0]);
    destroy(&slots[1]);
    expect_nothing_left(0);
}

/* Domains of several slots are made and taken apart side by side. */
static void test_side_by_side(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 50; n++) {
        uint32_t before = completed();

        work_by_parts(n & 1);
        for (unsigned i = 0; i < TWINS; i++) {
            fill_slot(&slots[i], 1 + (n + i) % 4, i & 1);
            send(i, METRONOME_CONTROL_CREATE);
        }
        for (unsigned i = 0; i < n; i++)
            round_of_work();
        for (unsigned i = 0; i < TWINS; i++)
            send(i, METRONOME_CONTROL_DESTROY);
        settle();
        assert_int_equal(completed() - before, 2 * TWINS);
        work_by_parts(false);
        for (unsigned i = 0; i < TWINS; i++)
            expect_nothing_left(i);
    }
}

/* The daemon chooses what is traced; what is off is not, and who runs is said anew. */
static void test_trace_by_command(void **state)
{
    const struct metronome_trace *t = (const void *)(control_memory + METRONOME_CONTROL_TRACE);
    uint64_t produced = t->ring[0].produced;

    (void)state;
    assert_int_equal(create(0, 1, false), 0);
    start_slot(0);
    run_a_while(0);
    assert_int_equal(t->ring[0].produced, produced);
    assert_int_equal(control_command(&slots[0], METRONOME_CONTROL_SET_TRACE, METRONOME_TRACE_HVM | METRONOME_TRACE_SCHED, 0), 0);
    assert_int_equal(t->mask, METRONOME_TRACE_HVM | METRONOME_TRACE_SCHED);
    run_a_while(0);
    assert_true(t->ring[0].produced > produced);
    assert_int_equal(control_command(&slots[0], METRONOME_CONTROL_SET_TRACE, 0, 0), 0);
    produced = t->ring[0].produced;
    run_a_while(0);
    assert_int_equal(t->ring[0].produced, produced);
    destroy(&slots[0]);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cycles),
        TEST(test_every_end),
        TEST(test_every_allocation_fails),
        TEST(test_every_allocation_of_a_restore_fails),
        TEST(test_no_memory_for_a_view),
        TEST(test_bad_headers),
        TEST(test_destroy_while_making),
        TEST(test_busy),
        TEST(test_destroy_twice),
        TEST(test_commands_while_resetting),
        TEST(test_commands_while_saving),
        TEST(test_others_run_meanwhile),
        TEST(test_side_by_side),
        TEST(test_trace_by_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
