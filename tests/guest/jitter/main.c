/*
 * How late a timer's interrupt is in its handler, against the TSC at which it was due: for exact time (icount), where a TSC
 * tick is an instruction. The guest computes or halts meanwhile. Options: samples=N.
 */
#include "guest.h"

#define VECTOR 0x61
#define HPET_PIN 20
#define MOST 4000u
#define MSR_TSC_DEADLINE 0x6e0

static uint64_t late[MOST];
static unsigned early;

static void arm_deadline(uint64_t due)
{
    wrmsr(MSR_TSC_DEADLINE, due);
}

static void sort(uint64_t *a, unsigned n)
{
    for (unsigned gap = n / 2; gap; gap /= 2)
        for (unsigned i = gap; i < n; i++)
            for (unsigned j = i; j >= gap && a[j - gap] > a[j]; j -= gap) {
                uint64_t t = a[j];
                a[j] = a[j - gap];
                a[j - gap] = t;
            }
}

static void report(const char *name, unsigned n)
{
    sort(late, n);
    print("%s: p50 %lu p99 %lu p99.9 %lu max %lu, of %u\n", name, late[n / 2], late[n * 99 / 100], late[n * 999 / 1000], late[n - 1], n);
    check(!early, name, "%u early", early);
}

static void book(unsigned i, uint64_t due)
{
    uint64_t hit = hit_tsc[VECTOR];

    early += hit < due;
    late[i] = hit < due ? 0 : hit - due;
}

static void wait_one(uint32_t before, bool halts)
{
    while (halts && hits[VECTOR] == before)
        halt();
    sti();
    while (hits[VECTOR] == before)
        ;
    cli();
}

/* One-shots at chosen instants, of irregular distances. */
static void one_shots(const char *name, void (*arm)(uint64_t due), bool halts)
{
    unsigned n = (unsigned)option_number("samples", 1000);

    early = 0;
    for (unsigned i = 0; i < n && i < MOST; i++) {
        uint32_t before = hits[VECTOR];
        uint64_t due = rdtsc() + 30000 + i * 7919 % 20011;

        arm(due);
        wait_one(before, halts);
        book(i, due);
    }
    report(name, n < MOST ? n : MOST);
}

/* Expiries of a period that is a whole number of TSC ticks, against the one that was least late. */
static void periodic(const char *name)
{
    unsigned n = (unsigned)option_number("samples", 1000);
    uint64_t first = 0, least = UINT64_MAX;
    uint32_t period = 50021;

    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | VECTOR);
    apic_write(APIC_TMICT, period);
    early = 0;
    for (unsigned i = 0; i < n && i < MOST; i++) {
        wait_one(hits[VECTOR], false);
        first = i ? first : hit_tsc[VECTOR] - period;
        late[i] = hit_tsc[VECTOR] - first - (uint64_t)i * period;
        least = late[i] < least ? late[i] : least;
    }
    apic_write(APIC_TMICT, 0);
    for (unsigned i = 0; i < n && i < MOST; i++)
        late[i] -= least;
    report(name, n < MOST ? n : MOST);
}

void guest_main(void)
{
    apic_enable();
    count_vector(VECTOR, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    one_shots("TSC deadline, computing", arm_deadline, false);
    one_shots("TSC deadline, halted", arm_deadline, true);
    periodic("local APIC timer, periodic, spread");
}
