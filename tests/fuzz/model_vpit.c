#include "model.h"
#include "vpit/vpit.h"

MODEL_ACCESS(vpit)
MODEL_TIME(vpit)
MODEL_SET_LINE(vpit)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    vpit_reset(s, now);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    return vpit_period(s);
}

static uint64_t events(const void *state)
{
    const struct vpit *s = state;
    return s->out.line[0].rises;
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct vpit),
    .exact = true,
    .offsets = 5,
    .first_line = offsetof(struct vpit, out.line),
    .lines = VPIT_CHANNELS,
    .reset = reset,
    .set_line = model_set_line,
    .special = special,
    .events = events,
};
