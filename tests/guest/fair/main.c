/*
 * CPUs that share fewer physical ones: what each gets while all compute, how soon one is awake that slept, what one gets that
 * wakes all the time, and what spinning costs. The other CPUs run in real mode and count. Options: cpus=N as the machine has,
 * on=N physical ones, slack=N percent that shares may be less, strict: time is exact.
 */
#include "guest.h"

#define MODE 0x5f0u  /* what the others do: MODE_* */
#define TOKEN 0x5f4u /* whose turn it is, in MODE_RING */
#define CPUS 0x5f8u
#define COUNTS 0x600u /* by APIC id, 4 bytes each */
#define MOST 32u
#define VECTOR 0x61
#define MSR_TSC_DEADLINE 0x6e0
#define SLICE_US 2000u /* sched.c */

enum { MODE_COUNT, MODE_RING };

extern const char ap_start[], ap_end[];

__asm__(".pushsection .text\n"
        ".code16\n"
        "ap_start:\n\t"
        "xor %ax, %ax\n\t"
        "mov %ax, %ds\n\t"
        "mov $1, %eax\n\t"
        "cpuid\n\t"
        "shr $24, %ebx\n\t"
        "mov %bx, %si\n\t"
        "shl $2, %si\n"
        "1: cmpb $0, 0x5f0\n\t"
        "jne 2f\n\t"
        "incl 0x600(%si)\n\t"
        "jmp 1b\n"
        "2: pause\n\t"
        "cmp 0x5f4, %ebx\n\t"
        "jne 1b\n\t"
        "incl 0x600(%si)\n\t"
        "mov %ebx, %ecx\n\t"
        "inc %ecx\n\t"
        "cmp 0x5f8, %ecx\n\t"
        "jb 3f\n\t"
        "mov $1, %ecx\n" /* the first CPU measures */
        "3: mov %ecx, 0x5f4\n\t"
        "jmp 1b\n"
        "ap_end:\n"
        ".code64\n"
        ".popsection\n");

static unsigned cpus, physical, slack;
static uint64_t full; /* what the others count, all together, in a time that they have for themselves */

struct counted {
    uint64_t sum, least, most;
};

static void sleep_until(uint64_t due)
{
    uint32_t before = hits[VECTOR];

    wrmsr(MSR_TSC_DEADLINE, due);
    while (hits[VECTOR] == before)
        halt();
}

static void sleep_through(uint64_t ticks)
{
    sleep_until(rdtsc() + ticks);
}

static void compute(uint64_t ticks)
{
    uint64_t end = rdtsc() + ticks;

    while (rdtsc() < end)
        ;
}

/* Wakes for 50 us in every 60. */
static void wake_often(uint64_t ticks)
{
    uint64_t end = rdtsc() + ticks, next = rdtsc();

    while (rdtsc() < end) {
        next += us(60);
        sleep_until(next);
        compute(us(50));
        next = next < rdtsc() ? rdtsc() : next;
    }
}

/* What the others count while the first CPU does that. */
static struct counted count_while(void (*does)(uint64_t ticks), uint64_t ticks)
{
    uint32_t before[MOST];
    struct counted c = {0, UINT64_MAX, 0};

    for (unsigned i = 1; i < cpus; i++)
        before[i] = *word(COUNTS + 4 * i);
    does(ticks);
    for (unsigned i = 1; i < cpus; i++) {
        uint32_t n = *word(COUNTS + 4 * i) - before[i];

        c.sum += n;
        c.least = n < c.least ? n : c.least;
        c.most = n > c.most ? n : c.most;
    }
    return c;
}

/* In percent of what the first CPU's being there leaves to all others, and of each other's fair part of that. */
static void check_shares(const char *name, void (*does)(uint64_t ticks), uint64_t ticks)
{
    struct counted c = count_while(does, ticks);
    uint64_t left = full * (cpus * physical - physical) / (cpus * physical), fair = c.sum / (cpus - 1);

    print("%s: the others have %lu %% of their share, each from %lu to %lu %% of the mean\n", name, c.sum * 100 / left,
          c.least * 100 / fair, c.most * 100 / fair);
    check(c.sum * 100 / left + slack >= 100, name, "all others %lu of %lu", c.sum, left);
    check(c.least * 100 / fair + slack >= 100, name, "the least %lu of %lu", c.least, fair);
}

/* A CPU that sleeps most of the time goes first when its interrupt comes. */
static void check_wake_ups(void)
{
    uint64_t worst = 0, sum = 0, n = 400;

    for (unsigned i = 0; i < n; i++) {
        uint64_t due = rdtsc() + us(300 + i * 7919 % 2000);

        sleep_until(due);
        sum += hit_tsc[VECTOR] - due;
        worst = hit_tsc[VECTOR] - due > worst ? hit_tsc[VECTOR] - due : worst;
    }
    print("awake after sleep: %lu ticks late on average, %lu at worst\n", sum / n, worst);
    if (strict)
        check(worst <= us(2), "awake at once", "%lu ticks late", worst);
}

/* The turn goes round: each waits for its own with PAUSE. A CPU that spun on through its slice would be 2 ms a turn. */
static void check_spinning(uint64_t ticks)
{
    struct counted c;
    uint64_t slices = ticks / us(SLICE_US);

    *word(TOKEN) = 1;
    *word(MODE) = MODE_RING;
    c = count_while(sleep_through, ticks);
    *word(MODE) = MODE_COUNT;
    print("spinning: %lu turns in the time of %lu slices\n", c.sum, slices);
    if (strict)
        check(c.sum >= 10 * slices, "who spins makes way", "%lu turns in the time of %lu slices", c.sum, slices);
}

void guest_main(void)
{
    uint64_t ticks = us(option_number("ms", 400) * 1000);

    cpus = (unsigned)option_number("cpus", 2);
    physical = (unsigned)option_number("on", 1);
    slack = (unsigned)option_number("slack", 10);
    apic_enable();
    count_vector(VECTOR, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    place_start(ap_start, ap_end);
    memset(at(COUNTS), 0, 4 * MOST);
    *word(MODE) = MODE_COUNT;
    *word(CPUS) = cpus;
    for (unsigned i = 1; i < cpus; i++) {
        start_cpu(i);
    }
    sleep_through(ticks / 4);
    full = count_while(sleep_through, ticks).sum;
    check_shares("all compute", compute, ticks);
    check_shares("one wakes all the time", wake_often, ticks);
    check_wake_ups();
    check_spinning(ticks);
}
