/* HPET. Times are told in microseconds and turned into ticks by the period register: machines count at different rates. */
#include "script.h"

#define V 0x59u
#define CONFIG 0x10u
#define STATUS 0x20u
#define COUNTER 0xf0u
#define TN(n) (0x100u + 0x20 * (n))
#define CMP(n) (TN(n) + 8)
#define FSB(n) (TN(n) + 16)
enum { LEVEL = 2, ENABLE = 4, PERIODIC = 8, VAL_SET = 64, MODE32 = 256, FSB_ENABLE = 1 << 14, FSB_CAP = 1 << 15 };

static bool there(void)
{
    uint32_t period = mmio_read(HPET + 4);
    return period && period <= 100000000;
}

static bool has_timer_3(void)
{
    return (hpet_read(0) >> 8 & 31) >= 3;
}

static bool has_fsb(void)
{
    return hpet_read(TN(0)) & FSB_CAP;
}

static uint64_t ticks(uint64_t n_us)
{
    return n_us * 1000000000 / (hpet_read(0) >> 32);
}

/* The pin a timer may use: one above the ISA's where it has any. */
static unsigned pin_of(unsigned timer)
{
    uint32_t can = (uint32_t)(hpet_read(TN(timer)) >> 32);
    unsigned pin = 16;
    while (pin < 24 && !(can >> pin & 1))
        pin++;
    return pin < 24 ? pin : can ? (unsigned)__builtin_ctz(can) : 0;
}

/* Routes the timer to its pin and the pin to V; the pins from 16 on are wired active low. */
static void route(unsigned timer, uint32_t mode)
{
    unsigned pin = pin_of(timer);
    ioapic_set(pin, (pin < 16 ? 0 : IO_LOW) | (mode & LEVEL ? IO_LEVEL : 0) | V);
    hpet_write(TN(timer), mode | pin << 9);
}

static void edge(unsigned timer)
{
    route(timer, ENABLE);
}

static void edge_32(unsigned timer)
{
    route(timer, ENABLE | MODE32);
}

static void level(unsigned timer)
{
    route(timer, ENABLE | LEVEL);
}

/* Its other bits stay. */
static void disable(unsigned timer)
{
    hpet_write(TN(timer), hpet_read(TN(timer)) & ~(uint64_t)ENABLE);
}

static void periodic(unsigned timer)
{
    route(timer, ENABLE | PERIODIC | VAL_SET);
}

static void compare_0(unsigned at_us)
{
    hpet_write(CMP(0), ticks(at_us));
}

static void compare_1(unsigned at_us)
{
    hpet_write(CMP(1), ticks(at_us));
}

static void behind(unsigned by_us)
{
    hpet_write(CMP(1), hpet_read(COUNTER) - ticks(by_us));
}

static void message(unsigned vector)
{
    hpet_write(FSB(0), 0xfee00000ull << 32 | vector);
    hpet_write(TN(0), ENABLE | FSB_ENABLE);
}

static void counter_in(unsigned unit_us)
{
    value_number(rounded(hpet_read(COUNTER), ticks(unit_us)));
}

static void comparator_in(unsigned unit_us)
{
    value_number(rounded(hpet_read(CMP(0)), ticks(unit_us)));
}

static void moves(unsigned unused)
{
    uint64_t c = hpet_read(COUNTER);
    (void)unused;
    spin_us(100);
    value_word(hpet_read(COUNTER) != c ? "counts" : "stands");
}

/* 32 bits: the wrap is a few ms ahead. */
static void near_wrap(unsigned n_us)
{
    hpet_write(COUNTER, 0x100000000ull - ticks(n_us));
}

/* clang-format off */
#define ZERO            HPET_W(COUNTER, 0)
#define ON              HPET_W(CONFIG, 1)
#define OFF             HPET_W(CONFIG, 0)
#define HIGH_HALF       READ(MEM, 4, HPET + COUNTER + 4, 0xffffffff)
#define EOI_NOW         LAPIC_W(APIC_EOI, 0)

static const struct op ops[] = {
    LINE("hpet.capabilities"),      HPET_R4(0),
    LINE("hpet.period"),            HPET_R4(4),
    LINE("hpet.capabilities.read-only"), HPET_W(0, 0), CALL(moves, 0),
    LINE("hpet.config.walk"),       WALK(MEM, 8, HPET + CONFIG, ~0ull),
    LINE("hpet.config.byte"),       WRITE(MEM, 1, HPET + CONFIG, 1), READ(MEM, 1, HPET + CONFIG, 0xff),
                                    WRITE(MEM, 1, HPET + CONFIG + 1, 0xff),
                                    READ(MEM, 2, HPET + CONFIG, 0xffff),
    LINE("hpet.status.walk"),       WALK(MEM, 8, HPET + STATUS, ~0ull),
    LINE("hpet.counter.walk"),      WALK(MEM, 8, HPET + COUNTER, ~0ull),
    LINE("hpet.counter.halves"),    HPET_W(COUNTER, 0), HPET_W4(COUNTER + 4, 0x12345678), HPET_R(COUNTER),
                                    HPET_W4(COUNTER, 0x9abcdef0), HPET_R(COUNTER),
                                    HPET_R4(COUNTER + 4),
    LINE("hpet.counter.rate"),      ZERO, ON, US(5000), OFF, CALL(counter_in, 100),
    LINE("hpet.counter.halted"),    CALL(moves, 0), ON, CALL(moves, 0), OFF, CALL(moves, 0),
    LINE("hpet.counter.wraps-at-64"), HPET_W(COUNTER, 0xfffffffffffff000), ON, US(2000), OFF, HIGH_HALF,
    LINE("hpet.counter.carries-at-32"), HPET_W(COUNTER, 0xfffff000), ON, US(2000), OFF, HIGH_HALF,
    LINE("hpet.timer-0.capabilities"), READ(MEM, 4, HPET + TN(0), 0x8030), HPET_R4(TN(0) + 4),
    LINE("hpet.timer-1.capabilities"), READ(MEM, 4, HPET + TN(1), 0x8030), HPET_R4(TN(1) + 4),
    LINE("hpet.timer-2.capabilities"), READ(MEM, 4, HPET + TN(2), 0x8030), HPET_R4(TN(2) + 4),
    LINE("hpet.timer-3.capabilities"), NEEDS(has_timer_3), READ(MEM, 4, HPET + TN(3), 0x8030), HPET_R4(TN(3) + 4),
    LINE("hpet.timer-0.walk-config"), WALK(MEM, 4, HPET + TN(0), 0xffffc1ff),
    LINE("hpet.timer-1.walk-config"), WALK(MEM, 4, HPET + TN(1), 0xffffc1ff),
    LINE("hpet.timer-2.walk-config"), WALK(MEM, 4, HPET + TN(2), 0xffffc1ff),
    LINE("hpet.timer-0.comparator"), WALK(MEM, 8, HPET + CMP(0), ~0ull),
    LINE("hpet.timer-1.comparator"), WALK(MEM, 8, HPET + CMP(1), ~0ull),
    LINE("hpet.timer-1.comparator-halves"), HPET_W(CMP(1), 0), HPET_W4(CMP(1) + 4, 0x12345678), HPET_W4(CMP(1), 0x9abcdef0),
                                    HPET_R(CMP(1)),
    LINE("hpet.timer-0.comparator-32-bit"), HPET_W(TN(0), MODE32), HPET_W(CMP(0), 0xfedcba9876543210), HPET_R(CMP(0)),
    LINE("hpet.timer-0.32-bit-truncates"), HPET_W(CMP(0), 0xfedcba9876543210), HPET_W(TN(0), MODE32), HPET_R(CMP(0)),
    LINE("hpet.timer-0.fsb-route"), NEEDS(has_fsb), WALK(MEM, 8, HPET + FSB(0), ~0ull),
    LINE("hpet.reserved"),          HPET_R(0x08), HPET_R(0x18), HPET_R(0xf8), HPET_R(TN(0) + 0x18),
    /* Interrupts */
    LINE("hpet.edge.once"),         ZERO, CALL(edge, 1), CALL(compare_1, 1000), ON, US(800), INTS, US(500), INTS, EOI_NOW,
                                    HPET_R(STATUS), US(2000), INTS,
    LINE("hpet.edge.disabled-timer"), ZERO, CALL(edge, 1), HPET_W(TN(1), 0), CALL(compare_1, 1000), ON, US(2000), INTS,
    LINE("hpet.edge.halted"),       ZERO, CALL(edge, 1), CALL(compare_1, 1000), US(2000), INTS,
    LINE("hpet.edge.behind"),       ZERO, CALL(edge, 1), CALL(compare_1, 100000), ON, US(2000), CALL(behind, 500), US(5000), INTS,
    LINE("hpet.edge.moved-ahead"),  ZERO, CALL(edge, 1), CALL(compare_1, 1000), ON, CALL(compare_1, 5000), US(3000), INTS,
                                    US(3000), INTS,
    LINE("hpet.edge.64-bit-beyond-32"), HPET_W(COUNTER, 0), CALL(edge, 1), HPET_W(CMP(1), 0x100000000), ON, US(1000), INTS,
    LINE("hpet.edge.32-bit-wrap"),  CALL(near_wrap, 1000), CALL(edge_32, 0), HPET_W(CMP(0), 0), ON, US(3000), INTS,
    LINE("hpet.level.deliver"),     ZERO, CALL(level, 1), CALL(compare_1, 1000), ON, US(2000), INTS, HPET_R(STATUS),
    THEN("hpet.level.write-0-keeps"), HPET_W(STATUS, 0), HPET_R(STATUS),
    THEN("hpet.level.other-byte-keeps"), WRITE(MEM, 1, HPET + STATUS + 1, 0xff), HPET_R(STATUS),
    THEN("hpet.level.other-bit-keeps"), HPET_W(STATUS, 1), HPET_R(STATUS),
    THEN("hpet.level.again-after-eoi"), EOI_NOW, INTS,
    THEN("hpet.level.write-1-clears"), HPET_W(STATUS, 2), HPET_R(STATUS), EOI_NOW, INTS,
    LINE("hpet.level.disabled-timer-drops-line"), ZERO, CALL(level, 1), CALL(compare_1, 1000), ON, US(2000), INTS,
                                    CALL(disable, 1), EOI_NOW, INTS,
    LINE("hpet.level.status-without-enable"), ZERO, HPET_W4(TN(1), LEVEL), CALL(compare_1, 1000), ON, US(2000), HPET_R(STATUS),
    LINE("hpet.periodic.val-set-clears"), HPET_W4(TN(0), PERIODIC | VAL_SET), READ(MEM, 4, HPET + TN(0), 0x48),
                                    HPET_W(CMP(0), 0x12345), READ(MEM, 4, HPET + TN(0), 0x48),
                                    HPET_R(CMP(0)),
    LINE("hpet.periodic.second-write-is-period"), HPET_W4(TN(0), PERIODIC | VAL_SET), HPET_W(CMP(0), 0x12345),
                                    HPET_W(CMP(0), 0x222), HPET_R(CMP(0)),
    LINE("hpet.periodic.needs-capability"), HPET_W4(TN(1), PERIODIC), READ(MEM, 4, HPET + TN(1), 8),
    LINE("hpet.periodic.advances"), ZERO, HPET_W4(TN(0), PERIODIC | VAL_SET), CALL(compare_0, 1000), ON, US(3500),
                                    CALL(comparator_in, 1000),
    LINE("hpet.periodic.first-and-period"), ZERO, HPET_W4(TN(0), PERIODIC | VAL_SET), CALL(compare_0, 1000),
                                    CALL(compare_0, 3000), ON, US(5500),
                                    CALL(comparator_in, 1000),
    LINE("hpet.periodic.interrupts"), ZERO, EOI(EOI_LAPIC), CALL(periodic, 0), CALL(compare_0, 1000), ON, RUN_US(10500), HITS(V),
    LINE("hpet.periodic.stops"),    ZERO, EOI(EOI_LAPIC), CALL(periodic, 0), CALL(compare_0, 1000), ON, RUN_US(2500), OFF,
                                    RUN_US(5000), HITS(V),
    LINE("hpet.fsb.deliver"),       NEEDS(has_fsb), ZERO, CALL(message, 0x5b), CALL(compare_0, 1000), ON, US(2000), INTS,
    /* Legacy replacement: timer 0 is IRQ 0, timer 1 IRQ 8; the PIT and the RTC are cut off */
    LINE("hpet.legacy.timer-0-is-pin-2"), ZERO, IOAPIC_W(0x14, V), HPET_W4(TN(0), ENABLE), CALL(compare_0, 1000),
                                    HPET_W(CONFIG, 3), US(2000), INTS,
    LINE("hpet.legacy.timer-0-is-irq-0"), ZERO, LAPIC_W(APIC_LVT_LINT0, 0x700), OUTB(0x21, 0xfe), HPET_W4(TN(0), ENABLE),
                                    CALL(compare_0, 1000),
                                    HPET_W(CONFIG, 3), US(2000), INTS,
    LINE("hpet.legacy.timer-1-is-pin-8"), ZERO, IOAPIC_W(0x20, V), HPET_W4(TN(1), ENABLE), CALL(compare_1, 1000),
                                    HPET_W(CONFIG, 3), US(2000), INTS,
    LINE("hpet.legacy.pit-cut-off"), IOAPIC_W(0x14, V), HPET_W(CONFIG, 3), CALL(irq0_pulse, 0), INTS, OFF, CALL(irq0_pulse, 0),
                                    INTS,
    LINE("hpet.legacy.rtc-cut-off"), IOAPIC_W(0x20, V), HPET_W(CONFIG, 3), CMOS_W(0x0b, 0x42), US(2500), INTS, OFF, US(2500),
                                    SILENT(CMOS, 1, 0x0c),
                                    US(2500), INTS,
    LINE("hpet.legacy.needs-enable"), IOAPIC_W(0x14, V), HPET_W(CONFIG, 2), CALL(irq0_pulse, 0), INTS,
};
/* clang-format on */

const struct script hpet_script = {"hpet", there, SCRIPT(ops)};
