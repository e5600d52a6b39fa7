/*
 * The emulate guest: each instruction form runs twice with the same registers and memory, once on a normal page (the CPU
 * executes it) and once on a page that only the hypervisor's instruction emulator can reach. Registers, flags and memory must
 * come out the same. The same virtual address, or segment base, leads to one page or the other.
 *
 *   main.c    what runs, and the comparison        forms.c   the instruction forms
 *   encode.c  one instruction with operands        modes.c   the modes, the window, running it    switch.S  getting there
 */
#ifndef METRONOME_TEST_EMULATE_H
#define METRONOME_TEST_EMULATE_H

#include "guest.h"

enum mode { LONG64, COMPAT32, COMPAT16, PAE32, PROT32, PROT16, REAL, BIGREAL, MODES };
extern const char *const mode_names[MODES];

/* Low memory, where every mode reaches it with flat segments. Known to switch.S too. */
#define STATE_ADDRESS 0x7000ul
#define STACK_ADDRESS 0x6f00ul /* the tested instruction's stack pointer */
#define CODE_ADDRESS 0x9800ul

/* What switch.S loads and stores. */
struct state {
    uint64_t in[16], in_flags;   /* 0x00, 0x80 */
    uint64_t out[16], out_flags; /* 0x88, 0x108 */
    uint64_t host_rsp;           /* 0x110 */
    uint32_t mode, cr3, pae_cr3; /* 0x118, 0x11c, 0x120 */
    uint16_t data, extra;        /* 0x124, 0x126: selectors for DS and ES */
};
#define STATE ((volatile struct state *)STATE_ADDRESS)

/* Effective addresses: the window's page, and 0x2000 above it an ordinary scratch page. */
#define SCRATCH_OFFSET 0x2000u
uint64_t window_base(enum mode m, unsigned address_size);

/* One form of an instruction. */
struct form {
    const char *name;
    uint8_t map;       /* 0: one byte, 1: 0F */
    uint8_t mandatory; /* prefix that is part of the opcode */
    uint8_t opcode;
    int8_t extension;  /* ModRM.reg, or ANY */
    uint8_t sizes;     /* operand sizes: sum of S8 to S128 */
    uint8_t immediate; /* NONE, IB, IZ */
    uint8_t kind;
    uint8_t memory;    /* bytes accessed; 0: the operand size */
    uint16_t undefined; /* flags that are */
};
enum { S8 = 1, S16 = 2, S32 = 4, S64 = 8, S128 = 16 };
enum { NONE, IB, IZ };
#define ANY (-1)
enum {
    PLAIN,
    LOCKABLE, /* may carry LOCK */
    BITS,     /* bit offset in the register operand reaches beyond the operand */
    MOFFS,    /* address in the instruction */
    STRING,   /* implicit SI, DI, A, CX; may carry REP */
    IO,       /* INS, OUTS */
    STACK,    /* PUSH, POP */
    ALIGNED,  /* 16-byte alignment */
    LONGONLY,
};
extern const struct form forms[];
extern const unsigned form_count;

/* One instruction, ready to run. */
struct test {
    enum mode mode;
    const struct form *form;
    unsigned operand_size, address_size;
    uint8_t code[32];
    unsigned length;
    uint64_t gpr[16], flags;
    unsigned offset;    /* of the memory operand in the page */
    bool to_scratch, from_scratch; /* strings: DI and SI are in the scratch page */
};
bool build_test(struct test *t, enum mode m, const struct form *f, unsigned operand_size);

void modes_init(void);
void window_to(uint64_t page); /* physical address of what the window shows */
/* Runs t's code; results are in STATE->out. */
void run_test(const struct test *t);
extern uint8_t scratch_page[4096];

#endif
