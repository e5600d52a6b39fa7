/*
 * 8254 timer and port 0x61: see vpit.h.
 *
 * The state is explicit and belongs to one clock (`tick`). advance() carries it over any number of clocks in closed form; every
 * access advances first and then acts between two clocks, as a CPU does on the chip's asynchronous bus.
 */
#include "vpit.h"

/* Control word, bits 7-6 channel, 5-4 access, 3-1 mode, 0 BCD. */
enum { CW_BCD = 1, CW_STORED = 0x3f, CW_READ_BACK = 3 };
enum { RW_LATCH, RW_LSB, RW_MSB, RW_BOTH };
enum { LSB = 1, MSB = 2 };
/* Read-back command. */
enum { READ_BACK_NO_STATUS = 0x10, READ_BACK_NO_COUNT = 0x20 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { PORT61_STORED = 0x0e, PORT61_GATE2 = 1, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };
enum { CONTROL_WORD_OFFSET = 3, PORT61_OFFSET = 4, OFFSETS = 5 };

/* A count beyond which clocks cannot be told in master time. */
#define LAST_TICK (UINT64_MAX / MASTER_PER_PIT_TICK)

/* What tells the six modes apart. */
static const struct {
    bool idle_out;  /* OUT after a control word */
    bool on_write;  /* a new count is loaded at the next clock */
    bool on_gate;   /* a rise of GATE loads the count at the next clock */
    bool gated;     /* counts only while GATE is high */
    bool periodic;  /* OUT repeats; it is high while GATE is low */
    bool strobe;    /* OUT is low for one clock when the count is over */
    bool load_out;  /* OUT after the count is loaded */
} modes[8] = {
    {.idle_out = 0, .on_write = 1, .gated = 1, .load_out = 0},
    {.idle_out = 1, .on_gate = 1, .load_out = 0},
    {.idle_out = 1, .on_gate = 1, .gated = 1, .periodic = 1, .load_out = 1},
    {.idle_out = 1, .on_gate = 1, .gated = 1, .periodic = 1, .load_out = 1},
    {.idle_out = 1, .on_write = 1, .gated = 1, .strobe = 1, .load_out = 1},
    {.idle_out = 1, .on_gate = 1, .strobe = 1, .load_out = 1},
    /* 6 and 7 are 2 and 3 */
    {.idle_out = 1, .on_gate = 1, .gated = 1, .periodic = 1, .load_out = 1},
    {.idle_out = 1, .on_gate = 1, .gated = 1, .periodic = 1, .load_out = 1},
};

static unsigned mode_bits(const struct vpit_channel *c)
{
    return (c->control >> 1) & 7;
}

static bool square_wave(const struct vpit_channel *c)
{
    return (mode_bits(c) & 3) == 3;
}

static unsigned access_mode(const struct vpit_channel *c)
{
    return c->control >> 4;
}

static uint32_t modulus(const struct vpit_channel *c)
{
    return c->control & CW_BCD ? 10000 : 65536;
}

/* A number from the chip's 16 bits. */
static uint32_t decode(const struct vpit_channel *c, uint16_t raw)
{
    if (!(c->control & CW_BCD))
        return raw;
    return ((raw >> 12) * 1000u + ((raw >> 8) & 15) * 100u + ((raw >> 4) & 15) * 10u + (raw & 15)) % 10000;
}

/* The counting element as the chip shows it. */
static uint16_t shown(const struct vpit_channel *c)
{
    uint32_t n = c->ce % modulus(c);

    if (!c->counting)
        return (uint16_t)c->ce;
    if (!(c->control & CW_BCD))
        return (uint16_t)n;
    return (uint16_t)(n / 1000 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10);
}

/* The count in cr, in clocks: 0 is the modulus; in the periodic modes 1 goes around once more. */
static uint32_t initial_count(const struct vpit_channel *c)
{
    uint32_t n = decode(c, c->cr);
    return n > (modes[mode_bits(c)].periodic ? 1u : 0u) ? n : n + modulus(c);
}

/* Will the next clock load cr into ce? */
static bool load_due(const struct vpit_channel *c)
{
    unsigned m = mode_bits(c);

    return c->written && ((modes[m].on_write && c->null) || (modes[m].on_gate && c->trigger) ||
                          (modes[m].periodic && !c->counting));
}

/* Does a clock that does not load count? A count of which half is written stops mode 0. */
static bool counts(const struct vpit_channel *c)
{
    return c->counting && (c->gate || !modes[mode_bits(c)].gated) && !(mode_bits(c) == 0 && c->half);
}

/* Mode 3: clocks until OUT changes. The chip counts by two, and an odd count spends one clock more at 0 with OUT high. */
static uint32_t half_cycle_left(const struct vpit_channel *c, bool out)
{
    return c->ce / 2 + (c->odd && out);
}

/* `rises` rising edges, the last at clock `tick`. */
static void pulse(struct line *out, uint64_t rises, uint64_t tick, bool level)
{
    line_pulse(out, rises, tick * MASTER_PER_PIT_TICK, level);
}

/* A clock loads the counter. That never raises OUT: where it ends up high, it is high already. */
static void load(struct vpit_channel *c, struct line *out)
{
    uint32_t n = initial_count(c);

    c->odd = square_wave(c) && (n & 1);
    c->ce = n - c->odd;
    c->null = c->done = 0;
    c->counting = 1;
    out->level = modes[mode_bits(c)].load_out;
}

/* Modes 0, 1, 4, 5: `d` clocks of counting after clock `t`. ce goes on below 0, but OUT acts only the first time. */
static void count_once(struct vpit_channel *c, struct line *out, uint64_t t, uint64_t d)
{
    uint32_t m = modulus(c);
    bool strobe = modes[mode_bits(c)].strobe;

    if (!c->done && d >= c->ce) {
        uint64_t end = t + c->ce;
        c->done = 1;
        if (!strobe)
            line_set(out, end * MASTER_PER_PIT_TICK, true);
        else if (d == c->ce)
            out->level = 0;
        else
            pulse(out, 1, end + 1, true);
    }
    c->ce = (uint32_t)((c->ce + m - d % m) % m);
}

/* Mode 2: `d` clocks of counting after clock `t`. OUT is low while ce is 1; the next clock reloads and raises it. */
static void count_rate(struct vpit_channel *c, struct line *out, uint64_t t, uint64_t d)
{
    if (d < c->ce) {
        c->ce -= (uint32_t)d;
    } else {
        uint32_t n = initial_count(c);
        uint64_t since = d - c->ce; /* the first reload */
        uint64_t last = t + d - since % n;
        c->ce = n - (uint32_t)(since % n);
        c->null = 0;
        pulse(out, 1 + since / n, last, true);
    }
    out->level = c->ce != 1;
}

/* Mode 3: `d` clocks of counting after clock `t`. */
static void count_square(struct vpit_channel *c, struct line *out, uint64_t t, uint64_t d)
{
    uint32_t left = half_cycle_left(c, out->level), n, len, in_cycle;
    uint64_t since, cycle;
    bool first = !out->level, level = first;

    if (d < left) {
        c->ce -= 2 * (uint32_t)d;
        return;
    }
    /* The first change of OUT, to `first`, takes the new count; whole cycles of n clocks follow. */
    n = initial_count(c);
    since = d - left;
    in_cycle = (uint32_t)(since % n);
    cycle = t + d - in_cycle; /* the last cycle's beginning */
    len = first ? n - n / 2 : n / 2;
    if (in_cycle >= len) {
        level = !first;
        in_cycle -= len;
    }
    if (first)
        pulse(out, 1 + since / n, cycle, level);
    else if (level)
        pulse(out, 1 + since / n, cycle + len, level);
    else
        pulse(out, since / n, cycle - n + len, level);
    c->null = 0;
    c->odd = n & 1;
    c->ce = n - c->odd - 2 * in_cycle;
}

/* `d` clocks, at least one, after clock `t`, with no event between them. */
static void advance_channel(struct vpit_channel *c, struct line *out, uint64_t t, uint64_t d)
{
    bool load_first = load_due(c);

    if (modes[mode_bits(c)].strobe && !out->level)
        pulse(out, 1, t + 1, true);
    c->trigger = 0;
    if (load_first) {
        load(c, out);
        t++;
        d--;
    }
    if (d == 0 || !counts(c))
        return;
    if (!modes[mode_bits(c)].periodic)
        count_once(c, out, t, d);
    else if (square_wave(c))
        count_square(c, out, t, d);
    else
        count_rate(c, out, t, d);
}

void vpit_advance(struct vpit *s, uint64_t now)
{
    uint64_t tick = now / MASTER_PER_PIT_TICK;

    if (tick <= s->tick)
        return;
    for (unsigned i = 0; i < VPIT_CHANNELS; i++)
        advance_channel(&s->channel[i], &s->out.line[i], s->tick, tick - s->tick);
    s->tick = tick;
}

/* Clocks from now until OUT rises if the clocks just go on; 0: it does not. */
static uint64_t clocks_to_rise(const struct vpit_channel *after, bool out, bool load_first)
{
    struct vpit_channel c = *after;
    struct line l = {.level = out};
    uint64_t wait = 0;

    if (modes[mode_bits(&c)].strobe && !out)
        return 1;
    if (load_first) {
        load(&c, &l);
        wait = 1;
    }
    if (!counts(&c))
        return 0;
    if (modes[mode_bits(&c)].strobe)
        return c.done ? 0 : wait + c.ce + 1;
    if (!modes[mode_bits(&c)].periodic)
        return l.level ? 0 : wait + c.ce;
    if (!square_wave(&c))
        return wait + c.ce;
    return wait + half_cycle_left(&c, l.level) + (l.level ? initial_count(&c) / 2 : 0);
}

uint64_t vpit_deadline(const struct vpit *s)
{
    const struct vpit_channel *c = &s->channel[0];
    uint64_t clocks = clocks_to_rise(c, s->out.line[0].level, load_due(c));

    if (!clocks || clocks > LAST_TICK - s->tick)
        return NEVER;
    return (s->tick + clocks) * MASTER_PER_PIT_TICK;
}

uint64_t vpit_period(const struct vpit *s)
{
    const struct vpit_channel *c = &s->channel[0];

    return modes[mode_bits(c)].periodic && counts(c) ? (uint64_t)initial_count(c) * MASTER_PER_PIT_TICK : 0;
}

/* Latches the count, unless one is latched already and not read in full. */
static void latch_count(struct vpit_channel *c)
{
    if (c->latched)
        return;
    c->latch = shown(c);
    c->latched = (uint8_t)access_mode(c); /* its two bits are LSB and MSB */
}

static void latch_status(struct vpit_channel *c, bool out)
{
    if (c->status_latched)
        return;
    c->status = (uint8_t)((out ? STATUS_OUT : 0) | (c->null ? STATUS_NULL : 0) | c->control);
    c->status_latched = 1;
}

static void read_back(struct vpit *s, uint8_t command)
{
    for (unsigned i = 0; i < VPIT_CHANNELS; i++) {
        if (!(command & (2u << i)))
            continue;
        if (!(command & READ_BACK_NO_COUNT))
            latch_count(&s->channel[i]);
        if (!(command & READ_BACK_NO_STATUS))
            latch_status(&s->channel[i], s->out.line[i].level);
    }
}

/* A control word stops the counter, sets OUT to the mode's beginning and forgets counts and latches, all but ce's bits. */
static void program(struct vpit_channel *c, struct line *out, uint64_t now, uint8_t control)
{
    struct vpit_channel fresh = {.ce = shown(c), .control = control, .gate = c->gate, .null = 1};

    *c = fresh;
    line_set(out, now, modes[mode_bits(c)].idle_out);
}

static void write_control_word(struct vpit *s, uint64_t now, uint8_t value)
{
    unsigned i = value >> 6;

    if (i == CW_READ_BACK)
        read_back(s, value);
    else if (((value >> 4) & 3) == RW_LATCH)
        latch_count(&s->channel[i]);
    else
        program(&s->channel[i], &s->out.line[i], now, value & CW_STORED);
}

static void write_count(struct vpit_channel *c, struct line *out, uint64_t now, uint8_t value)
{
    unsigned rw = access_mode(c);

    if (mode_bits(c) == 0)
        line_set(out, now, false);
    if (rw == RW_BOTH && !c->half) {
        c->low_byte = value;
        c->half = 1;
        return;
    }
    c->cr = rw == RW_LSB ? value : (uint16_t)(value << 8 | c->low_byte);
    c->low_byte = c->half = 0;
    c->written = c->null = 1;
}

static uint8_t read_latch(struct vpit_channel *c)
{
    bool msb = !(c->latched & LSB);

    c->latched &= msb ? 0 : MSB;
    return (uint8_t)(msb ? c->latch >> 8 : c->latch);
}

static uint8_t read_count(struct vpit_channel *c)
{
    uint16_t count = shown(c);
    bool msb = access_mode(c) == RW_MSB || c->read_msb;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched)
        return read_latch(c);
    if (access_mode(c) == RW_BOTH)
        c->read_msb = !msb;
    return (uint8_t)(msb ? count >> 8 : count);
}

static void set_gate(struct vpit_channel *c, struct line *out, uint64_t now, bool level)
{
    if (level && !c->gate)
        c->trigger = modes[mode_bits(c)].on_gate;
    if (!level && modes[mode_bits(c)].periodic)
        line_set(out, now, true);
    c->gate = level;
}

void vpit_set_line(struct vpit *s, uint64_t now, unsigned line, bool level)
{
    vpit_advance(s, now);
    if (line < VPIT_CHANNELS)
        set_gate(&s->channel[line], &s->out.line[line], now, level);
}

static uint8_t read_port61(const struct vpit *s, uint64_t now)
{
    bool refresh = now / (MASTER_PER_PIT_TICK * VPIT_REFRESH_TICKS) & 1;

    return (uint8_t)(s->port61 | (s->channel[2].gate ? PORT61_GATE2 : 0) | (refresh ? PORT61_REFRESH : 0) |
                     (s->out.line[2].level ? PORT61_OUT2 : 0));
}

uint64_t vpit_read(struct vpit *s, uint64_t now, unsigned offset, unsigned size)
{
    vpit_advance(s, now);
    if (size != 1 || offset >= OFFSETS || offset == CONTROL_WORD_OFFSET)
        return all_ones(size);
    if (offset == PORT61_OFFSET)
        return read_port61(s, now);
    return read_count(&s->channel[offset]);
}

void vpit_write(struct vpit *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    vpit_advance(s, now);
    if (size != 1 || offset >= OFFSETS)
        return;
    if (offset == PORT61_OFFSET) {
        s->port61 = value & PORT61_STORED;
        vpit_set_line(s, now, 2, value & PORT61_GATE2);
    } else if (offset == CONTROL_WORD_OFFSET) {
        write_control_word(s, now, (uint8_t)value);
    } else {
        write_count(&s->channel[offset], &s->out.line[offset], now, (uint8_t)value);
    }
}

void vpit_reset(struct vpit *s, uint64_t now)
{
    static const struct vpit_channel idle = {.control = RW_BOTH << 4 | 3 << 1, .null = 1};
    static const struct vpit power_on = {.out = {{{.level = 1}, {.level = 1}, {.level = 1}}}};

    *s = power_on;
    s->tick = now / MASTER_PER_PIT_TICK;
    for (unsigned i = 0; i < VPIT_CHANNELS; i++) {
        s->channel[i] = idle;
        s->channel[i].gate = i != 2;
    }
}

/* Flags are 0 or 1, and what is latched or half written fits the access mode. */
static bool check_registers(const struct vpit_channel *c)
{
    unsigned rw = access_mode(c);
    uint8_t flags = c->status_latched | c->half | c->read_msb | c->gate | c->trigger | c->written | c->null | c->counting |
                    c->done | c->odd;

    if ((flags & ~1) || c->zero[0] || c->zero[1] || c->control > CW_STORED || rw == RW_LATCH)
        return false;
    if ((c->half || c->read_msb) && rw != RW_BOTH)
        return false;
    return !(c->latched & ~rw) && c->latched != (rw == RW_BOTH ? LSB : 0xff) && (c->half || !c->low_byte);
}

/* The counting element is where the mode can bring it, and OUT is what the mode makes of it. */
static bool check_counter(const struct vpit_channel *c, bool out)
{
    unsigned m = mode_bits(c);
    bool waits = c->null && c->written;

    if ((c->counting && !c->written) || (!c->counting && (!c->null || c->done || c->odd)))
        return false;
    if (!c->counting)
        return c->ce <= 0xffff && out == modes[m].idle_out;
    if (square_wave(c))
        return c->ce <= modulus(c) && c->ce % 2 == 0 && (c->ce || (c->odd && out)) && !c->done &&
               (out || (c->gate && !c->trigger)); /* GATE low raises OUT, and a clock takes the trigger that follows */
    if (c->odd)
        return false;
    if (modes[m].periodic)
        return c->ce >= 1 && c->ce <= modulus(c) + 1 && out == (c->ce != 1 || !c->gate || c->trigger) && !c->done;
    if (c->done ? c->ce >= modulus(c) : c->ce < 1 || c->ce > modulus(c))
        return false;
    if (modes[m].strobe)
        return out || (c->done && !c->ce);
    return out == c->done || (m == 0 && !out && (c->half || waits));
}

bool vpit_check(const struct vpit *s)
{
    for (unsigned i = 0; i < VPIT_CHANNELS; i++) {
        const struct vpit_channel *c = &s->channel[i];
        const struct line *l = &s->out.line[i];
        bool known = !c->trigger || modes[mode_bits(c)].on_gate;

        if (l->level > 1 || l->zero || !known || !check_registers(c) || !check_counter(c, l->level))
            return false;
    }
    for (unsigned i = 0; i < sizeof(s->zero); i++)
        if (s->zero[i])
            return false;
    return s->tick <= LAST_TICK && !(s->port61 & ~PORT61_STORED);
}
