#include "rtc.h"

#include "clock.h"
#include "wide.h"

/* Time, alarm and control bytes (MC146818A, address map), the century and the month's alarm (ACPI), the second bank. */
enum {
    SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, DAY_OF_WEEK, DAY, MONTH, YEAR,
    REG_A, REG_B, REG_C, REG_D, CENTURY = 0x32, MONTH_ALARM = RTC_MONTH_ALARM, BANK2 = 0x80
};

#define A_UIP 0x80
#define A_DIVIDER_RESET 0x60 /* DV2 and DV1 set */
#define A_RATE 0x0f
#define B_SET 0x80
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define B_ENABLES 0x70 /* PIE, AIE, UIE: at the places of their flags in register C */
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define C_FLAGS (C_PF | C_AF | C_UF)
#define D_VRT 0x80
#define D_DAY_ALARM 0x3f
#define WILDCARD 0xc0
#define PM 0x80

/* The chain, in ticks of 1/32768 s: UIP is up from 0 to UPDATE_END; an update begins 8 ticks after UIP goes up. */
#define TICKS_PER_SECOND 32768u
#define UPDATE_BEGIN 8u
#define UPDATE_END (UPDATE_BEGIN + 65u)
/* Where the chain starts when the divider reset ends: the update begins 500 ms later. */
#define CHAIN_AT_RELEASE (TICKS_PER_SECOND / 2 + UPDATE_BEGIN)

/* A byte that is no number in the mode set (a digit above 9, an hour that does not exist) decodes to this plus itself. */
#define NO_NUMBER 256u
#define LAST_SECOND 253402300799ull /* 9999-12-31 23:59:59, since 1970 */

/* Date and time as numbers. */
struct moment {
    unsigned second, minute, hour, day_of_week, day, month, year, century;
};

static uint64_t tick_of(uint64_t now)
{
    return muldiv_u64(now, RTC_PER_MASTER_NUM, RTC_PER_MASTER_DEN);
}

/* The first master count at which a tick has come; NEVER where that is out of range. */
static uint64_t time_of_tick(uint64_t tick)
{
    return muldiv_up_u64(tick, RTC_PER_MASTER_DEN, RTC_PER_MASTER_NUM);
}

/* ---- Encoding ---- */

static unsigned decode(const struct rtc *s, uint8_t byte)
{
    if (s->cmos[REG_B] & B_BINARY)
        return byte;
    return (byte & 0xf) > 9 || byte > 0x99 ? NO_NUMBER + byte : (byte >> 4) * 10u + (byte & 0xf);
}

static uint8_t encode(const struct rtc *s, unsigned number)
{
    return (uint8_t)(s->cmos[REG_B] & B_BINARY ? number : (number / 10 << 4) + number % 10);
}

static unsigned decode_hour(const struct rtc *s, uint8_t byte)
{
    unsigned hour;
    if (s->cmos[REG_B] & B_24H)
        return decode(s, byte);
    hour = decode(s, byte & ~PM);
    return hour < 1 || hour > 12 ? NO_NUMBER + byte : hour % 12 + (byte & PM ? 12 : 0);
}

static uint8_t encode_hour(const struct rtc *s, unsigned hour)
{
    if (s->cmos[REG_B] & B_24H)
        return encode(s, hour);
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0);
}

static struct moment decode_moment(const struct rtc *s)
{
    struct moment m = {
        .second = decode(s, s->cmos[SECONDS]),
        .minute = decode(s, s->cmos[MINUTES]),
        .hour = decode_hour(s, s->cmos[HOURS]),
        .day_of_week = decode(s, s->cmos[DAY_OF_WEEK]),
        .day = decode(s, s->cmos[DAY]),
        .month = decode(s, s->cmos[MONTH]),
        .year = decode(s, s->cmos[YEAR]),
        .century = decode(s, s->cmos[CENTURY]),
    };
    return m;
}

/* Stores what differs, so that bytes which did not count keep whatever the guest put there. */
static void store_moment(struct rtc *s, const struct moment *old, const struct moment *m)
{
    const struct {
        uint8_t index;
        unsigned old, new;
    } fields[] = {
        {SECONDS, old->second, m->second}, {MINUTES, old->minute, m->minute},
        {DAY_OF_WEEK, old->day_of_week, m->day_of_week}, {DAY, old->day, m->day}, {MONTH, old->month, m->month},
        {YEAR, old->year, m->year}, {CENTURY, old->century, m->century},
    };
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].old != fields[i].new)
            s->cmos[fields[i].index] = encode(s, fields[i].new);
    }
    if (old->hour != m->hour)
        s->cmos[HOURS] = encode_hour(s, m->hour);
}

/* ---- Calendar ---- */

/* Gregorian where the century is one, else every 4th year, as the chip without a century byte has it. */
static bool is_leap(const struct moment *m)
{
    if (m->century > 99 || m->year > 99)
        return m->year % 4 == 0;
    return m->year % 4 == 0 && (m->year != 0 || m->century % 4 == 0);
}

static unsigned month_length(const struct moment *m)
{
    static const uint8_t length[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (m->month < 1 || m->month > 12)
        return 31;
    return length[m->month - 1] + (m->month == 2 && is_leap(m));
}

/* Counts a field on `n` times; returns the carries. At or beyond its last value the next count makes it its first. */
static uint64_t count_field(unsigned *field, unsigned first, unsigned last, uint64_t n)
{
    uint64_t span = last - first + 1, to_wrap = *field < last ? (uint64_t)(last - *field) + 1 : 1;
    if (n < to_wrap) {
        *field += (unsigned)n;
        return 0;
    }
    n -= to_wrap;
    *field = first + (unsigned)(n % span);
    return n / span + 1;
}

static void next_year(struct moment *m)
{
    if (count_field(&m->year, 0, 99, 1))
        count_field(&m->century, 0, 99, 1);
}

static void next_month(struct moment *m)
{
    if (count_field(&m->month, 1, 12, 1))
        next_year(m);
}

static void next_day(struct moment *m)
{
    if (count_field(&m->day, 1, month_length(m), 1))
        next_month(m);
}

static bool is_date(const struct moment *m)
{
    return m->month >= 1 && m->month <= 12 && m->day >= 1 && m->day <= month_length(m);
}

/* Days from a date that exists to the first of the next January. */
static unsigned days_to_new_year(const struct moment *m)
{
    struct moment end = *m;
    unsigned days = 0;
    for (; end.month <= 12; end.month++) {
        days += month_length(&end) - (end.day - 1);
        end.day = 1;
    }
    return days;
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

/* From a first of January on, as many years as fit into `days`, which it reduces: by fours that begin with one that may be a
 * leap year. Gregorian dates repeat after 400 years. */
static void count_years(struct moment *m, uint64_t *days)
{
    for (unsigned i = 0; i < 600; i++) {
        unsigned one = 365 + is_leap(m), four = m->year % 4 == 0 && m->year < 96 ? one + 3 * 365 : 0;

        if (m->century <= 99 && m->year <= 99 && *days >= 146097) {
            m->century = (unsigned)((m->century + *days / 146097 * 4) % 100);
            *days %= 146097;
        }
        if (*days < one)
            return;
        if (four && *days >= four) {
            uint64_t fours = m->year ? at_most(*days / four, (96 - m->year) / 4) : 1;

            *days -= fours * four;
            m->year += (unsigned)(4 * fours);
        } else {
            *days -= one;
            next_year(m);
        }
    }
}

/* Lets `days` pass: to a date that exists, then by years, months, days. */
static void count_days(struct moment *m, uint64_t days)
{
    unsigned i, length;

    for (i = 0; i < 64 && days && !is_date(m); i++, days--)
        next_day(m);
    if (!days)
        return;
    if (m->month > 1 || m->day > 1) {
        length = days_to_new_year(m);
        if (days >= length) {
            days -= length;
            m->month = m->day = 1;
            next_year(m);
        }
    }
    if (m->month == 1 && m->day == 1)
        count_years(m, &days);
    for (i = 0; i < 12 && days; i++) {
        length = month_length(m) - (m->day - 1);
        if (days < length)
            break;
        days -= length;
        m->day = 1;
        next_month(m);
    }
    m->day += (unsigned)days;
}

/* Lets `seconds` updates pass. */
static void count_seconds(struct moment *m, uint64_t seconds)
{
    uint64_t carry = count_field(&m->second, 0, 59, seconds);
    carry = carry ? count_field(&m->minute, 0, 59, carry) : 0;
    carry = carry ? count_field(&m->hour, 0, 23, carry) : 0;
    if (!carry)
        return;
    count_field(&m->day_of_week, 1, 7, carry);
    count_days(m, carry);
}

/* ---- Alarm ---- */

/* What an alarm byte asks of its field: `any`, or one value. */
struct want {
    bool any;
    unsigned value;
};

static inline bool wants(struct want w, unsigned value)
{
    return w.any || w.value == value;
}

/* The smallest wanted value from `from` to `last`; more than `last` if there is none. */
static unsigned next_wanted(struct want w, unsigned from, unsigned last)
{
    if (w.any)
        return from;
    return w.value >= from ? w.value : last + 1;
}

/* Seconds from a minute's, hour's or day's start to the first wanted moment in it; NEVER if there is none. */
static uint64_t in_minute(struct want s)
{
    unsigned second = next_wanted(s, 0, 59);
    return second <= 59 ? second : NEVER;
}

static uint64_t in_hour(struct want m, struct want s, unsigned from)
{
    unsigned minute = next_wanted(m, from, 59);
    uint64_t second = in_minute(s);
    return minute <= 59 && second != NEVER ? minute * 60ull + second : NEVER;
}

static uint64_t in_day(struct want h, struct want m, struct want s, unsigned from)
{
    unsigned hour = next_wanted(h, from, 23);
    uint64_t offset = in_hour(m, s, 0);
    return hour <= 23 && offset != NEVER ? hour * 3600ull + offset : NEVER;
}

/* Updates until the next one today at which the time is as wanted, or NEVER; *midnight gets those until 0:00. */
static uint64_t later_today(const struct moment *t, struct want h, struct want m, struct want s, uint64_t *midnight)
{
    /* To the start of the next minute, hour and day; fields beyond their last value wrap at their next count. */
    uint64_t minute = t->second < 59 ? 60 - t->second : 1;
    uint64_t hour = minute + (t->minute < 59 ? 59 - t->minute : 0) * 60ull;
    unsigned second = next_wanted(s, t->second + 1, 59);
    uint64_t found;

    *midnight = hour + (t->hour < 23 ? 23 - t->hour : 0) * 3600ull;
    if (wants(h, t->hour) && wants(m, t->minute) && second <= 59)
        return second - t->second;
    found = in_hour(m, s, t->minute + 1);
    if (wants(h, t->hour) && found != NEVER)
        return minute + found - (t->minute + 1) * 60ull;
    found = in_day(h, m, s, t->hour + 1);
    return found != NEVER ? hour + found - (t->hour + 1) * 3600ull : NEVER;
}

/* Days from `t`, a day inside its month, to the first day wanted, itself included; NEVER if there is none. */
static uint64_t days_to_date(struct moment t, struct want month, struct want day)
{
    uint64_t days = 0;

    /* Month by month: 29 February comes round within eight years. */
    for (unsigned i = 0; i < 128; i++) {
        unsigned length = month_length(&t), found = next_wanted(day, t.day, length);

        if (wants(month, t.month) && found <= length)
            return days + found - t.day;
        days += length - t.day + 1;
        t.day = 1;
        next_month(&t);
    }
    return NEVER;
}

/* Updates until the next one that matches the alarm (at least 1), or NEVER. */
static uint64_t updates_to_alarm(const struct rtc *s)
{
    const uint8_t *c = s->cmos;
    struct moment t = decode_moment(s);
    struct want second = {c[SECONDS_ALARM] >= WILDCARD, decode(s, c[SECONDS_ALARM])};
    struct want minute = {c[MINUTES_ALARM] >= WILDCARD, decode(s, c[MINUTES_ALARM])};
    struct want hour = {c[HOURS_ALARM] >= WILDCARD, decode_hour(s, c[HOURS_ALARM])};
    uint8_t day_alarm = c[REG_D] & D_DAY_ALARM, month_alarm = c[MONTH_ALARM];
    struct want day = {day_alarm == 0, decode(s, day_alarm)};
    struct want month = {month_alarm == 0 || month_alarm >= WILDCARD, decode(s, month_alarm)};
    uint64_t midnight, distance = later_today(&t, hour, minute, second, &midnight);
    uint64_t first = in_day(hour, minute, second, 0), days;

    if (distance != NEVER && wants(day, t.day) && wants(month, t.month))
        return distance;
    if (first == NEVER)
        return NEVER;
    next_day(&t);
    days = days_to_date(t, month, day);
    return days == NEVER ? NEVER : midnight + days * 86400 + first;
}

/* ---- The divider chain ---- */

static inline bool chain_runs(const struct rtc *s)
{
    return (s->cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
}

static inline bool updates(const struct rtc *s)
{
    return chain_runs(s) && !(s->cmos[REG_B] & B_SET);
}

/* Update ends up to a tick, counted from an arbitrary one. */
static inline uint64_t update_ends(const struct rtc *s, uint64_t tick)
{
    return (tick + s->phase + TICKS_PER_SECOND - UPDATE_END) / TICKS_PER_SECOND;
}

/* The tick of the nth update end after `last`. */
static inline uint64_t tick_of_update(const struct rtc *s, uint64_t n)
{
    return (update_ends(s, s->last) + n - 1) * TICKS_PER_SECOND + UPDATE_END - s->phase;
}

/* log2 of the periodic interrupt's period in ticks; 0 where there is none (MC146818A, table of rates at 32.768 kHz). */
static inline unsigned rate_shift(const struct rtc *s)
{
    unsigned rate = s->cmos[REG_A] & A_RATE;
    return rate == 0 ? 0 : rate <= 2 ? rate + 6 : rate - 1;
}

static inline uint64_t periods(const struct rtc *s, uint64_t tick, unsigned shift)
{
    return (tick + s->phase + (1u << (shift - 1))) >> shift;
}

/* The tick of the first periodic event after `last`. */
static inline uint64_t tick_of_period(const struct rtc *s, unsigned shift)
{
    return ((periods(s, s->last, shift) + 1) << shift) - (1u << (shift - 1)) - s->phase;
}

/* ---- Interrupts ---- */

static inline bool irqf(const struct rtc *s)
{
    return s->cmos[REG_C] & s->cmos[REG_B] & B_ENABLES;
}

/* Sets a flag that came up at a tick; *rise becomes the earliest tick at which IRQF can have risen. */
static void set_flag(struct rtc *s, uint8_t flag, uint64_t tick, uint64_t *rise)
{
    if (s->cmos[REG_C] & flag)
        return;
    s->cmos[REG_C] |= flag;
    if ((s->cmos[REG_B] & flag) && tick < *rise)
        *rise = tick;
}

static void run_periodic(struct rtc *s, uint64_t tick, uint64_t *rise)
{
    unsigned shift = rate_shift(s);
    uint64_t ended = shift && chain_runs(s) ? periods(s, tick, shift) - periods(s, s->last, shift) : 0;
    if (!ended)
        return;
    if (s->cmos[REG_B] & C_PF)
        s->periodic_due += ended;
    set_flag(s, C_PF, tick_of_period(s, shift), rise);
}

static void run_updates(struct rtc *s, uint64_t tick, uint64_t *rise)
{
    uint64_t n = updates(s) ? update_ends(s, tick) - update_ends(s, s->last) : 0, alarm;
    struct moment old, new;
    if (!n)
        return;
    alarm = s->cmos[REG_C] & C_AF ? NEVER : updates_to_alarm(s);
    if (alarm <= n)
        set_flag(s, C_AF, tick_of_update(s, alarm), rise);
    set_flag(s, C_UF, tick_of_update(s, 1), rise);
    old = new = decode_moment(s);
    count_seconds(&new, n);
    store_moment(s, &old, &new);
}

void rtc_advance(struct rtc *s, uint64_t now)
{
    uint64_t tick = tick_of(now), rise = NEVER;
    if (tick <= s->last)
        return;
    run_periodic(s, tick, &rise);
    run_updates(s, tick, &rise);
    s->last = tick;
    if (rise != NEVER)
        line_set(&s->out.line[0], time_of_tick(rise), irqf(s));
}

uint64_t rtc_deadline(const struct rtc *s)
{
    uint8_t enabled = s->cmos[REG_B];
    unsigned shift = rate_shift(s);
    uint64_t tick = NEVER, next;

    if (irqf(s) || !chain_runs(s))
        return NEVER;
    if ((enabled & C_PF) && shift)
        tick = tick_of_period(s, shift);
    if (!updates(s))
        return tick == NEVER ? NEVER : time_of_tick(tick);
    if ((enabled & C_UF) && (next = tick_of_update(s, 1)) < tick)
        tick = next;
    if ((enabled & C_AF) && (next = updates_to_alarm(s)) != NEVER && (next = tick_of_update(s, next)) < tick)
        tick = next;
    return tick == NEVER ? NEVER : time_of_tick(tick);
}

uint64_t rtc_period(const struct rtc *s)
{
    unsigned shift = rate_shift(s);

    return shift && chain_runs(s) && (s->cmos[REG_B] & C_PF) ? time_of_tick(1ull << shift) : 0;
}

void rtc_repeat(struct rtc *s, uint64_t now)
{
    rtc_advance(s, now);
    s->cmos[REG_C] |= C_PF;
    line_set(&s->out.line[0], now, irqf(s));
}

/* ---- Registers ---- */

static void write_a(struct rtc *s, uint8_t value)
{
    bool ran = chain_runs(s);
    s->cmos[REG_A] = value & ~A_UIP;
    if (!ran && chain_runs(s))
        s->phase = (CHAIN_AT_RELEASE - s->last) % TICKS_PER_SECOND;
}

static void write_b(struct rtc *s, uint8_t value)
{
    s->cmos[REG_B] = value & B_SET ? value & ~B_UIE : value;
}

static void write_d(struct rtc *s, uint8_t value)
{
    s->cmos[REG_D] = (s->cmos[REG_D] & D_VRT) | (value & D_DAY_ALARM);
}

static void write_data(struct rtc *s, uint64_t now, unsigned index, uint8_t value)
{
    switch (index) {
    case REG_A:
        write_a(s, value);
        break;
    case REG_B:
        write_b(s, value);
        break;
    case REG_C:
        break;
    case REG_D:
        write_d(s, value);
        break;
    default:
        s->cmos[index % 256] = value;
    }
    line_set(&s->out.line[0], now, irqf(s));
}

static bool update_in_progress(const struct rtc *s)
{
    return updates(s) && (s->last + s->phase) % TICKS_PER_SECOND < UPDATE_END;
}

static uint8_t read_data(struct rtc *s, unsigned index)
{
    uint8_t value = s->cmos[index % 256];
    switch (index) {
    case REG_A:
        return value | (update_in_progress(s) ? A_UIP : 0);
    case REG_C:
        value |= irqf(s) ? C_IRQF : 0;
        s->cmos[REG_C] = 0;
        line_set(&s->out.line[0], s->out.line[0].last_rise, false);
        return value;
    case REG_D:
        s->cmos[REG_D] |= D_VRT;
        return value;
    default:
        return value;
    }
}

static uint8_t read_port(struct rtc *s, unsigned port)
{
    switch (port) {
    case 1:
        return read_data(s, s->index & 0x7f);
    case 2:
        return s->index2;
    case 3:
        return read_data(s, BANK2 + (s->index2 & 0x7f));
    default:
        return 0xff;
    }
}

static void write_port(struct rtc *s, uint64_t now, unsigned port, uint8_t value)
{
    switch (port) {
    case 0:
        s->index = value & 0x7f;
        s->nmi_masked = value >> 7;
        break;
    case 1:
        write_data(s, now, s->index & 0x7f, value);
        break;
    case 2:
        s->index2 = value & 0x7f;
        break;
    default:
        write_data(s, now, BANK2 + (s->index2 & 0x7f), value);
    }
}

static bool is_access(unsigned offset, unsigned size)
{
    return (size == 1 || size == 2 || size == 4) && offset < 4 && offset + size <= 4;
}

uint64_t rtc_read(struct rtc *s, uint64_t now, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    rtc_advance(s, now);
    if (!is_access(offset, size))
        return all_ones(size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_port(s, offset + i) << 8 * i;
    return value;
}

void rtc_write(struct rtc *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    rtc_advance(s, now);
    if (!is_access(offset, size))
        return;
    for (unsigned i = 0; i < size; i++)
        write_port(s, now, offset + i, (uint8_t)(value >> 8 * i));
}

bool rtc_nmi_masked(const struct rtc *s)
{
    return s->nmi_masked;
}

uint8_t rtc_cmos_get(const struct rtc *s, unsigned index)
{
    return index < 256 ? s->cmos[index] : 0xff;
}

void rtc_cmos_set(struct rtc *s, unsigned index, uint8_t value)
{
    if (index == REG_D)
        s->cmos[REG_D] = value & (D_VRT | D_DAY_ALARM);
    else if (index < 256)
        write_data(s, time_of_tick(s->last), index, value);
}

/* 1970-01-01 was a Thursday, day 5. */

void rtc_reset(struct rtc *s, uint64_t now, int64_t unix_seconds)
{
    struct moment nothing = {NO_NUMBER, NO_NUMBER, NO_NUMBER, NO_NUMBER, NO_NUMBER, NO_NUMBER, NO_NUMBER, NO_NUMBER};
    struct moment m = {.day_of_week = 5, .day = 1, .month = 1, .year = 70, .century = 19};
    *s = (struct rtc){.last = tick_of(now)};
    s->phase = (UPDATE_END - s->last) % TICKS_PER_SECOND;
    s->cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz */
    s->cmos[REG_B] = B_24H;
    s->cmos[REG_D] = D_VRT;
    count_seconds(&m, unix_seconds < 0 ? 0 : at_most((uint64_t)unix_seconds, LAST_SECOND));
    store_moment(s, &nothing, &m);
}

void rtc_forward(struct rtc *s, uint64_t now, uint64_t seconds)
{
    struct moment old, m;

    rtc_advance(s, now);
    if (!updates(s))
        return;
    old = m = decode_moment(s);
    count_seconds(&m, at_most(seconds, LAST_SECOND));
    store_moment(s, &old, &m);
}

void rtc_reset_pin(struct rtc *s, uint64_t now)
{
    rtc_advance(s, now);
    s->cmos[REG_B] &= ~(B_ENABLES | 0x08); /* and SQWE */
    s->cmos[REG_C] = 0;
    s->nmi_masked = 0;
    line_set(&s->out.line[0], now, false);
}

bool rtc_check(const struct rtc *s)
{
    const struct line *l = &s->out.line[0];
    for (unsigned i = 0; i < sizeof(s->zero); i++) {
        if (s->zero[i])
            return false;
    }
    if (s->last > tick_of(UINT64_MAX) || s->phase >= TICKS_PER_SECOND || s->index > 0x7f || s->index2 > 0x7f)
        return false;
    if (s->nmi_masked > 1 || (s->cmos[REG_A] & A_UIP) || (s->cmos[REG_C] & ~C_FLAGS) || (s->cmos[REG_D] & 0x40))
        return false;
    if ((s->cmos[REG_B] & B_SET) && (s->cmos[REG_B] & B_UIE))
        return false;
    return l->level == (irqf(s) ? 1u : 0u) && !l->zero;
}
