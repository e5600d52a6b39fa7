/*
 * The local APIC (SDM 3A chapter 10, APM 2 chapter 16): through its page, or by MSRs in x2APIC mode.
 */
#include "console.h"
#include "setup.h"

enum {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR2 = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_THERMAL = 0x330,
    APIC_LVT_PERF = 0x340,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TMICT = 0x380,
    APIC_TMCCT = 0x390,
    APIC_TDCR = 0x3e0,
    APIC_VERSION = 0x30,
};
enum {
    ICR_FIXED = 0,
    ICR_NMI = 4 << 8,
    ICR_INIT = 5 << 8,
    ICR_STARTUP = 6 << 8,
    ICR_BUSY = 1 << 12,
    ICR_ASSERT = 1 << 14,
};
enum { SVR_ENABLE = 0x100, LVT_MASKED = 0x10000, LVT_PERIODIC = 0x20000, LVT_DEADLINE = 0x40000, DIVIDE_BY_1 = 0xb };

#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)
#define MSR_X2APIC       0x800u
#define MSR_TSC_DEADLINE 0x6e0u

/* A delivery that is still not sent after this many reads is given up: the target's CPU is gone. */
#define ICR_WAIT_LIMIT 1000000u

static volatile uint32_t *page; /* NULL in x2APIC mode */
static bool x2apic, present;

static uint32_t lapic_read(unsigned reg)
{
    return x2apic ? (uint32_t)rdmsr(MSR_X2APIC + reg / 16) : page[reg / 4];
}

static void lapic_write(unsigned reg, uint32_t value)
{
    if (x2apic)
        wrmsr(MSR_X2APIC + reg / 16, value);
    else
        page[reg / 4] = value;
}

uint32_t lapic_id(void)
{
    uint32_t id = lapic_read(APIC_ID);
    return x2apic ? id : id >> 24;
}

bool lapic_x2apic(void)
{
    return x2apic;
}

void lapic_eoi(void)
{
    lapic_write(APIC_EOI, 0);
}

static void find_lapic(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    x2apic = cpu_features.x2apic || base & APIC_BASE_X2APIC;
    if (!x2apic)
        page = map_physical(base & 0x000ffffffffff000ull, PAGE_SIZE, MAP_DEVICE);
    if (!x2apic && !page)
        panic("no memory to map the local APIC");
    present = true;
}

void lapic_init(void)
{
    static const uint16_t masked[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};
    if (!present)
        find_lapic();
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
    if (x2apic) /* by way of xAPIC mode, SDM 10.12.5 */
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
    lapic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    lapic_write(APIC_TPR, 0);
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++)
        lapic_write(masked[i], LVT_MASKED | VECTOR_SPURIOUS);
    unsigned last = lapic_read(APIC_VERSION) >> 16 & 0xff;
    if (last >= 4)
        lapic_write(APIC_LVT_PERF, LVT_MASKED | VECTOR_SPURIOUS);
    if (last >= 5)
        lapic_write(APIC_LVT_THERMAL, LVT_MASKED | VECTOR_SPURIOUS);
    lapic_write(APIC_ESR, 0);
    for (unsigned i = 0; i < 256; i++) /* the firmware may have left some in service */
        if (lapic_read(APIC_ISR + i / 32 * 16) >> (i & 31) & 1)
            lapic_eoi();
    this_cpu()->apic_id = lapic_id();
}

static void send(uint32_t apic_id, uint32_t command)
{
    if (!present)
        return;
    if (x2apic) {
        /* WRMSR to the x2APIC does not order earlier stores, SDM 10.12.3. */
        __asm__ volatile("mfence; lfence" : : : "memory");
        wrmsr(MSR_X2APIC + APIC_ICR / 16, (uint64_t)apic_id << 32 | command);
        return;
    }
    uint64_t flags = irq_save();
    for (unsigned i = 0; lapic_read(APIC_ICR) & ICR_BUSY && i < ICR_WAIT_LIMIT; i++)
        pause();
    lapic_write(APIC_ICR2, apic_id << 24);
    lapic_write(APIC_ICR, command);
    irq_restore(flags);
}

void ipi_send(unsigned cpu, uint8_t vector)
{
    send(pcpus[cpu]->apic_id, ICR_FIXED | ICR_ASSERT | vector);
}

/* One by one: a broadcast would also reach CPUs that have not been started, which an emulator takes amiss. */
void ipi_nmi_others(void)
{
    for (unsigned i = 0; i < pcpu_count; i++)
        if (pcpus[i] != this_cpu())
            send(pcpus[i]->apic_id, ICR_NMI | ICR_ASSERT);
}

void ipi_init(uint32_t apic_id)
{
    send(apic_id, ICR_INIT | ICR_ASSERT);
}

void ipi_startup(uint32_t apic_id, uint8_t startup_page)
{
    send(apic_id, ICR_STARTUP | ICR_ASSERT | startup_page);
}

void lapic_timer_one_shot(uint32_t count)
{
    lapic_write(APIC_TMICT, count);
}

void lapic_timer_mode(enum lapic_timer_mode mode)
{
    static const uint32_t lvt[] = {
        [TIMER_ONE_SHOT] = 0, [TIMER_PERIODIC] = LVT_PERIODIC, [TIMER_DEADLINE] = LVT_DEADLINE};
    lapic_write(APIC_TMICT, 0);
    lapic_write(APIC_TDCR, DIVIDE_BY_1);
    lapic_write(APIC_LVT_TIMER, lvt[mode] | VECTOR_TIMER);
    __asm__ volatile("mfence" : : : "memory"); /* before the first WRMSR of a deadline, SDM 10.5.4.1 */
}

uint32_t lapic_timer_count(void)
{
    return lapic_read(APIC_TMCCT);
}

void lapic_timer_deadline(uint64_t tsc)
{
    wrmsr(MSR_TSC_DEADLINE, tsc);
}
