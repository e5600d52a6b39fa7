/*
 * Nested page tables of a domain: guest-physical to host-physical (APM 2 15.25). 4 KiB and 2 MiB pages.
 */
#ifndef METRONOME_P2M_H
#define METRONOME_P2M_H

#include <stdbool.h>
#include <stdint.h>

/* Bits of an entry, as in long-mode page tables; nested entries are always user-accessible. */
#define P2M_PRESENT 1ull
#define P2M_WRITABLE 2ull
#define P2M_USER 4ull
#define P2M_ACCESSED 0x20ull
#define P2M_DIRTY 0x40ull
#define P2M_LARGE 0x80ull
#define P2M_NX (1ull << 63)
#define P2M_ADDRESS 0x000ffffffffff000ull

/* A table that is being taken apart, and the first entry that has not been looked at. */
struct p2m_way {
    uint64_t *table;
    unsigned next;
};

struct p2m {
    uint64_t root;       /* physical address of the top table */
    uint64_t *table;     /* the top table */
    uint64_t pages;      /* frames the tables take, retired ones too */
    uint64_t limit;      /* and how many they may: a device model maps what it likes */
    uint64_t *retired;   /* tables out of use that a CPU may still walk; linked by their first entry */
    uint64_t generation; /* goes up with every change: cached translations must be flushed, views made anew */
    struct p2m_way way[3]; /* for p2m_destroy() */
    unsigned depth;
};

/* False: out of memory. `ram_pages` is what the domain's RAM has; aliases may take a fixed amount on top. */
bool p2m_init(struct p2m *p, uint64_t ram_pages);
/* Takes a part of it apart, in an order that leaves nothing behind; false: that was the last one. No CPU uses it any more. */
bool p2m_destroy(struct p2m *p);

/*
 * Map a part of [gpa, gpa + size), all 4 KiB aligned, to host-physical hpa, replacing what was there, or to nothing: how many
 * bytes; 0: a table was made first, call it again; negative: out of memory.
 */
int64_t p2m_map(struct p2m *p, uint64_t gpa, uint64_t hpa, uint64_t size, bool writable);
int64_t p2m_unmap(struct p2m *p, uint64_t gpa, uint64_t size);

/* Frees some of the retired tables; true: there are more. The caller knows that every CPU has flushed its translations since the
 * last change. */
bool p2m_reclaim(struct p2m *p);

/* The entry that translates gpa (its address part is of that very 4 KiB page), or 0. */
uint64_t p2m_lookup(const struct p2m *p, uint64_t gpa);

/*
 * A view: all that is mapped but the 4 KiB page at gpa, for one CPU that has something else there. `tables`, P2M_VIEW_TABLES
 * pages, become those on the way to it; below them it is the p2m's own. Returns the root. Like p2m_lookup() it may run beside
 * a change, whose generation then asks for a new one. The writable pages that the view's own tables map (those of the 2 MiB
 * around, and large ones of the 1 GiB) count as written whenever it is made.
 */
#define P2M_VIEW_TABLES 4u
uint64_t p2m_hide(const struct p2m *p, uint64_t gpa, uint64_t *tables);

/* A bit for each of the 4 KiB pages from gpa on, at most 64, that was written since the last call. How many pages that is; 0:
 * a large one was split first, call it again. */
unsigned p2m_take_dirty(struct p2m *p, uint64_t gpa, unsigned most, uint64_t *written);

#endif
