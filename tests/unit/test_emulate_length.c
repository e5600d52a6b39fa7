/*
 * Lengths: emu_decode() against Zydis over enumerated and random byte strings in every code size. What Zydis calls an
 * instruction must decode here with the same length; what only this decoder accepts is counted, not judged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "cases.h"
#include "emulate/internal.h"
#include "random.h"

static const struct mode {
    const char *name;
    ZydisMachineMode machine;
    ZydisStackWidth stack;
    uint64_t cr0, efer;
    uint16_t cs;
} modes[] = {
    { "64-bit", ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, 0x80000001, 0x500, 0x29b },
    { "compatibility 32-bit", ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32, 0x80000001, 0x500, 0x49b },
    { "32-bit", ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32, 1, 0, 0x49b },
    { "16-bit", ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, 1, 0, 0x9b },
    { "real", ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16, 0, 0, 0x9b },
};
enum { MODES = sizeof(modes) / sizeof(modes[0]) };

struct tally {
    ZydisDecoder decoder;
    struct emu_regs regs;
    const char *name;
    unsigned long cases, legal, mismatches, lenient, locks;
};

static void tally_init(struct tally *t, const struct mode *m)
{
    memset(t, 0, sizeof *t);
    t->name = m->name;
    t->regs.cr0 = m->cr0;
    t->regs.efer = m->efer;
    t->regs.seg[EMU_CS].attributes = m->cs;
    ZydisDecoderInit(&t->decoder, m->machine, m->stack);
}

static void show(const struct tally *t, const uint8_t *bytes, unsigned wanted, unsigned got, const char *name)
{
    if (t->mismatches > 40)
        return;
    printf("  %s:", t->name);
    for (unsigned i = 0; i < 15; i++)
        printf(" %02x", bytes[i]);
    printf(": %u, Zydis %u (%s)\n", got, wanted, name);
}

/* Zydis also knows the first Xeon Phi, whose encodings collide with AVX-512 and which runs no guests. */
static bool is_xeon_phi(const ZydisDecodedInstruction *z)
{
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || z->meta.isa_set == ZYDIS_ISA_SET_KNCE ||
           z->meta.isa_set == ZYDIS_ISA_SET_KNCJKBR || z->meta.isa_set == ZYDIS_ISA_SET_KNCV;
}

/* LOCK where it is not allowed must raise #UD when run, and only there. */
static void check_lock(struct tally *t, const uint8_t *bytes, bool ours, const struct emu_insn *insn, bool allowed)
{
    t->locks++;
    if (!ours || (insn->handler != HANDLER_UD) == allowed)
        return;
    t->mismatches++;
    show(t, bytes, allowed, insn->handler, "LOCK");
}

static void check(struct tally *t, const uint8_t bytes[15])
{
    ZydisDecoderContext context;
    ZydisDecodedInstruction z;
    struct emu_insn insn;
    bool ours = emu_decode(&t->regs, bytes, 15, &insn);

    ZyanStatus status = ZydisDecoderDecodeInstruction(&t->decoder, &context, bytes, 15, &z);

    t->cases++;
    if (status == ZYDIS_STATUS_ILLEGAL_LOCK)
        check_lock(t, bytes, ours, &insn, false);
    if (!ZYAN_SUCCESS(status) || is_xeon_phi(&z)) {
        t->lenient += ours;
        return;
    }
    t->legal++;
    /* AMD's LOCK MOV CR0 names CR8. */
    if (insn.lock && z.mnemonic != ZYDIS_MNEMONIC_MOV)
        check_lock(t, bytes, ours, &insn, true);
    if (ours && insn.length == z.length) {
        /* One byte less must not do. */
        if (emu_decode(&t->regs, bytes, z.length - 1u, &insn) || !emu_decode(&t->regs, bytes, z.length, &insn)) {
            t->mismatches++;
            show(t, bytes, z.length, 0, "truncated");
        }
        return;
    }
    t->mismatches++;
    show(t, bytes, z.length, ours ? insn.length : 0, ZydisMnemonicGetString(z.mnemonic));
}

static void fill(uint8_t *bytes, unsigned from)
{
    for (unsigned i = from; i < 15; i++)
        bytes[i] = (uint8_t)random64();
}

/* Every opcode of the four maps with every ModRM byte, after each prefix that can change its meaning. */
static void enumerate(struct tally *t)
{
    static const uint8_t prefixes[][2] = { { 0 }, { 0x66 }, { 0xf2 }, { 0xf3 }, { 0x67 }, { 0x66, 0x67 }, { 0x48 }, { 0x66, 0x48 }, { 0xf0 } };
    static const uint8_t maps[4][2] = { { 0 }, { 0x0f }, { 0x0f, 0x38 }, { 0x0f, 0x3a } };

    for (unsigned p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++)
        for (unsigned map = 0; map < 4; map++)
            for (unsigned code = 0; code < 0x10000; code++) {
                uint8_t bytes[15];
                unsigned n = 0;

                for (unsigned i = 0; i < 2 && prefixes[p][i]; i++)
                    bytes[n++] = prefixes[p][i];
                for (unsigned i = 0; i < 2 && maps[map][i]; i++)
                    bytes[n++] = maps[map][i];
                bytes[n++] = (uint8_t)(code >> 8);
                bytes[n++] = (uint8_t)code;
                fill(bytes, n);
                check(t, bytes);
            }
}

/* Random bytes behind random prefixes; a part of them forced into VEX, EVEX and XOP. */
static void randomize(struct tally *t, unsigned long count)
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x48, 0x41, 0x44, 0x4f };
    static const uint8_t escapes[] = { 0x0f, 0xc4, 0xc5, 0x62, 0x8f, 0x0f };

    for (unsigned long i = 0; i < count; i++) {
        uint8_t bytes[15];
        unsigned n = 0, kind = random64() % 12;

        for (unsigned left = random64() % 4; left; left--)
            bytes[n++] = prefixes[random64() % sizeof prefixes];
        if (random64() % 64 == 0) /* too long, or nearly */
            while (n < 12)
                bytes[n++] = prefixes[random64() % sizeof prefixes];
        fill(bytes, n);
        if (kind < sizeof escapes)
            bytes[n] = escapes[kind];
        check(t, bytes);
    }
}

/* VEX, EVEX and XOP with fields that are mostly legal, over all opcodes and ModRM bytes. */
static void extended(struct tally *t, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        uint8_t bytes[15];

        fill(bytes, 0);
        switch (random64() % 4) {
        case 0: bytes[0] = 0xc5; bytes[1] |= 0xf8; break;
        case 1:
            bytes[0] = 0xc4;
            bytes[1] = (uint8_t)((bytes[1] | 0xe0) & 0xe0) | (uint8_t)(1 + random64() % 3);
            bytes[2] |= random64() & 1 ? 0x78 : 0;
            break;
        case 2:
            bytes[0] = 0x8f;
            bytes[1] = (uint8_t)(bytes[1] & 0xe0) | (uint8_t)(8 + random64() % 3);
            bytes[2] |= random64() & 1 ? 0x78 : 0;
            break;
        default:
            bytes[0] = 0x62;
            bytes[1] = (uint8_t)((bytes[1] & 0xf0) | 0xc0) | (uint8_t)(1 + random64() % 6);
            bytes[2] |= 4 | (random64() & 1 ? 0x78 : 0);
            bytes[3] |= 8;
            break;
        }
        check(t, bytes);
    }
}

static void lengths(void **state)
{
    unsigned long mismatches = 0, total = 0;

    for (unsigned m = 0; m < MODES; m++) {
        struct tally t;

        tally_init(&t, &modes[m]);
        enumerate(&t);
        randomize(&t, case_count(1500000));
        extended(&t, case_count(1500000));
        printf("lengths, %s: %lu byte strings, %lu cases, %lu of LOCK, %lu mismatches (%lu accepted here only)\n", t.name, t.cases,
               t.legal, t.locks, t.mismatches, t.lenient);
        mismatches += t.mismatches;
        total += t.legal;
    }
    printf("%lu cases, %lu mismatches\n", total, mismatches);
    assert_int_equal(mismatches, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(lengths) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
