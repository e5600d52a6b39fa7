/*
 * Interrupts counted one by one: the RTC's at every rate, its updates and alarms; then those of PIT, HPET, RTC and local
 * APIC timer together. Through the PIC, and through the I/O APIC. Late is wrong where time is exact (option `strict`).
 */
#include "ticks.h"

#define LATE_US 60 /* an interrupt's way, and the handlers of three others before it */
#define IOAPIC_VECTOR(irq) (0x60 + (irq))
#define STOP_VECTOR 0x31
#define MSR_TSC_DEADLINE 0x6e0u

static struct train *train_of[256];

static uint64_t tsc_of_counts(const struct train *t, uint64_t counts)
{
    return muldiv(counts, tsc_hz * t->hz_den, t->hz_num);
}

static uint64_t ns_of_tsc(uint64_t ticks)
{
    return muldiv(ticks, 1000000000, tsc_hz);
}

static void on_train(unsigned vector)
{
    struct train *t = train_of[vector];
    if (!t)
        return;
    int64_t late = (int64_t)(hit_tsc[vector] - tsc_of_counts(t, t->first + t->came++ * t->period) - t->begin);
    t->earliest = late < t->earliest ? late : t->earliest;
    t->latest = late > t->latest ? late : t->latest;
    if (t->acknowledge)
        t->acknowledge();
}

void train_on(struct train *t, unsigned vector, enum eoi how)
{
    t->came = 0;
    t->earliest = INT64_MAX;
    t->latest = INT64_MIN;
    train_of[vector] = t;
    count_vector(vector, how);
    on_hit = on_train;
}

void train_on_isa(struct train *t, unsigned irq, enum path path)
{
    if (path == BY_IOAPIC) {
        train_on(t, IOAPIC_VECTOR(irq), EOI_LAPIC);
        ioapic_set(irq ? irq : 2, IOAPIC_VECTOR(irq));
        return;
    }
    train_on(t, PIC_BASE + irq, EOI_PIC);
    apic_write(APIC_LVT_LINT0, 0x700);
    pic_mask((uint16_t)((inb(0x21) | inb(0xa1) << 8) & ~(1u << irq | 1u << 2)));
}

uint64_t train_after(const struct train *t, uint64_t count)
{
    return t->end + tsc_of_counts(t, t->first + (count - 1) * t->period + t->period / 2);
}

/* How many are due until then. */
static uint64_t due_by(const struct train *t, uint64_t tsc)
{
    uint64_t counts = muldiv(tsc, t->hz_num, tsc_hz * t->hz_den);
    return counts < t->first ? 0 : (counts - t->first) / t->period + 1;
}

/* It started at some time from its begin to its end, or `early` counts before. */
static void judge(const struct train *t, uint64_t stop)
{
    int64_t early = -t->earliest - (int64_t)tsc_of_counts(t, t->early) - 1, late = t->latest - (int64_t)(t->end - t->begin);
    uint64_t least = due_by(t, stop - us(LATE_US) - t->end), most = due_by(t, stop - t->begin + tsc_of_counts(t, t->early) + 1);

    print("%5lu in %10lu us, jitter %5lu ns: %s\n", t->came, ns_of_tsc(stop - t->end) / 1000,
          t->came ? ns_of_tsc((uint64_t)(t->latest - t->earliest)) : 0, t->name);
    check(early <= 0 && (!strict || (t->came >= least && t->came <= most && late <= (int64_t)us(LATE_US))), t->name,
          "%lu came of %lu to %lu, one %ld TSC ticks early, one %ld late", t->came, least, most, early, late);
}

void trains_run(struct train *trains, unsigned n, uint64_t until)
{
    if (apic_read(APIC_LVT_TIMER) & APIC_MASKED) {
        count_vector(STOP_VECTOR, EOI_LAPIC);
        apic_write(APIC_LVT_TIMER, 0x40000 | STOP_VECTOR);
        wrmsr(MSR_TSC_DEADLINE, until);
    }
    while (rdtsc() < until)
        halt();
    until = rdtsc();
    quiet();
    for (unsigned i = 0; i < n; i++)
        judge(&trains[i], until);
}

void quiet(void)
{
    cli();
    pit_mode(0, 0, 2); /* OUT goes high and stays */
    cmos_write(11, 2); /* 24 hours, no interrupt */
    cmos_read(12);
    hpet_write(0x10, 0);
    pic_init();
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    apic_enable();
    memset(train_of, 0, sizeof(train_of));
    open_interrupts(); /* what came since interrupts were off */
    open_interrupts();
}

void guest_main(void)
{
    static const char *const name[] = {"PIC", "I/O APIC"};

    print("TSC %lu Hz%s\n", tsc_hz, strict ? ", exact" : "");
    for (enum path path = 0; path < PATHS; path++) {
        print("through the %s:\n", name[path]);
        quiet();
        test_rtc(path);
        test_together(path);
    }
    check(masked_hits == 0, "none came with interrupts off", "%u did", masked_hits);
}
