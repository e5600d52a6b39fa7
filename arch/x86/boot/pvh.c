/*
 * The PVH boot protocol: struct hvm_start_info of Xen's public/arch-x86/hvm/start_info.h.
 */
#include "loader.h"
#include "layout.h"

struct pvh_start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp;
    uint64_t map; /* from version 1 on */
    uint32_t map_entries, reserved;
};

struct pvh_module {
    uint64_t base, size, command_line, reserved;
};

struct pvh_range {
    uint64_t base, size;
    uint32_t type, reserved;
};

void pvh_parse(uint32_t information)
{
    const struct pvh_start_info *info = boot_pointer(information);

    boot_info.loader = "PVH";
    if (info->magic != MAGIC_PVH)
        return;
    if (info->command_line)
        boot_set_command_line(boot_pointer(info->command_line));
    boot_info.rsdp = info->rsdp;
    const struct pvh_module *m = boot_pointer(info->module_list);
    for (unsigned i = 0; i < info->modules; i++, m++)
        boot_add_module(m->base, m->size, m->command_line ? boot_pointer(m->command_line) : "");
    const struct pvh_range *r = boot_pointer(info->map);
    for (unsigned i = 0; info->version >= 1 && i < info->map_entries; i++, r++)
        boot_add_range(r->base, r->size, r->type);
}
