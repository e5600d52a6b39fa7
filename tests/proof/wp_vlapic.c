/*
 * WP: the local APIC's timer. Whatever state it is in: after each of its functions, at any time but NEVER, what is armed
 * lies ahead of that time, and an expiry that has not come stays; what is due goes up by the ticks that came while unmasked.
 */
#include "vlapic/internal.h"

/*@ axiomatic arithmetic {
      lemma remainder: \forall integer a, b; 0 <= a && 0 < b ==> 0 <= a % b < b && a % b <= a;
      axiom shift: \forall integer c, k; 0 < c < 4294967296 && 0 <= k <= 7 ==> 0 < (c << k) < 549755813888;
    } */

/*@ requires \valid(s);
    exits \false;
    assigns s->irr, s->tmr[0 .. 7], s->esr_pending;
*/
bool vlapic_post(struct vlapic *s, uint64_t now, uint8_t vector, bool level);

/*@ exits \false;
    assigns \nothing;
    ensures \result <= 7;
*/
static unsigned divide_shift(uint32_t dcr);

/*@ exits \false;
    assigns \nothing;
    ensures \result == (a + b <= NEVER ? a + b : NEVER);
*/
static uint64_t add_sat(uint64_t a, uint64_t b);

/*@ requires \valid_read(s);
    exits \false;
    assigns \nothing;
    ensures \result == (s->lvt[LVT_TIMER] & TIMER_MODE);
*/
static uint32_t timer_mode(const struct vlapic *s);

/*@ requires \valid(s);
    exits \false;
    assigns s->timer_due, s->timer_due_at, s->irr, s->tmr[0 .. 7], s->esr_pending;
    ensures (s->lvt[LVT_TIMER] & LVT_MASKED) != 0 ==> s->timer_due == \old(s->timer_due);
    ensures (s->lvt[LVT_TIMER] & LVT_MASKED) == 0 ==> s->timer_due == (uint64_t)(\old(s->timer_due) + n);
    ensures (s->lvt[LVT_TIMER] & LVT_MASKED) == 0 ==> s->timer_due_at == when;
*/
static void timer_fire(struct vlapic *s, uint64_t n, uint64_t when);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    assigns s->timer_expiry, s->tsc_deadline, s->timer_due, s->timer_due_at, s->irr, s->tmr[0 .. 7], s->esr_pending;
    ensures s->timer_expiry > now;
    ensures now < \old(s->timer_expiry) ==> s->timer_expiry == \old(s->timer_expiry) && s->timer_due == \old(s->timer_due);
*/
void vlapic_timer_expire(struct vlapic *s, uint64_t now);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    assigns s->timer_expiry, s->tsc_deadline, s->timer_due, s->timer_due_at, s->irr, s->tmr[0 .. 7], s->esr_pending;
    ensures s->timer_expiry > now;
    ensures now < \old(s->timer_expiry) ==> s->timer_expiry == \old(s->timer_expiry) && s->timer_due == \old(s->timer_due);
*/
static inline void vlapic_advance(struct vlapic *s, uint64_t now);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    ensures s->timer_expiry > now;
*/
void vlapic_timer_start(struct vlapic *s, uint64_t now, uint32_t count);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    ensures s->timer_expiry > now;
    ensures s->lvt[LVT_TIMER] == value;
*/
void vlapic_timer_lvt(struct vlapic *s, uint64_t now, uint32_t value);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    assigns s->timer_expiry, s->tsc_deadline, s->timer_due, s->timer_due_at, s->irr, s->tmr[0 .. 7], s->esr_pending;
    ensures s->timer_expiry > now;
    ensures s->timer_expiry != NEVER ==> s->tsc_deadline == \old(s->tsc_deadline);
*/
static void arm_deadline(struct vlapic *s, uint64_t now);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    ensures s->timer_expiry > now;
*/
void vlapic_write_deadline(struct vlapic *s, uint64_t now, uint64_t value);

/*@ requires \valid(s) && now < NEVER;
    exits \false;
    ensures s->timer_expiry > now;
    ensures s->tsc_adjust == value;
*/
void vlapic_write_adjust(struct vlapic *s, uint64_t now, uint64_t value);

#include "vlapic/timer.c"
