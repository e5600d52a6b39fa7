#include "internal.h"
#include "acpi/tables.h"
#include "string.h"

#define CHUNK 0x200000u /* `at` is asked for ranges inside one page of this size */

bool image_read(const struct load *l, uint64_t offset, void *to, uint64_t n)
{
    if (offset > l->in->image_size || n > l->in->image_size - offset)
        return false;
    memcpy(to, (const uint8_t *)l->in->image + offset, n);
    return true;
}

/* Copies from `from`, or clears where that is NULL, page by page. */
static bool guest_fill(const struct load *l, uint64_t gpa, const uint8_t *from, uint64_t n)
{
    if (n > l->memory->ram_low || gpa > l->memory->ram_low - n)
        return false;
    while (n) {
        uint64_t room = CHUNK - gpa % CHUNK, now = n < room ? n : room;
        void *to = l->memory->at(l->memory->ctx, gpa, now);
        if (!to)
            return false;
        if (from) {
            memcpy(to, from, now);
            from += now;
        } else {
            memset(to, 0, now);
        }
        gpa += now;
        n -= now;
    }
    return true;
}

bool guest_write(const struct load *l, uint64_t gpa, const void *from, uint64_t n)
{
    return guest_fill(l, gpa, from, n);
}

bool guest_zero(const struct load *l, uint64_t gpa, uint64_t n)
{
    return guest_fill(l, gpa, NULL, n);
}

/* Whether an image may lie there: not over the structures, the video hole or the ACPI area. */
static bool may_load(const struct load *l, uint64_t gpa, uint64_t size)
{
    uint64_t end = gpa < INFO_BASE ? INFO_BASE : l->ram_end;
    return (gpa < INFO_BASE || gpa >= IMAGE_BASE) && gpa <= end && size <= end - gpa;
}

const char *load_part(struct load *l, uint64_t offset, uint64_t file_size, uint64_t gpa, uint64_t memory_size)
{
    if (offset > l->in->image_size || file_size > l->in->image_size - offset)
        return "the image is truncated: a part of it lies behind its end";
    if (file_size > memory_size)
        return "the image is damaged: a part is larger in the file than in memory";
    if (!may_load(l, gpa, memory_size))
        return "the image does not fit: a part of it lies outside the guest's memory";
    if (!guest_write(l, gpa, (const uint8_t *)l->in->image + offset, file_size) ||
        !guest_zero(l, gpa + file_size, memory_size - file_size))
        return "the image does not fit: a part of it lies where the guest has no memory";
    if (l->image_end < gpa + memory_size)
        l->image_end = gpa + memory_size;
    return NULL;
}

uint32_t info_put(struct load *l, const void *from, uint32_t n)
{
    uint32_t gpa = l->info_next;
    if (n > INFO_END - gpa || !guest_write(l, gpa, from, n))
        return 0;
    l->info_next = (gpa + n + 15) & ~15u;
    return gpa;
}

const char *place_initrd(struct load *l, uint64_t end)
{
    uint64_t size = l->in->initrd_size, gpa;
    if (!l->in->initrd || !size)
        return NULL;
    if (end > l->ram_end)
        end = l->ram_end;
    if (size > end)
        return "the RAM disk does not fit into the guest's memory";
    gpa = (end - size) & ~0xfffull;
    if (gpa < IMAGE_BASE || gpa < l->image_end)
        return "the RAM disk does not fit into the guest's memory beside the image";
    if (!guest_write(l, gpa, l->in->initrd, size))
        return "the RAM disk does not fit: the guest has no memory there";
    l->initrd = (uint32_t)gpa;
    return NULL;
}

static void add_range(struct load *l, uint64_t base, uint64_t end, uint32_t type)
{
    if (base < end)
        l->range[l->ranges++] = (struct memory_range){base, end - base, type};
}

static void map_memory(struct load *l)
{
    const uint64_t gib4 = 1ull << 32;
    add_range(l, 0, 0xa0000, E820_RAM);
    add_range(l, 0xa0000, 0x100000, E820_RESERVED);
    add_range(l, 0x100000, l->ram_end, E820_RAM);
    add_range(l, l->ram_end, l->memory->ram_low, E820_ACPI);
    add_range(l, gib4, gib4 + l->memory->ram_high, E820_RAM);
}

static const char *put_acpi(struct load *l)
{
    uint8_t rsdp[ACPI_RSDP_BYTES];
    uint8_t *area = l->memory->at(l->memory->ctx, l->ram_end, ACPI_AREA_BYTES);
    if (!area)
        return "no memory for the ACPI tables";
    memset(area, 0, ACPI_AREA_BYTES);
    if (!acpi_build(area, ACPI_AREA_BYTES, l->ram_end, l->in->vcpus, rsdp))
        return "too many vCPUs for the ACPI tables";
    return guest_write(l, RSDP_GPA, rsdp, sizeof(rsdp)) ? NULL : "no memory at 0xf0000 for the ACPI RSDP";
}

static const char *put_command_line(struct load *l)
{
    const char *line = l->in->command_line ? l->in->command_line : "";
    size_t n = strnlen(line, LOADER_COMMAND_LINE);
    static const char end = 0;
    if (n == LOADER_COMMAND_LINE)
        return "the command line is too long: 2047 characters at most";
    /* The NUL is written apart: a caller's string may change under us when it lies in shared memory. */
    l->command_line = info_put(l, line, (uint32_t)n + 1);
    if (!l->command_line || !guest_write(l, l->command_line + n, &end, 1))
        return "no memory for the command line";
    l->command_line_length = (uint32_t)n;
    return NULL;
}

static const char *put_gdt(struct load *l, struct loader_entry *entry)
{
    static const uint64_t gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    ct_assert(sizeof(gdt) == LOADER_DS + 8 && LOADER_CS == 0x10);
    entry->gdt = info_put(l, gdt, sizeof(gdt));
    entry->gdt_limit = sizeof(gdt) - 1;
    return entry->gdt ? NULL : "no memory for the descriptor table";
}

static const struct format {
    bool (*recognise)(const struct load *l);
    const char *(*load)(struct load *l, struct loader_entry *entry);
} formats[] = {
    {linux_recognise, linux_load},
    {multiboot_recognise, multiboot_load},
    {pvh_recognise, pvh_load},
};

static const char *check_input(const struct loader_input *in, const struct loader_memory *m)
{
    if (m->ram_low < 2 * CHUNK || m->ram_low > 0xc0000000u || m->ram_low % CHUNK)
        return "a guest without device model needs 4 MiB to 3 GiB of low memory, in steps of 2 MiB";
    if (m->ram_high > 1ull << 46)
        return "too much memory";
    if (!in->image || !in->image_size)
        return "the image is empty";
    return NULL;
}

const char *loader_load(const struct loader_input *in, const struct loader_memory *m, struct loader_entry *entry)
{
    const char *error = check_input(in, m);
    struct load l = {.in = in, .memory = m, .ram_end = m->ram_low - ACPI_AREA_BYTES, .info_next = INFO_BASE};
    if (error)
        return error;
    memset(entry, 0, sizeof(*entry));
    entry->esp = INFO_BASE; /* grows down into free conventional memory */
    map_memory(&l);
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (!formats[i].recognise(&l))
            continue;
        if ((error = put_acpi(&l)) || (error = put_command_line(&l)) || (error = put_gdt(&l, entry)))
            return error;
        return formats[i].load(&l, entry);
    }
    return "not a bootable image: neither multiboot1, nor an ELF with a PVH note, nor a Linux bzImage";
}
