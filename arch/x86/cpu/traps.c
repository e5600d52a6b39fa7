/*
 * Exceptions, NMIs and interrupts. An exception is a bug of ours unless its address has a fixup.
 */
#include "console.h"
#include "setup.h"
#include "spinlock.h"

struct fixup {
    uint64_t from, to;
};
extern const struct fixup __fixups_start[], __fixups_end[];

static struct {
    irq_handler *handler;
    void *argument;
} handlers[256];
static struct spinlock irq_lock;

void irq_set_handler(uint8_t vector, irq_handler *handler, void *argument)
{
    handlers[vector].argument = argument;
    __atomic_store_n(&handlers[vector].handler, handler, __ATOMIC_RELEASE);
}

int irq_alloc(irq_handler *handler, void *argument)
{
    int found = -1;
    uint64_t flags = irq_save();
    spin_lock(&irq_lock);
    for (int v = VECTOR_DYNAMIC; found < 0 && v <= VECTOR_DYNAMIC_END; v++)
        if (!handlers[v].handler)
            found = v;
    if (found >= 0)
        irq_set_handler((uint8_t)found, handler, argument);
    spin_unlock(&irq_lock);
    irq_restore(flags);
    return found;
}

void irq_dispatch(uint8_t vector)
{
    tlb_sync();
    if (vector == VECTOR_SPURIOUS || vector < VECTOR_DYNAMIC)
        return; /* nothing was in service, or it is the masked PIC's: neither takes an end-of-interrupt */
    lapic_eoi();
    irq_handler *handler = __atomic_load_n(&handlers[vector].handler, __ATOMIC_ACQUIRE);
    if (handler)
        handler(handlers[vector].argument);
    else
        this_cpu()->stray_interrupts++;
}

static const char *exception_name(uint64_t vector)
{
    static const char *const names[32] = {
        "#DE divide error",
        "#DB debug",
        "NMI",
        "#BP breakpoint",
        "#OF overflow",
        "#BR bound range",
        "#UD invalid opcode",
        "#NM no device",
        "#DF double fault",
        "coprocessor overrun",
        "#TS invalid TSS",
        "#NP segment not present",
        "#SS stack fault",
        "#GP general protection",
        "#PF page fault",
        "reserved",
        "#MF x87 error",
        "#AC alignment check",
        "#MC machine check",
        "#XM SIMD error",
        "#VE virtualization",
        "#CP control protection",
        [28] = "#HV injection",
        "#VC VMM communication",
        "#SX security",
    };
    return vector < 32 && names[vector] ? names[vector] : "reserved";
}

static bool fix_up(struct trap_frame *frame)
{
    for (const struct fixup *f = __fixups_start; f < __fixups_end; f++)
        if (f->from == frame->rip) {
            frame->rip = f->to;
            return true;
        }
    return false;
}

/* Whether `address` lies just below one of this CPU's stacks. */
static const char *overflown_stack(uint64_t address)
{
    const struct pcpu *cpu = this_cpu();
    const struct {
        const void *base;
        const char *name;
    } stacks[] = {{cpu->stack, "stack"},
                  {cpu->nmi_stack, "NMI stack"},
                  {cpu->df_stack, "#DF stack"},
                  {cpu->mc_stack, "#MC stack"}};
    for (unsigned i = 0; i < sizeof stacks / sizeof *stacks; i++)
        if (stacks[i].base && address < (uint64_t)stacks[i].base && (uint64_t)stacks[i].base - address <= STACK_SIZE)
            return stacks[i].name;
    return NULL;
}

static void exception(struct trap_frame *frame)
{
    if (fix_up(frame))
        return;
    uint64_t address = read_cr2();
    const char *name = exception_name(frame->vector);
    if (frame->vector != VECTOR_PF && frame->vector != VECTOR_DF)
        panic_at(frame, "%s, error code %#llx", name, (unsigned long long)frame->error);
    /* A push onto a guard page cannot push its #PF either: the CPU turns it into #DF and CR2 still has the address. */
    const char *stack = overflown_stack(address);
    if (stack)
        panic_at(frame, "%s overflow: %s, error code %#llx, address %#llx", stack, name,
                 (unsigned long long)frame->error, (unsigned long long)address);
    panic_at(frame, "%s, error code %#llx, address %#llx%s", name, (unsigned long long)frame->error,
             (unsigned long long)address, frame->vector == VECTOR_PF && address < PAGE_SIZE ? " (null pointer)" : "");
}

void trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector >= 32) {
        irq_dispatch((uint8_t)frame->vector);
    } else if (frame->vector == VECTOR_NMI) {
        if (panic_in_progress())
            panic_stop_here();
        this_cpu()->nmi_count++;
    } else {
        exception(frame);
    }
}
