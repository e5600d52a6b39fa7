/*
 * PVH: Xen's "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h), version 1.
 */
#include "internal.h"

#define START_MAGIC 0x336ec578u

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, zero;
};
ct_assert(sizeof(struct start_info) == 56);

struct start_module {
    uint64_t base, size, cmdline, zero;
};

struct start_range {
    uint64_t base, size;
    uint32_t type, zero;
};

enum recognised pvh_recognise(struct loader *l)
{
    uint64_t entry;
    return elf_pvh_entry(l, &entry) ? RECOGNISED : OTHER_FORMAT;
}

static uint32_t put_start_info(struct loader *l)
{
    struct start_range map[LOADER_RANGES] = {{0, 0, 0, 0}};
    struct start_info s = {.magic = START_MAGIC, .version = 1, .cmdline = l->command_line, .rsdp = RSDP_GPA};
    for (unsigned i = 0; i < l->ranges; i++)
        map[i] = (struct start_range){l->range[i].base, l->range[i].size, l->range[i].type, 0};
    s.memmap = info_put(l, map, l->ranges * sizeof(map[0]));
    s.memmap_entries = l->ranges;
    if (l->initrd) {
        struct start_module m = {l->initrd, l->in.initrd_size, 0, 0};
        s.nr_modules = 1;
        s.modlist = info_put(l, &m, sizeof(m));
        if (!s.modlist)
            return 0;
    }
    return s.memmap ? info_put(l, &s, sizeof(s)) : 0;
}

const char *pvh_load(struct loader *l, struct loader_entry *entry)
{
    uint64_t ignored, start;
    const char *error;
    if ((error = elf_load(l, &ignored)) || (error = place_initrd(l, l->ram_end)))
        return error;
    if (!elf_pvh_entry(l, &start) || start >= l->image_end)
        return "the PVH image's entry point lies outside it";
    entry->eip = (uint32_t)start;
    entry->ebx = put_start_info(l);
    return entry->ebx ? NULL : "no memory for the PVH start information";
}
