/* More interrupts than a guest asks for: what each of them takes, its end included. */
#include "bench.h"

#define ROUNDS 200000u /* of the loop, two instructions each */
#define TICKS 5u /* at least, for a figure */
#define LIMIT_US 100000u
#define HPET_PIN 20
#define TICK 0x62u
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_TIMER0 = 0x100, HPET_COMPARATOR0 = 0x108, TN_ENABLE = 4, TN_PERIODIC = 8, TN_SET = 64 };

static volatile uint32_t ticks __asm__("storm_ticks");
void storm_tick(void);

/* Counts, and ends its interrupt. */
__asm__(".globl storm_tick\n"
        "storm_tick:\n\t"
        "push %rax\n\t"
        "incl storm_ticks\n\t"
        "mov $0xfee000b0, %eax\n\t"
        "movl $0, (%rax)\n\t"
        "pop %rax\n\t"
        "iretq\n");

/* How often a loop of known length is held up, and for how long in all: per tick. */
static uint64_t alone, period_us;

static void compute(void)
{
    uint64_t n = ROUNDS;

    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
}

static uint64_t per_tick(void)
{
    uint64_t from = rdtsc(), without = 0;

    ticks = 0;
    sti();
    while (ticks < TICKS && rdtsc() - from < us(LIMIT_US)) {
        compute();
        without += alone;
    }
    cli();
    return !ticks ? 0 : (uint64_t)((int64_t)(rdtsc() - from - without) / (int64_t)ticks);
}

static void end_level(void)
{
    irq4_set(false);
    mmio_write(LAPIC + APIC_EOI, 0);
    while (apic_bit(APIC_IRR, VECTOR)) {
        await_computing();
        mmio_write(LAPIC + APIC_EOI, 0);
    }
}

static void level_in_service(void)
{
    irq4_set(true);
    await_computing();
}

TIMED(take_next, end_xapic(); await_computing())

static const struct operation level = {"level that stays: its end to the next interrupt", take_next, level_in_service, end_level},
    periodic = {"local APIC timer: per tick", per_tick, NULL, NULL},
    hpet = {"HPET: per tick", per_tick, NULL, NULL}, pit = {"PIT: per tick", per_tick, NULL, NULL};

static void measure_alone(void)
{
    alone = UINT64_MAX;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t from = rdtsc(), took;

        compute();
        took = rdtsc() - from;
        alone = took < alone ? took : alone;
    }
}

static void level_storm(void)
{
    ioapic_set(4, IO_LEVEL | VECTOR);
    irq4_set(true);
    delay_us(100);
    if (apic_bit(APIC_IRR, VECTOR)) {
        await_computing();
        end_level();
        measure(&level);
    } else {
        skip(level.name, "COM1 gives no interrupt");
    }
    irq4_set(false);
    ioapic_set(4, IO_MASKED);
}

static void apic_storm(void)
{
    apic_write(APIC_LVT_TIMER, 0x20000 | TICK);
    apic_write(APIC_TMICT, (uint32_t)us(period_us));
    measure(&periodic);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | TICK);
    apic_write(APIC_TMICT, 0);
}

static void await_tick(void)
{
    uint64_t until = rdtsc() + us(LIMIT_US);

    ticks = 0;
    sti();
    while (!ticks && rdtsc() < until)
        ;
    cli();
}

static void hpet_storm(void)
{
    uint64_t counts = period_us * 1000000000ull / (hpet_read(0) >> 32);

    ioapic_set(HPET_PIN, IO_LOW | TICK);
    hpet_write(HPET_TIMER0, TN_ENABLE | TN_PERIODIC | TN_SET | HPET_PIN << 9);
    hpet_write(HPET_COMPARATOR0, hpet_read(HPET_COUNTER) + 100 * counts); /* or it has gone by */
    hpet_write(HPET_COMPARATOR0, counts);
    hpet_write(HPET_CONFIG, 1);
    await_tick();
    measure(&hpet);
    hpet_write(HPET_TIMER0, 0);
    hpet_write(HPET_CONFIG, 0);
    ioapic_set(HPET_PIN, IO_MASKED);
}

static void pit_storm(void)
{
    ioapic_set(2, TICK);
    pit_mode(0, 2, (uint16_t)muldiv(period_us, PIT_HZ_NUM, PIT_HZ_DEN * 1000000));
    measure(&pit);
    pit_mode(0, 0, 2);
    ioapic_set(2, IO_MASKED);
}

void bench_storms(void)
{
    period_us = option_number("period", 200);
    apic_set_x2(false);
    set_gate(TICK, storm_tick);
    apic_write(APIC_TDCR, 0xb);
    measure_alone();
    level_storm();
    apic_storm();
    if ((uint32_t)hpet_read(0) != UINT32_MAX && hpet_read(0))
        hpet_storm();
    pit_storm();
    open_interrupts();
}
