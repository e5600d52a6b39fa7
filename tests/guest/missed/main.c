/*
 * Counts the ticks of every periodic timer for `seconds=N` while it goes deaf now and then: behind the TPR for up to 60 ms,
 * halted, and with interrupts off for up to 3 ms. With `pic` PIT and RTC come through the PICs. It says what it has counted
 * and for how long each timer ran; tests/system/test_missed_ticks.py holds that to the hypervisor's ledger. With `storm` it
 * then leaves a level interrupt's cause alone for 50 ms.
 */
#include "guest.h"

enum { PIT = 0x40, RTC, EDGE, LEVEL, FSB, LAPIC_TICK, WAKE = 0xe0 };
enum { EDGE_TIMER = 2, LEVEL_TIMER, FSB_TIMER, WAKE_TIMER };
enum { TN_LEVEL = 1 << 1, TN_ENABLE = 1 << 2, TN_PERIODIC = 1 << 3, TN_SET = 1 << 6, TN_FSB = 1 << 14 };
#define PIT_COUNT 5966u /* 200 Hz */
#define HPET_COUNT 143182u /* 100 Hz */
#define DEAF 0x80u /* TPR: above every tick, below WAKE */

static volatile uint64_t counts[256];

static void took(struct frame *f)
{
    counts[f->vector]++;
    apic_write(APIC_EOI, 0);
}

static void took_irq0(struct frame *f)
{
    (void)f;
    counts[PIT]++;
    pic_eoi(0);
}

static void read_rtc(void)
{
    counts[RTC] += cmos_read(0x0c) >> 6 & 1;
}

static void took_rtc(struct frame *f)
{
    (void)f;
    read_rtc();
    apic_write(APIC_EOI, 0);
}

static void took_irq8(struct frame *f)
{
    (void)f;
    read_rtc();
    pic_eoi(8);
}

static void took_level(struct frame *f)
{
    (void)f;
    counts[LEVEL] += hpet_read(0x20) >> LEVEL_TIMER & 1;
    hpet_write(0x20, 1 << LEVEL_TIMER);
    apic_write(APIC_EOI, 0);
}

static void set_up(bool pic)
{
    pic_init();
    apic_enable();
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    for (unsigned v = PIT; v <= LAPIC_TICK; v++)
        on_vector(v, took);
    on_vector(WAKE, took);
    on_vector(RTC, took_rtc);
    on_vector(LEVEL, took_level);
    on_vector(PIC_BASE, took_irq0);
    on_vector(PIC_BASE + 8, took_irq8);
    if (pic) {
        apic_write(APIC_LVT_LINT0, 0x700);
        pic_mask(0xfefa);
    } else {
        ioapic_set(2, PIT);
        ioapic_set(8, RTC);
    }
    ioapic_set(20, EDGE);
    ioapic_set(21, LEVEL | IO_LEVEL | IO_LOW);
}

static void start_comparator(unsigned timer, uint64_t config, uint64_t period)
{
    hpet_write(0x110 + 0x20 * timer, 0xfee0000000000000 | (timer == WAKE_TIMER ? WAKE : FSB));
    hpet_write(0x100 + 0x20 * timer, config | TN_ENABLE | (period ? TN_PERIODIC | TN_SET : 0));
    if (!period)
        return;
    hpet_write(0x108 + 0x20 * timer, hpet_read(0xf0) + period);
    hpet_write(0x108 + 0x20 * timer, period);
}

static void start_timers(void)
{
    pit_mode(0, 2, PIT_COUNT);
    cmos_write(0x0a, 0x2a); /* 64 Hz */
    cmos_read(0x0c);
    cmos_write(0x0b, 0x42);
    start_comparator(EDGE_TIMER, 20 << 9, HPET_COUNT);
    start_comparator(LEVEL_TIMER, 21 << 9 | TN_LEVEL, HPET_COUNT);
    start_comparator(FSB_TIMER, TN_FSB, HPET_COUNT);
    start_comparator(WAKE_TIMER, TN_FSB, 0);
    hpet_write(0x10, 1);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, LAPIC_TICK | 0x20000);
    apic_write(APIC_TMICT, (uint32_t)(tsc_hz / 100));
}

/* Behind one tick and long before the next: a flag that the chip sets with its interrupt off would be read as a tick. */
static void stop_rtc(void)
{
    uint64_t ticks = counts[RTC];

    while (counts[RTC] == ticks)
        halt();
    cmos_write(0x0b, 0x02);
    read_rtc();
}

/* Between two ticks, as far as the timers of 100 Hz go. */
static void stop_timers(void)
{
    uint64_t ticks;

    stop_rtc();
    ticks = counts[FSB];
    while (counts[FSB] == ticks)
        halt();
    run_us(1000);
    outb(0x43, 0x30); /* mode 0, without a count */
    for (unsigned t = EDGE_TIMER; t <= WAKE_TIMER; t++)
        hpet_write(0x100 + 0x20 * t, t == LEVEL_TIMER ? TN_LEVEL : 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | LAPIC_TICK);
    counts[LEVEL] += hpet_read(0x20) >> LEVEL_TIMER & 1;
    hpet_write(0x20, 1 << LEVEL_TIMER);
    open_interrupts();
    run_us(100);
}

/* Halts for a while; the wake-up call is a tick of its comparator too. */
static void sleep_us(uint64_t n)
{
    uint64_t calls = counts[WAKE];

    hpet_write(0x108 + 0x20 * WAKE_TIMER, hpet_read(0xf0) + n * 14318180 / 1000000 + 100);
    while (counts[WAKE] == calls)
        halt();
}

static void storm(void)
{
    ioapic_set(4, WAKE | IO_LEVEL);
    counts[WAKE] = 0;
    irq4_set(true);
    run_us(50000);
    irq4_set(false);
    ioapic_set(4, IO_MASKED);
    print("storm: %lu interrupts\n", counts[WAKE]);
}

void guest_main(void)
{
    uint64_t end, seconds = option_number("seconds", 2), start, ran;
    bool pic = option("pic");

    set_up(pic);
    start = rdtsc();
    start_timers();
    for (end = start + seconds * tsc_hz; rdtsc() < end;) {
        sleep_us(random32() % 60000);
        if (random32() % 4 == 0) {
            delay_us(random32() % 3000);
        } else if (!pic) { /* which the TPR does not hold back */
            apic_write(APIC_TPR, DEAF);
            sleep_us(random32() % 60000);
            apic_write(APIC_TPR, 0);
        }
    }
    sleep_us(1000000); /* what is owed comes */
    stop_timers();
    ran = rdtsc() - start;
    print("ran %lu us\n", ran / (tsc_hz / 1000000));
    print("took pit %lu rtc %lu hpet %lu lapic %lu\n", counts[PIT], counts[RTC],
          counts[EDGE] + counts[LEVEL] + counts[FSB] + counts[WAKE], counts[LAPIC_TICK]);
    print("wake-up calls %lu\n", counts[WAKE]);
    if (option("storm"))
        storm();
    check(counts[PIT] && counts[RTC] && counts[EDGE] && counts[LEVEL] && counts[FSB] && counts[LAPIC_TICK], "every timer ticks",
          "one does not");
}
