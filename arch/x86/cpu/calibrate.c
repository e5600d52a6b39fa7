/*
 * How fast the TSC and the local APIC's timer count: measured against the HPET or the ACPI PM timer.
 *
 * A bracket is two simultaneous readings of all three, at least 100 ms apart; the CPU halts in between, woken by the
 * very timer that is measured, so that an emulator costs nothing and a run that counts instructions skips the time. The
 * bracket whose readings took the shortest counts. Of the frequencies that it allows, the roundest is taken.
 */
#include "acpi.h"
#include "boot.h"
#include "console.h"
#include "setup.h"
#include "wide.h"

#define BRACKETS             3
#define BRACKET_MS           101
#define READINGS             8
#define FEMTO                1000000000000000ull
#define PM_TIMER_HZ          3579545u
#define STATED_TOLERANCE_PPM 1000u

uint64_t tsc_hz;

/* The clock that the others are measured by. */
static struct {
    const char *name;
    volatile uint32_t *hpet;
    uint16_t port;
    uint64_t hz;
    uint32_t mask;
} reference;

struct reading {
    uint64_t tsc;
    uint32_t reference, lapic, gap; /* gap: ticks that the reading took */
};

struct rates {
    uint64_t tsc_hz, lapic_hz;
    uint64_t uncertainty; /* of tsc_hz, in Hz */
};

enum { HPET_CONFIG = 0x10 / 4, HPET_COUNTER = 0xf0 / 4, HPET_ENABLE = 1 };

static bool use_hpet(void)
{
    uint64_t base = acpi_hpet();
    volatile uint32_t *hpet = base ? map_physical(base, 0x400, MAP_DEVICE) : NULL;
    if (!hpet)
        return false;
    uint32_t period = hpet[1]; /* femtoseconds, at most 100 ns */
    if (!period || period > 100000000) {
        unmap_physical((void *)hpet, 0x400);
        return false;
    }
    hpet[HPET_CONFIG] |= HPET_ENABLE;
    reference.name = "HPET";
    reference.hpet = hpet;
    reference.hz = (FEMTO + period / 2) / period;
    reference.mask = UINT32_MAX;
    return true;
}

static bool use_pm_timer(void)
{
    reference.port = acpi_pm_timer();
    reference.name = "PM timer";
    reference.hz = PM_TIMER_HZ;
    reference.mask = 0xffffff;
    return reference.port != 0;
}

static uint32_t read_reference(void)
{
    return reference.hpet ? reference.hpet[HPET_COUNTER] : inl(reference.port) & reference.mask;
}

static struct reading read_all(void)
{
    struct reading best = {.gap = UINT32_MAX};
    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t before = rdtsc();
        uint32_t r = read_reference(), l = lapic_timer_count();
        uint64_t after = rdtsc();
        if (after - before < best.gap)
            best = (struct reading){before + (after - before) / 2, r, l, (uint32_t)(after - before)};
    }
    return best;
}

/* A first idea of the timer's rate, so that its count can be set to a bracket's length. */
static uint64_t estimate_lapic(void)
{
    uint32_t from, ticks = (uint32_t)(reference.hz / 1000);
    lapic_timer_mode(TIMER_ONE_SHOT);
    irq_set_handler(VECTOR_TIMER, NULL, NULL);
    from = read_reference();
    lapic_timer_one_shot(UINT32_MAX);
    while (((read_reference() - from) & reference.mask) < ticks)
        pause();
    uint32_t passed = (read_reference() - from) & reference.mask;
    return muldiv_u64(UINT32_MAX - lapic_timer_count(), reference.hz, passed);
}

static void woken(void *argument)
{
    *(volatile bool *)argument = true;
}

static struct rates bracket(uint32_t period)
{
    volatile bool done = false;
    irq_set_handler(VECTOR_TIMER, woken, (void *)&done);
    lapic_timer_mode(TIMER_PERIODIC);
    lapic_timer_one_shot(period);
    struct reading a = read_all();
    while (!done)
        sti_hlt_cli();
    struct reading b = read_all();
    lapic_timer_one_shot(0);
    irq_set_handler(VECTOR_TIMER, NULL, NULL);

    uint32_t passed = (b.reference - a.reference) & reference.mask;
    /* The timer has been reloaded once, or more often where the host took the CPU away. */
    uint64_t coarse = muldiv_u64(passed, period, reference.hz * BRACKET_MS / 1000), reload = (uint64_t)period + 1;
    uint64_t counts = (uint64_t)a.lapic - b.lapic, rounds = (coarse - counts + reload / 2) / reload;
    struct rates r = {muldiv_u64(b.tsc - a.tsc, reference.hz, passed),
                      muldiv_u64(counts + rounds * reload, reference.hz, passed), 0};
    /* In ticks of the TSC: half of each reading's length, one step of the reference at each end. */
    uint64_t error = (a.gap + b.gap) / 2 + 2 * r.tsc_hz / reference.hz;
    r.uncertainty = muldiv_u64(error, reference.hz, passed);
    return r;
}

/* The number with most trailing zeros in [hz - u, hz + u]. */
static uint64_t roundest(uint64_t hz, uint64_t u)
{
    for (uint64_t step = 1000000000; step > 1; step /= 10) {
        uint64_t r = (hz + step / 2) / step * step;
        if (r && (r > hz ? r - hz : hz - r) <= u)
            return r;
    }
    return hz;
}

/* What the CPU or the hypervisor below says, 0: nothing. */
static uint64_t stated_hz(void)
{
    struct cpuid_result r;
    if (cpuid(1, 0).ecx & 1u << 31 && cpuid(0x40000000, 0).eax >= 0x40000010 && cpuid(0x40000010, 0).eax)
        return cpuid(0x40000010, 0).eax * 1000ull;
    if (cpuid(0, 0).eax < 0x15)
        return 0;
    r = cpuid(0x15, 0);
    return r.eax && r.ebx && r.ecx ? muldiv_u64(r.ecx, r.ebx, r.eax) : 0;
}

static void settle(const struct rates *best)
{
    uint64_t stated = stated_hz(), forced, measured = best->tsc_hz;
    uint64_t difference = stated > measured ? stated - measured : measured - stated;
    const char *source = reference.name;
    tsc_hz = roundest(measured, best->uncertainty);
    if (stated && difference <= measured / 1000000 * STATED_TOLERANCE_PPM) {
        tsc_hz = stated;
        source = "CPUID";
    }
    if (boot_option_number("tsc_hz", &forced) && forced) {
        tsc_hz = forced;
        source = "the command line";
    }
    /* Rounded like the TSC, with the same relative error. */
    uint64_t lapic_hz = roundest(best->lapic_hz, muldiv_u64(best->lapic_hz, best->uncertainty, measured));
    uint64_t ppb = muldiv_u64(best->uncertainty, 1000000000, measured);
    log_info("TSC %llu Hz by %s, measured %llu +- %llu.%03llu ppm; local APIC timer %llu Hz%s\n",
             (unsigned long long)tsc_hz, source, (unsigned long long)measured, (unsigned long long)ppb / 1000,
             (unsigned long long)ppb % 1000, (unsigned long long)lapic_hz,
             cpu_features.tsc_deadline ? ", TSC deadline" : "");
    timer_init(lapic_hz);
}

void calibrate(void)
{
    struct rates best = {.uncertainty = UINT64_MAX};
    if (!use_hpet() && !use_pm_timer())
        panic("neither HPET nor PM timer: nothing to measure the TSC by");
    uint64_t period = estimate_lapic() * BRACKET_MS / 1000;
    if (!period || period >= UINT32_MAX)
        panic("the local APIC's timer does not count");
    for (unsigned i = 0; i < BRACKETS; i++) {
        struct rates r = bracket((uint32_t)period);
        if (r.uncertainty < best.uncertainty)
            best = r;
    }
    if (reference.hpet)
        unmap_physical((void *)reference.hpet, 0x400);
    settle(&best);
}
