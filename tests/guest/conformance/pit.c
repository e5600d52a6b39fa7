/*
 * 8254 and port 0x61. Channel 2's gate and OUT are bits of port 0x61; channel 0's OUT is IRQ 0. Counts are shown in
 * thousands of clocks or stand still (mode 0 with its gate low); times in units of 0.5 ms.
 */
#include "script.h"

static uint16_t latched(unsigned channel)
{
    return pit_count(channel);
}

/* Channel 2's count in units, rounded. */
static void count(unsigned unit)
{
    value_number(rounded(latched(2), unit));
}

static void count_bcd(unsigned unit)
{
    uint16_t c = latched(2);
    value_number(rounded((c >> 12) * 1000u + (c >> 8 & 15) * 100u + (c >> 4 & 15) * 10u + (c & 15), unit));
}

/* In mode 3 the count goes down by two: its parity never changes. */
static void parity(unsigned unused)
{
    unsigned odd = 0;
    (void)unused;
    for (unsigned i = 0; i < 50; i++)
        odd += latched(2) & 1;
    value_word(odd == 0 ? "even" : odd == 50 ? "odd" : "both");
}

static void refresh_toggles(unsigned unit)
{
    uint64_t start = rdtsc();
    unsigned n = 0;
    for (uint8_t last = inb(0x61), now; rdtsc() - start < us(3000); last = now) {
        now = inb(0x61);
        n += (now ^ last) >> 4 & 1;
    }
    value_number(rounded(n, unit));
}

/* clang-format off */
#define LSB 1
#define MSB 2
#define BOTH 3
#define CONTROL(ch, rw, mode)   OUTB(0x43, (ch) << 6 | (rw) << 4 | (mode) << 1)
#define BCD(ch, rw, mode)       OUTB(0x43, (ch) << 6 | (rw) << 4 | (mode) << 1 | 1)
#define COUNT(ch, n)            OUTB(0x40 + (ch), (n) & 0xff), OUTB(0x40 + (ch), (n) >> 8)
#define GATE(on)                OUTB(0x61, on), US(20) /* some clocks, so that the edge is not met by what follows */
#define OUT2                    READ(IO, 1, 0x61, 0x20)
#define HIGH_AFTER              TIME(IO, 1, 0x61, 0x20, 0x20, 100, 500)
#define LOW_AFTER               TIME(IO, 1, 0x61, 0x20, 0x00, 100, 500)
#define STATUS(ch)              OUTB(0x43, 0xe0 | 2 << (ch)), INB(0x40 + (ch))
#define READ2                   INB(0x42), INB(0x42)
#define MS8                     9545 /* clocks in 8 ms */
#define STILL(n)                GATE(0), CONTROL(2, BOTH, 0), COUNT(2, n), US(100)
#define IRQ0_IN_45MS(mode)      LAPIC_W(APIC_LVT_LINT0, 0x700), CONTROL(0, BOTH, mode), OUTB(0x21, 0xfe), EOI(EOI_PIC), INTS, \
                                COUNT(0, 11932), INTS, RUN_US(45000), HITS(PIC_BASE)

static const struct op ops[] = {
    /* Control words and status: bit 7 OUT, bit 6 NULL COUNT, then access, mode and BCD as written */
    LINE("pit.status.mode-0"),      GATE(1), CONTROL(2, BOTH, 0), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-1"),      GATE(1), CONTROL(2, BOTH, 1), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-2"),      GATE(1), CONTROL(2, BOTH, 2), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-3"),      GATE(1), CONTROL(2, BOTH, 3), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-4"),      GATE(1), CONTROL(2, BOTH, 4), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-5"),      GATE(1), CONTROL(2, BOTH, 5), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-6"),      GATE(1), CONTROL(2, BOTH, 6), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.mode-7"),      GATE(1), CONTROL(2, BOTH, 7), STATUS(2), COUNT(2, 60000), US(500), STATUS(2),
    LINE("pit.status.bcd"),         GATE(1), BCD(2, BOTH, 2), STATUS(2),
    LINE("pit.status.lsb"),         GATE(1), CONTROL(2, LSB, 2), STATUS(2), 
    LINE("pit.status.half-a-count"), GATE(1), CONTROL(2, BOTH, 2), OUTB(0x42, 0x60), US(100), STATUS(2), OUTB(0x42, 0xea),
                                    US(100), STATUS(2),
    LINE("pit.status.channel-0"),   CONTROL(0, BOTH, 2), COUNT(0, 60000), US(500), STATUS(0),
    LINE("pit.status.channel-1"),   CONTROL(1, LSB, 2), OUTB(0x41, 18), US(500), OUTB(0x43, 0xe4), READ(IO, 1, 0x41, 0x7f),
    LINE("pit.control.port-read"),  INB(0x43),
    /* Access: the count stands still */
    LINE("pit.access.both"),        STILL(0x1234), READ2, READ2,
    LINE("pit.access.lsb"),         GATE(0), CONTROL(2, LSB, 0), OUTB(0x42, 0xa5), US(100), READ2, OUTB(0x43, 0x80), READ2,
    LINE("pit.access.msb"),         GATE(0), CONTROL(2, MSB, 0), OUTB(0x42, 0xa5), US(100), READ2, OUTB(0x43, 0x80), READ2,
    LINE("pit.access.bcd"),         GATE(0), BCD(2, BOTH, 0), COUNT(2, 0x1234), US(100), READ2,
    LINE("pit.access.zero"),        STILL(0), READ2,
    LINE("pit.latch.count"),        STILL(0x1234), OUTB(0x43, 0x80), COUNT(2, 0x5678), US(100), READ2, READ2,
    LINE("pit.latch.second-ignored"), STILL(0x1234), OUTB(0x43, 0x80), COUNT(2, 0x5678), US(100), OUTB(0x43, 0x80), READ2, READ2,
    LINE("pit.latch.half-read"),    STILL(0x1234), OUTB(0x43, 0x80), INB(0x42), COUNT(2, 0x5678), US(100), INB(0x42), READ2,
    LINE("pit.latch.control-word-drops-it"), STILL(0x1234), OUTB(0x43, 0x80), CONTROL(2, BOTH, 0), COUNT(2, 0x5678), US(100),
                                    READ2,
    LINE("pit.readback.count"),     STILL(0x1234), OUTB(0x43, 0xd8), COUNT(2, 0x5678), US(100), READ2, READ2,
    LINE("pit.readback.status-then-count"), STILL(0x1234), OUTB(0x43, 0xc8), INB(0x42), READ2, READ2,
    LINE("pit.readback.second-status-ignored"), GATE(0), CONTROL(2, BOTH, 0), OUTB(0x43, 0xe8), COUNT(2, 0x1234), US(100),
                                    OUTB(0x43, 0xe8),
                                    INB(0x42), READ2,
    LINE("pit.readback.other-channel"), STILL(0x1234), OUTB(0x43, 0xc2), READ2, INB(0x40), SILENT(IO, 1, 0x40),
                                    SILENT(IO, 1, 0x40),
    LINE("pit.readback.neither"),   STILL(0x1234), OUTB(0x43, 0xf8), READ2,
    /* Mode 0 */
    LINE("pit.mode0.low-for"),      GATE(1), CONTROL(2, BOTH, 0), OUT2, MARK, COUNT(2, MS8), HIGH_AFTER, US(3000), OUT2,
    LINE("pit.mode0.counts-on"),    GATE(1), CONTROL(2, BOTH, 0), COUNT(2, MS8), US(10000), CALL(count, 1000),
    LINE("pit.mode0.gate-suspends"), GATE(0), CONTROL(2, BOTH, 0), COUNT(2, 60000), US(2000), CALL(count, 1000), GATE(1),
                                    US(5000),
                                    CALL(count, 1000), GATE(0), US(5000), CALL(count, 1000),
    LINE("pit.mode0.new-count"),    GATE(1), CONTROL(2, BOTH, 0), COUNT(2, 60000), US(2000), COUNT(2, 30000), US(2500),
                                    CALL(count, 1000),
    LINE("pit.mode0.first-byte-stops"), GATE(1), CONTROL(2, BOTH, 0), COUNT(2, 60000), US(1000), OUTB(0x42, 0), US(5000),
                                    CALL(count, 1000),
                                    OUTB(0x42, 0x80), US(1000), CALL(count, 1000),
    LINE("pit.mode0.new-count-lowers-out"), GATE(1), CONTROL(2, BOTH, 0), COUNT(2, 100), US(500), OUT2, COUNT(2, 60000),
                                    US(100), OUT2,
    LINE("pit.mode0.lsb-count"),    GATE(1), CONTROL(2, LSB, 0), OUT2, OUTB(0x42, 200), US(400), OUT2,
    /* Mode 1 */
    LINE("pit.mode1.waits"),        GATE(0), CONTROL(2, BOTH, 1), COUNT(2, MS8), US(12000), OUT2, STATUS(2),
    LINE("pit.mode1.low-for"),      GATE(0), CONTROL(2, BOTH, 1), COUNT(2, MS8), MARK, GATE(1), US(100), OUT2, HIGH_AFTER,
    LINE("pit.mode1.gate-low-goes-on"), GATE(0), CONTROL(2, BOTH, 1), COUNT(2, MS8), MARK, GATE(1), US(1000), GATE(0), OUT2,
                                    HIGH_AFTER,
    LINE("pit.mode1.retrigger"),    GATE(0), CONTROL(2, BOTH, 1), COUNT(2, MS8), GATE(1), US(4000), GATE(0), MARK, GATE(1),
                                    US(100), OUT2, HIGH_AFTER,
    LINE("pit.mode1.new-count-waits"), GATE(0), CONTROL(2, BOTH, 1), COUNT(2, MS8), MARK, GATE(1), US(1000), COUNT(2, 3 * MS8),
                                    STATUS(2), HIGH_AFTER,
    /* Mode 2 */
    LINE("pit.mode2.counts"),       GATE(1), CONTROL(2, BOTH, 2), COUNT(2, 60000), US(5000), CALL(count, 1000), OUT2,
    LINE("pit.mode2.reloads"),      GATE(1), CONTROL(2, BOTH, 2), COUNT(2, MS8), US(12000), CALL(count, 1000),
    LINE("pit.mode2.gate-stops"),   GATE(1), CONTROL(2, BOTH, 2), COUNT(2, 60000), US(5000), GATE(0), US(5000),
                                    CALL(count, 1000), OUT2,
    THEN("pit.mode2.gate-reloads"), GATE(1), US(2500), CALL(count, 1000),
    LINE("pit.mode2.new-count-waits"), GATE(1), CONTROL(2, BOTH, 2), COUNT(2, 59659), US(5000), COUNT(2, 11932), US(1000),
                                    STATUS(2),
                                    CALL(count, 1000), US(46000), STATUS(2), CALL(count, 1000),
    LINE("pit.mode2.zero-is-65536"), GATE(1), CONTROL(2, BOTH, 2), COUNT(2, 0), US(4000), CALL(count, 1000),
    LINE("pit.mode2.bcd"),          GATE(1), BCD(2, BOTH, 2), COUNT(2, 0x6000), US(2000), CALL(count_bcd, 500),
    LINE("pit.mode2.bcd-zero-is-10000"), GATE(1), BCD(2, BOTH, 2), COUNT(2, 0), US(2000), CALL(count_bcd, 500),
    /* Mode 3 */
    LINE("pit.mode3.square"),       GATE(1), CONTROL(2, BOTH, 3), MARK, COUNT(2, 2 * MS8), OUT2, LOW_AFTER, HIGH_AFTER, LOW_AFTER,
    LINE("pit.mode3.counts-by-two"), GATE(1), CONTROL(2, BOTH, 3), COUNT(2, 60000), US(5000), CALL(count, 1000), CALL(parity, 0),
    LINE("pit.mode3.odd-count"),    GATE(1), CONTROL(2, BOTH, 3), COUNT(2, 60001), US(5000), CALL(count, 1000), CALL(parity, 0),
    LINE("pit.mode3.gate-raises-out"), GATE(1), CONTROL(2, BOTH, 3), COUNT(2, 2 * MS8), US(10000), OUT2, GATE(0), OUT2, MARK,
                                    GATE(1), LOW_AFTER,
    LINE("pit.mode3.new-count-waits"), GATE(1), CONTROL(2, BOTH, 3), MARK, COUNT(2, 2 * MS8), US(1000), COUNT(2, 4 * MS8),
                                    STATUS(2), LOW_AFTER, HIGH_AFTER,
    /* Modes 4 and 5 */
    LINE("pit.mode4.counts-on"),    GATE(1), CONTROL(2, BOTH, 4), COUNT(2, MS8), OUT2, US(10000), CALL(count, 1000), OUT2,
    LINE("pit.mode4.gate-suspends"), GATE(0), CONTROL(2, BOTH, 4), COUNT(2, 60000), US(2000), CALL(count, 1000), GATE(1),
                                    US(5000), CALL(count, 1000),
    LINE("pit.mode4.new-count"),    GATE(1), CONTROL(2, BOTH, 4), COUNT(2, 60000), US(2000), COUNT(2, 30000), US(2500),
                                    CALL(count, 1000),
    LINE("pit.mode5.waits"),        GATE(0), CONTROL(2, BOTH, 5), COUNT(2, 60000), US(2000), STATUS(2),
    LINE("pit.mode5.trigger"),      GATE(0), CONTROL(2, BOTH, 5), COUNT(2, 60000), US(2000), GATE(1), US(5000),
                                    CALL(count, 1000), STATUS(2), GATE(0),
                                    US(2500), CALL(count, 1000),
    LINE("pit.mode5.retrigger"),    GATE(0), CONTROL(2, BOTH, 5), COUNT(2, 60000), GATE(1), US(5000), GATE(0), GATE(1),
                                    US(2500), CALL(count, 1000),
    /* Channel 0's interrupts in 45 ms with a count of 10 ms; before them, those of the control word and of the count */
    LINE("pit.irq0.mode-0"),        IRQ0_IN_45MS(0),
    LINE("pit.irq0.mode-1"),        IRQ0_IN_45MS(1),
    LINE("pit.irq0.mode-2"),        IRQ0_IN_45MS(2),
    LINE("pit.irq0.mode-3"),        IRQ0_IN_45MS(3),
    LINE("pit.irq0.mode-4"),        IRQ0_IN_45MS(4),
    LINE("pit.irq0.mode-5"),        IRQ0_IN_45MS(5),
    LINE("pit.irq0.follows-out"),   CONTROL(0, BOTH, 0), OUTB(0x20, 0x0a), READ(IO, 1, 0x20, 1), CALL(irq0_pulse, 0),
                                    READ(IO, 1, 0x20, 1),
                                    CONTROL(0, BOTH, 0), US(10), READ(IO, 1, 0x20, 1),
    /* Port 0x61 */
    LINE("pit.port61.walk"),        WALK(IO, 1, 0x61, 0x0f),
    LINE("pit.port61.read-only"),   CONTROL(2, BOTH, 0), OUTB(0x61, 0xf0), READ(IO, 1, 0x61, 0xef),
    LINE("pit.port61.refresh"),     CALL(refresh_toggles, 20),
    LINE("pit.port61.speaker-bit-leaves-out2"), GATE(3), CONTROL(2, BOTH, 0), OUT2, COUNT(2, 100), US(500), OUT2,
};
/* clang-format on */

const struct script pit_script = {"pit", NULL, SCRIPT(ops)};
