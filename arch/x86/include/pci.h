/*
 * PCI configuration space of the host, by ports 0xcf8/0xcfc, and MSI-X; enough for the ivshmem devices.
 */
#ifndef METRONOME_PCI_H
#define METRONOME_PCI_H

#include <stdbool.h>
#include <stdint.h>

struct pci_address {
    uint8_t bus, device, function;
};

uint32_t pci_read(struct pci_address a, unsigned offset, unsigned size);
void pci_write(struct pci_address a, unsigned offset, unsigned size, uint32_t value);

/* Calls `found` for each function with this vendor and device id in bus order (bus, device, function). */
void pci_for_each(uint16_t vendor, uint16_t device, void (*found)(struct pci_address a, void *argument), void *argument);

/* Base and size of a memory BAR (64-bit ones too); false if it is not there or not assigned. */
bool pci_bar(struct pci_address a, unsigned bar, uint64_t *base, uint64_t *size);

/* Routes MSI-X entry `entry` to a vector on a CPU, enables MSI-X, memory decoding and bus mastering. False if there is none. */
bool pci_msix_enable(struct pci_address a, unsigned entry, uint8_t vector, uint32_t apic_id);

#endif
