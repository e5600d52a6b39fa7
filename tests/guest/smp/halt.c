/*
 * STI; HLT and a timer: its interrupt ends the halt, and never comes before it, in the shadow of STI, however often the CPU
 * is disturbed meanwhile by others' interrupts.
 */
#include "smp.h"

static void job_doze(struct cpu *c)
{
    uint64_t dozes = c->argument;

    timer_init();
    for (uint64_t i = 0; i < dozes; i++) {
        apic_write(APIC_TMICT, 1 + (uint32_t)(i * 7919 % 30000));
        halt();
        c->answer = i + 1;
    }
}

static void disturb(void)
{
    for (unsigned i = 2; i < cpu_count; i++)
        apic_icr(i, TESTED);
}

void test_halt(void)
{
    struct cpu *c = cpu[1];
    uint64_t dozes = option_number("dozes", 1000), seen = 0, since = rdtsc();
    unsigned overslept = 0;

    c->answer = 0;
    give_job(1, job_doze, dozes);
    while (c->job) {
        disturb();
        pause();
        if (c->answer != seen) {
            seen = c->answer;
            since = rdtsc();
        } else if (rdtsc() - since > us(5000000)) {
            overslept++;
            since = rdtsc();
            apic_icr(1, TESTED);
        }
    }
    check(overslept == 0, "a timer ends a halt", "%u times in %lu it did not", overslept, dozes);
}
