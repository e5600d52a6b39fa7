#include "model.h"
#include "rtc/rtc.h"

MODEL_ACCESS(rtc)
MODEL_TIME(rtc)

static void reset(void *s, uint64_t now, unsigned argument, uint64_t value)
{
    rtc_reset(s, now, (int64_t)value);
}

static uint64_t special(void *s, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    if (which < 8)
        rtc_cmos_set(s, argument % 320, (uint8_t)value);
    else if (which < 10)
        rtc_reset_pin(s, now);
    else if (which < 12)
        rtc_repeat(s, now);
    return rtc_cmos_get(s, argument % 320) + 256u * rtc_nmi_masked(s) + rtc_period(s);
}

static uint64_t events(const void *state)
{
    const struct rtc *s = state;
    return s->out.line[0].rises;
}

const struct model model = {
    MODEL_FUNCTIONS,
    .size = sizeof(struct rtc),
    .exact = true,
    .offsets = 4,
    .first_line = offsetof(struct rtc, out.line),
    .lines = 1,
    .reset = reset,
    .special = special,
    .events = events,
};
