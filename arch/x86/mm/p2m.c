#include "mm.h"
#include "p2m.h"

#define ENTRIES 512u
#define LEAF (P2M_PRESENT | P2M_USER | P2M_ACCESSED)
#define TABLE (P2M_PRESENT | P2M_WRITABLE | P2M_USER)

static unsigned index_at(uint64_t gpa, unsigned level)
{
    return (unsigned)(gpa >> (PAGE_SHIFT + 9 * level)) & (ENTRIES - 1);
}

static uint64_t *table_of(uint64_t entry)
{
    return phys_to_virt(entry & P2M_ADDRESS);
}

/* Frames for aliases and split pages, beside those that RAM in 4 KiB pages would take. */
#define ALIAS_TABLES 1024u

static uint64_t *new_table(struct p2m *p)
{
    uint64_t *table = p->pages < p->limit ? alloc_pages(0) : NULL;

    p->pages += table != NULL;
    return table;
}

bool p2m_init(struct p2m *p, uint64_t ram_pages)
{
    p->pages = 0;
    p->limit = ram_pages / ENTRIES + ALIAS_TABLES;
    p->generation = 1;
    p->retired = NULL;
    p->table = new_table(p);
    if (!p->table)
        return false;
    p->root = virt_to_phys(p->table);
    return true;
}

static void free_level(uint64_t *table, unsigned level)
{
    for (unsigned i = 0; level && i < ENTRIES; i++)
        if ((table[i] & P2M_PRESENT) && !(table[i] & P2M_LARGE))
            free_level(table_of(table[i]), level - 1);
    free_pages(table, 0);
}

void p2m_reclaim(struct p2m *p)
{
    while (p->retired) {
        uint64_t *table = p->retired;

        p->retired = (uint64_t *)table[0];
        free_pages(table, 0);
        p->pages--;
    }
}

/* A CPU may still walk it: freed by p2m_reclaim(). The link is aligned, so it reads as an entry that is not present. */
static void retire(struct p2m *p, uint64_t *table)
{
    table[0] = (uint64_t)p->retired;
    p->retired = table;
}

void p2m_destroy(struct p2m *p)
{
    p2m_reclaim(p);
    if (p->table)
        free_level(p->table, 3);
    p->table = NULL;
}

static void fill_with_parts(uint64_t *table, uint64_t leaf)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        table[i] = leaf + i * PAGE_SIZE;
}

/* Turns a 2 MiB entry into a table of 512 equal 4 KiB ones, dirty bits included. */
static bool split(struct p2m *p, uint64_t *entry)
{
    uint64_t *table = new_table(p);
    uint64_t leaf = *entry & ~P2M_LARGE, late;

    if (!table)
        return false;
    fill_with_parts(table, leaf);
    p->generation++;
    late = __atomic_exchange_n(entry, virt_to_phys(table) | TABLE, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; (late & ~leaf & P2M_DIRTY) && i < ENTRIES; i++) /* written meanwhile */
        __atomic_fetch_or(&table[i], P2M_DIRTY, __ATOMIC_RELAXED);
    return true;
}

/* The entry for gpa at `level` (0: 4 KiB, 1: 2 MiB), with the tables above it made; NULL when memory is used up. */
static uint64_t *entry_at(struct p2m *p, uint64_t gpa, unsigned level)
{
    uint64_t *table = p->table;

    for (unsigned l = 3; l > level; l--) {
        uint64_t *e = &table[index_at(gpa, l)];

        if (!(*e & P2M_PRESENT)) {
            uint64_t *next = new_table(p);

            if (!next)
                return NULL;
            *e = virt_to_phys(next) | TABLE;
        } else if ((*e & P2M_LARGE) && !split(p, e)) {
            return NULL;
        }
        table = table_of(*e);
    }
    return &table[index_at(gpa, level)];
}

static void replace(struct p2m *p, uint64_t *entry, uint64_t value, unsigned level)
{
    uint64_t old = *entry;

    *entry = value;
    p->generation++;
    if (level && (old & P2M_PRESENT) && !(old & P2M_LARGE))
        retire(p, table_of(old));
}

/* Maps (value: first entry) or unmaps (value 0) a range with the largest pages that fit. */
static bool set_range(struct p2m *p, uint64_t gpa, uint64_t value, uint64_t size)
{
    while (size) {
        uint64_t aligned = gpa | (value & P2M_ADDRESS);
        bool large = !(aligned & (LARGE_PAGE_SIZE - 1)) && size >= LARGE_PAGE_SIZE;
        uint64_t bytes = large ? LARGE_PAGE_SIZE : PAGE_SIZE;
        uint64_t *e = entry_at(p, gpa, large);

        if (!e)
            return false;
        replace(p, e, value && large ? value | P2M_LARGE : value, large);
        gpa += bytes;
        size -= bytes;
        value += value ? bytes : 0;
    }
    return true;
}

bool p2m_map(struct p2m *p, uint64_t gpa, uint64_t hpa, uint64_t size, bool writable)
{
    return set_range(p, gpa, hpa | LEAF | (writable ? P2M_WRITABLE : 0), size);
}

bool p2m_unmap(struct p2m *p, uint64_t gpa, uint64_t size)
{
    return set_range(p, gpa, 0, size);
}

uint64_t p2m_lookup(const struct p2m *p, uint64_t gpa)
{
    const uint64_t *table = p->table;

    if (gpa >> 48)
        return 0;
    for (unsigned l = 3;; l--) {
        uint64_t e = table[index_at(gpa, l)];

        if (!(e & P2M_PRESENT))
            return 0;
        if (l == 0)
            return e;
        if (e & P2M_LARGE)
            return e + (gpa & (LARGE_PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
        table = table_of(e);
    }
}

bool p2m_test_and_clear_dirty(struct p2m *p, uint64_t gpa)
{
    uint64_t *e;

    if (!p2m_lookup(p, gpa))
        return false;
    e = entry_at(p, gpa, 0);
    if (!e)
        return true; /* cannot tell: say written */
    return __atomic_fetch_and(e, ~P2M_DIRTY, __ATOMIC_RELAXED) & P2M_DIRTY;
}

/* An entry for a second table. A leaf's pages count as written: what the copy's D bit will say is not looked at. */
static uint64_t copy_entry(uint64_t *entry, unsigned level)
{
    uint64_t e = __atomic_load_n(entry, __ATOMIC_RELAXED);

    while ((e & P2M_PRESENT) && (level == 0 || (e & P2M_LARGE)) && (e & P2M_WRITABLE) && !(e & P2M_DIRTY))
        if (__atomic_compare_exchange_n(entry, &e, e | P2M_DIRTY, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            break;
    return e;
}

uint64_t p2m_hide(const struct p2m *p, uint64_t gpa, uint64_t *tables)
{
    uint64_t root = virt_to_phys(tables), *from = p->table, way;

    for (unsigned level = 3;; level--, from = table_of(way)) {
        uint64_t *to = tables, *e = &to[index_at(gpa, level)];

        for (unsigned i = 0; i < ENTRIES; i++)
            to[i] = copy_entry(&from[i], level);
        way = *e;
        *e = 0;
        if (level == 0 || !(way & P2M_PRESENT))
            return root;
        tables += ENTRIES;
        *e = virt_to_phys(tables) | TABLE;
        if (way & P2M_LARGE) {
            fill_with_parts(tables, way & ~P2M_LARGE);
            tables[index_at(gpa, 0)] = 0;
            return root;
        }
    }
}
