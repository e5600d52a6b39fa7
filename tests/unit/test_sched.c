/*
 * The scheduler, with pCPUs that are only clocks: time passes from one event to the next, so runs are exact. vCPUs compute
 * in bursts and sleep in between, as a table says or as chance wants it; what each gets, and how soon, is held against
 * what sched.c promises.
 */
#include "../../arch/x86/hvm/sched.c"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define CPUS 4u
#define ACTORS 24u
#define MS 1000000ul /* TSC ticks */
#define FOR_EVER UINT64_MAX

__thread struct pcpu *test_cpu;
unsigned pcpu_count;
uint64_t tsc_hz = 1000000000;
struct hvm_pcpu *hvm_pcpus[MAX_PCPUS];

static struct hvm_pcpu cpus[CPUS];
static struct actor {
    struct vcpu v;
    uint64_t burst, sleep; /* how long it computes, then sleeps; FOR_EVER: without end */
    bool spins;            /* its computing is waiting: it pauses all the time */
    bool stormed;          /* an interrupt comes whenever its pCPU looks */
    uint64_t left, wakes_at;
    uint64_t waits_since, longest_wait, waits, all_waits; /* from a wake-up until it runs */
} actors[ACTORS];
static struct vcpu *running[CPUS];
static bool kicked[CPUS];
static unsigned count;
static uint64_t now, moves, idle_beside_work, longest_idle_beside_work;

uint64_t simulated_rdtsc(void) { return now; }
void deadline_arm(struct deadline *d, uint64_t host_tsc) { d->when = host_tsc; }
void deadline_set(struct deadline_heap *h, struct deadline *d, uint64_t when) { (void)h, d->when = when; }
static const struct vendor_ops no_vendor; /* which lets nobody in */
const struct vendor_ops *vendor = &no_vendor;
void hvm_take_breath(struct hvm_pcpu *p) { (void)p; }
void trace_runstate(struct vcpu *v, unsigned runstate) { (void)v, (void)runstate; }
void trace_forget(struct hvm_pcpu *p, struct vcpu *v) { (void)p, (void)v; }
void panic(const char *format, ...) { puts(format), abort(); }

static struct actor *of(struct vcpu *v) { return (struct actor *)v; }

/* The one that has moved arrives at once. */
void vcpu_look_at(struct place at)
{
    struct vcpu *v = hvm_pcpus[at.cpu]->local[at.local];

    moves++;
    sched_wake(v);
    kicked[at.cpu] = true;
}

static void begin(unsigned pcpus)
{
    memset(cpus, 0, sizeof(cpus));
    memset(actors, 0, sizeof(actors));
    memset(running, 0, sizeof(running));
    memset(kicked, 0, sizeof(kicked));
    idle_pcpus = 0;
    pcpu_count = pcpus;
    count = 0;
    now = moves = idle_beside_work = longest_idle_beside_work = 0;
    for (unsigned i = 0; i < pcpus; i++) {
        hvm_pcpus[i] = &cpus[i];
        cpus[i].id = i;
        cpus[i].slice.when = DEADLINE_UNSET;
        sched_idle(&cpus[i], true);
    }
}

static struct actor *add(uint64_t burst, uint64_t sleep)
{
    struct actor *a = &actors[count++];

    a->burst = burst;
    a->sleep = sleep;
    a->left = burst;
    a->v.state = VCPU_IDLE;
    sched_add(&a->v, sched_place());
    return a;
}

static void fall_asleep(struct actor *a)
{
    sched_block(&a->v, VCPU_IDLE);
    a->left = a->burst;
    a->wakes_at = now + a->sleep;
}

static void wake(struct actor *a)
{
    a->waits_since = now;
    sched_wake(&a->v);
}

static void starts_to_run(struct actor *a)
{
    uint64_t waited = now - a->waits_since;

    if (!a->waits_since)
        return;
    a->longest_wait = waited > a->longest_wait ? waited : a->longest_wait;
    a->all_waits += waited;
    a->waits++;
    a->waits_since = 0;
}

/* As the loop of a pCPU does: who ran is charged, who is due wakes, one is chosen, and another one may go elsewhere. */
static void look(struct hvm_pcpu *p)
{
    struct vcpu *v = running[p->id], *surplus;
    struct place to;

    running[p->id] = NULL;
    kicked[p->id] = false;
    if (v) {
        uint64_t since = v->turn.since;

        sched_ran(p, v);
        if (of(v)->left != FOR_EVER)
            of(v)->left -= now - since;
        if (!of(v)->left)
            fall_asleep(of(v));
        else if (of(v)->spins)
            sched_pause(p);
    }
    for (unsigned i = 0; i < count; i++)
        if (actors[i].v.place.cpu == p->id && actors[i].v.state == VCPU_IDLE && actors[i].wakes_at <= now)
            wake(&actors[i]);
    for (unsigned i = 0; i < count; i++)
        if (actors[i].v.place.cpu == p->id && actors[i].v.state == VCPU_RUNNABLE && actors[i].stormed)
            sched_urge(&actors[i].v);
    if (p->slice.when <= now)
        p->slice.when = DEADLINE_UNSET;
    v = sched_pick(p);
    sched_idle(p, !v);
    if (!v)
        return;
    running[p->id] = v;
    starts_to_run(of(v));
    if (sched_shared(p) && sched_surplus(p, &surplus, &to))
        sched_move(surplus, to);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_event(const struct hvm_pcpu *p)
{
    struct vcpu *v = running[p->id];
    uint64_t at = kicked[p->id] ? now : v ? p->slice.when : p->runnable ? now : FOR_EVER;

    if (v && of(v)->left != FOR_EVER)
        at = earlier(at, v->turn.since + of(v)->left);
    if (v && of(v)->spins)
        at = earlier(at, v->turn.since + 3000);
    for (unsigned i = 0; i < count; i++)
        if (actors[i].v.place.cpu == p->id && actors[i].v.state == VCPU_IDLE)
            at = earlier(at, actors[i].wakes_at);
    return at;
}

/* Does a pCPU halt although another one has more than it can run? */
static void watch_idle(void)
{
    bool idle = false, shared = false;

    for (unsigned i = 0; i < pcpu_count; i++) {
        idle = idle || !cpus[i].runnable;
        shared = shared || sched_shared(&cpus[i]);
    }
    if (!idle || !shared)
        idle_beside_work = 0;
    else if (!idle_beside_work)
        idle_beside_work = now;
    else if (now - idle_beside_work > longest_idle_beside_work)
        longest_idle_beside_work = now - idle_beside_work;
}

static void run_for(uint64_t ticks)
{
    uint64_t end = now + ticks;

    for (;;) {
        struct hvm_pcpu *first = &cpus[0];

        for (unsigned i = 1; i < pcpu_count; i++)
            if (next_event(&cpus[i]) < next_event(first))
                first = &cpus[i];
        if (next_event(first) > end)
            break;
        if (next_event(first) > now)
            now = next_event(first);
        look(first);
        watch_idle();
    }
    now = end;
    for (unsigned i = 0; i < pcpu_count; i++)
        look(&cpus[i]);
}

static uint64_t had(const struct actor *a)
{
    return a->v.counts.run_ticks;
}

#define SLICE (SLICE_US * 1000ull)
#define CREDIT (CREDIT_US * 1000ull)

static void assert_about(uint64_t value, uint64_t wanted, uint64_t off)
{
    if (value + off < wanted || value > wanted + off)
        fail_msg("%lu is not %lu +- %lu", value, wanted, off);
}

/* ---- The tests ---- */

static void test_alone_it_owns_its_pcpu(void **state)
{
    struct actor *a;

    (void)state;
    begin(1);
    a = add(FOR_EVER, 0);
    run_for(1000 * MS);
    assert_int_equal(had(a), 1000 * MS);
    assert_int_equal(a->v.counts.steal_ticks, 0);
    assert_int_equal(cpus[0].slice.when, DEADLINE_UNSET); /* nothing disturbs it */
}

static void test_equal_shares(void **state)
{
    (void)state;
    for (unsigned n = 2; n <= ACTORS; n++) {
        begin(1);
        for (unsigned i = 0; i < n; i++)
            add(FOR_EVER, 0);
        run_for(1000 * MS);
        for (unsigned i = 0; i < n; i++) {
            assert_about(had(&actors[i]), 1000 * MS / n, SLICE);
            assert_about(had(&actors[i]) + actors[i].v.counts.steal_ticks, 1000 * MS, n * SLICE); /* its last wait goes on */
        }
    }
}

/* With 8 vCPUs on 2 pCPUs, each waits no longer for its turn than the others' slices are. */
static void test_nobody_starves(void **state)
{
    (void)state;
    begin(2);
    for (unsigned i = 0; i < 8; i++)
        add(FOR_EVER, 0);
    for (unsigned n = 0; n < 500; n++) {
        uint64_t before[8];

        for (unsigned i = 0; i < 8; i++)
            before[i] = had(&actors[i]);
        run_for(10 * MS);
        for (unsigned i = 0; i < 8; i++)
            assert_true(had(&actors[i]) > before[i]);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_about(had(&actors[i]), 5000 * MS / 4, SLICE * 4);
}

/* 3 on 2, 5 on 4: each gets nearly the same, for they go round. */
static void test_shares_that_do_not_divide(void **state)
{
    static const struct { unsigned vcpus, cpus; } table[] = {{3, 2}, {5, 2}, {5, 4}, {7, 3}, {9, 4}};

    (void)state;
    for (unsigned t = 0; t < sizeof(table) / sizeof(table[0]); t++) {
        uint64_t fair = 5000 * MS * table[t].cpus / table[t].vcpus, least = FOR_EVER, most = 0;

        begin(table[t].cpus);
        for (unsigned i = 0; i < table[t].vcpus; i++)
            add(FOR_EVER, 0);
        run_for(5000 * MS);
        for (unsigned i = 0; i < table[t].vcpus; i++) {
            least = had(&actors[i]) < least ? had(&actors[i]) : least;
            most = had(&actors[i]) > most ? had(&actors[i]) : most;
        }
        printf("  %u on %u: from %lu to %lu %% of the fair share, %lu moves in 5 s\n", table[t].vcpus, table[t].cpus,
               least * 100 / fair, most * 100 / fair, moves);
        assert_true(least * 100 / fair >= 90);
    }
}

/* Who sleeps most of the time runs the moment it wakes, whatever computes there. */
static void test_light_sleepers_run_at_once(void **state)
{
    struct actor *a, *b;

    (void)state;
    begin(1);
    for (unsigned i = 0; i < 7; i++)
        add(FOR_EVER, 0);
    a = add(50000, 3 * MS);
    b = add(20000, 700000);
    run_for(2000 * MS);
    printf("  waited %lu and %lu ticks at worst\n", a->longest_wait, b->longest_wait);
    assert_true(a->longest_wait <= 100000); /* for the other one */
    assert_true(b->longest_wait <= 100000);
    assert_true(a->waits > 600 && b->waits > 2500);
}

/* Who wakes all the time gets no more than its share, and not much less. */
static void test_one_that_wakes_all_the_time(void **state)
{
    struct actor *a;

    (void)state;
    begin(1);
    for (unsigned i = 0; i < 3; i++)
        add(FOR_EVER, 0);
    a = add(50000, 10000);
    run_for(4000 * MS);
    printf("  it has %lu %% of the time\n", had(a) / (40 * MS));
    assert_true(had(a) <= 1000 * MS + CREDIT + SLICE);
    assert_true(had(a) >= 900 * MS);
    for (unsigned i = 0; i < 3; i++)
        assert_true(had(&actors[i]) >= 1000 * MS - CREDIT - SLICE);
}

/* One that interrupts reach all the time does not hold up another one that is urgent, however little of the time it has had. */
static void test_an_urgent_one_is_not_held_up_by_one_that_always_is(void **state)
{
    uint64_t worst = 0;

    (void)state;
    for (int64_t ahead = 0; ahead < (int64_t)CREDIT; ahead += 100000) {
        struct actor *a, *storm;
        uint64_t since;

        begin(1);
        a = add(FOR_EVER, 0);
        storm = add(FOR_EVER, 0);
        run_for(20 * MS);
        storm->v.turn.had = a->v.turn.had - ahead;
        storm->stormed = true;
        run_for(MS / 10);
        for (since = now, sched_urge(&a->v); running[0] != &a->v && now - since < 10 * MS; run_for(5000))
            kicked[0] = true;
        worst = now - since > worst ? now - since : worst;
    }
    printf("  waited %lu ticks at worst\n", worst);
    assert_true(worst <= (LEAST_US + URGENT_US) * 1000);
}

/* Nor does one that begins to be reached all the time when others have been for long: it has not saved that up. */
static void test_one_that_was_never_urgent_holds_nobody_up_for_long(void **state)
{
    struct actor *a, *storm;
    uint64_t worst = 0, since;

    (void)state;
    begin(1);
    a = add(FOR_EVER, 0);
    storm = add(FOR_EVER, 0);
    for (unsigned i = 0; i < 1000; i++) {
        run_for(MS / 10);
        for (since = now, sched_urge(&a->v); running[0] != &a->v && now - since < 10 * MS; run_for(5000))
            kicked[0] = true;
        worst = i > 500 && now - since > worst ? now - since : worst;
        storm->stormed = i >= 500;
    }
    printf("  waited %lu ticks at worst\n", worst);
    assert_true(worst <= (SAVED_US + URGENT_US) * 1000);
}

/* What waits for something and says so by PAUSE has little of the time that others need. */
static void test_who_spins_makes_way(void **state)
{
    struct actor *a, *b;

    (void)state;
    begin(1);
    a = add(FOR_EVER, 0);
    a->spins = true;
    b = add(FOR_EVER, 0);
    run_for(1000 * MS);
    printf("  the one that spins has %lu us, the other one %lu us\n", had(a) / 1000, had(b) / 1000);
    assert_true(had(b) >= 990 * MS);
    assert_true(had(a) > 0);
}

static void test_no_pcpu_halts_beside_another_ones_queue(void **state)
{
    uint64_t whole = 0;

    (void)state;
    begin(4);
    for (unsigned i = 0; i < 12; i++)
        add(100000 + i * 77777, 300000 + i * 55555);
    run_for(5000 * MS);
    for (unsigned i = 0; i < 12; i++)
        whole += had(&actors[i]);
    printf("  %lu moves, at most %lu us with one idle and another one's queue, %lu %% busy\n", moves,
           longest_idle_beside_work / 1000, whole / (200 * MS));
    assert_true(moves > 0);
    assert_true(longest_idle_beside_work <= SLICE);
}

/* vCPUs that share a pCPU find one of their own when another domain has gone. */
static void test_spread_when_others_have_gone(void **state)
{
    (void)state;
    begin(2);
    for (unsigned i = 0; i < 4; i++)
        add(FOR_EVER, 0);
    run_for(100 * MS);
    for (unsigned i = 0; i < 4; i += 1)
        if (actors[i].v.place.cpu == 0) {
            struct vcpu *v = &actors[i].v;

            if (running[0] == v)
                running[0] = NULL;
            sched_block(v, VCPU_STOPPED);
            sched_remove(v);
            v->place.cpu = CPUS;
        }
    run_for(10 * MS);
    assert_non_null(running[0]);
    assert_non_null(running[1]);
    assert_false(sched_shared(&cpus[0]) || sched_shared(&cpus[1]));
}

static uint64_t chance(uint64_t below)
{
    return ((uint64_t)rand() << 31 | (uint64_t)rand()) % below;
}

/* Whatever the mixture on one pCPU: who always wants to run has its fair share, and nobody waits for longer than all others may be ahead. */
static void test_any_mixture(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 300; seed++) {
        unsigned n = 2 + seed % 9;

        srand(seed);
        begin(1);
        for (unsigned i = 0; i < n; i++)
            add(chance(3) ? 1000 + chance(3 * MS) : FOR_EVER, 1000 + chance(4 * MS));
        for (unsigned i = 0; i < n; i++)
            actors[i].spins = actors[i].left == FOR_EVER && i > 1 && !chance(4);
        run_for(1000 * MS);
        for (unsigned i = 0; i < n; i++) {
            const struct actor *a = &actors[i];

            if (a->left == FOR_EVER && !a->spins && had(a) + 2 * SLICE + CREDIT < 1000 * MS / n)
                fail_msg("seed %u: vCPU %u of %u had %lu us", seed, i, n, had(a) / 1000);
            if (a->longest_wait > n * (CREDIT + 2 * SLICE))
                fail_msg("seed %u: vCPU %u of %u waited for %lu us", seed, i, n, a->longest_wait / 1000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_it_owns_its_pcpu),
        cmocka_unit_test(test_equal_shares),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_shares_that_do_not_divide),
        cmocka_unit_test(test_light_sleepers_run_at_once),
        cmocka_unit_test(test_one_that_wakes_all_the_time),
        cmocka_unit_test(test_an_urgent_one_is_not_held_up_by_one_that_always_is),
        cmocka_unit_test(test_one_that_was_never_urgent_holds_nobody_up_for_long),
        cmocka_unit_test(test_who_spins_makes_way),
        cmocka_unit_test(test_no_pcpu_halts_beside_another_ones_queue),
        cmocka_unit_test(test_spread_when_others_have_gone),
        cmocka_unit_test(test_any_mixture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
