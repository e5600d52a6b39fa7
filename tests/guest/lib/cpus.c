#include "cpus.h"

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
void count_here(struct frame *f)
{
    if (f->vector != NMI)
        apic_write(APIC_EOI, 0);
    this_cpu()->got[f->vector]++;
}

void count_real_mode_nmis(void)
{
    *word(IVT_NMI) = START << 12 | (uint32_t)(cpu_start_nmi - cpu_start); /* segment START / 16 */
}

uint32_t real_mode_nmis(void)
{
    return *word(START + (uintptr_t)(start_nmis - cpu_start));
}

void cpus_init(unsigned n)
{
    cpu_count = n;
    for (unsigned i = 0; i < n; i++) {
        cpu[i] = &place[i].cpu;
        cpu[i]->self = cpu[i];
        cpu[i]->id = i;
    }
    wrmsr(MSR_GS_BASE, (uintptr_t)cpu[0]);
    __asm__ volatile("sidt %0" : "=m"(idt));
    place_start(cpu_start, cpu_start_end);
    on_vector(WAKE, count_here);
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

void give_job(unsigned id, void (*job)(struct cpu *c), uint64_t argument)
{
    cpu[id]->argument = argument;
    cpu[id]->job = job;
    apic_icr(id, WAKE);
}

bool run_on(unsigned id, void (*job)(struct cpu *c), uint64_t argument)
{
    struct cpu *c = cpu[id];

    if (id == 0) {
        c->argument = argument;
        job(c);
        return true;
    }
    give_job(id, job, argument);
    return AWAIT(!c->job, 5000);
}
