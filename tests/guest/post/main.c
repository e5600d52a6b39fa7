/*
 * `cpus=N` CPUs send each other `count=N` IPIs, each of them counted. Every pair has a channel, which is a vector of its own at
 * the receiver; it carries one at a time, so each must be taken, and once. What is taken is sent on to any other CPU: as long as
 * one is on its way they go on, and where it is lost, or a halted CPU is not woken, nothing wakes them any more, for no timer
 * runs. With CPUs that halt, that spin, and every second of either; in xAPIC and in x2APIC mode.
 */
#include "cpus.h"

#define MOST 8u
enum { FIRST = 0x40 }; /* and the sender's number */
enum wait { HALTS, SPINS, BOTH, WAITS };

static struct channel {
    volatile uint64_t sent, taken;
} __attribute__((aligned(64))) channels[MOST][MOST]; /* to, from */
static volatile int64_t left, on_their_way;
static volatile uint32_t wrong;
static volatile bool over;

static bool send(unsigned from, unsigned to)
{
    struct channel *c = &channels[to][from];

    if (c->sent != c->taken)
        return false;
    c->sent++;
    apic_icr(to, FIRST + from);
    return true;
}

static uint32_t any(struct cpu *c, uint32_t below)
{
    c->answer = c->answer * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(c->answer >> 33) % below;
}

/* To whom the way is free; one in eight to itself. */
static bool send_on(struct cpu *c)
{
    unsigned to = any(c, cpu_count);

    if (to == c->id && any(c, 8))
        to = (to + 1) % cpu_count;
    for (unsigned n = 0; n < cpu_count; n++)
        if (send(c->id, (to + n) % cpu_count))
            return true;
    return false;
}

/* The last one wakes them all. */
static void end_one(void)
{
    if (__atomic_sub_fetch(&on_their_way, 1, __ATOMIC_SEQ_CST))
        return;
    over = true;
    for (unsigned i = 0; i < cpu_count; i++)
        apic_icr(i, WAKE);
}

static void take(struct frame *f)
{
    struct cpu *c = this_cpu();
    struct channel *from = &channels[c->id][f->vector - FIRST];

    if (++from->taken != from->sent)
        wrong++;
    apic_write(APIC_EOI, 0);
    if (__atomic_sub_fetch(&left, 1, __ATOMIC_RELAXED) < 0 || !send_on(c))
        end_one();
}

static void exchange(struct cpu *c)
{
    enum wait wait = (enum wait)c->argument;
    bool spins = wait == SPINS || (wait == BOTH && (c->id & 1));

    c->answer = c->id;
    send_on(c);
    while (!over) {
        if (spins)
            run_us(1);
        else
            halt();
    }
}

static void run(enum wait wait, uint64_t count)
{
    static const char *const names[WAITS] = {"halting", "spinning", "both"};
    uint64_t sent = 0, taken = 0;

    memset(channels, 0, sizeof(channels));
    over = false;
    left = (int64_t)count;
    on_their_way = cpu_count;
    for (unsigned i = 1; i < cpu_count; i++)
        give_job(i, exchange, wait);
    run_on(0, exchange, wait);
    for (unsigned i = 1; i < cpu_count; i++)
        AWAIT(!cpu[i]->job, 5000);
    for (unsigned to = 0; to < cpu_count; to++)
        for (unsigned from = 0; from < cpu_count; from++) {
            sent += channels[to][from].sent;
            taken += channels[to][from].taken;
        }
    print("%u CPUs, %s, %s: %lu sent, %lu taken\n", cpu_count, apic_is_x2() ? "x2APIC" : "xAPIC", names[wait], sent, taken);
    check(sent == taken && taken > count && !wrong, "each IPI is taken, and once", "%lu and %lu, %u wrong", sent, taken, wrong);
}

static void to_x2apic(struct cpu *c)
{
    (void)c;
    apic_set_x2(true);
}

static uint32_t started(void)
{
    uint32_t n = 0;

    for (unsigned i = 1; i < cpu_count; i++)
        n += cpu[i]->starts;
    return n;
}

void guest_main(void)
{
    uint64_t count = option_number("count", 100000);

    cpus_init((unsigned)option_number("cpus", 2));
    apic_icr(0, ICR_OTHERS | ICR_INIT);
    apic_icr(0, ICR_OTHERS | ICR_SIPI);
    if (!check(AWAIT(started() == cpu_count - 1, 5000), "all CPUs start", "%u do", started()))
        return;
    for (unsigned from = 0; from < cpu_count; from++)
        on_vector(FIRST + from, take);
    for (enum wait w = HALTS; w < WAITS; w++)
        run(w, count / 2 / WAITS);
    for (unsigned i = cpu_count; i-- > 0;)
        run_on(i, to_x2apic, 0);
    timer_init();
    for (enum wait w = HALTS; w < WAITS; w++)
        run(w, count / 2 / WAITS);
}
