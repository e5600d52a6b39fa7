#include "vioapic.h"

/* A redirection entry (82093AA 3.2.4); delivery status (12) and remote IRR (14) are kept as masks over the pins. */
#define RTE_VECTOR 0xffull
#define RTE_DELIVERY_SHIFT 8
#define RTE_LOGICAL (1ull << 11)
#define RTE_PENDING (1ull << 12)
#define RTE_ACTIVE_LOW (1ull << 13)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_DEST_SHIFT 56
#define RTE_WRITABLE_LOW 0x1afffull
#define RTE_WRITABLE_HIGH 0xff00000000000000ull
#define RTE_FIRST 0x10u /* index of the first entry's low half */

/* Delivery modes that a pin can send, as a bit set. */
#define SENDABLE \
    (1u << DELIVER_FIXED | 1u << DELIVER_LOWEST | 1u << DELIVER_SMI | 1u << DELIVER_NMI | 1u << DELIVER_INIT | \
     1u << DELIVER_EXTINT)

static inline uint64_t pin_bit(unsigned pin)
{
    return (uint64_t)1 << pin;
}

static inline uint64_t all_pins(const struct vioapic *s)
{
    return pin_bit(s->pins) - 1;
}

/* The number of the lowest bit set; 63 for an empty mask. */
static inline unsigned lowest(uint64_t mask)
{
    return mask ? (unsigned)__builtin_ctzll(mask) : 63;
}

static inline unsigned delivery_of(uint64_t entry)
{
    return (unsigned)(entry >> RTE_DELIVERY_SHIFT) & 7;
}

/* Level-triggered in effect: only fixed and lowest priority deliveries can be. */
static inline bool is_level(uint64_t entry)
{
    return (entry & RTE_LEVEL) && delivery_of(entry) <= DELIVER_LOWEST;
}

static inline bool can_send(uint64_t entry)
{
    return !(entry & RTE_MASKED) && (SENDABLE >> delivery_of(entry) & 1);
}

/* Does the pin see its line as active, by the wiring and the entry's polarity? */
static bool is_active(const struct vioapic *s, unsigned pin)
{
    bool inverted = (s->active_low_pins >> pin & 1) != ((s->entry[pin] & RTE_ACTIVE_LOW) != 0);
    return (s->lines >> pin & 1) != inverted;
}

/* Ends the run of re-fires and any hold-off. */
static void calm(struct vioapic *s, unsigned pin)
{
    s->refires[pin] = 0;
    s->hold_shift[pin] = 0;
    s->hold_until[pin] = 0;
    s->held_mask &= ~pin_bit(pin);
}

/* Makes the pending bit of a level pin follow its conditions. */
static void evaluate_level(struct vioapic *s, unsigned pin)
{
    uint64_t bit = pin_bit(pin);
    bool active = is_active(s, pin);
    if (!active)
        calm(s, pin);
    if (active && can_send(s->entry[pin]) && !((s->remote_irr | s->held_mask) & bit))
        s->pending_mask |= bit;
    else
        s->pending_mask &= ~bit;
}

static struct bus_message message_of(uint64_t entry)
{
    struct bus_message m = {
        .kind = BUS_INTERRUPT,
        .vector = (uint8_t)(entry & RTE_VECTOR),
        .delivery = (uint8_t)delivery_of(entry),
        .flags = (uint8_t)(BUS_ASSERT | (entry & RTE_LOGICAL ? BUS_LOGICAL : 0) | (is_level(entry) ? BUS_LEVEL : 0)),
        .dest = (uint32_t)(entry >> RTE_DEST_SHIFT),
    };
    return m;
}

/* Moves the lowest pending delivery into the slot, if that is free. */
static void fill_slot(struct vioapic *s, uint64_t now)
{
    if (!s->pending_mask || s->out.message.kind != BUS_NONE)
        return;
    unsigned pin = lowest(s->pending_mask);
    if (pin >= VIOAPIC_MAX_PINS)
        return;
    s->pending_mask &= ~pin_bit(pin);
    s->out.message = message_of(s->entry[pin]);
    s->out.pin = pin;
    if (is_level(s->entry[pin])) {
        s->remote_irr |= pin_bit(pin);
        s->sent_at[pin] = now;
    }
}

/* Ends the hold-offs that are over; one that is further off than any can be (time went back) is over too. */
static void release_holds(struct vioapic *s, uint64_t now)
{
    for (uint64_t held = s->held_mask; held; held &= held - 1) {
        unsigned pin = lowest(held);
        if (pin >= VIOAPIC_MAX_PINS)
            return;
        if (now < s->hold_until[pin] && s->hold_until[pin] - now <= VIOAPIC_HOLD_MAX)
            continue;
        s->held_mask &= ~pin_bit(pin);
        s->hold_until[pin] = 0;
        evaluate_level(s, pin);
    }
}

void vioapic_advance(struct vioapic *s, uint64_t now)
{
    release_holds(s, now);
    fill_slot(s, now);
}

uint64_t vioapic_deadline(const struct vioapic *s)
{
    uint64_t earliest = NEVER;
    for (uint64_t held = s->held_mask; held; held &= held - 1) {
        unsigned pin = lowest(held);
        if (pin < VIOAPIC_MAX_PINS && s->hold_until[pin] < earliest)
            earliest = s->hold_until[pin];
    }
    return earliest;
}

void vioapic_set_line(struct vioapic *s, uint64_t now, unsigned pin, bool level)
{
    release_holds(s, now);
    if (pin < s->pins && pin < VIOAPIC_MAX_PINS) {
        bool was = is_active(s, pin);
        if (level)
            s->lines |= pin_bit(pin);
        else
            s->lines &= ~pin_bit(pin);
        if (is_level(s->entry[pin])) {
            calm(s, pin); /* a source changed: whatever the pin shows, a device was served */
            evaluate_level(s, pin);
        } else if (!was && is_active(s, pin) && can_send(s->entry[pin])) {
            s->pending_mask |= pin_bit(pin);
        }
    }
    fill_slot(s, now);
}

void vioapic_set_wiring(struct vioapic *s, uint64_t now, uint64_t active_low_pins)
{
    release_holds(s, now);
    s->active_low_pins = active_low_pins & all_pins(s);
    for (unsigned pin = 0; pin < s->pins && pin < VIOAPIC_MAX_PINS; pin++) {
        if (is_level(s->entry[pin]))
            evaluate_level(s, pin);
    }
    fill_slot(s, now);
}

/* A level pin fires again at its EOI: counts the run, and holds the re-fire off where it has become a storm. */
static void note_refire(struct vioapic *s, uint64_t now, unsigned pin)
{
    uint64_t spent = now > s->sent_at[pin] ? now - s->sent_at[pin] : 0;
    if (spent > VIOAPIC_STORM_QUICK) {
        calm(s, pin);
    } else if (s->refires[pin] < VIOAPIC_STORM_RUN) {
        s->refires[pin]++;
    } else {
        unsigned shift = s->hold_shift[pin]; /* a copy, so that Eva sees that it stays in bounds */
        uint64_t hold = (uint64_t)VIOAPIC_HOLD_MIN << shift;
        s->storms[pin]++;
        s->held_mask |= pin_bit(pin);
        s->hold_until[pin] = now < NEVER - 1 - hold ? now + hold : NEVER - 1;
        if (shift < VIOAPIC_HOLD_DOUBLINGS)
            s->hold_shift[pin] = (uint8_t)(shift + 1);
    }
}

void vioapic_eoi(struct vioapic *s, uint64_t now, uint8_t vector)
{
    release_holds(s, now);
    for (uint64_t ended = s->vector_pins[vector] & s->remote_irr; ended; ended &= ended - 1) {
        unsigned pin = lowest(ended);
        if (pin >= VIOAPIC_MAX_PINS)
            break;
        s->remote_irr &= ~pin_bit(pin);
        if (is_active(s, pin) && can_send(s->entry[pin]))
            note_refire(s, now, pin);
        evaluate_level(s, pin);
    }
    fill_slot(s, now);
}

struct bus_message vioapic_message(const struct vioapic *s, unsigned pin)
{
    const struct bus_message none = {.kind = BUS_NONE};

    return pin < VIOAPIC_MAX_PINS && can_send(s->entry[pin]) ? message_of(s->entry[pin]) : none;
}

/* The low half of an entry. The high half is a plain store, since it can neither trigger nor end anything. */
static void write_entry_low(struct vioapic *s, unsigned pin, uint32_t value)
{
    uint64_t bit = pin_bit(pin), old = s->entry[pin];
    uint64_t new = (old & RTE_WRITABLE_HIGH) | (value & RTE_WRITABLE_LOW);

    s->entry[pin] = new;
    s->vector_pins[old & RTE_VECTOR] &= ~bit;
    if (is_level(old) != is_level(new) || !can_send(new))
        s->pending_mask &= ~bit;
    if (is_level(new)) {
        s->vector_pins[new & RTE_VECTOR] |= bit;
        evaluate_level(s, pin);
    } else {
        s->remote_irr &= ~bit;
        calm(s, pin);
    }
}

/* The registers behind IOWIN. */
static uint32_t read_indexed(const struct vioapic *s)
{
    unsigned index = s->index, pin = (index - RTE_FIRST) / 2;
    const uint32_t fixed[4] = {
        (uint32_t)s->id << 24,           /* ID */
        0x20 | (s->pins - 1) << 16,      /* version, last entry */
        (uint32_t)s->id << 24,           /* arbitration ID */
        1,                               /* boot configuration: front side bus delivery */
    };
    if (index < 4)
        return fixed[index];
    if (index < RTE_FIRST || pin >= s->pins || pin >= VIOAPIC_MAX_PINS)
        return 0xffffffff;
    uint64_t entry = s->entry[pin] | (s->pending_mask >> pin & 1 ? RTE_PENDING : 0) |
                     (s->remote_irr >> pin & 1 ? RTE_REMOTE_IRR : 0);
    return (uint32_t)(index & 1 ? entry >> 32 : entry);
}

static void write_indexed(struct vioapic *s, uint64_t now, uint32_t value)
{
    unsigned index = s->index, pin = (index - RTE_FIRST) / 2;
    (void)now;
    if (index == 0)
        s->id = value >> 24 & 0xf;
    if (index < RTE_FIRST || pin >= s->pins || pin >= VIOAPIC_MAX_PINS)
        return;
    if (index & 1)
        s->entry[pin] = (s->entry[pin] & RTE_WRITABLE_LOW) | ((uint64_t)value << 32 & RTE_WRITABLE_HIGH);
    else
        write_entry_low(s, pin, value);
}

static uint32_t read_select(const struct vioapic *s)
{
    return s->index;
}

static void write_select(struct vioapic *s, uint64_t now, uint32_t value)
{
    (void)now;
    s->index = (uint8_t)value;
}

static void write_eoir(struct vioapic *s, uint64_t now, uint32_t value)
{
    vioapic_eoi(s, now, (uint8_t)value);
}

/* The memory-mapped registers; `sizes` has a bit per access size allowed (1, 2, 4). */
static const struct vioapic_register {
    unsigned offset, sizes;
    uint32_t (*read)(const struct vioapic *s);
    void (*write)(struct vioapic *s, uint64_t now, uint32_t value);
} registers[] = {
    {0x00, 1 | 2 | 4, read_select, write_select},
    {0x10, 4, read_indexed, write_indexed},
    {0x40, 1 | 2 | 4, NULL, write_eoir},
};

static const struct vioapic_register *find_register(unsigned offset, unsigned size)
{
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
        if (registers[i].offset == offset && (size == 1 || size == 2 || size == 4) && (registers[i].sizes & size))
            return &registers[i];
    }
    return NULL;
}

uint64_t vioapic_read(struct vioapic *s, uint64_t now, unsigned offset, unsigned size)
{
    const struct vioapic_register *r = find_register(offset, size);
    vioapic_advance(s, now);
    return r && r->read ? r->read(s) & all_ones(size) : all_ones(size);
}

void vioapic_write(struct vioapic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    const struct vioapic_register *r = find_register(offset, size);
    release_holds(s, now);
    if (r && r->write)
        r->write(s, now, (uint32_t)(value & all_ones(size)));
    fill_slot(s, now);
}

void vioapic_reset(struct vioapic *s, uint64_t now, unsigned pins, uint8_t id)
{
    (void)now;
    *s = (struct vioapic){.out.message.kind = BUS_NONE};
    s->pins = pins < VIOAPIC_MIN_PINS ? VIOAPIC_MIN_PINS : pins > VIOAPIC_MAX_PINS ? VIOAPIC_MAX_PINS : pins;
    s->id = id & 0xf;
    s->active_low_pins = all_pins(s) & ~(uint64_t)0xffff;
    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++)
        s->entry[pin] = RTE_MASKED;
}

static bool check_pin(const struct vioapic *s, unsigned pin)
{
    uint64_t bit = pin_bit(pin), entry = s->entry[pin];
    bool held = s->held_mask & bit, pending = s->pending_mask & bit, ended = !(s->remote_irr & bit);

    if (entry & ~(RTE_WRITABLE_LOW | RTE_WRITABLE_HIGH))
        return false;
    if (pin >= s->pins && (entry != RTE_MASKED || s->sent_at[pin]))
        return false;
    if (s->refires[pin] > VIOAPIC_STORM_RUN || s->hold_shift[pin] > VIOAPIC_HOLD_DOUBLINGS)
        return false;
    if (held != (s->hold_until[pin] != 0) || (s->hold_shift[pin] && s->refires[pin] != VIOAPIC_STORM_RUN))
        return false;
    if (!is_level(entry))
        return ended && !held && !s->refires[pin] && (!pending || can_send(entry));
    if (!(s->vector_pins[entry & RTE_VECTOR] & bit))
        return false;
    if (held && (!is_active(s, pin) || !ended || !s->hold_shift[pin]))
        return false;
    if (s->refires[pin] && !is_active(s, pin))
        return false;
    return pending == (is_active(s, pin) && can_send(entry) && ended && !held);
}

static bool check_message(const struct bus_message *m)
{
    return (m->kind == BUS_NONE || m->kind == BUS_INTERRUPT) && m->delivery < 8 && (SENDABLE >> m->delivery & 1) &&
           !(m->flags & ~(BUS_LOGICAL | BUS_LEVEL | BUS_ASSERT)) && m->shorthand == SHORTHAND_NONE && m->dest <= 0xff &&
           !(m->zero[0] | m->zero[1] | m->zero[2]);
}

bool vioapic_check(const struct vioapic *s)
{
    uint64_t seen = 0, level = 0, used;
    if (s->pins < VIOAPIC_MIN_PINS || s->pins > VIOAPIC_MAX_PINS || s->id > 0xf || s->zero[0] || s->zero[1])
        return false;
    used = s->lines | s->active_low_pins | s->remote_irr | s->pending_mask | s->held_mask;
    if ((used & ~all_pins(s)) || s->out.pin >= s->pins || !check_message(&s->out.message))
        return false;
    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++) {
        if (!check_pin(s, pin))
            return false;
        if (is_level(s->entry[pin]))
            level |= pin_bit(pin);
    }
    /* Every level pin is in the map once: where its vector is, as check_pin saw. */
    for (unsigned vector = 0; vector < 256; vector++) {
        if (s->vector_pins[vector] & seen)
            return false;
        seen |= s->vector_pins[vector];
    }
    return seen == level;
}
