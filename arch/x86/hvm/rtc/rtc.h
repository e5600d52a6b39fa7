/*
 * RTC: MC146818A with 128 + 128 bytes of CMOS RAM.
 *
 * State: struct rtc is the saved state. Time is the master count; the chip's crystal makes master * 11264 / 4921875
 * ticks of 1/32768 s, exactly. `last` is the tick up to which the state is accounted for; the divider chain stands at
 * tick + `phase`.
 *
 * Registers (ports 0x70-0x73 are offsets 0-3; wider access inside them is split into bytes, low first, as the ISA bus
 * does):
 *   0x70 index (bits 6:0) and NMI mask (bit 7), write-only: reads 0xff   0x71 data
 *   0x72 index of the second bank (bits 6:0), readable                   0x73 its data
 *   index 0-9 time, alarm and date; 0x0a-0x0d registers A-D; 0x32 century; 0x7e month of the alarm; the rest is RAM,
 *     whose contents are firmware/'s.
 *
 * Features: BCD and binary, 12 and 24 hours, Gregorian calendar with century; periodic interrupt of 2 Hz to 8192 Hz;
 * alarm with wildcards (0xc0-0xff), day of the month (register D, bits 5:0, 0 for any) and month; update-ended
 * interrupt; UIP; SET; divider reset. Flags are set whether or not their interrupts are enabled; reading register C clears them.
 * All of it is computed when looked at, in bounded time however long the gap.
 *
 * Timing: per second the chain runs from 0 to 32767. UIP goes up at 0, the update begins 8 ticks (244 us) later and
 * ends after another 65 (1,984 us): there the time changes, UF and AF are set and UIP goes down. PF is set in the
 * middle of each of its periods, so that UIP follows it by half a period. Releasing the divider reset begins the first
 * update 500 ms later.
 *
 * Outputs: out.line[0] is IRQ 8, high while IRQF. `periodic_due` counts the periods that ended while PIE was set (for
 * the tick ledger: IRQF stays up until register C is read, so the line shows one of them).
 *
 * Missing: square wave output (SQWE is stored); daylight saving (DSE is stored and does nothing).
 *
 * Difference:
 *   - DSE has no effect: test_dse_has_no_effect.
 *   - Time registers hold the old second until the update ends, where the chip's are undefined: test_update_cycle.
 *   - The century counts, and the calendar is Gregorian by it; where 0x32 holds no century, every 4th year is leap:
 *     test_century.
 *   - A field beyond its last value (also one with a digit above 9) goes to its first with a carry at its next count;
 *     a month that does not exist has 31 days: test_invalid_time.
 *   - Divider settings other than 010 and 11x run as 010 does: test_divider_settings.
 *   - Port 0x70 reads 0xff, 0x72 reads its index: test_index_ports.
 *   - VRT is 1 after power-on and stays; firmware may clear it (rtc_cmos_set), reading register D then sets it:
 *     test_vrt.
 *   - Day alarm in register D as on Intel's chips (ACPI DAY_ALRM = 0x0d), month alarm at 0x7e (MON_ALRM; 0 and
 *     0xc0-0xff for any), where a guest that knows of neither keeps RAM: test_day_alarm, test_month_alarm.
 *
 * Documentation: Motorola MC146818A data sheet (registers A-D, update cycle, divider control, figures of periodic and
 * update timing); Intel I/O Controller Hub 10 data sheet 13.6 (ports 0x70-0x73, RTC_REGD); ACPI 6.4 4.8.2.4 (DAY_ALRM,
 * MON_ALRM, CENTURY).
 */
#ifndef METRONOME_RTC_H
#define METRONOME_RTC_H

#include "device.h"

#define RTC_MONTH_ALARM 0x7e /* index of the alarm's month: FADT.MON_ALRM */

struct rtc {
    uint64_t last;         /* tick of 1/32768 s up to which everything is accounted for */
    uint64_t phase;        /* the divider chain is (tick + phase) mod 32768 */
    uint64_t periodic_due; /* periods that ended while PIE was set */
    uint8_t cmos[256];     /* both banks; registers A (without UIP), B, C (PF, AF, UF) and D in place */
    uint8_t index;         /* of port 0x70 */
    uint8_t index2;        /* of port 0x72 */
    uint8_t nmi_masked;    /* 0 or 1 */
    uint8_t zero[5];
    struct {
        struct line line[1]; /* IRQ 8 */
    } out;
};

/* Power-on, with a new battery: the clock starts at the wall-clock second (0 to the end of 9999, else brought into it). */
void rtc_reset(struct rtc *s, uint64_t now, int64_t unix_seconds);
/* The RESET# pin, a platform reset: interrupts off, flags and NMI mask clear; time and RAM stay. */
void rtc_reset_pin(struct rtc *s, uint64_t now);
/* Puts the clock forward, as somebody who sets it: the alarm does not ring for the time that was passed over. A clock that
 * has been stopped, to be set, stays as it is. */
void rtc_forward(struct rtc *s, uint64_t now, uint64_t seconds);
uint64_t rtc_read(struct rtc *s, uint64_t now, unsigned offset, unsigned size);
void rtc_write(struct rtc *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void rtc_advance(struct rtc *s, uint64_t now);
/* One more periodic interrupt, as at a period's end: sets PF. `periodic_due` does not count it. */
void rtc_repeat(struct rtc *s, uint64_t now);
/* Master ticks (rounded up) from one periodic interrupt to the next; 0: they are off. */
uint64_t rtc_period(const struct rtc *s);
uint64_t rtc_deadline(const struct rtc *s);
bool rtc_check(const struct rtc *s);

/* Does bit 7 of port 0x70 mask NMI? */
bool rtc_nmi_masked(const struct rtc *s);
/* CMOS contents for firmware/, without side effects and as of the last call with a time; 128 and up is the second bank. */
uint8_t rtc_cmos_get(const struct rtc *s, unsigned index);
void rtc_cmos_set(struct rtc *s, unsigned index, uint8_t value);

#endif
