/*
 * A domain's saved state, as the hypervisor writes it into the slot's memory (CONTROL_SAVE) and reads it there
 * (CONTROL_RESTORE): a header, then records of type, length and value in the order of the list below, those of a vCPU
 * for vCPU 0 first. Each value is padded with zeros to a multiple of 8 bytes.
 *
 * A record's layout is its version: whoever changes the struct behind it raises the number in the list. There is no
 * checksum here: this never leaves memory as it is, and the file's own covers it (docs/save.md).
 */
#ifndef METRONOME_PUBLIC_STATE_H
#define METRONOME_PUBLIC_STATE_H

#include "abi.h"

#define METRONOME_STATE_MAGIC 0x314554415453544dull /* "MTSTATE1" */

/* X(NAME, name, version, text) */
#define METRONOME_STATE_DOMAIN_RECORDS(X) \
    X(HEADER, header, 2, "description") \
    X(CPU, cpu, 1, "CPU features") \
    X(TIME, time, 1, "virtual time") \
    X(VPIC, vpic, 1, "8259 PICs") \
    X(VIOAPIC, vioapic, 2, "I/O APIC") \
    X(VPIT, vpit, 1, "8254 PIT") \
    X(HPET, hpet, 2, "HPET") \
    X(RTC, rtc, 1, "RTC") \
    X(PMTIMER, pmtimer, 1, "ACPI PM timer") \
    X(UART, uart, 1, "16550 UART") \
    X(CONSOLE, console, 1, "console") \
    X(LINES, lines, 3, "interrupt lines") \
    X(TEST_PAGE, test_page, 1, "test page")
#define METRONOME_STATE_VCPU_RECORDS(X) \
    X(VLAPIC, vlapic, 1, "local APIC") \
    X(REGISTERS, registers, 1, "registers") \
    X(MSRS, msrs, 1, "MSRs") \
    X(EVENTS, events, 3, "pending events") \
    X(REQUEST, request, 1, "request to the device model") \
    X(FPU, fpu, 1, "FPU")

#define X(NAME, name, version, text) METRONOME_STATE_##NAME,
enum metronome_state_type {
    METRONOME_STATE_DOMAIN_RECORDS(X) METRONOME_STATE_VCPU_RECORDS(X) METRONOME_STATE_TYPES,
    METRONOME_STATE_OF_VCPU = METRONOME_STATE_VLAPIC /* from here on */
};
#undef X

struct metronome_state_header {
    uint64_t magic;
    uint32_t version; /* METRONOME_ABI_VERSION */
    uint32_t bytes;   /* of everything, this header included */
};
METRONOME_ABI_SIZE(struct metronome_state_header, 16);

struct metronome_state_record {
    uint16_t type;    /* enum metronome_state_type */
    uint16_t version;
    uint32_t vcpu;    /* 0 for a record of the domain */
    uint32_t bytes;   /* of the value, without padding */
    uint32_t zero;
};
METRONOME_ABI_SIZE(struct metronome_state_record, 16);

/* METRONOME_STATE_MSRS: a list of these. */
struct metronome_state_msr {
    uint32_t index, zero;
    uint64_t value;
};
METRONOME_ABI_SIZE(struct metronome_state_msr, 16);

struct metronome_state_segment {
    uint16_t selector;
    uint16_t attributes; /* as in a VMCB: bits 0-7 descriptor bits 40-47, 8-11 descriptor bits 52-55 */
    uint32_t limit;
    uint64_t base;
};
METRONOME_ABI_SIZE(struct metronome_state_segment, 16);

/* METRONOME_STATE_REGISTERS: as the guest sees them, whatever the vendor's part keeps in their place. */
struct metronome_state_registers {
    uint64_t gpr[16]; /* in the order of their encoding */
    uint64_t rip, rflags;
    struct metronome_state_segment es, cs, ss, ds, fs, gs, ldtr, tr, gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip;
    uint32_t cpl;
    uint32_t interrupt_shadow; /* 0 or 1 */
};
METRONOME_ABI_SIZE(struct metronome_state_registers, 144 + 10 * 16 + 6 * 8 + 6 * 8 + 8 * 8 + 8);

#endif
