/*
 * Frames: a buddy allocator over all of RAM that is free at boot, in blocks of 4 KiB to 1 GiB.
 *
 * Each extent of RAM is a zone; one byte per frame tells whether a block starts there, of which order, free or not. It
 * lies at the zone's beginning. Free blocks of one order form a list through their own first bytes.
 */
#include "internal.h"
#include "asm.h"
#include "console.h"
#include "spinlock.h"
#include "string.h"

#define MAX_ORDER  18
#define BLOCK_FREE 0x80
#define BLOCK_USED 0x40

struct block {
    struct block *next, **link; /* link: what points to us */
};

static struct zone {
    uint64_t base, end;
    uint8_t *state;
} zones[MAX_EXTENTS];
static unsigned zone_count;
static struct block *free_list[MAX_ORDER + 1];
static uint64_t free_pages_left, total_pages;
static struct spinlock lock;

void *phys_to_virt(uint64_t physical)
{
    return (void *)(physical + DIRECT_BASE);
}

static uint64_t block_size(unsigned order)
{
    return PAGE_SIZE << order;
}

static struct zone *zone_of(uint64_t physical)
{
    for (unsigned i = 0; i < zone_count; i++)
        if (physical >= zones[i].base && physical < zones[i].end)
            return &zones[i];
    return NULL;
}

static uint8_t *state_of(struct zone *z, uint64_t physical)
{
    return &z->state[(physical - z->base) >> PAGE_SHIFT];
}

static void list_add(struct zone *z, uint64_t physical, unsigned order)
{
    struct block *b = phys_to_virt(physical);
    b->next = free_list[order];
    b->link = &free_list[order];
    if (b->next)
        b->next->link = &b->next;
    free_list[order] = b;
    *state_of(z, physical) = (uint8_t)(BLOCK_FREE | order);
}

static void list_remove(struct block *b)
{
    BUG_ON(*b->link != b);
    *b->link = b->next;
    if (b->next)
        b->next->link = b->link;
}

/* Joins the block with its free buddies and lists the result. */
static void give(struct zone *z, uint64_t physical, unsigned order)
{
    free_pages_left += 1ull << order;
    for (; order < MAX_ORDER; order++) {
        uint64_t buddy = physical ^ block_size(order);
        if (buddy < z->base || buddy + block_size(order) > z->end || *state_of(z, buddy) != (BLOCK_FREE | order))
            break;
        list_remove(phys_to_virt(buddy));
        *state_of(z, buddy) = 0;
        physical &= ~block_size(order);
    }
    list_add(z, physical, order);
}

/* A block of `order`, split off a larger one where need be; NULL: none left. */
static struct block *take(unsigned order)
{
    unsigned from = order;
    while (from <= MAX_ORDER && !free_list[from])
        from++;
    if (from > MAX_ORDER)
        return NULL;
    struct block *b = free_list[from];
    uint64_t physical = (uint64_t)b - DIRECT_BASE;
    struct zone *z = zone_of(physical);
    list_remove(b);
    while (from > order) {
        from--;
        list_add(z, physical + block_size(from), from);
    }
    *state_of(z, physical) = (uint8_t)(BLOCK_USED | order);
    free_pages_left -= 1ull << order;
    return b;
}

void *alloc_pages_uncleared(unsigned order)
{
    if (order > MAX_ORDER)
        return NULL;
    uint64_t flags = irq_save();
    spin_lock(&lock);
    void *pages = take(order);
    spin_unlock(&lock);
    irq_restore(flags);
    return pages;
}

void *alloc_pages(unsigned order)
{
    void *pages = alloc_pages_uncleared(order);
    if (pages)
        memset(pages, 0, block_size(order));
    return pages;
}

void free_pages(void *pages, unsigned order)
{
    if (!pages)
        return;
    uint64_t physical = (uint64_t)pages - DIRECT_BASE;
    struct zone *z = zone_of(physical);
    uint64_t flags = irq_save();
    spin_lock(&lock);
    BUG_ON(!z || order > MAX_ORDER || *state_of(z, physical) != (BLOCK_USED | order));
    *state_of(z, physical) = 0;
    give(z, physical, order);
    spin_unlock(&lock);
    irq_restore(flags);
}

uint64_t free_page_count(void)
{
    return __atomic_load_n(&free_pages_left, __ATOMIC_RELAXED);
}

uint64_t total_page_count(void)
{
    return total_pages;
}

void frames_add(uint64_t base, uint64_t end)
{
    uint64_t pages = (end - base) >> PAGE_SHIFT, state_size = (pages + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    if (zone_count == MAX_EXTENTS || state_size >= end - base)
        return;
    struct zone *z = &zones[zone_count++];
    *z = (struct zone){base, end, phys_to_virt(base)};
    memset(z->state, 0, state_size);
    for (uint64_t at = base + state_size; at < end;) {
        unsigned order = MAX_ORDER;
        while (at & (block_size(order) - 1) || at + block_size(order) > end)
            order--;
        free_pages_left += 1ull << order;
        total_pages += 1ull << order;
        list_add(z, at, order);
        at += block_size(order);
    }
}
