/*
 * From the loader's memory map to the allocator and the final page tables.
 */
#include "internal.h"
#include "boot.h"
#include "console.h"
#include "cpu.h"
#include "string.h"
#include "../boot/layout.h"

#define LOW_MEMORY  0x100000ull
#define BOOT_MAPPED (1ull << 32) /* what the boot tables reach */
#define E820_RAM    1

static struct extents ram;
static struct extent *early; /* tables come from its beginning until the allocator is there */

static uint64_t early_table(void)
{
    if (early->end - early->base < PAGE_SIZE)
        return 0;
    uint64_t table = early->base;
    early->base += PAGE_SIZE;
    memset((void *)table, 0, PAGE_SIZE);
    return table;
}

static uint64_t heap_table(void)
{
    void *table = alloc_pages(0);
    return table ? virt_to_phys(table) : 0;
}

/* Whole pages of RAM that nobody else claims. A range that is listed twice counts as the less usable of the two. */
static void find_ram(void)
{
    uint64_t limit = 1ull << cpu_features.phys_bits;
    bool ok = true;
    if (limit > DIRECT_SIZE)
        limit = DIRECT_SIZE;
    for (unsigned i = 0; i < boot_info.ranges; i++) {
        const struct boot_range *r = &boot_info.range[i];
        uint64_t end = r->base + r->size < r->base || r->base + r->size > limit ? limit : r->base + r->size;
        if (r->type == E820_RAM)
            ok &= extents_add(&ram, (r->base + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1), end & ~(PAGE_SIZE - 1));
    }
    for (unsigned i = 0; i < boot_info.ranges; i++) {
        const struct boot_range *r = &boot_info.range[i];
        if (r->type != E820_RAM)
            ok &= extents_remove(&ram, r->base & ~(PAGE_SIZE - 1),
                                 (r->base + r->size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
    }
    ok &= extents_remove(&ram, 0, LOW_MEMORY);
    ok &= extents_remove(&ram, (uint64_t)__boot_start, (uint64_t)__image_end - IMAGE_OFFSET);
    for (unsigned i = 0; i < boot_info.modules; i++) {
        const struct boot_module *m = &boot_info.module[i];
        ok &= extents_remove(&ram, m->base & ~(PAGE_SIZE - 1), (m->base + m->size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
    }
    if (!ok)
        panic("the memory map has too many pieces");
}

static void choose_early(void)
{
    for (unsigned i = 0; i < ram.count; i++) {
        struct extent *e = &ram.e[i];
        if (e->end <= BOOT_MAPPED && (!early || e->end - e->base > early->end - early->base))
            early = e;
    }
    if (!early)
        panic("no memory below 4 GiB");
}

static bool map_image(char *from, char *to, uint64_t bits)
{
    return paging_map((uint64_t)from, (uint64_t)from - IMAGE_OFFSET, (uint64_t)(to - from), bits);
}

void mm_init(void)
{
    find_ram();
    choose_early();
    struct extents all = ram; /* the tables themselves too are reached by the direct map */
    paging_new_table = early_table;
    paging_root = early_table();
    bool ok = map_image(__text_start, __text_end, 0) && map_image(__rodata_start, __rodata_end, PTE_NX) &&
              map_image(__data_start, __image_end, PTE_NX | PTE_W);
    for (unsigned i = 0; i < all.count; i++)
        ok &= paging_map(all.e[i].base + DIRECT_BASE, all.e[i].base, all.e[i].end - all.e[i].base, PTE_NX | PTE_W);
    if (!ok)
        panic("no memory for the page tables");
    paging_switch();
    for (unsigned i = 0; i < ram.count; i++)
        frames_add(ram.e[i].base, ram.e[i].end);
    paging_new_table = heap_table;
}
