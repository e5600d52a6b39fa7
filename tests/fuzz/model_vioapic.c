#include "model.h"
#include "vioapic/vioapic.h"

MODEL_ACCESS(vioapic)
MODEL_TIME(vioapic)
MODEL_SET_LINE(vioapic)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    vioapic_reset(s, now, (unsigned)value, (uint8_t)argument);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    if (which < 12)
        vioapic_eoi(s, now, (uint8_t)argument);
    else if (which < 15)
        vioapic_set_wiring(s, now, value);
    return vioapic_message(s, argument % 64).vector;
}

static uint64_t events(const void *state)
{
    const struct vioapic *s = state;
    return s->pending_mask ^ s->remote_irr ^ (uint64_t)s->out.message.kind << 63;
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct vioapic),
    .offsets = 0x44,
    .message = offsetof(struct vioapic, out.message),
    .refills = VIOAPIC_MAX_PINS,
    .reset = reset,
    .set_line = model_set_line,
    .special = special,
    .events = events,
};
