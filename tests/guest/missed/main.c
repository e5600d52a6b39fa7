/*
 * Counts the ticks of every timer for `seconds=N` while it goes deaf now and then: behind the TPR (and LINT0's mask) for up to
 * 60 ms, halted, and with interrupts off for up to 3 ms. The local APIC's timer is periodic for a third of the time, then one-shot,
 * then counts down to TSC deadlines. With `pic` PIT and RTC come through the PICs. It says what it has counted and what, by its own
 * clock, must have come due; tests/system/test_missed_ticks.py holds that to the hypervisor's ledger. With `storm` it then leaves
 * a level interrupt's cause alone for 50 ms.
 */
#include "guest.h"

enum { PIT = 0x40, RTC, EDGE, LEVEL, FSB, LAPIC_TICK, WAKE = 0xe0 };
enum { EDGE_TIMER = 2, LEVEL_TIMER, FSB_TIMER, WAKE_TIMER };
enum { TN_LEVEL = 1 << 1, TN_ENABLE = 1 << 2, TN_PERIODIC = 1 << 3, TN_SET = 1 << 6, TN_FSB = 1 << 14 };
#define PIT_COUNT 5966u /* 200 Hz */
#define HPET_COUNT 143182u /* 100 Hz */
#define MASTER_HZ 157500000ull /* by 11 */
#define RTC_HZ 64u
#define LAPIC_HZ 100u
#define DEAF 0x80u /* TPR: above every tick, below WAKE */
#define MSR_TSC_DEADLINE 0x6e0u
enum mode { PERIODIC, ONE_SHOT, TSC_DEADLINE, MODES };

static volatile uint64_t counts[256];

/* How many ticks of each source must have come due: where a timer's start or stop cannot be told from a tick, a few more or less. */
static struct due {
    uint64_t least, most;
} due_pit, due_rtc, due_hpet, due_lapic, missed_shots; /* the last: one-shots while the one before was pending */

/* A moment that lies between two readings of the TSC. */
struct moment {
    uint64_t after, before;
};
static struct moment pit_start, rtc_start, hpet_start;
#define AT(m, action) ((m)->after = rdtsc(), (action), (m)->before = rdtsc())

/* Ticks of hz / by, the first one a period behind the start. */
static void ran(struct due *d, struct moment from, struct moment to, uint64_t hz, uint64_t by)
{
    d->least += muldiv(to.after - from.before - us(2), hz, by * tsc_hz); /* a count is loaded with the next clock */
    d->most += muldiv(to.before - from.after, hz, by * tsc_hz);
}

static void surely(struct due *d, uint64_t n)
{
    d->least += n;
    d->most += n;
}

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

/* ---- The local APIC's timer ---- */

static volatile enum mode mode;
static volatile bool stopping;
static uint64_t armed;
static struct moment lapic_start;

static void arm(void)
{
    armed++;
    if (mode == TSC_DEADLINE)
        wrmsr(MSR_TSC_DEADLINE, rdtsc() + tsc_hz / LAPIC_HZ);
    else
        apic_write(APIC_TMICT, (uint32_t)(tsc_hz / LAPIC_HZ));
}

static bool is_armed(void)
{
    return mode == TSC_DEADLINE ? rdmsr(MSR_TSC_DEADLINE) : apic_read(APIC_TMCCT);
}

/* Also while the last one's interrupt is pending: then it will be missed. */
static void arm_again(void)
{
    if (mode != PERIODIC && !stopping && !is_armed())
        arm();
}

static void took_lapic(struct frame *f)
{
    counts[f->vector]++;
    arm_again();
    apic_write(APIC_EOI, 0);
}

static void start_lapic(enum mode m)
{
    static const uint32_t bits[MODES] = {[PERIODIC] = 0x20000, [TSC_DEADLINE] = 0x40000};

    mode = m;
    stopping = false;
    armed = 0;
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, LAPIC_TICK | bits[m]);
    AT(&lapic_start, arm());
}

/* Behind a tick, when nothing is owed. */
static void stop_lapic(void)
{
    struct moment stop;
    uint64_t ticks = counts[LAPIC_TICK];

    stopping = true;
    while (mode == PERIODIC ? counts[LAPIC_TICK] == ticks : is_armed() || apic_bit(APIC_IRR, LAPIC_TICK))
        halt();
    run_us(1000);
    AT(&stop, apic_write(APIC_TMICT, 0));
    apic_write(APIC_LVT_TIMER, APIC_MASKED | LAPIC_TICK);
    if (mode == PERIODIC)
        ran(&due_lapic, lapic_start, stop, LAPIC_HZ, 1);
    else
        surely(&due_lapic, armed);
}

/* ---- All of them ---- */

static void set_up(bool pic)
{
    pic_init();
    apic_enable();
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, IO_MASKED);
    for (unsigned v = PIT; v <= FSB; v++)
        on_vector(v, took);
    on_vector(WAKE, took);
    on_vector(RTC, took_rtc);
    on_vector(LAPIC_TICK, took_lapic);
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
    AT(&pit_start, pit_mode(0, 2, PIT_COUNT));
    cmos_write(0x0a, 0x2a); /* 64 Hz */
    cmos_read(0x0c);
    AT(&rtc_start, cmos_write(0x0b, 0x42));
    start_comparator(EDGE_TIMER, 20 << 9, HPET_COUNT);
    start_comparator(LEVEL_TIMER, 21 << 9 | TN_LEVEL, HPET_COUNT);
    start_comparator(FSB_TIMER, TN_FSB, HPET_COUNT);
    start_comparator(WAKE_TIMER, TN_FSB, 0);
    AT(&hpet_start, hpet_write(0x10, 1));
}

/* Behind one tick and long before the next: a flag that the chip sets with its interrupt off would be read as a tick. */
static void stop_rtc(void)
{
    uint64_t ticks = counts[RTC];
    struct moment stop;

    while (counts[RTC] == ticks)
        halt();
    AT(&stop, cmos_write(0x0b, 0x02));
    read_rtc();
    ran(&due_rtc, rtc_start, stop, RTC_HZ, 1);
    due_rtc.most++; /* its periods do not begin with the interrupt's enabling */
}

/* Between two ticks, as far as the timers of 100 Hz go. */
static void stop_timers(void)
{
    struct moment stop;
    uint64_t ticks;

    stop_rtc();
    ticks = counts[FSB];
    while (counts[FSB] == ticks)
        halt();
    run_us(1000);
    AT(&stop, outb(0x43, 0x30)); /* mode 0, without a count */
    ran(&due_pit, pit_start, stop, MASTER_HZ / 12, 11 * PIT_COUNT);
    for (unsigned t = EDGE_TIMER; t <= FSB_TIMER; t++) {
        AT(&stop, hpet_write(0x100 + 0x20 * t, t == LEVEL_TIMER ? TN_LEVEL : 0));
        ran(&due_hpet, hpet_start, stop, MASTER_HZ, 11 * HPET_COUNT);
    }
    hpet_write(0x100 + 0x20 * WAKE_TIMER, 0);
    surely(&due_hpet, counts[WAKE]);
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

static void be_deaf(bool pic)
{
    uint64_t arms = armed;

    if (pic)
        apic_write(APIC_LVT_LINT0, APIC_MASKED | 0x700); /* the TPR does not hold the PIC back */
    apic_write(APIC_TPR, DEAF);
    sleep_us(random32() % 60000);
    arm_again();
    sleep_us(random32() % 30000);
    missed_shots.least += armed == arms + 1 && !is_armed();
    apic_write(APIC_TPR, 0);
    if (pic)
        apic_write(APIC_LVT_LINT0, 0x700);
    open_interrupts();
    missed_shots.most += armed == arms + 2; /* the handler has found it expired */
}

static void run(enum mode m, uint64_t ticks, bool pic)
{
    uint64_t start = rdtsc();

    start_lapic(m);
    while (rdtsc() - start < ticks) {
        sleep_us(random32() % 60000);
        if (random32() % 16 == 0)
            delay_us(random32() % 3000);
        else
            be_deaf(pic);
    }
    sleep_us(1000000); /* what is owed comes */
    stop_lapic();
}

static void print_account(const char *source, uint64_t took, struct due d)
{
    print("account %s: took %lu, due %lu to %lu\n", source, took, d.least, d.most);
}

void guest_main(void)
{
    uint64_t seconds = option_number("seconds", 2);
    bool pic = option("pic");

    set_up(pic);
    start_timers();
    for (enum mode m = PERIODIC; m < MODES; m++)
        run(m, seconds * tsc_hz / MODES, pic);
    stop_timers();
    print_account("pit", counts[PIT], due_pit);
    print_account("rtc", counts[RTC], due_rtc);
    print_account("hpet", counts[EDGE] + counts[LEVEL] + counts[FSB] + counts[WAKE], due_hpet);
    print_account("lapic", counts[LAPIC_TICK], due_lapic);
    print("one-shots missed: %lu to %lu\n", missed_shots.least, missed_shots.most);
    if (option("storm"))
        storm();
    check(counts[PIT] && counts[RTC] && counts[EDGE] && counts[LEVEL] && counts[FSB] && counts[LAPIC_TICK], "every timer ticks",
          "one does not");
}
