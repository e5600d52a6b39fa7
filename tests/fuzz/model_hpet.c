#include "model.h"
#include "hpet/hpet.h"

MODEL_ACCESS(hpet)
MODEL_TIME(hpet)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    hpet_reset(s, now);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    if (which < 4)
        hpet_repeat(s, now, argument);
    return hpet_legacy(s) + 2 * hpet_route(s, argument) + hpet_delivery(s, argument) + hpet_period(s, argument);
}

/* A timer's line rises, or its message comes: then `matches` goes up as well, unless the line is up already. */
static uint64_t events(const void *state)
{
    const struct hpet *s = state;
    uint64_t sum = s->fsb_pending + ((uint64_t)s->out.message.kind << 32);

    for (unsigned n = 0; n < HPET_TIMERS; n++)
        sum += s->out.line[n].rises * 0x9e3779b97f4a7c15 + (s->out.line[n].level ? 0 : s->timer[n].matches);
    return sum;
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct hpet),
    .exact = true,
    .offsets = 0x200,
    .first_line = offsetof(struct hpet, out.line),
    .lines = HPET_TIMERS,
    .message = offsetof(struct hpet, out.message),
    .refills = HPET_TIMERS,
    .reset = reset,
    .special = special,
    .events = events,
};
