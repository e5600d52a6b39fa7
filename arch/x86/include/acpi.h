/*
 * The host's ACPI tables: only what is needed to find CPUs and clocks. Everything in them is checked against the
 * tables' lengths and checksums before it is used.
 */
#ifndef METRONOME_ACPI_H
#define METRONOME_ACPI_H

#include <stdbool.h>
#include <stdint.h>

void acpi_init(void);
/* acpi_table() of cpu.h, besides. */

/* APIC ids of the usable CPUs, at most `max`; how many there are. */
unsigned acpi_cpus(uint32_t *apic_ids, unsigned max);
/* Physical address of the HPET, 0: none. */
uint64_t acpi_hpet(void);
/* Port of the PM timer, 0: none. */
uint16_t acpi_pm_timer(void);
/* By the tables' OEM id: which firmware's they are. */
bool acpi_oem_is(const char oem[6]);

#endif
