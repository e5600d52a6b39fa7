/*
 * Fuzzes the instruction emulator: any bytes as an instruction, in any mode, with registers from a seed. The
 * instruction runs twice, once plainly and once with EMU_WAIT at every access, and both must end the same; the machine
 * of the unit tests checks the accesses themselves. What is refused or faults must have changed nothing, and the length
 * must be the decoder's.
 */
#include "../unit/emulate_machine.h"
#include "expect.h"

#define EXPECT(condition, what) EXPECT_AT(condition, what, "")

enum { CODE = 0x10000, REAL = 0, VM86, PROTECTED_16, PROTECTED_32, COMPATIBILITY, LONG_64, LONG_64_5LEVEL, MODES };

struct header {
    uint8_t mode;
    uint8_t at;     /* where the instruction lies: bytes before the end of its page; 0: at its start */
    uint8_t rights; /* of the page tables' entries; bit 7: port accesses are refused */
    uint8_t cpl;
    uint32_t seed;
};

static struct machine plain, waiting, start;

static void set_mode(struct machine *m, unsigned mode, uint64_t rights)
{
    static const uint16_t cs[MODES] = {0x9b, 0x9b, 0x9b, 0x49b, 0x49b, 0x29b, 0x29b};
    static const enum paging_kind paging[MODES] = {UNPAGED,      PAGED_32,     PAGED_PAE,   PAGED_32,
                                                   PAGED_4LEVEL, PAGED_4LEVEL, PAGED_5LEVEL};
    bool real = mode <= VM86;

    machine_paging(m, paging[mode], rights);
    for (unsigned s = 0; s < EMU_SEGMENTS; s++)
        machine_segment(m, s, (uint16_t)(s * 8), real ? DATA : 0, real ? 0xffff : 0xffffffff, real ? 0x93 : 0xc93);
    m->e.regs.seg[EMU_CS].attributes = cs[mode];
    m->e.regs.seg[EMU_CS].base = real ? CODE : 0;
    if (mode == REAL)
        m->e.regs.cr0 &= ~1ull;
}

/* Registers that point into the data more often than not. */
static void set_registers(struct machine *m, const struct header *h)
{
    for (unsigned i = 0; i < 16; i++) {
        uint64_t kind = below(8);
        m->e.regs.gpr[i] = kind < 5   ? (h->mode % MODES > VM86 ? DATA : 0) + below(DATA_BYTES)
                           : kind < 7 ? below(256)
                                      : random64();
    }
    m->e.regs.gpr[EMU_RCX] &= 0x1ff; /* a REP ends while the machine still runs it */
    m->e.regs.rflags = 2 | (random64() & 0x257cd5);
    m->e.regs.rflags &= ~0x20000ull;
    if (h->mode % MODES == VM86)
        m->e.regs.rflags |= 0x20000;
    m->e.regs.cpl = h->mode % MODES == REAL ? 0 : h->mode % MODES == VM86 ? 3 : h->cpl & 3;
    m->e.budget = 1 + (uint32_t)below(64);
}

static void prepare(struct machine *m, const struct header *h, const uint8_t *code, size_t n)
{
    uint64_t at = h->at ? PAGE - h->at : 0;

    machine_init(m);
    set_mode(m, h->mode % MODES, (h->rights & 0x67) | 1);
    seed = 0x9e3779b97f4a7c15 ^ h->seed;
    for (unsigned i = 0; i < DATA_BYTES; i += 8) {
        uint64_t word = random64();
        memcpy(m->memory + DATA + i, &word, 8);
    }
    for (unsigned i = 0; i < 16; i++)
        m->xmm[i][0] = random64(), m->xmm[i][1] = random64();
    set_registers(m, h);
    m->refuse_ports = h->rights & 0x80;
    m->e.regs.rip = at + (m->e.regs.seg[EMU_CS].base ? 0 : CODE);
    memcpy(m->memory + CODE + at, code, n);
}

/* The result of a run must not depend on the runs' lengths, which are the device's choice. */
static struct machine *copy(struct machine *to, const struct machine *from)
{
    memcpy(to, from, sizeof(*to));
    to->e.ops = &to->ops;
    to->e.ctx = to;
    return to;
}

static bool code_changed(const struct machine *m)
{
    return memcmp(m->memory + CODE, start.memory + CODE, 2 * PAGE) != 0;
}

static void expect_nothing_changed(const struct machine *m)
{
    EXPECT(memcmp(&m->e.regs, &start.e.regs, sizeof(m->e.regs)) == 0, "a refused instruction leaves the registers");
    EXPECT(memcmp(m->memory, start.memory, SPAN) == 0, "a refused instruction leaves memory");
}

static void expect_same(void)
{
    EXPECT(memcmp(&plain.e.regs, &waiting.e.regs, sizeof(plain.e.regs)) == 0, "waiting changes no register");
    EXPECT(memcmp(plain.memory, waiting.memory, SPAN) == 0, "waiting changes no memory");
    EXPECT(memcmp(plain.tables, waiting.tables, sizeof(plain.tables)) == 0, "waiting changes no page table");
    EXPECT(memcmp(plain.xmm, waiting.xmm, sizeof(plain.xmm)) == 0, "waiting changes no XMM register");
    EXPECT(plain.port_sum == waiting.port_sum && plain.port_reads == waiting.port_reads,
           "waiting changes no port access");
}

static void run_twice(void)
{
    enum emu_status status = machine_run(copy(&plain, &start)), again;

    EXPECT(plain.errors == 0, "accesses are sound");
    EXPECT(status != EMU_WAIT, "nobody asked to wait");
    if (code_changed(&plain))
        return; /* an instruction that overwrites itself is another one when it goes on */
    if (status == EMU_UNHANDLED || (status == EMU_EXCEPTION && !plain.e.insn.rep))
        expect_nothing_changed(&plain);
    again = machine_run_waiting(copy(&waiting, &start));
    EXPECT(waiting.errors == 0, "repeated accesses are the same");
    EXPECT(status == again, "waiting does not change the end");
    expect_same();
    if (status == EMU_EXCEPTION)
        EXPECT(memcmp(&plain.e.exception, &waiting.e.exception, sizeof(plain.e.exception)) == 0, "nor the exception");
}

static void skip_it(void)
{
    struct machine *m = copy(&waiting, &start);
    uint64_t rip = m->e.regs.rip, mask = m->e.regs.seg[EMU_CS].attributes & 0x200 ? UINT64_MAX : 0xffffffff;
    enum emu_status status = emu_skip(&m->e);

    EXPECT(status != EMU_WAIT && m->e.accesses == 0, "skipping accesses nothing");
    EXPECT(memcmp(m->memory, start.memory, SPAN) == 0, "skipping changes no memory");
    if (status != EMU_OK)
        return;
    EXPECT(m->e.insn.length >= 1 && m->e.insn.length <= 15, "a length is 1 to 15");
    EXPECT(m->e.regs.rip == ((rip + m->e.insn.length) & mask), "skipping moves RIP by the length");
    if (plain.e.insn.length && !code_changed(&plain))
        EXPECT(plain.e.insn.length == m->e.insn.length, "running and skipping agree on the length");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header h;

    if (size <= sizeof(h) || size > sizeof(h) + 16)
        return 0;
    memcpy(&h, data, sizeof(h));
    prepare(&start, &h, data + sizeof(h), size - sizeof(h));
    run_twice();
    skip_it();
    return 0;
}
