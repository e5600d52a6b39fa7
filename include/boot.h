/*
 * What every boot path (multiboot1, multiboot2, PVH) hands over in one form.
 */
#ifndef METRONOME_BOOT_H
#define METRONOME_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#define BOOT_MAX_RANGES 64
#define BOOT_MAX_MODULES 8

struct boot_range {
    uint64_t base, size;
    uint32_t type; /* e820: 1 RAM */
    uint32_t zero;
};

struct boot_module {
    uint64_t base, size;     /* physical; reserved in the frame allocator */
    char command_line[1024]; /* without the file's name where the loader prepends it */
};

struct boot_info {
    const char *loader; /* "multiboot1", "multiboot2", "PVH" */
    uint64_t rsdp;      /* physical, or 0: searched for below 1 MiB */
    unsigned ranges, modules;
    struct boot_range range[BOOT_MAX_RANGES];
    struct boot_module module[BOOT_MAX_MODULES];
    char command_line[2048];
};
extern struct boot_info boot_info;

/* The value of `name=value` in the hypervisor's command line, copied NUL-terminated; false if it is not there. A bare
 * `name` has the empty value. */
bool boot_option(const char *name, char *value, unsigned size);

/* The same as a decimal or 0x-prefixed number; false also if it is none. */
bool boot_option_number(const char *name, uint64_t *value);

#endif
