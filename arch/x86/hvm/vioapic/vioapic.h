/*
 * I/O APIC: 82093AA register model with the EOI register of later chips (version 0x20).
 *
 * State: struct vioapic is the saved state. Time is the master count; it is used for the storm hold-off alone.
 *
 * Registers (memory, offsets in the 4 KiB page):
 *   0x00 IOREGSEL  index, 8 bits; access of 1, 2 or 4 bytes
 *   0x10 IOWIN     the register the index names; access of 4 bytes
 *   0x40 EOIR      write-only: ends level interrupts of the vector in bits 7:0; write of 1, 2 or 4 bytes
 *   index 0x00 ID (bits 27:24), 0x01 version, 0x02 arbitration ID (reads as the ID), 0x03 boot configuration (reads 1:
 *     messages travel on the front side bus), 0x10 + 2n / 0x11 + 2n low and high half of pin n's entry.
 *   Everything else is undefined: it reads all ones and ignores writes.
 *
 * Features: 24 to 48 pins; fixed, lowest priority, SMI, NMI, INIT, ExtINT; physical and logical destinations; edge and
 * level; remote IRR and delivery status read-only; EOI by broadcast or by EOIR, through a vector-to-pin map (no scan
 * of pins); polarity against the board's wiring; any number of pending deliveries behind the one message slot; storm
 * hold-off.
 *
 * Lines and polarity: a line arrives as a *logical assertion* (true: the source asks for service), already OR-ed over
 * its sources. Whether assertion is electrically high or low is the board's wiring: `active_low_pins`, by default pins
 * 16 and up (PCI INTx, and the HPET on 20-23) with pins 0-15 (ISA) active high; vioapic_set_wiring() changes it. An
 * entry whose polarity bit agrees with the wiring sees assertions as assertions; one that disagrees sees the line
 * inverted, as on a real board: a level pin of 16 and up programmed active high interrupts while idle.
 * Call vioapic_set_line() for every change of any source, also where the OR stays the same: such a call tells the
 * storm hold-off that devices are being served.
 *
 * Message slot: `out.message` holds one message. Take it (copy it, set kind to BUS_NONE), then call vioapic_advance(),
 * which refills it from the lowest pending pin, at most `pins` times until it stays empty. No call loses a delivery
 * while the slot is full.
 *
 * Storm hold-off: a level pin that is still active at its EOI fires again at once. After VIOAPIC_STORM_RUN such
 * re-fires in a row, each ended within VIOAPIC_STORM_QUICK of its delivery, with no source changing in between (a
 * shared line is not a storm), the next re-fire is put off by VIOAPIC_HOLD_MIN, then twice that, up to
 * VIOAPIC_HOLD_MAX; pin by pin `storms` counts the re-fires put off, and `hold_shift` shows how far it went. Deassertion
 * ends the run and the hold.
 *
 * Missing: APIC serial bus arbitration; extended destination IDs.
 *
 * Difference:
 *   - An entry with a reserved delivery mode (3, 6) sends nothing: test_reserved_delivery_modes.
 *   - SMI, NMI, INIT and ExtINT are edge-triggered whatever the trigger bit says (it stays readable), and never set
 *     remote IRR: test_edge_only_delivery_modes.
 *   - An edge that arrives while its pin is masked is lost, as 82093AA 3.2.4 says (some other emulations keep it):
 *     test_masked_edge_is_lost.
 *   - Writing an entry makes no edge, even where it flips the polarity: test_entry_write_makes_no_edge.
 *   - A delivery that waits for the slot is withdrawn when its pin is masked or its level goes away:
 *     test_pending_withdrawn.
 *   - The storm hold-off delays level re-fires, which hardware does not: test_storm_*.
 *
 * Documentation: Intel 82093AA data sheet 3.1, 3.2 (registers), 3.2.4 (redirection table); Intel I/O Controller Hub 10
 * data sheet 13.5 (IND, DAT, EOIR; version 0x20); ACPI 6.4 5.2.12.5 (polarity and trigger of interrupt overrides).
 */
#ifndef METRONOME_VIOAPIC_H
#define METRONOME_VIOAPIC_H

#include "device.h"

#define VIOAPIC_MIN_PINS 24
#define VIOAPIC_MAX_PINS 48

/* Storm hold-off, in master ticks: 1 ms; 50 us; 12.8 ms (50 us doubled 8 times). */
#define VIOAPIC_STORM_RUN 256u
#define VIOAPIC_STORM_QUICK 14318u
#define VIOAPIC_HOLD_MIN 716u
#define VIOAPIC_HOLD_DOUBLINGS 8u
#define VIOAPIC_HOLD_MAX (VIOAPIC_HOLD_MIN << VIOAPIC_HOLD_DOUBLINGS)

struct vioapic {
    uint64_t entry[VIOAPIC_MAX_PINS]; /* redirection entries, writable bits only */
    uint64_t vector_pins[256];        /* vector to level pins that use it (pins of edge kind are not in it) */
    uint64_t sent_at[VIOAPIC_MAX_PINS];    /* time of the last level delivery */
    uint64_t hold_until[VIOAPIC_MAX_PINS]; /* end of the hold-off; 0 where none */
    uint64_t storms[VIOAPIC_MAX_PINS];     /* re-fires put off, since reset */
    uint16_t refires[VIOAPIC_MAX_PINS];    /* length of the run of quick re-fires, up to VIOAPIC_STORM_RUN */
    uint8_t hold_shift[VIOAPIC_MAX_PINS];  /* how often the next hold-off has been doubled */
    uint64_t lines;           /* pins whose sources assert */
    uint64_t active_low_pins; /* pins whose assertion is electrically low */
    uint64_t remote_irr;      /* level pins delivered and not yet ended */
    uint64_t pending_mask;    /* pins whose delivery waits for the slot (delivery status) */
    uint64_t held_mask;       /* level pins under hold-off */
    uint32_t pins;
    uint8_t id;               /* 4 bits */
    uint8_t index;            /* IOREGSEL */
    uint8_t zero[2];
    struct {
        struct bus_message message;
        uint32_t pin; /* whose message it is, or the last one was */
    } out;
};

/* Resets to all entries masked and the default wiring, no line asserted; `pins` is brought into 24..48. */
void vioapic_reset(struct vioapic *s, uint64_t now, unsigned pins, uint8_t id);
uint64_t vioapic_read(struct vioapic *s, uint64_t now, unsigned offset, unsigned size);
void vioapic_write(struct vioapic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
/* Sets the wiring; a bit per pin, 1 where assertion is electrically low. */
void vioapic_set_wiring(struct vioapic *s, uint64_t now, uint64_t active_low_pins);
/* Sets a line's logical assertion; pins that do not exist are ignored. */
void vioapic_set_line(struct vioapic *s, uint64_t now, unsigned pin, bool level);
/* An EOI broadcast, or a directed EOI. */
void vioapic_eoi(struct vioapic *s, uint64_t now, uint8_t vector);
void vioapic_advance(struct vioapic *s, uint64_t now);
/* End of the earliest hold-off, or NEVER. */
uint64_t vioapic_deadline(const struct vioapic *s);
/* What a pin's interrupt is by its entry; kind BUS_NONE where it sends none. */
struct bus_message vioapic_message(const struct vioapic *s, unsigned pin);
bool vioapic_check(const struct vioapic *s);

#endif
