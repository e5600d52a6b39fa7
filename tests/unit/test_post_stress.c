/*
 * Every interrupt that is posted between CPUs is counted: on a machine of threads, with the real pCPU loop, scheduler, posting
 * and injection, guests post to each other, halt, compute, wait for the device model, yield, are reset and move between pCPUs.
 *
 * Each pair of vCPUs has a channel, which is a vector of its own. Its sender posts again only when the last one was taken, so
 * each is taken exactly once, and with the trigger mode that it was posted with. What is taken is sent on, to anyone: as long as
 * any is on its way none may stand still, and where all sleep with one on its way, a bit, a kick or a wake-up was lost. No timer
 * helps a guest that is alone on its pCPU. Beside them each pair has a free channel, posted at will: there posts merge, none
 * comes unasked, and the last is taken. NMI, LINT1, INIT with SIPI and the PIC's INT are channels too.
 */
#include "../../arch/x86/hvm/hvm.c"

#include <setjmp.h>
#include <cmocka.h>

#define CPUS  3u
#define VCPUS 7u
#include "thread_machine.h"

enum { LINT1_VECTOR = 0x30, IRQ6_VECTOR = 0x26, ASKED = 0x40, FREE = 0x80 };

struct channel {
    uint64_t sent, taken;
    uint64_t seen; /* the last one sent when one was last taken */
} __attribute__((aligned(64)));

static struct traffic {
    struct channel asked[VCPUS][VCPUS], free[VCPUS][VCPUS]; /* to, from */
    struct channel nmi[VCPUS], lint1[VCPUS], life[VCPUS], irq6;
    unsigned owed[VCPUS];                                   /* each vCPU's: messages to be sent on */
    uint64_t kicks[VCPUS], drains[VCPUS], moves[VCPUS];
    unsigned ran_on[VCPUS];                                 /* a pCPU, and one more */
    bool reborn;                                            /* the last vCPU is reset again and again */
    bool model;                                             /* guests ask the device model */
    int64_t left;
} t;

static __thread uint64_t kicks; /* by this thread's post */

static void wrong(const char *what, unsigned to, const struct channel *c)
{
    printf("vCPU %u, channel %td: %s: sent %llu, taken %llu\n", to, c - &t.asked[0][0], what, (unsigned long long)c->sent,
           (unsigned long long)c->taken);
    fflush(stdout);
    abort();
}

void ipi_send(unsigned cpu, uint8_t vector)
{
    (void)vector;
    kicks++;
    interrupt(&machine[cpu]);
}

/* ---- Sending ---- */

static bool is_idle(const struct channel *c)
{
    return __atomic_load_n(&c->taken, __ATOMIC_ACQUIRE) == __atomic_load_n(&c->sent, __ATOMIC_RELAXED);
}
static bool lives(unsigned v) { return __atomic_load_n(&t.life[v].taken, __ATOMIC_ACQUIRE); }
static bool is_reset(unsigned v) { return t.reborn && v == vcpu_count - 1; }

static uint64_t begin_post(struct channel *c)
{
    uint64_t n = c->sent + 1;

    kicks = 0;
    __atomic_fetch_sub(&t.left, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&c->sent, n, __ATOMIC_RELEASE);
    return n;
}

static void end_post(struct channel *c, unsigned to)
{
    if (kicks > 1)
        wrong("two kicks for one post", to, c);
    __atomic_fetch_add(&t.kicks[to], kicks, __ATOMIC_RELAXED);
}

static void post_vector(struct channel *c, unsigned to, unsigned vector, bool level)
{
    vcpu_post(dom->vcpu[to], (uint8_t)vector, level, METRONOME_INJECT_IPI);
    end_post(c, to);
}

static bool ask(unsigned from, unsigned to)
{
    struct channel *c = &t.asked[to][from];

    if (is_reset(to) || !is_idle(c))
        return false;
    post_vector(c, to, ASKED + from, begin_post(c) & 1);
    return true;
}

static bool post_work_of(struct channel *c, unsigned to, uint32_t work)
{
    if (is_reset(to) || !is_idle(c))
        return false;
    begin_post(c);
    vcpu_post_work(dom->vcpu[to], work);
    end_post(c, to);
    return true;
}

/* INIT takes what was posted before with it: only free channels lead to this vCPU. */
static bool begin_new_life(unsigned to)
{
    struct channel *c = &t.life[to];

    if (!is_reset(to) || !is_idle(c))
        return false;
    begin_post(c);
    vcpu_post_work(dom->vcpu[to], WORK_INIT);
    end_post(c, to);
    kicks = 0;
    dom->vcpu[to]->posted.sipi_vector = (uint8_t)c->sent;
    vcpu_post_work(dom->vcpu[to], WORK_SIPI);
    end_post(c, to);
    return true;
}

/* What the PIC posts to vCPU 0 has WORK_LINT0 for its rise and its fall. */
static bool raise_irq6(void)
{
    if (!t.model || !is_idle(&t.irq6))
        return false;
    begin_post(&t.irq6);
    spin_lock(&dom->chipset.lock);
    chipset_set_isa(dom, 6, true);
    spin_unlock(&dom->chipset.lock);
    return true;
}

/* Each channel has one sender. */
static bool send_to(unsigned from, unsigned to)
{
    switch (rnd(4)) {
    case 0:
        return from == (to + 1) % vcpu_count && post_work_of(&t.nmi[to], to, WORK_NMI);
    case 1:
        return from == (to + 2) % vcpu_count && post_work_of(&t.lint1[to], to, WORK_LINT1);
    case 2:
        return (from == 0 && begin_new_life(to)) || (from == 1 && raise_irq6());
    default:
        return ask(from, to);
    }
}

/* False: all of its own are on their way. */
static bool send_on(unsigned from)
{
    unsigned to = rnd(8) ? (from + 1 + (unsigned)rnd(vcpu_count - 1)) % vcpu_count : from;

    if (send_to(from, to))
        return true;
    for (unsigned n = 0; n < vcpu_count; n++)
        if ((to + n) % vcpu_count != from && ask(from, (to + n) % vcpu_count))
            return true;
    return false;
}

static bool all_live(void)
{
    for (unsigned i = 0; i < vcpu_count; i++)
        if (!lives(i))
            return false;
    return true;
}
static bool goes_on(void) { return __atomic_load_n(&t.left, __ATOMIC_RELAXED) > 0; }

static void send_freely(unsigned from)
{
    unsigned to = (unsigned)rnd(vcpu_count);
    struct channel *c = &t.free[to][from];

    begin_post(c);
    post_vector(c, to, FREE + from, from & 1);
}

/* Those that live before the others have sent nothing, but the last one will. */
static bool sends(unsigned from)
{
    bool sent = false;

    if (!all_live())
        return false;
    for (; goes_on() && t.owed[from] && send_on(from); t.owed[from]--)
        sent = true;
    t.owed[from] = 0;
    if (goes_on() && rnd(4) == 0) {
        send_freely(from);
        sent = true;
    }
    return sent;
}

/* ---- Taking ---- */

static void took(struct vcpu *v, struct channel *c)
{
    uint64_t sent = __atomic_load_n(&c->sent, __ATOMIC_ACQUIRE);

    if (c->taken + 1 != sent)
        wrong("not one for one", v->id, c);
    t.owed[v->id]++;
    __atomic_store_n(&c->taken, sent, __ATOMIC_RELEASE);
}

static void took_free(struct vcpu *v, struct channel *c)
{
    uint64_t seen = __atomic_load_n(&c->sent, __ATOMIC_ACQUIRE);

    if (c->taken >= seen)
        wrong("nobody has posted it", v->id, c);
    __atomic_store_n(&c->seen, seen, __ATOMIC_RELEASE);
    __atomic_store_n(&c->taken, c->taken + 1, __ATOMIC_RELEASE);
}

static void took_vector(struct vcpu *v, uint8_t vector)
{
    bool level = v->vlapic.tmr[vector / 32] >> vector % 32 & 1;
    unsigned from = vector % (FREE - ASKED);
    struct channel *c = vector < FREE ? &t.asked[v->id][from] : &t.free[v->id][from];

    if (vector < ASKED || from >= vcpu_count)
        wrong("a vector of nobody's", vector, c);
    if (level != ((vector < FREE ? __atomic_load_n(&c->sent, __ATOMIC_ACQUIRE) : from) & 1))
        wrong("another trigger mode", v->id, c);
    if (vector < FREE)
        took(v, c);
    else
        took_free(v, c);
}

static void end_irq6(struct vcpu *v)
{
    uint64_t eoi = 0x20;

    spin_lock(&dom->chipset.lock);
    chipset_set_isa(dom, 6, false);
    spin_unlock(&dom->chipset.lock);
    io_port(v, 0x20, 1, true, &eoi);
    took(v, &t.irq6);
}

static void handle(struct vcpu *v, struct injection i)
{
    if (i.type == EVENT_NMI) {
        took(v, &t.nmi[v->id]);
        v->nmi_blocked = false;
    } else if (i.vector == IRQ6_VECTOR) {
        end_irq6(v);
    } else {
        if (i.vector == LINT1_VECTOR)
            took(v, &t.lint1[v->id]);
        else
            took_vector(v, i.vector);
        vlapic_eoi(&v->vlapic, vtime_tsc(&dom->time));
        fabric_take_apic_output(v);
    }
}

/* ---- Guests ---- */

static void set_up_pic(void)
{
    static const struct { uint16_t port; uint8_t value; } program[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0x21, 0xbf}};

    for (unsigned i = 0; i < sizeof(program) / sizeof(program[0]); i++) {
        uint64_t value = program[i].value;

        io_port(dom->vcpu[0], program[i].port, 1, true, &value);
    }
}

static void live(struct vcpu *v)
{
    v->vlapic.activity = VLAPIC_RUNNING;
    vlapic_write(&v->vlapic, 0, 0xf0, 4, 0x1ff);
    vlapic_write(&v->vlapic, 0, 0x350, 4, 0x700);
    vlapic_write(&v->vlapic, 0, 0x360, 4, LINT1_VECTOR);
}

static void start_guest(struct vcpu *v, bool sipi, uint8_t vector)
{
    v->emu.regs.rflags = 2 | RFLAGS_IF;
    if (sipi && vector != (uint8_t)t.life[v->id].sent)
        wrong("another SIPI's vector", v->id, &t.life[v->id]);
    if (sipi || v->id == 0)
        live(v);
    if (sipi)
        took(v, &t.life[v->id]);
}

/* False: the guest has left for the pCPU's loop. */
static bool acts(struct vcpu *v)
{
    static const struct access a = {.address = 0x1f0, .count = 1, .size = 1, .port = true};
    unsigned what = (unsigned)rnd(16);

    if (interrupted(&machine[test_cpu->id]))
        return false; /* at its entry */
    if (sends(v->id))
        return true; /* an exit each */
    if (what < 6 || !goes_on())
        return halts(v);
    if (what < (vcpu_count > pcpu_count ? 7 : 12)) { /* where it is not alone, for a time slice */
        until_interrupted();
        return false;
    }
    if (what == 13)
        sched_pause(this_hvm());
    if (what == 14 && t.model)
        ioreq_access(v, &a, 0, false);
    return what < 13 || what == 15;
}

/* As svm_run(). The handler's EOI is an exit; what the hardware was asked a window for comes in at once. */
static void run_guest(struct vcpu *v)
{
    t.moves[v->id] += t.ran_on[v->id] && t.ran_on[v->id] != test_cpu->id + 1;
    t.ran_on[v->id] = test_cpu->id + 1;
    __atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    while (vcpu_prepare(v) && hvm_may_inject(v)) {
        int want;
        struct injection i = inject_next(v, (struct injectability){.interrupts = true}, &want);

        hvm_before_entry(v, want & WANT_EXIT);
        if (i.valid)
            handle(v, i);
        else if (!want && !acts(v))
            break;
    }
}

static bool made(struct vcpu *v) { return v; }
static const struct vendor_ops guests = {
    .name = "senders", .vcpu_init = made, .vcpu_reset = start_guest, .run = run_guest, .let_in = let_in};

/* Linked in place of vcpu_drain(): counts those that find ON, as it will itself. */
void __real_vcpu_drain(struct vcpu *v);
void __wrap_vcpu_drain(struct vcpu *v);
void __wrap_vcpu_drain(struct vcpu *v)
{
    if (!__atomic_load_n(&v->posted.on, __ATOMIC_RELAXED))
        return;
    __atomic_fetch_add(&t.drains[v->id], 1, __ATOMIC_RELAXED);
    __real_vcpu_drain(v);
}

/* ThreadSanitizer hears of no volatile access: those are shared on purpose. */
#ifdef __SANITIZE_THREAD__
#define NOT_LOOKED_AT(bytes) \
    void __tsan_volatile_read##bytes(void *p); \
    void __tsan_volatile_write##bytes(void *p); \
    void __tsan_volatile_read##bytes(void *p) { (void)p; } \
    void __tsan_volatile_write##bytes(void *p) { (void)p; }
NOT_LOOKED_AT(1)
NOT_LOOKED_AT(2)
NOT_LOOKED_AT(4)
NOT_LOOKED_AT(8)
#endif

/* ---- The account ---- */

#define CHANNELS (sizeof(struct channel[2 * VCPUS * VCPUS + 3 * VCPUS + 1]) / sizeof(struct channel))
static struct channel *all_channels(void) { return &t.asked[0][0]; }
static bool is_free(const struct channel *c) { return c >= &t.free[0][0] && c < &t.nmi[0]; }
static bool may_be_lost(const struct channel *c) { return is_free(c) && is_reset((unsigned)((c - &t.free[0][0]) / VCPUS)); }

static uint64_t all_taken(void)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < CHANNELS; i++)
        n += __atomic_load_n(&all_channels()[i].taken, __ATOMIC_RELAXED);
    return n;
}

static const struct channel *find_not_taken(void)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *c = &all_channels()[i];
        uint64_t last = __atomic_load_n(is_free(c) ? &c->seen : &c->taken, __ATOMIC_ACQUIRE);

        if (last != __atomic_load_n(&c->sent, __ATOMIC_ACQUIRE) && !may_be_lost(c))
            return c;
    }
    return NULL;
}

static bool all_sleep(void)
{
    bool sleep = true;

    for (unsigned i = 0; i < pcpu_count; i++)
        sleep &= __atomic_load_n(&machine[i].sleeps, __ATOMIC_SEQ_CST) && !__atomic_load_n(&machine[i].interrupt, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < vcpu_count; i++) {
        uint32_t state = __atomic_load_n(&dom->vcpu[i]->state, __ATOMIC_SEQ_CST);

        sleep &= state == VCPU_IDLE || state == VCPU_IN_GUEST; /* halted, or it computes */
    }
    return sleep;
}

/* Those seen asleep send no more, but one that was looked at before another slept may have been woken by that. */
static bool is_over(void) { return !goes_on() && all_sleep() && !find_not_taken() && all_sleep(); }

/* Whatever is on its way keeps them going; they sleep when it has been taken. */
static void expect_all_taken(void)
{
    uint64_t n = 0;
    time_t since = time(NULL);

    while (!is_over()) {
        nap(1000);
        if (n != all_taken())
            since = time(NULL);
        n = all_taken();
        if (time(NULL) > since + PATIENCE_S)
            wrong(find_not_taken() ? "not taken" : "no rest", 0, find_not_taken() ? find_not_taken() : &t.irq6);
    }
}

static bool has_stopped(void)
{
    bool stopped;

    spin_lock(&dom->lock);
    stopped = dom->paused;
    spin_unlock(&dom->lock);
    return stopped;
}
static void stop_it(void) { domain_request(dom, ACTION_PAUSE); }

static void expect_nothing_left(void)
{
    give(stop_it);
    assert_true(in_time(has_stopped));
    for (unsigned i = 0; i < vcpu_count; i++) {
        const struct vcpu *v = dom->vcpu[i];
        const struct posted *p = &v->posted;

        assert_int_equal(p->on | p->work | p->pir[0] | p->pir[1] | p->pir[2] | p->pir[3], 0);
        assert_int_equal(vlapic_highest_irr(&v->vlapic), -1);
        assert_int_equal(v->nmi_pending, 0);
        assert_true(t.kicks[i] <= t.drains[i] + 1);
    }
    for (unsigned i = 0; i < pcpu_count; i++)
        assert_int_equal(hvm_pcpus[i]->wake, 0);
}

static void print_account(uint64_t posts)
{
    uint64_t on_time = 0, sent = 0, taken = 0, all_kicks = 0, drains = 0, moves = 0;

    for (unsigned i = 0; i < CHANNELS; i++) {
        const struct channel *c = &all_channels()[i];

        on_time += is_free(c) ? 0 : c->taken;
        sent += is_free(c) ? c->sent : 0;
        taken += is_free(c) ? c->taken : 0;
    }
    for (unsigned i = 0; i < vcpu_count; i++)
        all_kicks += t.kicks[i], drains += t.drains[i], moves += t.moves[i];
    printf("  %llu posts: %llu taken one for one; of %llu at will %llu taken, the others merged; %llu kicks, %llu drains, %llu moves\n",
           (unsigned long long)posts, (unsigned long long)on_time, (unsigned long long)sent, (unsigned long long)taken,
           (unsigned long long)all_kicks, (unsigned long long)drains, (unsigned long long)moves);
    assert_true(vcpu_count == pcpu_count || moves > 0);
}

/* ---- The tests ---- */

struct load {
    unsigned cpus, vcpus;
    unsigned tokens; /* messages that each vCPU sends at first: so many, or fewer, are on their way */
    bool reborn, model;
};

#ifdef __SANITIZE_THREAD__
#define POSTS_IN_LONG 1000000
#else
#define POSTS_IN_LONG 2000000 /* ten million in all */
#endif

static uint64_t posts_of_a_run(void)
{
    const char *length = getenv("METRONOME_TESTS");

    if (length && !strcmp(length, "long"))
        return POSTS_IN_LONG;
    return length && !strcmp(length, "check") ? 10000 : 50000;
}

static void start_all(const struct load *l)
{
    t.owed[0] = l->tokens;
    t.life[0] = (struct channel){1, 1, 1};
    if (l->model)
        give(set_up_pic);
    give(begin);
    for (unsigned i = 1; i < vcpu_count; i++) {
        begin_post(&t.life[i]);
        t.owed[i] = l->tokens;
        dom->vcpu[i]->posted.sipi_vector = 1;
        vcpu_post_work(dom->vcpu[i], WORK_SIPI);
    }
}

static void stress(void **state, const struct load *l)
{
    uint64_t posts = posts_of_a_run();

    memset(&t, 0, sizeof(t));
    t.left = (int64_t)posts;
    t.reborn = l->reborn;
    t.model = l->model;
    pcpu_count = l->cpus;
    vcpu_count = l->vcpus;
    send_model_away(!l->model);
    set_up(state);
    start_all(l);
    expect_all_taken();
    expect_nothing_left();
    print_account(posts - (uint64_t)t.left);
    give(end_it);
    expect_gone();
    tear_down(state);
}

/* Alone on its pCPU, and mostly asleep. */
static void test_one_message_at_a_time(void **state)
{
    stress(state, &(struct load){.cpus = 2, .vcpus = 2, .tokens = 1});
}

static void test_each_owns_a_pcpu(void **state)
{
    stress(state, &(struct load){.cpus = 3, .vcpus = 3, .tokens = 2, .reborn = true});
}

static void test_all_channels_full(void **state)
{
    stress(state, &(struct load){.cpus = 2, .vcpus = 6, .tokens = 100});
}

static void test_they_share_pcpus(void **state)
{
    stress(state, &(struct load){.cpus = 2, .vcpus = 7, .tokens = 1, .reborn = true});
}

#ifndef __SANITIZE_THREAD__ /* the models' lines are plain: whose level is read without the lock is looked at again when it was posted */
static void test_with_device_model_and_pic(void **state)
{
    stress(state, &(struct load){.cpus = 2, .vcpus = 5, .tokens = 3, .reborn = true, .model = true});
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_message_at_a_time),
        cmocka_unit_test(test_each_owns_a_pcpu),
        cmocka_unit_test(test_all_channels_full),
        cmocka_unit_test(test_they_share_pcpus),
#ifndef __SANITIZE_THREAD__
        cmocka_unit_test(test_with_device_model_and_pic),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
