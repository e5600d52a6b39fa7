#include "fw_cfg.h"
#include "platform.h"

#define FOUR_GIB (1ull << 32)
#define ID_TRADITIONAL 1u
#define ID_DMA 2u

unsigned e820_fill(struct e820_entry entries[E820_MAX], const struct platform *p)
{
    unsigned n = 0;

    entries[n++] = (struct e820_entry){0, p->ram_low, 1};
    if (p->ram_high)
        entries[n++] = (struct e820_entry){FOUR_GIB, p->ram_high, 1};
    return n;
}

/*
 * SeaBIOS tells of the wire from the 8254 to I/O APIC pin 2 only if FW_CFG_IRQ0_OVERRIDE is 1; it reads NUMA, kernel,
 * ACPI and SMBIOS counts under keys that are absent here and therefore read 0.
 */
bool platform_items(struct fw_cfg *s, const struct platform *p, struct e820_entry e820[E820_MAX])
{
    const struct {
        uint16_t key;
        uint64_t value;
        uint32_t bytes;
    } numbers[] = {
        {FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4}, {FW_CFG_RAM_SIZE, p->ram_low + p->ram_high, 8},
        {FW_CFG_NB_CPUS, p->vcpus, 2},           {FW_CFG_MAX_CPUS, p->vcpus, 2},
        {FW_CFG_BOOT_MENU, !p->no_boot_menu, 2}, {FW_CFG_IRQ0_OVERRIDE, 1, 4},
    };
    bool good = fw_cfg_add(s, FW_CFG_SIGNATURE, "QEMU", 4);

    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        good = good && fw_cfg_add_number(s, numbers[i].key, numbers[i].value, numbers[i].bytes);
    if (p->boot_menu_wait_ms)
        good = good && fw_cfg_add_file_number(s, "etc/boot-menu-wait", p->boot_menu_wait_ms, 4);
    return good && fw_cfg_add_file(s, "etc/e820", e820, e820_fill(e820, p) * (uint32_t)sizeof *e820);
}
