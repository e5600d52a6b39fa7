/*
 * How a CPU is brought up: between the files of arch/x86/boot and arch/x86/cpu only.
 */
#ifndef METRONOME_CPU_SETUP_H
#define METRONOME_CPU_SETUP_H

#include "cpu.h"
#include "trap.h"

extern struct pcpu boot_pcpu;

void idt_build(void);
void idt_use_stacks(void);            /* from here on NMI, #DF and #MC use their own */
void tables_load(struct pcpu *cpu);   /* GDT, TSS, IDT of the running CPU */
void load_segments(void);
void call_on_stack(void (*f)(void), void *top) __attribute__((noreturn));

/* Where RSP starts: below the word that points to the CPU. */
static inline void *stack_top(void *stack)
{
    return (char *)stack + STACK_SIZE - 16;
}

void pcpu_boot_init(void);            /* the boot CPU's, before memory is there */
bool pcpu_alloc_stacks(struct pcpu *cpu);
struct pcpu *pcpu_create(unsigned id, uint32_t apic_id); /* NULL: no memory */

void features_detect(void);
void features_enable(void); /* CR0, CR4, EFER, PAT of the running CPU */

void pic_disable(void);
void lapic_init(void);      /* on each CPU */
void lapic_eoi(void);
uint32_t lapic_id(void);
bool lapic_present(void);
void ipi_nmi_others(void);
void ipi_init(uint32_t apic_id);
void ipi_startup(uint32_t apic_id, uint8_t page);

void lapic_timer_periodic(uint32_t count);
uint32_t lapic_timer_count(void);
void lapic_timer_stop(void);
void timer_init(uint64_t lapic_hz); /* on the boot CPU */
void timer_init_cpu(void);          /* on each CPU */
void sleep_us(uint32_t us);         /* halted; needs the calibrated timer */

void calibrate(void);
void platform_init(void); /* ACPI, interrupt controllers, clocks */
void cpu_main(void) __attribute__((noreturn)); /* the other CPUs' first C on their own stack */
void smp_start(void);

#endif
