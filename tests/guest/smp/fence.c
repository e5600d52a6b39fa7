/* Interrupts are counted where they are taken; a fence tells that they have been. */
#include "smp.h"

void count_interrupts(void)
{
    count_real_mode_nmis();
    on_vector(NMI, count_here);
    for (unsigned v = FENCE; v < FIRST_BALL; v++)
        on_vector(v, count_here);
}

void job_send(struct cpu *c)
{
    apic_icr((uint32_t)(c->argument >> 32), (uint32_t)c->argument);
}

void send_from(unsigned id, uint32_t dest, uint32_t low)
{
    run_on(id, job_send, (uint64_t)dest << 32 | low);
}

uint64_t fence(unsigned from, uint64_t expected)
{
    static uint32_t before[MAX_CPUS];
    uint64_t answered = 0;

    for (unsigned i = 0; i < cpu_count; i++)
        before[i] = cpu[i]->got[FENCE];
    send_from(from, 0, ICR_ALL | FENCE);
    for (unsigned i = 0; i < cpu_count; i++)
        if (expected >> i & 1)
            AWAIT(cpu[i]->got[FENCE] != before[i], 5000);
    open_interrupts();
    for (unsigned i = 0; i < cpu_count; i++)
        if (cpu[i]->got[FENCE] != before[i])
            answered |= 1ull << i;
    return answered;
}
