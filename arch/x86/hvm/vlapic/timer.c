/*
 * The local APIC's timer (SDM 11.5.4). It counts one per TSC tick at divide 1. The only time in the state is the next
 * expiry: the count, the ticks missed and the expiry after a change follow from it in closed form.
 */
#include "internal.h"

/* Bits 3, 1, 0 of the divide register: 0 divides by 2, ... 6 by 128, 7 by 1. */
static unsigned divide_shift(uint32_t dcr)
{
    return (((dcr & 3) | ((dcr >> 1) & 4)) + 1) & 7;
}

/* a + b, or NEVER. */
static uint64_t add_sat(uint64_t a, uint64_t b)
{
    return b > NEVER - a ? NEVER : a + b;
}

static uint32_t timer_mode(const struct vlapic *s)
{
    return s->lvt[LVT_TIMER] & TIMER_MODE;
}

/* `n` expirations, the last one due at `when`: one interrupt, as IRR has one bit. */
static void timer_fire(struct vlapic *s, uint64_t n, uint64_t when)
{
    uint32_t lvt = s->lvt[LVT_TIMER];
    if (lvt & LVT_MASKED)
        return;
    s->timer_due += n;
    s->timer_due_at = when;
    vlapic_post(s, when, (uint8_t)lvt, false);
}

void vlapic_timer_expire(struct vlapic *s, uint64_t now)
{
    uint64_t expiry = s->timer_expiry, n = 1, period = (uint64_t)s->tmict << divide_shift(s->dcr);
    if (expiry == NEVER || now < expiry)
        return;
    if (timer_mode(s) == TIMER_PERIODIC && period) {
        uint64_t late = now - expiry;
        if (late >= period) { /* ticks were missed */
            n += late / period;
            expiry = now - late % period;
        }
        s->timer_expiry = add_sat(expiry, period);
    } else {
        s->tsc_deadline = 0;
        s->timer_expiry = NEVER;
    }
    timer_fire(s, n, expiry);
}

uint64_t vlapic_timer_period(const struct vlapic *s)
{
    bool repeats = timer_mode(s) == TIMER_PERIODIC && !(s->lvt[LVT_TIMER] & LVT_MASKED);

    return repeats ? (uint64_t)s->tmict << divide_shift(s->dcr) : 0;
}

/* The current count: what is left to the expiry, rounded up to whole counts. The caller has advanced the timer. */
uint32_t vlapic_timer_count(const struct vlapic *s, uint64_t now)
{
    unsigned shift = divide_shift(s->dcr);
    uint64_t left = s->timer_expiry - now;
    if (s->timer_expiry == NEVER || now >= s->timer_expiry)
        return 0;
    if (left >= (uint64_t)s->tmict << shift) /* just started, or TSC-deadline mode: its initial count is 0 */
        return s->tmict;
    return (uint32_t)((left + (1u << shift) - 1) >> shift);
}

/* A write to the initial count starts the timer, or stops it with 0; TSC-deadline mode ignores it. */
void vlapic_timer_start(struct vlapic *s, uint64_t now, uint32_t count)
{
    vlapic_advance(s, now);
    if (timer_mode(s) == TIMER_DEADLINE || timer_mode(s) == TIMER_MODE_RESERVED)
        return;
    s->tmict = count;
    s->timer_expiry = count ? add_sat(now, (uint64_t)count << divide_shift(s->dcr)) : NEVER;
}

/* A new divider: what is left scales with it. Both are powers of two, and `left` is below 2^39, so this is exact. */
void vlapic_timer_divide(struct vlapic *s, uint64_t now, uint32_t dcr)
{
    unsigned from = divide_shift(s->dcr), to = divide_shift(dcr);
    vlapic_advance(s, now);
    if (s->timer_expiry != NEVER && timer_mode(s) != TIMER_DEADLINE) {
        uint64_t left = now < s->timer_expiry ? s->timer_expiry - now : 0, period = (uint64_t)s->tmict << from;
        if (left > period)
            left = period;
        s->timer_expiry = add_sat(now, ((left << to) + (1u << from) - 1) >> from);
    }
    s->dcr = dcr;
}

/* A write to the LVT timer entry. One-shot and periodic keep the count; entering or leaving the others disarms. */
void vlapic_timer_lvt(struct vlapic *s, uint64_t now, uint32_t value)
{
    uint32_t from, to = value & TIMER_MODE;
    vlapic_advance(s, now);
    from = timer_mode(s);
    s->lvt[LVT_TIMER] = value;
    if (from != to && ((from | to) & TIMER_DEADLINE)) {
        s->tmict = 0;
        s->tsc_deadline = 0;
        s->timer_expiry = NEVER;
    }
}

/* Arms the timer for a guest TSC value; one that has passed fires at once (SDM 11.5.4.1). */
static void arm_deadline(struct vlapic *s, uint64_t now)
{
    uint64_t guest = now + s->tsc_adjust;
    if (s->tsc_deadline > guest) {
        s->timer_expiry = add_sat(now, s->tsc_deadline - guest);
    } else {
        s->tsc_deadline = 0;
        s->timer_expiry = NEVER;
        timer_fire(s, 1, now);
    }
}

void vlapic_write_deadline(struct vlapic *s, uint64_t now, uint64_t value)
{
    vlapic_advance(s, now);
    if (timer_mode(s) != TIMER_DEADLINE)
        return;
    s->tsc_deadline = value;
    if (value)
        arm_deadline(s, now);
    else
        s->timer_expiry = NEVER;
}

/* The guest moves its TSC; an armed deadline stays at its guest TSC value. */
void vlapic_write_adjust(struct vlapic *s, uint64_t now, uint64_t value)
{
    vlapic_advance(s, now);
    s->tsc_adjust = value;
    if (s->tsc_deadline)
        arm_deadline(s, now);
}
