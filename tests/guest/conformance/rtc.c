/*
 * MC146818A. Each step that needs a second's end sets the clock while the divider chain is held in reset, so that it comes
 * half a second later.
 */
#include "script.h"

enum { A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32 };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 4, B_24H = 2 };
enum { FLAG_P = 0x40, FLAG_A = 0x20, FLAG_U = 0x10 };

struct moment {
    uint8_t mode; /* of register B */
    uint8_t second, minute, hour, weekday, day, month, year, century;
};

static const struct moment moments[] = {
    {B_24H, 0x59, 0x59, 0x23, 6, 0x31, 0x12, 0x99, 0x19},
    {0, 0x59, 0x59, 0x91, 7, 0x31, 0x12, 0x23, 0x20},
    {0, 0x59, 0x59, 0x11, 2, 0x10, 0x06, 0x24, 0x20},
    {0, 0x59, 0x59, 0x92, 2, 0x10, 0x06, 0x24, 0x20},
    {0, 0x59, 0x59, 0x12, 2, 0x10, 0x06, 0x24, 0x20},
    {B_BINARY | B_24H, 59, 59, 23, 4, 28, 2, 24, 20},
    {B_BINARY | B_24H, 59, 59, 23, 3, 28, 2, 23, 20},
    {B_BINARY, 59, 59, 0x80 | 11, 3, 30, 4, 23, 20},
    {B_24H, 0x59, 0x59, 0x23, 1, 0x28, 0x02, 0x00, 0x20},
    {B_24H, 0x59, 0x59, 0x23, 1, 0x28, 0x02, 0x00, 0x21},
    {B_24H, 0x29, 0x08, 0x19, 5, 0x19, 0x09, 0x29, 0x20},
};

static void set_time(const struct moment *m, uint8_t enables)
{
    const uint8_t values[][2] = {{0, m->second}, {2, m->minute}, {4, m->hour}, {6, m->weekday},
                                 {7, m->day},    {8, m->month},  {9, m->year}, {CENTURY, m->century}};
    cmos_write(A, 0x66);
    cmos_write(B, B_SET | m->mode);
    for (unsigned i = 0; i < sizeof(values) / 2; i++)
        cmos_write(values[i][0], values[i][1]);
    cmos_read(C);
    cmos_write(A, 0x26);
    cmos_write(B, m->mode | enables);
}

/* Steps far below what is measured; halting takes too long for the shortest. */
static void wait(unsigned n_us)
{
    if (n_us < 100)
        spin_us(n_us);
    else
        nap_us(n_us);
}

/* Waits for flags in register C, which every look clears; what was seen of them. */
static uint8_t flags_within(uint8_t wanted, uint64_t n_us, unsigned step_us)
{
    uint64_t start = rdtsc();
    uint8_t seen = cmos_read(C);
    while ((seen & wanted) != wanted && rdtsc() - start < us(n_us)) {
        wait(step_us);
        seen |= cmos_read(C);
    }
    return seen;
}

/* The time after the update. */
static void rollover(unsigned which)
{
    static const uint8_t registers[] = {0, 2, 4, 6, 7, 8, 9, CENTURY};
    set_time(&moments[which], B_UIE);
    if (!(flags_within(FLAG_U, 1500000, 5000) & FLAG_U))
        value_word("never");
    for (unsigned i = 0; i < sizeof(registers); i++)
        value_hex(cmos_read(registers[i]), 1);
}

/* When the first update after the divider reset ends, in 50 ms; where the second is not restarted that is chance. */
static void first_update(unsigned unused)
{
    uint64_t start, passed;
    (void)unused;
    set_time(&moments[10], B_UIE);
    start = rdtsc();
    if (!(flags_within(FLAG_U, 1500000, 5000) & FLAG_U)) {
        value_word("never");
        return;
    }
    passed = rounded(rdtsc() - start, us(50000));
    if (passed == 10)
        value_number(passed);
    else
        value_word("another");
}

static uint64_t until_uip(uint8_t level, uint64_t n_us, unsigned step_us)
{
    uint64_t start = rdtsc();
    while ((cmos_read(A) & 0x80) != level && rdtsc() - start < us(n_us))
        wait(step_us);
    return rdtsc() - start;
}

/* How long UIP is up, in 0.5 ms, whether the update has ended with it, and the second before and after. */
static void update_cycle(unsigned unused)
{
    (void)unused;
    set_time(&moments[10], B_UIE);
    until_uip(0x80, 1500000, 100);
    value_hex(cmos_read(C) & FLAG_U, 1);
    value_hex(cmos_read(0), 1);
    value_number(rounded(until_uip(0, 10000, 10), us(500)));
    spin_us(100);
    value_hex(cmos_read(C) & FLAG_U, 1);
    value_hex(cmos_read(0), 1);
}

/* The period of PF in ticks of the 32,768 Hz crystal, over some periods; of long ones to 8 ticks. */
static void period(unsigned select)
{
    bool is_short = select >= 3 && select < 11;
    unsigned n = is_short ? 16 : 2, step_us = is_short ? 2 : 100, unit = is_short ? 1 : 8;
    uint64_t expected_us = (select < 3 ? 64ull << select : 1ull << (select - 1)) * 1000000 / 32768;
    uint64_t start;
    cmos_write(A, (uint8_t)(0x20 | select));
    cmos_write(B, B_24H | B_PIE);
    cmos_read(C);
    if (!(flags_within(FLAG_P, 1200000, step_us) & FLAG_P)) {
        value_word("never");
        return;
    }
    start = rdtsc();
    for (unsigned i = 0; i < n; i++) {
        if (!is_short)
            nap_us(expected_us * 7 / 8);
        flags_within(FLAG_P, 1200000, step_us);
    }
    value_number(rounded((rdtsc() - start) * 32768 / n, us(1000000) * unit) * unit);
}

/* Alarm registers; the flags of the update into 19:08:30 (and enables: IRQF shows them). */
static void alarm_flags(uint8_t hour, uint8_t minute, uint8_t second, uint8_t enables)
{
    uint8_t flags;
    cmos_write(1, second);
    cmos_write(3, minute);
    cmos_write(5, hour);
    set_time(&moments[10], enables);
    flags = flags_within(FLAG_U, 1500000, 5000);
    spin_us(1000);
    value_hex((flags | cmos_read(C)) & (uint8_t)~FLAG_P, 1);
}

static void alarm(unsigned time)
{
    alarm_flags((uint8_t)(time >> 16), (uint8_t)(time >> 8), (uint8_t)time, B_AIE | B_UIE);
}

static void alarm_only(unsigned time)
{
    alarm_flags((uint8_t)(time >> 16), (uint8_t)(time >> 8), (uint8_t)time, B_AIE);
}

static void not_enabled(unsigned time)
{
    alarm_flags((uint8_t)(time >> 16), (uint8_t)(time >> 8), (uint8_t)time, 0);
}

/* SET holds the time and UIP; a second and a bit. */
static void held(unsigned a_and_b)
{
    bool uip = false;
    set_time(&moments[10], 0);
    cmos_write(A, (uint8_t)(a_and_b >> 8));
    cmos_write(B, (uint8_t)a_and_b);
    for (uint64_t start = rdtsc(); rdtsc() - start < us(1100000);)
        uip |= cmos_read(A) & 0x80, nap_us(1000);
    value_hex(cmos_read(0), 1);
    value_word(uip ? "uip" : "-");
}

/* A byte of CMOS RAM, walked and put back. */
static void ram(unsigned index)
{
    uint8_t before = cmos_read((uint8_t)index), stuck = 0, lost = 0;
    for (unsigned bit = 0; bit < 8; bit++) {
        cmos_write((uint8_t)index, (uint8_t)(1 << bit));
        stuck |= cmos_read((uint8_t)index) & (uint8_t)~(1 << bit);
        lost |= ~cmos_read((uint8_t)index) & 1 << bit;
    }
    cmos_write((uint8_t)index, before);
    value_hex(stuck, 1);
    value_hex(lost, 1);
}

/* What the second bank's port has, after which index. */
static void bank2(unsigned index)
{
    uint8_t before;
    outb(0x72, (uint8_t)index);
    before = inb(0x73);
    outb(0x73, 0x5a);
    value_hex(inb(0x73), 1);
    outb(0x73, before);
}

/* clang-format off */
#define V8              0x28
#define TO_CPU          LAPIC_W(APIC_LVT_LINT0, 0x700), OUTB(0x21, 0xfb), OUTB(0xa1, 0xfe)
#define READ_C          SILENT(CMOS, 1, C)

static const struct op ops[] = {
    LINE("rtc.a.walk"),             WALK(CMOS, 1, A, 0x7f),
    LINE("rtc.a.uip-read-only"),    CMOS_W(A, 0xe6), CMOS_R(A), CMOS_W(A, 0x26),
    LINE("rtc.b.walk"),             WALK(CMOS, 1, B, 0xff),
    LINE("rtc.c.read-only"),        CMOS_W(B, 0x82), CMOS_W(A, 0x60), READ_C, CMOS_W(C, 0xff), CMOS_R(C),
    LINE("rtc.d.walk"),             WALK(CMOS, 1, D, 0xff),
    LINE("rtc.d.vrt"),              READ(CMOS, 1, D, 0x80),
    LINE("rtc.second.walk"),        CMOS_W(B, 0x82), WALK(CMOS, 1, 0, 0xff),
    LINE("rtc.alarm.walk"),         CMOS_W(B, 0x82), WALK(CMOS, 1, 1, 0xff),
    LINE("rtc.year.walk"),          CMOS_W(B, 0x82), WALK(CMOS, 1, 9, 0xff),
    LINE("rtc.ram"),                CALL(ram, 0x50), CALL(ram, 0x7f),
    LINE("rtc.ram.bank-2"),         CALL(bank2, 0x20), CALL(bank2, 0x7f),
    LINE("rtc.index.bit-7"),        OUTB(0x70, 0x80 | D), READ(IO, 1, 0x71, 0x80), OUTB(0x70, D), READ(IO, 1, 0x71, 0x80),
    LINE("rtc.index.reads"),        OUTB(0x70, D), INB(0x70),
    LINE("rtc.index.stays"),        OUTB(0x70, D), READ(IO, 1, 0x71, 0x80), READ(IO, 1, 0x71, 0x80),
    LINE("rtc.index.word"),         WRITE(IO, 2, 0x70, 0x5a50), OUTB(0x70, 0x50), INB(0x71), OUTB(0x71, 0),
    /* Time */
    LINE("rtc.set.reads-back"),     CMOS_W(B, 0x82), CMOS_W(0, 0x12), CMOS_W(2, 0x34), CMOS_W(4, 0x23), CMOS_W(7, 0x28),
                                    CMOS_W(8, 0x11), CMOS_W(9, 0x77),
                                    CMOS_R(0), CMOS_R(2), CMOS_R(4), CMOS_R(7), CMOS_R(8), CMOS_R(9),
    LINE("rtc.set.holds-time"),     CALL(held, 0x2682),
    LINE("rtc.set.clears-uie"),     CMOS_W(B, 0x12), CMOS_R(B), CMOS_W(B, 0x92), CMOS_R(B),
    LINE("rtc.divider.holds-time"), CALL(held, 0x6602),
    LINE("rtc.divider.first-update"), CALL(first_update, 0),
    LINE("rtc.update.cycle"),       CALL(update_cycle, 0),
    LINE("rtc.rollover.year-2000"), CALL(rollover, 0),
    LINE("rtc.rollover.12h-pm-to-am"), CALL(rollover, 1),
    LINE("rtc.rollover.12h-am-to-pm"), CALL(rollover, 2),
    LINE("rtc.rollover.12h-noon-to-1"), CALL(rollover, 3),
    LINE("rtc.rollover.12h-midnight-to-1"), CALL(rollover, 4),
    LINE("rtc.rollover.leap-year-binary"), CALL(rollover, 5),
    LINE("rtc.rollover.common-year-binary"), CALL(rollover, 6),
    LINE("rtc.rollover.12h-binary-month"), CALL(rollover, 7),
    LINE("rtc.rollover.leap-2000"), CALL(rollover, 8),
    LINE("rtc.rollover.common-2100"), CALL(rollover, 9),
    LINE("rtc.rollover.second"),    CALL(rollover, 10),
    /* Alarm: the update leads to 19:08:30 */
    LINE("rtc.alarm.match"),        CALL(alarm, 0x190830),
    LINE("rtc.alarm.no-update-enable"), CALL(alarm_only, 0x190830),
    LINE("rtc.alarm.not-enabled"),  CALL(not_enabled, 0x190830),
    LINE("rtc.alarm.other-second"), CALL(alarm, 0x190831),
    LINE("rtc.alarm.other-hour"),   CALL(alarm, 0x180830),
    LINE("rtc.alarm.wildcards"),    CALL(alarm, 0xc0ff30), CALL(alarm, 0xffffff),
    LINE("rtc.alarm.wildcard-hour-other-minute"), CALL(alarm, 0xff0730),
    /* Periods of PF in 1/32768 s, for each rate select */
    LINE("rtc.period.1"),           CALL(period, 1),
    LINE("rtc.period.2"),           CALL(period, 2),
    LINE("rtc.period.3"),           CALL(period, 3),
    LINE("rtc.period.4"),           CALL(period, 4),
    LINE("rtc.period.5"),           CALL(period, 5),
    LINE("rtc.period.6"),           CALL(period, 6),
    LINE("rtc.period.7"),           CALL(period, 7),
    LINE("rtc.period.8"),           CALL(period, 8),
    LINE("rtc.period.9"),           CALL(period, 9),
    LINE("rtc.period.10"),          CALL(period, 10),
    LINE("rtc.period.11"),          CALL(period, 11),
    LINE("rtc.period.12"),          CALL(period, 12),
    LINE("rtc.period.13"),          CALL(period, 13),
    LINE("rtc.period.14"),          CALL(period, 14),
    LINE("rtc.period.15"),          CALL(period, 15),
    LINE("rtc.period.none"),        CMOS_W(A, 0x20), READ_C, US(20000), READ(CMOS, 1, C, FLAG_P),
    LINE("rtc.period.flag-without-enable"), READ_C, US(2000), READ(CMOS, 1, C, 0xc0), READ(CMOS, 1, C, 0x40),
    LINE("rtc.period.flag-with-enable"), CMOS_W(B, 0x42), READ_C, US(2000), READ(CMOS, 1, C, 0xc0), READ(CMOS, 1, C, 0xc0),
    LINE("rtc.period.enable-after-flag"), TO_CPU, READ_C, US(2000), CMOS_W(B, 0x42), INTS, READ(CMOS, 1, C, 0xc0),
    /* IRQ 8 */
    LINE("rtc.irq8.until-c-is-read"), TO_CPU, EOI(EOI_PIC), CMOS_W(B, 0x42), RUN_US(10000), HITS(V8), READ_C, RUN_US(2500),
                                    HITS(V8),
    LINE("rtc.irq8.disable-drops"), CMOS_W(B, 0x42), US(2500), CMOS_W(B, 0x02), OUTB(0xa0, 0x0a), READ(IO, 1, 0xa0, 1),
    LINE("rtc.irq8.read-c-drops"),  CMOS_W(B, 0x42), CMOS_W(A, 0x2c), US(140000), OUTB(0xa0, 0x0a), READ(IO, 1, 0xa0, 1),
                                    READ_C, READ(IO, 1, 0xa0, 1),
};
/* clang-format on */

const struct script rtc_script = {"rtc", NULL, SCRIPT(ops)};
