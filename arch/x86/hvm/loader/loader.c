#include "internal.h"
#include "acpi/tables.h"
#include "string.h"

#define RAM_STEP 0x200000u
#define FILL_BYTES 4096u

bool image_read(const struct loader *l, uint64_t offset, void *to, uint64_t n)
{
    if (offset > l->in.image_size || n > l->in.image_size - offset)
        return false;
    memcpy(to, (const uint8_t *)l->in.image + offset, n);
    return true;
}

static bool is_low_ram(const struct loader *l, uint64_t gpa, uint64_t n)
{
    return n <= l->memory.ram_low && gpa <= l->memory.ram_low - n;
}

/* Copies from `from`, or clears where that is NULL, to the end of the page at most. The bytes done; 0: there is no RAM. */
static uint64_t fill_page(const struct loader *l, uint64_t gpa, const uint8_t *from, uint64_t n)
{
    uint64_t room = FILL_BYTES - gpa % FILL_BYTES, now = n < room ? n : room;
    void *to = l->memory.at(l->memory.ctx, gpa, now);
    if (!to)
        return 0;
    if (from)
        memcpy(to, from, now);
    else
        memset(to, 0, now);
    return now;
}

bool guest_write(const struct loader *l, uint64_t gpa, const void *from, uint64_t n)
{
    uint64_t done = 0, now;
    if (!is_low_ram(l, gpa, n))
        return false;
    for (; done < n; done += now)
        if (!(now = fill_page(l, gpa + done, (const uint8_t *)from + done, n - done)))
            return false;
    return true;
}

bool guest_fill(struct loader *l, uint64_t gpa, const void *from, uint64_t n)
{
    if (!is_low_ram(l, gpa, n) || l->fills == LOADER_FILLS)
        return false;
    if (n)
        l->fill[l->fills++] = (struct loader_fill){from, gpa, n};
    return true;
}

/* Whether an image may lie there: not over the structures, the video hole or the ACPI area. */
static bool may_load(const struct loader *l, uint64_t gpa, uint64_t size)
{
    uint64_t end = gpa < INFO_BASE ? INFO_BASE : l->ram_end;
    return (gpa < INFO_BASE || gpa >= IMAGE_BASE) && gpa <= end && size <= end - gpa;
}

const char *load_part(struct loader *l, uint64_t offset, uint64_t file_size, uint64_t gpa, uint64_t memory_size)
{
    if (offset > l->in.image_size || file_size > l->in.image_size - offset)
        return "the image is truncated: a part of it lies behind its end";
    if (file_size > memory_size)
        return "the image is damaged: a part is larger in the file than in memory";
    if (!may_load(l, gpa, memory_size))
        return "the image does not fit: a part of it lies outside the guest's memory";
    if (!guest_fill(l, gpa, (const uint8_t *)l->in.image + offset, file_size) ||
        !guest_fill(l, gpa + file_size, NULL, memory_size - file_size))
        return "the image does not fit: a part of it lies where the guest has no memory";
    if (l->image_end < gpa + memory_size)
        l->image_end = gpa + memory_size;
    return NULL;
}

uint32_t info_put(struct loader *l, const void *from, uint32_t n)
{
    uint32_t gpa = l->info_next;
    if (n > INFO_END - gpa || !guest_write(l, gpa, from, n))
        return 0;
    l->info_next = (gpa + n + 15) & ~15u;
    return gpa;
}

const char *place_initrd(struct loader *l, uint64_t end)
{
    uint64_t size = l->in.initrd_size, gpa;
    if (!l->in.initrd || !size)
        return NULL;
    if (end > l->ram_end)
        end = l->ram_end;
    if (size > end)
        return "the RAM disk does not fit into the guest's memory";
    gpa = (end - size) & ~0xfffull;
    if (gpa < IMAGE_BASE || gpa < l->image_end)
        return "the RAM disk does not fit into the guest's memory beside the image";
    if (!guest_fill(l, gpa, l->in.initrd, size))
        return "the RAM disk does not fit: the guest has no memory there";
    l->initrd = (uint32_t)gpa;
    return NULL;
}

static void add_range(struct loader *l, uint64_t base, uint64_t end, uint32_t type)
{
    if (base < end)
        l->range[l->ranges++] = (struct loader_range){base, end - base, type};
}

static void map_memory(struct loader *l)
{
    const uint64_t gib4 = 1ull << 32;
    add_range(l, 0, 0xa0000, E820_RAM);
    add_range(l, 0xa0000, 0x100000, E820_RESERVED);
    add_range(l, 0x100000, l->ram_end, E820_RAM);
    add_range(l, l->ram_end, l->memory.ram_low, E820_ACPI);
    add_range(l, gib4, gib4 + l->memory.ram_high, E820_RAM);
}

/* Into the area that has been cleared. */
static const char *put_acpi(const struct loader *l)
{
    uint8_t rsdp[ACPI_RSDP_BYTES];
    uint8_t *area = l->memory.at(l->memory.ctx, l->ram_end, ACPI_AREA_BYTES);
    if (!area)
        return "no memory for the ACPI tables";
    if (!acpi_build(area, ACPI_AREA_BYTES, l->ram_end, l->in.vcpus, rsdp, l->memory.pause))
        return "too many vCPUs for the ACPI tables";
    return guest_write(l, RSDP_GPA, rsdp, sizeof(rsdp)) ? NULL : "no memory at 0xf0000 for the ACPI RSDP";
}

static const char *put_command_line(struct loader *l)
{
    const char *line = l->in.command_line ? l->in.command_line : "";
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

static const char *put_gdt(struct loader *l, struct loader_entry *entry)
{
    static const uint64_t gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    ct_assert(sizeof(gdt) == LOADER_DS + 8 && LOADER_CS == 0x10);
    entry->gdt = info_put(l, gdt, sizeof(gdt));
    entry->gdt_limit = sizeof(gdt) - 1;
    return entry->gdt ? NULL : "no memory for the descriptor table";
}

static const struct format {
    enum recognised (*recognise)(struct loader *l);
    const char *(*load)(struct loader *l, struct loader_entry *entry);
} formats[] = {
    {linux_recognise, linux_load},
    {multiboot_recognise, multiboot_load},
    {pvh_recognise, pvh_load},
};

static const char *check_input(const struct loader_input *in, const struct loader_memory *m)
{
    if (m->ram_low < 2 * RAM_STEP || m->ram_low > 0xc0000000u || m->ram_low % RAM_STEP)
        return "a guest without device model needs 4 MiB to 3 GiB of low memory, in steps of 2 MiB";
    if (m->ram_high > 1ull << 46)
        return "too much memory";
    if (!in->image || !in->image_size)
        return "the image is empty";
    return NULL;
}

/* Asks the next format whether it is its image, and if so what is to be done. */
static const char *look(struct loader *l)
{
    const struct format *f = &formats[l->format];
    enum recognised is = f->recognise(l);
    const char *error;
    if (is == RECOGNISED) {
        l->looked = true;
        return (error = put_command_line(l)) || (error = put_gdt(l, &l->entry)) ? error : f->load(l, &l->entry);
    }
    l->format += is == OTHER_FORMAT;
    return l->format < sizeof(formats) / sizeof(formats[0]) ? NULL
           : "not a bootable image: neither multiboot1, nor an ELF with a PVH note, nor a Linux bzImage";
}

const char *loader_begin(struct loader *l, const struct loader_input *in, const struct loader_memory *m)
{
    const char *error = check_input(in, m);
    if (error)
        return error;
    *l = (struct loader){.in = *in, .memory = *m, .ram_end = m->ram_low - ACPI_AREA_BYTES, .info_next = INFO_BASE,
                         .entry.esp = INFO_BASE /* grows down into free conventional memory */};
    map_memory(l);
    return guest_fill(l, l->ram_end, NULL, ACPI_AREA_BYTES) ? NULL : "no memory for the ACPI tables";
}

bool loader_continue(struct loader *l, const char **error)
{
    struct loader_fill *f = &l->fill[l->filled];
    uint64_t now;
    *error = NULL;
    if (!l->looked) {
        *error = look(l);
        return !*error;
    }
    if (l->filled == l->fills) {
        *error = put_acpi(l);
        return false;
    }
    now = fill_page(l, f->gpa, f->from, f->bytes);
    if (!now) {
        *error = "the image does not fit: a part of it lies where the guest has no memory";
        return false;
    }
    f->gpa += now;
    if (f->from)
        f->from += now;
    f->bytes -= now;
    l->filled += !f->bytes;
    return true;
}
