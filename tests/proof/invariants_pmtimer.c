#include <string.h>
#include "step.h"
#include "pmtimer/pmtimer.h"

enum { STS = PM1_TMR | PM1_PWRBTN | PM1_RTC | PM1_WAK, EN = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC };

static void repair(void *state)
{
    struct pmtimer *s = state;

    s->sts &= STS;
    s->en &= EN;
    s->inputs &= (1 << PMTIMER_LINES) - 1;
    s->sci_en &= 1;
    s->timer_32bit &= 1;
    s->zero = 0;
    s->out.line[0].zero = 0;
    s->out.line[0].level = s->sci_en && (s->sts & s->en);
}

/* What a write has as ones in PM1a_STS. */
static uint16_t ones(const struct action *a)
{
    return writes(a) && a->offset < 2 ? (uint16_t)((a->value & all_ones(a->size)) << 8 * a->offset) : 0;
}

static void expect(const struct transition *t)
{
    const struct pmtimer *was = t->before, *is = t->after;
    uint16_t came = is->sts & ~was->sts, went = was->sts & ~is->sts;

    EXPECT(!(went & ~ones(t->action)), "PMTIMER-1: status bits are cleared by writing ones, byte by byte");
    EXPECT(!(came & PM1_TMR) || is->seen > was->seen, "PMTIMER-2: TMR_STS comes with time");
    EXPECT(!(came & ~PM1_TMR) || t->action->kind == LINE, "PMTIMER-2: the others come with their inputs");
    EXPECT(is->en == was->en || (writes(t->action) && t->action->offset < 4), "PMTIMER-3: enables are written");
    EXPECT(is->timer_32bit == was->timer_32bit && is->seen >= was->seen, "PMTIMER-4: the width stays; time never goes back");
    if (reads(t->action))
        EXPECT(only_advanced(t), "PMTIMER-5: reading has no effect");
}

const struct invariants invariants = {{2, 2, 6}, repair, expect};
