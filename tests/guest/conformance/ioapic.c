/* I/O APIC. Pin 2 is the PIT, pin 4 the UART's level, pin 8 the RTC, pin 9 the SCI. */
#include "script.h"

/* clang-format off */
#define LOW(pin)        (0x10 + 2 * (pin))
#define HIGH(pin)       (0x11 + 2 * (pin))
#define V               0x58
#define UP              CALL(irq4, 1)
#define DOWN            CALL(irq4, 0)
#define LAPIC_EOI       LAPIC_W(APIC_EOI, 0)
#define RIRR            READ(IOAPIC_REG, 4, LOW(4), IO_REMOTE_IRR)
#define TMR_V           READ(MEM, 4, LAPIC + APIC_TMR + (V >> 5) * 16, 1u << (V & 31))
#define TO(entry, dest) IOAPIC_W(LOW(4), IO_MASKED), IOAPIC_W(HIGH(4), (uint32_t)(dest) << 24), IOAPIC_W(LOW(4), (entry))

static bool has_eoi_register(void)
{
    return (ioapic_read(1) & 0xff) >= 0x20;
}

static bool has_suppression(void)
{
    return apic_read(APIC_VERSION) >> 24 & 1;
}

/* Every pin to a vector of its own. */
static void all_level(unsigned first)
{
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_set(pin, (pin < 16 ? 0 : IO_LOW) | IO_LEVEL | (first + pin));
}

static const struct op ops[] = {
    LINE("ioapic.version"),         IOAPIC_R(1),
    LINE("ioapic.version.read-only"), IOAPIC_W(1, 0), IOAPIC_R(1),
    LINE("ioapic.id.walk"),         WALK(IOAPIC_REG, 4, 0, 0xffffffff),
    LINE("ioapic.arbitration"),     IOAPIC_W(0, 0x05000000), READ(IOAPIC_REG, 4, 2, 0xf0ffffff), IOAPIC_W(0, 0),
    LINE("ioapic.index.walk"),      WALK(MEM, 4, IOAPIC, 0xffffffff),
    LINE("ioapic.index.byte"),      WRITE(MEM, 1, IOAPIC, 1), READ(MEM, 1, IOAPIC, 0xff), READ(MEM, 4, IOAPIC + 0x10, 0xff0000ff),
    LINE("ioapic.reserved.index"),  IOAPIC_R(0x04), IOAPIC_R(0x0f), IOAPIC_R(0x40), IOAPIC_R(0xff),
    LINE("ioapic.entry.walk-low"),  WALK(IOAPIC_REG, 4, LOW(5), 0xffffffff),
    LINE("ioapic.entry.walk-high"), WALK(IOAPIC_REG, 4, HIGH(5), 0xffffffff),
    LINE("ioapic.edge.once"),       TO(V, 0), UP, INTS, LAPIC_EOI, INTS, DOWN, INTS, UP, INTS,
    LINE("ioapic.edge.tmr"),        TO(V, 0), UP, INTS, TMR_V, RIRR,
    LINE("ioapic.edge.masked-then-unmasked"), UP, TO(V, 0), INTS,
    LINE("ioapic.edge.masked-is-lost"), TO(V | IO_MASKED, 0), UP, IOAPIC_W(LOW(4), V), INTS,
    LINE("ioapic.edge.high-half-triggers-nothing"), TO(V, 0), UP, INTS, LAPIC_EOI, IOAPIC_W(HIGH(4), 0), INTS,
    LINE("ioapic.edge.rewrite-triggers-nothing"), TO(V, 0), UP, INTS, LAPIC_EOI, IOAPIC_W(LOW(4), V), INTS,
    LINE("ioapic.level.deliver"),   TO(V | IO_LEVEL, 0), UP, INTS, RIRR, TMR_V, INTS,
    THEN("ioapic.level.again-after-eoi"), LAPIC_EOI, INTS, RIRR,
    THEN("ioapic.level.ends"),      DOWN, LAPIC_EOI, INTS, RIRR,
    LINE("ioapic.level.remote-irr-read-only"), TO(V | IO_LEVEL | IO_REMOTE_IRR, 0), RIRR, UP, INTS,
                                    IOAPIC_W(LOW(4), V | IO_LEVEL), RIRR,
    LINE("ioapic.level.masked-keeps-remote-irr"), TO(V | IO_LEVEL, 0), UP, INTS, IOAPIC_W(LOW(4), V | IO_LEVEL | IO_MASKED), RIRR,
                                    DOWN, LAPIC_EOI, RIRR,
    LINE("ioapic.level.unmask-delivers"), UP, TO(V | IO_LEVEL | IO_MASKED, 0), INTS, IOAPIC_W(LOW(4), V | IO_LEVEL), INTS,
    LINE("ioapic.level.edge-switch-clears-remote-irr"), TO(V | IO_LEVEL, 0), UP, INTS, DOWN, IOAPIC_W(LOW(4), V | IO_MASKED),
                                    RIRR,
                                    IOAPIC_W(LOW(4), V | IO_LEVEL | IO_MASKED), RIRR,
    LINE("ioapic.level.falls-before-delivery"), TO(V | IO_LEVEL, 0), UP, DOWN, INTS, RIRR,
    LINE("ioapic.eoi-register"),    NEEDS(has_eoi_register), TO(V | IO_LEVEL, 0), UP, INTS, DOWN, RIRR,
                                    WRITE(MEM, 4, IOAPIC + 0x40, V + 1), RIRR, WRITE(MEM, 4, IOAPIC + 0x40, V), RIRR,
    LINE("ioapic.suppression"),     NEEDS(has_suppression), LAPIC_W(APIC_SVR, 0x11ff), TO(V | IO_LEVEL, 0), UP, INTS, DOWN,
                                    LAPIC_EOI,
                                    RIRR, WRITE(MEM, 4, IOAPIC + 0x40, V), RIRR,
    LINE("ioapic.mode.lowest-priority"), LAPIC_W(APIC_LDR, 0x04000000), TO(V | 0x100 | IO_LOGICAL, 0x04), UP, INTS,
                                    LAPIC_W(APIC_LDR, 0),
    LINE("ioapic.mode.nmi"),        TO(V | 0x400, 0), UP, INTS,
    LINE("ioapic.mode.extint"),     OUTB(0x21, 0xef), TO(V | 0x700, 0), UP, INTS, OUTB(0x20, 0x0b), INB(0x20),
    LINE("ioapic.mode.extint-level-sets-no-remote-irr"), OUTB(0x21, 0xef), TO(V | 0x700 | IO_LEVEL, 0), UP, INTS, RIRR,
    LINE("ioapic.mode.reserved-3"), TO(V | 0x300, 0), UP, INTS,
    LINE("ioapic.mode.reserved-6"), TO(V | 0x600, 0), UP, INTS,
    LINE("ioapic.vector.illegal"),  TO(0x0f, 0), UP, INTS, LAPIC_W(APIC_ESR, 0), LAPIC_R(APIC_ESR),
    LINE("ioapic.dest.own-id"),     TO(V, 0), UP, INTS,
    LINE("ioapic.dest.other-id"),   TO(V, 0x0d), UP, INTS,
    LINE("ioapic.dest.physical-broadcast"), TO(V, 0xff), UP, INTS,
    LINE("ioapic.dest.logical-flat"), LAPIC_W(APIC_LDR, 0x04000000), TO(V | IO_LOGICAL, 0x0c), UP, INTS, LAPIC_W(APIC_LDR, 0),
    LINE("ioapic.dest.logical-other"), LAPIC_W(APIC_LDR, 0x04000000), TO(V | IO_LOGICAL, 0xfb), UP, INTS, LAPIC_W(APIC_LDR, 0),
    LINE("ioapic.polarity.low-idle-asserts"), TO(V | IO_LEVEL | IO_LOW, 0), INTS, UP, LAPIC_EOI, INTS, DOWN, INTS,
                                    TO(IO_MASKED, 0), LAPIC_EOI,
    LINE("ioapic.polarity.low-edge"), UP, TO(V | IO_LOW, 0), INTS, DOWN, INTS,
    LINE("ioapic.pit-on-pin-2"),    IOAPIC_W(LOW(0), V + 1), IOAPIC_W(LOW(2), V), CALL(irq0_pulse, 0), INTS,
    LINE("ioapic.rtc-on-pin-8"),    IOAPIC_W(LOW(8), V), CMOS_W(0x0b, 0x42), US(2500), INTS,
    LINE("ioapic.sci-on-pin-9"),    IOAPIC_W(LOW(9), V | IO_LEVEL), CALL(sci, 1), INTS, CALL(sci, 0), LAPIC_EOI, INTS,
    LINE("ioapic.sci-pin"),         CALL(all_level, 0x60), CALL(sci, 1), INTS,
    LINE("ioapic.two-pins-order"),  IOAPIC_W(LOW(8), 0x91), TO(0x52, 0), EOI(EOI_LAPIC), UP, CMOS_W(0x0b, 0x42), US(2500), INTS,
    LINE("ioapic.tpr-holds"),       LAPIC_W(APIC_TPR, 0x60), TO(V, 0), UP, INTS, LAPIC_W(APIC_TPR, 0x40), INTS,
    LINE("ioapic.both-controllers"), LAPIC_W(APIC_LVT_LINT0, 0x700), OUTB(0x21, 0xef), TO(V, 0), UP, INTS,
};
/* clang-format on */

const struct script ioapic_script = {"ioapic", NULL, SCRIPT(ops)};
