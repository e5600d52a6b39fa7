/*
 * The host CPUs: per-CPU data, interrupts, IPIs, the one-shot timer, the TSC.
 */
#ifndef METRONOME_CPU_H
#define METRONOME_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include "asm.h"
#include "mm.h"

#define MAX_PCPUS 64

struct vcpu;
struct hvm_pcpu;

/* Per-CPU data. The topmost 8 bytes of each of a CPU's stacks (also those of NMI, #DF and #MC) point to it, so it is
 * found without GS: a guest's GS base may be live while we run. */
struct pcpu {
    unsigned id;                    /* 0 is the boot CPU */
    uint32_t apic_id;
    struct vcpu *current;           /* the vCPU whose state is in the CPU's registers, or NULL */
    struct hvm_pcpu *hvm;           /* arch/x86/hvm's own */
    volatile uint32_t nmi_count;    /* NMIs taken while not in a guest */
    volatile uint32_t stray_interrupts; /* on a vector without a handler */
    volatile bool online;
    uint32_t tlb_seen;              /* arch/x86/mm: the last flush this CPU took part in */
    void *stack, *nmi_stack, *df_stack, *mc_stack; /* lowest bytes */
    uint64_t gdt[8];
    uint8_t tss[104] __attribute__((aligned(16)));
};

static inline struct pcpu *this_cpu(void)
{
    uint64_t sp;
    __asm__("mov %%rsp, %0" : "=r"(sp)); /* not volatile: the same for a whole function */
    return *(struct pcpu **)((sp | (STACK_SIZE - 1)) - 7);
}

extern struct pcpu *pcpus[MAX_PCPUS];
extern unsigned pcpu_count; /* online, ids 0..count-1 */

/* Vectors. 0x20-0x2f are the masked PIC's, for spurious ones. */
enum {
    VECTOR_DYNAMIC = 0x30,  /* first for irq_alloc() */
    VECTOR_DYNAMIC_END = 0xdf,
    VECTOR_KICK = 0xf0,     /* IPI: look at your work */
    VECTOR_TIMER = 0xf1,    /* local APIC timer */
    VECTOR_FLUSH = 0xf2,    /* IPI: arch/x86/mm, nothing but tlb_sync() */
    VECTOR_SPURIOUS = 0xff,
};

/* Called with interrupts off on the CPU's stack; the end-of-interrupt is written before it. */
typedef void irq_handler(void *argument);
void irq_set_handler(uint8_t vector, irq_handler *handler, void *argument);
/* A free vector with its handler, or -1. */
int irq_alloc(irq_handler *handler, void *argument);

/* What the interrupt entry does; for a backend whose CPU has already acknowledged the interrupt (VMX acknowledge on exit). */
void irq_dispatch(uint8_t vector);

/* Sends a fixed IPI to one pCPU; never waits longer than the ICR needs. Works with interrupts off. */
void ipi_send(unsigned cpu, uint8_t vector);

/* The CPU's own timer: one interrupt on VECTOR_TIMER at or after host TSC `tsc`, at once if that has passed; UINT64_MAX stops
 * it. A time beyond the timer's range interrupts early (handlers re-arm). Uses TSC-deadline where there is one. */
void host_timer_arm(uint64_t tsc);

/* Ticks of the TSC per second: one integer for all CPUs, fixed at boot. From the emulator's own statement (CPUID 0x40000010, or icount:
 * 1 GHz cannot be told apart, so calibrated), CPUID 0x15, or the best of several brackets of at least 100 ms against HPET or PM timer.
 * `tsc_hz=N` on the command line overrides it. */
extern uint64_t tsc_hz;

/* What the boot CPU has; the same on all. */
struct cpu_features {
    bool svm, vmx, npt, nrips, vmcb_clean, flush_by_asid, decode_assists, tsc_scaling, avic, vgif, pause_filter;
    bool invariant_tsc, tsc_deadline, x2apic, xsave, pku, smep, smap, umip, nx, gib_pages, rdtscp, fsgsbase, la57, erms;
    bool on_tcg, on_bochs; /* named quirks only */
    uint8_t phys_bits;
    uint32_t asids;
};
extern struct cpu_features cpu_features;

/* Reads an ACPI table, mapped, by its signature; NULL if there is none. */
const void *acpi_table(const char signature[4]);

/* The first C on the boot CPU, then on every CPU: arch/x86/hvm/. Interrupts are off, all services above work. */
void hvm_boot(void);                           /* once, on CPU 0, after all CPUs are online */
void hvm_cpu_loop(void) __attribute__((noreturn)); /* on every CPU, after hvm_boot() has returned */

#endif
