/*
 * Per-CPU data and stacks.
 */
#include "setup.h"

struct pcpu boot_pcpu;
struct pcpu *pcpus[MAX_PCPUS];
unsigned pcpu_count;

void pcpu_boot_init(void)
{
    pcpus[0] = &boot_pcpu;
    pcpu_count = 1;
    boot_pcpu.online = true;
}

static void *stack_for(struct pcpu *cpu)
{
    char *stack = alloc_stack();
    if (stack)
        *(struct pcpu **)(stack + STACK_SIZE - 8) = cpu;
    return stack;
}

bool pcpu_alloc_stacks(struct pcpu *cpu)
{
    cpu->stack = stack_for(cpu);
    cpu->nmi_stack = stack_for(cpu);
    cpu->df_stack = stack_for(cpu);
    cpu->mc_stack = stack_for(cpu);
    return cpu->stack && cpu->nmi_stack && cpu->df_stack && cpu->mc_stack;
}

struct pcpu *pcpu_create(unsigned id, uint32_t apic_id)
{
    struct pcpu *cpu = alloc_pages(0);
    _Static_assert(sizeof *cpu <= PAGE_SIZE, "a CPU's data is one page");
    if (!cpu || !pcpu_alloc_stacks(cpu))
        return NULL;
    cpu->id = id;
    cpu->apic_id = apic_id;
    return cpu;
}
