/*
 * Two 8259A interrupt controllers, cascaded as on a PC/AT board, with the PIIX's ELCR.
 *
 * State          complete
 * Features       ICW1-ICW4, single and cascade mode; fixed priority, specific and non-specific EOI, all rotations, rotation
 *                in AEOI; AEOI; special mask; special fully nested; poll; spurious IRQ7 and IRQ15; LTIM; ELCR.
 * Missing        MCS-80/85 mode (an x86 never runs the three-INTA sequence): vectors are formed as in 8086 mode whatever
 *                ICW4 says. Buffered mode is stored, it has no effect that software can see.
 * Difference     - an edge on IRQ0 or IRQ8 (the clocks) stays requested until acknowledged, even if the pin falls. A CPU
 *                  is never half a period late, a descheduled vCPU is; on every other line the request falls with the
 *                  pin, as on the chip [test_clock_edges_are_held].
 *                - from power-on until ICW1..ICW4 are written, a chip keeps INT low [test_silent_until_initialised].
 *                - LTIM works as on the 8259A; the PIIX ignores it in favour of ELCR [test_ltim].
 *                - INT falls with the last request; a withdrawn request is spurious only for an INTA that is already on
 *                  its way, and the chip that asked answers it [test_spurious_irq7, test_spurious_irq15].
 *                - a poll without a request reads 0 in the level field as well [test_poll_without_request].
 *                - if no slave answers to the cascade address, the bus floats: vector 0xff [test_slave_with_wrong_id].
 * Documentation  Intel 8259A datasheet (231468-003); Intel 82371AB PIIX4 datasheet (290562-001), ICW1-OCW3, ELCR1, ELCR2.
 *
 * Offsets: 0,1 = ports 0x20,0x21 (master); 2,3 = 0xa0,0xa1 (slave); 4,5 = 0x4d0,0x4d1 (ELCR).
 *
 *   offset   size 1   size 2                         other sizes
 *   0, 2     A0 = 0   A0 = 0, then A0 = 1            undefined
 *   1, 3     A0 = 1   undefined                      undefined
 *   4        ELCR1    ELCR1 and ELCR2                undefined
 *   5        ELCR2    undefined                      undefined
 */
#ifndef METRONOME_VPIC_H
#define METRONOME_VPIC_H

#include "device.h"

#define VPIC_NONE 8u /* the resolver's answer when no request gets through */

/* Modes of the priority resolver. */
enum { VPIC_SPECIAL_MASK = 1, VPIC_SPECIAL_NESTED = 2 };

/* Where a chip is in its initialisation: the register that the next write with A0 = 1 goes to. */
enum { VPIC_READY, VPIC_ICW2, VPIC_ICW3, VPIC_ICW4, VPIC_POWER_ON };

struct vpic_chip {
    uint8_t pins; /* levels of IR0-IR7; the master's IR2 is the slave's INT */
    uint8_t edge; /* risen since the last acknowledge, ICW1 or fall */
    uint8_t isr;
    uint8_t imr;
    uint8_t elcr;    /* 1 = level-triggered */
    uint8_t icw1;    /* IC4, SNGL, LTIM */
    uint8_t icw2;    /* vector base */
    uint8_t icw3;    /* master: lines with slaves; slave: its address */
    uint8_t icw4;    /* AEOI, M/S, BUF, SFNM */
    uint8_t step;    /* VPIC_READY .. VPIC_POWER_ON */
    uint8_t highest; /* line of the highest priority */
    uint8_t read_isr;
    uint8_t poll;
    uint8_t special_mask;
    uint8_t rotate_aeoi;
    uint8_t zero;
};

struct vpic {
    struct {
        struct line line[1]; /* the master's INT */
    } out;
    struct vpic_chip chip[2];
    uint8_t from_slave; /* the request that INT last stood for came from the slave */
    uint8_t zero[7];
};
ct_assert(sizeof(struct vpic_chip) == 16);
ct_assert(sizeof(struct vpic) == 64);

/* Eight lines rotated so that line `first` becomes bit 0. */
static inline uint8_t vpic_rotate(uint8_t lines, unsigned first)
{
    return (uint8_t)(lines >> (first & 7) | lines << (8 - (first & 7)));
}

/* The number of the only bit set in `bit`. */
static inline unsigned vpic_bit_number(uint8_t bit)
{
    return (bit & 0xf0 ? 4u : 0) | (bit & 0xcc ? 2u : 0) | (bit & 0xaa ? 1u : 0);
}

/* The line of the highest priority among `lines`, or VPIC_NONE. */
static inline unsigned vpic_first(uint8_t lines, unsigned highest)
{
    uint8_t r = vpic_rotate(lines, highest);
    return r ? (vpic_bit_number((uint8_t)(r & -r)) + highest) & 7 : VPIC_NONE;
}

/*
 * The request to serve next, or VPIC_NONE: the first unmasked one, if it stands before everything in service. In special mask
 * mode, what is in service but masked holds nothing back. In special fully nested mode, a slave's line (IR2) may
 * interrupt itself, and only itself.
 */
static inline unsigned vpic_resolve(uint8_t irr, uint8_t isr, uint8_t imr, unsigned highest, unsigned mode)
{
    uint8_t wanted = vpic_rotate((uint8_t)(irr & ~imr), highest);
    uint8_t serving = vpic_rotate((uint8_t)(mode & VPIC_SPECIAL_MASK ? isr & ~imr : isr), highest);
    uint8_t top = (uint8_t)(serving & -serving);
    uint8_t open = (uint8_t)(top - 1);

    if (mode & VPIC_SPECIAL_NESTED)
        open |= top & vpic_rotate(1u << 2, highest);
    wanted &= open;
    return wanted ? (vpic_bit_number((uint8_t)(wanted & -wanted)) + highest) & 7 : VPIC_NONE;
}

void     vpic_reset   (struct vpic *s, uint64_t now);
uint64_t vpic_read    (struct vpic *s, uint64_t now, unsigned offset, unsigned size);
void     vpic_write   (struct vpic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void     vpic_set_line(struct vpic *s, uint64_t now, unsigned line, bool level); /* IRQ0-IRQ15; 2 and above 15: ignored */
uint8_t  vpic_intack  (struct vpic *s, uint64_t now);                            /* both INTA cycles; the vector */
void     vpic_advance (struct vpic *s, uint64_t now);                            /* nothing changes by itself */
uint64_t vpic_deadline(const struct vpic *s);                                    /* NEVER */
bool     vpic_check   (const struct vpic *s);

#endif
