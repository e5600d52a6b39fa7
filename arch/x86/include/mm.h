/*
 * Host memory: frames, and the hypervisor's own address space. W^X throughout; mapped are the image, the frames handed
 * out, what map_physical() was asked for, and nothing else.
 */
#ifndef METRONOME_MM_H
#define METRONOME_MM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ull
#define LARGE_PAGE_SHIFT 21
#define LARGE_PAGE_SIZE (1ull << LARGE_PAGE_SHIFT)

/* From boot_info; modules, the image and the first MiB are never handed out. Called once, before anything else here. */
void mm_init(void);

/*
 * 2^order zeroed contiguous frames, naturally aligned, as a writable, non-executable pointer; NULL when memory is used up
 * (each caller handles that). Any CPU.
 */
void *alloc_pages(unsigned order);
void *alloc_pages_uncleared(unsigned order); /* with whatever is in them */
void free_pages(void *pages, unsigned order);
uint64_t free_page_count(void);
uint64_t total_page_count(void); /* with those in use */

/* Physical address of anything that alloc_pages() or the image gave out. */
uint64_t virt_to_phys(const void *p);
/* Pointer for a frame that alloc_pages() gave out. */
void *phys_to_virt(uint64_t physical);

enum map_type { MAP_MEMORY /* write-back */, MAP_DEVICE /* uncached */, MAP_READONLY };

/*
 * Maps a physical range outside the allocator's (a BAR, a boot module, ACPI tables) for good or until unmap_physical();
 * 2 MiB and 1 GiB pages where aligned. NULL when memory or address space is used up.
 */
void *map_physical(uint64_t physical, uint64_t size, enum map_type type);
void unmap_physical(void *p, uint64_t size);

/* Drops this CPU's translations of what has been unmapped meanwhile; each interrupt does it. */
void tlb_sync(void);

/* A stack with a guard page below it; returns its lowest usable byte. Size is STACK_SIZE, alignment too. */
#define STACK_SIZE 32768ull
void *alloc_stack(void);

#endif
