/*
 * The board: tables, interrupt controllers, clocks.
 */
#include "acpi.h"
#include "console.h"
#include "pci.h"
#include "setup.h"

#define PCI_SUBSYSTEM_VENDOR 0x2c
#define VENDOR_QEMU          0x1af4

/*
 * Bochs copies real CPUs down to the brand string. What gives it away is its BIOS's name in the ACPI tables, without
 * what QEMU, which has the same, always shows: a hypervisor in CPUID, and its subsystem id on the host bridge.
 */
static bool is_bochs(void)
{
    struct pci_address host_bridge = {0, 0, 0};
    return acpi_oem_is("BOCHS ") && !(cpuid(1, 0).ecx & 1u << 31) &&
           pci_read(host_bridge, PCI_SUBSYSTEM_VENDOR, 2) != VENDOR_QEMU;
}

void platform_init(void)
{
    pic_disable();
    acpi_init();
    cpu_features.on_bochs = is_bochs();
    if (cpu_features.on_tcg || cpu_features.on_bochs)
        log_info("emulated by %s\n", cpu_features.on_tcg ? "QEMU TCG" : "Bochs");
    lapic_init();
    calibrate();
}
