/*
 * The instruction emulator: decodes and runs one guest instruction whose memory or port operand is a device, and tells
 * the length of any instruction whose exit must be skipped. A pure function of registers, mode, bytes and callbacks:
 * no locks, no allocation, no clock, no globals; it compiles for the hypervisor (no SSE) and for a Linux process.
 *
 * An update of RAM (any read-modify-write, with or without LOCK) is one compare-and-exchange; where another vCPU was faster
 * the call returns EMU_OK with nothing changed and RIP unmoved, and the guest simply executes the instruction again. An
 * update that straddles two pages of RAM is not atomic.
 */
#ifndef METRONOME_EMULATE_H
#define METRONOME_EMULATE_H

#include <stdbool.h>
#include <stdint.h>

enum { EMU_RAX, EMU_RCX, EMU_RDX, EMU_RBX, EMU_RSP, EMU_RBP, EMU_RSI, EMU_RDI };       /* gpr[] order: as encoded */
enum { EMU_ES, EMU_CS, EMU_SS, EMU_DS, EMU_FS, EMU_GS, EMU_SEGMENTS };                 /* seg[] order: as encoded */

enum emu_status {
    EMU_OK,        /* done; registers and memory are changed */
    EMU_WAIT,      /* a callback asked to wait: nothing is changed but finished REP iterations; call again later */
    EMU_EXCEPTION, /* the guest gets emu.exception; nothing is changed but finished REP iterations */
    EMU_UNHANDLED, /* an instruction that the emulator does not know; nothing is changed */
};

/* A segment register; attributes packed as in the VMCB (APM 2 B.2): type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11. */
struct emu_segment {
    uint16_t selector;
    uint16_t attributes;
    uint32_t limit; /* in bytes, already expanded by G */
    uint64_t base;
};

/* The guest's registers. `gpr`, `rip` and `rflags` are also the result. */
struct emu_regs {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint64_t cr0, cr3, cr4, efer;
    struct emu_segment seg[EMU_SEGMENTS];
    uint32_t pkru;
    uint8_t cpl;
    uint8_t physical_bits; /* MAXPHYADDR as the guest's CPUID tells it; 0 counts as 52. Bits above are reserved in tables. */
    bool pdpte_accessed;   /* quirk of QEMU TCG: the CPU sets A in the top entries of PAE tables, where it is reserved */
};

struct emu_exception {
    uint8_t vector;
    bool has_error_code;
    uint32_t error_code;
    uint64_t cr2; /* for #PF */
};

/*
 * A run of equal accesses that one request can carry: INS, OUTS and MOVS between a device and RAM, STOS to a device. All
 * of it lies in one page on each side. The callback does any number of iterations from the start, at least one.
 */
struct emu_rep {
    bool is_port;      /* device address is a port, not a gpa */
    bool fill;         /* STOS: every access writes `value`; there is no RAM side */
    bool to_device;    /* the device is written */
    bool backwards;    /* DF: addresses go down */
    uint8_t size;      /* of one access: 1, 2, 4, 8 */
    uint64_t device;   /* port, or gpa of the first access; a port does not move */
    uint64_t ram_gpa;  /* gpa of the first element in RAM */
    uint32_t count;    /* iterations possible */
    uint32_t done;     /* out: iterations done */
    uint64_t value;    /* with fill */
};

/*
 * How an access reaches a device. Inside one page: one callback of the operand's size, whatever its alignment (16 bytes:
 * two of 8, the lower first). Across a page edge: each page's part goes alone, in naturally aligned powers of two from
 * the lower address up (7 bytes before the edge are 1, 2 and 4), so a part in RAM never reaches a device. Reads go in
 * order of addresses; of a write that has a part in RAM, the device's part goes first, for it may still have to wait.
 * Both pages are translated, for every operand, before the first callback. No instruction, and no iteration of one,
 * makes more than EMU_ACCESSES callbacks.
 */
enum { EMU_ACCESSES = 8 };

/*
 * What the emulator needs of its caller. A status other than EMU_OK stops the instruction. After EMU_WAIT the caller runs
 * the same instruction again, and answers every device access already made in the same order from its record; the
 * emulator makes accesses in the same order each time, reads before writes, and commits nothing until the last is done.
 */
struct emu_ops {
    /* Host pointer, page-aligned, to the 4 KiB page of guest RAM with this gpa; NULL if it is not RAM (or, to be written, is
     * read-only). Valid until the emulator returns. */
    void *(*ram_page)(void *ctx, uint64_t gpa, bool write);
    enum emu_status (*device_read)(void *ctx, uint64_t gpa, unsigned size, uint64_t *value);
    enum emu_status (*device_write)(void *ctx, uint64_t gpa, unsigned size, uint64_t value);
    enum emu_status (*port_read)(void *ctx, uint16_t port, unsigned size, uint64_t *value);
    enum emu_status (*port_write)(void *ctx, uint16_t port, unsigned size, uint64_t value);
    /*
     * Optional (NULL: accesses go one by one). EMU_UNHANDLED: not this run, go one by one. After EMU_WAIT the same run is
     * made again, with the same count as long as the budget is the same.
     */
    enum emu_status (*rep)(void *ctx, struct emu_rep *rep);
    void (*xmm_read)(void *ctx, unsigned reg, uint64_t value[2]);
    void (*xmm_write)(void *ctx, unsigned reg, const uint64_t value[2]);
    /* False if the I/O permission (IOPL, TSS bitmap) refuses a port access; only called where CPL > IOPL or in VM86. */
    bool (*port_allowed)(void *ctx, uint16_t port, unsigned size);
    /*
     * Optional: one or more iterations of a REP are finished, with registers committed. A caller that records accesses
     * for EMU_WAIT forgets them here, since the next run starts with the next iteration. NULL: a call returns (EMU_OK, RIP
     * unmoved) after each iteration or run that reached a device, so that a record never spans iterations.
     */
    void (*retire)(void *ctx);
    /* Optional: after each finished iteration of a REP; true: the call ends (EMU_OK, RIP unmoved). */
    bool (*enough)(void *ctx);
};

/*
 * A decoded instruction; also kept by the caller's decode cache, whose key must hold what the decoder looked at besides the
 * bytes: CR0.PE, RFLAGS.VM, EFER.LMA, and L and D of CS.
 */
struct emu_insn {
    uint8_t bytes[15];
    uint8_t length;       /* whole, 1-15; 0: not decoded */
    uint8_t opcode_map;   /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
    uint8_t opcode;
    uint8_t modrm;        /* valid if has_modrm */
    bool has_modrm;
    uint8_t rex;          /* 0 if none */
    uint8_t operand_size, address_size; /* effective, in bytes */
    int8_t segment;       /* override as EMU_*, or -1 */
    uint8_t rep;          /* 0, 0xf2 or 0xf3 */
    bool lock, operand_override;
    uint8_t sib;
    int64_t displacement;
    uint64_t immediate;       /* sign-extended where the instruction does so; moffs addresses too */
    /* The rest is the emulator's own. */
    uint8_t handler;          /* index of the function that runs it; 0: none */
    uint8_t base, index;      /* of the memory operand: gpr numbers, or EMU_NO_REGISTER; base also EMU_BASE_RIP */
    uint8_t scale;            /* shift of the index */
    uint8_t memory_segment;   /* EMU_*: the override, where it counts, or the default */
};
enum { EMU_NO_REGISTER = 16, EMU_BASE_RIP = 17 };

/*
 * A walk that found a page: the same entries, still as they were, find it again. They are read every time (INVLPG and MOV CR3
 * tell nobody), so this answers as the walk would.
 */
struct emu_memo {
    uint64_t page, generation;        /* linear; of emu.ram_generation, 0: nothing is remembered */
    uint64_t cr0, cr3, cr4, efer;
    uint32_t access, pkru;            /* access: with RFLAGS.AC */
    uint64_t gpa;
    unsigned steps;
    const uint64_t *at[5];
    uint64_t entry[5];                /* as they were, A and D set */
};
enum { EMU_MEMOS = 4 };               /* of pages with code, and as many of others: by their number */

struct emu {
    struct emu_regs regs;             /* in and out */
    const struct emu_ops *ops;
    void *ctx;
    struct emu_exception exception;   /* out, with EMU_EXCEPTION */
    struct emu_insn insn;             /* out: what ran */
    const uint8_t *code;              /* out: where in RAM its bytes are; NULL where fewer than four are in one piece */
    uint64_t ram_generation;          /* in: another one whenever ram_page() may answer otherwise for any page; 0: walks are not kept */
    struct emu_memo memo[2][EMU_MEMOS];
    uint32_t budget;                  /* most REP iterations per call (at least 1); RIP stays while REP is unfinished */
    uint32_t accesses;                /* out: device and port callbacks made by this call */
};

/* Access kinds for a page walk: bits of the page-fault error code (Intel SDM 3A 4.7). */
enum { EMU_READ = 0, EMU_WRITE = 2, EMU_USER = 4, EMU_FETCH = 16, EMU_IMPLICIT = 0x100 /* supervisor access at CPL 3 */ };

/*
 * Translates a linear address by the guest's page tables in its present mode, setting A and D bits (atomically; none
 * on a fault). Returns EMU_OK with *gpa, or EMU_EXCEPTION with e->exception a #PF. A table outside RAM reads as absent.
 * PAE's four top entries are read from memory each time. Where other vCPUs keep changing the entries under the walk, it
 * ends in a spurious #PF: the guest tries again.
 */
enum emu_status emu_translate(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa);

/* The linear address of CS:RIP in the present mode. */
uint64_t emu_linear_rip(const struct emu_regs *r);

/*
 * Is the decoded instruction a MOV of 4 or 8 bytes to memory (*value is what it stores), or from memory to a general register (*reg,
 * whose upper half such a load clears)? The size, or 0. Who knows its operand's address can do it without emu_run_decoded(), with
 * emu_skip_decoded() behind it.
 */
unsigned emu_mov_to_memory(const struct emu *e, uint64_t *value);
unsigned emu_mov_from_memory(const struct emu *e, unsigned *reg);

/* Do the bytes at CS:RIP say `insn`, decoded in the present mode? False also where it is long, or near the end of its page. */
bool emu_is_here(struct emu *e, const struct emu_insn *insn);

/*
 * Reads up to 15 instruction bytes at CS:RIP, stopping before a page that faults or is not RAM; *n gets the count (0 with
 * EMU_EXCEPTION, or EMU_UNHANDLED if the first page is not RAM). Where emu_decode() then wants more bytes, or 15 are too
 * few, emu_run() knows which exception that is.
 */
enum emu_status emu_fetch(struct emu *e, uint8_t bytes[15], unsigned *n);

/* Decodes `n` bytes in the mode of `r`. True: insn is complete with its length. False: unknown, too long or too few bytes. */
bool emu_decode(const struct emu_regs *r, const uint8_t *bytes, unsigned n, struct emu_insn *insn);

/*
 * Fetches and decodes the instruction at CS:RIP and moves RIP past it, for an exit whose instruction is not to run. RIP
 * wraps at 32 bits outside 64-bit mode (IP does not wrap at 16: the next fetch checks it against the limit). Clears RF.
 */
enum emu_status emu_skip(struct emu *e);

/* Fetches, decodes and runs the instruction at CS:RIP. EMU_OK leaves RIP at the next one (or at a REP that is not finished). */
enum emu_status emu_run(struct emu *e);

/* Runs an instruction that was decoded before (e->insn), or moves RIP past it, skipping fetch and decode. */
enum emu_status emu_run_decoded(struct emu *e);
enum emu_status emu_skip_decoded(struct emu *e);

#endif
