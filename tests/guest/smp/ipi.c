/*
 * IPIs of every kind, from every CPU, in every addressing mode: exactly those CPUs get one that the manual's rules (SDM
 * 11.6.2, 11.12.10) say.
 */
#include "smp.h"

#define FIXED 0x000u
#define LOWEST 0x100u
#define SMI 0x200u
#define LOGICAL 0x800u

static uint32_t logical_id[MAX_CPUS]; /* as LDR has it in xAPIC mode */
static uint32_t priority[MAX_CPUS];
static enum { FLAT, CLUSTER, X2APIC } mode;
static const char *const mode_names[] = {"flat", "cluster", "x2apic"};
static unsigned wrong;

/* ---- What is expected. ---- */

static uint64_t physical(uint32_t dest)
{
    if (dest == (mode == X2APIC ? 0xffffffffu : 0xffu))
        return all_cpus();
    return dest < cpu_count ? 1ull << dest : 0;
}

static bool is_meant(unsigned id, uint32_t dest)
{
    uint32_t ldr = logical_id[id];

    switch (mode) {
    case FLAT:
        return ldr & dest;
    case CLUSTER:
        return ldr >> 4 == dest >> 4 && (ldr & dest & 15);
    default:
        return id >> 4 == dest >> 16 && (dest >> (id & 15) & 1);
    }
}

static uint64_t logical(uint32_t dest)
{
    uint64_t mask = 0;

    if (dest == (mode == X2APIC ? 0xffffffffu : 0xffu))
        return all_cpus();
    for (unsigned i = 0; i < cpu_count; i++)
        mask |= (uint64_t)is_meant(i, dest) << i;
    return mask;
}

static uint64_t expected(unsigned from, uint32_t dest, uint32_t low)
{
    switch (low & ICR_OTHERS) {
    case ICR_SELF:
        return 1ull << from;
    case ICR_ALL:
        return all_cpus();
    case ICR_OTHERS:
        return all_cpus() & ~(1ull << from);
    default:
        return low & LOGICAL ? logical(dest) : physical(dest);
    }
}

static uint64_t of_least_priority(uint64_t mask)
{
    uint32_t least = UINT32_MAX;
    uint64_t found = 0;

    for (unsigned i = 0; i < cpu_count; i++)
        if ((mask >> i & 1) && priority[i] < least)
            least = priority[i];
    for (unsigned i = 0; i < cpu_count; i++)
        found |= (uint64_t)((mask >> i & 1) && priority[i] == least) << i;
    return found;
}

/* Who may take a lowest-priority interrupt. The first CPU's timer may be in service just then, which puts it behind. */
static uint64_t may_take(uint64_t mask)
{
    return of_least_priority(mask) | of_least_priority(mask & ~1ull);
}

/* ---- Sending and counting. ---- */

static void note(unsigned from, uint32_t dest, uint32_t low, uint64_t want, uint64_t got)
{
    if (!wrong++)
        print("# from %u to %x, ICR %x: expected at %lx, came to %lx\n", from, dest, low, want, got);
}

static void count_taken(uint32_t taken[MAX_CPUS], unsigned vector)
{
    for (unsigned i = 0; i < cpu_count; i++)
        taken[i] = cpu[i]->got[vector] - taken[i];
}

/* Each expected CPU gets one, no other gets any. */
static void try(unsigned from, uint32_t dest, uint32_t low)
{
    bool nmi = (low & 0x700) == 0x400;
    uint64_t want = expected(from, dest, low), got = 0;
    static uint32_t taken[MAX_CPUS];
    bool once = true;

    memset(taken, 0, sizeof(taken));
    count_taken(taken, nmi ? NMI : TESTED);
    send_from(from, dest, low | (nmi ? 0 : TESTED));
    if (fence(from, all_cpus()) != all_cpus())
        once = false;
    count_taken(taken, nmi ? NMI : TESTED);
    for (unsigned i = 0; i < cpu_count; i++) {
        got |= (uint64_t)(taken[i] != 0) << i;
        once = once && taken[i] <= 1;
    }
    if ((low & 0x700) == LOWEST) {
        if (!once || (got & (got - 1)) || (got & ~may_take(want)) || (want && !got))
            note(from, dest, low, may_take(want), got);
    } else if (!once || got != want) {
        note(from, dest, low, want, got);
    }
}

static void conclude(const char *what)
{
    static char name[80];
    char *p = name;
    const char *parts[] = {mode_names[mode], ": ", what};

    for (unsigned i = 0; i < 3; i++)
        for (const char *c = parts[i]; *c; c++)
            *p++ = *c;
    *p = 0;
    check(wrong == 0, name, "%u were wrong", wrong);
    wrong = 0;
}

static unsigned any_cpu(void)
{
    return random32() % cpu_count;
}

/* ---- Modes. ---- */

static void job_logical(struct cpu *c)
{
    apic_write(APIC_DFR, (uint32_t)(c->argument >> 32));
    apic_write(APIC_LDR, (uint32_t)c->argument);
}

static void job_x2apic(struct cpu *c)
{
    apic_set_x2(true);
    c->answer = apic_read(APIC_LDR);
    if (c->id == 0)
        timer_init();
}

static void job_tpr(struct cpu *c)
{
    apic_write(APIC_TPR, (uint32_t)c->argument);
}

/* Flat: eight ids, each of several CPUs. Cluster: four ids in each of fifteen clusters; the sixteenth is the broadcast. */
static void enter_xapic_mode(unsigned new)
{
    mode = new;
    for (unsigned i = 0; i < cpu_count; i++) {
        logical_id[i] = mode == FLAT ? 1u << i % 8 : i / 4 % 15 << 4 | 1u << i % 4;
        run_on(i, job_logical, (mode == FLAT ? 0xffffffffull : 0x0fffffffull) << 32 | logical_id[i] << 24);
    }
}

static void enter_x2apic(void)
{
    mode = X2APIC;
    for (unsigned i = 0; i < cpu_count; i++) {
        run_on(i, job_x2apic, 0);
        if (cpu[i]->answer != ((i >> 4) << 16 | 1u << (i & 15)))
            wrong++;
    }
    conclude("logical ids");
}

static void set_priorities(bool various)
{
    for (unsigned i = 0; i < cpu_count; i++) {
        priority[i] = various ? random32() % 13 << 4 : 0;
        run_on(i, job_tpr, priority[i]);
    }
}

static uint32_t random_logical(void)
{
    switch (mode) {
    case FLAT:
        return random32() & 0xff;
    case CLUSTER:
        return random32() % 15 << 4 | (random32() & 15);
    default:
        return random32() % ((cpu_count + 15) / 16 + 1) << 16 | (random32() & 0xffff);
    }
}

/* ---- The tests. ---- */

static void send_kind(const char *to_each, const char *to_groups, uint32_t delivery)
{
    uint32_t broadcast = mode == X2APIC ? 0xffffffffu : 0xffu;

    for (unsigned i = 0; i < cpu_count; i++)
        try(any_cpu(), i, delivery);
    try(any_cpu(), cpu_count, delivery); /* nobody's */
    try(any_cpu(), mode == X2APIC ? 0xfffffffeu : 0xfeu, delivery);
    try(any_cpu(), broadcast, delivery);
    conclude(to_each);
    for (unsigned i = 0; i < 8 + cpu_count / 2; i++)
        try(any_cpu(), random_logical(), delivery | LOGICAL);
    try(any_cpu(), broadcast, delivery | LOGICAL);
    conclude(to_groups);
}

static void send_shorthands(void)
{
    for (unsigned i = 0; i < cpu_count; i += 1 + cpu_count / 16) {
        try(i, any_cpu(), ICR_SELF);
        try(i, any_cpu(), ICR_ALL);
        try(i, any_cpu(), ICR_OTHERS);
        try(i, any_cpu(), ICR_OTHERS | 0x400);
        try(i, i, 0x400); /* itself, but not by the shorthand */
        try(i, any_cpu(), ICR_OTHERS | LOWEST);
    }
    conclude("shorthands");
}

static void send_smis(void)
{
    uint32_t before[MAX_CPUS];

    memset(before, 0, sizeof(before));
    count_taken(before, TESTED);
    for (unsigned i = 0; i < cpu_count; i++)
        send_from(any_cpu(), i, SMI);
    send_from(0, 0, SMI | ICR_OTHERS);
    if (fence(0, all_cpus()) != all_cpus())
        wrong++;
    count_taken(before, TESTED);
    for (unsigned i = 0; i < cpu_count; i++)
        wrong += before[i] != 0;
    conclude("SMIs are dropped");
}

static void send_all_kinds(void)
{
    send_kind("fixed, physical", "fixed, logical", FIXED);
    send_kind("NMI, physical", "NMI, logical", 0x400);
    set_priorities(true);
    send_kind("lowest priority, physical", "lowest priority, logical", LOWEST);
    set_priorities(false);
    send_shorthands();
    send_smis();
}

/* ---- Level-triggered interrupts: each EOI, on whatever CPU, reaches the I/O APIC. ---- */

static volatile unsigned levels_left;

static void on_level(struct frame *f)
{
    (void)f;
    this_cpu()->got[LEVEL]++;
    if (--levels_left == 0)
        irq4_set(false);
    apic_write(APIC_EOI, 0);
}

static void remote_eoi(void)
{
    on_vector(LEVEL, on_level);
    for (unsigned i = 0; i < cpu_count; i++) {
        uint32_t before = cpu[i]->got[LEVEL];

        levels_left = 3;
        ioapic_set(4, (uint64_t)i << 56 | IO_LEVEL | LEVEL);
        irq4_set(true);
        AWAIT(!levels_left, 2000);
        fence(i, all_cpus());
        if (cpu[i]->got[LEVEL] - before != 3 || (ioapic_entry(4) & IO_REMOTE_IRR))
            note(i, i, LEVEL, 3, cpu[i]->got[LEVEL] - before);
        ioapic_set(4, IO_MASKED);
        irq4_set(false);
    }
    conclude("EOI of a level interrupt");
}

/* ---- Each ball is one vector, thrown from CPU to CPU: none is lost, none comes twice. ---- */

static volatile uint32_t hops_left[BALLS];

static void on_ball(struct frame *f)
{
    struct cpu *c = this_cpu();
    unsigned ball = (unsigned)f->vector - FIRST_BALL, step = 1 + ball * 7 % (cpu_count - 1);

    c->got[f->vector]++;
    apic_write(APIC_EOI, 0);
    if (hops_left[ball] && --hops_left[ball])
        apic_icr((c->id + step) % cpu_count, (uint32_t)f->vector);
}

static bool thrown(void)
{
    for (unsigned i = 0; i < BALLS; i++)
        if (hops_left[i])
            return false;
    return true;
}

static uint64_t balls_caught(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < cpu_count; i++)
        for (unsigned b = 0; b < BALLS; b++)
            sum += cpu[i]->got[FIRST_BALL + b];
    return sum;
}

static void balls(void)
{
    uint32_t hops = (uint32_t)option_number("hops", 200);
    uint64_t before = balls_caught(), want = (uint64_t)BALLS * hops;

    for (unsigned b = 0; b < BALLS; b++) {
        on_vector(FIRST_BALL + b, on_ball);
        hops_left[b] = hops;
    }
    for (unsigned b = 0; b < BALLS; b++)
        apic_icr(b % cpu_count, FIRST_BALL + b);
    AWAIT(thrown(), 1000ull * 60 + hops * 10);
    fence(0, all_cpus());
    if (balls_caught() - before != want)
        note(0, 0, FIRST_BALL, want, balls_caught() - before);
    conclude("thrown from CPU to CPU");
}

void test_ipis(void)
{
    enter_xapic_mode(FLAT);
    send_all_kinds();
    remote_eoi();
    balls();
    enter_xapic_mode(CLUSTER);
    send_all_kinds();
    enter_x2apic();
    send_all_kinds();
    remote_eoi();
    balls();
}
