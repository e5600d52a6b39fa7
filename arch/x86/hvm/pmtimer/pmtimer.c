/* ACPI PM timer and PM1a event block: see pmtimer.h. */
#include "pmtimer.h"

enum { STS_OFFSET = 0, EN_OFFSET = 2, EVENT_BYTES = 4, TMR_OFFSET = 8, TMR_BYTES = 4 };
enum { STS_BITS = PM1_TMR | PM1_PWRBTN | PM1_RTC | PM1_WAK, EN_BITS = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC };

/* The status bit that each input sets. */
static const uint16_t input_sts[PMTIMER_LINES] = {PM1_PWRBTN, PM1_RTC, PM1_WAK};

/* The master time between two changes of the MSB: half the timer's period, a power of two. */
static uint64_t half_period(const struct pmtimer *s)
{
    return (s->timer_32bit ? (uint64_t)1 << 31 : (uint64_t)1 << 23) * MASTER_PER_PM_TICK;
}

/* The first change of the MSB after `time`, or NEVER. */
static uint64_t next_msb_change(const struct pmtimer *s, uint64_t time)
{
    uint64_t last = time | (half_period(s) - 1);
    return last == UINT64_MAX ? NEVER : last + 1;
}

static bool sci(const struct pmtimer *s)
{
    return s->sci_en && (s->sts & s->en);
}

static void update(struct pmtimer *s, uint64_t when)
{
    line_set(&s->out.line[0], when, sci(s));
}

static uint32_t timer(const struct pmtimer *s, uint64_t now)
{
    uint64_t count = now / MASTER_PER_PM_TICK;
    return s->timer_32bit ? (uint32_t)count : (uint32_t)count & 0xffffff;
}

void pmtimer_advance(struct pmtimer *s, uint64_t now)
{
    uint64_t change = next_msb_change(s, s->seen);

    if (now <= s->seen)
        return;
    s->seen = now;
    if (change != NEVER && change <= now && !(s->sts & PM1_TMR)) {
        s->sts |= PM1_TMR;
        update(s, change);
    }
}

uint64_t pmtimer_deadline(const struct pmtimer *s)
{
    if (!s->sci_en || !(s->en & ~s->sts & PM1_TMR))
        return NEVER;
    return next_msb_change(s, s->seen);
}

/* Does an access lie inside a register group of `bytes` bytes at `base`? */
static bool inside(unsigned base, unsigned bytes, unsigned offset, unsigned size)
{
    return (size == 1 || size == 2 || size == 4) && offset >= base && offset - base <= bytes - size;
}

static uint64_t cut(uint64_t value, unsigned first_byte, unsigned size)
{
    return (value >> (8 * first_byte)) & all_ones(size);
}

uint64_t pmtimer_read(struct pmtimer *s, uint64_t now, unsigned offset, unsigned size)
{
    pmtimer_advance(s, now);
    if (inside(STS_OFFSET, EVENT_BYTES, offset, size))
        return cut(s->sts | (uint32_t)s->en << 16, offset, size);
    if (inside(TMR_OFFSET, TMR_BYTES, offset, size))
        return cut(timer(s, now), offset - TMR_OFFSET, size);
    return all_ones(size);
}

void pmtimer_write(struct pmtimer *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    uint32_t written, mask;

    pmtimer_advance(s, now);
    if (!inside(STS_OFFSET, EVENT_BYTES, offset, size))
        return;
    mask = (uint32_t)(all_ones(size) << (8 * offset));
    written = (uint32_t)(value << (8 * offset)) & mask;
    s->sts &= (uint16_t)~written;
    s->en = (uint16_t)((s->en & ~(mask >> 16)) | ((written >> 16) & EN_BITS));
    update(s, now);
}

void pmtimer_set_line(struct pmtimer *s, uint64_t now, unsigned line, bool level)
{
    uint8_t bit;

    if (line >= PMTIMER_LINES)
        return;
    pmtimer_advance(s, now);
    bit = (uint8_t)(1u << line);
    if (level && !(s->inputs & bit))
        s->sts |= input_sts[line];
    s->inputs = level ? s->inputs | bit : s->inputs & ~bit;
    update(s, now);
}

void pmtimer_set_sci_enable(struct pmtimer *s, uint64_t now, bool on)
{
    pmtimer_advance(s, now);
    s->sci_en = on;
    update(s, now);
}

void pmtimer_reset(struct pmtimer *s, uint64_t now, bool timer_32bit)
{
    static const struct pmtimer power_on;

    *s = power_on;
    s->seen = now;
    s->timer_32bit = timer_32bit;
}

bool pmtimer_check(const struct pmtimer *s)
{
    const struct line *l = &s->out.line[0];

    return !(s->sts & ~STS_BITS) && !(s->en & ~EN_BITS) && s->inputs < 1 << PMTIMER_LINES && s->sci_en <= 1 &&
           s->timer_32bit <= 1 && !s->zero && !l->zero && l->level == sci(s);
}
