/*
 * WP: what becomes of an output line, in any state, for any arguments. Models drive their lines by these two functions
 * alone (the PIT sets a level besides, where it falls).
 */
#include "device.h"

/*@ requires \valid(l);
    exits \false;
    assigns l->rises, l->last_rise, l->level;
    ensures l->level == (level ? 1 : 0);
    ensures level && \old(l->level) == 0 ==> l->rises == (uint64_t)(\old(l->rises) + 1) && l->last_rise == when;
    ensures !level || \old(l->level) != 0 ==> l->rises == \old(l->rises) && l->last_rise == \old(l->last_rise);
*/
static inline void line_set(struct line *l, uint64_t when, bool level);

/*@ requires \valid(l);
    exits \false;
    assigns l->rises, l->last_rise, l->level;
    ensures l->level == (level ? 1 : 0);
    ensures l->rises == (uint64_t)(\old(l->rises) + rises);
    ensures l->last_rise == (rises ? last_rise : \old(l->last_rise));
*/
static inline void line_pulse(struct line *l, uint64_t rises, uint64_t last_rise, bool level);

/* What they end in is 0 or 1, and no longer a bool. */
void driver(struct line *l, uint64_t when, bool level)
{
    line_set(l, when, level);
    line_pulse(l, 1, when, level);
}
