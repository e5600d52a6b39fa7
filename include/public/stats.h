/*
 * What the hypervisor counts per domain: exits by reason, interrupts injected by source, the account of the ticks, what was
 * put off, and the longest spans with interrupts off. The lists make the enumerations and the names that tools print.
 */
#ifndef METRONOME_PUBLIC_STATS_H
#define METRONOME_PUBLIC_STATS_H

#include "ticks.h"

/* X(NAME, text) */
#define METRONOME_EXIT_REASONS(X) \
    X(INTERRUPT, "host interrupt") \
    X(WINDOW, "interrupt window") \
    X(HLT, "HLT") \
    X(PAUSE, "PAUSE") \
    X(CPUID, "CPUID") \
    X(MSR, "MSR") \
    X(MSR_X2APIC, "MSR, x2APIC") \
    X(CR, "control register") \
    X(PORT, "port, in-hypervisor device") \
    X(PORT_DM, "port, device model") \
    X(MMIO_LAPIC, "MMIO, local APIC") \
    X(MMIO_IOAPIC, "MMIO, I/O APIC") \
    X(MMIO_HPET, "MMIO, HPET") \
    X(MMIO_DM, "MMIO, device model") \
    X(NPF, "nested page fault, other") \
    X(VMMCALL, "VMMCALL") \
    X(INSTRUCTION, "other intercepted instruction") \
    X(EXCEPTION, "exception") \
    X(NMI, "NMI") \
    X(SHUTDOWN, "shutdown (triple fault)") \
    X(OTHER, "other")

#define METRONOME_INJECT_SOURCES(X) \
    X(PIC, "8259 PIC (ExtINT)") \
    X(LAPIC_TIMER, "local APIC timer") \
    X(IPI, "IPI") \
    X(IOAPIC, "I/O APIC pin") \
    X(MSI, "MSI, device model") \
    X(HPET_MSI, "MSI, HPET") \
    X(LAPIC_LOCAL, "local APIC, other LVT") \
    X(NMI, "NMI") \
    X(EXCEPTION, "exception")

#define X(name, text) METRONOME_EXIT_##name,
enum metronome_exit_reason { METRONOME_EXIT_REASONS(X) METRONOME_EXIT_COUNT };
#undef X
#define X(name, text) METRONOME_INJECT_##name,
enum metronome_inject_source { METRONOME_INJECT_SOURCES(X) METRONOME_INJECT_COUNT };
#undef X

#define METRONOME_STATS_PINS 48u

struct metronome_stats {
    uint64_t exits[32];    /* by enum metronome_exit_reason */
    uint64_t injected[16]; /* by enum metronome_inject_source */
    struct metronome_ledger ticks[METRONOME_TICK_SOURCE_COUNT]; /* of all comparators, and of all vCPUs' timers, the sum */
    uint64_t storms[METRONOME_STATS_PINS]; /* by I/O APIC pin: level interrupts held off because their EOI brought no calm */
    uint64_t expiries_put_off; /* timer expiries that waited for the domain's budget */
    uint64_t policies;         /* in force: METRONOME_TICKS_SHIFT(), none of them DEFAULT */
    uint64_t held_ticks;       /* TSC ticks that entries waited for a deadline, so as not to show it early */
    uint64_t run_ticks;        /* TSC ticks of the host that its vCPUs had a pCPU */
    uint64_t steal_ticks;      /* that they could have run, had a pCPU been free for them */
    /* The longest spans with interrupts off, in TSC ticks: from an exit of the reason to the next entry, or to where the pCPU's
     * loop lets interrupts in; and of the loops themselves of the domain's pCPUs, whatever they worked at. Without what an
     * entry waits for a deadline (held_ticks), and without the world switch, some 40 instructions. */
    uint64_t longest_off[32]; /* by enum metronome_exit_reason */
    uint64_t longest_off_loop;
    uint64_t zero[98];
};
METRONOME_ABI_SIZE(struct metronome_stats, 2048);

#endif
