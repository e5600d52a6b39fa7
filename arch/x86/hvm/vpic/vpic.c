/* Two 8259A interrupt controllers and ELCR: see vpic.h. */
#include "vpic.h"

enum { MASTER, SLAVE };
enum { ICW1_IC4 = 1, ICW1_SNGL = 2, ICW1_LTIM = 8, ICW1_STORED = ICW1_IC4 | ICW1_SNGL | ICW1_LTIM, ICW1_SELECT = 0x10 };
enum { ICW4_AEOI = 2, ICW4_SFNM = 0x10, ICW4_STORED = 0x1f };
enum { OCW3_RIS = 1, OCW3_RR = 2, OCW3_POLL = 4, OCW3_SELECT = 8, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };
/* OCW2, bits 7-5: rotate, specific, EOI. */
enum {
    OCW2_STOP_ROTATION, OCW2_EOI, OCW2_NOTHING, OCW2_SPECIFIC_EOI,
    OCW2_ROTATION, OCW2_ROTATE_EOI, OCW2_SET_PRIORITY, OCW2_ROTATE_SPECIFIC_EOI
};

#define CASCADE_LINE 2u
#define CASCADE (1u << CASCADE_LINE)
#define SPURIOUS_LINE 7u
#define CLOCK 1u /* IR0 of either chip: IRQ0 and IRQ8 */

/* The lines that ELCR can make level-triggered: not the timer, the keyboard, the cascade, the RTC and the FPU. */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

static uint8_t level_triggered(const struct vpic_chip *c)
{
    return c->icw1 & ICW1_LTIM ? 0xff : c->elcr;
}

/* The interrupt request register, as a guest reads it. */
static uint8_t irr(const struct vpic_chip *c)
{
    uint8_t level = level_triggered(c);
    return (uint8_t)((c->pins & level) | (c->edge & ~level));
}

/* Does a slave supply the vectors of the master's IR2? */
static bool cascaded(const struct vpic_chip *master)
{
    return !(master->icw1 & ICW1_SNGL) && (master->icw3 & CASCADE);
}

/* The line that the chip raises INT for, or VPIC_NONE. */
static unsigned request(const struct vpic *s, unsigned which)
{
    const struct vpic_chip *c = &s->chip[which];
    bool nested = which == MASTER && (c->icw4 & ICW4_SFNM) && cascaded(c);

    if (c->step != VPIC_READY)
        return VPIC_NONE;
    return vpic_resolve(irr(c), c->isr, c->imr, c->highest,
                        (c->special_mask ? VPIC_SPECIAL_MASK : 0) | (nested ? VPIC_SPECIAL_NESTED : 0));
}

static void set_pin(struct vpic_chip *c, unsigned line, bool high)
{
    uint8_t bit = (uint8_t)(1u << line);

    if (high) {
        c->edge |= bit & ~c->pins;
        c->pins |= bit;
    } else {
        c->pins &= ~bit;
        if (bit != CLOCK || (level_triggered(c) & bit))
            c->edge &= ~bit;
    }
}

/* Carries every change on to the outputs: the slave's INT to the master's IR2, the master's INT to the CPU. */
static void update(struct vpic *s, uint64_t now)
{
    unsigned line;

    set_pin(&s->chip[MASTER], CASCADE_LINE, request(s, SLAVE) != VPIC_NONE);
    line = request(s, MASTER);
    if (line != VPIC_NONE)
        s->from_slave = line == CASCADE_LINE && cascaded(&s->chip[MASTER]);
    line_set(&s->out.line[0], now, line != VPIC_NONE);
}

/* What the INTA cycles do to the chip whose `line` they acknowledge. */
static void acknowledge(struct vpic_chip *c, unsigned line)
{
    c->edge &= (uint8_t)~(1u << line);
    if (!(c->icw4 & ICW4_AEOI))
        c->isr |= (uint8_t)(1u << line);
    else if (c->rotate_aeoi)
        c->highest = (line + 1) & 7;
}

/* INTA makes a chip drop INT. Where it has more to ask for it raises INT again, with an edge. */
static void drop_int(struct vpic *s, uint64_t now, unsigned which)
{
    if (which == SLAVE) {
        set_pin(&s->chip[MASTER], CASCADE_LINE, false);
    } else {
        line_set(&s->out.line[0], now, false);
        s->from_slave = 0;
    }
}

/* The vector of a chip for a request on `line`; without a request it is IR7's, and nothing is in service. */
static uint8_t vector(struct vpic_chip *c, unsigned line)
{
    if (line == VPIC_NONE)
        return c->icw2 + SPURIOUS_LINE;
    acknowledge(c, line);
    return (uint8_t)(c->icw2 + line);
}

static uint8_t slave_vector(struct vpic *s)
{
    struct vpic_chip *c = &s->chip[SLAVE];

    if ((c->icw1 & ICW1_SNGL) || c->icw3 != CASCADE_LINE)
        return 0xff;
    return vector(c, request(s, SLAVE));
}

uint8_t vpic_intack(struct vpic *s, uint64_t now)
{
    unsigned line = request(s, MASTER);
    uint8_t v;

    if (line == VPIC_NONE && s->from_slave)
        line = CASCADE_LINE;
    v = vector(&s->chip[MASTER], line);
    drop_int(s, now, MASTER);
    if (line == CASCADE_LINE && cascaded(&s->chip[MASTER])) {
        v = slave_vector(s);
        drop_int(s, now, SLAVE);
    }
    update(s, now);
    return v;
}

/* A poll is an acknowledge of this chip alone. */
static uint8_t read_poll(struct vpic *s, uint64_t now, unsigned which)
{
    unsigned line = request(s, which);

    s->chip[which].poll = 0;
    if (line == VPIC_NONE)
        return 0;
    acknowledge(&s->chip[which], line);
    drop_int(s, now, which);
    update(s, now);
    return (uint8_t)(0x80 | line);
}

static uint8_t read_chip(struct vpic *s, uint64_t now, unsigned which, bool a0)
{
    const struct vpic_chip *c = &s->chip[which];

    if (c->poll)
        return read_poll(s, now, which);
    if (a0)
        return c->imr;
    return c->read_isr ? c->isr : irr(c);
}

static void write_icw1(struct vpic *s, unsigned which, uint8_t value)
{
    struct vpic_chip *c = &s->chip[which];

    c->edge = c->isr = c->imr = 0;
    c->icw1 = value & ICW1_STORED;
    c->icw4 = 0;
    c->highest = c->read_isr = c->poll = c->special_mask = c->rotate_aeoi = 0;
    c->step = VPIC_ICW2;
    s->from_slave = 0;
}

static void end_of_interrupt(struct vpic_chip *c, unsigned line, bool rotate)
{
    if (line == VPIC_NONE)
        return;
    c->isr &= (uint8_t)~(1u << line);
    if (rotate)
        c->highest = (line + 1) & 7;
}

static void write_ocw2(struct vpic_chip *c, uint8_t value)
{
    unsigned command = value >> 5, line = value & 7;

    switch (command) {
    case OCW2_STOP_ROTATION:
    case OCW2_ROTATION:
        c->rotate_aeoi = command == OCW2_ROTATION;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        line = vpic_first(c->special_mask ? c->isr & ~c->imr : c->isr, c->highest);
        end_of_interrupt(c, line, command == OCW2_ROTATE_EOI);
        break;
    case OCW2_SPECIFIC_EOI:
    case OCW2_ROTATE_SPECIFIC_EOI:
        end_of_interrupt(c, line, command == OCW2_ROTATE_SPECIFIC_EOI);
        break;
    case OCW2_SET_PRIORITY:
        c->highest = (line + 1) & 7;
        break;
    case OCW2_NOTHING:
        break;
    }
}

static void write_ocw3(struct vpic_chip *c, uint8_t value)
{
    if (value & OCW3_ESMM)
        c->special_mask = (value & OCW3_SMM) != 0;
    if (value & OCW3_RR)
        c->read_isr = value & OCW3_RIS;
    c->poll = (value & OCW3_POLL) != 0;
}

/* A write with A0 = 1: the next of the ICWs that ICW1 announced, else the mask. */
static void write_data(struct vpic_chip *c, bool slave, uint8_t value)
{
    uint8_t after = c->icw1 & ICW1_IC4 ? VPIC_ICW4 : VPIC_READY;

    switch (c->step) {
    case VPIC_ICW2:
        c->icw2 = value & 0xf8;
        c->step = c->icw1 & ICW1_SNGL ? after : VPIC_ICW3;
        break;
    case VPIC_ICW3:
        c->icw3 = slave ? value & 7 : value;
        c->step = after;
        break;
    case VPIC_ICW4:
        c->icw4 = value & ICW4_STORED;
        c->step = VPIC_READY;
        break;
    default:
        c->imr = value;
        break;
    }
}

static void write_chip(struct vpic *s, uint64_t now, unsigned which, bool a0, uint8_t value)
{
    struct vpic_chip *c = &s->chip[which];

    if (a0)
        write_data(c, which == SLAVE, value);
    else if (value & ICW1_SELECT)
        write_icw1(s, which, value);
    else if (value & OCW3_SELECT)
        write_ocw3(c, value);
    else
        write_ocw2(c, value);
    update(s, now);
}

static uint8_t read_byte(struct vpic *s, uint64_t now, unsigned offset)
{
    return offset < 4 ? read_chip(s, now, offset >> 1, offset & 1) : s->chip[offset & 1].elcr;
}

static void write_byte(struct vpic *s, uint64_t now, unsigned offset, uint8_t value)
{
    if (offset < 4) {
        write_chip(s, now, offset >> 1, offset & 1, value);
    } else {
        s->chip[offset & 1].elcr = value & elcr_writable[offset & 1];
        update(s, now);
    }
}

/* How many single bytes the ISA bus makes of an access; 0: undefined. */
static unsigned bytes_of(unsigned offset, unsigned size)
{
    static const uint8_t largest[6] = {2, 1, 2, 1, 2, 1};

    return offset < sizeof(largest) && (size == 1 || size == 2) && size <= largest[offset] ? size : 0;
}

uint64_t vpic_read(struct vpic *s, uint64_t now, unsigned offset, unsigned size)
{
    unsigned bytes = bytes_of(offset, size);
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)read_byte(s, now, offset + i) << (8 * i);
    return bytes ? value : all_ones(size);
}

void vpic_write(struct vpic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    unsigned bytes = bytes_of(offset, size);

    for (unsigned i = 0; i < bytes; i++)
        write_byte(s, now, offset + i, (uint8_t)(value >> (8 * i)));
}

void vpic_set_line(struct vpic *s, uint64_t now, unsigned line, bool level)
{
    if (line >= 16 || line == CASCADE_LINE)
        return;
    set_pin(&s->chip[line >> 3], line & 7, level);
    update(s, now);
}

void vpic_reset(struct vpic *s, uint64_t now)
{
    static const struct vpic power_on = {.chip = {{.step = VPIC_POWER_ON}, {.step = VPIC_POWER_ON}}};

    (void)now;
    *s = power_on;
}

void vpic_advance(struct vpic *s, uint64_t now)
{
    (void)s;
    (void)now;
}

uint64_t vpic_deadline(const struct vpic *s)
{
    (void)s;
    return NEVER;
}

/* The registers that the initialisation sequence fixes, against the step it has come to. */
static bool initialisation_fits(const struct vpic_chip *c)
{
    if (c->step == VPIC_POWER_ON)
        return !(c->isr | c->icw1 | c->icw2 | c->icw3 | c->icw4);
    if (c->step != VPIC_READY && (c->isr | c->imr | c->icw4))
        return false;
    if (c->step == VPIC_ICW3 && (c->icw1 & ICW1_SNGL))
        return false;
    return (c->icw1 & ICW1_IC4) || (c->step != VPIC_ICW4 && !c->icw4);
}

static bool check_chip(const struct vpic_chip *c, unsigned which)
{
    uint8_t may_outlast = level_triggered(c) & CLOCK ? 0 : CLOCK;

    return c->step <= VPIC_POWER_ON && initialisation_fits(c) && !(c->elcr & ~elcr_writable[which]) &&
           !(c->icw1 & ~ICW1_STORED) && !(c->icw2 & 7) && !(c->icw4 & ~ICW4_STORED) && (which == MASTER || c->icw3 <= 7) &&
           !(c->edge & ~c->pins & ~may_outlast) && !((c->icw4 & ICW4_AEOI) && c->isr) && c->highest <= 7 &&
           c->read_isr <= 1 && c->poll <= 1 && c->special_mask <= 1 && c->rotate_aeoi <= 1 && !c->zero;
}

bool vpic_check(const struct vpic *s)
{
    const struct line *l = &s->out.line[0];
    unsigned line;
    bool slave_int;

    if (!check_chip(&s->chip[MASTER], MASTER) || !check_chip(&s->chip[SLAVE], SLAVE) || s->from_slave > 1 || l->zero)
        return false;
    for (unsigned i = 0; i < sizeof(s->zero); i++)
        if (s->zero[i])
            return false;
    line = request(s, MASTER);
    slave_int = request(s, SLAVE) != VPIC_NONE;
    if (((s->chip[MASTER].pins & CASCADE) != 0) != slave_int || l->level != (line != VPIC_NONE))
        return false;
    if (line != VPIC_NONE)
        return s->from_slave == (line == CASCADE_LINE && cascaded(&s->chip[MASTER]));
    return !s->from_slave || (cascaded(&s->chip[MASTER]) && s->chip[MASTER].step == VPIC_READY &&
                              s->chip[SLAVE].step == VPIC_READY);
}
