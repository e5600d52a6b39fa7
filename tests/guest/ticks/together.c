/* Four sources at once, of periods that share no factor for long: each runs through all phases of the others. */
#include "ticks.h"

#define HPET_PIN 20
#define HPET_VECTOR 0x59
#define LAPIC_VECTOR 0x71
#define MASTER_HZ_NUM 157500000ull /* over 11: the HPET's */
#define HPET_CONFIG 0x10
#define HPET_TIMER0 0x100
#define HPET_COMPARATOR0 0x108
enum { TN_ENABLE = 4, TN_PERIODIC = 8, TN_SET = 64 };

static void start_pit(struct train *t)
{
    t->begin = rdtsc();
    pit_mode(0, 2, (uint16_t)t->period);
    t->end = rdtsc();
}

static void start_hpet(struct train *t)
{
    ioapic_set(HPET_PIN, IO_LOW | HPET_VECTOR);
    hpet_write(0xf0, 0);
    hpet_write(HPET_TIMER0, TN_ENABLE | TN_PERIODIC | TN_SET | HPET_PIN << 9);
    hpet_write(HPET_COMPARATOR0, t->period);
    hpet_write(HPET_COMPARATOR0, t->period);
    t->begin = rdtsc();
    hpet_write(HPET_CONFIG, 1);
    t->end = rdtsc();
}

static void start_lapic(struct train *t)
{
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | LAPIC_VECTOR);
    t->begin = rdtsc();
    apic_write(APIC_TMICT, (uint32_t)t->period);
    t->end = rdtsc();
}

void test_together(enum path path)
{
    enum { RTC, PIT, HPET_0, APIC_TIMER, ALL };
    struct train t[ALL] = {
        [RTC] = rtc_train("together: RTC", 16, 32),
        [PIT] = {.name = "together: PIT", .hz_num = PIT_HZ_NUM, .hz_den = PIT_HZ_DEN, .first = 1193, .period = 1193},
        [HPET_0] = {.name = "together: HPET", .hz_num = MASTER_HZ_NUM, .hz_den = 11, .first = 14321, .period = 14321},
        [APIC_TIMER] = {.name = "together: local APIC timer", .hz_num = tsc_hz, .hz_den = 1, .first = 999983, .period = 999983},
    };
    train_on_isa(&t[RTC], 8, path);
    train_on_isa(&t[PIT], 0, path);
    train_on(&t[HPET_0], HPET_VECTOR, EOI_LAPIC);
    train_on(&t[APIC_TIMER], LAPIC_VECTOR, EOI_LAPIC);
    rtc_start(&t[RTC], 6, RTC_PIE);
    start_pit(&t[PIT]);
    start_hpet(&t[HPET_0]);
    start_lapic(&t[APIC_TIMER]);
    trains_run(t, ALL, rdtsc() + option_number("seconds", 10) * tsc_hz);
}
