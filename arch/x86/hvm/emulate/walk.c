/* The page-table walk of every paging mode (SDM 3A chapter 4), with accessed and dirty bits. */
#include "internal.h"

enum { PTE_P = 1, PTE_RW = 2, PTE_US = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80 };
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

enum { FAULT_P = 1, FAULT_RSVD = 8, FAULT_PK = 32 };
enum { LEVELS_MAX = 5, ATTEMPTS = 64 };

/* What a mode's tables look like; arrays by level, 1 is the last (SDM 3A tables 4-4 to 4-20). */
static const struct format {
    uint8_t levels, index_bits, entry_size;
    uint8_t large;                           /* bit mask of levels that may hold a large page */
    uint64_t cr3, reserved;                  /* reserved: in every entry, besides what the CPU's features say */
    uint64_t table_reserved[LEVELS_MAX + 1]; /* in an entry that points to a table */
    uint64_t large_reserved[LEVELS_MAX + 1]; /* in one that maps a large page */
    uint64_t implied[LEVELS_MAX + 1];        /* rights and marks that an entry of this level does not have */
} formats[] = {
#define LONG_MODE(depth)                                                                                                  \
    {                                                                                                                     \
        depth, 9, 8, 1 << 3 | 1 << 2, PTE_ADDRESS, 0, { [4] = PTE_PS, [5] = PTE_PS }, { [3] = 0x3fffe000, [2] = 0x1fe000 }, \
        { 0 }                                                                                                             \
    }
    LONG_MODE(4), LONG_MODE(5),
    /* PAE: four entries of their own kind at the top. */
    { 3, 9, 8, 1 << 2, 0xffffffe0, 0x7ff0000000000000, { [3] = PTE_NX | 0x1e6 }, { [2] = 0x1fe000 }, { [3] = PTE_RW | PTE_US | PTE_A } },
    /* 32-bit, without and with PSE. */
    { 2, 10, 4, 0, 0xfffff000, 0, { 0 }, { 0 }, { 0 } },
    { 2, 10, 4, 1 << 2, 0xfffff000, 0, { 0 }, { [2] = 0x200000 }, { 0 } },
};
enum { FORMAT_4LEVEL, FORMAT_5LEVEL, FORMAT_PAE, FORMAT_32, FORMAT_PSE };

static const struct format *format_of(const struct emu_regs *r)
{
    if (r->efer & EFER_LMA)
        return &formats[r->cr4 & CR4_LA57 ? FORMAT_5LEVEL : FORMAT_4LEVEL];
    if (r->cr4 & CR4_PAE)
        return &formats[FORMAT_PAE];
    return &formats[r->cr4 & CR4_PSE ? FORMAT_PSE : FORMAT_32];
}

struct walk {
    const struct format *format;
    unsigned steps, shift; /* shift: of the leaf's page size */
    uint64_t all, any;     /* AND and OR of all entries */
    uint64_t leaf;
    struct {
        uint64_t gpa, entry;
        const void *at; /* in the host's memory */
    } step[LEVELS_MAX];
};

/* Physical address bits that do not exist, and NX where it is off. */
static uint64_t reserved_by_cpu(const struct emu_regs *r, const struct format *f)
{
    unsigned width = r->physical_bits ? r->physical_bits : 52;

    if (f->entry_size == 4)
        return 0;
    return f->reserved | (PTE_ADDRESS & ~((1ull << width) - 1)) | (r->efer & EFER_NXE ? 0 : PTE_NX);
}

/* PSE-36 keeps address bits 39:32 in bits 20:13 of the entry. */
static bool pse36_reserved(const struct emu_regs *r, uint64_t entry)
{
    unsigned width = r->physical_bits && r->physical_bits < 40 ? r->physical_bits : 40;

    return (entry >> 13 & 0xff) >> (width - 32);
}

/* The quirk of regs.pdpte_accessed: a bit that only counts as reserved where the CPU does not set it itself. */
static uint64_t tolerated(const struct emu_regs *r, const struct format *f, unsigned level)
{
    return f->levels == 3 && level == 3 && r->pdpte_accessed ? PTE_A : 0;
}

/*
 * Goes down to the leaf. Returns the fault's error code bits, or -1 if a page was found. Inlined so that the compiler
 * makes one of constants for the usual four levels.
 */
static inline __attribute__((always_inline)) int descend(struct emu *e, uint64_t linear, struct walk *w, const struct format *f)
{
    const unsigned bits = f->index_bits, wide = f->entry_size == 8;
    const uint64_t reserved = reserved_by_cpu(&e->regs, f);
    void *(*const ram_page)(void *, uint64_t, bool) = e->ops->ram_page;
    uint64_t table = e->regs.cr3 & f->cr3, all = ~0ull, any = 0, entry;
    unsigned level = f->levels, shift = 12 + bits * (level - 1), n = 0;

    for (;; level--, shift -= bits) {
        uint64_t index = (linear >> shift & ((1u << bits) - 1)) * f->entry_size + (table & PAGE_OFFSET);
        const uint8_t *page = ram_page(e->ctx, table & ~(uint64_t)PAGE_OFFSET, false);
        bool large;

        if (!page)
            return 0;
        entry = wide ? *(const volatile uint64_t *)(page + index) : *(const volatile uint32_t *)(page + index);
        if (!(entry & PTE_P))
            return 0;
        w->step[n].gpa = (table & ~(uint64_t)PAGE_OFFSET) + index;
        w->step[n].at = page + index;
        w->step[n++].entry = entry;
        large = (entry & PTE_PS) && (f->large >> level & 1);
        if (entry & (reserved | (large ? f->large_reserved[level] : f->table_reserved[level] & ~tolerated(&e->regs, f, level))))
            return FAULT_P | FAULT_RSVD;
        all &= entry | f->implied[level];
        any |= entry;
        if (level == 1 || large)
            break;
        table = entry & PTE_ADDRESS;
    }
    if (!wide && level == 2 && pse36_reserved(&e->regs, entry))
        return FAULT_P | FAULT_RSVD;
    w->steps = n;
    w->shift = shift;
    w->all = all;
    w->any = any;
    w->leaf = entry;
    return -1;
}

static int descend_other(struct emu *e, uint64_t linear, struct walk *w)
{
    return descend(e, linear, w, w->format);
}

/* Does the protection key of a user page forbid a data access (SDM 3A 4.6.2)? */
static bool key_forbids(const struct emu_regs *r, const struct walk *w, unsigned access)
{
    unsigned bits = r->pkru >> (w->leaf >> 58 & 0x1e);

    if (!(r->efer & EFER_LMA) || !(w->all & PTE_US) || (access & EMU_FETCH))
        return false;
    return (bits & 1) || ((bits & 2) && (access & EMU_WRITE) && ((access & EMU_USER) || (r->cr0 & CR0_WP)));
}

/* Do the access rights forbid it (SDM 3A 4.6.1)? */
static bool rights_forbid(const struct emu_regs *r, const struct walk *w, unsigned access)
{
    bool user_page = w->all & PTE_US, by_user = access & EMU_USER;

    if (by_user && !user_page)
        return true;
    if ((access & EMU_WRITE) && !(w->all & PTE_RW) && (by_user || (r->cr0 & CR0_WP)))
        return true;
    if (access & EMU_FETCH)
        return (w->any & PTE_NX) || (user_page && !by_user && (r->cr4 & CR4_SMEP));
    return user_page && !by_user && (r->cr4 & CR4_SMAP) && ((access & EMU_IMPLICIT) || !(r->rflags & FLAG_AC));
}

static bool swap_entry(void *entry, unsigned size, uint64_t old, uint64_t new)
{
    uint32_t old32 = (uint32_t)old;

    if (size == 8)
        return __atomic_compare_exchange_n((uint64_t *)entry, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    return __atomic_compare_exchange_n((uint32_t *)entry, &old32, (uint32_t)new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Sets A everywhere and D in a leaf that is written. False: an entry is no longer what was walked. */
static bool mark(struct emu *e, const struct walk *w, unsigned access)
{
    for (unsigned i = 0; i < w->steps; i++) {
        uint64_t gpa = w->step[i].gpa, entry = w->step[i].entry;
        uint64_t wanted = (PTE_A & ~w->format->implied[w->format->levels - i]) | (i == w->steps - 1 && (access & EMU_WRITE) ? PTE_D : 0);
        uint8_t *page;

        if ((entry & wanted) == wanted)
            continue;
        page = e->ops->ram_page(e->ctx, gpa & ~(uint64_t)PAGE_OFFSET, true);
        /* A table in ROM keeps its bits, like on hardware. */
        if (page && !swap_entry(page + (gpa & PAGE_OFFSET), w->format->entry_size, entry, entry | wanted))
            return false;
    }
    return true;
}

static enum emu_status page_fault(struct emu *e, uint64_t linear, unsigned access, int code)
{
    const struct emu_regs *r = &e->regs;
    bool tells_fetch = (r->cr4 & CR4_SMEP) || ((r->cr4 & CR4_PAE) && (r->efer & EFER_NXE));

    code |= (int)(access & (EMU_WRITE | EMU_USER)) | (tells_fetch ? (int)(access & EMU_FETCH) : 0);
    e->exception = (struct emu_exception){
        .vector = VECTOR_PF, .has_error_code = true, .error_code = (uint32_t)code, .cr2 = linear,
    };
    return EMU_EXCEPTION;
}

static uint64_t leaf_address(const struct walk *w, uint64_t linear)
{
    uint64_t entry = w->leaf, offset = (1ull << w->shift) - 1;

    if (w->shift == 22)
        return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (linear & offset);
    return (entry & PTE_ADDRESS & ~offset) | (linear & offset);
}

/* ---- Walks that are kept ---- */

static struct emu_memo *memo_of(struct emu *e, uint64_t linear, unsigned access)
{
    /* Devices' pages are far apart, by round numbers. */
    return &e->memo[!(access & EMU_FETCH)][(linear >> 12 ^ linear >> 20) % EMU_MEMOS];
}

static uint32_t memo_access(const struct emu_regs *r, unsigned access)
{
    return access | (uint32_t)(r->rflags & FLAG_AC);
}

static bool recall(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa)
{
    const struct emu_memo *m = memo_of(e, linear, access);
    const struct emu_regs *r = &e->regs;
    uint64_t other = (m->page ^ (linear & ~(uint64_t)PAGE_OFFSET)) | (m->generation ^ e->ram_generation) | (m->cr0 ^ r->cr0) |
                     (m->cr3 ^ r->cr3) | (m->cr4 ^ r->cr4) | (m->efer ^ r->efer) | (m->access ^ memo_access(r, access)) |
                     (m->pkru ^ r->pkru);

    if (other || !e->ram_generation)
        return false;
    for (unsigned i = 0; i < m->steps; i++)
        if (*(const volatile uint64_t *)m->at[i] != m->entry[i])
            return false;
    *gpa = m->gpa | (linear & PAGE_OFFSET);
    return true;
}

/* Only what has all its marks, in entries of 8 bytes. */
static void keep(struct emu *e, const struct walk *w, uint64_t linear, unsigned access, uint64_t gpa)
{
    struct emu_memo *m = memo_of(e, linear, access);
    const struct emu_regs *r = &e->regs;

    if (!e->ram_generation || w->format->entry_size != 8)
        return;
    m->generation = e->ram_generation;
    m->page = linear & ~(uint64_t)PAGE_OFFSET;
    m->cr0 = r->cr0;
    m->cr3 = r->cr3;
    m->cr4 = r->cr4;
    m->efer = r->efer;
    m->access = memo_access(r, access);
    m->pkru = r->pkru;
    m->gpa = gpa & ~(uint64_t)PAGE_OFFSET;
    m->steps = w->steps;
    for (unsigned i = 0; i < w->steps; i++) {
        m->at[i] = w->step[i].at;
        m->entry[i] = w->step[i].entry;
    }
}

static __attribute__((noinline)) enum emu_status walk(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa)
{
    struct walk w;

    w.format = format_of(&e->regs);
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        int code = w.format == &formats[FORMAT_4LEVEL] ? descend(e, linear, &w, &formats[FORMAT_4LEVEL]) : descend_other(e, linear, &w);

        if (code < 0) {
            code = rights_forbid(&e->regs, &w, access) ? FAULT_P : 0;
            if ((e->regs.cr4 & CR4_PKE) && key_forbids(&e->regs, &w, access))
                code |= FAULT_P | FAULT_PK;
            if (!code) {
                bool marked = (w.all & PTE_A) && (!(access & EMU_WRITE) || (w.leaf & PTE_D));

                if (!marked && !mark(e, &w, access))
                    continue;
                *gpa = leaf_address(&w, linear);
                if (marked)
                    keep(e, &w, linear, access, *gpa);
                return EMU_OK;
            }
        }
        return page_fault(e, linear, access, code);
    }
    return page_fault(e, linear, access, 0);
}

enum emu_status emu_translate(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa)
{
    if (!(e->regs.cr0 & CR0_PG)) {
        *gpa = linear;
        return EMU_OK;
    }
    return recall(e, linear, access, gpa) ? EMU_OK : walk(e, linear, access, gpa);
}
