/*
 * Starts a guest without a device model: recognises a boot module, puts it into guest RAM, and tells how the first vCPU begins.
 *
 * Formats: Linux bzImage (boot protocol 2.10 and later, 32-bit entry), multiboot1 (address fields, ELF32, ELF64), PVH (an
 * ELF with the XEN_ELFNOTE_PHYS32_ENTRY note). Beside the image it writes what its boot protocol wants (memory map, command
 * line, RAM disk) and the platform's ACPI tables.
 *
 * Pure and freestanding: an image is data that may be hostile. Nothing is read outside it, nothing is written outside the
 * memory that `at` hands out, and the work is bounded by the sizes of image and RAM. It is done in parts of at most a page:
 * a caller may have other things to do.
 *
 * The guest's memory afterwards:
 *   0x80000-0x9ffff            the boot protocol's structures, command line and descriptor table
 *   0xf0000                    RSDP
 *   ..., from 0x100000 on      the image, where it wants to be
 *   below the ACPI area        the RAM disk, as high as the protocol allows
 *   ram_low - 64 KiB, ram_low  the ACPI area
 */
#ifndef METRONOME_LOADER_H
#define METRONOME_LOADER_H

#include <stdbool.h>
#include <stdint.h>

struct loader_memory {
    void *ctx;
    /* Host pointer to contiguous guest RAM [gpa, gpa + size), or NULL. Asked for ranges inside one 2 MiB page only. */
    void *(*at)(void *ctx, uint64_t gpa, uint64_t size);
    uint64_t ram_low, ram_high; /* bytes of RAM from 0, and from 4 GiB */
    void (*pause)(void);        /* called between steps of long work; NULL: not */
};

struct loader_input {
    const void *image;
    uint64_t image_size;
    const void *initrd; /* NULL: none */
    uint64_t initrd_size;
    const char *command_line; /* NULL: empty; at most LOADER_COMMAND_LINE bytes with the NUL */
    unsigned vcpus;
};

#define LOADER_COMMAND_LINE 2048u

/*
 * How the first vCPU begins: flat 32-bit protected mode, paging and interrupts off, selectors as in the table at `gdt`. The
 * registers not named here are 0.
 */
struct loader_entry {
    uint32_t eip, eax, ebx, esi, edi, esp;
    uint32_t gdt, gdt_limit;
};
#define LOADER_CS 0x10u
#define LOADER_DS 0x18u

#define LOADER_RANGES 5u
#define LOADER_FILLS 130u /* two for each of 64 segments, one for the RAM disk, one for the ACPI area */

struct loader {
    struct loader_input in;
    struct loader_memory memory;
    struct loader_entry entry;
    uint64_t ram_end;   /* where RAM for images ends: the ACPI area */
    uint64_t image_end; /* end of the highest byte that the image takes */
    uint32_t info_next; /* first free byte of the structures' area */
    uint32_t command_line, command_line_length;
    uint32_t initrd; /* gpa of the RAM disk, after place_initrd() */
    unsigned ranges;
    struct loader_range {
        uint64_t base, size;
        uint32_t type;
    } range[LOADER_RANGES];
    unsigned format;          /* that is being looked for */
    bool looked;              /* it is one's image */
    uint32_t searched;        /* bytes of it without a multiboot header so far */
    unsigned fills, filled; /* what is still to be copied into, or cleared in, guest RAM */
    struct loader_fill {
        const uint8_t *from; /* NULL: zeros */
        uint64_t gpa, bytes;
    } fill[LOADER_FILLS];
};

/* NULL, or one clear line that says why there cannot be a guest. */
const char *loader_begin(struct loader *l, const struct loader_input *in, const struct loader_memory *m);
/* Does a part of the loading; true: there is more. When there is not, `entry` holds, or *error gets a line that says why not. */
bool loader_continue(struct loader *l, const char **error);

#endif
