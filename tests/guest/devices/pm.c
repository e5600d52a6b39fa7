/* ACPI PM timer and PM1a event block; SCI on GSI 9. */
#include "devices.h"

#define STATUS pm.event
#define ENABLE (pm.event + 2)
#define CONTROL pm.control
#define VECTOR 0x5a

static void test_timer(void)
{
    uint32_t last = pm_timer();
    bool monotone = true;
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t t = pm_timer();
        monotone &= ((t - last) & 0xffffff) < 0x800000;
        last = t;
    }
    check(monotone, "pm: the timer is monotone", "it is not");
    uint32_t whole = inl(pm.timer), high;
    for (unsigned i = 0; i < 100 && (inl(pm.timer) ^ whole) & 0xff0000; i++)
        whole = inl(pm.timer);
    high = inb(pm.timer + 2);
    if (on_metronome())
        check(high == (whole >> 16 & 0xff) || high == (((whole >> 16) + 1) & 0xff), "pm: it reads by bytes", "0x%x of 0x%x", high, whole);
}

static void test_registers(void)
{
    outw(ENABLE, 0x0121);
    equal("pm: PM1 enable reads back", inw(ENABLE), 0x0121);
    outw(ENABLE, 0);
    outw(STATUS, 0xffff);
    equal("pm: writing 1s clears PM1 status", inw(STATUS) & 0x0101, 0);
}

/* The timer's top bit changes every 2.34 s. */
static void test_overflow(void)
{
    outw(CONTROL, 1); /* SCI_EN */
    equal("pm: PM1 control reads back", inw(CONTROL), 1);
    ioapic_set(9, IO_LEVEL | VECTOR);
    count_vector(VECTOR, EOI_NONE);
    outw(STATUS, 0xffff);
    outw(ENABLE, 1);
    bool came = wait_hits(VECTOR, 1, 3000);
    if (!check(came, "pm: a change of the top bit raises SCI", "no interrupt; status 0x%x, enable 0x%x, control 0x%x", inw(STATUS), inw(ENABLE),
               inw(CONTROL)))
        return;
    uint32_t t = pm_timer() & 0x7fffff;
    check(t < PM_HZ / (strict ? 1000 : 5), "pm: when it changes", "%u ticks after", t);
    equal("pm: TMR_STS is set", inw(STATUS) & 1, 1);
    outw(STATUS, 1);
    equal("pm: and clears", inw(STATUS) & 1, 0);
    apic_write(APIC_EOI, 0);
    open_interrupts();
    equal("pm: SCI falls with it", hits[VECTOR], 1);
    outw(ENABLE, 0);
}

void test_pm(void)
{
    test_timer();
    test_registers();
    test_overflow();
}
