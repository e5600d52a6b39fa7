/*
 * What each boot loader looks for: the Multiboot 1 header (within the first 8 KiB), the Multiboot 2 header (within the
 * first 32 KiB, 8-byte aligned) and the Xen note with the PVH entry (Xen's docs/misc/pvh.pandoc).
 */
#include "layout.h"

#define MULTIBOOT1_HEADER 0x1badb002
#define MULTIBOOT1_FLAGS 0x3 /* modules page-aligned, memory map wanted */
#define MULTIBOOT2_HEADER 0xe85250d6
#define XEN_ELFNOTE_PHYS32_ENTRY 18

    .section .boot.header, "a"
    .balign 8
    .global multiboot1_header
multiboot1_header:
    .long MULTIBOOT1_HEADER, MULTIBOOT1_FLAGS, -(MULTIBOOT1_HEADER + MULTIBOOT1_FLAGS)

    .balign 8
multiboot2_header:
    .long MULTIBOOT2_HEADER, 0, multiboot2_end - multiboot2_header
    .long -(MULTIBOOT2_HEADER + (multiboot2_end - multiboot2_header))
    .balign 8
    .word 6, 0 /* modules page-aligned */
    .long 8
    .balign 8
    .word 0, 0 /* end of tags */
    .long 8
multiboot2_end:

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long boot_pvh

    .section .note.GNU-stack, "", @progbits
