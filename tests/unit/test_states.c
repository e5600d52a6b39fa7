/*
 * How vCPUs run, halt, wait, stop, start and go, with the real loop of the pCPUs (hvm.c), domains, scheduler, posting and
 * requests, on a machine of threads: a guest that computes leaves only by an interrupt, so that a lost kick is a test that does
 * not end in time. Several vCPUs share a pCPU.
 */
#include "../../arch/x86/hvm/hvm.c"

#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>
#include <cmocka.h>

#define CPUS    2u
#define VCPUS   3u
#include "thread_machine.h"

#define GUESTS_IPI 0x50
#define TESTS_IPI  0x51

static volatile uint64_t acked[VCPUS];

/* ---- Guests: what they do next is chance ---- */

static void start_guest(struct vcpu *v, bool sipi, uint8_t vector)
{
    (void)sipi, (void)vector;
    v->emu.regs.rflags = 2 | RFLAGS_IF;
    v->vlapic.activity = VLAPIC_RUNNING;
    vlapic_write(&v->vlapic, 0, 0xf0, 4, 0x1ff);
}

static void acknowledge(struct vcpu *v)
{
    while (vlapic_pending(&v->vlapic) >= 0) {
        if (vlapic_ack(&v->vlapic, 0) == TESTS_IPI)
            acked[v->id]++;
        vlapic_eoi(&v->vlapic, 0);
    }
}

static bool guest_acts(struct vcpu *v)
{
    struct access a = {.address = 0x1f0, .count = 1, .size = 1, .port = true};
    unsigned what = (unsigned)rnd(8);

    acknowledge(v);
    if (what < 2) { /* computes */
        until_interrupted();
        return false;
    }
    if (what < 4)
        return halts(v);
    if (what < 6) {
        ioreq_access(v, &a, 0, false);
        return false;
    }
    vcpu_post(v->domain->vcpu[rnd(VCPUS)], GUESTS_IPI, false, METRONOME_INJECT_IPI);
    return true;
}

static void run_guest(struct vcpu *v)
{
    __atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    while (vcpu_prepare(v))
        if (!guest_acts(v))
            break;
}

static bool made(struct vcpu *v) { return v; }
static const struct vendor_ops guests = {.name = "chance", .vcpu_init = made, .vcpu_reset = start_guest, .run = run_guest, .let_in = let_in};

void ipi_send(unsigned cpu, uint8_t vector)
{
    (void)vector;
    interrupt(&machine[cpu]);
}

/* ---- Commands of the daemon, and what they lead to ---- */

static bool all_stopped(void)
{
    for (unsigned i = 0; i < VCPUS; i++)
        if (dom->vcpu[i]->state != VCPU_STOPPED)
            return false;
    return dom->paused;
}
static void halt_all(void) { domain_request(dom, ACTION_PAUSE); }
static void unpause(void) { domain_unpause(dom); }
static void unpause_and_pause(void)
{
    domain_unpause(dom);
    domain_request(dom, ACTION_PAUSE);
}
static void pause_and_end(void)
{
    domain_request(dom, ACTION_PAUSE);
    end_it();
}
static void begin_and_end(void)
{
    begin();
    end_it();
}

static uint64_t before;
static unsigned watched;
static bool has_acked(void) { return acked[watched] != before; }

static void expect_ack(unsigned v)
{
    watched = v;
    before = acked[v];
    vcpu_post(dom->vcpu[v], TESTS_IPI, rnd(2), METRONOME_INJECT_MSI);
    assert_true(in_time(has_acked));
}

static void expect_all_run(void)
{
    for (unsigned v = 0; v < VCPUS; v++)
        expect_ack(v);
}

/* ---- The tests ---- */

/* In whatever state a post finds a vCPU, it is acknowledged. */
static void test_every_post_arrives(void **state)
{
    (void)state;
    give(begin);
    for (unsigned n = 0; n < 50000; n++)
        expect_ack((unsigned)rnd(VCPUS));
    give(end_it);
    expect_gone();
}

/* Also with posts to vCPUs that stand still, and with commands that follow each other at once. */
static void test_pause_and_unpause(void **state)
{
    (void)state;
    give(begin);
    for (unsigned n = 0; n < 300; n++) {
        give(halt_all);
        assert_true(in_time(all_stopped));
        if (n & 1)
            vcpu_post(dom->vcpu[rnd(VCPUS)], GUESTS_IPI, false, METRONOME_INJECT_MSI);
        if (n & 2) {
            give(unpause_and_pause);
            assert_true(in_time(all_stopped));
        }
        give(unpause);
        expect_all_run();
    }
    give(end_it);
    expect_gone();
}

/* Unpaused while some vCPUs have stopped and others still wait for the device model's answers: they all go on. */
static void test_unpause_before_all_have_stopped(void **state)
{
    (void)state;
    give(begin);
    for (unsigned n = 0; n < 300; n++) {
        give(halt_all);
        give(unpause);
        expect_all_run();
    }
    give(end_it);
    expect_gone();
}

/* A pCPU with nothing to run takes over what another one has too much of: posts and timers find it there. */
static void test_posts_to_vcpus_that_move(void **state)
{
    unsigned seen[VCPUS] = {0}, moves = 0, last[VCPUS] = {0};

    (void)state;
    give(begin);
    for (unsigned n = 0; n < 5000 || moves < 100; n++) {
        unsigned v = (unsigned)rnd(VCPUS), cpu;

        expect_ack(v);
        cpu = vcpu_place(dom->vcpu[v]).cpu;
        moves += cpu != last[v];
        last[v] = cpu;
        seen[v] |= 1u << cpu;
    }
    for (unsigned v = 0; v < VCPUS; v++)
        assert_int_equal(seen[v], 3);
    give(end_it);
    expect_gone();
}

static void test_end_before_the_start(void **state)
{
    (void)state;
    give(end_it);
    expect_gone();
}

static void test_end_while_paused(void **state)
{
    (void)state;
    give(begin);
    expect_all_run();
    give(halt_all);
    assert_true(in_time(all_stopped));
    give(end_it);
    expect_gone();
}

/* vCPUs wait for answers that never come, on pCPUs that halt. */
static void test_end_without_answer(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 50; n++) {
        give(begin);
        expect_all_run();
        model_dead = true;
        nap(3000);
        give(end_it);
        expect_gone();
        model_dead = false;
        give(create);
    }
    give(end_it);
    expect_gone();
}

/* Ends that follow a start or a pause at once; again and again, in the same places. */
static void test_ends_at_once(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 100; n++) {
        give(begin_and_end);
        expect_gone();
        give(create);
        give(begin);
        give(pause_and_end);
        expect_gone();
        give(create);
    }
    give(end_it);
    expect_gone();
}

/* A vCPU for which there is no place is an error of the command that wants it, not a panic. */
static void fill_places(void)
{
    for (unsigned i = 0; i < CPUS; i++)
        for (unsigned k = 0; k < 40; k++)
            hvm_pcpus[i]->taken |= 1ull << (63 - k);
}
static void empty_places(void)
{
    for (unsigned i = 0; i < CPUS; i++)
        hvm_pcpus[i]->taken &= (1ull << 24) - 1;
}
static void create_second(void) { domain_make(&slots[1]); }

/* A moment that no timer can have fired for (a domain's stopped time has none, a TSC of 2^63 neither) holds no entry: the
 * pCPU would wait for it with interrupts off. */
static void test_far_deadline_holds_no_entry(void **state)
{
    uint64_t until = 0;

    (void)state;
    hvm_hold(&until, DEADLINE_UNSET);
    hvm_hold(&until, rdtsc() + 1000 * ADVANCE_MAX);
    assert_int_equal(until, 0);
    give(end_it);
    expect_gone();
}

static void test_no_room(void **state)
{
    (void)state;
    slots[1] = slots[0];
    slots[1].domain = NULL;
    ((struct metronome_domain_header *)(void *)(slots[0].memory + METRONOME_DOMAIN_HEADER))->vcpus = METRONOME_MAX_VCPUS;
    give(fill_places);
    give(create_second);
    give(empty_places);
    assert_int_equal(made_status, -METRONOME_ENOMEM);
    assert_null(slots[1].domain);
    give(end_it);
    expect_gone();
}

/* ---- One pCPU, step by step: the test's own, with vCPUs of its own ---- */

static struct vcpu *own_vcpu(unsigned local)
{
    struct vcpu *v = zeroed(sizeof(*v));

    vcpu_init(v, dom, 0);
    v->fpu = zeroed(vcpu_fpu_bytes());
    assert_true(vendor->vcpu_init(v));
    v->off_longest = &v->counts.longest_off[METRONOME_EXIT_OTHER];
    start_guest(v, false, 0);
    v->place = (struct place){CPUS, local};
    hvm_pcpus[CPUS]->local[local] = v;
    return v;
}

static void free_own_vcpu(struct vcpu *v)
{
    free(v->fpu);
    free(v);
}

static struct hvm_pcpu *begin_own(void)
{
    machine[CPUS] = (struct machine){.timer = UINT64_MAX};
    return cpus[CPUS].hvm = hvm_pcpus[CPUS] = make_pcpu(CPUS);
}

static void end_own(void)
{
    free_pages(hvm_pcpus[CPUS], 0);
    give(end_it);
    expect_gone();
}

/* Whoever is chosen to run makes way for one that was woken since the pCPU has looked: no IPI tells it. */
static void test_woken_before_the_choice(void **state)
{
    struct hvm_pcpu *p = begin_own();
    struct vcpu *runs = own_vcpu(0), *idle = own_vcpu(1);

    (void)state;
    sched_wake(runs);
    sched_block(idle, VCPU_IDLE);
    take_wakes(p);
    vcpu_post(idle, GUESTS_IPI, false, METRONOME_INJECT_MSI);
    assert_ptr_equal(sched_pick(p), runs);
    runs->state = VCPU_IN_GUEST;
    assert_false(vcpu_prepare(runs));
    free_own_vcpu(runs);
    free_own_vcpu(idle);
    end_own();
}

static void raise_irq6(struct vcpu *v)
{
    static const struct { uint16_t port; uint8_t value; } program[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0x21, 0}};

    for (unsigned i = 0; i < sizeof(program) / sizeof(program[0]); i++) {
        uint64_t value = program[i].value;

        assert_int_equal(io_port(v, program[i].port, 1, true, &value), EMU_OK);
    }
    spin_lock(&dom->chipset.lock);
    chipset_set_isa(dom, 6, true);
    spin_unlock(&dom->chipset.lock);
    vcpu_post_work(v, WORK_EXTINT);
}

/* Taking an interrupt out of the PIC posts the fall of its INT to the vCPU that is on its way in: others' posts kick it all
 * the same. */
static void test_kick_after_injection(void **state)
{
    struct vcpu *theirs = dom->vcpu[0], *v;
    int want;

    (void)state;
    begin_own();
    v = dom->vcpu[0] = own_vcpu(0);
    raise_irq6(v);
    v->state = VCPU_IN_GUEST;
    assert_true(vcpu_prepare(v));
    assert_int_equal(inject_next(v, (struct injectability){.interrupts = true}, &want).vector, 0x26);
    test_cpu = &cpus[0];
    vcpu_post(v, TESTS_IPI, false, METRONOME_INJECT_IPI);
    test_cpu = &cpus[CPUS];
    assert_true(machine[CPUS].interrupt);
    dom->vcpu[0] = theirs;
    free_own_vcpu(v);
    end_own();
}

/* An NMI that comes with the exit in an event's delivery: the event goes first, and the guest leaves again for the NMI. */
static void test_nmi_behind_an_event(void **state)
{
    struct vcpu *v;
    int want;

    (void)state;
    begin_own();
    v = own_vcpu(0);
    v->state = VCPU_IN_GUEST;
    inject_again(v, 14, EVENT_EXCEPTION, true, 0);
    v->nmi_pending = 1;
    assert_int_equal(inject_next(v, (struct injectability){.interrupts = true}, &want).vector, 14);
    assert_true(want & WANT_EXIT);
    assert_int_equal(inject_next(v, (struct injectability){.interrupts = true}, &want).type, EVENT_NMI);
    free_own_vcpu(v);
    end_own();
}

/* The entry waits for a timer's moment and lets interrupts in meanwhile: the kick that makes the guest leave again comes behind. */
static void test_kick_behind_the_wait_for_a_timer(void **state)
{
    struct hvm_pcpu *p = begin_own();
    struct vcpu *v = own_vcpu(0);

    (void)state;
    p->handled = v;
    for (unsigned leave = 0; leave < 2; leave++) {
        interrupt(&machine[CPUS]);
        hvm_hold(&v->hold_until, rdtsc() + ADVANCE_MAX);
        hvm_before_entry(v, leave);
        assert_int_equal(machine[CPUS].interrupt, leave);
    }
    free_own_vcpu(v);
    end_own();
}

/* ---- A post after each single instruction of what the vCPU's own pCPU does ---- */

static struct vcpu *stepped;
static unsigned steps_left;
#define REG_EFL 17 /* as <ucontext.h> has it under _GNU_SOURCE */

static void post_from_elsewhere(void)
{
    test_cpu = &cpus[0];
    vcpu_post(stepped, TESTS_IPI, false, METRONOME_INJECT_MSI);
    test_cpu = &cpus[CPUS];
}

static void on_step(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    if (--steps_left)
        return;
    post_from_elsewhere();
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
}

/* RSP is moved out of the way of the red zone. */
#define SET_TRAP_FLAG(op) __asm__ volatile("sub $128, %%rsp; pushfq; " op ", (%%rsp); popfq; add $128, %%rsp" : : : "memory", "cc")

static void discard(struct vcpu *v) { vcpu_discard_posts(v); }
static bool is_whole_or_gone(const struct vcpu *v) { return v->posted.on || !v->posted.pir[TESTS_IPI / 64]; }

static void go_idle(struct vcpu *v)
{
    vcpu_drain(v);
    sched_block(v, VCPU_IDLE);
}

static bool is_accepted(const struct vcpu *v) { return vlapic_pending(&v->vlapic) == TESTS_IPI; }
static bool will_be_woken(const struct vcpu *v)
{
    return is_accepted(v) || v->state == VCPU_RUNNABLE || (hvm_pcpus[CPUS]->wake && machine[CPUS].interrupt);
}

/* As svm_run() does. */
static void enter(struct vcpu *v)
{
    int want;

    __atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    this_hvm()->handled = v;
    if (vcpu_prepare(v)) {
        inject_next(v, (struct injectability){.interrupts = false}, &want);
        hvm_before_entry(v, want & WANT_EXIT);
    }
    this_hvm()->handled = NULL;
}
static bool is_in_or_kicked(const struct vcpu *v) { return is_accepted(v) || machine[CPUS].interrupt; }

struct stepping {
    void (*what)(struct vcpu *);
    bool (*right)(const struct vcpu *);
    uint32_t from;
};

/* False: it is done before that many steps. */
static bool post_after(const struct stepping *s, unsigned steps, bool another)
{
    stepped = own_vcpu(0);
    stepped->state = s->from;
    hvm_pcpus[CPUS]->wake = 0;
    if (another)
        vcpu_post(stepped, GUESTS_IPI, false, METRONOME_INJECT_MSI);
    machine[CPUS].interrupt = false;
    steps_left = steps;
    SET_TRAP_FLAG("orq $0x100");
    s->what(stepped);
    SET_TRAP_FLAG("andq $~0x100");
    assert_true(steps_left || s->right(stepped));
    free_own_vcpu(stepped);
    return !steps_left;
}

static void test_post_after_each_instruction(void **state)
{
    static const struct stepping table[] = {
        {discard, is_whole_or_gone, VCPU_STOPPED}, {vcpu_drain, will_be_woken, VCPU_RUNNABLE},
        {go_idle, will_be_woken, VCPU_RUNNABLE},   {enter, is_in_or_kicked, VCPU_RUNNABLE},
    };
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, ours;
    struct vendor_ops undisturbed = guests; /* each is stepped to from the beginning: breaths, which others test, are too many */

    (void)state;
    begin_own();
    undisturbed.let_in = NULL;
    vendor = &undisturbed;
    sigaction(SIGTRAP, &action, &ours);
    for (unsigned i = 0; i < 2 * sizeof(table) / sizeof(table[0]); i++) {
        unsigned steps = 1;

        while (post_after(&table[i / 2], steps, i & 1))
            steps++;
        printf("  %u instructions\n", steps - 1);
        assert_true(steps > 10);
    }
    sigaction(SIGTRAP, &ours, NULL);
    vendor = &guests;
    end_own();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_every_post_arrives),
        TEST(test_pause_and_unpause),
        TEST(test_unpause_before_all_have_stopped),
        TEST(test_posts_to_vcpus_that_move),
        TEST(test_end_before_the_start),
        TEST(test_end_while_paused),
        TEST(test_end_without_answer),
        TEST(test_ends_at_once),
        TEST(test_far_deadline_holds_no_entry),
        TEST(test_no_room),
        TEST(test_woken_before_the_choice),
        TEST(test_kick_after_injection),
        TEST(test_nmi_behind_an_event),
        TEST(test_kick_behind_the_wait_for_a_timer),
        TEST(test_post_after_each_instruction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
