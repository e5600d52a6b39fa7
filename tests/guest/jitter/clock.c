/*
 * When the ticks of the chipset's clocks begin, in TSC ticks, without a bias (docs/time.md has the relations).
 *
 * A reading exits, so that the guest knows only that it was taken between two TSC values, up to thousands of ticks apart. But
 * under icount it is taken a constant number of instructions behind the first one, if nothing comes between. So the counter
 * steps at TSC values that are known but for this constant, and the distances between steps are not all equal: an HPET tick is 4400/63
 * TSC ticks, so 70 of them or 69, in a pattern that repeats after 63. Only one phase fits the pattern with one constant.
 */
#include "jitter.h"

#define MASTER_NUM 157500000ull
#define MASTER_DEN 11ull
#define READINGS 2048u

const struct clock hpet_clock = {MASTER_NUM, MASTER_DEN, 1, 1}, pit_clock = {MASTER_NUM, MASTER_DEN, 1, 12},
                   rtc_clock = {MASTER_NUM, MASTER_DEN, 11264, 4921875};

static uint64_t muldiv_up(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t down = muldiv(a, b, c);
    return down + (down * c != a * b); /* the remainder is below 2^64 */
}

uint64_t clock_tick(const struct clock *c, uint64_t tsc)
{
    return muldiv(muldiv(tsc, c->num, c->den * tsc_hz), c->coarse_num, c->coarse_den);
}

uint64_t clock_tsc(const struct clock *c, uint64_t tick)
{
    return muldiv_up(muldiv_up(tick, c->coarse_den, c->coarse_num), c->den * tsc_hz, c->num);
}

static struct reading readings[READINGS];

/* From a reading's `before` to the moment at which it is taken: the least and the most that it can be. */
struct way {
    uint64_t least, most;
};

/* When to take a reading: anywhen, or about when the counter steps, as far as the way to it is known. */
static uint64_t moment(const struct clock *c, const struct way *way)
{
    uint64_t now = rdtsc();

    return way ? clock_tsc(c, clock_tick(c, now + 4000) + random32() % 64) - way->least - random32() % 24 : now + random32() % 4096;
}

static uint64_t width(const struct reading *r)
{
    return r->behind - r->before;
}

/* Of the first n those that are as wide as most are: nothing came between, and their way is the same. Returns their number. */
static unsigned keep_usual(unsigned n)
{
    uint64_t usual = 0;
    unsigned votes = 0, kept = 0;

    for (unsigned i = 0; i < n; i++) {
        usual = votes ? usual : width(&readings[i]);
        votes += width(&readings[i]) == usual ? 1u : -1u;
    }
    for (unsigned i = 0; i < n; i++)
        if (width(&readings[i]) == usual)
            readings[kept++] = readings[i];
    return kept;
}

static unsigned take_readings(const struct clock *c, struct reading (*read)(void), const struct way *way)
{
    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t until = moment(c, way);

        while (rdtsc() < until)
            ;
        readings[i] = read();
    }
    return keep_usual(READINGS);
}

/* Is there one way with which all readings fit a counter that was 0 at tick `zero`? */
static bool fits(const struct clock *c, unsigned n, uint64_t zero, uint64_t modulus, struct way *way)
{
    *way = (struct way){0, width(&readings[0])};
    for (unsigned i = 0; i < n; i++) {
        const struct reading *r = &readings[i];
        uint64_t first = clock_tick(c, r->before), tick = zero + r->count, begin, end;

        if (modulus)
            tick = first + (zero % modulus + r->count + modulus - first % modulus) % modulus;
        begin = clock_tsc(c, tick);
        end = clock_tsc(c, tick + 1) - 1;
        if (begin > r->behind || end < r->before)
            return false;
        way->least = begin > r->before + way->least ? begin - r->before : way->least;
        way->most = end - r->before < way->most ? end - r->before : way->most;
        if (way->least > way->most)
            return false;
    }
    return true;
}

/* How many fit; the first of them, and its way. */
static unsigned phases(const struct clock *c, unsigned n, uint64_t modulus, uint64_t *first, struct way *way)
{
    uint64_t from = clock_tick(c, readings[0].before), to = clock_tick(c, readings[0].behind);
    struct way another;
    unsigned found = 0;

    for (uint64_t tick = from; tick <= to; tick++) {
        uint64_t zero = tick - readings[0].count;

        if (fits(c, n, zero, modulus, found ? &another : way))
            *first = found++ ? *first : zero;
    }
    return found;
}

uint64_t clock_phase(const struct clock *c, struct reading (*read)(void), uint64_t modulus, uint64_t *doubt)
{
    uint64_t first = 0;
    struct way way;
    unsigned found = phases(c, take_readings(c, read, NULL), modulus, &first, &way);

    for (unsigned pass = 0; found > 1 && pass < 4; pass++)
        found = phases(c, take_readings(c, read, &way), modulus, &first, &way);
    check(found, "a phase fits the readings", "none does");
    *doubt = found ? (found - 1) * clock_tsc(c, 1) : UINT64_MAX;
    return first;
}
