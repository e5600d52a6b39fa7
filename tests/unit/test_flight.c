/*
 * The flight recorder, on a clock of the test's own: which interrupts are kept, and that their exits are those before them, in their
 * order; who had the pCPU; and that a copy that is being written is told from a whole one.
 */
#include "../../arch/x86/hvm/flight.c"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define VCPUS 3u
#define INTERRUPTS 400u

__thread struct pcpu *test_cpu;
unsigned pcpu_count = 1;
uint64_t tsc_hz = 1000000000;
uint32_t trace_groups;
struct cpu_features cpu_features;
static uint64_t now, step; /* of the clock, each time that somebody looks */
static unsigned breaths, breaths_amid;
static struct metronome_late *watched;

uint64_t simulated_rdtsc(void) { return now += step; }
static void let_in(struct vcpu *v) { (void)v; }
static const struct vendor_ops letting = {.let_in = let_in};
const struct vendor_ops *vendor = &letting;
void panic(const char *format, ...) { puts(format), abort(); }
void hvm_await(struct hvm_pcpu *p, struct vcpu *v, uint64_t until) { (void)p, (void)v, (void)until; }
void ipi_send(unsigned cpu, uint8_t vector) { (void)cpu, (void)vector; }

/* Others look at the copy meanwhile. */
void hvm_take_breath(struct hvm_pcpu *p)
{
    p->off_since = now;
    breaths++;
    for (unsigned i = 0; i < METRONOME_LATE_KEPT; i++)
        breaths_amid += watched[i].begun != watched[i].done;
}

static struct metronome_latency ledger;
static struct domain d;
static struct vcpu vcpu[VCPUS];
static struct slot slot = {.index = 2};
static struct pcpu cpu;
static struct hvm_pcpu p;
static struct metronome_exit_record made[VCPUS][1 << 16]; /* all exits, as the test has made them */
static unsigned exits[VCPUS];

static int new_machine(void **state)
{
    (void)state;
    memset(&ledger, 0, sizeof(ledger));
    memset(&d, 0, sizeof(d));
    memset(vcpu, 0, sizeof(vcpu));
    memset(exits, 0, sizeof(exits));
    p = (struct hvm_pcpu){.id = 3, .exit_begins = METRONOME_EXIT_OTHER | 3 << 8};
    cpu.hvm = &p;
    test_cpu = &cpu;
    now = 1ull << 50;
    step = 0;
    breaths = breaths_amid = 0;
    d = (struct domain){.slot = &slot, .latency = &ledger, .time.tsc_offset = 12345};
    watched = ledger.late[METRONOME_LATENCY_OF_MSI];
    for (unsigned i = 0; i < VCPUS; i++)
        vcpu[i] = (struct vcpu){.domain = &d, .id = i, .latency = {.ledger = &ledger, .bar = d.late.bar}};
    return 0;
}

static void leave(struct vcpu *v, unsigned reason)
{
    now += 1 + below(500);
    made[v->id][exits[v->id]] = (struct metronome_exit_record){.rip = random64(), .left = now, .reason = (uint8_t)reason, .cpu = 3};
    hvm_after_exit(v, made[v->id][exits[v->id]].rip);
    count_exit(v, reason);
}

static void enter(struct vcpu *v)
{
    now += 1 + below(2000);
    made[v->id][exits[v->id]++].entered = now;
    hvm_before_entry(v, false);
}

/* As the loop does; from what has been made up, the test's own account. */
static void run(struct vcpu *v, unsigned n)
{
    uint64_t from = now;

    flight_picked(&p, v);
    while (n--) {
        enter(v);
        leave(v, (unsigned)below(METRONOME_EXIT_COUNT));
    }
    v->counts.run_ticks += now - from;
    flight_ran(&p, v);
}

/* Injected behind the exit that is handled, and `late`. */
static void inject(struct vcpu *v, unsigned source, uint64_t late)
{
    bool timer = source == METRONOME_LATENCY_OF_LAPIC;
    uint64_t entry;

    flight_picked(&p, v);
    now += 2000;
    entry = now + d.time.tsc_offset;
    latency_posted(&v->latency, 0x40, source, timer ? entry - late : 0, entry - (timer ? late / 2 : late));
    latency_acknowledged(&v->latency, 0x40);
    made[v->id][exits[v->id]++].entered = now;
    hvm_before_entry(v, false);
    assert_true(!v->latency.late || p.resched);
    leave(v, METRONOME_EXIT_INTERRUPT);
    flight_ran(&p, v);
    assert_int_equal(v->latency.late, 0);
}

static int downwards(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

static int by_ticks(const void *a, const void *b)
{
    return downwards(&((const struct metronome_late *)a)->ticks, &((const struct metronome_late *)b)->ticks);
}

static void expect_kept(unsigned source, uint64_t *late, unsigned n)
{
    struct metronome_late *kept = ledger.late[source];

    qsort(late, n, sizeof(*late), downwards);
    qsort(kept, METRONOME_LATE_KEPT, sizeof(*kept), by_ticks);
    for (unsigned i = 0; i < METRONOME_LATE_KEPT; i++) {
        assert_int_equal(kept[i].ticks, i < n ? late[i] : 0);
        assert_int_equal(kept[i].begun, kept[i].done);
    }
}

/* Found by sorting all of them. */
static void test_the_latest_are_kept(void **state)
{
    static uint64_t late[2][INTERRUPTS];
    unsigned n[2] = {0, 0};

    (void)state;
    for (unsigned i = 0; i < VCPUS; i++)
        leave(&vcpu[i], METRONOME_EXIT_OTHER); /* as if it had been in the guest */
    for (unsigned i = 0; i < INTERRUPTS; i++) {
        unsigned k = (unsigned)below(2);
        uint64_t v = late[k][n[k]++] = 1 + below(1ull << below(40));

        run(&vcpu[below(VCPUS)], (unsigned)below(100));
        inject(&vcpu[below(VCPUS)], k ? METRONOME_LATENCY_OF_LAPIC : METRONOME_LATENCY_OF_MSI, v);
    }
    assert_true(n[0] > 4 && n[1] > 4);
    expect_kept(METRONOME_LATENCY_OF_MSI, late[0], n[0]);
    expect_kept(METRONOME_LATENCY_OF_LAPIC, late[1], n[1]);
    assert_int_equal(ledger.late[METRONOME_LATENCY_OF_PIT][0].ticks, 0);
}

/* Whatever number of exits there have been: the last of the copy is that behind which it was injected. */
static void test_the_exits_before_it(void **state)
{
    const struct metronome_late *l = &ledger.late[METRONOME_LATENCY_OF_LAPIC][0];

    for (unsigned before = 0; before < 200; before++) {
        struct vcpu *v = &vcpu[1];
        unsigned last;

        new_machine(state);
        leave(v, METRONOME_EXIT_OTHER);
        run(v, before);
        last = exits[1];
        inject(v, METRONOME_LATENCY_OF_LAPIC, 700);
        assert_true(l->ticks == 700 && l->vcpu == 1 && l->vector == 0x40 && l->source == METRONOME_LATENCY_OF_LAPIC);
        assert_true(l->entered - l->due == 700 && l->entered - l->posted == 350 && l->entered == made[1][last].entered);
        for (unsigned i = 0; i < METRONOME_LATE_EXITS; i++) {
            const struct metronome_exit_record *e = &l->exit[METRONOME_LATE_EXITS - 1 - i], *m = &made[1][i > last ? 0 : last - i];

            if (i > last)
                assert_true(!e->left && !e->entered);
            else
                assert_true(e->rip == m->rip && e->left == m->left && e->entered == m->entered && e->reason == m->reason && e->cpu == 3);
        }
    }
}

/* A copy is not whole while it is written, and interrupts come in then. */
static void test_amid_a_copy(void **state)
{
    (void)state;
    leave(&vcpu[0], METRONOME_EXIT_OTHER);
    p.breath_after = 250;
    step = 300;
    inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, 100000);
    assert_int_equal(breaths, METRONOME_LATE_EXITS / AT_A_TIME);
    assert_int_equal(breaths_amid, breaths);
    assert_int_equal(watched[0].begun, watched[0].done);
}

/* Another vCPU had the pCPU right before: it is named, with the time that others had. Behind a pause nobody is. */
static void test_who_had_the_cpu(void **state)
{
    const struct metronome_late *l = &ledger.late[METRONOME_LATENCY_OF_MSI][0];
    const struct metronome_exit_record *last = &l->exit[METRONOME_LATE_EXITS - 1];
    uint64_t others;

    (void)state;
    for (unsigned i = 0; i < VCPUS; i++)
        leave(&vcpu[i], METRONOME_EXIT_HLT);
    run(&vcpu[0], 3);
    run(&vcpu[1], 5);
    run(&vcpu[2], 7);
    others = vcpu[1].counts.run_ticks + vcpu[2].counts.run_ticks;
    inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, 1000);
    assert_int_equal(last->other, METRONOME_VCPU_ID(2, 2));
    assert_int_equal(last->other_ticks, others);
    assert_true(!l->exit[METRONOME_LATE_EXITS - 2].other && !l->exit[METRONOME_LATE_EXITS - 2].other_ticks);
    flight_forget(&d);
    run(&vcpu[1], 5);
    flight_idles(&p);
    inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, 1000);
    assert_true(!last->other && !last->other_ticks);
    flight_forget(&d);
    run(&vcpu[1], 5);
    flight_idles(&p);
    others = vcpu[1].counts.run_ticks;
    run(&vcpu[1], 5);
    others = vcpu[1].counts.run_ticks - others;
    inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, 1000);
    assert_true(last->other == METRONOME_VCPU_ID(2, 1) && last->other_ticks == others);
}

static void test_forgotten(void **state)
{
    uint64_t late = 3;

    (void)state;
    leave(&vcpu[0], METRONOME_EXIT_OTHER);
    for (unsigned i = 0; i < 10; i++)
        inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, 1000 + i);
    flight_forget(&d);
    expect_kept(METRONOME_LATENCY_OF_MSI, &late, 0);
    inject(&vcpu[0], METRONOME_LATENCY_OF_MSI, late);
    expect_kept(METRONOME_LATENCY_OF_MSI, &late, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_latest_are_kept, new_machine), cmocka_unit_test_setup(test_the_exits_before_it, new_machine),
        cmocka_unit_test_setup(test_amid_a_copy, new_machine),         cmocka_unit_test_setup(test_who_had_the_cpu, new_machine),
        cmocka_unit_test_setup(test_forgotten, new_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
