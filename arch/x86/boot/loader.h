/*
 * The boot loaders' information, and how each is turned into boot_info. All run before mm_init(): the first 4 GiB are
 * mapped one to one, so a physical address is a pointer.
 */
#ifndef METRONOME_BOOT_LOADER_H
#define METRONOME_BOOT_LOADER_H

#include "boot.h"

void multiboot1_parse(uint32_t information);
void multiboot2_parse(uint32_t information);
void pvh_parse(uint32_t information);

/* What the parsers fill in. Anything beyond boot_info's room is counted in boot_dropped, which boot_main() reports. */
void boot_add_range(uint64_t base, uint64_t size, uint32_t type);
void boot_add_module(uint64_t base, uint64_t size, const char *command_line);
void boot_set_command_line(const char *command_line);
extern unsigned boot_dropped;

static inline const void *boot_pointer(uint64_t physical)
{
    return (const void *)(uintptr_t)physical;
}

/* The text behind the first word: loaders that prepend the file's name. */
const char *boot_skip_word(const char *s);

#endif
