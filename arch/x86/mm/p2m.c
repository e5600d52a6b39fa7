#include "mm.h"
#include "p2m.h"

#define ENTRIES 512u
#define LEAF (P2M_PRESENT | P2M_USER | P2M_ACCESSED)
#define TABLE (P2M_PRESENT | P2M_WRITABLE | P2M_USER)
#define PART_ENTRIES 32u /* that one call changes, or looks through */
#define PART_TABLES 4u   /* that one call gives back */
#define LEAF_DEPTH 3u    /* of the tables with 4 KiB entries; the top one's is 0 */

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

static void free_table(struct p2m *p, uint64_t *table)
{
    free_pages(table, 0);
    p->pages--;
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
    p->depth = 0;
    p->way[0] = (struct p2m_way){p->table, 0};
    return true;
}

static bool free_retired(struct p2m *p)
{
    uint64_t *table = p->retired;

    if (!table)
        return false;
    p->retired = (uint64_t *)table[0];
    free_table(p, table);
    return true;
}

bool p2m_reclaim(struct p2m *p)
{
    for (unsigned i = 0; i < PART_TABLES; i++)
        if (!free_retired(p))
            return false;
    return p->retired != NULL;
}

/* A CPU may still walk it: freed by p2m_reclaim(). The link is aligned, so it reads as an entry that is not present. */
static void retire(struct p2m *p, uint64_t *table)
{
    table[0] = (uint64_t)p->retired;
    p->retired = table;
}

static bool is_table(uint64_t entry)
{
    return (entry & P2M_PRESENT) && !(entry & P2M_LARGE);
}

/* What is below the next table that the entries from `next` on point to, or one such table if nothing is. */
static void free_below(struct p2m *p, struct p2m_way *w)
{
    for (unsigned i = 0; i < PART_ENTRIES && w->next < ENTRIES; i++) {
        uint64_t e = w->table[w->next++];

        if (is_table(e) && p->depth == LEAF_DEPTH - 1)
            free_table(p, table_of(e));
        else if (is_table(e))
            p->way[++p->depth] = (struct p2m_way){table_of(e), 0};
        if (is_table(e))
            return;
    }
}

bool p2m_destroy(struct p2m *p)
{
    struct p2m_way *w = &p->way[p->depth];

    if (!p->table || free_retired(p))
        return p->table != NULL;
    if (w->next < ENTRIES) {
        free_below(p, w);
        return true;
    }
    free_table(p, w->table);
    if (p->depth == 0)
        p->table = NULL;
    else
        p->depth--;
    return p->table != NULL;
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

static bool add_table(struct p2m *p, uint64_t *entry)
{
    uint64_t *table = new_table(p);

    if (table)
        *entry = virt_to_phys(table) | TABLE;
    return table;
}

enum { NO_MEMORY = -1, MADE_TABLE, FOUND };

/* Finds the entry for gpa at `level` (0: 4 KiB, 1: 2 MiB), or makes the next table on the way there. */
static int find_entry(struct p2m *p, uint64_t gpa, unsigned level, uint64_t **entry)
{
    uint64_t *table = p->table;

    for (unsigned l = 3; l > level; l--) {
        uint64_t *e = &table[index_at(gpa, l)];

        if (!is_table(*e))
            return ((*e & P2M_PRESENT) ? split(p, e) : add_table(p, e)) ? MADE_TABLE : NO_MEMORY;
        table = table_of(*e);
    }
    *entry = &table[index_at(gpa, level)];
    return FOUND;
}

static void replace(struct p2m *p, uint64_t *entry, uint64_t value, unsigned level)
{
    uint64_t old = *entry;

    *entry = value;
    if (level && is_table(old))
        retire(p, table_of(old));
}

/* Maps (value: first entry) or unmaps (value 0) entries of one table, of the largest pages that fit. */
static int64_t set_entries(struct p2m *p, uint64_t gpa, uint64_t value, uint64_t size)
{
    bool large = !((gpa | (value & P2M_ADDRESS)) & (LARGE_PAGE_SIZE - 1)) && size >= LARGE_PAGE_SIZE;
    uint64_t bytes = large ? LARGE_PAGE_SIZE : PAGE_SIZE, *e = NULL;
    unsigned n = ENTRIES - index_at(gpa, large);
    int found = find_entry(p, gpa, large, &e);

    if (found != FOUND)
        return found;
    n = n < PART_ENTRIES ? n : PART_ENTRIES;
    n = n < size / bytes ? n : (unsigned)(size / bytes);
    for (unsigned i = 0; i < n; i++, value += value ? bytes : 0)
        replace(p, &e[i], value && large ? value | P2M_LARGE : value, large);
    p->generation++;
    return (int64_t)(n * bytes);
}

int64_t p2m_map(struct p2m *p, uint64_t gpa, uint64_t hpa, uint64_t size, bool writable)
{
    return set_entries(p, gpa, hpa | LEAF | (writable ? P2M_WRITABLE : 0), size);
}

int64_t p2m_unmap(struct p2m *p, uint64_t gpa, uint64_t size)
{
    return set_entries(p, gpa, 0, size);
}

/* The last entry on the way to gpa. */
static uint64_t *last_entry(const struct p2m *p, uint64_t gpa, unsigned *level)
{
    uint64_t *table = p->table;

    for (*level = 3;; --*level) {
        uint64_t *e = &table[index_at(gpa, *level)];

        if (*level == 0 || !is_table(*e))
            return e;
        table = table_of(*e);
    }
}

uint64_t p2m_lookup(const struct p2m *p, uint64_t gpa)
{
    unsigned level;
    uint64_t e;

    if (gpa >> 48)
        return 0;
    e = *last_entry(p, gpa, &level);
    if (!(e & P2M_PRESENT))
        return 0;
    return level ? e + (gpa & (LARGE_PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)) : e;
}

static uint64_t take_dirty(uint64_t *entries, unsigned n)
{
    uint64_t written = 0;

    for (unsigned i = 0; i < n; i++)
        if (__atomic_load_n(&entries[i], __ATOMIC_RELAXED) & P2M_DIRTY) {
            __atomic_fetch_and(&entries[i], ~P2M_DIRTY, __ATOMIC_RELAXED);
            written |= 1ull << i;
        }
    return written;
}

unsigned p2m_take_dirty(struct p2m *p, uint64_t gpa, unsigned most, uint64_t *written)
{
    unsigned level, n = ENTRIES - index_at(gpa, 0);
    uint64_t *e = last_entry(p, gpa, &level);

    n = n < most ? n : most;
    *written = level ? 0 : take_dirty(e, n);
    if (level && (*e & P2M_PRESENT)) {
        if (split(p, e))
            return 0;
        *written = ~0ull >> (64 - n); /* cannot tell: say written */
    }
    p->generation++; /* a cached translation would not set D again */
    return n;
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
