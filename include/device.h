/*
 * The device contract: what every model in arch/x86/hvm/<device>/ shares.
 *
 * A model is a plain struct plus pure functions. It takes time as an argument and returns its effects latched in `out`:
 * levels and counted rising edges per output line, and one message slot. It never locks, allocates, logs, reads a clock
 * or calls back. The same source compiles for the hypervisor, for a Linux process and for Frama-C.
 */
#ifndef METRONOME_DEVICE_H
#define METRONOME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A time that never comes: returned by <model>_deadline() when no enabled output can change by itself. */
#define NEVER UINT64_MAX

#define CT_JOIN2(a, b) a##b
#define CT_JOIN(a, b) CT_JOIN2(a, b)
/* Compile-time assertion in plain C99 (Frama-C 25 does not parse _Static_assert). */
#define ct_assert(cond) typedef char CT_JOIN(ct_assert_at_line_, __LINE__)[(cond) ? 1 : -1] __attribute__((unused))

/* What an access of undefined size or alignment reads. `size` is 1, 2, 4 or 8 bytes; anything else reads 64 ones. */
static inline uint64_t all_ones(unsigned size)
{
    return size == 1 ? 0xff : size == 2 ? 0xffff : size == 4 ? 0xffffffff : UINT64_MAX;
}

/*
 * One output line. The level alone loses edges (a PIT in mode 2, looked at late, shows 1 of 99), so rising edges are
 * counted in closed form with the time of the last one.
 */
struct line {
    uint64_t rises;     /* rising edges since reset */
    uint64_t last_rise; /* time of the last one, in the model's clock */
    uint32_t level;     /* 0 or 1 */
    uint32_t zero;      /* keeps the struct free of padding; always 0 */
};
ct_assert(sizeof(struct line) == 24);

/* Drives a line to a level at a time; a change from 0 to 1 counts as one rising edge. */
static inline void line_set(struct line *l, uint64_t when, bool level)
{
    if (level && !l->level) {
        l->rises++;
        l->last_rise = when;
    }
    l->level = level;
}

/* Accounts for `rises` rising edges, the last one at `last_rise`, that leave the line at `level`. */
static inline void line_pulse(struct line *l, uint64_t rises, uint64_t last_rise, bool level)
{
    if (rises) {
        l->rises += rises;
        l->last_rise = last_rise;
    }
    l->level = level;
}

/* APIC bus message kinds. */
enum { BUS_NONE, BUS_INTERRUPT, BUS_EOI };

/* Delivery modes, with the encoding that the ICR, the I/O APIC's entries and MSI data share (Intel SDM 3A 11.6.1). */
enum {
    DELIVER_FIXED, DELIVER_LOWEST, DELIVER_SMI, DELIVER_RESERVED, DELIVER_NMI, DELIVER_INIT, DELIVER_SIPI, DELIVER_EXTINT
};

/* Destination shorthands of the ICR; BUS_INTERRUPT messages from other chips always carry SHORTHAND_NONE. */
enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

/* Flags of a bus message. */
enum {
    BUS_LOGICAL = 1, /* logical destination mode */
    BUS_LEVEL = 2,   /* level-triggered */
    BUS_ASSERT = 4,  /* level bit of the ICR; edge interrupts always set it */
    BUS_X2APIC = 8,  /* `dest` is a 32-bit x2APIC destination (broadcast 0xffffffff), else 8 bits (broadcast 0xff) */
};

/* One message on the APIC bus: from an I/O APIC pin, an MSI or an ICR (BUS_INTERRUPT), or an EOI broadcast (BUS_EOI). */
struct bus_message {
    uint8_t kind;
    uint8_t vector;
    uint8_t delivery;  /* DELIVER_* */
    uint8_t flags;     /* BUS_* */
    uint8_t shorthand; /* SHORTHAND_* */
    uint8_t zero[3];
    uint32_t dest;
};
ct_assert(sizeof(struct bus_message) == 12);

/* Decodes an MSI write (Intel SDM 3A 11.11; bits 63:40 of the address are not used, bits 11:5 extend nothing). */
static inline struct bus_message bus_message_from_msi(uint64_t address, uint32_t data)
{
    struct bus_message m = {
        .kind = BUS_INTERRUPT,
        .vector = (uint8_t)data,
        .delivery = (uint8_t)((data >> 8) & 7),
        .flags = (uint8_t)(((address & 4) ? BUS_LOGICAL : 0) | ((data & 0x8000) ? BUS_LEVEL : 0) | BUS_ASSERT),
        .dest = (uint32_t)((address >> 12) & 0xff),
    };
    return m;
}

#endif
