/*
 * The PIT's deadline, in every state of channel 0: every counting element with some counts in the count register, every
 * count with some counting elements; all modes, all flags. Before the deadline OUT does not rise, at it it rises for the
 * first time; time in two steps is time in one. Left out: latches and the way bytes are written, which OUT does not depend
 * on, but for the half of a count that waits; and the other channels, which have no deadline and share only the clock.
 *
 *   all_vpit [N]    with the first N of some[] only
 */
#include <string.h>
#include "step.h"
#include "vpit/vpit.h"

enum { FLAG_GATE = 1, FLAG_TRIGGER = 2, FLAG_NULL = 4, FLAG_COUNTING = 8, FLAG_DONE = 16, FLAG_ODD = 32, FLAG_HALF = 64,
       FLAG_WRITTEN = 128, FLAG_OUT = 256, FLAGS = 512 };
#define TICK 1000u

static const uint16_t some[] = {0, 1, 2, 3, 4, 5, 0x9999, 0xffff};
static unsigned long states;

static void put(struct vpit *s, unsigned control, unsigned flags)
{
    struct vpit_channel *c = &s->channel[0];

    c->control = (uint8_t)(0x30 | control);
    c->gate = flags & FLAG_GATE ? 1 : 0;
    c->trigger = flags & FLAG_TRIGGER ? 1 : 0;
    c->null = flags & FLAG_NULL ? 1 : 0;
    c->counting = flags & FLAG_COUNTING ? 1 : 0;
    c->done = flags & FLAG_DONE ? 1 : 0;
    c->odd = flags & FLAG_ODD ? 1 : 0;
    c->half = flags & FLAG_HALF ? 1 : 0;
    c->written = flags & FLAG_WRITTEN ? 1 : 0;
    s->out.line[0].level = flags & FLAG_OUT ? 1 : 0;
}

static void expect_none(const struct vpit *s)
{
    struct vpit later = *s;

    vpit_advance(&later, (TICK + 1000000ull) * MASTER_PER_PIT_TICK);
    EXPECT(later.out.line[0].rises == 0, "without a deadline OUT never rises");
    EXPECT(vpit_check(&later), "check holds after any time");
}

static void expect_rise(const struct vpit *s, uint64_t deadline)
{
    struct vpit before = *s, at = *s, after_one = *s;

    EXPECT(deadline % MASTER_PER_PIT_TICK == 0 && deadline > TICK * MASTER_PER_PIT_TICK, "the deadline is a clock to come");
    vpit_advance(&before, deadline - 1);
    EXPECT(before.out.line[0].rises == 0, "OUT does not rise before the deadline");
    EXPECT(vpit_deadline(&before) == deadline, "the deadline stays until it comes");
    vpit_advance(&at, deadline);
    EXPECT(at.out.line[0].rises == 1 && at.out.line[0].last_rise == deadline, "OUT rises at the deadline");
    EXPECT(vpit_check(&before) && vpit_check(&at), "check holds before and at the deadline");
    vpit_advance(&after_one, (TICK + 1) * MASTER_PER_PIT_TICK);
    vpit_advance(&after_one, deadline);
    vpit_advance(&before, deadline);
    EXPECT(memcmp(&before, &at, sizeof(at)) == 0 && memcmp(&after_one, &at, sizeof(at)) == 0, "time in steps is time in one");
}

static void try(struct vpit *s, uint32_t ce, uint16_t cr)
{
    uint64_t deadline;

    s->channel[0].ce = ce;
    s->channel[0].cr = cr;
    if (!vpit_check(s))
        return;
    states++;
    deadline = vpit_deadline(s);
    if (deadline == NEVER)
        expect_none(s);
    else
        expect_rise(s, deadline);
}

int main(int argc, char **argv)
{
    unsigned values = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : sizeof(some) / sizeof(some[0]);
    struct vpit s;

    vpit_reset(&s, TICK * MASTER_PER_PIT_TICK);
    for (unsigned control = 0; control < 16; control++) {
        for (unsigned flags = 0; flags < FLAGS; flags++) {
            put(&s, control, flags);
            for (unsigned i = 0; i < values && i < sizeof(some) / sizeof(some[0]); i++) {
                for (uint32_t n = 0; n <= 65537; n++) {
                    try(&s, n, some[i]);
                    if (n <= 65535)
                        try(&s, some[i], (uint16_t)n);
                }
            }
        }
    }
    printf("the deadlines of %lu states\n", states);
    return 0;
}
