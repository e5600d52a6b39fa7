/* HPET: counter, comparators, legacy replacement, level status, messages. */
#include "devices.h"

#define VECTOR 0x59
/* The pins from 16 on are wired for PCI: active low, as Linux programs them for the HPET too. */
#define PCI_PIN(entry) (IO_LOW | (entry))
#define CONFIG 0x10
#define STATUS 0x20
#define COUNTER 0xf0
#define TN(n) (0x100u + 0x20 * (n))
#define CMP(n) (TN(n) + 8)
#define FSB(n) (TN(n) + 16)
enum { TN_LEVEL = 2, TN_ENABLE = 4, TN_PERIODIC = 8, TN_PERIODIC_CAP = 16, TN_64 = 32, TN_SET = 64, TN_32MODE = 256, TN_FSB = 1 << 14, TN_FSB_CAP = 1 << 15 };

static uint64_t period_fs;

static uint64_t ticks(uint64_t n_us)
{
    return n_us * 1000000000 / period_fs;
}

/* Stops everything, counter 0. */
static void begin(void)
{
    quiet();
    hpet_write(CONFIG, 0);
    for (unsigned n = 0; n < (hpet_read(0) >> 8 & 31) + 1; n++)
        hpet_write(TN(n), 0);
    hpet_write(STATUS, 0xffffffff);
    hpet_write(COUNTER, 0);
    count_vector(VECTOR, EOI_LAPIC);
}

static void test_registers(void)
{
    uint64_t cap = hpet_read(0);
    check((cap & 0xff) && (cap >> 13 & 1) && (cap >> 15 & 1) && period_fs && period_fs <= 100000000, "hpet: capabilities", "0x%lx", cap);
    begin();
    hpet_write(COUNTER, 0x123456789abcdef0);
    equal("hpet: the halted counter takes 64 bits", hpet_read(COUNTER), 0x123456789abcdef0);
    equal("hpet: and reads by halves", mmio_read(HPET + COUNTER + 4), 0x12345678);
    hpet_write(CMP(1), 0xfedcba9876543210);
    equal("hpet: a comparator takes 64 bits", hpet_read(CMP(1)), 0xfedcba9876543210);
    check(hpet_read(TN(0)) & TN_PERIODIC_CAP, "hpet: timer 0 can be periodic", "0x%lx", hpet_read(TN(0)));
    if (on_metronome()) {
        equal("hpet: period 69841270 fs", period_fs, 69841270);
        equal("hpet: 8 comparators", cap >> 8 & 31, 7);
    }
}

static void test_counter(void)
{
    begin();
    uint64_t t0 = rdtsc();
    hpet_write(CONFIG, 1);
    uint64_t last = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t c = hpet_read(COUNTER);
        if (c < last)
            check(false, "hpet: the counter is monotone", "0x%lx after 0x%lx", c, last);
        last = c;
    }
    delay_us(20000);
    uint64_t c = hpet_read(COUNTER), t1 = rdtsc();
    check(c <= ticks((t1 - t0) * 1000 / us(1000)) + ticks(20) && c >= ticks(20000), "hpet: the counter's rate", "0x%lx", c);
    hpet_write(CONFIG, 0);
    c = hpet_read(COUNTER);
    delay_us(500);
    equal("hpet: halted, it stands", hpet_read(COUNTER), c);
    hpet_write(COUNTER, 0xfffffffffffff000);
    hpet_write(CONFIG, 1);
    delay_us(2000);
    check(hpet_read(COUNTER) < 0x100000, "hpet: it wraps at 64 bits", "0x%lx", hpet_read(COUNTER));
}

/* A pin that a timer can be routed to and nothing else here uses, or -1 (QEMU's `pc` has pin 2 only; its q35 has some). */
static int free_pin(unsigned n)
{
    uint32_t can = (uint32_t)(hpet_read(TN(n)) >> 32);
    for (int pin = 16; pin < 24; pin++)
        if (can >> pin & 1)
            return pin;
    return -1;
}

static void test_one_shot(void)
{
    int pin = free_pin(1);
    uint64_t start;
    begin();
    if (pin < 0) {
        skip("hpet: pins", "no pin that a timer could have alone");
        return;
    }
    ioapic_set((unsigned)pin, PCI_PIN(VECTOR));
    hpet_write(TN(1), TN_ENABLE | (uint64_t)pin << 9);
    equal("hpet: the route reads back", hpet_read(TN(1)) >> 9 & 31, (unsigned)pin);
    hpet_write(CMP(1), ticks(5000));
    start = rdtsc();
    hpet_write(CONFIG, 1);
    check(wait_hits(VECTOR, 1, 500), "hpet: one-shot interrupts", "no interrupt");
    took("hpet: one-shot of 5 ms", hit_tsc[VECTOR] - start, 5000);
    run_us(3000);
    equal("hpet: once", hits[VECTOR], 1);
    ioapic_set((unsigned)pin, IO_MASKED);
}

static void test_level(void)
{
    int pin = free_pin(2);
    begin();
    if (pin < 0)
        return;
    ioapic_set((unsigned)pin, PCI_PIN(IO_LEVEL | VECTOR));
    count_vector(VECTOR, EOI_NONE);
    hpet_write(TN(2), TN_ENABLE | TN_LEVEL | (uint64_t)pin << 9);
    hpet_write(CMP(2), ticks(1000));
    hpet_write(CONFIG, 1);
    check(wait_hits(VECTOR, 1, 500), "hpet: a level interrupts", "no interrupt");
    equal("hpet: the status bit is set", hpet_read(STATUS), 4);
    hpet_write(STATUS, 0xfb);
    equal("hpet: writing other bits keeps it", hpet_read(STATUS), 4);
    hpet_write(STATUS, 4);
    equal("hpet: writing 1 clears it", hpet_read(STATUS), 0);
    apic_write(APIC_EOI, 0);
    open_interrupts();
    equal("hpet: and lowers the line", hits[VECTOR], 1);
    ioapic_set((unsigned)pin, IO_MASKED);
}

static void test_periodic(void)
{
    int pin = free_pin(0);
    uint64_t start;
    begin();
    if (pin < 0)
        return;
    ioapic_set((unsigned)pin, PCI_PIN(VECTOR));
    hpet_write(TN(0), TN_ENABLE | TN_PERIODIC | TN_SET | (uint64_t)pin << 9);
    hpet_write(CMP(0), ticks(1000));
    hpet_write(CMP(0), ticks(1000));
    start = rdtsc();
    hpet_write(CONFIG, 1);
    check(wait_hits(VECTOR, 50, 2000), "hpet: periodic interrupts", "%u of 50", hits[VECTOR]);
    if (!differs_on_qemu("hpet: 50 periods of 1 ms", "late ones are made up for, early"))
        took("hpet: 50 periods of 1 ms", hit_tsc[VECTOR] - start, 50000);
    ioapic_set((unsigned)pin, IO_MASKED);
}

static void test_legacy(void)
{
    uint64_t start;
    begin();
    apic_write(APIC_LVT_LINT0, 0x700);
    count_vector(PIC_BASE, EOI_PIC);
    count_vector(PIC_BASE + 8, EOI_PIC);
    pic_mask(0xfefa);
    pit_mode(0, 2, 1193); /* must stay silent */
    hpet_write(TN(0), TN_ENABLE | TN_PERIODIC | TN_SET);
    hpet_write(CMP(0), ticks(2000));
    hpet_write(CMP(0), ticks(2000));
    hpet_write(TN(1), TN_ENABLE);
    hpet_write(CMP(1), ticks(3000));
    reset_hits();
    hpet_write(CONFIG, 3);
    reset_hits();
    start = rdtsc();
    check(wait_hits(PIC_BASE, 10, 1000), "hpet: in legacy mode timer 0 is IRQ 0", "%u interrupts", hits[PIC_BASE]);
    between("hpet: 10 periods of 2 ms, and no PIT", hit_tsc[PIC_BASE] - start, 20000);
    equal("hpet: and timer 1 is IRQ 8", hits[PIC_BASE + 8], 1);
    hpet_write(TN(0), 0);
    hpet_write(CONFIG, 0);
    open_interrupts();
    reset_hits();
    pit_mode(0, 2, 1193);
    check(wait_hits(PIC_BASE, 3, 500), "hpet: after it the PIT is back", "%u interrupts", hits[PIC_BASE]);
}

static void test_32bit(void)
{
    int pin = free_pin(1);
    begin();
    if (pin < 0)
        return;
    ioapic_set((unsigned)pin, PCI_PIN(VECTOR));
    hpet_write(TN(1), TN_ENABLE | TN_32MODE | (uint64_t)pin << 9);
    hpet_write(COUNTER, 0xfffff000);
    hpet_write(CMP(1), 0x1000);
    hpet_write(CONFIG, 1);
    check(wait_hits(VECTOR, 1, 500), "hpet: a 32-bit comparator matches behind the wrap", "no interrupt");
    ioapic_set((unsigned)pin, IO_MASKED);
}

static void test_fsb(void)
{
    begin();
    if (!(hpet_read(TN(1)) & TN_FSB_CAP)) {
        skip("hpet: messages", "no FSB capability");
        return;
    }
    hpet_write(FSB(1), 0xfee0000000000000ull | VECTOR);
    hpet_write(TN(1), TN_ENABLE | TN_FSB);
    hpet_write(CMP(1), ticks(1000));
    hpet_write(CONFIG, 1);
    check(wait_hits(VECTOR, 1, 500), "hpet: a timer sends its message", "no interrupt");
}

void test_hpet(void)
{
    period_fs = hpet_read(0) >> 32;
    if (!check(period_fs && period_fs <= 100000000, "hpet: is there", "capabilities 0x%lx", hpet_read(0)))
        return;
    test_registers();
    test_counter();
    test_one_shot();
    test_level();
    test_periodic();
    test_legacy();
    test_32bit();
    test_fsb();
    hpet_write(CONFIG, 0);
}
