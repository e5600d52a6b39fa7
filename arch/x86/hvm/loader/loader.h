/*
 * Starts a guest without a device model: recognises a boot module, puts it into guest RAM, and tells how the first vCPU begins.
 *
 * Formats: Linux bzImage (boot protocol 2.10 and later, 32-bit entry), multiboot1 (address fields, ELF32, ELF64), PVH (an
 * ELF with the XEN_ELFNOTE_PHYS32_ENTRY note). Beside the image it writes what its boot protocol wants (memory map, command
 * line, RAM disk) and the platform's ACPI tables.
 *
 * Pure and freestanding: an image is data that may be hostile. Nothing is read outside it, nothing is written outside the
 * memory that `at` hands out, and the work is bounded by the sizes of image and RAM.
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

#include <stdint.h>

struct loader_memory {
    void *ctx;
    /* Host pointer to contiguous guest RAM [gpa, gpa + size), or NULL. Asked for ranges inside one 2 MiB page only. */
    void *(*at)(void *ctx, uint64_t gpa, uint64_t size);
    uint64_t ram_low, ram_high; /* bytes of RAM from 0, and from 4 GiB */
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

/* NULL on success, or one clear line that says why not. */
const char *loader_load(const struct loader_input *in, const struct loader_memory *m, struct loader_entry *entry);

#endif
