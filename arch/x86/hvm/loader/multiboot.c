/*
 * Multiboot 1 ("Multiboot Specification version 0.6.96", sections 3.1-3.3).
 */
#include "internal.h"

#define HEADER_MAGIC 0x1badb002u
#define BOOT_MAGIC 0x2badb002u
#define SEARCH_BYTES 8192u
#define SEARCH_PART 48u /* places in a part */
#define HEADER_ADDRESSES (1u << 16) /* the header says where to load; the file need not be an ELF */
#define HEADER_KNOWN 3u             /* required features that any loader has: aligned modules, a memory map */

enum { INFO_MEMORY = 1, INFO_COMMAND_LINE = 4, INFO_MODULES = 8, INFO_MEMORY_MAP = 0x40, INFO_LOADER_NAME = 0x200 };

struct multiboot_header {
    uint32_t magic, flags, checksum;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives[2], config_table, boot_loader_name, apm_table, vbe[4];
};

struct multiboot_module {
    uint32_t mod_start, mod_end, string, zero;
};

struct multiboot_range {
    uint32_t size; /* of the rest */
    uint32_t base[2], length[2], type;
};

/* The header at this offset. Short ones at the very end of a file are legal without address fields. */
static bool read_header(const struct loader *l, uint32_t at, struct multiboot_header *h)
{
    *h = (struct multiboot_header){0};
    return image_read(l, at, h, 12) && h->magic == HEADER_MAGIC && h->magic + h->flags + h->checksum == 0 &&
           (!(h->flags & HEADER_ADDRESSES) || image_read(l, at, h, sizeof(*h)));
}

static bool is_magic(const uint8_t *p)
{
    return p[0] == (HEADER_MAGIC & 0xff) && p[1] == (HEADER_MAGIC >> 8 & 0xff) && p[2] == (HEADER_MAGIC >> 16 & 0xff) &&
           p[3] == HEADER_MAGIC >> 24;
}

/* Looks at a part of the image: `searched` stays at the header. */
enum recognised multiboot_recognise(struct loader *l)
{
    const uint8_t *image = l->in.image;
    struct multiboot_header h;
    for (unsigned n = 0; n < SEARCH_PART; n++, l->searched += 4) {
        if (l->searched == SEARCH_BYTES || l->in.image_size < l->searched + 12)
            return OTHER_FORMAT;
        if (is_magic(image + l->searched) && read_header(l, l->searched, &h))
            return RECOGNISED;
    }
    return NOT_YET;
}

/* Loads by the header's address fields. */
static const char *load_by_addresses(struct loader *l, const struct multiboot_header *h, uint32_t at)
{
    uint64_t offset, file_size, memory_size;
    if (h->header_addr < h->load_addr || h->header_addr - h->load_addr > at)
        return "the multiboot header is damaged: its load address lies before the file";
    offset = at - (h->header_addr - h->load_addr);
    file_size = l->in.image_size - offset;
    if (h->load_end_addr) {
        if (h->load_end_addr < h->load_addr)
            return "the multiboot header is damaged: it ends before it begins";
        file_size = h->load_end_addr - h->load_addr;
    }
    memory_size = file_size;
    if (h->bss_end_addr) {
        if (h->bss_end_addr < h->load_addr + file_size)
            return "the multiboot header is damaged: its bss ends before its data";
        memory_size = h->bss_end_addr - h->load_addr;
    }
    return load_part(l, offset, file_size, h->load_addr, memory_size);
}

static uint32_t put_memory_map(struct loader *l)
{
    struct multiboot_range map[LOADER_RANGES] = {0};
    for (unsigned i = 0; i < l->ranges; i++) {
        const struct loader_range *r = &l->range[i];
        map[i] = (struct multiboot_range){sizeof(map[i]) - 4, {(uint32_t)r->base, (uint32_t)(r->base >> 32)},
                                          {(uint32_t)r->size, (uint32_t)(r->size >> 32)}, r->type};
    }
    return info_put(l, map, l->ranges * sizeof(map[0]));
}

/* Writes the information structure; its gpa, or 0. */
static uint32_t put_info(struct loader *l)
{
    static const char name[] = "Metronome", no_string[] = "";
    struct multiboot_info info = {
        .flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME,
        .mem_lower = 640,
        .mem_upper = (uint32_t)((l->ram_end - 0x100000) >> 10),
        .cmdline = l->command_line,
        .mmap_length = l->ranges * (uint32_t)sizeof(struct multiboot_range),
        .mmap_addr = put_memory_map(l),
        .boot_loader_name = info_put(l, name, sizeof(name)),
    };
    if (l->initrd) {
        struct multiboot_module m = {l->initrd, l->initrd + (uint32_t)l->in.initrd_size, info_put(l, no_string, 1), 0};
        info.mods_count = 1;
        info.mods_addr = info_put(l, &m, sizeof(m));
        if (!m.string || !info.mods_addr)
            return 0;
    }
    return info.mmap_addr && info.boot_loader_name ? info_put(l, &info, sizeof(info)) : 0;
}

const char *multiboot_load(struct loader *l, struct loader_entry *entry)
{
    struct multiboot_header h;
    uint64_t start;
    const char *error;
    if (!read_header(l, l->searched, &h))
        return "the image has no multiboot header";
    if (h.flags & 0xffff & ~HEADER_KNOWN)
        return "the multiboot image requires a feature that there is not (a video mode?)";
    if (h.flags & HEADER_ADDRESSES) {
        start = h.entry_addr;
        error = load_by_addresses(l, &h, l->searched);
    } else {
        error = elf_load(l, &start);
    }
    if (error || (error = place_initrd(l, l->ram_end)))
        return error;
    if (start >= l->image_end)
        return "the multiboot image's entry point lies outside it";
    entry->eip = (uint32_t)start;
    entry->eax = BOOT_MAGIC;
    entry->ebx = put_info(l);
    return entry->ebx ? NULL : "no memory for the multiboot information";
}
