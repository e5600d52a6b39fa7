/* The CPUs, their jobs and their interrupts. */
#include "smp.h"

#define STACK_BYTES 8192u
#define MSR_GS_BASE 0xc0000101u
#define IVT_NMI 8u

struct cpu *cpu[MAX_CPUS];
unsigned cpu_count;

static struct {
    uint8_t stack[STACK_BYTES];
    struct cpu cpu;
} __attribute__((aligned(16))) place[MAX_CPUS];

static struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) idt;

extern const char cpu_start[], cpu_start_nmi[], cpu_start_end[], start_nmis[];
void cpu_main(void) __attribute__((noreturn));

/* Who sees the count finds nothing in service. */
static void count(struct frame *f)
{
    if (f->vector != NMI)
        apic_write(APIC_EOI, 0);
    this_cpu()->got[f->vector]++;
}

static uint8_t *low(uintptr_t address)
{
    __asm__("" : "+r"(address)); /* low memory is no null pointer */
    return (uint8_t *)address;
}

uint32_t real_mode_nmis(void)
{
    return *(volatile uint32_t *)low(START + (uintptr_t)(start_nmis - cpu_start));
}

void cpus_init(unsigned n)
{
    uint32_t nmi = START << 12 | (uint32_t)(cpu_start_nmi - cpu_start); /* segment START / 16 */

    cpu_count = n;
    for (unsigned i = 0; i < n; i++) {
        cpu[i] = &place[i].cpu;
        cpu[i]->self = cpu[i];
        cpu[i]->id = i;
    }
    wrmsr(MSR_GS_BASE, (uintptr_t)cpu[0]);
    __asm__ volatile("sidt %0" : "=m"(idt));
    memcpy(low(START), cpu_start, (size_t)(cpu_start_end - cpu_start));
    memcpy(low(IVT_NMI), &nmi, sizeof(nmi));
    for (unsigned v = FENCE; v < FIRST_BALL; v++)
        on_vector(v, count);
    on_vector(NMI, count);
    timer_init();
}

/* A SIPI brings each CPU but the first here. */
void cpu_main(void)
{
    struct cpu *c = this_cpu();

    __asm__ volatile("lidt %0" : : "m"(idt));
    apic_enable();
    c->job = NULL;
    c->starts++;
    for (;;) {
        void (*job)(struct cpu *c) = c->job;

        if (job) {
            job(c);
            c->job = NULL;
        } else {
            halt();
        }
    }
}

void timer_init(void)
{
    count_vector(WATCHDOG, EOI_LAPIC);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, WATCHDOG);
}

bool run_on(unsigned id, void (*job)(struct cpu *c), uint64_t argument)
{
    struct cpu *c = cpu[id];

    c->argument = argument;
    if (id == 0) {
        job(c);
        return true;
    }
    c->job = job;
    apic_icr(id, WAKE);
    return AWAIT(!c->job, 5000);
}

void job_send(struct cpu *c)
{
    apic_icr((uint32_t)(c->argument >> 32), (uint32_t)c->argument);
}

void send_from(unsigned id, uint32_t dest, uint32_t low)
{
    run_on(id, job_send, (uint64_t)dest << 32 | low);
}

uint64_t fence(unsigned from, uint64_t expected)
{
    static uint32_t before[MAX_CPUS];
    uint64_t answered = 0;

    for (unsigned i = 0; i < cpu_count; i++)
        before[i] = cpu[i]->got[FENCE];
    send_from(from, 0, 0x80000 | FENCE);
    for (unsigned i = 0; i < cpu_count; i++)
        if (expected >> i & 1)
            AWAIT(cpu[i]->got[FENCE] != before[i], 5000);
    open_interrupts();
    for (unsigned i = 0; i < cpu_count; i++)
        if (cpu[i]->got[FENCE] != before[i])
            answered |= 1ull << i;
    return answered;
}
