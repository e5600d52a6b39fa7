/*
 * ACPI power management timer and PM1a event block, as in the PIIX4.
 *
 * State          complete
 * Features       24- and 32-bit timer; reads of 1, 2 and 4 bytes at any offset; TMR_STS on every change of the MSB; PM1a
 *                status (write one to clear, byte by byte) and enable with TMR, PWRBTN, RTC, WAK; SCI gated by SCI_EN.
 *                Count = master / 4, so the timer never drifts from PIT and HPET.
 * Missing        PM1a control: it is the device model's; whoever routes its writes calls pmtimer_set_sci_enable. BM_STS,
 *                GBL_STS and PWRBTNOR_STS never set (no bus master ever wakes anything, no SMM, no four-second override);
 *                GBL_EN is stored. With SCI_EN clear, events raise an SMI on a board and nothing here.
 * Difference     - the timer counts from the domain's epoch and is not cleared by a reset [test_reset_keeps_counting].
 *                - the power button and the RTC alarm are edges: a level that stays does not set its bit again
 *                  [test_inputs_are_edges].
 *                - offsets 4-7 (PM1a control and its neighbour) are not here: undefined [test_undefined_accesses].
 * Documentation  ACPI 6.4, 4.8.2.1 (power management timer), 4.8.3.1 (PM1 event grouping), 4.8.3.3 (PM timer register); Intel
 *                82371AB PIIX4 datasheet (290562-001), registers PMSTS, PMEN, PMTMR.
 *
 * Offsets from the PM base: 0 PM1a_STS (2 bytes, W1C), 2 PM1a_EN (2 bytes), 8 PM_TMR (4 bytes, read-only). An access of 1, 2 or 4
 * bytes inside 0-3 or inside 8-11 is the sum of its bytes; any other is undefined.
 */
#ifndef METRONOME_PMTIMER_H
#define METRONOME_PMTIMER_H

#include "clock.h"
#include "device.h"

/* Bits of PM1a_STS and PM1a_EN (ACPI 4.8.3.1). */
enum { PM1_TMR = 1 << 0, PM1_GBL = 1 << 5, PM1_PWRBTN = 1 << 8, PM1_RTC = 1 << 10, PM1_WAK = 1 << 15 };

/* Inputs of pmtimer_set_line. */
enum { PMTIMER_POWER_BUTTON, PMTIMER_RTC_ALARM, PMTIMER_WAKE, PMTIMER_LINES };

struct pmtimer {
    struct {
        struct line line[1]; /* SCI */
    } out;
    uint64_t seen; /* changes of the MSB up to this master time have been accounted for */
    uint16_t sts;
    uint16_t en;
    uint8_t inputs; /* levels, one bit per line */
    uint8_t sci_en;
    uint8_t timer_32bit;
    uint8_t zero;
};
ct_assert(sizeof(struct pmtimer) == 40);

void     pmtimer_reset   (struct pmtimer *s, uint64_t now, bool timer_32bit);
uint64_t pmtimer_read    (struct pmtimer *s, uint64_t now, unsigned offset, unsigned size);
void     pmtimer_write   (struct pmtimer *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void     pmtimer_set_line(struct pmtimer *s, uint64_t now, unsigned line, bool level);
void     pmtimer_set_sci_enable(struct pmtimer *s, uint64_t now, bool on); /* SCI_EN of PM1a_CNT */
void     pmtimer_advance (struct pmtimer *s, uint64_t now);
uint64_t pmtimer_deadline(const struct pmtimer *s); /* the next change of the MSB that raises SCI, or NEVER */
bool     pmtimer_check   (const struct pmtimer *s);

#endif
