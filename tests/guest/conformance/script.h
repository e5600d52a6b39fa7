/*
 * Scripts of register traffic: a table per device, interpreted by script.c. Each line of a table that has a name prints
 *
 *     NAME: VALUE VALUE ...
 *
 * on every machine, so that the outputs of two machines can be compared line by line. What is read is in hexadecimal, with
 * as many digits as the access has; counts are decimal; `-` is "no interrupt", #GP a fault. Where a machine lacks what a
 * line is about, its value is `absent`. Time is only in values that are rounded far above what polling costs.
 */
#ifndef METRONOME_CONFORMANCE_SCRIPT_H
#define METRONOME_CONFORMANCE_SCRIPT_H

#include "guest.h"

enum space { IO, MEM, IOAPIC_REG, CMOS, MSR, PM_EVENT, PM_TIMER };

enum opcode {
    OP_LINE,     /* a new line, from the quiet state */
    OP_THEN,     /* a new line that goes on from the one before */
    OP_NEEDS,    /* else this line and those that follow from it are `absent` */
    OP_WRITE,    /* MSR: prints ok or #GP */
    OP_READ,     /* prints the value & mask */
    OP_SILENT,   /* reads and prints nothing */
    OP_WALK,     /* prints what reads back of 0, of the mask, and of its bits one by one: the bit, and others */
    OP_UNTIL,    /* prints whether the masked value comes within `limit_ms` */
    OP_TIME,     /* prints when it came, since OP_MARK, in units of `unit_us` */
    OP_MARK,     /* time 0 */
    OP_US,       /* waits with interrupts off */
    OP_RUN_US,   /* waits with interrupts on */
    OP_INTS,     /* lets interrupts in; prints the vectors that came since the last OP_INTS */
    OP_WAIT_INT, /* prints whether vector `reg` has come `value` times within `limit_ms` */
    OP_HITS,     /* prints how often vector `reg` has come */
    OP_EOI,      /* how interrupts are ended from here on: enum eoi */
    OP_CALL,
};

struct op {
    uint8_t code, space, size;
    uint16_t limit_ms;
    uint32_t reg;
    uint64_t value, mask;
    union {
        const char *name;
        void (*call)(unsigned argument);
        bool (*needs)(void);
        uint64_t unit_us;
    };
};

struct script {
    const char *device;
    bool (*present)(void); /* NULL: always */
    const struct op *ops;
    unsigned count;
};

/* clang-format off */
#define LINE(n)           {.code = OP_LINE, .name = n}
#define THEN(n)           {.code = OP_THEN, .name = n}
#define NEEDS(f)          {.code = OP_NEEDS, .needs = f}
#define WRITE(s, n, r, v) {.code = OP_WRITE, .space = s, .size = n, .reg = r, .value = v}
#define READ(s, n, r, m)  {.code = OP_READ, .space = s, .size = n, .reg = r, .mask = m}
#define SILENT(s, n, r)   {.code = OP_SILENT, .space = s, .size = n, .reg = r}
#define WALK(s, n, r, m)  {.code = OP_WALK, .space = s, .size = n, .reg = r, .mask = m}
#define UNTIL(s, n, r, m, v, ms) {.code = OP_UNTIL, .space = s, .size = n, .reg = r, .mask = m, .value = v, .limit_ms = ms}
#define TIME(s, n, r, m, v, ms, us) \
    {.code = OP_TIME, .space = s, .size = n, .reg = r, .mask = m, .value = v, .limit_ms = ms, .unit_us = us}
#define MARK              {.code = OP_MARK}
#define US(n)             {.code = OP_US, .value = n}
#define RUN_US(n)         {.code = OP_RUN_US, .value = n}
#define INTS              {.code = OP_INTS}
#define WAIT_INT(v, n, ms) {.code = OP_WAIT_INT, .reg = v, .value = n, .limit_ms = ms}
#define HITS(v)           {.code = OP_HITS, .reg = v}
#define EOI(how)          {.code = OP_EOI, .value = how}
#define CALL(f, a)        {.code = OP_CALL, .call = f, .value = a}

/* What scripts use most. */
#define OUTB(p, v)        WRITE(IO, 1, p, v)
#define INB(p)            READ(IO, 1, p, 0xff)
#define LAPIC_W(r, v)     WRITE(MEM, 4, LAPIC + (r), v)
#define LAPIC_R(r)        READ(MEM, 4, LAPIC + (r), 0xffffffff)
#define IOAPIC_W(r, v)    WRITE(IOAPIC_REG, 4, r, v)
#define IOAPIC_R(r)       READ(IOAPIC_REG, 4, r, 0xffffffff)
#define HPET_W(r, v)      WRITE(MEM, 8, HPET + (r), v)
#define HPET_R(r)         READ(MEM, 8, HPET + (r), ~0ull)
#define HPET_W4(r, v)     WRITE(MEM, 4, HPET + (r), v)
#define HPET_R4(r)        READ(MEM, 4, HPET + (r), 0xffffffff)
#define CMOS_W(r, v)      WRITE(CMOS, 1, r, v)
#define CMOS_R(r)         READ(CMOS, 1, r, 0xff)
#define MSR_W(r, v)       WRITE(MSR, 8, r, v)
#define MSR_R(r)          READ(MSR, 8, r, ~0ull)
#define PM_W(r, v)        WRITE(PM_EVENT, 2, r, v)
#define PM_R(r)           READ(PM_EVENT, 2, r, 0xffff)

#define SCRIPT(ops) ops, sizeof(ops) / sizeof((ops)[0])
/* clang-format on */

extern const struct script reset_script, pic_script, ioapic_script, lapic_script, pit_script;
extern const struct script hpet_script, rtc_script, pm_script, x2apic_script, lapic_end_script;

void run_script(const struct script *s);
void console_drain(void);
void quiet(void); /* every source off, every controller in one known state (main.c) */

/* What a line's value is made of, for functions that OP_CALL calls. */
void value_hex(uint64_t v, unsigned size);
void value_number(uint64_t v);
void value_word(const char *word);

/* Accesses to a register space; a fault in an MSR sets `faulted`. */
extern bool faulted;
uint64_t space_read(enum space s, unsigned size, uint32_t reg);
void space_write(enum space s, unsigned size, uint32_t reg, uint64_t v);
/* Waits until (register & mask) == value; false after `ms`. */
bool until(const struct op *o);
uint64_t rounded(uint64_t v, uint64_t unit);

/* Waits with interrupts off, and on. */
void spin_us(uint64_t n);
void open_us(uint64_t n);
/* Waits where nothing but the wait is going on: halts, so that emulators skip the time. */
void nap_us(uint64_t n);
extern uint64_t lapic_timer_per_ms; /* counts of the local APIC's timer, undivided */

/* Lines that scripts move at will: the UART's interrupt, the PIT's OUT, the SCI. As functions for OP_CALL. */
void irq4(unsigned level);
void irq0_pulse(unsigned unused);
void sci(unsigned level);

#endif
