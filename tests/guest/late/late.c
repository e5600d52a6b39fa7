/*
 * Ticks of the local APIC's timer, for tests of the commands that show how late they are, and what makes them so.
 *   period=US  from one to the next: 1000
 *   ticks=N    then it ends; without it, it goes on for ever
 *   cpuid=N    in each tenth period, from its end on, N CPUID instructions with interrupts off
 *   spin       no ticks: computes for ever
 */
#include "guest.h"

#define VECTOR 0x71
#define MSR_TSC_DEADLINE 0x6e0u

static void deaf_cpuids(uint64_t from, uint64_t n)
{
    while (rdtsc() < from)
        ;
    while (n--)
        cpuid(0, 0);
}

static void tick(uint64_t due, uint64_t cpuids)
{
    uint32_t before = hits[VECTOR];

    wrmsr(MSR_TSC_DEADLINE, due);
    deaf_cpuids(cpuids ? due : 0, cpuids);
    while (hits[VECTOR] == before)
        halt();
}

void guest_main(void)
{
    uint64_t period = us(option_number("period", 1000)), ticks = option_number("ticks", UINT64_MAX), cpuids = option_number("cpuid", 0);
    uint64_t due = rdtsc();

    print("late: runs\n");
    while (option("spin"))
        pause();
    count_vector(VECTOR, EOI_LAPIC);
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    for (uint64_t i = 1; i <= ticks; i++) {
        due = due + period > rdtsc() ? due + period : rdtsc() + period;
        tick(due, i % 10 ? 0 : cpuids);
    }
    check(hits[VECTOR] == ticks, "all ticks came", "%u", hits[VECTOR]);
}
