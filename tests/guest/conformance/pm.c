/* ACPI PM timer and PM1a event block, where the FADT says they are. TMR_STS stays set after the other scripts. */
#include "script.h"

static void monotone(unsigned unused)
{
    bool ok = true;
    (void)unused;
    for (uint32_t last = pm_timer(), now, i = 0; i < 2000; i++, last = now) {
        now = pm_timer();
        ok &= ((now - last) & 0xffffff) < 0x100000;
    }
    value_word(ok ? "yes" : "no");
}

/* PM ticks while the PIT counts 59,659: 50 ms; three times as many. */
static void against_pit(unsigned unit)
{
    uint32_t start;
    outb(0x61, 1);
    pit_mode(2, 0, 59659);
    start = pm_timer();
    for (uint64_t t = rdtsc(); !(inb(0x61) & 0x20) && rdtsc() - t < us(200000);)
        spin_us(10);
    value_number(rounded(pm_since(start), unit));
}

/* The width that the FADT states, and the bits above 24 that are ever set. */
static void width(unsigned unused)
{
    (void)unused;
    value_number(pm.timer_32bit ? 32 : 24);
    value_hex(pm.timer_32bit ? 0 : inl(pm.timer) >> 24, 1);
}

/* Bits 23:8 change slowly enough for a narrower read to agree with a whole one. */
static void narrow_reads(unsigned unused)
{
    unsigned agree[3] = {0, 0, 0};
    (void)unused;
    for (unsigned i = 0; i < 20; i++) {
        uint32_t whole = inl(pm.timer);
        agree[0] += inb((uint16_t)(pm.timer + 1)) - (whole >> 8 & 0xff) < 2;
        agree[1] += inb((uint16_t)(pm.timer + 2)) == (whole >> 16 & 0xff);
        agree[2] += (uint32_t)inw((uint16_t)(pm.timer + 1)) - (whole >> 8 & 0xffff) < 2;
    }
    for (unsigned i = 0; i < 3; i++)
        value_word(agree[i] > 15 ? "yes" : "no");
}

/* Waits for the timer's top bit to change; TMR_STS before and after. */
static void overflow(unsigned unused)
{
    uint32_t top = pm_timer() & 0x800000;
    uint64_t start;
    (void)unused;
    while ((pm_timer() & 0x800000) == top)
        nap_us(1000);
    outw(pm.event, 1);
    value_hex(inw(pm.event) & 1, 2);
    start = rdtsc();
    while (!(inw(pm.event) & 1) && rdtsc() - start < us(3000000))
        nap_us(1000);
    value_hex(inw(pm.event) & 1, 2);
    value_number(rounded(rdtsc() - start, us(100000)));
}

/* clang-format off */
#define STS         0
#define EN          2
#define V           0x5a
#define TMR         READ(PM_EVENT, 2, STS, 1)

static const struct op ops[] = {
    LINE("pm.timer.monotone"),      CALL(monotone, 0),
    LINE("pm.timer.against-pit"),   CALL(against_pit, 1000),
    LINE("pm.timer.width"),         CALL(width, 0),
    LINE("pm.timer.narrow-reads"),  CALL(narrow_reads, 0),
    LINE("pm.timer.read-only"),     WRITE(PM_TIMER, 4, 0, 0), CALL(monotone, 0),
    LINE("pm.enable.walk"),         PM_W(STS, 0xffff), WALK(PM_EVENT, 2, EN, 0xffff),
    LINE("pm.enable.bytes"),        PM_W(EN, 0), WRITE(PM_EVENT, 1, EN, 0x20), PM_R(EN), WRITE(PM_EVENT, 1, EN + 1, 0x01),
                                    PM_R(EN), PM_W(EN, 0),
    LINE("pm.status.clears"),       PM_W(STS, 0xffff), READ(PM_EVENT, 2, STS, 0xff7e),
    LINE("pm.status.timer"),        CALL(overflow, 0),
    THEN("pm.status.write-0-keeps"), PM_W(STS, 0), TMR,
    THEN("pm.status.other-byte-keeps"), WRITE(PM_EVENT, 1, STS + 1, 0xff), TMR,
    THEN("pm.status.other-bits-keep"), PM_W(STS, 0xfffe), TMR,
    THEN("pm.status.dword"),        READ(PM_EVENT, 4, STS, 0x00010001),
    THEN("pm.sci.enable-raises"),   IOAPIC_W(0x22, V | IO_LEVEL), INTS, PM_W(EN, 1), INTS,
    THEN("pm.sci.again-after-eoi"), LAPIC_W(APIC_EOI, 0), INTS,
    THEN("pm.sci.write-1-clears"),  PM_W(STS, 1), TMR, LAPIC_W(APIC_EOI, 0), INTS,
};
/* clang-format on */

const struct script pm_script = {"pm", NULL, SCRIPT(ops)};
