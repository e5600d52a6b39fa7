/*
 * Linux bzImage by its 32-bit boot protocol (Linux, Documentation/x86/boot.rst and zero-page.rst).
 */
#include "internal.h"

/* Offsets in boot_params (the "zero page"); from 0x1f1 on they are offsets in the image's first sectors too. */
enum {
    BP_ACPI_RSDP = 0x070,
    BP_E820_ENTRIES = 0x1e8,
    BP_HEADER = 0x1f1,
    BP_SETUP_SECTS = 0x1f1,
    BP_VID_MODE = 0x1fa,
    BP_BOOT_FLAG = 0x1fe,
    BP_HEADER_LENGTH = 0x201,
    BP_MAGIC = 0x202,
    BP_VERSION = 0x206,
    BP_TYPE_OF_LOADER = 0x210,
    BP_LOADFLAGS = 0x211,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_CMD_LINE_PTR = 0x228,
    BP_INITRD_ADDR_MAX = 0x22c,
    BP_KERNEL_ALIGNMENT = 0x230,
    BP_RELOCATABLE = 0x234,
    BP_CMDLINE_SIZE = 0x238,
    BP_SETUP_DATA = 0x250,
    BP_PREF_ADDRESS = 0x258,
    BP_INIT_SIZE = 0x260,
    BP_HEADER_KNOWN = 0x264, /* the header up to here is there from protocol 2.10 on */
    BP_HEADER_MAX = 0x290,
    BP_E820_TABLE = 0x2d0,
    BP_BYTES = 0x1000,
};
#define MAGIC_HDRS 0x53726448u
#define PROTOCOL_MIN 0x020au
#define LOADED_HIGH 1u
#define LOADER_UNKNOWN 0xffu

static uint64_t get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    while (size--)
        v = v << 8 | p[size];
    return v;
}

static void put(uint8_t *p, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++, v >>= 8)
        p[i] = (uint8_t)v;
}

enum recognised linux_recognise(struct loader *l)
{
    uint8_t flag[2], magic[4];
    bool is = image_read(l, BP_BOOT_FLAG, flag, 2) && image_read(l, BP_MAGIC, magic, 4) && get(flag, 2) == 0xaa55 &&
              get(magic, 4) == MAGIC_HDRS;
    return is ? RECOGNISED : OTHER_FORMAT;
}

/* Copies the setup header into boot_params and checks what the rest relies on. */
static const char *read_header(const struct loader *l, uint8_t *bp)
{
    uint64_t end;
    if (!image_read(l, BP_HEADER, bp + BP_HEADER, BP_HEADER_KNOWN - BP_HEADER))
        return "the Linux image is truncated: its setup header is not whole";
    if (get(bp + BP_VERSION, 2) < PROTOCOL_MIN)
        return "the Linux image is too old: boot protocol 2.10 or later is needed";
    if (!(bp[BP_LOADFLAGS] & LOADED_HIGH))
        return "the Linux image is a zImage: a bzImage is needed";
    end = BP_MAGIC + bp[BP_HEADER_LENGTH];
    end = end > BP_HEADER_MAX ? BP_HEADER_MAX : end;
    if (end > BP_HEADER_KNOWN && !image_read(l, BP_HEADER_KNOWN, bp + BP_HEADER_KNOWN, end - BP_HEADER_KNOWN))
        return "the Linux image is truncated: its setup header is not whole";
    return NULL;
}

/*
 * Loads the protected-mode part at 1 MiB. It decompresses itself to its preferred address (or, relocatable, where it is)
 * and needs init_size bytes from there on; nothing else may be in that space.
 */
static const char *load_kernel(struct loader *l, const uint8_t *bp)
{
    uint64_t sectors = bp[BP_SETUP_SECTS] ? bp[BP_SETUP_SECTS] : 4, offset = (sectors + 1) * 512;
    uint64_t run = get(bp + BP_PREF_ADDRESS, 8), init_size = get(bp + BP_INIT_SIZE, 4), size;
    const char *error;
    if (offset >= l->in.image_size)
        return "the Linux image is truncated: its kernel is missing";
    size = l->in.image_size - offset;
    if ((error = load_part(l, offset, size, IMAGE_BASE, size)))
        return error;
    if (run < IMAGE_BASE)
        run = IMAGE_BASE;
    if (run > l->ram_end || init_size > l->ram_end - run)
        return "the Linux kernel does not fit into the guest's memory";
    if (l->image_end < run + init_size)
        l->image_end = run + init_size;
    return NULL;
}

static void put_e820(const struct loader *l, uint8_t *bp)
{
    bp[BP_E820_ENTRIES] = (uint8_t)l->ranges;
    for (unsigned i = 0; i < l->ranges; i++) {
        uint8_t *e = bp + BP_E820_TABLE + 20 * i;
        put(e, 8, l->range[i].base);
        put(e + 8, 8, l->range[i].size);
        put(e + 16, 4, l->range[i].type);
    }
}

const char *linux_load(struct loader *l, struct loader_entry *entry)
{
    uint8_t bp[BP_BYTES] = {0};
    const char *error;
    if ((error = read_header(l, bp)) || (error = load_kernel(l, bp)) || (error = place_initrd(l, get(bp + BP_INITRD_ADDR_MAX, 4) + 1)))
        return error;
    if (l->command_line_length > get(bp + BP_CMDLINE_SIZE, 4))
        return "the command line is longer than this Linux kernel takes";
    bp[BP_TYPE_OF_LOADER] = LOADER_UNKNOWN;
    put(bp + BP_VID_MODE, 2, 0xffff); /* "normal" */
    put(bp + BP_SETUP_DATA, 8, 0);
    put(bp + BP_CMD_LINE_PTR, 4, l->command_line);
    put(bp + BP_RAMDISK_IMAGE, 4, l->initrd);
    put(bp + BP_RAMDISK_SIZE, 4, l->initrd ? l->in.initrd_size : 0);
    put(bp + BP_ACPI_RSDP, 8, RSDP_GPA);
    put_e820(l, bp);
    entry->eip = IMAGE_BASE;
    entry->esi = info_put(l, bp, sizeof(bp));
    return entry->esi ? NULL : "no memory for the Linux boot parameters";
}
