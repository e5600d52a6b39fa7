/*
 * Page walks: every combination of rights against a reference written from the manual's sentences, every reserved bit of
 * every level, accessed and dirty bits, large pages, and entries that another CPU changes under the walk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cases.h"
#include "emulate_machine.h"

enum { P = 1, RW = 2, US = 4, ACCESSED = 0x20, DIRTY = 0x40, PS = 0x80 };
#define NX (1ull << 63)

/* One situation of the rights test. */
struct situation {
    bool present, writable, user_page, execute_disable; /* of the whole walk */
    bool wp, smep, smap, ac, implicit, pke, key_ad, key_wd, nxe;
    bool by_user, write, fetch;
};

/* SDM 3A 4.6.1 and 4.6.2, sentence by sentence. */
static bool allowed(const struct situation *s)
{
    bool key_access = !(s->pke && s->user_page && !s->fetch && s->key_ad);
    bool key_write = !(s->pke && s->user_page && !s->fetch && s->key_wd && (s->by_user || s->wp));

    if (!s->present)
        return false;
    if (!s->by_user) {
        if (s->fetch) {
            if (s->user_page)
                return !s->smep && !(s->nxe && s->execute_disable);
            return !(s->nxe && s->execute_disable);
        }
        if (s->user_page && s->smap && (s->implicit || !s->ac))
            return false;
        if (s->write)
            return (s->writable || !s->wp) && key_access && key_write;
        return key_access;
    }
    if (!s->user_page)
        return false;
    if (s->fetch)
        return !(s->nxe && s->execute_disable);
    if (s->write)
        return s->writable && key_access && key_write;
    return key_access;
}

static uint32_t error_code(const struct situation *s)
{
    bool key = s->present && s->pke && s->user_page && !s->fetch &&
               (s->key_ad || (s->key_wd && s->write && (s->by_user || s->wp)));

    return (s->present ? 1 : 0) | (s->write ? 2 : 0) | (s->by_user ? 4 : 0) | (s->fetch && (s->smep || s->nxe) ? 16 : 0) | (key ? 32 : 0);
}

static void set_situation(struct machine *m, const struct situation *s, unsigned level)
{
    struct emu_regs *r = &m->e.regs;

    machine_paging(m, PAGED_4LEVEL, P | RW | US);
    m->tables[3][5] |= 3ull << 59; /* key 3 */
    m->tables[level][level == 3 ? 5 : 0] &= ~((s->present ? 0 : P) | (s->writable ? 0 : RW) | (s->user_page ? 0ull : US));
    m->tables[level][level == 3 ? 5 : 0] |= s->execute_disable ? NX : 0;
    r->cr0 = (r->cr0 & ~0x10000ull) | (s->wp ? 0x10000 : 0);
    r->cr4 |= (s->smep ? 1u << 20 : 0) | (s->smap ? 1u << 21 : 0) | (s->pke ? 1u << 22 : 0);
    r->efer = 0x500 | (s->nxe ? 0x800 : 0);
    r->rflags = 2 | (s->ac ? 1u << 18 : 0);
    r->pkru = (s->key_ad ? 1u << 6 : 0) | (s->key_wd ? 1u << 7 : 0);
}

static void check_marks(struct machine *m, bool ok, bool write)
{
    for (unsigned level = 0; level < 4; level++) {
        uint64_t marks = m->tables[level][level == 3 ? 5 : 0] & (ACCESSED | DIRTY);
        uint64_t wanted = !ok ? 0 : ACCESSED | (write && level == 3 ? DIRTY : 0);

        expect(marks == wanted, "A and D", marks, wanted);
    }
}

static void rights(void **state)
{
    static struct machine m;

    machine_init(&m);
    for (unsigned bits = 0; bits < 1u << 18; bits++) {
        struct situation s = {
            bits & 1, bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1, bits >> 4 & 1, bits >> 5 & 1, bits >> 6 & 1, bits >> 7 & 1,
            bits >> 8 & 1, bits >> 9 & 1, bits >> 10 & 1, bits >> 11 & 1, bits >> 12 & 1, bits >> 13 & 1, bits >> 14 & 1, bits >> 15 & 1,
        };
        unsigned level = bits >> 16 & 3;
        unsigned access = (s.by_user ? EMU_USER : 0) | (s.write ? EMU_WRITE : 0) | (s.fetch ? EMU_FETCH : 0) | (s.implicit ? EMU_IMPLICIT : 0);
        enum emu_status status;
        uint64_t gpa = 0;

        /* Without NXE the bit is reserved: another test. Nobody writes by fetching, or is implicitly a user. */
        if ((s.write && s.fetch) || (s.implicit && (s.by_user || s.fetch)) || (s.execute_disable && !s.nxe))
            continue;
        set_situation(&m, &s, level);
        status = emu_translate(&m.e, 0x5123, access, &gpa);
        expect((status == EMU_OK) == allowed(&s), "allowed", bits, status);
        if (status == EMU_OK)
            expect(gpa == m.origin + 0x5123, "gpa", gpa, bits);
        else
            expect(m.e.exception.vector == 14 && m.e.exception.has_error_code && m.e.exception.cr2 == 0x5123 &&
                   m.e.exception.error_code == error_code(&s), "error code", m.e.exception.error_code, error_code(&s));
        check_marks(&m, status == EMU_OK, s.write);
        for (unsigned again = 0; again < 2; again++) /* walked with all marks, and then recalled */
            expect(emu_translate(&m.e, 0x5123, access, &gpa) == status, "the same again", bits, status);
    }
    conclude("rights, A and D bits");
}

/* Reserved bits by mode and level (SDM 3A tables 4-4 to 4-20), for MAXPHYADDR 40; bit 63 apart. */
static const struct {
    enum paging_kind kind;
    unsigned table; /* index into machine.tables: 0 is the top */
    bool large;
    uint64_t reserved, no_nx; /* no_nx: bit 63 is reserved even with NXE */
} reserved_rows[] = {
    { PAGED_5LEVEL, 0, false, 0x000fff0000000080, 0 },
    { PAGED_5LEVEL, 1, false, 0x000fff0000000080, 0 },
    { PAGED_5LEVEL, 2, false, 0x000fff0000000000, 0 },
    { PAGED_4LEVEL, 0, false, 0x000fff0000000080, 0 },
    { PAGED_4LEVEL, 1, false, 0x000fff0000000000, 0 },
    { PAGED_4LEVEL, 1, true, 0x000fff003fffe000, 0 },
    { PAGED_4LEVEL, 2, false, 0x000fff0000000000, 0 },
    { PAGED_4LEVEL, 2, true, 0x000fff00001fe000, 0 },
    { PAGED_4LEVEL, 3, false, 0x000fff0000000000, 0 },
    { PAGED_PAE, 0, false, 0x7fffff00000001e6, NX },
    { PAGED_PAE, 1, false, 0x7fffff0000000000, 0 },
    { PAGED_PAE, 1, true, 0x7fffff00001fe000, 0 },
    { PAGED_PAE, 2, false, 0x7fffff0000000000, 0 },
    { PAGED_32, 0, false, 0, 0 },
    { PAGED_32, 0, true, 0x200000, 0 },
    { PAGED_32, 1, false, 0, 0 },
};

static void try_reserved(struct machine *m, unsigned row, unsigned bit, bool nxe)
{
    enum paging_kind kind = reserved_rows[row].kind;
    unsigned table = reserved_rows[row].table;
    uint64_t wanted = reserved_rows[row].reserved | (nxe ? reserved_rows[row].no_nx : NX), gpa;
    bool is, should = wanted >> bit & 1;
    enum emu_status status;

    machine_paging(m, kind, P | RW | US);
    m->e.regs.cr4 |= 0x10; /* PSE */
    m->e.regs.physical_bits = 40;
    m->e.regs.efer = (m->e.regs.efer & ~0x800ull) | (nxe ? 0x800 : 0);
    if (kind == PAGED_32)
        ((uint32_t *)m->tables[table])[0] = (reserved_rows[row].large ? PS | P | RW | US : ((uint32_t *)m->tables[table])[0]) ^ 1u << bit;
    else
        m->tables[table][0] = (reserved_rows[row].large ? PS | P | RW | US : m->tables[table][0]) | 1ull << bit;
    status = emu_translate(&m->e, 0x10, 0, &gpa);
    is = status == EMU_EXCEPTION && (m->e.exception.error_code & 8);
    expect(is == should && (!is || m->e.exception.error_code == 9), "reserved row, bit", row, bit);
}

static void reserved(void **state)
{
    static struct machine m;

    machine_init(&m);
    for (unsigned row = 0; row < sizeof(reserved_rows) / sizeof(reserved_rows[0]); row++)
        for (unsigned bit = 1; bit < (reserved_rows[row].kind == PAGED_32 ? 32u : 64u); bit++) {
            bool decides = bit == 7 && !(reserved_rows[row].reserved & PS); /* makes it another kind of entry */

            if (!decides) {
                try_reserved(&m, row, bit, true);
                try_reserved(&m, row, bit, reserved_rows[row].kind == PAGED_32);
            }
        }
    conclude("reserved bits");
}

/* QEMU TCG sets A in the top entries of PAE tables: that bit alone is let through, there alone, by that quirk alone. */
static void accessed_pdpte(void **state)
{
    static struct machine m;
    uint64_t gpa;

    machine_init(&m);
    for (unsigned bit = 1; bit < 9; bit++) {
        machine_paging(&m, PAGED_PAE, P | RW | US);
        m.e.regs.pdpte_accessed = true;
        m.tables[0][0] |= 1ull << bit;
        bool reserved_bit = 0x1e6 >> bit & 1, fault = emu_translate(&m.e, 0x10, 0, &gpa) == EMU_EXCEPTION;
        expect(fault == (reserved_bit && bit != 5), "top PAE entry with the quirk, bit", bit, fault);
    }
    m.e.regs.pdpte_accessed = false;
    conclude("accessed bit of top PAE entries");
}

/* A leaf at each level, with a frame whose address reaches into the offset bits only where it may. */
static void large_pages(void **state)
{
    static const struct {
        enum paging_kind kind;
        unsigned table;
        uint64_t entry, linear, gpa;
    } rows[] = {
        { PAGED_5LEVEL, 2, 0x7f40000000ull, 0x2abcdef, 0x7f42abcdef },     /* 1 GiB */
        { PAGED_4LEVEL, 1, 0x7f40001000ull, 0x3fffffff, 0x7f7fffffff },    /* bit 12 is PAT */
        { PAGED_4LEVEL, 2, 0x7fffe00000ull, 0x1fffff, 0x7fffffffff },      /* 2 MiB */
        { PAGED_PAE, 1, 0x7fffe01000ull, 0x123456, 0x7fffe00000ull + 0x123456 },
        { PAGED_32, 0, 0xffc00000, 0x3fffff, 0xffffffff },                 /* 4 MiB */
        { PAGED_32, 0, 0xffc00000 | 0x1fe000, 0x3fffff, 0xffffffffffull }, /* PSE-36: address bits 39:32 */
        { PAGED_32, 0, 0x00400000 | 0x002000 | 0x1000, 0x10, 0x100400010 },
    };
    static struct machine m;

    machine_init(&m);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t gpa = 0, entry;

        machine_paging(&m, rows[i].kind, P | RW | US);
        m.e.regs.cr4 |= 0x10;
        m.e.regs.physical_bits = 40;
        entry = rows[i].entry | PS | P | RW;
        if (rows[i].kind == PAGED_32)
            ((uint32_t *)m.tables[0])[0] = (uint32_t)entry;
        else
            m.tables[rows[i].table][0] = entry;
        expect(emu_translate(&m.e, rows[i].linear, EMU_WRITE, &gpa) == EMU_OK, "large page: status", i, 0);
        expect(gpa == rows[i].gpa, "large page", gpa, rows[i].gpa);
        entry = rows[i].kind == PAGED_32 ? ((uint32_t *)m.tables[0])[0] : m.tables[rows[i].table][0];
        expect((entry & (ACCESSED | DIRTY)) == (ACCESSED | DIRTY), "large page: A and D", entry, i);
    }
    /* Without CR4.PSE the bit means nothing. */
    uint64_t gpa = 0;
    machine_paging(&m, PAGED_32, P | RW | US);
    ((uint32_t *)m.tables[0])[0] |= PS;
    expect(emu_translate(&m.e, 0x3010, 0, &gpa) == EMU_OK && gpa == m.origin + 0x3010, "no PSE", gpa, 0);
    conclude("large pages");
}

/* Every index of every level, through sparse tables made for one address. */
static void indices(void **state)
{
    static struct machine m;
    unsigned long count = case_count(20000);

    machine_init(&m);
    for (unsigned long i = 0; i < count; i++) {
        enum paging_kind kind = PAGED_32 + below(4);
        unsigned levels = kind == PAGED_32 ? 2 : kind + 1u, width = kind == PAGED_32 ? 10 : 9;
        uint64_t linear = kind >= PAGED_4LEVEL ? random64() : (uint32_t)random64(), frame = (random64() & 0xfffff) << 12, gpa = 0;
        unsigned bits = kind == PAGED_5LEVEL ? 57 : 48;

        if (kind >= PAGED_4LEVEL)
            linear = (uint64_t)((int64_t)(linear << (64 - bits)) >> (64 - bits));
        machine_paging(&m, kind, P | RW | US);
        memset(m.tables, 0, sizeof m.tables);
        for (unsigned t = 0; t < levels; t++) {
            uint64_t next = t == levels - 1 ? frame : TABLES + (t + 1) * (uint64_t)PAGE;
            unsigned index = (unsigned)(linear >> (12 + width * (levels - 1 - t))) & ((1u << width) - 1);

            if (kind == PAGED_32)
                ((uint32_t *)m.tables[t])[index] = (uint32_t)next | P | RW;
            else
                m.tables[t][index] = next | P | (kind == PAGED_PAE && !t ? 0 : RW);
        }
        expect(emu_translate(&m.e, linear, EMU_WRITE, &gpa) == EMU_OK && gpa == (frame | (linear & 0xfff)), "index", linear, gpa);
    }
    conclude("indices");
}

/* Another CPU that changes an entry between the walk and the marking of its bits. */
static unsigned interferences;

static void *interfering_ram_page(void *ctx, uint64_t gpa, bool write)
{
    struct machine *m = ctx;

    if (write && interferences && gpa == TABLES + 3 * PAGE) {
        interferences--;
        m->tables[3][5] += PAGE; /* the next frame */
    }
    return machine_ram_page(ctx, gpa, write);
}

static void races(void **state)
{
    static struct machine m;
    uint64_t gpa = 0;

    machine_init(&m);
    m.ops.ram_page = interfering_ram_page;
    machine_paging(&m, PAGED_4LEVEL, P | RW | US);
    interferences = 3;
    expect(emu_translate(&m.e, 0x5000, EMU_WRITE, &gpa) == EMU_OK && gpa == m.origin + 0x8000, "the changed entry counts", gpa, 0);
    expect((m.tables[3][5] & 0xfff) == (P | RW | US | ACCESSED | DIRTY), "marked once", m.tables[3][5], 0);
    machine_paging(&m, PAGED_4LEVEL, P | RW | US);
    interferences = ~0u;
    expect(emu_translate(&m.e, 0x5000, EMU_WRITE, &gpa) == EMU_EXCEPTION && m.e.exception.error_code == 2, "bounded", 0, 0);
    expect(~0u - interferences < 100, "attempts", ~0u - interferences, 0);
    conclude("races");
}

/* Tables that are no RAM read as absent. */
static void outside(void **state)
{
    static struct machine m;
    uint64_t gpa;

    machine_init(&m);
    machine_paging(&m, PAGED_4LEVEL, P | RW | US);
    m.e.regs.cr3 = 0x9000000;
    expect(emu_translate(&m.e, 0x5000, EMU_USER, &gpa) == EMU_EXCEPTION && m.e.exception.error_code == 4, "cr3", 0, 0);
    machine_paging(&m, PAGED_4LEVEL, P | RW | US);
    m.tables[1][0] = 0x9000000 | P | RW | US;
    expect(emu_translate(&m.e, 0x5000, EMU_WRITE, &gpa) == EMU_EXCEPTION && m.e.exception.error_code == 2, "directory", 0, 0);
    conclude("tables outside RAM");
}

static unsigned looks;

static void *counting_ram_page(void *ctx, uint64_t gpa, bool write)
{
    looks++;
    return machine_ram_page(ctx, gpa, write);
}

/* Does the translation look at tables, as against being recalled? */
static bool walks(struct machine *m, unsigned access)
{
    uint64_t gpa;

    looks = 0;
    assert_int_equal(emu_translate(&m->e, 0x5000, access, &gpa), EMU_OK);
    return looks != 0;
}

static void keep_one(struct machine *m, unsigned access)
{
    walks(m, access); /* sets the marks */
    walks(m, access);
    expect(!walks(m, access), "recalled", access, 0);
}

/* A walk is recalled while its entries are as they were and all that decided over it is the same, and only then. */
static void kept(void **state)
{
    static struct machine m;
    struct emu_regs *r = &m.e.regs;
    uint64_t *of_regs[] = {&r->cr0, &r->cr4, &r->efer, &r->rflags, &m.e.ram_generation};
    static const uint64_t change[] = {1u << 16, 1u << 20, 1u << 11, 0x40000, 2};

    machine_init(&m);
    m.ops.ram_page = counting_ram_page;
    for (unsigned level = 0; level < 4; level++) {
        uint64_t *entry;

        machine_paging(&m, PAGED_4LEVEL, P | RW | US);
        entry = &m.tables[level][level == 3 ? 5 : 0];
        keep_one(&m, EMU_WRITE);
        *entry &= ~(uint64_t)ACCESSED;
        expect(walks(&m, EMU_WRITE) && (*entry & ACCESSED), "A is set again", level, *entry);
        keep_one(&m, EMU_WRITE);
        *entry &= ~(uint64_t)P;
        expect(emu_translate(&m.e, 0x5000, EMU_WRITE, &(uint64_t){0}) == EMU_EXCEPTION, "not present", level, 0);
    }
    for (unsigned i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
        machine_paging(&m, PAGED_4LEVEL, P | RW);
        keep_one(&m, EMU_READ);
        *of_regs[i] ^= change[i];
        expect(walks(&m, EMU_READ), "other circumstances", i, 0);
    }
    machine_paging(&m, PAGED_4LEVEL, P | RW | US);
    keep_one(&m, EMU_READ);
    expect(walks(&m, EMU_WRITE) && walks(&m, EMU_USER) && walks(&m, EMU_FETCH), "other access", 0, 0);
    m.e.ram_generation = 0;
    walks(&m, EMU_READ);
    expect(walks(&m, EMU_READ), "nothing is kept without a generation", 0, 0);
    conclude("kept walks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights),  cmocka_unit_test(reserved), cmocka_unit_test(accessed_pdpte), cmocka_unit_test(large_pages),
        cmocka_unit_test(indices), cmocka_unit_test(races),    cmocka_unit_test(outside),
        cmocka_unit_test(kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
