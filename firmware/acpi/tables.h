/*
 * ACPI tables of the platform without a device model: what is inside the hypervisor and nothing else, so that an operating
 * system finds its I/O APIC, HPET, PM timer, RTC and COM1. (With a device model SeaBIOS takes QEMU's tables.)
 *
 * RSDP, XSDT, FADT, FACS, MADT, HPET and the DSDT, which iasl makes from module.asl.
 */
#ifndef METRONOME_ACPI_TABLES_H
#define METRONOME_ACPI_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#define ACPI_RSDP_BYTES 36u

/*
 * Builds every table but the RSDP into `area`, which the guest sees at `gpa` (64-byte aligned), and the RSDP that points
 * there. False if they do not fit in `size` bytes. `pause` is called every few hundred instructions, unless NULL.
 */
bool acpi_build(uint8_t *area, uint32_t size, uint64_t gpa, unsigned vcpus, uint8_t rsdp[ACPI_RSDP_BYTES], void (*pause)(void));

/* The AML that iasl made of module.asl: a whole table with its header (aml.S). */
extern const uint8_t acpi_module_dsdt[], acpi_module_dsdt_end[];

#endif
