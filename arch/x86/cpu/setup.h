/*
 * How a CPU is brought up: between the files of arch/x86/boot and arch/x86/cpu only.
 */
#ifndef METRONOME_CPU_SETUP_H
#define METRONOME_CPU_SETUP_H

#include "cpu.h"
#include "trap.h"

extern struct pcpu boot_pcpu;

void idt_build(void);
void idt_use_stacks(void);          /* from here on NMI, #DF and #MC use their own */
void tables_load(struct pcpu *cpu); /* GDT, TSS, IDT of the running CPU */
void load_segments(void);
void call_on_stack(void (*f)(void), void *top) __attribute__((noreturn));

/* Where RSP starts: below the word that points to the CPU. */
static inline void *stack_top(void *stack)
{
    return (char *)stack + STACK_SIZE - 16;
}

void pcpu_boot_init(void); /* the boot CPU's, before memory is there */
bool pcpu_alloc_stacks(struct pcpu *cpu);
struct pcpu *pcpu_create(unsigned id, uint32_t apic_id); /* NULL: no memory */

void features_detect(void);
void features_enable(void); /* CR0, CR4, EFER, PAT of the running CPU */

/* Low memory mapped at its own address, executable, while CPUs start (arch/x86/mm). */
bool mm_map_trampoline(uint32_t page);
void mm_unmap_trampoline(uint32_t page);

void pic_disable(void);
void lapic_init(void); /* on each CPU */
void lapic_eoi(void);
uint32_t lapic_id(void);
bool lapic_x2apic(void);
void ipi_nmi_others(void);
void ipi_init(uint32_t apic_id);
void ipi_startup(uint32_t apic_id, uint8_t page);

enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };
void lapic_timer_mode(enum lapic_timer_mode mode); /* stopped, divided by 1, on VECTOR_TIMER */
void lapic_timer_one_shot(uint32_t count);         /* also starts the periodic mode; 0 stops */
void lapic_timer_deadline(uint64_t tsc);
uint32_t lapic_timer_count(void);
void timer_init(uint64_t lapic_hz); /* on the boot CPU */
void timer_init_cpu(void);          /* on each CPU */
void sleep_us(uint32_t us);         /* halted; needs the calibrated timer */

void calibrate(void);
void platform_init(void);                      /* ACPI, interrupt controllers, clocks */
void cpu_main(void) __attribute__((noreturn)); /* the other CPUs' first C on their own stack */
void smp_start(void);

#endif
