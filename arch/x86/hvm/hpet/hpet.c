#include "hpet.h"

/* General configuration (1.0a 2.3.5). */
#define ENABLE_CNF 1ull
#define LEG_RT_CNF 2ull

/* Timer configuration and capabilities (1.0a 2.3.8). */
#define TN_LEVEL (1ull << 1)    /* Tn_INT_TYPE_CNF */
#define TN_INT_ENB (1ull << 2)
#define TN_PERIODIC (1ull << 3) /* Tn_TYPE_CNF */
#define TN_VAL_SET (1ull << 6)
#define TN_32MODE (1ull << 8)
#define TN_ROUTE_SHIFT 9
#define TN_ROUTE (0x1full << TN_ROUTE_SHIFT)
#define TN_FSB_EN (1ull << 14)
#define TN_WRITABLE (TN_LEVEL | TN_INT_ENB | TN_PERIODIC | TN_VAL_SET | TN_32MODE | TN_ROUTE | TN_FSB_EN)
/* Periodic, 64 bits, FSB delivery; the routes. */
#define TN_CAPABILITIES (1ull << 4 | 1ull << 5 | 1ull << 15 | (uint64_t)HPET_ROUTE_CAP << 32)

/* Revision 1, last timer, 64-bit counter, legacy replacement, vendor, period. */
#define CAPABILITIES \
    (1ull | (HPET_TIMERS - 1ull) << 8 | 1ull << 13 | 1ull << 15 | 0x8086ull << 16 | (uint64_t)HPET_PERIOD_FS << 32)

#define WRAP_32 0x100000000ull

static inline uint64_t timer_bit(unsigned n)
{
    return (uint64_t)1 << n;
}

static inline uint64_t merge(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

/* The bits of counter and comparator that a timer compares. */
static inline uint64_t width_mask(const struct hpet_timer *t)
{
    return t->config & TN_32MODE ? WRAP_32 - 1 : UINT64_MAX;
}

/* Ticks until the counter arrives at the comparator; NEVER for a whole turn of 64 bits. */
static uint64_t ticks_to_match(const struct hpet_timer *t, uint64_t counter)
{
    uint64_t ticks = (t->comparator - counter) & width_mask(t);
    return ticks ? ticks : t->config & TN_32MODE ? WRAP_32 : NEVER;
}

/* Ticks from one match to the next while nothing is written; 0 where there is no next one in 64 bits. */
static uint64_t ticks_between_matches(const struct hpet_timer *t)
{
    if ((t->config & TN_PERIODIC) && t->period)
        return t->period;
    return t->config & TN_32MODE ? WRAP_32 : 0;
}

/* The line level of a timer, by its status and configuration. */
static bool line_level(const struct hpet *s, unsigned n)
{
    uint64_t config = s->timer[n].config;
    return (s->config & ENABLE_CNF) && (s->status & timer_bit(n)) && (config & TN_INT_ENB) && !(config & TN_FSB_EN);
}

static bool sends_messages(const struct hpet *s, unsigned n)
{
    uint64_t both = TN_INT_ENB | TN_FSB_EN;
    return (s->config & ENABLE_CNF) && (s->timer[n].config & both) == both;
}

/* The counter has matched `count` times, from time `first` to time `last`. */
static void deliver(struct hpet *s, unsigned n, uint64_t count, uint64_t first, uint64_t last)
{
    const struct hpet_timer *t = &s->timer[n];
    if (t->config & TN_LEVEL)
        s->status |= timer_bit(n);
    if (!(t->config & TN_INT_ENB))
        return;
    if (t->config & TN_FSB_EN) {
        s->fsb_pending |= timer_bit(n);
        s->out.line[n].last_rise = last;
    } else if (t->config & TN_LEVEL)
        line_set(&s->out.line[n], first, true);
    else
        line_pulse(&s->out.line[n], count, last, false);
}

/* Accounts for one timer's matches in the `elapsed` ticks after s->last. */
static void run_timer(struct hpet *s, unsigned n, uint64_t elapsed)
{
    struct hpet_timer *t = &s->timer[n];
    uint64_t to_first = ticks_to_match(t, s->counter), step, more;

    if (elapsed < to_first || to_first == NEVER)
        return;
    step = ticks_between_matches(t);
    more = step ? (elapsed - to_first) / step : 0;
    if (t->config & TN_PERIODIC)
        t->comparator = (t->comparator + (more + 1) * t->period) & width_mask(t);
    if (t->config & TN_INT_ENB)
        t->matches += more + 1;
    deliver(s, n, more + 1, s->last + to_first, s->last + to_first + more * step);
}

/* Moves the lowest pending FSB message into the slot, if that is free. */
static void fill_slot(struct hpet *s)
{
    for (unsigned n = 0; n < HPET_TIMERS && s->fsb_pending && s->out.message.kind == BUS_NONE; n++) {
        uint64_t address = s->timer[n].fsb >> 32;
        if (!(s->fsb_pending & timer_bit(n)))
            continue;
        s->fsb_pending &= ~timer_bit(n);
        if ((address & 0xfff00000) == 0xfee00000) {
            s->out.message = bus_message_from_msi(address, (uint32_t)s->timer[n].fsb);
            s->out.timer = n;
        }
    }
}

void hpet_advance(struct hpet *s, uint64_t now)
{
    if (now > s->last) {
        uint64_t elapsed = now - s->last;
        if (s->config & ENABLE_CNF) {
            for (unsigned n = 0; n < HPET_TIMERS; n++)
                run_timer(s, n, elapsed);
            s->counter += elapsed;
        }
        s->last = now;
    }
    fill_slot(s);
}

void hpet_repeat(struct hpet *s, uint64_t now, unsigned timer)
{
    hpet_advance(s, now);
    if (timer < HPET_TIMERS && (s->config & ENABLE_CNF))
        deliver(s, timer, 1, s->last, s->last);
    fill_slot(s);
}

uint64_t hpet_period(const struct hpet *s, unsigned timer)
{
    const uint64_t repeats = TN_INT_ENB | TN_PERIODIC;

    if (timer >= HPET_TIMERS || !(s->config & ENABLE_CNF) || (s->timer[timer].config & repeats) != repeats)
        return 0;
    return s->timer[timer].period;
}

enum hpet_delivery hpet_delivery(const struct hpet *s, unsigned timer)
{
    uint64_t config = timer < HPET_TIMERS ? s->timer[timer].config : 0;

    return config & TN_FSB_EN ? HPET_FSB : config & TN_LEVEL ? HPET_LEVEL : HPET_EDGE;
}

uint64_t hpet_deadline(const struct hpet *s)
{
    uint64_t earliest = NEVER;
    for (unsigned n = 0; n < HPET_TIMERS && (s->config & ENABLE_CNF); n++) {
        const struct hpet_timer *t = &s->timer[n];
        uint64_t ticks = ticks_to_match(t, s->counter);
        if (!(t->config & TN_INT_ENB) || s->out.line[n].level)
            continue;
        if (ticks < NEVER - s->last && s->last + ticks < earliest)
            earliest = s->last + ticks;
    }
    return earliest;
}

bool hpet_legacy(const struct hpet *s)
{
    return s->config == (ENABLE_CNF | LEG_RT_CNF);
}

unsigned hpet_route(const struct hpet *s, unsigned timer)
{
    return timer < HPET_TIMERS ? (unsigned)((s->timer[timer].config & TN_ROUTE) >> TN_ROUTE_SHIFT) : 0;
}

/* Brings lines and pending messages in line with what was just written. */
static void drive_outputs(struct hpet *s)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        line_set(&s->out.line[n], s->last, line_level(s, n));
        if (!sends_messages(s, n))
            s->fsb_pending &= ~timer_bit(n);
    }
}

/* Registers: each handler gets the timer's number (0 for the general ones); writes get value and bytes in place. */
typedef uint64_t read_fn(const struct hpet *s, unsigned n);
typedef void write_fn(struct hpet *s, unsigned n, uint64_t value, uint64_t mask);

static uint64_t read_capabilities(const struct hpet *s, unsigned n)
{
    (void)s;
    (void)n;
    return CAPABILITIES;
}

static void write_nothing(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    (void)s;
    (void)n;
    (void)value;
    (void)mask;
}

static uint64_t read_config(const struct hpet *s, unsigned n)
{
    (void)n;
    return s->config;
}

static void write_config(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    s->config = merge(s->config, value, mask & (ENABLE_CNF | LEG_RT_CNF));
}

static uint64_t read_status(const struct hpet *s, unsigned n)
{
    (void)n;
    return s->status;
}

static void write_status(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    s->status &= ~(value & mask);
}

static uint64_t read_counter(const struct hpet *s, unsigned n)
{
    (void)n;
    return s->counter;
}

static void write_counter(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    (void)n;
    if (!(s->config & ENABLE_CNF))
        s->counter = merge(s->counter, value, mask);
}

static uint64_t read_timer_config(const struct hpet *s, unsigned n)
{
    return (s->timer[n].config & ~TN_VAL_SET) | TN_CAPABILITIES;
}

static void write_timer_config(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    struct hpet_timer *t = &s->timer[n];
    uint64_t new = merge(t->config, value, mask & TN_WRITABLE), route = (new & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if (route && !(HPET_ROUTE_CAP >> route & 1))
        new = merge(new, t->config, TN_ROUTE);
    t->config = new;
    t->comparator &= width_mask(t);
    t->period &= width_mask(t);
    if (!(new & TN_LEVEL))
        s->status &= ~timer_bit(n);
}

static uint64_t read_comparator(const struct hpet *s, unsigned n)
{
    return s->timer[n].comparator;
}

/* Periodic mode: the comparator itself is written only with Tn_VAL_SET_CNF (1.0a 2.3.9.2.2). */
static void write_comparator(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    struct hpet_timer *t = &s->timer[n];
    mask &= width_mask(t);
    if (!(t->config & TN_PERIODIC) || (t->config & TN_VAL_SET))
        t->comparator = merge(t->comparator, value, mask);
    t->period = merge(t->period, value, mask);
    t->config &= ~TN_VAL_SET;
}

static uint64_t read_fsb(const struct hpet *s, unsigned n)
{
    return s->timer[n].fsb;
}

static void write_fsb(struct hpet *s, unsigned n, uint64_t value, uint64_t mask)
{
    s->timer[n].fsb = merge(s->timer[n].fsb, value, mask);
}

/* By offset / 8 below 0x100, and by offset / 8 within a timer's block; an empty slot is undefined. */
#define COUNTER_SLOT (0xf0 / 8)
static const struct hpet_register {
    read_fn *read;
    write_fn *write;
} general[0x100 / 8] = {
    [0x00 / 8] = {read_capabilities, write_nothing},
    [0x10 / 8] = {read_config, write_config},
    [0x20 / 8] = {read_status, write_status},
    [COUNTER_SLOT] = {read_counter, write_counter},
}, per_timer[4] = {
    [0x00 / 8] = {read_timer_config, write_timer_config},
    [0x08 / 8] = {read_comparator, write_comparator},
    [0x10 / 8] = {read_fsb, write_fsb},
};

/* The register an access touches, or NULL where it is undefined; *n gets the timer. */
static const struct hpet_register *find_register(unsigned offset, unsigned size, unsigned *n)
{
    const struct hpet_register *r;
    *n = 0;
    if ((size != 1 && size != 2 && size != 4 && size != 8) || offset % size || offset >= 0x100 + 0x20 * HPET_TIMERS)
        return NULL;
    if (offset < 0x100) {
        r = &general[offset / 8];
    } else {
        *n = (offset - 0x100) / 0x20;
        r = &per_timer[offset / 8 % 4];
    }
    return r->read ? r : NULL;
}

uint64_t hpet_read(struct hpet *s, uint64_t now, unsigned offset, unsigned size)
{
    unsigned n, shift = offset % 8 * 8;
    const struct hpet_register *r = find_register(offset, size, &n);
    uint64_t passed = 0;

    if (!r)
        return all_ones(size);
    if (r != &general[COUNTER_SLOT])
        hpet_advance(s, now);
    else if (now > s->last && (s->config & ENABLE_CNF)) /* What guests read most: no need to look at the timers. */
        passed = now - s->last;
    return (r->read(s, n) + passed) >> shift & all_ones(size);
}

void hpet_write(struct hpet *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    unsigned n, shift = offset % 8 * 8;
    const struct hpet_register *r = find_register(offset, size, &n);

    hpet_advance(s, now);
    if (!r)
        return;
    r->write(s, n, value << shift, all_ones(size) << shift);
    drive_outputs(s);
}

void hpet_reset(struct hpet *s, uint64_t now)
{
    *s = (struct hpet){.last = now};
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        s->timer[n].comparator = UINT64_MAX;
}

static bool check_timer(const struct hpet *s, unsigned n)
{
    const struct hpet_timer *t = &s->timer[n];
    const struct line *l = &s->out.line[n];
    uint64_t route = (t->config & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if ((t->config & ~TN_WRITABLE) || (route && !(HPET_ROUTE_CAP >> route & 1)))
        return false;
    if ((t->comparator | t->period) & ~width_mask(t))
        return false;
    if ((s->status & timer_bit(n)) && !(t->config & TN_LEVEL))
        return false;
    if ((s->fsb_pending & timer_bit(n)) && !sends_messages(s, n))
        return false;
    return l->level == line_level(s, n) && !l->zero && l->last_rise <= s->last;
}

bool hpet_check(const struct hpet *s)
{
    const struct bus_message *m = &s->out.message;

    if ((s->config & ~(ENABLE_CNF | LEG_RT_CNF)) || (s->status | s->fsb_pending) >> HPET_TIMERS || s->out.timer >= HPET_TIMERS)
        return false;
    if ((m->kind != BUS_NONE && m->kind != BUS_INTERRUPT) || m->delivery > 7 || m->shorthand != SHORTHAND_NONE ||
        (m->flags & ~(BUS_LOGICAL | BUS_LEVEL | BUS_ASSERT)) || m->dest > 0xff || m->zero[0] || m->zero[1] || m->zero[2])
        return false;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if (!check_timer(s, n))
            return false;
    }
    return true;
}
