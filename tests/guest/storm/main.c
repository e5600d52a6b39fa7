/*
 * A neighbour that gives no rest. Words choose what it does, in turns; without any it does everything:
 *
 *   timers   local APIC timer every 20 us, HPET every 31 us, PIT every 107 us and RTC at 8,192 Hz, beside the rest
 *   ipi      IPIs to itself, each taken before the next
 *   exits    an exit of every kind that a guest can make: CPUID, MSRs, ports, string I/O, CR0, VMMCALL, APIC and HPET registers
 *   halt     HLT until a timer comes (with timers)
 *   compute  no exit at all
 *
 * rounds=N   ends after N rounds of some 1,000 of each; else it goes on for ever
 */
#include "guest.h"

#define ROUND 1000u
#define IPI_VECTOR 0x51
#define LAPIC_VECTOR 0x52
#define HPET_VECTOR 0x53
#define PIT_VECTOR 0x54
#define RTC_VECTOR 0x55
#define HPET_PIN 20
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_TIMER0 = 0x100, HPET_COMPARATOR0 = 0x108 };
enum { TN_ENABLE = 4, TN_PERIODIC = 8, TN_SET = 64, RTC_PIE = 0x40 };

static void on_hit_read_c(unsigned vector)
{
    if (vector == RTC_VECTOR)
        cmos_read(12);
}

static void start_timers(void)
{
    on_hit = on_hit_read_c;
    for (unsigned v = LAPIC_VECTOR; v <= RTC_VECTOR; v++)
        count_vector(v, EOI_LAPIC);
    ioapic_set(HPET_PIN, IO_LOW | HPET_VECTOR);
    ioapic_set(2, PIT_VECTOR);
    ioapic_set(8, RTC_VECTOR);
    hpet_write(HPET_TIMER0, TN_ENABLE | TN_PERIODIC | TN_SET | HPET_PIN << 9);
    hpet_write(HPET_COMPARATOR0, 443);
    hpet_write(HPET_COMPARATOR0, 443);
    hpet_write(HPET_CONFIG, 1);
    pit_mode(0, 2, 127);
    cmos_write(10, 0x23);
    cmos_write(11, 2 | RTC_PIE);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | LAPIC_VECTOR);
    apic_write(APIC_TMICT, (uint32_t)us(20));
}

static void ipis(void)
{
    for (unsigned i = 0; i < ROUND; i++) {
        uint32_t before = hits[IPI_VECTOR];

        apic_icr(0, 0x40000 | IPI_VECTOR);
        while (hits[IPI_VECTOR] == before)
            pause();
    }
}

static void exits(void)
{
    static uint8_t bytes[16];
    uint64_t msr;

    for (unsigned i = 0; i < ROUND / 10; i++) {
        void *to = bytes;
        size_t n = sizeof(bytes);

        cpuid(0, 0);
        try_rdmsr(0x1b, &msr);
        try_wrmsr(0x1b, msr);
        inb(0x21);
        outb(0x80, (uint8_t)i);
        __asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(0x61) : "memory");
        __asm__ volatile("mov %%cr0, %%rax; mov %%rax, %%cr0" : : : "rax", "memory");
        if (on_metronome())
            __asm__ volatile("vmmcall" : : "a"(-1l) : "memory");
        apic_read(APIC_TPR);
        hpet_read(HPET_COUNTER);
        pit_count(2);
        pm_timer();
    }
}

static void halts(void)
{
    for (unsigned i = 0; i < ROUND / 10; i++)
        __asm__ volatile("hlt" : : : "memory");
}

static void compute(void)
{
    uint64_t n = ROUND * 1000;

    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
}

static const struct {
    const char *word;
    void (*run)(void);
} activities[] = {{"ipi", ipis}, {"exits", exits}, {"halt", halts}, {"compute", compute}};
enum { ACTIVITIES = sizeof(activities) / sizeof(activities[0]) };

void guest_main(void)
{
    uint64_t rounds = option_number("rounds", UINT64_MAX);
    bool timers = option("timers"), all = !timers;

    for (unsigned i = 0; i < ACTIVITIES; i++)
        all = all && !option(activities[i].word);
    count_vector(IPI_VECTOR, EOI_LAPIC);
    if (timers || all)
        start_timers();
    sti();
    for (; rounds; rounds--)
        for (unsigned i = 0; i < ACTIVITIES; i++)
            if (all || option(activities[i].word))
                activities[i].run();
    cli();
}
