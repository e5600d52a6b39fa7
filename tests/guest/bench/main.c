/*
 * What each operation costs a guest, in TSC ticks: the same image on Metronome, KVM and Xen. One line for each,
 *
 *     bench NAME: n N min TICKS p50 TICKS p99 TICKS max TICKS
 *
 * of N repetitions, less what an empty measurement takes; or `skip NAME: why`. Words: samples=N; exits, x2apic, interrupts, storms,
 * ipis, requests: only these parts. cpus=N: how many vCPUs there are. period=US of timers that tick (KVM clamps less than 200).
 *
 * tests/bench/profile.py stops at profile_begin() and profile_end(), which stand around the last repetition, and sees what the
 * hypervisor does between them.
 */
#include "bench.h"

#define MOST 2000u
#define WARM 3u

void profile_begin(const char *name);
void profile_end(void);

static int64_t took[MOST];
static unsigned samples;
static uint64_t reading; /* what two readings of the TSC are apart */

__attribute__((noinline)) void profile_begin(const char *name)
{
    __asm__ volatile("" : : "r"(name) : "memory");
}

__attribute__((noinline)) void profile_end(void)
{
    __asm__ volatile("" : : : "memory");
}

uint64_t ticks_since(uint64_t tsc)
{
    return rdtsc() - tsc;
}

static void once(const struct operation *o, unsigned i, bool mark)
{
    uint64_t (*volatile take)(void) = o->take; /* one place of one instruction each time */

    if (o->prepare)
        o->prepare();
    if (mark)
        profile_begin(o->name);
    took[i] = (int64_t)(take() - reading);
    if (mark)
        profile_end();
    if (o->finish)
        o->finish();
}

void measure(const struct operation *o)
{
    for (unsigned i = 0; i < WARM; i++)
        once(o, 0, false);
    for (unsigned i = 0; i < samples; i++)
        once(o, i, i + 1 == samples);
    sort(took, samples);
    print("bench %s: n %u min %ld p50 %ld p99 %ld max %ld\n", o->name, samples, took[0], permille(took, samples, 500),
          permille(took, samples, 990), took[samples - 1]);
}

void measure_all(const struct operation *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        measure(&list[i]);
}

bool has_x2apic(void)
{
    return cpuid(1, 0).ecx & 1u << 21;
}

bool has_tsc_deadline(void)
{
    return cpuid(1, 0).ecx & 1u << 24;
}

TIMED(take_nothing, (void)0)

static void measure_reading(void)
{
    static const struct operation nothing = {"nothing", take_nothing, NULL, NULL};

    measure(&nothing);
    reading = (uint64_t)permille(took, samples, 500);
}

static void interrupts(void)
{
    bench_interrupts(false);
}

static void x2apic(void)
{
    if (!has_x2apic()) {
        skip("x2APIC", "the CPU has none");
        return;
    }
    bench_x2apic();
    bench_interrupts(true);
}

static const struct {
    const char *word;
    void (*run)(void);
} parts[] = {{"exits", bench_exits}, {"requests", bench_requests}, {"ipis", bench_cpus}, {"interrupts", interrupts},
             {"x2apic", x2apic}, {"storms", bench_storms}};
enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

void guest_main(void)
{
    bool all = true;

    samples = (unsigned)option_number("samples", 200);
    samples = samples < 2 ? 2 : samples > MOST ? MOST : samples;
    for (unsigned i = 0; i < PARTS; i++)
        all = all && !option(parts[i].word);
    set_gate(VECTOR, taken);
    set_gate(PIC_BASE, taken);
    apic_write(APIC_TDCR, 0xb);
    print("# %lu TSC ticks a second\n", tsc_hz);
    measure_reading();
    for (unsigned i = 0; i < PARTS; i++)
        if (all || option(parts[i].word))
            parts[i].run();
    check(true, "measured", "-");
}
