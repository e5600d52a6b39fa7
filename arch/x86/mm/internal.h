/*
 * Between the files of arch/x86/mm: the address space and the page tables.
 *
 *   0xffff8000_00000000  64 TiB  frames of the allocator, virtual = physical + DIRECT_BASE
 *   0xffffc000_00000000  16 TiB  map_physical()
 *   0xffffd000_00000000          stacks, each with as much unmapped space below it
 *   0xffffffff_80000000  1 GiB   the image
 */
#ifndef METRONOME_MM_INTERNAL_H
#define METRONOME_MM_INTERNAL_H

#include "mm.h"

#ifndef DIRECT_BASE /* tests/unit/test_frames.c has its own */
#define DIRECT_BASE 0xffff800000000000ull
#endif
#define DIRECT_SIZE (64ull << 40)
#define WINDOW_BASE 0xffffc00000000000ull
#define WINDOW_SIZE (16ull << 40)
#define STACKS_BASE 0xffffd00000000000ull

/* Page-table bits (SDM 3A 4.5, APM 2 5.4). Entry 3 of the PAT, PCD and PWT, is uncached. */
#define PTE_P       0x1ull
#define PTE_W       0x2ull
#define PTE_UC      0x18ull
#define PTE_LARGE   0x80ull
#define PTE_NX      (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define GIB_PAGE_SIZE (1ull << 30)

struct extent {
    uint64_t base, end;
};

/* ranges.c: pure. The RAM that the allocator may have, as disjoint extents. */
#define MAX_EXTENTS 128
struct extents {
    unsigned count;
    struct extent e[MAX_EXTENTS];
};
bool extents_add(struct extents *s, uint64_t base, uint64_t end);
bool extents_remove(struct extents *s, uint64_t base, uint64_t end);

/* paging.c. `new_table` gives zeroed frames (physical address, 0: none left); until paging_switch() a table's physical
 * address is a pointer. */
extern uint64_t (*paging_new_table)(void);
extern uint64_t paging_root;
bool paging_map(uint64_t va, uint64_t pa, uint64_t size, uint64_t bits);
void paging_unmap(uint64_t va, uint64_t size);
void paging_switch(void);
/* Calls `leaf` for each mapping. */
void paging_walk(void (*leaf)(uint64_t va, uint64_t pte, uint64_t size, void *argument), void *argument);
bool paging_translate(uint64_t va, uint64_t *pa);

/* frames.c */
void frames_add(uint64_t base, uint64_t end);

extern char __boot_start[], __text_start[], __text_end[], __rodata_start[], __rodata_end[], __data_start[],
    __image_end[];

#endif
