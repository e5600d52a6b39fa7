/*
 * Mappings made at run time: map_physical() and stacks.
 *
 * Other CPUs may still have an unmapped range in their TLBs, and nothing waits for them: the range is used again only
 * when each CPU has flushed, which each does at its next interrupt.
 */
#include "internal.h"
#include "console.h"
#include "cpu.h"
#include "spinlock.h"
#include "../boot/layout.h"
#include "../cpu/setup.h"

#define MAX_MAPPINGS 512

static struct mapping {
    uint64_t va, size; /* size 0: the slot is empty */
    uint32_t retired;  /* 0: in use; else the flush that must have reached each CPU */
} mappings[MAX_MAPPINGS];
static uint64_t window_next = WINDOW_BASE, stacks_next = STACKS_BASE;
static struct spinlock lock;
static uint32_t flush;

void tlb_sync(void)
{
    uint32_t now = __atomic_load_n(&flush, __ATOMIC_ACQUIRE);
    struct pcpu *cpu = this_cpu();
    if (cpu->tlb_seen == now)
        return;
    write_cr3(read_cr3());
    __atomic_store_n(&cpu->tlb_seen, now, __ATOMIC_RELEASE);
}

static bool flushed_everywhere(uint32_t generation)
{
    for (unsigned i = 0; i < pcpu_count; i++)
        if ((int32_t)(__atomic_load_n(&pcpus[i]->tlb_seen, __ATOMIC_ACQUIRE) - generation) < 0)
            return false;
    return true;
}

/* The virtual address must agree with the physical one modulo the largest page that fits. */
static uint64_t alignment_for(uint64_t size)
{
    return size >= GIB_PAGE_SIZE ? GIB_PAGE_SIZE : size >= LARGE_PAGE_SIZE ? LARGE_PAGE_SIZE : PAGE_SIZE;
}

static struct mapping *reuse(uint64_t physical, uint64_t size)
{
    for (struct mapping *m = mappings; m < mappings + MAX_MAPPINGS; m++)
        if (m->retired && m->size == size && !((m->va ^ physical) & (alignment_for(size) - 1)) &&
            flushed_everywhere(m->retired))
            return m;
    return NULL;
}

static struct mapping *fresh(uint64_t physical, uint64_t size)
{
    uint64_t align = alignment_for(size), va = (window_next & ~(align - 1)) + (physical & (align - 1));
    if (va < window_next)
        va += align;
    if (size > WINDOW_SIZE || va + size > WINDOW_BASE + WINDOW_SIZE)
        return NULL;
    struct mapping *m = mappings, *found = NULL;
    for (; m < mappings + MAX_MAPPINGS; m++)
        if (!m->size || (m->retired && !found)) /* a retired one's addresses are given up before the call fails */
            found = m;
    if (!found)
        return NULL;
    *found = (struct mapping){va, size, 1};
    window_next = va + size + PAGE_SIZE; /* runs over an end are found */
    return found;
}

static bool hits_code(uint64_t physical, uint64_t size)
{
    uint64_t from = (uint64_t)__text_start - IMAGE_OFFSET, to = (uint64_t)__rodata_end - IMAGE_OFFSET;
    return physical < to && physical + size > from;
}

void *map_physical(uint64_t physical, uint64_t size, enum map_type type)
{
    static const uint64_t bits[] = {
        [MAP_MEMORY] = PTE_NX | PTE_W, [MAP_DEVICE] = PTE_NX | PTE_W | PTE_UC, [MAP_READONLY] = PTE_NX};
    uint64_t limit = 1ull << cpu_features.phys_bits, offset = physical & (PAGE_SIZE - 1);
    if (!size || physical >= limit || size > limit - physical || (type != MAP_READONLY && hits_code(physical, size)))
        return NULL;
    physical -= offset;
    size = (size + offset + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);

    uint64_t flags = irq_save(), va = 0;
    spin_lock(&lock);
    struct mapping *m = reuse(physical, size);
    if (!m)
        m = fresh(physical, size);
    if (m && paging_map(m->va, physical, size, bits[type])) {
        m->retired = 0;
        va = m->va + offset;
    }
    spin_unlock(&lock);
    irq_restore(flags);
    return (void *)va;
}

/* Other CPUs' translations of it are no matter: nothing else is ever mapped there. */
bool mm_map_trampoline(uint32_t page)
{
    return paging_map(page, page, PAGE_SIZE, 0);
}

void mm_unmap_trampoline(uint32_t page)
{
    paging_unmap(page, PAGE_SIZE);
}

static void retire(struct mapping *m)
{
    paging_unmap(m->va, m->size);
    uint32_t now = flush + 1;
    now += !now; /* 0 means in use */
    m->retired = now;
    __atomic_store_n(&flush, now, __ATOMIC_RELEASE);
}

void unmap_physical(void *p, uint64_t size)
{
    uint64_t va = (uint64_t)p & ~(PAGE_SIZE - 1);
    bool found = false;
    if (!p || !size)
        return;
    uint64_t flags = irq_save();
    spin_lock(&lock);
    for (struct mapping *m = mappings; m < mappings + MAX_MAPPINGS && !found; m++)
        if (m->size && m->va == va && !m->retired) {
            retire(m);
            found = true;
        }
    spin_unlock(&lock);
    tlb_sync();
    for (unsigned i = 0; i < pcpu_count; i++)
        if (pcpus[i] != this_cpu())
            ipi_send(i, VECTOR_FLUSH);
    irq_restore(flags);
    BUG_ON(!found);
}

void *alloc_stack(void)
{
    unsigned order = __builtin_ctzll(STACK_SIZE / PAGE_SIZE);
    char *pages = alloc_pages(order);
    if (!pages)
        return NULL;
    uint64_t flags = irq_save();
    spin_lock(&lock);
    uint64_t va = stacks_next + STACK_SIZE;
    bool ok = paging_map(va, virt_to_phys(pages), STACK_SIZE, PTE_NX | PTE_W);
    stacks_next += ok ? 2 * STACK_SIZE : 0;
    spin_unlock(&lock);
    irq_restore(flags);
    if (!ok)
        free_pages(pages, order);
    return ok ? (void *)va : NULL;
}

uint64_t virt_to_phys(const void *p)
{
    uint64_t va = (uint64_t)p, pa;
    if (va >= IMAGE_OFFSET)
        return va - IMAGE_OFFSET;
    if (va - DIRECT_BASE < DIRECT_SIZE)
        return va - DIRECT_BASE;
    BUG_ON(!paging_translate(va, &pa));
    return pa;
}
