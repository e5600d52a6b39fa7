/*
 * What the loader's files share: bounded access to image and guest memory, and the pieces every boot protocol needs.
 */
#ifndef METRONOME_LOADER_INTERNAL_H
#define METRONOME_LOADER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "device.h"
#include "loader.h"

#define INFO_BASE 0x80000u /* the boot protocol's structures */
#define INFO_END 0xa0000u
#define RSDP_GPA 0xf0000u
#define IMAGE_BASE 0x100000u /* images lie below INFO_BASE or from here on */
#define ACPI_AREA_BYTES 0x10000u

/* Types of the e820 map, which multiboot1 and PVH use too. */
enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

/* Copies n bytes out of the image; false if they are not all in it. */
bool image_read(const struct loader *l, uint64_t offset, void *to, uint64_t n);

/* Copies to guest RAM at once; false, with nothing or a part done, where there is none. */
bool guest_write(const struct loader *l, uint64_t gpa, const void *from, uint64_t n);
/* Has it copied, or (NULL) cleared, when all has been looked at. */
bool guest_fill(struct loader *l, uint64_t gpa, const void *from, uint64_t n);

/* Loads [offset, offset + file_size) of the image at gpa, followed by zeros up to memory_size. */
const char *load_part(struct loader *l, uint64_t offset, uint64_t file_size, uint64_t gpa, uint64_t memory_size);

/* Puts a structure into the structures' area, 16-byte aligned; its gpa, or 0 if the area is full. */
uint32_t info_put(struct loader *l, const void *from, uint32_t n);

/* Puts the RAM disk, if there is one, as high as fits: below `end`, above the image. */
const char *place_initrd(struct loader *l, uint64_t end);

/* ELF: loads every segment; *entry gets the physical address of the entry point. */
bool elf_recognise(const struct loader *l);
const char *elf_load(struct loader *l, uint64_t *entry);
/* Finds the PVH entry among the notes. */
bool elf_pvh_entry(const struct loader *l, uint64_t *entry);

/* The formats. */
enum recognised { RECOGNISED, OTHER_FORMAT, NOT_YET };
enum recognised linux_recognise(struct loader *l);
const char *linux_load(struct loader *l, struct loader_entry *entry);
enum recognised multiboot_recognise(struct loader *l);
const char *multiboot_load(struct loader *l, struct loader_entry *entry);
enum recognised pvh_recognise(struct loader *l);
const char *pvh_load(struct loader *l, struct loader_entry *entry);

#endif
