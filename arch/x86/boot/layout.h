/*
 * Where the image lies: for the linker script, assembly and C.
 */
#ifndef METRONOME_BOOT_LAYOUT_H
#define METRONOME_BOOT_LAYOUT_H

#define IMAGE_LOAD   0x200000
#define IMAGE_OFFSET 0xffffffff80000000

/* What boot_main() is told about the loader, in EAX at the entry; PVH leaves EAX undefined, so its entry sets it. */
#define MAGIC_MULTIBOOT1 0x2badb002
#define MAGIC_MULTIBOOT2 0x36d76289
#define MAGIC_PVH        0x336ec578

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS  0x20

#endif
