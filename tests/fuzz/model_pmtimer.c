#include "model.h"
#include "pmtimer/pmtimer.h"

MODEL_ACCESS(pmtimer)
MODEL_TIME(pmtimer)
MODEL_SET_LINE(pmtimer)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    pmtimer_reset(s, now, argument & 1);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    pmtimer_set_sci_enable(s, now, argument & 1);
    return 0;
}

static uint64_t events(const void *state)
{
    const struct pmtimer *s = state;
    return s->out.line[0].rises;
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct pmtimer),
    .offsets = 12,
    .first_line = offsetof(struct pmtimer, out.line),
    .lines = 1,
    .reset = reset,
    .set_line = model_set_line,
    .special = special,
    .events = events,
};
