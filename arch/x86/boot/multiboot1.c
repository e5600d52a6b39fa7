/*
 * Multiboot Specification 0.6.96, section 3.3: boot information.
 */
#include "loader.h"
#include "string.h"

enum { HAS_MEMORY = 1 << 0, HAS_COMMAND_LINE = 1 << 2, HAS_MODULES = 1 << 3, HAS_MAP = 1 << 6, HAS_NAME = 1 << 9 };

struct multiboot1_info {
    uint32_t flags, lower_kib, upper_kib, boot_device, command_line, modules, module_list, symbols[4];
    uint32_t map_size, map, drives_size, drives, config_table, loader_name;
};

struct multiboot1_module {
    uint32_t start, end, command_line, reserved;
};

struct multiboot1_range {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

static void parse_map(const struct multiboot1_info *info)
{
    uint32_t at = info->map, end = info->map + info->map_size;
    while (at + sizeof(struct multiboot1_range) <= end) {
        const struct multiboot1_range *r = boot_pointer(at);
        boot_add_range(r->base, r->length, r->type);
        if (r->size < sizeof *r - sizeof r->size)
            return;
        at += r->size + sizeof r->size;
    }
}

void multiboot1_parse(uint32_t information)
{
    const struct multiboot1_info *info = boot_pointer(information);
    /* QEMU puts the file's name in front of each command line; GRUB 2 does not. */
    bool prepended = info->flags & HAS_NAME && !strcmp(boot_pointer(info->loader_name), "qemu");

    boot_info.loader = "multiboot1";
    if (info->flags & HAS_COMMAND_LINE) {
        const char *line = boot_pointer(info->command_line);
        boot_set_command_line(prepended ? boot_skip_word(line) : line);
    }
    if (info->flags & HAS_MAP) {
        parse_map(info);
    } else if (info->flags & HAS_MEMORY) {
        boot_add_range(0, info->lower_kib * 1024ull, 1);
        boot_add_range(0x100000, info->upper_kib * 1024ull, 1);
    }
    const struct multiboot1_module *m = boot_pointer(info->module_list);
    for (unsigned i = 0; info->flags & HAS_MODULES && i < info->modules; i++, m++) {
        const char *line = m->command_line ? boot_pointer(m->command_line) : "";
        boot_add_module(m->start, m->end > m->start ? m->end - m->start : 0, prepended ? boot_skip_word(line) : line);
    }
}
