/*
 * Interrupts: from their cause to the first instruction of the handler, their end, and whole cycles with it. Of a timer's
 * interrupt two things: how late it is (where its moment is known exactly), and what it takes from a guest that computes, from the
 * guest's last instruction to the handler's first.
 */
#include "bench.h"

#define HPET_PIN 20
#define AHEAD_US 100u /* more than arming takes */
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_TIMER0 = 0x100, HPET_COMPARATOR0 = 0x108, TN_ENABLE = 4 };
enum { RTC_RATE = 4 /* 4,096 Hz */, RTC_24H = 2, RTC_PIE = 0x40 };
enum { LVT_ONE_SHOT = VECTOR, LVT_DEADLINE = 0x40000 | VECTOR, SELF = ICR_SELF | 0x4000 | VECTOR };

IN_PLACE static inline void end_pic(void)
{
    outb(0x20, 0x60);
}

/* ---- Self-IPIs. ---- */

IN_PLACE static inline void send_self(void)
{
    mmio_write(LAPIC + APIC_ICR, SELF);
}

IN_PLACE static inline void send_self_x2(void)
{
    wrmsr(MSR_X2APIC_SELF_IPI, VECTOR);
}

static uint64_t take_self(void)
{
    return await_of_mmio(LAPIC + APIC_ICR, SELF);
}

static uint64_t take_self_x2(void)
{
    return await_of_msr(MSR_X2APIC_SELF_IPI, VECTOR);
}

static uint64_t take_icr_self(void)
{
    return await_of_msr(MSR_X2APIC_ICR, SELF);
}

static uint64_t take_icr_id(void)
{
    return await_of_msr(MSR_X2APIC_ICR, (uint64_t)0 << 32 | 0x4000 | VECTOR);
}

TIMED(take_self_cycle, send_self(); await_computing(); end_xapic())
TIMED(take_self_halted, send_self(); await_halted(); end_xapic())
TIMED(take_self_cycle_x2, send_self_x2(); await_computing(); end_x2apic())
TIMED(take_self_halted_x2, send_self_x2(); await_halted(); end_x2apic())

/* ---- What ends them. ---- */

static void in_service(void)
{
    send_self();
    await_computing();
}

static void in_service_x2(void)
{
    send_self_x2();
    await_computing();
}

/* Taken, and low again: the end is all that is left. */
static void level_in_service(void)
{
    irq4_set(true);
    await_computing();
    irq4_set(false);
}

TIMED(take_end, end_xapic())
TIMED(take_end_x2, end_x2apic())
TIMED(take_end_pic, end_pic())

static const struct operation xapic[] = {
    {"xAPIC self-IPI", take_self, NULL, end_xapic},
    {"xAPIC EOI", take_end, in_service, NULL},
    {"xAPIC self-IPI, whole cycle", take_self_cycle, NULL, NULL},
    {"xAPIC self-IPI to a halted self, whole cycle", take_self_halted, NULL, NULL},
}, x2apic[] = {
    {"x2APIC self-IPI", take_self_x2, NULL, end_x2apic},
    {"x2APIC ICR, shorthand self", take_icr_self, NULL, end_x2apic},
    {"x2APIC ICR, own id", take_icr_id, NULL, end_x2apic},
    {"x2APIC EOI", take_end_x2, in_service_x2, NULL},
    {"x2APIC self-IPI, whole cycle", take_self_cycle_x2, NULL, NULL},
    {"self-IPI to a halted self, whole cycle", take_self_halted_x2, NULL, NULL},
}, level[] = {
    {"xAPIC EOI, level", take_end, level_in_service, NULL},
}, level_x2[] = {
    {"x2APIC EOI, level", take_end_x2, level_in_service, NULL},
};

static bool level_comes(void)
{
    bool comes;

    ioapic_set(4, IO_LEVEL | VECTOR);
    irq4_set(true);
    delay_us(100);
    comes = apic_bit(APIC_IRR, VECTOR);
    if (comes) {
        await_computing();
        irq4_set(false);
        apic_write(APIC_EOI, 0);
    }
    return comes;
}

static void levels(bool x2)
{
    if (level_comes())
        measure(x2 ? level_x2 : level);
    else
        skip(level->name, "COM1 gives no interrupt");
    irq4_set(false);
    ioapic_set(4, IO_MASKED);
}

/* ---- The local APIC's timer. ---- */

static uint64_t due;

static void arm_deadline(void)
{
    due = rdtsc() + us(AHEAD_US);
    wrmsr(MSR_TSC_DEADLINE, due);
}

static void arm_one_shot(void)
{
    wrmsr(MSR_X2APIC_TMICT, us(AHEAD_US));
}

static uint64_t lateness(void)
{
    arm_deadline();
    return await_computing() - due;
}

static uint64_t lateness_halted(void)
{
    arm_deadline();
    return await_halted() - due;
}

/* From the last instruction before the interrupt to the handler's first one. */
static uint64_t taken_away(void)
{
    uint64_t hit = await_reading();

    return (uint32_t)hit - await_last_read;
}

static uint64_t taken_by_deadline(void)
{
    arm_deadline();
    return taken_away();
}

static uint64_t taken_by_one_shot(void)
{
    arm_one_shot();
    return taken_away();
}

static uint64_t take_past(void)
{
    return await_of_msr(MSR_TSC_DEADLINE, 1);
}

TIMED(take_past_cycle, wrmsr(MSR_TSC_DEADLINE, 1); await_computing(); end_x2apic())
TIMED(take_deadline_write, wrmsr(MSR_TSC_DEADLINE, due))

static void far_ahead(void)
{
    due = rdtsc() + us(1000000);
}

static const struct operation deadline[] = {
    {"TSC deadline: lateness", lateness, NULL, end_x2apic},
    {"TSC deadline, halted: lateness", lateness_halted, NULL, end_x2apic},
    {"TSC deadline: taken from the guest", taken_by_deadline, NULL, end_x2apic},
    {"TSC deadline in the past", take_past, NULL, end_x2apic},
    {"TSC deadline in the past, whole cycle", take_past_cycle, NULL, NULL},
    {"TSC-deadline write", take_deadline_write, far_ahead, NULL},
};

static void end_apic(void)
{
    apic_write(APIC_EOI, 0);
}

static const struct operation one_shot = {"local APIC timer: taken from the guest", taken_by_one_shot, NULL, end_apic};

static void apic_timer(void)
{
    if (has_tsc_deadline()) {
        apic_write(APIC_LVT_TIMER, LVT_DEADLINE);
        MEASURE(deadline);
        wrmsr(MSR_TSC_DEADLINE, 0);
    } else {
        skip("TSC deadline", "the CPU has none");
    }
    apic_write(APIC_LVT_TIMER, LVT_ONE_SHOT);
    measure(&one_shot);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | VECTOR);
}

/* ---- The chipset's timers. ---- */

static void arm_pit(void)
{
    pit_mode(0, 4, (uint16_t)muldiv(AHEAD_US, PIT_HZ_NUM, PIT_HZ_DEN * 1000000));
}

static uint64_t hpet_counts;

/* Again, if the counter has gone past it before it was there. */
static void arm_hpet(void)
{
    uint64_t comparator;

    do {
        comparator = hpet_read(HPET_COUNTER) + hpet_counts;
        hpet_write(HPET_COMPARATOR0, comparator);
    } while (hpet_read(HPET_COUNTER) >= comparator && !apic_bit(APIC_IRR, VECTOR));
}

static uint64_t taken_by_pit(void)
{
    arm_pit();
    return taken_away();
}

static uint64_t taken_by_hpet(void)
{
    arm_hpet();
    return taken_away();
}

static void rtc_again(void)
{
    cmos_read(12);
    end_apic();
}

static void pic_in_service(void)
{
    arm_pit();
    await_computing();
}

static const struct operation pit_pic = {"PIT, through the PIC: taken from the guest", taken_by_pit, NULL, end_pic},
    pit_pic_end = {"PIC EOI", take_end_pic, pic_in_service, NULL},
    pit_ioapic = {"PIT, through the I/O APIC: taken from the guest", taken_by_pit, NULL, end_apic},
    hpet_ioapic = {"HPET, through the I/O APIC: taken from the guest", taken_by_hpet, NULL, end_apic},
    rtc_ioapic = {"RTC, through the I/O APIC: taken from the guest", taken_away, NULL, rtc_again};

/* Does its interrupt come? It is asked for, and taken. */
static bool comes(const char *name, void (*arm)(void), bool (*is_there)(void), void (*end)(void))
{
    uint64_t until = rdtsc() + us(20 * AHEAD_US);

    arm();
    while (!is_there() && rdtsc() < until)
        ;
    if (is_there()) {
        await_computing();
        end();
        return true;
    }
    skip(name, "no interrupt comes");
    return false;
}

static bool in_pic(void) { return pic_irr() & 1; }
static bool in_apic(void) { return apic_bit(APIC_IRR, VECTOR); }
static void arm_rtc(void) { cmos_read(12); }

static void through_pic(void)
{
    arm_pit();
    delay_us(2 * AHEAD_US);
    pic_init(); /* forgets edges */
    pic_mask(0xfffe);
    apic_write(APIC_LVT_LINT0, 0x700);
    if (comes(pit_pic.name, arm_pit, in_pic, end_pic)) {
        measure(&pit_pic);
        measure(&pit_pic_end);
    }
    pic_mask(0xffff);
    apic_write(APIC_LVT_LINT0, APIC_MASKED | 0xfe);
}

/* A pin's interrupts while `o` is measured. */
static void through_ioapic(const struct operation *o, unsigned pin, uint64_t flags, void (*arm)(void), void (*end)(void))
{
    ioapic_set(pin, flags | VECTOR);
    if (comes(o->name, arm, in_apic, end))
        measure(o);
    ioapic_set(pin, IO_MASKED);
}

static void hpet(void)
{
    hpet_write(HPET_CONFIG, 1);
    hpet_counts = AHEAD_US * 1000000000ull / (hpet_read(0) >> 32);
    hpet_write(HPET_TIMER0, (uint64_t)HPET_PIN << 9 | TN_ENABLE);
    through_ioapic(&hpet_ioapic, HPET_PIN, IO_LOW, arm_hpet, end_apic);
    hpet_write(HPET_TIMER0, 0);
}

static void rtc(void)
{
    cmos_write(10, 0x20 | RTC_RATE);
    cmos_write(11, RTC_24H | RTC_PIE);
    through_ioapic(&rtc_ioapic, 8, 0, arm_rtc, rtc_again);
    cmos_write(11, RTC_24H);
    cmos_read(12);
    while (apic_bit(APIC_IRR, VECTOR)) { /* one that came meanwhile */
        await_computing();
        end_apic();
    }
}

static void chipset_timers(void)
{
    through_pic();
    through_ioapic(&pit_ioapic, 2, 0, arm_pit, end_apic);
    if ((uint32_t)hpet_read(0) != UINT32_MAX && hpet_read(0))
        hpet();
    rtc();
}

void bench_interrupts(bool x2)
{
    if (x2) {
        MEASURE(x2apic);
        levels(x2);
        apic_timer();
    } else {
        MEASURE(xapic);
        levels(x2);
        chipset_timers();
    }
}
