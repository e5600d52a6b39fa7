#include "model.h"
#include "vpic/vpic.h"

MODEL_ACCESS(vpic)
MODEL_TIME(vpic)
MODEL_SET_LINE(vpic)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    vpic_reset(s, now);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    return vpic_intack(s, now);
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct vpic),
    .offsets = 6,
    .first_line = offsetof(struct vpic, out.line),
    .lines = 1,
    .reset = reset,
    .set_line = model_set_line,
    .special = special,
};
