/*
 * 8254 programmable interval timer, and port 0x61 of a PC/AT board.
 *
 * State          complete
 * Features       modes 0-5 on all three channels with the real OUT; binary and BCD; LSB, MSB, LSB+MSB; count 0 = 65536 or
 *                10000; counter latch, read-back of count and status, NULL COUNT; GATE level and trigger; counts are taken
 *                at the clock at which the chip takes them; odd counts in mode 3. Port 0x61: GATE 2, speaker enable,
 *                refresh toggle, OUT 2. Clock k comes at master time 12 * k, so the PIT never drifts from HPET and PM timer.
 * Missing        the speaker itself (OUT 2 AND bit 1 of port 0x61); NMI from parity and IOCHK (bits 2, 3 are stored only).
 * Difference     - at power-on, where the chip is undefined, all channels are in mode 3 and wait for a count with OUT high
 *                  [test_power_on].
 *                - a count of 1, forbidden in modes 2 and 3, acts as 65537 (10001 in BCD): the counter starts below its
 *                  terminal count and goes once around [test_count_of_one].
 *                - a digit above 9 in a BCD count weighs what it says, modulo 10000 [test_bcd_digits_above_nine].
 *                - a two-byte count is taken when its second byte is there: half a count never reaches the counter
 *                  [test_half_a_count_is_not_taken].
 *                - after a control word the counter stands still until it is loaded [test_control_word_stops_counting].
 *                - a count latched between the two reads of a live count starts at its own first byte
 *                  [test_latch_between_two_reads].
 *                - port 0x43 is write-only and reads 0xff [test_undefined_accesses].
 *                - the refresh toggle flips every 18 clocks whatever channel 1 does [test_refresh_toggle].
 * Documentation  Intel 8254 datasheet (231164-005); Intel 82371AB PIIX4 datasheet (290562-001), TCW, TMRSTS, TMRCNT, NMISC.
 *
 * Offsets: 0-2 = ports 0x40-0x42, counters; 3 = port 0x43, control word; 4 = port 0x61. Only single bytes are defined.
 */
#ifndef METRONOME_VPIT_H
#define METRONOME_VPIT_H

#include "clock.h"
#include "device.h"

#define VPIT_CHANNELS 3u
#define VPIT_REFRESH_TICKS 18u /* 15.085 us between two flips of the refresh toggle */

struct vpit_channel {
    uint32_t ce;      /* counting element: a number, shown modulo 65536 or 10000; the bits themselves until it is loaded */
    uint16_t cr;      /* count register, as last written in full */
    uint16_t latch;   /* output latch, as the chip would show it */
    uint8_t latched;  /* bytes of it not read yet: 1 = LSB, 2 = MSB */
    uint8_t status;   /* status latch */
    uint8_t status_latched;
    uint8_t control;  /* bits 5-0 of the last control word */
    uint8_t low_byte; /* LSB of a count whose MSB has not been written yet */
    uint8_t half;     /* such an LSB waits */
    uint8_t read_msb; /* the next read of a live two-byte count gets the MSB */
    uint8_t gate;
    uint8_t trigger;  /* GATE has risen since the last clock (modes 1, 2, 3, 5) */
    uint8_t written;  /* cr holds a count since the last control word */
    uint8_t null;     /* NULL COUNT: cr has not been loaded into ce */
    uint8_t counting; /* ce has been loaded since the last control word */
    uint8_t done;     /* modes 0, 1, 4, 5: ce has reached 0 since it was loaded */
    uint8_t odd;      /* mode 3: the count of this half cycle is odd */
    uint8_t zero[2];
};

struct vpit {
    struct {
        struct line line[VPIT_CHANNELS]; /* OUT 0-2 */
    } out;
    uint64_t tick; /* clocks up to this one have been accounted for; clock k comes at master time 12 * k */
    struct vpit_channel channel[VPIT_CHANNELS];
    uint8_t port61; /* bits 1-3 as written; bit 0 is GATE 2 */
    uint8_t zero[7];
};
ct_assert(sizeof(struct vpit_channel) == 24);
ct_assert(sizeof(struct vpit) == 160);

void     vpit_reset   (struct vpit *s, uint64_t now);
uint64_t vpit_read    (struct vpit *s, uint64_t now, unsigned offset, unsigned size);
void     vpit_write   (struct vpit *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void     vpit_set_line(struct vpit *s, uint64_t now, unsigned line, bool level); /* GATE 0-2; above: ignored */
void     vpit_advance (struct vpit *s, uint64_t now);
uint64_t vpit_deadline(const struct vpit *s); /* the earliest master time at which OUT 0 can rise, or NEVER */
uint64_t vpit_period  (const struct vpit *s); /* master ticks from one rise of OUT 0 to the next; 0: it does not repeat */
bool     vpit_check   (const struct vpit *s);

#endif
