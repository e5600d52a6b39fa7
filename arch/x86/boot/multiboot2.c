/*
 * Multiboot2 Specification 2.0, section 3.6: boot information, a list of tags.
 */
#include "loader.h"
#include "mm.h"
#include "string.h"

enum { TAG_END = 0, TAG_COMMAND_LINE = 1, TAG_MODULE = 3, TAG_MAP = 6, TAG_ACPI_OLD = 14, TAG_ACPI_NEW = 15 };

struct tag {
    uint32_t type, size;
};

struct tag_module {
    struct tag tag;
    uint32_t start, end;
    char command_line[];
};

struct tag_map {
    struct tag tag;
    uint32_t entry_size, entry_version;
    char entries[];
};

struct map_entry {
    uint64_t base, length;
    uint32_t type, zero;
};

/* GRUB passes a copy of the RSDP, in memory that will be reused: it gets a place in the image. */
static uint8_t rsdp_copy[36] __attribute__((aligned(16)));

static void parse_map(const struct tag_map *t)
{
    if (t->entry_size < sizeof(struct map_entry))
        return;
    for (uint32_t at = sizeof *t; at + t->entry_size <= t->tag.size; at += t->entry_size) {
        const struct map_entry *e = (const void *)((const char *)t + at);
        boot_add_range(e->base, e->length, e->type);
    }
}

static void parse_rsdp(const struct tag *t)
{
    size_t n = t->size - sizeof *t;
    memset(rsdp_copy, 0, sizeof rsdp_copy);
    memcpy(rsdp_copy, t + 1, n < sizeof rsdp_copy ? n : sizeof rsdp_copy);
    boot_info.rsdp = virt_to_phys(rsdp_copy);
}

static void parse_tag(const struct tag *t)
{
    const struct tag_module *m = (const void *)t;
    switch (t->type) {
    case TAG_COMMAND_LINE: /* GRUB 2 leaves the file's name out */
        boot_set_command_line((const char *)(t + 1));
        break;
    case TAG_MODULE:
        boot_add_module(m->start, m->end > m->start ? m->end - m->start : 0, m->command_line);
        break;
    case TAG_MAP:
        parse_map((const void *)t);
        break;
    case TAG_ACPI_OLD:
        if (!boot_info.rsdp)
            parse_rsdp(t);
        break;
    case TAG_ACPI_NEW:
        parse_rsdp(t);
        break;
    }
}

void multiboot2_parse(uint32_t information)
{
    const uint32_t *total = boot_pointer(information);
    uint32_t at = information + 8, end = information + *total;

    boot_info.loader = "multiboot2";
    while (at + sizeof(struct tag) <= end) {
        const struct tag *t = boot_pointer(at);
        if (t->type == TAG_END || t->size < sizeof *t)
            return;
        parse_tag(t);
        at += (t->size + 7) & ~7u;
    }
}
