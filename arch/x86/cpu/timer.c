/*
 * The CPU's one-shot timer.
 */
#include "setup.h"
#include "wide.h"

static uint64_t counts_per_tick; /* of the TSC, 32.32 fixed point */
static uint64_t longest;         /* TSC ticks until the count would not fit */

void timer_init(uint64_t lapic_hz)
{
    counts_per_tick = muldiv_u64(lapic_hz, 1ull << 32, tsc_hz);
    longest = muldiv_u64(UINT32_MAX - 1, 1ull << 32, counts_per_tick ? counts_per_tick : 1);
    timer_init_cpu();
}

void timer_init_cpu(void)
{
    lapic_timer_mode(cpu_features.tsc_deadline ? TIMER_DEADLINE : TIMER_ONE_SHOT);
}

void host_timer_arm(uint64_t tsc)
{
    if (cpu_features.tsc_deadline) {
        lapic_timer_deadline(tsc == UINT64_MAX ? 0 : tsc ? tsc : 1); /* 0 stops it */
        return;
    }
    if (tsc == UINT64_MAX) {
        lapic_timer_one_shot(0);
        return;
    }
    int64_t left = (int64_t)(tsc - rdtsc());
    uint64_t ticks = left > 0 ? (uint64_t)left : 0;
    struct u128 p = mul_u64(ticks < longest ? ticks : longest, counts_per_tick);
    lapic_timer_one_shot((uint32_t)(p.hi << 32 | p.lo >> 32) + 1); /* rounded up: never early by less than a count */
}

static void expired(void *argument)
{
    *(volatile bool *)argument = true;
}

void sleep_us(uint32_t us)
{
    volatile bool done = false;
    uint64_t until = rdtsc() + muldiv_u64(us, tsc_hz, 1000000);
    irq_set_handler(VECTOR_TIMER, expired, (void *)&done);
    while (rdtsc() < until) {
        done = false;
        host_timer_arm(until);
        while (!done)
            sti_hlt_cli();
    }
    irq_set_handler(VECTOR_TIMER, NULL, NULL);
}
