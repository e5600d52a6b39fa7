/* I/O APIC. Pin 4 is the UART's level, pin 2 the PIT. */
#include "devices.h"

#define PIN 4
#define VECTOR 0x58

static void begin(uint64_t entry)
{
    quiet();
    count_vector(VECTOR, EOI_LAPIC);
    ioapic_set(PIN, entry | VECTOR);
}

static void test_registers(void)
{
    uint32_t version = ioapic_read(1);
    quiet();
    check((version & 0xff) == 0x20 && (version >> 16 & 0xff) >= 23, "ioapic: version 0x20, 24 pins", "0x%x", version);
    ioapic_write(0, 0x05000000);
    equal("ioapic: the id reads back", ioapic_read(0), 0x05000000);
    ioapic_write(0, 0);
    ioapic_write(0x10 + 2 * 5, 0xffffffff);
    equal("ioapic: an entry's low half, read-only bits clear", ioapic_entry(5) & (on_metronome() ? 0xffffffff : 0x1ffff), 0x1afff);
    ioapic_write(0x11 + 2 * 5, 0xff000000);
    equal("ioapic: an entry's high half", ioapic_entry(5) >> 32, 0xff000000);
    ioapic_write(0x10 + 2 * 5, IO_MASKED);
    ioapic_write(0x11 + 2 * 5, 0);
}

static void test_edge(void)
{
    begin(0);
    irq4_set(true);
    open_interrupts();
    open_interrupts();
    equal("ioapic: an edge interrupts once", hits[VECTOR], 1);
    irq4_set(false);
    open_interrupts();
    equal("ioapic: its other edge does not", hits[VECTOR], 1);
    irq4_set(true);
    open_interrupts();
    equal("ioapic: the next edge does", hits[VECTOR], 2);
    ioapic_write(0x11 + 2 * PIN, 0);
    open_interrupts();
    equal("ioapic: writing the high half triggers nothing", hits[VECTOR], 2);
    irq4_set(false);
    ioapic_set(PIN, IO_MASKED | VECTOR);
    irq4_set(true);
    open_interrupts();
    equal("ioapic: masked, it does not interrupt", hits[VECTOR], 2);
    irq4_set(false);
}

static void test_level(void)
{
    begin(IO_LEVEL);
    count_vector(VECTOR, EOI_NONE);
    irq4_set(true);
    open_interrupts();
    open_interrupts();
    equal("ioapic: a level interrupts", hits[VECTOR], 1);
    check(ioapic_entry(PIN) & IO_REMOTE_IRR, "ioapic: remote IRR is set until EOI", "entry 0x%lx", ioapic_entry(PIN));
    check(apic_bit(APIC_TMR, VECTOR), "ioapic: TMR shows it as a level", "it does not");
    apic_write(APIC_EOI, 0);
    open_interrupts();
    equal("ioapic: after EOI it comes again", hits[VECTOR], 2);
    irq4_set(false);
    apic_write(APIC_EOI, 0);
    check(!(ioapic_entry(PIN) & IO_REMOTE_IRR), "ioapic: EOI clears remote IRR", "entry 0x%lx", ioapic_entry(PIN));
    open_interrupts();
    equal("ioapic: a level that went does not come", hits[VECTOR], 2);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    ioapic_set(PIN, VECTOR | IO_MASKED);
    check(!(ioapic_entry(PIN) & IO_REMOTE_IRR), "ioapic: an edge switch clears remote IRR", "entry 0x%lx", ioapic_entry(PIN));
    apic_write(APIC_EOI, 0);
    open_interrupts();
}

/* A level that stays: the guest is interrupted again and again, and still gets on. */
static void test_stuck_level(void)
{
    begin(IO_LEVEL);
    on_hit = lower_at_fifth;
    irq4_set(true);
    run_us(5000); /* a storm hold-off would show here: five in a row are none yet */
    equal("ioapic: a level is redelivered until it goes", hits[VECTOR], 5);
}

static void test_eoi_register(void)
{
    begin(IO_LEVEL);
    count_vector(VECTOR, EOI_NONE);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    mmio_write(IOAPIC + 0x40, VECTOR);
    check(!(ioapic_entry(PIN) & IO_REMOTE_IRR), "ioapic: the EOI register clears remote IRR", "entry 0x%lx", ioapic_entry(PIN));
    apic_write(APIC_EOI, 0);
}

static void test_suppression(void)
{
    if (!(apic_read(APIC_VERSION) >> 24 & 1)) {
        skip("ioapic: EOI broadcast suppression", "not in the local APIC's version");
        return;
    }
    begin(IO_LEVEL);
    count_vector(VECTOR, EOI_NONE);
    apic_write(APIC_SVR, 0x11ff);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    apic_write(APIC_EOI, 0);
    check(ioapic_entry(PIN) & IO_REMOTE_IRR, "ioapic: suppressed, EOI leaves remote IRR", "entry 0x%lx", ioapic_entry(PIN));
    mmio_write(IOAPIC + 0x40, VECTOR);
    check(!(ioapic_entry(PIN) & IO_REMOTE_IRR), "ioapic: directed EOI clears it", "entry 0x%lx", ioapic_entry(PIN));
    apic_write(APIC_SVR, 0x1ff);
}

static void raise_again(unsigned vector)
{
    (void)vector;
    irq4_set(true);
}

static void test_polarity(void)
{
    if (differs_on_qemu("ioapic: polarity", "ignored"))
        return;
    begin(IO_LEVEL | IO_MASKED);
    irq4_set(true);
    ioapic_set(PIN, IO_LEVEL | IO_LOW | VECTOR);
    open_interrupts();
    equal("ioapic: active low, a high line is quiet", hits[VECTOR], 0);
    on_hit = raise_again;
    irq4_set(false);
    open_interrupts();
    equal("ioapic: active low, a low line interrupts", hits[VECTOR], 1);
    irq4_set(false);
    ioapic_set(PIN, IO_MASKED);
}

static void test_destinations(void)
{
    apic_write(APIC_LDR, 0x04000000);
    apic_write(APIC_DFR, 0xffffffff);
    begin(IO_LOGICAL | 0x04ull << 56);
    apic_write(APIC_LDR, 0x04000000);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    equal("ioapic: a logical destination", hits[VECTOR], 1);
    ioapic_set(PIN, IO_LOGICAL | 0x0cull << 56 | 0x100 | VECTOR);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    equal("ioapic: lowest priority", hits[VECTOR], 2);
    ioapic_set(PIN, 0xffull << 56 | VECTOR);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    equal("ioapic: physical broadcast", hits[VECTOR], 3);
    ioapic_set(PIN, 0x0dull << 56 | VECTOR);
    irq4_set(true);
    open_interrupts();
    irq4_set(false);
    equal("ioapic: somebody else's id", hits[VECTOR], 3);
}

static unsigned nmis;
static void on_nmi(struct frame *f)
{
    (void)f;
    nmis++;
}

static void test_nmi(void)
{
    begin(0x400);
    on_vector(2, on_nmi);
    irq4_set(true);
    for (unsigned i = 0; i < 10000 && !nmis; i++)
        pause();
    irq4_set(false);
    equal("ioapic: an NMI pin", nmis, 1);
    ioapic_set(PIN, IO_MASKED);
    on_vector(2, NULL);
}

static void test_pit_pin(void)
{
    uint64_t start;
    quiet();
    count_vector(VECTOR, EOI_LAPIC);
    ioapic_set(2, VECTOR);
    pit_mode(0, 2, 1193);
    if (check(wait_hits(VECTOR, 1, 500), "ioapic: the PIT is pin 2", "no interrupt")) {
        start = hit_tsc[VECTOR];
        hits[VECTOR] = 0;
        wait_hits(VECTOR, 50, 2000);
        between("ioapic: 50 PIT periods", hit_tsc[VECTOR] - start, 49990);
    }
    pit_mode(0, 0, 0xffff);
}

void test_ioapic(void)
{
    test_registers();
    test_edge();
    test_level();
    test_stuck_level();
    test_eoi_register();
    test_suppression();
    test_polarity();
    test_destinations();
    test_nmi();
    test_pit_pin();
}
