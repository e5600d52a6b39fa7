/* The page-table walk of every paging mode (SDM 3A chapter 4), with accessed and dirty bits. */
#include "internal.h"

enum { PTE_P = 1, PTE_RW = 2, PTE_US = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80 };
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

enum { FAULT_P = 1, FAULT_RSVD = 8, FAULT_PK = 32 };
enum { LEVELS_MAX = 5, ATTEMPTS = 64 };

/* What a mode's tables look like. */
struct paging {
    uint8_t levels, index_bits, entry_size;
    bool pae;          /* not long mode: the top level has four entries of their own kind */
    uint64_t reserved; /* in every entry */
};

struct step {
    uint64_t gpa, entry;
};

struct walk {
    struct paging paging;
    struct step step[LEVELS_MAX];
    unsigned steps, shift; /* shift: of the leaf's page size */
    uint64_t rights;       /* AND of all entries: RW and US */
    uint64_t nx;           /* OR of all entries */
};

static struct paging paging_of(const struct emu_regs *r)
{
    unsigned width = r->physical_bits ? r->physical_bits : 52;
    uint64_t high = PTE_ADDRESS & ~((1ull << width) - 1);

    if (!(r->efer & EFER_NXE))
        high |= PTE_NX;
    if (r->efer & EFER_LMA)
        return (struct paging){ r->cr4 & CR4_LA57 ? 5 : 4, 9, 8, false, high };
    if (r->cr4 & CR4_PAE)
        return (struct paging){ 3, 9, 8, true, high | 0x7ff0000000000000ull };
    return (struct paging){ 2, 10, 4, false, 0 };
}

static bool is_leaf(const struct emu_regs *r, const struct paging *p, unsigned level, uint64_t entry)
{
    if (level == 1)
        return true;
    if (!(entry & PTE_PS))
        return false;
    if (level == 2)
        return p->entry_size == 8 || (r->cr4 & CR4_PSE);
    return level == 3 && !p->pae;
}

/* Reserved bits of an entry at a level (SDM 3A tables 4-4 to 4-20). */
static uint64_t reserved_bits(const struct emu_regs *r, const struct walk *w, unsigned level, bool leaf)
{
    const struct paging *p = &w->paging;

    if (p->entry_size == 4) {
        unsigned width = r->physical_bits && r->physical_bits < 40 ? r->physical_bits : 40;

        /* PSE-36: address bits 39:32 in bits 20:13 */
        return leaf && level == 2 ? (1u << 21) | ((0xffull << (width - 32) & 0xff) << 13) : 0;
    }
    if (p->pae && level == 3)
        return p->reserved | PTE_NX | 0x1e6;
    if (leaf && level > 1)
        return p->reserved | (((1ull << w->shift) - 1) & ~0x1fffull);
    return level > 3 ? p->reserved | PTE_PS : p->reserved;
}

static bool read_entry(struct emu *e, const struct paging *p, struct step *s)
{
    const uint8_t *page = e->ops->ram_page(e->ctx, s->gpa & ~(uint64_t)PAGE_OFFSET, false);

    if (!page)
        return false;
    if (p->entry_size == 8)
        s->entry = __atomic_load_n((const uint64_t *)(page + (s->gpa & PAGE_OFFSET)), __ATOMIC_RELAXED);
    else
        s->entry = __atomic_load_n((const uint32_t *)(page + (s->gpa & PAGE_OFFSET)), __ATOMIC_RELAXED);
    return true;
}

/* Goes down to the leaf. Returns the fault's error code bits, or -1 if a page was found. */
static int descend(struct emu *e, uint64_t linear, struct walk *w)
{
    const struct emu_regs *r = &e->regs;
    const struct paging *p = &w->paging;
    uint64_t table = p->entry_size == 4 ? r->cr3 & 0xfffff000 : p->pae ? r->cr3 & 0xffffffe0 : r->cr3 & PTE_ADDRESS;

    w->shift = 12 + p->index_bits * (p->levels - 1);
    for (unsigned level = p->levels;; level--, w->shift -= p->index_bits) {
        struct step *s = &w->step[w->steps++];
        bool leaf;

        s->gpa = table + ((linear >> w->shift) & ((1u << p->index_bits) - 1)) * p->entry_size;
        if (!read_entry(e, p, s) || !(s->entry & PTE_P))
            return 0;
        leaf = is_leaf(r, p, level, s->entry);
        if (s->entry & reserved_bits(r, w, level, leaf))
            return FAULT_P | FAULT_RSVD;
        if (!(p->pae && level == 3)) {
            w->rights &= s->entry;
            w->nx |= s->entry;
        }
        if (leaf)
            return -1;
        table = s->entry & PTE_ADDRESS;
    }
}

/* Does the protection key of a user page forbid a data access (SDM 3A 4.6.2)? */
static bool key_forbids(const struct emu_regs *r, const struct walk *w, unsigned access)
{
    unsigned key = (unsigned)(w->step[w->steps - 1].entry >> 59) & 15;
    unsigned bits = r->pkru >> (2 * key);

    if (!(r->cr4 & CR4_PKE) || !(r->efer & EFER_LMA) || !(w->rights & PTE_US) || (access & EMU_FETCH))
        return false;
    return (bits & 1) || ((bits & 2) && (access & EMU_WRITE) && ((access & EMU_USER) || (r->cr0 & CR0_WP)));
}

/* Do the access rights forbid it (SDM 3A 4.6.1)? */
static bool rights_forbid(const struct emu_regs *r, const struct walk *w, unsigned access)
{
    bool user_page = w->rights & PTE_US, by_user = access & EMU_USER;

    if (by_user && !user_page)
        return true;
    if ((access & EMU_WRITE) && !(w->rights & PTE_RW) && (by_user || (r->cr0 & CR0_WP)))
        return true;
    if (access & EMU_FETCH)
        return (w->nx & PTE_NX) || (user_page && !by_user && (r->cr4 & CR4_SMEP));
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
    for (unsigned i = w->paging.pae ? 1 : 0; i < w->steps; i++) {
        const struct step *s = &w->step[i];
        uint64_t wanted = PTE_A | (i == w->steps - 1 && (access & EMU_WRITE) ? PTE_D : 0);
        uint8_t *page;

        if ((s->entry & wanted) == wanted)
            continue;
        page = e->ops->ram_page(e->ctx, s->gpa & ~(uint64_t)PAGE_OFFSET, true);
        /* A table in ROM keeps its bits, like on hardware. */
        if (page && !swap_entry(page + (s->gpa & PAGE_OFFSET), w->paging.entry_size, s->entry, s->entry | wanted))
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
    uint64_t entry = w->step[w->steps - 1].entry, offset = (1ull << w->shift) - 1;

    if (w->paging.entry_size == 4 && w->shift == 22)
        return (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32 | (linear & offset);
    return (entry & PTE_ADDRESS & ~offset) | (linear & offset);
}

enum emu_status emu_translate(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa)
{
    if (!(e->regs.cr0 & CR0_PG)) {
        *gpa = linear;
        return EMU_OK;
    }
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct walk w;
        int code;

        w.paging = paging_of(&e->regs);
        w.steps = 0;
        w.rights = ~0ull;
        w.nx = 0;
        code = descend(e, linear, &w);
        if (code < 0) {
            code = rights_forbid(&e->regs, &w, access) ? FAULT_P : 0;
            if (key_forbids(&e->regs, &w, access))
                code |= FAULT_P | FAULT_PK;
            if (!code && !mark(e, &w, access))
                continue;
            if (!code) {
                *gpa = leaf_address(&w, linear);
                return EMU_OK;
            }
        }
        return page_fault(e, linear, access, code);
    }
    return page_fault(e, linear, access, 0);
}
