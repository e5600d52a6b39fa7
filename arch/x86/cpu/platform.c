/*
 * The board: tables, interrupt controllers, clocks.
 */
#include "acpi.h"
#include "console.h"
#include "setup.h"

/*
 * Bochs copies real CPUs down to the brand string; what gives it away are its BIOS's tables without a hypervisor in CPUID,
 * which QEMU (the same BIOS's heir) always shows.
 */
static bool is_bochs(void)
{
    return acpi_oem_is("BOCHS ") && !(cpuid(1, 0).ecx & 1u << 31);
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
