/*
 * What Unicorn does not know or gets wrong: segment limits and types, canonical addresses, faults in the middle, splits at
 * page edges, privileges of ports, LOCK, alignment, budgets of REP. Expectations are tables and sentences of the manual.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cases.h"
#include "emulate_machine.h"

enum { OK = 0, AC = 17, GP = 13, SS = 12, UD = 6, NM = 7, PF = 14 };

static struct machine m;

enum code { REAL, VM86, PROTECTED_16, PROTECTED_32, LONG_64 };

static void mode(enum code code)
{
    static const uint16_t cs[] = { 0x9b, 0x9b, 0x9b, 0x49b, 0x29b };
    static const enum paging_kind paging[] = { UNPAGED, PAGED_32, UNPAGED, PAGED_PAE, PAGED_4LEVEL };

    machine_init(&m);
    machine_paging(&m, paging[code], 7);
    for (unsigned s = 0; s < 6; s++)
        machine_segment(&m, s, (uint16_t)(s * 8), 0, code < PROTECTED_16 ? 0xffff : 0xffffffff, code < PROTECTED_16 ? 0x93 : 0xc93);
    m.e.regs.seg[EMU_CS].attributes = cs[code];
    m.e.regs.seg[EMU_CS].base = code < PROTECTED_16 ? 0x8000 : 0;
    m.e.regs.rflags = 2;
    if (code == REAL)
        m.e.regs.cr0 &= ~1ull;
    if (code == VM86)
        m.e.regs.rflags |= 0x20000, m.e.regs.cpl = 3;
    m.e.regs.rip = 0x1000;
}

/* Places code at CS:RIP. */
static void code(const char *hex)
{
    uint64_t at = emu_linear_rip(&m.e.regs);
    unsigned byte;

    for (; *hex; hex += *hex == ' ' ? 1 : 2)
        if (*hex != ' ' && sscanf(hex, "%2x", &byte) == 1)
            m.memory[at++] = (uint8_t)byte;
}

static unsigned vector_of(enum emu_status status)
{
    return status == EMU_OK ? OK : status == EMU_EXCEPTION ? m.e.exception.vector : 100 + status;
}

/* Runs once; the vector of the exception, 0 for none. A failure must leave registers and memory alone. */
static unsigned run(void)
{
    static struct machine before;
    enum emu_status status;

    before = m;
    status = emu_run(&m.e);
    if (status != EMU_OK && !m.e.insn.rep) {
        expect(!memcmp(&before.e.regs, &m.e.regs, sizeof m.e.regs), "registers changed by a failure", m.e.regs.rip, status);
        expect(!memcmp(before.memory, m.memory, SPAN), "memory changed by a failure", m.e.regs.rip, status);
    }
    return vector_of(status);
}

/* Scratch RAM everywhere, to test addresses alone. */
static void *ram_everywhere(void *ctx, uint64_t gpa, bool write)
{
    static uint8_t page[PAGE] __attribute__((aligned(PAGE)));

    return page;
}

/* ---- segments ---- */

/* By bytes: each one of the access must lie in the segment, none may wrap. */
static bool inside(const struct emu_segment *s, uint64_t offset, unsigned size)
{
    bool down = (s->attributes & 0xc) == 4;

    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;

        if (at > 0xffffffff)
            return false;
        if (down ? at <= s->limit || at > (s->attributes & 0x400 ? 0xffffffff : 0xffff) : at > s->limit)
            return false;
    }
    return true;
}

/* SDM 3A 5.5: by the type field's 16 values. */
static const bool readable[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1 };
static const bool writable[16] = { 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0 };

/* MOV between a register and SEG:[disp32], of each size. */
static void try_segment(unsigned seg, uint32_t offset, unsigned size, bool write, unsigned expected, uint32_t linear)
{
    static const uint8_t overrides[6] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
    bool is16 = !(m.e.regs.seg[EMU_CS].attributes & 0x400);
    uint8_t bytes[15] = { 0 };
    unsigned n = 0, vector;

    bytes[n++] = overrides[seg];
    if (is16)
        bytes[n++] = 0x67;
    if ((size == 2) != is16 && size != 1)
        bytes[n++] = 0x66;
    bytes[n++] = (uint8_t)((write ? 0x88 : 0x8a) | (size > 1));
    bytes[n++] = 0x05;
    memcpy(bytes + n, &offset, 4);
    m.e.regs.rip = 0x1000;
    assert_true(emu_decode(&m.e.regs, bytes, 15, &m.e.insn));
    vector = vector_of(emu_run_decoded(&m.e));
    expect(vector == expected, "segment: vector, expected", vector, expected);
    if (vector)
        expect(m.e.exception.has_error_code == (m.e.regs.cr0 & 1) && !m.e.exception.error_code, "segment: error code", seg, offset);
    (void)linear;
}

static void segments(void **state)
{
    static const uint32_t limits[] = { 0, 1, 7, 0xfff, 0xffff, 0x12345, 0xfffff, 0xfffffffe, 0xffffffff };
    static const unsigned sizes[] = { 1, 2, 4 };

    for (enum code c = REAL; c <= PROTECTED_32; c++)
        for (unsigned type = 0; type < 64; type++) { /* type, P, B */
            uint16_t attributes = (uint16_t)((type & 15) | 0x10 | (type & 16 ? 0x80 : 0) | (type & 32 ? 0x400 : 0));
            bool typed = c >= PROTECTED_16;

            if (!typed && (type & 15) != 3 && (type & 15) != 11)
                continue;
            mode(c);
            m.ops.ram_page = ram_everywhere;
            m.e.regs.cr0 &= 0x7fffffff;
            for (unsigned l = 0; l < sizeof(limits) / sizeof(limits[0]); l++)
                for (int near = -5; near <= 5; near++)
                    for (unsigned v = 0; v < 3 * 2 * 2 * 2; v++) {
                        unsigned seg = v & 1 ? EMU_SS : EMU_GS, size = sizes[v >> 3];
                        bool write = v >> 1 & 1, edge = v >> 2 & 1;
                        uint32_t offset = (edge ? 0xffff : limits[l]) + (uint32_t)near;
                        struct emu_segment s = { 8, attributes, limits[l], 0x100 };
                        bool right = inside(&s, offset, size);

                        if (typed)
                            right = right && (type & 16) && (write ? writable : readable)[type & 15];
                        m.e.regs.seg[seg] = s;
                        try_segment(seg, offset, size, write, right ? OK : seg == EMU_SS ? SS : GP, 0);
                    }
        }
    conclude("segment limits and types");
}

/* ---- canonical addresses ---- */

static bool canonical(uint64_t address, unsigned bits)
{
    uint64_t upper = address >> (bits - 1);

    return !upper || upper == UINT64_MAX >> (bits - 1);
}

static void canonical_addresses(void **state)
{
    for (unsigned la57 = 0; la57 < 2; la57++)
        for (unsigned v = 0; v < 4 * 4 * 41; v++) {
            unsigned bits = la57 ? 57 : 48, size = 1u << (v & 3), vector;
            uint64_t edge = v & 4 ? 1ull << (bits - 1) : 0 - (1ull << (bits - 1)), at = edge + (v >> 4) - 20;
            bool stack = v & 8, right = canonical(at, bits) && canonical(at + size - 1, bits);
            static const char *const by_rbx[] = { "8a03", "668b03", "8b03", "488b03" };
            static const char *const by_rbp[] = { "8a4500", "668b4500", "8b4500", "488b4500" };

            mode(LONG_64);
            code((stack ? by_rbp : by_rbx)[v & 3]);
            m.e.regs.gpr[EMU_RBX] = m.e.regs.gpr[EMU_RBP] = at;
            if (la57) {
                struct emu_regs saved = m.e.regs;

                machine_paging(&m, PAGED_5LEVEL, 7);
                saved.cr4 = m.e.regs.cr4;
                m.e.regs = saved;
            }
            vector = run();
            expect(vector == (right ? PF : stack ? SS : GP), "canonical: vector", vector, at);
            if (vector == PF)
                expect(m.e.exception.cr2 == at && m.e.exception.error_code == 0, "canonical: cr2", m.e.exception.cr2, at);
        }
    /* FS and GS bases count, those of DS and ES do not. */
    mode(LONG_64);
    code("648a03");
    m.e.regs.seg[EMU_FS].base = 0x7fffffffff00;
    m.e.regs.gpr[EMU_RBX] = 0x100;
    expect(run() == GP, "FS base", 0, 0);
    mode(LONG_64);
    code("268a03");
    m.e.regs.seg[EMU_ES].base = 0x7fffffffff00;
    m.e.regs.gpr[EMU_RBX] = DATA;
    expect(run() == OK, "ES base", 0, 0);
    conclude("canonical addresses");
}

/* ---- faults at fetch ---- */

static void fetch(void **state)
{
    mode(PROTECTED_32); /* the limit cuts an instruction */
    m.e.regs.seg[EMU_CS].limit = 0x1004;
    code("c705 00000200 11223344");
    expect(run() == GP && m.e.exception.has_error_code, "cut by the limit", 0, 0);
    m.e.regs.seg[EMU_CS].limit = 0x1009;
    expect(run() == OK && m.e.regs.rip == 0x100a, "just inside", m.e.regs.rip, 0);
    m.e.regs.rip = 0x100a;
    expect(run() == GP, "RIP outside", 0, 0);
    mode(REAL);
    code("66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 8b 07");
    expect(run() == GP && !m.e.exception.has_error_code, "too long; no error code in real mode", 0, 0);
    mode(REAL);
    code("66 66 66 66 66 66 66 66 66 66 66 66 66 8b 07");
    expect(run() == OK && m.e.regs.rip == 0x100f, "15 bytes", m.e.regs.rip, 0);
    mode(PROTECTED_32); /* the second page of an instruction is absent */
    m.e.regs.rip = 0x1ffd;
    m.tables[2][2] = 0;
    code("8b05 00000200");
    expect(run() == PF && m.e.exception.cr2 == 0x2000 && m.e.exception.error_code == 16, "second page", m.e.exception.cr2, 0);
    m.e.regs.rip = 0x1ffe; /* an instruction that ends there does not care */
    code("8a03");
    m.e.regs.gpr[EMU_RBX] = DATA;
    expect(run() == OK && m.e.regs.rip == 0x2000, "ends at the page", m.e.regs.rip, 0);
    m.e.regs.cpl = 3;
    expect(run() == PF && m.e.exception.error_code == 20, "user fetch", m.e.exception.error_code, 0);
    mode(LONG_64);
    m.tables[3][1] |= 1ull << 63;
    code("8a03");
    expect(run() == PF && m.e.exception.error_code == 17, "NX", m.e.exception.error_code, 0);
    mode(LONG_64);
    m.e.regs.rip = 0x7fffffffffff;
    expect(run() == PF, "last canonical byte is fetched", 0, 0);
    m.e.regs.rip = 0x800000000000;
    expect(run() == GP, "RIP not canonical", 0, 0);
    mode(PROTECTED_32); /* no code in a device */
    m.e.regs.rip = DATA + PAGE;
    expect(run() == 100 + EMU_UNHANDLED, "code in a device", 0, 0);
    mode(LONG_64);
    code("8b");
    expect(emu_skip(&m.e) == EMU_OK && m.e.regs.rip == 0x1002, "skip", m.e.regs.rip, 0);
    mode(PROTECTED_32);
    m.ops.ram_page = ram_everywhere;
    m.e.regs.cr0 &= 0x7fffffff;
    m.e.regs.rip = 0xffffffff;
    memset(ram_everywhere(NULL, 0, false), 0x90, PAGE);
    m.e.regs.rflags |= 0x10000;
    expect(emu_skip(&m.e) == EMU_OK && m.e.regs.rip == 0 && m.e.regs.rflags == 2, "skip wraps at 32 bits", m.e.regs.rip, 0);
    conclude("fetch");
}

/* ---- splits at page edges ---- */

static char log_text[256];

static enum emu_status logging_read(void *ctx, uint64_t gpa, unsigned size, uint64_t *value)
{
    snprintf(log_text + strlen(log_text), sizeof log_text - strlen(log_text), "r%x:%u ", (unsigned)(gpa - m.origin), size);
    return machine_device_read(ctx, gpa, size, value);
}

static enum emu_status logging_write(void *ctx, uint64_t gpa, unsigned size, uint64_t value)
{
    snprintf(log_text + strlen(log_text), sizeof log_text - strlen(log_text), "w%x:%u ", (unsigned)(gpa - m.origin), size);
    return machine_device_write(ctx, gpa, size, value);
}

/* Code, address in RBX, and the callbacks it makes. 20000 RAM, 21000 device, 22000 RAM, 23000 device, 24000 RAM. */
static const struct {
    const char *code;
    uint32_t address;
    const char *log;
} splits[] = {
    { "488b03", 0x21001, "r21001:8 " }, /* whole, whatever the alignment */
    { "8903", 0x21ffc, "w21ffc:4 " },
    { "8903", 0x21ffd, "w21ffd:1 w21ffe:2 " },
    { "8903", 0x20ffd, "w21000:1 " },
    { "668903", 0x20fff, "w21000:1 " },
    { "488903", 0x20ff9, "w21000:1 " },
    { "488903", 0x20fff, "w21000:4 w21004:2 w21006:1 " },
    { "488903", 0x21ff9, "w21ff9:1 w21ffa:2 w21ffc:4 " },
    { "488b03", 0x21fff, "r21fff:1 " },
    { "480103", 0x21ffd, "r21ffd:1 r21ffe:2 w21ffd:1 w21ffe:2 " },
    { "480103", 0x21010, "r21010:8 w21010:8 " },
    { "0f1103", 0x21010, "w21010:8 w21018:8 " },
    { "0f1003", 0x21010, "r21010:8 r21018:8 " },
    { "0f1103", 0x21ff1, "w21ff1:1 w21ff2:2 w21ff4:4 w21ff8:8 " },
    { "0f1103", 0x20ff7, "w21000:4 w21004:2 w21006:1 " },
    { "0f1103", 0x20ff1, "w21000:1 " },
    { "480fc70b", 0x21040, "r21040:8 r21048:8 w21040:8 w21048:8 " }, /* CMPXCHG16B */
    { "0fc70b", 0x21040, "r21040:8 w21040:8 " },
    { "8703", 0x21000, "r21000:4 w21000:4 " },
    { "ff33", 0x21008, "r21008:8 " }, /* PUSH to a stack in RAM */
};

static void edges(void **state)
{
    for (unsigned i = 0; i < sizeof(splits) / sizeof(splits[0]); i++) {
        mode(LONG_64);
        m.ops.device_read = logging_read;
        m.ops.device_write = logging_write;
        m.e.regs.gpr[EMU_RBX] = splits[i].address;
        m.e.regs.gpr[EMU_RSP] = 0x24800;
        log_text[0] = 0;
        code(splits[i].code);
        expect(run() == OK && !m.errors && !strcmp(log_text, splits[i].log), "split", i, m.errors);
        expect(m.e.accesses <= EMU_ACCESSES, "accesses", i, m.e.accesses);
        if (strcmp(log_text, splits[i].log))
            printf("  %s at %x: %s, not %s\n", splits[i].code, splits[i].address, log_text, splits[i].log);
    }
    conclude("splits");
}

/* Where the second page of any operand faults, nothing is written and no device is touched. */
static void crossing_faults(void **state)
{
    static const char *const rows[] = {
        "488903", "48c70311223344", "480103", "48ff03", "488703", "480fc103", "480fb103", "0f1103", "48ab", "48a5", "8f03", "480fba2b03",
        "48f713", "480fab03", "480fc30b", "66480f7e03", "0f38f103", "486d", "486f", "ff33", "48a7", "48af", "48ad", "488b03", "0f1003",
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (unsigned side = 0; side < 2; side++)
            for (unsigned page = 0; page < 2; page++) {
                uint32_t edge = page ? 0x22000 : 0x21000; /* the faulting page: RAM or device */
                unsigned vector;

                mode(LONG_64);
                for (unsigned g = 0; g < 16; g++)
                    m.e.regs.gpr[g] = 0x24800;
                m.e.regs.gpr[EMU_RBX] = m.e.regs.gpr[EMU_RDI] = m.e.regs.gpr[EMU_RSI] = edge - 1;
                if (side) /* let one of two memory operands be right */
                    m.e.regs.gpr[EMU_RSI] = 0x23010;
                m.e.regs.gpr[EMU_RAX] = 0; /* the bit number of BTS */
                m.tables[3][edge >> 12] = 0;
                code(rows[i]);
                vector = run();
                if (side && (!strcmp(rows[i], "48ad") || !strcmp(rows[i], "486f")))
                    continue; /* their only operand is right */
                if (vector != PF)
                    printf("  %s\n", rows[i]);
                expect(vector == PF && m.e.exception.cr2 == edge, "crossing", i, vector);
                expect(!m.calls, "no device is touched before the fault", i, m.calls);
            }
    conclude("faults in the second page");
}

/* ---- privileges, LOCK, alignment, SSE ---- */

/* Each row from one manual page. `set` is a bit set of deviations from plain 64-bit kernel mode. */
enum { USER = 1, REFUSE = 2, IOPL3 = 4, IN_VM86 = 8, IN_REAL = 16, NO_OSFXSR = 32, EM = 64, TS = 128, ALIGN = 256, IN_32 = 512 };

static const struct {
    const char *name, *code;
    uint32_t address; /* RBX, RSI, RDI */
    unsigned set, vector;
} rules[] = {
    { "IN, kernel", "ec", DATA, 0, OK },
    { "IN, user, IOPL 0, allowed by the bitmap", "ec", DATA, USER, OK },
    { "IN, user, IOPL 0, refused", "ec", DATA, USER | REFUSE, GP },
    { "IN, user, IOPL 3, bitmap not asked", "ec", DATA, USER | REFUSE | IOPL3, OK },
    { "OUT, VM86, IOPL 3, bitmap asked all the same", "ee", 0, IN_VM86 | REFUSE | IOPL3, GP },
    { "OUT, VM86, allowed", "ee", 0, IN_VM86, OK },
    { "OUT, real mode", "ee", 0, IN_REAL | REFUSE, OK },
    { "INS, refused", "6c", DATA, USER | REFUSE, GP },
    { "OUTS, refused", "6f", DATA, USER | REFUSE, GP },
    { "REP OUTS, RCX 0, refused but nothing to do", "f36f", DATA, USER | REFUSE, OK },
    { "LOCK ADD m", "f00103", DATA, 0, OK },
    { "LOCK ADD r, m", "f00303", DATA, 0, UD },
    { "LOCK ADD r, r", "f001c3", DATA, 0, UD },
    { "LOCK CMP m", "f03903", DATA, 0, UD },
    { "LOCK CMP m, imm", "f0833b01", DATA, 0, UD },
    { "LOCK OR m, imm", "f0830b01", DATA, 0, OK },
    { "LOCK MOV", "f08903", DATA, 0, UD },
    { "LOCK TEST", "f08503", DATA, 0, UD },
    { "LOCK TEST imm", "f0f60301", DATA, 0, UD },
    { "LOCK NOT", "f0f613", DATA, 0, OK },
    { "LOCK BT", "f00fa303", DATA, 0, UD },
    { "LOCK BT imm", "f00fba2301", DATA, 0, UD },
    { "LOCK BTS imm", "f00fba2b01", DATA, 0, OK },
    { "LOCK BTC", "f00fbb03", DATA, 0, OK },
    { "LOCK INC", "f0ff03", DATA, 0, OK },
    { "LOCK PUSH", "f0ff33", DATA, 0, UD },
    { "LOCK XADD", "f00fc103", DATA, 0, OK },
    { "LOCK MOVS", "f0a4", DATA, 0, UD },
    { "LOCK SHL", "f0d123", DATA, 0, UD },
    { "LOCK CMPXCHG16B", "f0480fc70b", DATA, 0, OK },
    { "LOCK MOVNTI", "f00fc303", DATA, 0, UD },
    { "LOCK SETcc", "f00f9403", DATA, 0, UD },
    { "MOVNTI r, r", "0fc3c3", DATA, 0, UD },
    { "CMPXCHG8B r", "0fc7cb", DATA, 0, UD },
    { "MOV m, segment 6", "8c33", DATA, 0, UD },
    { "BT /0", "0fba0301", DATA, 0, UD },
    { "CMPXCHG16B misaligned", "480fc70b", DATA + 8, 0, GP },
    { "MOVAPS misaligned", "0f2803", DATA + 8, 0, GP },
    { "MOVAPS store misaligned", "0f2903", DATA + 1, 0, GP },
    { "MOVDQA misaligned", "660f6f03", DATA + 8, 0, GP },
    { "MOVNTDQ misaligned", "660fe703", DATA + 8, 0, GP },
    { "MOVNTDQA misaligned", "660f382a03", DATA + 8, 0, GP },
    { "MOVNTPS misaligned", "0f2b03", DATA + 8, 0, GP },
    { "MOVUPS misaligned", "0f1003", DATA + 8, 0, OK },
    { "MOVDQU misaligned", "f30f6f03", DATA + 3, 0, OK },
    { "MOVUPS, no OSFXSR", "0f1003", DATA, NO_OSFXSR, UD },
    { "MOVUPS, EM", "0f1003", DATA, EM, UD },
    { "MOVUPS, TS", "0f1003", DATA, TS, NM },
    { "MOVUPS, EM and TS", "0f1003", DATA, EM | TS, UD },
    { "MOVNTI is no SSE register instruction", "0fc303", DATA, NO_OSFXSR | TS | EM, OK },
    { "alignment check: MOV", "8b03", DATA + 2, ALIGN | USER, AC },
    { "alignment check: aligned", "8b03", DATA + 4, ALIGN | USER, OK },
    { "alignment check: not in the kernel", "8b03", DATA + 2, ALIGN, OK },
    { "alignment check: word", "668b03", DATA + 1, ALIGN | USER, AC },
    { "alignment check: byte", "8a03", DATA + 1, ALIGN | USER, OK },
    { "MOVBE r, r", "0f38f0c3", DATA, 0, UD },
    { "unknown here: DIV", "f733", DATA, 0, 100 + EMU_UNHANDLED },
    { "unknown: undefined opcode", "0f04", DATA, 0, 100 + EMU_UNHANDLED },
    { "ARPL in 32-bit code is not MOVSXD", "6303", DATA, IN_32, 100 + EMU_UNHANDLED },
    { "alias 82 in 64-bit mode", "820301", DATA, 0, 100 + EMU_UNHANDLED },
    { "alias 82 in 32-bit mode", "820301", DATA, IN_32, OK },
};

static void apply(unsigned set)
{
    struct emu_regs *r = &m.e.regs;

    mode(set & IN_VM86 ? VM86 : set & IN_REAL ? REAL : set & IN_32 ? PROTECTED_32 : LONG_64);
    if (set & USER)
        r->cpl = 3;
    m.refuse_ports = set & REFUSE;
    r->rflags |= set & IOPL3 ? 0x3000 : 0;
    r->cr4 &= set & NO_OSFXSR ? ~0x200ull : ~0ull;
    r->cr0 |= (set & EM ? 4 : 0) | (set & TS ? 8 : 0);
    if (set & ALIGN) {
        r->cr0 |= 0x40000;
        r->rflags |= 0x40000;
    }
}

static void rules_of_the_manual(void **state)
{
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        unsigned vector;

        apply(rules[i].set);
        code(rules[i].code);
        m.e.regs.gpr[EMU_RBX] = m.e.regs.gpr[EMU_RSI] = m.e.regs.gpr[EMU_RDI] = rules[i].address;
        m.e.regs.gpr[EMU_RSP] = DATA + 0x800;
        vector = run();
        if (vector != rules[i].vector)
            printf("  %s\n", rules[i].name);
        expect(vector == rules[i].vector, "rule: vector, expected", vector, rules[i].vector);
    }
    conclude("rules");
}

/* ---- what Unicorn gets wrong ---- */

static void corrected(void **state)
{
    unsigned long count = case_count(20000);

    for (unsigned long i = 0; i < count; i++) {
        static const char *const movbe[3][2] = { { "660f38f003", "660f38f103" }, { "0f38f003", "0f38f103" }, { "480f38f003", "480f38f103" } };
        unsigned which = below(3), size = 2u << which;
        uint64_t old = random64(), value = random64(), swapped = 0, got = 0, address = DATA + below(DATA_BYTES);

        mode(LONG_64);
        m.e.regs.gpr[EMU_RBX] = address;
        m.e.regs.gpr[EMU_RAX] = old;
        memcpy(m.memory + address, &value, 8);
        for (unsigned b = 0; b < size; b++)
            swapped |= (value >> (8 * b) & 0xff) << (8 * (size - 1 - b));
        code(movbe[which][0]);
        expect(run() == OK, "movbe", 0, 0);
        expect(m.e.regs.gpr[EMU_RAX] == (size == 2 ? (old & ~0xffffull) | swapped : swapped), "movbe load", m.e.regs.gpr[EMU_RAX], swapped);
        m.e.regs.rip = 0x1000;
        m.e.regs.gpr[EMU_RAX] = value;
        code(movbe[which][1]);
        expect(run() == OK, "movbe", 0, 0);
        memcpy(&got, m.memory + address, size);
        expect(got == swapped, "movbe store", got, swapped);
    }
    for (unsigned long i = 0; i < count; i++) { /* LOCK NEG has the flags of NEG; CMPXCHG keeps what it must */
        uint64_t value = below(4) ? random64() : below(3), flags = 2 | (random64() & 0x8d5), plain, rax = random64();
        bool equal = below(2);

        mode(LONG_64);
        m.e.regs.gpr[EMU_RBX] = DATA + PAGE * below(2) + 0x80;
        for (unsigned locked = 0; locked < 2; locked++) {
            memcpy(m.memory + m.e.regs.gpr[EMU_RBX], &value, 8);
            m.e.regs.rip = 0x1000;
            m.e.regs.rflags = flags;
            code(locked ? "f0f71b" : "f71b");
            run();
            if (locked)
                expect(m.e.regs.rflags == plain, "lock neg", m.e.regs.rflags, plain);
            plain = m.e.regs.rflags;
        }
        m.e.regs.rip = 0x1000;
        memcpy(m.memory + m.e.regs.gpr[EMU_RBX], &value, 8);
        m.e.regs.gpr[EMU_RAX] = equal ? (rax & ~0xffffffffull) | (uint32_t)value : rax;
        equal = (uint32_t)m.e.regs.gpr[EMU_RAX] == (uint32_t)value;
        rax = m.e.regs.gpr[EMU_RAX];
        code("0fb10b");
        run();
        expect(m.e.regs.gpr[EMU_RAX] == (equal ? rax : (uint32_t)value), "cmpxchg: RAX", m.e.regs.gpr[EMU_RAX], rax);
        expect(!(m.e.regs.rflags & 0x40) == !equal, "cmpxchg: ZF", m.e.regs.rflags, equal);
    }
    conclude("corrections of Unicorn");
}

/* ---- REP ---- */

static void budgets(void **state)
{
    for (unsigned v = 0; v < 2 * 2 * 2 * 2; v++) { /* device or RAM, ops->rep, ops->retire, DF */
        unsigned calls = 0, done = 0;
        bool device = v & 1, backwards = v & 8;

        mode(LONG_64);
        m.ops.rep = v & 2 ? machine_rep : NULL;
        m.ops.retire = v & 4 ? machine_retire : NULL;
        m.e.budget = 7;
        m.e.regs.rflags |= backwards ? 0x400 : 0;
        m.e.regs.gpr[EMU_RCX] = 100;
        m.e.regs.gpr[EMU_RDI] = (device ? DATA + PAGE : DATA) + 2048;
        m.e.regs.gpr[EMU_RAX] = 0x1122334455667788;
        code("f348ab");
        while (m.e.regs.rip == 0x1000 && calls < 1000) {
            uint64_t before = m.e.regs.gpr[EMU_RCX];
            unsigned step;

            expect(emu_run(&m.e) == EMU_OK, "budget: status", v, calls++);
            step = (unsigned)(before - m.e.regs.gpr[EMU_RCX]);
            done += step;
            expect(step <= 7 && step, "budget: step", v, step);
            expect(m.e.regs.gpr[EMU_RDI] == (device ? DATA + PAGE : DATA) + 2048 + (backwards ? -8ull : 8ull) * done, "budget: RDI", v, done);
            if (device && !(v & 4) && !(v & 2))
                expect(step == 1, "without retire one at a time", v, step);
        }
        expect(done == 100 && m.e.regs.rip == 0x1003 && !m.errors, "budget: all", done, m.errors);
    }
    conclude("REP budgets");
}

/* A REP that faults has done exactly what came before: registers say where to go on. */
static void rep_faults(void **state)
{
    for (unsigned v = 0; v < 2 * 2 * 2; v++) {
        bool backwards = v & 1, device = v & 2;
        uint32_t page = device ? 0x21000 : 0x22000, missing = backwards ? page - PAGE : page + PAGE;
        unsigned steps;

        mode(LONG_64);
        m.ops.rep = v & 4 ? machine_rep : NULL;
        m.tables[3][missing >> 12] = 0;
        m.e.regs.rflags |= backwards ? 0x400 : 0;
        m.e.regs.gpr[EMU_RCX] = 1000;
        m.e.regs.gpr[EMU_RDI] = backwards ? page + 40 : page + PAGE - 40 - 4;
        steps = backwards ? 11 : 11;
        code("f3ab");
        expect(run() == PF, "REP fault", v, 0);
        expect(m.e.exception.cr2 == (backwards ? page - 4u : page + PAGE), "REP fault: cr2", m.e.exception.cr2, v);
        expect(m.e.regs.gpr[EMU_RCX] == 1000 - steps, "REP fault: RCX", m.e.regs.gpr[EMU_RCX], v);
        expect(m.e.regs.rip == 0x1000, "REP fault: RIP", m.e.regs.rip, v);
    }
    /* Addresses of 16 bits wrap; the limit is 64 KiB, so nothing faults. */
    mode(REAL);
    m.e.regs.seg[EMU_ES].base = DATA - 0xfff8;
    m.e.regs.gpr[EMU_RDI] = 0xabcdfff8;
    m.e.regs.gpr[EMU_RCX] = 0x5550010;
    code("f3aa");
    m.ops.ram_page = machine_ram_page;
    expect(run() == OK && m.e.regs.gpr[EMU_RDI] == 0xabcd0008 && m.e.regs.gpr[EMU_RCX] == 0x5550000, "16-bit wrap", m.e.regs.gpr[EMU_RDI], m.e.regs.gpr[EMU_RCX]);
    expect(m.e.regs.rip == 0x1002, "16-bit wrap: RIP", m.e.regs.rip, 0);
    mode(REAL); /* a word at FFFF does not wrap, it faults */
    m.e.regs.gpr[EMU_RDI] = 0xffff;
    code("ab");
    expect(run() == GP && !m.e.exception.has_error_code, "word at FFFF", 0, 0);
    mode(LONG_64); /* RCX 0: nothing happens, not even a fault */
    m.e.regs.gpr[EMU_RDI] = 0x5000000000;
    code("f348ab");
    expect(run() == OK && m.e.regs.rip == 0x1003, "RCX 0", m.e.regs.rip, 0);
    conclude("REP faults and wraps");
}

static struct emu_rep first_run;

static enum emu_status noting_rep(void *ctx, struct emu_rep *rep)
{
    if (!first_run.count)
        first_run = *rep;
    rep->done = rep->count;
    return EMU_OK;
}

/* What one request may carry: to the page's edge on both sides, within the segment, with the rights of a write. */
static void runs(void **state)
{
    static const struct {
        const char *name, *code;
        uint64_t rsi, rdi, rcx, count; /* count of the first run; 0: none */
        uint32_t es_limit;
        bool backwards, read_only;
        unsigned vector;
    } rows[] = {
        { "STOSD to the edge", "f3ab", 0, 0x21f00, 1000, 64, ~0u, false, false, PF },
        { "STOSD, RCX is less", "f3ab", 0, 0x21f00, 20, 20, ~0u, false, false, OK },
        { "STOSD backwards", "f3ab", 0, 0x21028, 1000, 11, ~0u, true, false, PF },
        { "STOSD backwards, not aligned", "f3ab", 0, 0x2102a, 1000, 11, ~0u, true, false, PF },
        { "MOVSB, device to RAM, source ends first", "f3a4", 0x21ff0, 0x22008, 500, 16, ~0u, false, false, OK },
        { "MOVSB, RAM to device, destination ends first", "f3a4", 0x22008, 0x21ff0, 16, 16, ~0u, false, false, OK },
        { "MOVSB, RAM to RAM", "f3a4", 0x22008, 0x20ff0, 8, 0, ~0u, false, false, OK },
        { "INSD into RAM", "f36d", 0, 0x22100, 10, 10, ~0u, false, false, OK },
        { "INSD into a device", "f36d", 0, 0x21100, 10, 0, ~0u, false, false, OK },
        { "INSD into read-only RAM", "f36d", 0, 0x22100, 10, 0, ~0u, false, true, PF },
        { "OUTSD from RAM", "f36f", 0x22100, 0, 10, 10, ~0u, false, false, OK },
        { "OUTSD from read-only RAM", "f36f", 0x22100, 0, 10, 10, ~0u, false, true, OK },
        { "STOSD up to the limit, one by one before it", "f3ab", 0, 0x21100, 100, 0, 0x2110f, false, false, GP },
        { "one element crosses the page", "f3ab", 0, 0x21ffe, 1, 0, ~0u, false, false, PF },
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned vector;

        mode(PROTECTED_32);
        m.ops.rep = noting_rep;
        m.tables[2][0x23] = m.tables[2][0x24] = 0;
        if (rows[i].vector == PF && !rows[i].read_only)
            m.tables[2][0x20] = m.tables[2][0x22] = 0;
        if (rows[i].read_only)
            m.tables[2][0x22] &= ~2ull;
        m.e.regs.cr0 |= 0x10000;
        m.e.regs.seg[EMU_ES].limit = rows[i].es_limit;
        m.e.regs.rflags |= rows[i].backwards ? 0x400 : 0;
        m.e.regs.gpr[EMU_RSI] = rows[i].rsi;
        m.e.regs.gpr[EMU_RDI] = rows[i].rdi;
        m.e.regs.gpr[EMU_RCX] = rows[i].rcx;
        memset(&first_run, 0, sizeof first_run);
        code(rows[i].code);
        vector = run();
        expect(vector == rows[i].vector, rows[i].name, vector, rows[i].vector);
        expect(first_run.count == rows[i].count, rows[i].name, first_run.count, rows[i].count);
        if (vector == GP)
            expect(m.e.regs.gpr[EMU_RCX] == 96 && m.e.regs.gpr[EMU_RDI] == 0x21110, rows[i].name, m.e.regs.gpr[EMU_RCX], 96);
    }
    conclude("REP runs");
}

/* RF goes with the instruction; a POP to memory that faults leaves RSP alone (run() looks). */
static void small_things(void **state)
{
    mode(LONG_64);
    m.e.regs.rflags |= 0x10000;
    m.e.regs.gpr[EMU_RBX] = DATA + PAGE;
    code("8a03");
    expect(run() == OK && !(m.e.regs.rflags & 0x10000), "RF", m.e.regs.rflags, 0);
    mode(LONG_64);
    m.e.regs.gpr[EMU_RSP] = DATA;
    m.e.regs.gpr[EMU_RBX] = 0x70000000;
    code("8f03");
    expect(run() == PF, "POP to nowhere", 0, 0);
    mode(LONG_64);
    m.e.regs.gpr[EMU_RBX] = DATA + PAGE;
    m.e.regs.rip = 0x1000;
    code("8b0c25 00100200"); /* [disp32], sign-extended, no base */
    expect(run() == OK && m.e.regs.rip == 0x1007, "SIB without base", m.e.regs.rip, 0);
    mode(LONG_64);
    code("8b0d 00000100"); /* RIP-relative counts from the next instruction */
    m.memory[0x11006] = 0x5a;
    expect(run() == OK && (m.e.regs.gpr[EMU_RCX] & 0xff) == 0x5a, "RIP-relative", m.e.regs.gpr[EMU_RCX], 0);
    conclude("small things");
}

/* ---- robustness ---- */

/* Random bytes, registers and modes: callbacks stay well-formed and bounded, failures change nothing. */
static void random_bytes(void **state)
{
    unsigned long count = case_count(30000), ran = 0, unhandled = 0, exceptions = 0;

    for (unsigned long i = 0; i < count; i++) {
        unsigned vector;
        uint64_t at;

        if (i % 16 == 0) {
            mode((enum code)below(5));
            m.ops.rep = below(2) ? machine_rep : NULL;
            m.e.budget = 1 + (uint32_t)below(20);
        }
        m.e.regs.rip = 0x1000;
        for (unsigned g = 0; g < 16; g++)
            m.e.regs.gpr[g] = below(4) ? DATA + below(DATA_BYTES) : random64();
        at = emu_linear_rip(&m.e.regs);
        for (unsigned b = 0; b < 16; b++)
            m.memory[at + b] = (uint8_t)random64();
        if (below(2))
            m.memory[at] = (uint8_t)"\x0f\x66\xf3\xf2\xa4\xa5\xaa\xab"[below(8)];
        vector = run();
        ran += !vector;
        exceptions += vector && vector < 100;
        unhandled += vector == 100 + EMU_UNHANDLED;
        expect(!m.errors, "malformed callbacks", m.errors, i);
        m.errors = 0;
        expect(m.e.insn.rep || m.e.accesses <= EMU_ACCESSES, "accesses", m.e.accesses, i);
    }
    printf("random bytes: %lu ran, %lu exceptions, %lu unhandled\n", ran, exceptions, unhandled);
    conclude("random bytes");
}

/* What is told of a MOV is what running it does; and the instruction is known again where it is, and only as long as it is. */
static void told_moves(void **state)
{
    static const struct {
        const char *hex; /* the operand is at DATA + 8, in front of an immediate */
        unsigned to, from;
    } table[] = {
        { "89 0c 25", 4, 0 }, { "48 89 0c 25", 8, 0 }, { "66 89 0c 25", 0, 0 }, { "88 0c 25", 0, 0 }, { "c7 04 25", 4, 0 },
        { "48 c7 04 25", 8, 0 }, { "c6 04 25", 0, 0 }, { "8b 0c 25", 0, 4 }, { "4c 8b 0c 25", 0, 8 }, { "44 8b 0c 25", 0, 4 },
        { "66 8b 0c 25", 0, 0 }, { "8a 0c 25", 0, 0 }, { "0f b7 0c 25", 0, 0 }, { "01 0c 25", 0, 0 }, { "87 0c 25", 0, 0 },
        { "89 c8 90 90 90", 0, 0 }, { "8b c8 90 90 90", 0, 0 },
    };

    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint8_t *at, bytes[15];
        uint64_t value = 0, there;
        unsigned n, reg = 0, to, from;

        mode(LONG_64);
        m.e.regs.gpr[EMU_RCX] = 0x1122334455667788;
        m.e.regs.gpr[9] = m.e.regs.gpr[EMU_RAX] = ~0ull;
        code(table[i].hex);
        at = m.memory + m.e.regs.rip + (strlen(table[i].hex) + 1) / 3;
        memcpy(at, &(uint32_t){ DATA + 8 }, 4);
        memcpy(at + 4, &(uint32_t){ 0x89abcdef }, 4);
        memcpy(m.memory + DATA + 8, &(uint64_t){ 0xfedcba9876543210 }, 8);
        assert_int_equal(emu_fetch(&m.e, bytes, &n), EMU_OK);
        assert_true(emu_decode(&m.e.regs, bytes, n, &m.e.insn));
        to = emu_mov_to_memory(&m.e, &value);
        from = emu_mov_from_memory(&m.e, &reg);
        expect(to == table[i].to && from == table[i].from, "sizes told, of case", to * 16 + from, i);
        for (unsigned b = 0; b < m.e.insn.length && m.e.insn.length <= 8; b++) {
            assert_true(emu_is_here(&m.e, &m.e.insn));
            m.memory[m.e.regs.rip + b] ^= 1;
            expect(!emu_is_here(&m.e, &m.e.insn), "known although byte has changed, of case", b, i);
            m.memory[m.e.regs.rip + b] ^= 1;
        }
        assert_int_equal(run(), OK);
        memcpy(&there, m.memory + DATA + 8, 8);
        expect(!to || there == (to == 8 ? value : (0xfedcba9800000000 | value)), "memory, case", there, i);
        expect(!from || m.e.regs.gpr[reg] == (from == 8 ? there : (uint32_t)there), "register, case", m.e.regs.gpr[reg], i);
    }
    mode(LONG_64);
    m.e.regs.rip = 0x1000 + PAGE - 4; /* eight bytes of it are not in its page */
    code("89 c8 90 90");
    assert_int_equal(emu_run(&m.e), EMU_OK);
    m.e.regs.rip = 0x1000 + PAGE - 4;
    assert_false(emu_is_here(&m.e, &m.e.insn));
    conclude("told moves");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments), cmocka_unit_test(canonical_addresses), cmocka_unit_test(fetch), cmocka_unit_test(edges),
        cmocka_unit_test(crossing_faults), cmocka_unit_test(rules_of_the_manual), cmocka_unit_test(corrected), cmocka_unit_test(budgets),
        cmocka_unit_test(rep_faults), cmocka_unit_test(runs), cmocka_unit_test(small_things), cmocka_unit_test(random_bytes),
        cmocka_unit_test(told_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
