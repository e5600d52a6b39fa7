/*
 * The hypervisor's page tables: four levels, pages of 4 KiB, 2 MiB and 1 GiB. Rights are in the leaves alone. All
 * writers but the boot CPU's first setup hold window.c's lock.
 */
#include "internal.h"
#include "cpu.h"

uint64_t (*paging_new_table)(void);
uint64_t paging_root;
static uint64_t table_offset; /* physical to pointer; DIRECT_BASE after paging_switch() */

static uint64_t *table_at(uint64_t physical)
{
    return (uint64_t *)((physical & PTE_ADDRESS) + table_offset);
}

/* Levels count from the leaves: 0 is the page table. */
static unsigned index_at(uint64_t va, unsigned level)
{
    return va >> (PAGE_SHIFT + 9 * level) & 511;
}

static uint64_t size_at(unsigned level)
{
    return PAGE_SIZE << (9 * level);
}

static unsigned level_for(uint64_t va, uint64_t pa, uint64_t size)
{
    for (unsigned level = cpu_features.gib_pages ? 2 : 1; level > 0; level--)
        if (size >= size_at(level) && !((va | pa) & (size_at(level) - 1)))
            return level;
    return 0;
}

/* The entry of `va` at `level`, its tables made where missing; NULL: no memory. */
static uint64_t *entry_at(uint64_t va, unsigned level)
{
    uint64_t table = paging_root;
    for (unsigned l = 3; l > level; l--) {
        uint64_t *entry = &table_at(table)[index_at(va, l)];
        if (!(*entry & PTE_P)) {
            uint64_t fresh = paging_new_table();
            if (!fresh)
                return NULL;
            *entry = fresh | PTE_P | PTE_W;
        }
        table = *entry;
    }
    return &table_at(table)[index_at(va, level)];
}

bool paging_map(uint64_t va, uint64_t pa, uint64_t size, uint64_t bits)
{
    for (uint64_t done = 0; done < size;) {
        unsigned level = level_for(va + done, pa + done, size - done);
        uint64_t *entry = entry_at(va + done, level);
        /* Where tables of an earlier mapping are left, smaller pages do. */
        while (entry && level > 0 && *entry & PTE_P && !(*entry & PTE_LARGE))
            entry = entry_at(va + done, --level);
        if (!entry || *entry & PTE_P) {
            paging_unmap(va, done);
            return false;
        }
        *entry = (pa + done) | bits | PTE_P | (level ? PTE_LARGE : 0);
        done += size_at(level);
    }
    return true;
}

/* The leaf entry of `va` and its level; NULL if it is not mapped. */
static uint64_t *leaf_of(uint64_t va, unsigned *level)
{
    uint64_t table = paging_root;
    for (unsigned l = 3;; l--) {
        uint64_t *entry = &table_at(table)[index_at(va, l)];
        *level = l;
        if (!(*entry & PTE_P))
            return NULL;
        if (!l || *entry & PTE_LARGE)
            return entry;
        table = *entry;
    }
}

/* Tables stay: another CPU may be walking them, and the window is used again. */
void paging_unmap(uint64_t va, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        unsigned level;
        uint64_t *entry = leaf_of(va + done, &level);
        if (entry)
            *entry = 0;
        invlpg((void *)(va + done));
        done += size_at(entry ? level : 0);
    }
}

bool paging_translate(uint64_t va, uint64_t *pa)
{
    unsigned level;
    const uint64_t *entry = leaf_of(va, &level);
    if (!entry)
        return false;
    uint64_t mask = size_at(level) - 1;
    *pa = (*entry & PTE_ADDRESS & ~mask) | (va & mask);
    return true;
}

void paging_switch(void)
{
    table_offset = DIRECT_BASE;
    write_cr3(paging_root);
}

static void walk(uint64_t table, unsigned level, uint64_t va, void (*leaf)(uint64_t, uint64_t, uint64_t, void *),
                 void *argument)
{
    for (unsigned i = 0; i < 512; i++) {
        uint64_t pte = table_at(table)[i], at = va | (uint64_t)i << (PAGE_SHIFT + 9 * level);
        if (level == 3 && i >= 256)
            at |= 0xffff000000000000ull;
        if (!(pte & PTE_P))
            continue;
        if (!level || pte & PTE_LARGE)
            leaf(at, pte, size_at(level), argument);
        else
            walk(pte, level - 1, at, leaf, argument);
    }
}

void paging_walk(void (*leaf)(uint64_t, uint64_t, uint64_t, void *), void *argument)
{
    walk(paging_root, 3, 0, leaf, argument);
}
