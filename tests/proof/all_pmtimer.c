/*
 * Every step of the PM timer. All states but the time, which the model only compares with changes of the MSB: `seen` lies
 * before, at or behind one, `now` on all sides of it and of the next. All accesses; of a write's value all bits that
 * any register has.
 */
#include "step.h"
#include "pmtimer/pmtimer.h"

enum { STS = PM1_TMR | PM1_PWRBTN | PM1_RTC | PM1_WAK, EN = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC };

static unsigned long states, steps;

/* The next larger subset of a mask; 0 after the last. */
static uint32_t next_subset(uint32_t subset, uint32_t mask)
{
    return (subset - mask) & mask;
}

static void try(const struct pmtimer *s, struct action a)
{
    struct pmtimer copy = *s;
    struct run r = {.state = (uint8_t *)&copy, .latest = a.now > s->seen ? a.now : s->seen};

    steps++;
    checked_action(&r, &a);
}

static void every_access(const struct pmtimer *s, uint64_t now)
{
    uint32_t value = 0, bits = STS | (uint32_t)EN << 16;

    for (unsigned size = 0; size <= 9; size++) {
        for (unsigned offset = 0; offset <= 13; offset++) {
            try(s, (struct action){.kind = READ, .offset = offset, .size = size, .now = now});
            if ((size != 1 && size != 2 && size != 4) || offset + size > 4)
                try(s, (struct action){.kind = WRITE, .offset = offset, .size = size, .value = UINT64_MAX, .now = now});
        }
    }
    do {
        for (unsigned size = 1; size <= 4; size *= 2)
            for (unsigned offset = 0; offset + size <= 4; offset++)
                try(s, (struct action){.kind = WRITE, .offset = offset, .size = size, .value = value >> 8 * offset, .now = now});
    } while ((value = next_subset(value, bits)));
}

static void every_input(const struct pmtimer *s, uint64_t now)
{
    for (unsigned line = 0; line <= PMTIMER_LINES; line++)
        for (unsigned level = 0; level < 2; level++)
            try(s, (struct action){.kind = LINE, .argument = line, .value = level, .now = now});
    for (unsigned on = 0; on < 2; on++)
        try(s, (struct action){.kind = SPECIAL, .argument = on, .now = now});
    try(s, (struct action){.kind = FORWARD, .now = now});
}

/* The deadline: SCI does not rise before; at it, it rises, or was up. */
static void every_deadline(const struct pmtimer *s)
{
    uint64_t deadline = pmtimer_deadline(s);
    struct pmtimer before = *s, at = *s;

    pmtimer_advance(&before, deadline - 1);
    EXPECT(before.out.line[0].rises == s->out.line[0].rises, "SCI does not rise before the deadline");
    pmtimer_advance(&at, deadline);
    EXPECT(deadline == NEVER || s->out.line[0].level || (at.out.line[0].rises == s->out.line[0].rises + 1 &&
                                                         at.out.line[0].last_rise == deadline),
           "SCI rises at the deadline, or is up");
}

static void every_time(struct pmtimer s)
{
    uint64_t half = (s.timer_32bit ? 1ull << 31 : 1ull << 23) * MASTER_PER_PM_TICK, change = 5 * half;

    for (int before = -1; before <= 1; before++) {
        s.seen = change + (uint64_t)before;
        EXPECT(pmtimer_check(&s), "check accepts every combination");
        states++;
        every_deadline(&s);
        for (unsigned n = 0; n < 2; n++) {
            for (int after = -2; after <= 1; after++) {
                uint64_t now = change + n * half + (uint64_t)after;
                every_input(&s, now);
                if (n == 0 || after == 0) /* beyond the first change accesses meet nothing new */
                    every_access(&s, now);
            }
        }
    }
}

int main(void)
{
    for (unsigned flags = 0; flags < 32; flags++) {
        uint32_t sts = 0;
        do {
            uint32_t en = 0;
            do {
                struct pmtimer s = {.sts = (uint16_t)sts, .en = (uint16_t)en, .inputs = flags & 7, .sci_en = flags >> 3 & 1,
                                    .timer_32bit = (uint8_t)(flags >> 4)};
                s.out.line[0].level = s.sci_en && (sts & en);
                every_time(s);
            } while ((en = next_subset(en, EN)));
        } while ((sts = next_subset(sts, STS)));
    }
    printf("%lu steps from %lu states\n", steps, states);
    return 0;
}
