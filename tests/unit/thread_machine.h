/*
 * A machine of threads for the real pCPU loop: included once, behind hvm.c and <cmocka.h>, by a test that defines CPUS and VCPUS
 * (at most so many) and its guests. A thread is a pCPU; it halts until an interrupt, and sleeps then, so that a lost kick or
 * wake-up is a test that does not go on. The device model is a thread too. What threads share of the machine is atomic, so
 * that ThreadSanitizer speaks of the hypervisor's accesses alone.
 */
#ifndef METRONOME_TESTS_THREAD_MACHINE_H
#define METRONOME_TESTS_THREAD_MACHINE_H

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

#include "random.h"

long syscall(long number, ...); /* <unistd.h> has a pause() of its own */

#define RAM     LARGE_PAGE_SIZE
#define BIOS    65536u
#define PATIENCE_S 20
#define SPINS   1000 /* of a halted pCPU before its thread sleeps */

__thread struct pcpu *test_cpu;
struct pcpu *pcpus[MAX_PCPUS];
unsigned pcpu_count = CPUS;
uint64_t tsc_hz = 2000000000;
struct cpu_features cpu_features;

static const struct vendor_ops guests; /* the test's */
static unsigned vcpu_count = VCPUS;    /* of the next domain */

static struct pcpu cpus[CPUS + 1]; /* the last one is the test's own: no pCPU, but it posts */
static struct machine {
    uint32_t interrupt; /* an IPI, or one of the two below */
    bool doorbell, control, sleeps;
    uint64_t timer;     /* the thread's own */
} machine[CPUS + 1];
static pthread_t threads[CPUS], model;
static bool quit;
static volatile bool model_dead;
static bool model_sent_away, model_away; /* asked to keep off the slot; does */
static struct domain *dom;
static volatile uint32_t registers[4];
static volatile uint32_t published;

static uint64_t rnd(uint64_t below)
{
    static __thread uint64_t seed;

    if (!seed)
        seed = rdtsc() | 1;
    return random_below(&seed, below);
}

static void nap(unsigned us)
{
    struct timespec t = {0, us * 1000l};

    nanosleep(&t, NULL);
}

static bool has_quit(void) { return __atomic_load_n(&quit, __ATOMIC_SEQ_CST); }

static bool interrupted(const struct machine *m)
{
    return __atomic_load_n(&m->interrupt, __ATOMIC_SEQ_CST) || m->timer <= rdtsc() || has_quit();
}

static void interrupt(struct machine *m)
{
    __atomic_store_n(&m->interrupt, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&m->sleeps, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &m->interrupt, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The timer's moment, which no interrupt of another thread tells. */
static void sleep_until_interrupt(struct machine *m)
{
    uint64_t now = rdtsc(), ns = m->timer > now ? (m->timer - now) * 1000000000.0 / tsc_hz : 0;
    struct timespec until = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    __atomic_store_n(&m->sleeps, true, __ATOMIC_SEQ_CST);
    if (!has_quit())
        syscall(SYS_futex, &m->interrupt, FUTEX_WAIT_PRIVATE, 0, m->timer == UINT64_MAX ? NULL : &until, NULL, 0);
    __atomic_store_n(&m->sleeps, false, __ATOMIC_SEQ_CST);
}

/* As a guest that computes does, and a CPU that halts. */
static void until_interrupted(void)
{
    struct machine *m = &machine[test_cpu->id];

    for (unsigned n = 0; !interrupted(m); n++)
        if (n < SPINS)
            pause();
        else
            sleep_until_interrupt(m);
}

/* A guest does; false: it has left for the pCPU's loop. */
static bool halts(struct vcpu *v)
{
    vcpu_drain(v);
    if (inject_pending(v))
        return true;
    v->halted = true;
    sched_block(v, VCPU_IDLE);
    return false;
}

static void handle_interrupts(void)
{
    struct machine *m = &machine[test_cpu->id];

    __atomic_store_n(&m->interrupt, 0, __ATOMIC_SEQ_CST);
    if (m->timer <= rdtsc()) {
        m->timer = UINT64_MAX;
        timer_interrupt(NULL);
    }
    if (__atomic_exchange_n(&m->doorbell, false, __ATOMIC_SEQ_CST))
        slot_rung(&slots[0]);
    if (__atomic_exchange_n(&m->control, false, __ATOMIC_SEQ_CST))
        hvm_attention(test_cpu->id, ATTENTION_CONTROL);
}

static void take_interrupts(void)
{
    if (has_quit()) {
        sched_idle(test_cpu->hvm, false); /* the next machine may have no such CPU */
        pthread_exit(NULL);
    }
    handle_interrupts();
}

/* As svm_let_in() does. */
static void let_in(struct vcpu *v)
{
    struct hvm_pcpu *p = this_hvm();

    p->handled = NULL;
    handle_interrupts();
    p->handled = v;
    p->off_since = rdtsc();
    if (hvm_called(p) || __atomic_load_n(&v->posted.on, __ATOMIC_RELAXED))
        interrupt(&machine[test_cpu->id]);
}

void test_window(void)
{
    take_interrupts();
}

void test_halt(void)
{
    until_interrupted();
    take_interrupts();
}

static void raise_line(unsigned cpu, bool *line)
{
    __atomic_store_n(line, true, __ATOMIC_SEQ_CST);
    interrupt(&machine[cpu]);
}

void host_timer_arm(uint64_t tsc)
{
    machine[test_cpu->id].timer = tsc;
}

static void *zeroed(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 4096, bytes), 0);
    return memset(p, 0, bytes);
}

void *alloc_pages(unsigned order) { return zeroed(PAGE_SIZE << order); }
void *alloc_pages_uncleared(unsigned order) { return memset(zeroed(PAGE_SIZE << order), 0xcc, PAGE_SIZE << order); }
void free_pages(void *pages, unsigned order) { (void)order, free(pages); }
uint64_t virt_to_phys(const void *p) { return (uint64_t)p; }
void *phys_to_virt(uint64_t physical) { return (void *)physical; }
void console_set_pause(void (*between_characters)(void)) { (void)between_characters; }
void log_at(enum log_level level, const char *format, ...) { (void)level, (void)format; }
int vformat_line(char *to, size_t size, const char *format, va_list args) { return vsnprintf(to, size, format, args); }
int format_line(char *to, size_t size, const char *format, ...) { return snprintf(to, size, "%s", format); }
void msr_reset(struct vcpu *v) { (void)v; }
bool control_present(void) { return true; }
bool control_records(void) { return true; }
static struct metronome_latency latency;
struct metronome_latency *control_latency(struct slot *s) { return (void)s, &latency; }
static int made_status;
void control_finished(struct slot *s, int status) { made_status = status, dom = slots[0].domain, (void)s; }
void control_destroyed(struct slot *s) { (void)s; }
void standalone_made(int status) { (void)status; }
void control_ended(struct domain *d) { (void)d; }
void control_message(struct slot *s, const char *text) { (void)s, (void)text; }
void control_publish(struct domain *d, enum metronome_slot_state state) { (void)d, published = state; }

void panic(const char *format, ...)
{
    printf("panic: %s\n", format);
    abort();
}

/* ---- The device model: answers, and now and then moves a line ---- */

static void ring_hypervisor(const struct slot *s)
{
    struct metronome_notify *n = (void *)(s->memory + METRONOME_DOMAIN_NOTIFY);

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&n->hypervisor_waits, __ATOMIC_RELAXED))
        raise_line(0, &machine[0].doorbell);
}

static void produce(const struct slot *s, uint32_t op, uint64_t a0, uint64_t a1)
{
    struct metronome_command_ring *r = (void *)(s->memory + METRONOME_DOMAIN_COMMANDS);

    if (r->ring.produced - __atomic_load_n(&r->ring.consumed, __ATOMIC_ACQUIRE) == METRONOME_RING_ENTRIES)
        return;
    r->entry[r->ring.produced % METRONOME_RING_ENTRIES] = (struct metronome_command){.op = op, .args = {a0, a1}};
    __atomic_store_n(&r->ring.produced, r->ring.produced + 1, __ATOMIC_RELEASE);
    ring_hypervisor(s);
}

static void *run_model(void *argument)
{
    const struct slot *s = argument;
    struct metronome_ioreq_page *page = (void *)(s->memory + METRONOME_DOMAIN_IOREQ);

    while (!has_quit()) {
        unsigned v = (unsigned)rnd(VCPUS);

        __atomic_store_n(&model_away, __atomic_load_n(&model_sent_away, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
        if (model_away || rnd(4) == 0)
            nap((unsigned)rnd(50));
        if (model_away)
            continue;
        if (!model_dead && __atomic_load_n(&page->vcpu[v].state_dir_df, __ATOMIC_ACQUIRE) % 16 == METRONOME_IOREQ_READY) {
            __atomic_store_n(&page->vcpu[v].state_dir_df, METRONOME_IOREQ_RESPONSE, __ATOMIC_RELEASE);
            ring_hypervisor(s);
        }
        if (!model_dead && rnd(16) == 0)
            produce(s, METRONOME_DM_SET_ISA_IRQ, 5, rnd(2));
    }
    return NULL;
}

/* ---- Commands of the daemon, which CPU 0 runs ---- */

static void (*command)(void);

static bool no_command(void) { return !__atomic_load_n(&command, __ATOMIC_SEQ_CST); }

void control_service(void)
{
    /* Only a command that ran is taken off: one may be given between the look and the end. */
    void (*given)(void) = __atomic_load_n(&command, __ATOMIC_SEQ_CST);

    if (!given)
        return;
    given();
    __atomic_store_n(&command, NULL, __ATOMIC_SEQ_CST);
}

static bool in_time(bool (*done)(void))
{
    time_t end = time(NULL) + PATIENCE_S;

    for (unsigned n = 0; !done(); n++)
        if (n % 4096 == 4095 && time(NULL) > end)
            return false;
        else
            sched_yield();
    return true;
}

static bool no_plan(void) { return !domain_in_progress(&slots[0]) && !domain_in_progress(&slots[1]); }
static void nothing(void) {}

static void run_command(void (*what)(void))
{
    __atomic_store_n(&command, what, __ATOMIC_SEQ_CST);
    raise_line(0, &machine[0].control);
    assert_true(in_time(no_command));
}

/* What takes long is done, too, and CPU 0 has come from it. */
static void give(void (*what)(void))
{
    run_command(what);
    assert_true(in_time(no_plan));
    run_command(nothing);
}

static void create(void) { domain_make(&slots[0]); }
static void begin(void) { domain_start(dom); }
static void end_it(void) { domain_end(dom, METRONOME_END_POWEROFF, 0, "destroyed"); }
static void destroy(void) { domain_take_apart(&slots[0]); }
static bool ended(void) { return domain_has_ended(dom); }

static void *run_cpu(void *argument)
{
    test_cpu = argument;
    while (!has_quit())
        round(test_cpu->hvm);
    return NULL;
}

static int set_up(void **state)
{
    struct slot *s = &slots[0];
    struct metronome_domain_header *h;

    (void)state;
    vendor = &guests;
    s->size = METRONOME_DOMAIN_ARENA + RAM + BIOS;
    s->physical = 1ull << 40;
    s->memory = zeroed(s->size);
    s->registers = registers;
    h = (void *)(s->memory + METRONOME_DOMAIN_HEADER);
    *h = (struct metronome_domain_header){.magic = METRONOME_DOMAIN_MAGIC, .version = METRONOME_ABI_VERSION,
        .flags = METRONOME_DOMAIN_HAS_DM, .vcpus = vcpu_count, .cores = 1, .ram_low = RAM, .extra = RAM, .extra_bytes = BIOS, .firmware = RAM, .firmware_bytes = BIOS};
    slot_count = 1;
    memset(cpus, 0, sizeof(cpus));
    quit = model_dead = false;
    for (unsigned i = 0; i <= CPUS; i++)
        cpus[i].id = i;
    for (unsigned i = 0; i < pcpu_count; i++) {
        pcpus[i] = &cpus[i];
        cpus[i].hvm = hvm_pcpus[i] = make_pcpu(i);
        machine[i] = (struct machine){.timer = UINT64_MAX};
    }
    test_cpu = &cpus[CPUS];
    for (unsigned i = 0; i < pcpu_count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_cpu, &cpus[i]), 0);
    assert_int_equal(pthread_create(&model, NULL, run_model, s), 0);
    give(create);
    assert_int_equal(made_status, 0);
    return 0;
}

static void send_model_away(bool away) { __atomic_store_n(&model_sent_away, away, __ATOMIC_RELEASE); }
static bool is_away(void) { return __atomic_load_n(&model_away, __ATOMIC_ACQUIRE); }

/* A slot is used again only after its device model is gone and its pages are punched out: the next one finds zeroes. */
static void clean_slot(void)
{
    uint8_t *memory = slots[0].memory;

    send_model_away(true);
    assert_true(in_time(is_away));
    memset(memory + METRONOME_DOMAIN_IOREQ, 0, METRONOME_DOMAIN_ARENA - METRONOME_DOMAIN_IOREQ);
    send_model_away(false);
}

/* Nothing of the domain is left on a pCPU, whatever it did at its end. */
static void expect_gone(void)
{
    assert_true(in_time(ended));
    assert_int_equal(published, METRONOME_SLOT_SHUTDOWN);
    give(destroy);
    for (unsigned i = 0; i < pcpu_count; i++) {
        assert_null(cpus[i].current);
        assert_int_equal(hvm_pcpus[i]->runnable | hvm_pcpus[i]->io_waiting, 0);
        for (unsigned k = 0; k < 64; k++)
            assert_null(hvm_pcpus[i]->local[k]);
        for (unsigned k = 0; k < hvm_pcpus[i]->deadlines.count; k++)
            assert_ptr_equal(hvm_pcpus[i]->deadlines.slot[k], &hvm_pcpus[i]->slice);
    }
    clean_slot();
}

static int tear_down(void **state)
{
    (void)state;
    __atomic_store_n(&quit, true, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < pcpu_count; i++) {
        interrupt(&machine[i]);
        pthread_join(threads[i], NULL);
    }
    pthread_join(model, NULL);
    for (unsigned i = 0; i < pcpu_count; i++)
        free_pages(hvm_pcpus[i], 0);
    free(slots[0].memory);
    memset(&slots[0], 0, sizeof(slots[0]));
    return 0;
}

#endif
