/*
 * PCI configuration space by mechanism 1 (PCI Local Bus 3.0, 3.2.2.3), BARs (6.2.5), MSI-X (6.8.2).
 */
#include "pci.h"
#include "asm.h"
#include "mm.h"
#include "spinlock.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc

enum {
    PCI_ID = 0x00,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SECONDARY = 0x19,
    PCI_CAPABILITIES = 0x34,
};
enum { COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400, STATUS_CAPABILITIES = 0x10 };
enum { HEADER_MULTI = 0x80, HEADER_BRIDGE = 1, CAPABILITY_MSIX = 0x11 };
enum { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_ENABLE = 0x8000, MSIX_MASK_ALL = 0x4000, MSIX_ENTRY_SIZE = 16 };

#define MSI_ADDRESS 0xfee00000u

static struct spinlock lock; /* the address port is one for all */

static uint32_t select(struct pci_address a, unsigned offset)
{
    return 1u << 31 | (uint32_t)a.bus << 16 | (uint32_t)a.device << 11 | (uint32_t)a.function << 8 | (offset & 0xfc);
}

uint32_t pci_read(struct pci_address a, unsigned offset, unsigned size)
{
    uint16_t port = (uint16_t)(CONFIG_DATA + (offset & 3));
    uint64_t flags = irq_save();
    spin_lock(&lock);
    outl(CONFIG_ADDRESS, select(a, offset));
    uint32_t v = size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
    spin_unlock(&lock);
    irq_restore(flags);
    return v;
}

void pci_write(struct pci_address a, unsigned offset, unsigned size, uint32_t value)
{
    uint16_t port = (uint16_t)(CONFIG_DATA + (offset & 3));
    uint64_t flags = irq_save();
    spin_lock(&lock);
    outl(CONFIG_ADDRESS, select(a, offset));
    if (size == 1)
        outb(port, (uint8_t)value);
    else if (size == 2)
        outw(port, (uint16_t)value);
    else
        outl(port, value);
    spin_unlock(&lock);
    irq_restore(flags);
}

struct search {
    uint32_t id;
    void (*found)(struct pci_address a, void *argument);
    void *argument;
    uint32_t buses[8]; /* those known to exist, one bit each */
};

static void look_at(struct pci_address a, uint32_t id, struct search *s)
{
    if ((pci_read(a, PCI_HEADER_TYPE, 1) & ~HEADER_MULTI) == HEADER_BRIDGE) {
        uint32_t bus = pci_read(a, PCI_SECONDARY, 1);
        s->buses[bus / 32] |= 1u << bus % 32;
    }
    if (id == s->id)
        s->found(a, s->argument);
}

static void scan_bus(uint8_t bus, struct search *s)
{
    for (uint8_t device = 0; device < 32; device++) {
        unsigned functions = 1;
        for (uint8_t function = 0; function < functions; function++) {
            struct pci_address a = {bus, device, function};
            uint32_t id = pci_read(a, PCI_ID, 4);
            if ((id & 0xffff) == 0xffff)
                continue;
            if (!function && pci_read(a, PCI_HEADER_TYPE, 1) & HEADER_MULTI)
                functions = 8;
            look_at(a, id, s);
        }
    }
}

/* A bridge's secondary bus has a higher number than its primary, so one pass finds all. */
void pci_for_each(uint16_t vendor, uint16_t device, void (*found)(struct pci_address a, void *argument), void *argument)
{
    struct search s = {(uint32_t)device << 16 | vendor, found, argument, {1}};
    for (unsigned bus = 0; bus < 256; bus++)
        if (s.buses[bus / 32] >> bus % 32 & 1)
            scan_bus((uint8_t)bus, &s);
}

bool pci_bar(struct pci_address a, unsigned bar, uint64_t *base, uint64_t *size)
{
    unsigned at = PCI_BAR0 + 4 * bar;
    if (bar > 5)
        return false;
    uint32_t low = pci_read(a, at, 4), command = pci_read(a, PCI_COMMAND, 2), high = 0, high_mask = UINT32_MAX;
    bool wide = (low & 7) == 4;
    if (low & 1 || (wide && bar == 5))
        return false;
    /* Sizing moves the BAR for a moment, so the device must not decode. */
    pci_write(a, PCI_COMMAND, 2, command & ~(uint32_t)(COMMAND_IO | COMMAND_MEMORY));
    pci_write(a, at, 4, UINT32_MAX);
    uint32_t low_mask = pci_read(a, at, 4);
    pci_write(a, at, 4, low);
    if (wide) {
        high = pci_read(a, at + 4, 4);
        pci_write(a, at + 4, 4, UINT32_MAX);
        high_mask = pci_read(a, at + 4, 4);
        pci_write(a, at + 4, 4, high);
    }
    pci_write(a, PCI_COMMAND, 2, command);
    *base = (uint64_t)high << 32 | (low & ~15u);
    *size = -((uint64_t)high_mask << 32 | (low_mask & ~15u));
    return low_mask && *base && *size;
}

static unsigned find_capability(struct pci_address a, uint8_t id)
{
    if (!(pci_read(a, PCI_STATUS, 2) & STATUS_CAPABILITIES))
        return 0;
    unsigned at = pci_read(a, PCI_CAPABILITIES, 1) & 0xfc;
    for (unsigned i = 0; at && i < 48; i++, at = pci_read(a, at + 1, 1) & 0xfc)
        if (pci_read(a, at, 1) == id)
            return at;
    return 0;
}

bool pci_msix_enable(struct pci_address a, unsigned entry, uint8_t vector, uint32_t apic_id)
{
    unsigned at = find_capability(a, CAPABILITY_MSIX);
    uint64_t base, size;
    if (!at || apic_id > 0xff)
        return false;
    uint32_t control = pci_read(a, at + MSIX_CONTROL, 2), table = pci_read(a, at + MSIX_TABLE, 4);
    uint64_t offset = (uint64_t)(table & ~7u) + entry * MSIX_ENTRY_SIZE;
    if (entry > (control & 0x7ff) || !pci_bar(a, table & 7, &base, &size) || offset + MSIX_ENTRY_SIZE > size)
        return false;
    volatile uint32_t *e = map_physical(base + offset, MSIX_ENTRY_SIZE, MAP_DEVICE);
    if (!e)
        return false;
    /* Enabled with all entries masked while the entry is written, so that no half of one is used. */
    pci_write(a, PCI_COMMAND, 2, pci_read(a, PCI_COMMAND, 2) | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
    pci_write(a, at + MSIX_CONTROL, 2, control | MSIX_ENABLE | MSIX_MASK_ALL);
    e[3] = 1;
    e[0] = MSI_ADDRESS | apic_id << 12;
    e[1] = 0;
    e[2] = vector;
    e[3] = 0;
    pci_write(a, at + MSIX_CONTROL, 2, (control | MSIX_ENABLE) & ~(uint32_t)MSIX_MASK_ALL);
    unmap_physical((void *)e, MSIX_ENTRY_SIZE);
    return true;
}
