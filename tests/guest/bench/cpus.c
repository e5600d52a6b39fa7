/* Other vCPUs: IPIs to one that runs, to one that halts, to all. The receiver's handler reads the TSC first. */
#include "bench.h"
#include "cpus.h"

#define IPI 0x63u
#define START_MS 100u

static volatile uint64_t arrived[MAX_CPUS];
static volatile uint32_t arrivals;
static volatile bool spin;

static void on_ipi(struct frame *f)
{
    uint64_t now = rdtsc();

    (void)f;
    mmio_write(LAPIC + APIC_EOI, 0);
    arrived[this_cpu()->id] = now;
    __atomic_fetch_add(&arrivals, 1, __ATOMIC_SEQ_CST);
}

static uint64_t last_arrival(void)
{
    uint64_t last = 0;

    for (unsigned i = 1; i < cpu_count; i++)
        last = arrived[i] > last ? arrived[i] : last;
    return last;
}

/* From the write of the ICR until the last of them has read the TSC; the sender looks, without an exit. */
static uint64_t sent(uint32_t dest, uint32_t low, uint32_t receivers)
{
    uint64_t from;

    arrivals = 0;
    for (unsigned i = 1; i < cpu_count; i++)
        arrived[i] = 0;
    mmio_write(LAPIC + APIC_ICR2, dest << 24);
    from = rdtsc();
    mmio_write(LAPIC + APIC_ICR, low);
    while (arrivals < receivers)
        ;
    return last_arrival() - from;
}

static uint64_t to_one(void) { return sent(1, 0x4000 | IPI, 1); }
static uint64_t to_others(void) { return sent(0, ICR_OTHERS | 0x4000 | IPI, cpu_count - 1); }

TIMED(send_one, mmio_write(LAPIC + APIC_ICR, 0x4000 | IPI))
TIMED(send_others, mmio_write(LAPIC + APIC_ICR, ICR_OTHERS | 0x4000 | IPI))

static void one_receives(void)
{
    arrivals = 0;
    mmio_write(LAPIC + APIC_ICR2, 1 << 24);
}

static void all_receive(void)
{
    arrivals = 0;
}

static void one_received(void)
{
    while (!arrivals)
        ;
}

static void all_received(void)
{
    while (arrivals < cpu_count - 1)
        ;
}

/* Long enough for the receiver to be in HLT again. */
static void settle(void)
{
    delay_us(50);
}

static void spinning(struct cpu *c)
{
    (void)c;
    sti();
    while (spin)
        ;
    cli();
}

static const struct operation halted[] = {
    {"IPI to a halted vCPU", to_one, settle, NULL},
    {"IPI to a halted vCPU: the sender's part", send_one, one_receives, one_received},
    {"IPI to all others, halted: the last one's", to_others, settle, NULL},
    {"IPI to all others, halted: the sender's part", send_others, all_receive, all_received},
}, running[] = {
    {"IPI to a running vCPU", to_one, NULL, NULL},
    {"IPI to a running vCPU: the sender's part", send_one, one_receives, one_received},
};

static unsigned start_others(void)
{
    unsigned started = 0;

    for (unsigned i = 1; i < cpu_count; i++) {
        start_cpu(i);
        started += AWAIT(cpu[i]->starts, START_MS);
    }
    return started;
}

void bench_cpus(void)
{
    cpus_init((unsigned)option_number("cpus", 1));
    if (cpu_count < 2) {
        skip("other vCPUs", "there is one");
        return;
    }
    on_vector(IPI, on_ipi);
    if (start_others() != cpu_count - 1) {
        skip("other vCPUs", "not all have started: APIC ids are not numbered from 0 (Xen), or they wait for something else");
        return;
    }
    MEASURE(halted);
    spin = true;
    give_job(1, spinning, 0);
    MEASURE(running);
    spin = false;
    apic_write(APIC_LVT_TIMER, APIC_MASKED | VECTOR);
    apic_write(APIC_TMICT, 0);
}
