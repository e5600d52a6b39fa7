#include "guest.h"

uint64_t tsc_hz;

uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t high, low;
    __asm__("mulq %3" : "=a"(low), "=d"(high) : "0"(a), "r"(b) : "cc");
    __asm__("divq %2" : "+a"(low), "+d"(high) : "r"(c) : "cc");
    return low;
}

/* A PM timer reading with the TSC at it, from the tightest of a few brackets: on a busy host a reading may be late by far. */
static uint32_t pm_and_tsc(uint64_t *tsc)
{
    uint64_t best = UINT64_MAX;
    uint32_t pm = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t a = rdtsc();
        uint32_t p = pm_timer();
        uint64_t b = rdtsc();
        if (b - a < best) {
            best = b - a;
            pm = p;
            *tsc = a + (b - a) / 2;
        }
    }
    return pm;
}

static uint64_t stated_tsc_hz(void)
{
    return option_number("hz", on_metronome() ? cpuid(0x40000010, 0).eax * 1000ull : 0);
}

void time_init(void)
{
    uint64_t a, b;
    uint32_t p = pm_and_tsc(&a), q;
    while (pm_since(p) < PM_HZ / 50)
        pause();
    q = pm_and_tsc(&b);
    tsc_hz = stated_tsc_hz();
    if (!tsc_hz)
        tsc_hz = (b - a) * PM_HZ / ((q - p) & 0xffffff);
}

uint64_t us(uint64_t n)
{
    return n * (tsc_hz / 1000) / 1000;
}

void delay_us(uint64_t n)
{
    uint64_t start = rdtsc();
    while (rdtsc() - start < us(n))
        pause();
}

void run_us(uint64_t n)
{
    sti();
    delay_us(n);
    cli();
}

/* Halts, so that a machine under icount skips the idle time; the local APIC's timer ends a wait for what never comes. */
bool wait_hits(unsigned vector, uint32_t n, uint64_t ms)
{
    uint64_t start = rdtsc();
    count_vector(WATCHDOG, EOI_LAPIC);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, WATCHDOG | 0x20000);
    apic_write(APIC_TMICT, 2000000); /* some milliseconds, whatever its rate */
    while (hits[vector] < n && rdtsc() - start < us(ms * 1000))
        halt();
    apic_write(APIC_LVT_TIMER, APIC_MASKED | WATCHDOG);
    apic_write(APIC_TMICT, 0);
    open_interrupts(); /* one that was on its way */
    return hits[vector] >= n;
}

bool near(uint64_t got, uint64_t want, uint64_t ppm, uint64_t slack)
{
    uint64_t d = got > want ? got - want : want - got;
    return d <= want / 1000000 * ppm + want % 1000000 * ppm / 1000000 + slack;
}
