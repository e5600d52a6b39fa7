/*
 * HPET: 64-bit main counter, 8 comparators.
 *
 * State: struct hpet is the saved state. Time is the master count, and the main counter counts master ticks: `counter`
 * is its value at time `last`, up to which every match has been accounted for.
 *
 * Registers (memory, 1 KiB; naturally aligned access of 1, 2, 4 or 8 bytes; a narrow write changes only its bytes):
 *   0x000 capabilities: revision 1, 8 timers, 64-bit counter, legacy replacement, vendor 0x8086, period 69841270 fs
 *   0x010 configuration: ENABLE_CNF, LEG_RT_CNF     0x020 status: one W1C bit per level-triggered timer
 *   0x0f0 main counter, writable while halted
 *   0x100 + 0x20 n: Tn configuration and capabilities, +8 comparator, +0x10 FSB route (value low, address high)
 *   Everything else is undefined: it reads all ones and ignores writes.
 *
 * Features: every timer is one-shot or periodic, 64 or 32 bits, edge or level, routed to GSI 20-23 or as an FSB
 * message; timers 0 and 1 replace PIT and RTC in legacy mode (the fabric does it: hpet_legacy). Match is on equality,
 * at the tick where the counter reaches the comparator, so a comparator written at or behind the counter fires after
 * the wrap (2^32 ticks in 32-bit mode).
 * Periodic: the comparator moves on by the last value written to it; with Tn_VAL_SET_CNF the write sets the comparator
 * as well. However long the gap, matches are computed in closed form.
 *
 * Reading the main counter changes nothing; reading any other register brings the outputs up to date, like hpet_advance.
 *
 * Outputs: out.line[n] is timer n's line. Level mode: it is its status bit (while the timer and the block are
 * enabled). Edge mode: each match is one counted pulse and the level stays 0. FSB: a message in `out.message`,
 * refilled by hpet_advance from the lowest pending timer; at most HPET_TIMERS refills until it stays empty. `matches`
 * counts a timer's matches while its interrupt is enabled, for the tick ledger: with FSB delivery several matches in
 * one gap are one message, in level mode all matches until the status bit is cleared are one rise. `out.timer` is whose
 * message stands in the slot.
 *
 * Missing: power-saving states.
 *
 * Difference:
 *   - A reserved register reads all ones: test_undefined_access.
 *   - A comparator equal to the counter when written, or when the counter is enabled, does not fire before the wrap:
 *     test_match_is_on_arrival.
 *   - The main counter ignores writes while it runs (the document forbids them): test_counter_write_only_halted.
 *   - Setting Tn_32MODE_CNF clears the upper half of comparator and period; it stays 0:
 *     test_32bit_mode_clears_upper_half.
 *   - Status bits of edge-triggered timers read 0; switching a timer to edge clears its bit: test_edge_has_no_status.
 *   - Tn_VAL_SET_CNF clears at the next comparator write, whichever half or byte that writes:
 *     test_setval_clears_after_any_write.
 *   - A route that the capabilities do not offer leaves the old one (0 is accepted: not routed):
 *     test_route_capability.
 *   - An FSB address outside 0xfeexxxxx sends nothing: test_fsb_address_outside_apic_range.
 *   - A pending FSB message is withdrawn when its timer is disabled: test_fsb_pending_withdrawn.
 *
 * Documentation: IA-PC HPET specification 1.0a, 2.2-2.4 (modes, FSB), 2.3.4-2.3.10 (registers); its 2.3.9.2 for
 * periodic mode.
 */
#ifndef METRONOME_HPET_H
#define METRONOME_HPET_H

#include "device.h"

#define HPET_TIMERS 8
#define HPET_PERIOD_FS 69841270u
/* GSIs each comparator can be routed to: 20 to 23. */
#define HPET_ROUTE_CAP 0x00f00000u

struct hpet_timer {
    uint64_t config;     /* writable bits of Tn_CONF */
    uint64_t comparator;
    uint64_t period;     /* last value written to the comparator */
    uint64_t fsb;        /* Tn_FSB_INT_VAL, Tn_FSB_INT_ADDR */
    uint64_t matches;    /* matches while enabled, since reset */
};

struct hpet {
    uint64_t config;     /* ENABLE_CNF 1, LEG_RT_CNF 2 */
    uint64_t status;     /* general interrupt status */
    uint64_t counter;    /* main counter at `last` */
    uint64_t last;       /* time up to which matches are accounted for */
    uint64_t fsb_pending; /* timers whose message waits for the slot */
    struct hpet_timer timer[HPET_TIMERS];
    struct {
        struct line line[HPET_TIMERS]; /* last_rise: of messages too, which no line rises for */
        struct bus_message message;
        uint32_t timer; /* whose message it is, or the last one was */
    } out;
};

void hpet_reset(struct hpet *s, uint64_t now);
uint64_t hpet_read(struct hpet *s, uint64_t now, unsigned offset, unsigned size);
void hpet_write(struct hpet *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);
void hpet_advance(struct hpet *s, uint64_t now);
uint64_t hpet_deadline(const struct hpet *s);
bool hpet_check(const struct hpet *s);

/* One more interrupt of a timer, as at a match, but that `matches` does not count it. */
void hpet_repeat(struct hpet *s, uint64_t now, unsigned timer);
/* Ticks from one interrupt of a timer to the next; 0: it does not repeat. */
uint64_t hpet_period(const struct hpet *s, unsigned timer);
/* How a timer interrupts. */
enum hpet_delivery { HPET_EDGE, HPET_LEVEL, HPET_FSB };
enum hpet_delivery hpet_delivery(const struct hpet *s, unsigned timer);

/* Is legacy replacement in force: timer 0 on IRQ 0 (GSI 2), timer 1 on IRQ 8, PIT and RTC off them? */
bool hpet_legacy(const struct hpet *s);
/* The GSI in Tn_INT_ROUTE_CNF: 20 to 23, or 0 where the guest has chosen none. The legacy routes are the caller's. */
unsigned hpet_route(const struct hpet *s, unsigned timer);

#endif
