/*
 * The RTC's deadline, for everything in the registers that it depends on: every register A, B and C; the divider chain on
 * both sides of an update's end and of a period's; times of day with and without carries; alarms that come at once, later,
 * any time, on a date, never. Before the deadline IRQ 8 does not rise, at it it rises.
 */
#include <string.h>
#include "step.h"
#include "clock.h"
#include "wide.h"
#include "rtc/rtc.h"

enum { A = 10, B, C, D, CENTURY = 0x32 };
enum { UIP = 0x80, SET = 0x80, UIE = 0x10, BINARY = 4, ENABLES = 0x70 };
#define TICK (1ull << 40)
#define DAY (86400 * 32768ull)

static unsigned long states;

static uint64_t time_of(uint64_t tick)
{
    return muldiv_up_u64(tick, RTC_PER_MASTER_DEN, RTC_PER_MASTER_NUM);
}

static void try(const struct rtc *s)
{
    uint64_t deadline = rtc_deadline(s), rises = s->out.line[0].rises;
    struct rtc before = *s, at;

    states++;
    rtc_advance(&before, deadline == NEVER ? time_of(s->last + 800 * DAY) : deadline - 1);
    EXPECT(before.out.line[0].rises == rises, "IRQ 8 does not rise before the deadline");
    EXPECT(rtc_check(&before), "check holds before the deadline");
    if (deadline == NEVER)
        return;
    EXPECT(rtc_deadline(&before) == deadline, "the deadline stays until it comes");
    at = *s;
    rtc_advance(&at, deadline);
    EXPECT(at.out.line[0].rises == rises + 1 && at.out.line[0].last_rise == deadline, "IRQ 8 rises at the deadline");
    rtc_advance(&before, deadline);
    EXPECT(memcmp(&before, &at, sizeof(at)) == 0 && rtc_check(&at), "time in two steps is time in one");
}

/* Second, minute, hour, day, month, alarms of the first five: in binary. */
static void in_every_moment(struct rtc *s)
{
    static const uint8_t moments[][5] = {{5, 10, 9, 15, 6}, {59, 59, 23, 31, 12}, {58, 59, 23, 28, 2}, {75, 70, 40, 0, 13}};
    static const uint8_t alarms[][5] = {{0xff, 0xff, 0xff, 0, 0}, {6, 10, 9, 0, 0}, {0, 0xc0, 0xff, 0, 0}, {1, 2, 3, 0, 0xff},
                                        {0, 0, 0, 29, 2}, {0, 0, 0, 31, 0}, {0, 0, 0, 31, 2}, {60, 0, 0, 0, 0}};

    for (unsigned i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        for (unsigned j = 0; j < sizeof(alarms) / sizeof(alarms[0]); j++) {
            const uint8_t *m = moments[i], *a = alarms[j];
            s->cmos[0] = m[0], s->cmos[2] = m[1], s->cmos[4] = m[2], s->cmos[7] = m[3], s->cmos[8] = m[4];
            s->cmos[1] = a[0], s->cmos[3] = a[1], s->cmos[5] = a[2], s->cmos[D] = 0x80 | a[3], s->cmos[RTC_MONTH_ALARM] = a[4];
            try(s);
            if (!(s->cmos[B] & 0x20) || (s->cmos[C] & 0x20))
                break; /* the alarm cannot raise anything: which one it is makes no difference */
        }
    }
}

int main(void)
{
    static const uint32_t phases[] = {0, 1, 72, 73, 74, 16383, 16384, 32767};
    struct rtc s;

    rtc_reset(&s, time_of(TICK), 0);
    s.last = TICK;
    for (unsigned n = 0; n < 1u << 18; n++) {
        s.cmos[A] = n & 0x7f;
        s.cmos[B] = (uint8_t)(n >> 7);
        s.cmos[C] = (uint8_t)(n >> 15 << 4);
        s.out.line[0].level = (s.cmos[B] & s.cmos[C] & ENABLES) != 0;
        if ((s.cmos[A] & 0x10) || !rtc_check(&s))
            continue; /* of the divider's bits only 6 and 5 count */
        for (unsigned i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
            s.phase = (phases[i] - s.last) % 32768;
            in_every_moment(&s);
        }
    }
    printf("the deadlines of %lu states\n", states);
    return 0;
}
