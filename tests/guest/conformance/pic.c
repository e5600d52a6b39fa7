/* 8259A pair and ELCR. IRQ 0 is the PIT's OUT, IRQ 4 the UART's level, IRQ 8 the RTC, IRQ 9 the SCI. */
#include "script.h"

/* clang-format off */
#define INIT(icw1, base, icw4) \
    OUTB(0x20, icw1), OUTB(0x21, base), OUTB(0x21, 4), OUTB(0x21, icw4), \
    OUTB(0xa0, 0x11), OUTB(0xa1, 0x28), OUTB(0xa1, 2), OUTB(0xa1, 1)
#define TO_CPU          LAPIC_W(APIC_LVT_LINT0, 0x700) /* INTR comes in as ExtINT */
#define ONLY(mask)      OUTB(0x21, 0xff & ~(mask)), OUTB(0xa1, 0xff & ~((mask) >> 8))
#define BEGIN(mask)     TO_CPU, ONLY(mask)
#define IRR             OUTB(0x20, 0x0a), INB(0x20)
#define ISR             OUTB(0x20, 0x0b), INB(0x20)
#define ISR2            OUTB(0xa0, 0x0b), INB(0xa0)
#define UP              CALL(irq4, 1)
#define DOWN            CALL(irq4, 0)
#define IRQ0            CALL(irq0_pulse, 0)
#define IRQ8            CMOS_W(0x0b, 0x42), US(2500) /* PIE at 1024 Hz: IRQF stays until C is read */
#define IRQ8_OFF        CMOS_W(0x0b, 0x02), SILENT(CMOS, 1, 0x0c)
#define SCI_UP          OUTB(0x4d1, 0x02), CALL(sci, 1)

static const struct op ops[] = {
    /* Registers */
    LINE("pic.imr.walk-master"),    WALK(IO, 1, 0x21, 0xff),
    LINE("pic.imr.walk-slave"),     WALK(IO, 1, 0xa1, 0xff),
    LINE("pic.imr.after-icws"),     OUTB(0x21, 0xff), INIT(0x11, 0x20, 1), INB(0x21), INB(0xa1),
    LINE("pic.elcr.walk-1"),        WALK(IO, 1, 0x4d0, 0xff),
    LINE("pic.elcr.walk-2"),        WALK(IO, 1, 0x4d1, 0xff),
    LINE("pic.elcr.word"),          WRITE(IO, 2, 0x4d0, 0xffff), READ(IO, 2, 0x4d0, 0xffff), WRITE(IO, 2, 0x4d0, 0),
                                    READ(IO, 2, 0x4d0, 0xffff),
    LINE("pic.word-access"),        WRITE(IO, 2, 0x20, 0x5a20), INB(0x21), READ(IO, 2, 0x20, 0xffff),
    /* ICWs */
    LINE("pic.icw.without-icw4"),   OUTB(0x20, 0x10), OUTB(0x21, 0x20), OUTB(0x21, 4), OUTB(0x21, 0x5a), INB(0x21),
    LINE("pic.icw.single"),         OUTB(0x20, 0x13), OUTB(0x21, 0x20), OUTB(0x21, 1), OUTB(0x21, 0x5a), INB(0x21),
    LINE("pic.icw.single-without-icw4"), OUTB(0x20, 0x12), OUTB(0x21, 0x20), OUTB(0x21, 0xa5), INB(0x21),
    LINE("pic.icw.clears-edge"),    UP, IRR, INIT(0x11, 0x20, 1), IRR, DOWN, UP, IRR,
    LINE("pic.icw.clears-isr"),     BEGIN(0x10), UP, INTS, ISR, INIT(0x11, 0x20, 1), ISR,
    LINE("pic.icw.selects-irr"),    OUTB(0x20, 0x0b), INB(0x20), INIT(0x11, 0x20, 1), UP, INB(0x20),
    LINE("pic.icw.clears-special-mask"), BEGIN(0x11), OUTB(0x20, 0x68), INIT(0x11, 0x20, 1), BEGIN(0x11), IRQ0, INTS,
                                    ONLY(0x10), UP, INTS,
    LINE("pic.icw.resets-priority"), OUTB(0x20, 0xc3), INIT(0x11, 0x20, 1), BEGIN(0x11), IRQ0, UP, EOI(EOI_PIC), INTS,
    LINE("pic.icw.vector-low-bits"), INIT(0x11, 0x27, 1), BEGIN(0x10), UP, INTS,
    LINE("pic.icw.silent-between"), BEGIN(0x10), OUTB(0x20, 0x11), UP, INTS, OUTB(0x21, 0x20), OUTB(0x21, 4), OUTB(0x21, 1),
                                    DOWN, UP, INTS,
    LINE("pic.icw.slave-vector"),   OUTB(0xa0, 0x11), OUTB(0xa1, 0x70), OUTB(0xa1, 2), OUTB(0xa1, 1), BEGIN(0x104), IRQ8, INTS,
    /* Edge and level */
    LINE("pic.edge.irr"),           UP, IRR, DOWN, IRR,
    LINE("pic.edge.once"),          BEGIN(0x10), EOI(EOI_PIC), UP, INTS, IRR, ISR, INTS,
    LINE("pic.edge.in-service"),    BEGIN(0x10), UP, INTS, ISR, IRR, DOWN, ISR,
    THEN("pic.edge.second-waits"),  UP, INTS, IRR, OUTB(0x20, 0x64), INTS, ISR,
    LINE("pic.edge.masked"),        TO_CPU, UP, INTS, IRR, BEGIN(0x10), INTS,
    LINE("pic.level.irr"),          OUTB(0x4d0, 0x10), UP, IRR, DOWN, IRR,
    LINE("pic.level.again-after-eoi"), OUTB(0x4d0, 0x10), BEGIN(0x10), UP, INTS, IRR, ISR, OUTB(0x20, 0x20), INTS,
                                    OUTB(0x20, 0x20),
                                    DOWN, INTS,
    LINE("pic.level.survives-icw1"), OUTB(0x4d0, 0x10), UP, INIT(0x11, 0x20, 1), IRR,
    LINE("pic.level.ltim"),         INIT(0x19, 0x20, 1), BEGIN(0x10), UP, INTS, OUTB(0x20, 0x20), INTS,
    LINE("pic.level.elcr-switch"),  UP, OUTB(0x4d0, 0x10), IRR, DOWN, IRR,
    LINE("pic.withdrawn"),          BEGIN(0x10), UP, DOWN, INTS, ISR,
    LINE("pic.withdrawn-level"),    OUTB(0x4d0, 0x10), BEGIN(0x10), UP, DOWN, INTS, ISR,
    LINE("pic.withdrawn-by-mask"),  BEGIN(0x10), UP, OUTB(0x21, 0xff), INTS, ISR,
    LINE("pic.withdrawn-slave"),    BEGIN(0x104), IRQ8, IRQ8_OFF, INTS, ISR, ISR2,
    /* Priority, EOI, rotation */
    LINE("pic.priority.fixed"),     BEGIN(0x11), EOI(EOI_PIC), UP, IRQ0, IRR, INTS,
    LINE("pic.priority.nests"),     BEGIN(0x11), UP, INTS, IRQ0, INTS, ISR,
    THEN("pic.eoi.nonspecific"),    OUTB(0x20, 0x20), ISR, OUTB(0x20, 0x20), ISR,
    LINE("pic.eoi.specific"),       BEGIN(0x11), UP, INTS, IRQ0, INTS, OUTB(0x20, 0x64), ISR, OUTB(0x20, 0x60), ISR,
    LINE("pic.eoi.nothing-in-service"), OUTB(0x20, 0x20), ISR, OUTB(0x20, 0x65), ISR,
    LINE("pic.eoi.ocw2-nop"),       BEGIN(0x10), UP, INTS, OUTB(0x20, 0x40), ISR,
    LINE("pic.priority.lower-waits"), BEGIN(0x11), IRQ0, INTS, UP, INTS, OUTB(0x20, 0x20), INTS,
    LINE("pic.rotate.set-priority"), OUTB(0x20, 0xc0), BEGIN(0x11), EOI(EOI_PIC), IRQ0, UP, INTS,
    LINE("pic.rotate.on-nonspecific-eoi"), BEGIN(0x11), IRQ0, INTS, OUTB(0x20, 0xa0), ISR, IRQ0, UP, EOI(EOI_PIC), INTS,
    LINE("pic.rotate.on-specific-eoi"), BEGIN(0x11), IRQ0, INTS, OUTB(0x20, 0xe0), ISR, IRQ0, UP, EOI(EOI_PIC), INTS,
    LINE("pic.rotate.eoi-by-rotated-priority"), OUTB(0x20, 0xc0), BEGIN(0x11), IRQ0, INTS, UP, INTS, OUTB(0x20, 0x20), ISR,
    LINE("pic.aeoi"),               INIT(0x11, 0x20, 3), BEGIN(0x10), UP, INTS, ISR, DOWN, UP, INTS,
    LINE("pic.aeoi.rotate"),        INIT(0x11, 0x20, 3), BEGIN(0x11), OUTB(0x20, 0x80), IRQ0, INTS, IRQ0, UP, INTS,
    THEN("pic.aeoi.rotate-off"),    OUTB(0x20, 0x00), OUTB(0x20, 0xc7), DOWN, IRQ0, INTS, IRQ0, UP, INTS,
    /* Special mask, special fully nested */
    LINE("pic.special-mask"),       BEGIN(0x11), IRQ0, INTS, UP, INTS, OUTB(0x20, 0x68), ONLY(0x10), INTS, ISR,
    THEN("pic.special-mask.eoi-skips-masked"), OUTB(0x20, 0x20), ISR, OUTB(0x20, 0x20), ISR, OUTB(0x20, 0x60), ISR,
    LINE("pic.special-mask.off"),   BEGIN(0x11), OUTB(0x20, 0x68), OUTB(0x20, 0x48), IRQ0, INTS, ONLY(0x10), UP, INTS,
    LINE("pic.special-mask.needs-esmm"), BEGIN(0x11), OUTB(0x20, 0x28), IRQ0, INTS, ONLY(0x10), UP, INTS,
    LINE("pic.cascade"),            BEGIN(0x104), IRQ8, INTS, ISR, ISR2,
    THEN("pic.cascade.same-waits"), IRQ8_OFF, IRQ8, INTS,
    THEN("pic.cascade.both-eois"),  OUTB(0xa0, 0x20), INTS, OUTB(0x20, 0x20), INTS,
    LINE("pic.cascade.masked"),     BEGIN(0x100), IRQ8, INTS, IRR, OUTB(0xa0, 0x0a), INB(0xa0),
    LINE("pic.cascade.order"),      BEGIN(0x115), IRQ8, UP, IRQ0, EOI(EOI_PIC), INTS,
    LINE("pic.sci.level"),          BEGIN(0x204), SCI_UP, INTS, ISR, ISR2, CALL(sci, 0), OUTB(0xa0, 0x20), OUTB(0x20, 0x20), INTS,
    LINE("pic.nested-slave.without-sfnm"), BEGIN(0x304), SCI_UP, INTS, IRQ8, INTS,
    LINE("pic.nested-slave.sfnm"),  INIT(0x11, 0x20, 0x11), BEGIN(0x304), SCI_UP, INTS, IRQ8, INTS, ISR, ISR2,
    /* Poll */
    LINE("pic.poll"),               ONLY(0x10), UP, OUTB(0x20, 0x0c), INB(0x20), ISR, INB(0x20),
    LINE("pic.poll.nothing"),       OUTB(0x20, 0x0c), READ(IO, 1, 0x20, 0x80), ISR,
    LINE("pic.poll.one-read"),      ONLY(0x10), OUTB(0x20, 0x0a), UP, OUTB(0x20, 0x0c), INB(0x20), DOWN, UP, INB(0x20),
    LINE("pic.poll.at-imr-port"),   ONLY(0x10), UP, OUTB(0x20, 0x0c), INB(0x21), ISR,
    LINE("pic.poll.cascade"),       ONLY(0x104), IRQ8, OUTB(0x20, 0x0c), INB(0x20), OUTB(0xa0, 0x0c), INB(0xa0), ISR, ISR2,
    LINE("pic.poll.aeoi"),          INIT(0x11, 0x20, 3), ONLY(0x10), UP, OUTB(0x20, 0x0c), INB(0x20), ISR,
    LINE("pic.ocw3.selection-stays"), ONLY(0x10), UP, OUTB(0x20, 0x0a), INB(0x20), INB(0x20), OUTB(0x20, 0x08), INB(0x20),
    /* What reaches the CPU */
    LINE("pic.lint0.masked"),       ONLY(0x10), UP, INTS, IRR,
    LINE("pic.lint0.fixed"),        LAPIC_W(APIC_LVT_LINT0, 0x5a), ONLY(0x10), UP, INTS, ISR, IRR,
    LINE("pic.tpr-does-not-hold"),  LAPIC_W(APIC_TPR, 0xff), BEGIN(0x10), UP, INTS,
};
/* clang-format on */

const struct script pic_script = {"pic", NULL, SCRIPT(ops)};
