/*
 * The interrupt fabric's lines: model outputs, ISA and PCI lines, wired-OR onto the pins of PIC and I/O APIC. Order of
 * evaluation is fixed: timers, then PIC and I/O APIC, then local APICs. Messages are in message.c; what becomes of missed
 * ticks is ticks/'s.
 */
#include "hvm.h"

#define NO_GSI 0xffu
#define DM_SOURCES (1u << SOURCE_DM_ISA | 1u << SOURCE_DM_SCI) /* and the links, by link_devices */
/* Messages that one update can carry: each pin and comparator once and again. More than that waits for the next one. */
#define MESSAGE_BOUND 128u
/* The budget of a domain's chipset timers: at most 200,000 expiries a second take time from others on their pCPU. Ticks that
 * are due faster are found several at a time: all but one are missed, and the source's policy says what becomes of them. */
#define EXPIRY_GAP_US 5u
/* The route of a tick that goes as no vector to a local APIC: latched by the PIC; to where it is not seen when it is taken
 * (NMI); or lost. A vector's is its message, which has BUS_ASSERT. */
enum { ROUTE_NOWHERE, ROUTE_PIC, ROUTE_UNSEEN };

/* ISA lines sit on I/O APIC pins of the same number but for the PIT's: IRQ 0 is on pin 2, and the cascade on none. */
static unsigned pin_of(unsigned gsi)
{
    return gsi == 0 ? 2 : gsi;
}

static void set_pin(struct domain *d, uint64_t now, unsigned gsi, bool level)
{
    if (gsi < 16) {
        if (trace_on(TRACE_EMUL_PIC_RISE))
            trace_record(level ? TRACE_EMUL_PIC_RISE : TRACE_EMUL_PIC_FALL, gsi);
        vpic_set_line(&d->chipset.vpic, now, gsi, level);
    }
    if (gsi != 2)
        vioapic_set_line(&d->chipset.vioapic, now, pin_of(gsi), level);
}

/* Wired-OR: a pin is high while any source asserts it. A source that comes or goes under another's level is told too: the
 * I/O APIC's storm hold-off tells a shared line from a storm by it. */
static void drive(struct domain *d, uint64_t now, unsigned gsi, unsigned source, bool level)
{
    uint32_t *sources = &d->chipset.gsi_sources[gsi];
    uint32_t before = *sources;

    *sources = level ? before | 1u << source : before & ~(1u << source);
    if (before == *sources)
        return;
    if (level)
        d->chipset.risen[gsi] = (uint8_t)source;
    trace_put(TRACE_LINE, gsi, level, source);
    set_pin(d, now, gsi, *sources != 0);
    hvm_breathe();
}

/* What an edge triggers on a pin, whatever level it leaves. */
static void pulse(struct domain *d, uint64_t now, unsigned source, unsigned gsi, bool level)
{
    drive(d, now, gsi, source, false);
    drive(d, now, gsi, source, true);
    drive(d, now, gsi, source, level);
}

/* Carries a model's line to a pin. Several edges since the last look are one. */
static void follow(struct domain *d, uint64_t now, unsigned source, unsigned gsi, const struct line *line)
{
    struct chipset *c = &d->chipset;

    if (line->rises == c->rises_seen[source]) {
        drive(d, now, gsi, source, line->level);
        return;
    }
    c->rises_seen[source] = line->rises;
    if (source < TICK_SOURCES)
        c->due[source] = line->last_rise;
    pulse(d, now, source, gsi, line->level);
}

/* ---- Where an interrupt comes from ---- */

/* Its moment counts once: what a level triggers again was not due then. */
static struct cause cause_of(struct domain *d, unsigned source, enum metronome_inject_source way)
{
    struct cause cause = {.way = way, .source = chipset_latency_source(source)};

    if (source < TICK_SOURCES && d->chipset.due[source]) {
        cause.due = vtime_tsc_of_master(&d->time, d->chipset.due[source]);
        d->chipset.due[source] = 0;
    }
    return cause;
}

/* By the line that rose last where one is on the pin that sends. */
static struct cause cause_of_pin(struct domain *d, unsigned pin)
{
    return cause_of(d, d->chipset.risen[pin == 2 ? 0 : pin], METRONOME_INJECT_IOAPIC);
}

/* ---- Ticks ---- */

static bool latched(const struct chipset *c, unsigned gsi)
{
    return c->vpic.chip[gsi >> 3].edge >> (gsi & 7) & 1;
}

static uint64_t route_of_message(struct bus_message m)
{
    if (m.delivery > DELIVER_LOWEST)
        return ROUTE_UNSEEN;
    return m.vector | (uint64_t)m.flags << 8 | (uint64_t)m.delivery << 16 | (uint64_t)m.dest << 32;
}

/* Which way a tick takes at present: as a comparator's message, or by a pin. */
static uint64_t route_of(const struct chipset *c, unsigned source, unsigned gsi)
{
    struct bus_message m;

    if (source >= SOURCE_HPET && hpet_delivery(&c->hpet, source - SOURCE_HPET) == HPET_FSB) {
        uint64_t fsb = c->hpet.timer[source - SOURCE_HPET].fsb;

        return route_of_message(bus_message_from_msi(fsb >> 32, (uint32_t)fsb));
    }
    m = vioapic_message(&c->vioapic, pin_of(gsi));
    if (m.kind != BUS_NONE && m.delivery != DELIVER_EXTINT)
        return route_of_message(m);
    return gsi < 16 ? ROUTE_PIC : ROUTE_NOWHERE;
}

/* Does a vCPU have the vector before it? One that is just taking it out of its PIR elsewhere is overlooked. */
static bool requested(const struct domain *d, uint8_t vector)
{
    for (unsigned i = 0; i < d->vcpus; i++)
        if (map_has(&d->vcpu[i]->vlapic.irr, vector) ||
            (__atomic_load_n(&d->vcpu[i]->posted.pir[vector >> 6], __ATOMIC_RELAXED) >> (vector & 63) & 1))
            return true;
    return false;
}

/*
 * The PIC forgets a latched edge when it is acknowledged, by INTA or by polling, or initialised. An APIC message is gone
 * where the guest has programmed another way since, or a local APIC has been switched off or reset; what is taken
 * comes through chipset_acknowledged().
 */
static void settle(struct domain *d, unsigned source, unsigned gsi, bool more_due)
{
    struct chipset *c = &d->chipset;
    struct ledger *l = &c->ledger[source];

    if (!l->n.pending)
        return;
    if (l->route == ROUTE_PIC && gsi < 16 && !latched(c, gsi)) {
        if (c->vpic.chip[gsi >> 3].step == VPIC_READY)
            ticks_taken(l);
        else
            ticks_lost(l);
    } else if (more_due) {
        uint64_t route = route_of(c, source, gsi);

        if (route != l->route || (route != ROUTE_PIC && !requested(d, (uint8_t)route)))
            ticks_lost(l);
    }
}

/* To be called where a source's ledger has changed. */
static void note_open(struct chipset *c, unsigned source)
{
    uint32_t bit = 1u << source;

    c->open = c->ledger[source].n.owed | c->ledger[source].n.pending ? c->open | bit : c->open & ~bit;
}

static const struct line *line_of(const struct chipset *c, unsigned source)
{
    return source == SOURCE_PIT ? &c->vpit.out.line[0] : source == SOURCE_RTC ? &c->rtc.out.line[0]
                                                                             : &c->hpet.out.line[source - SOURCE_HPET];
}

static inline void trace_ticks(const struct domain *d, unsigned source, uint64_t n)
{
    uint32_t number = source < SOURCE_HPET ? 0 : source - SOURCE_HPET;

    if (source == SOURCE_PIT)
        trace_put(TRACE_EMUL_PIT_TICK);
    trace_put(TRACE_TICKS, chipset_tick_source(source), d->slot->index << 16 | number, (uint32_t)n, (uint32_t)d->chipset.ledger[source].n.owed);
}

/* Books what has come due at a source. Is one to be signalled? The first of what is new was due at its time; one that is owed
 * is due when it may follow. */
static bool book(struct domain *d, uint64_t now, unsigned source, uint64_t due, uint64_t period)
{
    struct chipset *c = &d->chipset;
    struct ledger *l = &c->ledger[source];
    uint64_t n = due - c->ticks_seen[source], was_due = n && !l->n.owed ? line_of(c, source)->last_rise - (n - 1) * period : now;
    bool next;

    ticks_due(l, n, period);
    if (n)
        trace_ticks(d, source, n);
    c->ticks_seen[source] = due;
    next = ticks_next(l, now);
    if (next)
        c->due[source] = was_due;
    if (ticks_deadline(l) < c->ticks_deadline)
        c->ticks_deadline = ticks_deadline(l);
    return next;
}

/* The pending tick has been sent on its way. */
static void sent(struct ledger *l, uint64_t route)
{
    l->route = route;
    if (route == ROUTE_UNSEEN)
        ticks_taken(l);
    else if (route == ROUTE_NOWHERE)
        ticks_lost(l);
}

/* Nothing has come due, and nothing is on its way. */
static bool at_rest(const struct chipset *c, unsigned source, uint64_t due)
{
    return due == c->ticks_seen[source] && !(c->ledger[source].n.owed | c->ledger[source].n.pending);
}

/* A source whose edges are its ticks: only those that are signalled rise at the pin. */
static void follow_edges(struct domain *d, uint64_t now, unsigned source, unsigned gsi, bool level, uint64_t due, uint64_t period)
{
    struct chipset *c = &d->chipset;

    settle(d, source, gsi, due != c->ticks_seen[source]);
    if (book(d, now, source, due, period)) {
        if (gsi != NO_GSI)
            pulse(d, now, source, gsi, level);
        sent(&c->ledger[source], route_of(c, source, gsi));
    }
    note_open(c, source);
}

/*
 * A source that signals by itself, with a flag that the guest clears, which takes the tick. Returns whether one that is owed
 * is to follow now; the model's repeat function signals it.
 */
static bool follow_flag(struct domain *d, uint64_t now, unsigned source, bool flag, uint64_t due, uint64_t period)
{
    struct chipset *c = &d->chipset;
    struct ledger *l = &c->ledger[source];
    bool next = false;

    ticks_due(l, due - c->ticks_seen[source], period);
    if (due != c->ticks_seen[source]) {
        trace_ticks(d, source, due - c->ticks_seen[source]);
        ticks_signalled(l, now);
    }
    c->ticks_seen[source] = due;
    if (!flag) {
        ticks_taken(l);
        next = book(d, now, source, due, period);
    }
    note_open(c, source);
    return next;
}

void chipset_acknowledged(struct domain *d, uint8_t vector)
{
    struct chipset *c = &d->chipset;
    uint32_t taken = 0;
    bool owed = false;

    for (uint32_t open = __atomic_load_n(&c->open, __ATOMIC_RELAXED); open; open &= open - 1)
        if ((uint8_t)c->ledger[__builtin_ctz(open)].route == vector)
            taken |= open & -open;
    if (!taken) /* most vectors are nobody's ticks */
        return;
    spin_lock(&c->lock);
    for (; taken; taken &= taken - 1) {
        unsigned source = (unsigned)__builtin_ctz(taken);
        struct ledger *l = &c->ledger[source];

        if (l->route == ROUTE_PIC || (uint8_t)l->route != vector)
            continue;
        ticks_taken(l);
        owed |= l->n.owed != 0;
        note_open(c, source);
    }
    if (owed)
        chipset_update(d, vtime_master(&d->time), 0);
    spin_unlock(&c->lock);
}

static unsigned hpet_gsi(const struct hpet *h, unsigned timer)
{
    unsigned route;

    if (hpet_legacy(h) && timer < 2)
        return timer == 0 ? 0 : 8;
    route = hpet_route(h, timer);
    return route ? route : NO_GSI;
}

static void follow_pit(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    const struct line *line = &c->vpit.out.line[0];

    if (!line->level)
        drive(d, now, 0, SOURCE_PIT, false);
    if (!at_rest(c, SOURCE_PIT, line->rises))
        follow_edges(d, now, SOURCE_PIT, 0, line->level, line->rises, vpit_period(&c->vpit));
}

/* Legacy replacement takes it off its pin, and leaves the flag. */
static void follow_rtc(struct domain *d, uint64_t now, bool legacy)
{
    struct chipset *c = &d->chipset;
    const struct line *line = &c->rtc.out.line[0];

    if (!at_rest(c, SOURCE_RTC, c->rtc.periodic_due) &&
        follow_flag(d, now, SOURCE_RTC, line->level, c->rtc.periodic_due, rtc_period(&c->rtc)))
        rtc_repeat(&c->rtc, now);
    if (!legacy) {
        follow(d, now, SOURCE_RTC, 8, line);
        return;
    }
    c->rises_seen[SOURCE_RTC] = line->rises;
    drive(d, now, 8, SOURCE_RTC, false);
}

/* A comparator's message is passed on by take_messages() where *messages has its bit. */
static void follow_fsb(struct domain *d, uint64_t now, unsigned timer, uint64_t due, uint64_t period, uint32_t *messages)
{
    struct chipset *c = &d->chipset;
    unsigned source = SOURCE_HPET + timer;
    bool more_due = due != c->ticks_seen[source], next;

    settle(d, source, NO_GSI, more_due);
    next = book(d, now, source, due, period);
    note_open(c, source);
    if (!next)
        return;
    *messages |= 1u << timer;
    if (!more_due)
        hpet_repeat(&c->hpet, c->hpet.last, timer);
}

static void follow_comparator(struct domain *d, uint64_t now, unsigned timer, unsigned gsi, uint32_t *messages)
{
    struct chipset *c = &d->chipset;
    const struct line *line = &c->hpet.out.line[timer];
    uint64_t due = c->hpet.timer[timer].matches, period = hpet_period(&c->hpet, timer);
    unsigned source = SOURCE_HPET + timer;
    enum hpet_delivery delivery = hpet_delivery(&c->hpet, timer);

    if (delivery == HPET_FSB)
        follow_fsb(d, now, timer, due, period, messages);
    else if (delivery == HPET_EDGE)
        follow_edges(d, now, source, gsi, false, due, period);
    else if (follow_flag(d, now, source, line->level, due, period))
        hpet_repeat(&c->hpet, c->hpet.last, timer);
    if (delivery == HPET_LEVEL && gsi != NO_GSI)
        follow(d, now, source, gsi, line);
    else
        c->rises_seen[source] = line->rises;
}

/* Returns whose messages are to be passed on, a bit per comparator. */
static uint32_t follow_hpet(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    uint32_t messages = 0;

    for (unsigned t = 0; t < HPET_TIMERS; t++) {
        bool rests = at_rest(c, SOURCE_HPET + t, c->hpet.timer[t].matches);
        unsigned gsi;

        if (rests && !c->hpet.out.line[t].level && c->hpet_gsi[t] == NO_GSI)
            continue;
        gsi = hpet_gsi(&c->hpet, t);
        if (c->hpet_gsi[t] != gsi && c->hpet_gsi[t] != NO_GSI)
            drive(d, now, c->hpet_gsi[t], SOURCE_HPET + t, false);
        c->hpet_gsi[t] = gsi;
        follow_comparator(d, now, t, gsi, &messages);
        hvm_breathe();
    }
    return messages;
}

/* The PIT, which the HPET's legacy replacement has taken off its pin: no tick is due there. */
static void cut_off_pit(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;

    c->ticks_seen[SOURCE_PIT] = c->vpit.out.line[0].rises;
    ticks_forget(&c->ledger[SOURCE_PIT]);
    note_open(c, SOURCE_PIT);
    drive(d, now, 0, SOURCE_PIT, false);
}

static void follow_alarm(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;

    pmtimer_set_line(&c->pmtimer, now, PMTIMER_RTC_ALARM, c->rtc.out.line[0].level);
}

/* A source with open ticks waits for what may happen anywhere; the RTC's alarm is the PM block's too. */
static unsigned parts_to_follow(const struct chipset *c, unsigned parts)
{
    parts |= (c->open & 1u << SOURCE_PIT ? PART_PIT : 0) | (c->open & 1u << SOURCE_RTC ? PART_RTC : 0) |
             (c->open >> SOURCE_HPET ? PART_HPET : 0);
    return parts & PART_RTC ? parts | PART_PM : parts;
}

/* Returns which comparators' messages are to be passed on. */
static uint32_t follow_lines(struct domain *d, uint64_t now, unsigned parts)
{
    struct chipset *c = &d->chipset;
    bool legacy = hpet_legacy(&c->hpet);
    uint32_t messages = 0;

    c->ticks_deadline = NEVER;
    if (parts & PART_HPET)
        messages = follow_hpet(d, now);
    if ((parts & PART_PIT) && legacy)
        cut_off_pit(d, now);
    else if (parts & PART_PIT)
        follow_pit(d, now);
    hvm_breathe();
    if (parts & PART_RTC) {
        follow_rtc(d, now, legacy);
        follow_alarm(d, now);
    }
    hvm_breathe();
    if (parts & PART_PM)
        follow(d, now, SOURCE_PM, SCI_GSI, &c->pmtimer.out.line[0]);
    if (parts & PART_UART)
        follow(d, now, SOURCE_UART, 4, &c->uart.out.line[0]);
    return messages;
}

/* Takes what the chips want to say on the APIC bus. A comparator's message that its policy holds back is no message. */
static void take_messages(struct domain *d, uint64_t now, uint32_t comparators)
{
    struct chipset *c = &d->chipset;
    unsigned n = 0;

    for (; c->vioapic.out.message.kind != BUS_NONE && n < MESSAGE_BOUND; n++) {
        fabric_message(d, c->vioapic.out.message, cause_of_pin(d, c->vioapic.out.pin));
        c->vioapic.out.message.kind = BUS_NONE;
        vioapic_advance(&c->vioapic, now);
    }
    for (; c->hpet.out.message.kind != BUS_NONE && n < MESSAGE_BOUND; n++) {
        unsigned timer = c->hpet.out.timer;

        if (comparators >> timer & 1) {
            sent(&c->ledger[SOURCE_HPET + timer], route_of_message(c->hpet.out.message)); /* before another CPU can take it */
            note_open(c, SOURCE_HPET + timer);
            fabric_message(d, c->hpet.out.message, cause_of(d, SOURCE_HPET + timer, METRONOME_INJECT_HPET_MSI));
            comparators &= ~(1u << timer);
        }
        c->hpet.out.message.kind = BUS_NONE;
        hpet_advance(&c->hpet, c->hpet.last); /* the next one in the slot; what comes due meanwhile is booked first */
    }
    for (; comparators; comparators &= comparators - 1) { /* whose address is no APIC's */
        unsigned source = SOURCE_HPET + (unsigned)__builtin_ctz(comparators);

        sent(&c->ledger[source], ROUTE_NOWHERE);
        note_open(c, source);
    }
}

static void take_deadlines(struct chipset *c, unsigned parts)
{
    if (parts & PART_PIT)
        c->deadlines[DEADLINE_PIT] = vpit_deadline(&c->vpit);
    if (parts & PART_HPET)
        c->deadlines[DEADLINE_HPET] = hpet_deadline(&c->hpet);
    if (parts & PART_RTC)
        c->deadlines[DEADLINE_RTC] = rtc_deadline(&c->rtc);
    if (parts & PART_PM)
        c->deadlines[DEADLINE_PM] = pmtimer_deadline(&c->pmtimer);
}

static uint64_t earliest(const struct chipset *c)
{
    uint64_t held_off = vioapic_deadline(&c->vioapic), first = held_off < c->ticks_deadline ? held_off : c->ticks_deadline;

    for (unsigned i = 0; i < DEADLINES; i++)
        first = c->deadlines[i] < first ? c->deadlines[i] : first;
    return first;
}

/* The deadline is a slot of the home pCPU's heap, which only that pCPU touches. */
static void rearm(struct domain *d)
{
    struct chipset *c = &d->chipset;
    uint64_t first = earliest(c);

    if (first == c->deadline_ticks || d->action == ACTION_END)
        return;
    c->deadline_ticks = first;
    if (this_cpu()->id == d->home)
        deadline_arm(&c->deadline, vtime_host_of_master(&d->time, first));
    else
        hvm_attention(d->home, ATTENTION_DEADLINES);
}

void chipset_update(struct domain *d, uint64_t now, unsigned parts)
{
    struct chipset *c = &d->chipset;
    const struct line *intr = &c->vpic.out.line[0];
    uint32_t messages;

    hvm_breathe();
    parts = parts_to_follow(c, parts);
    messages = follow_lines(d, now, parts);
    if (messages || c->vioapic.out.message.kind != BUS_NONE || c->hpet.out.message.kind != BUS_NONE)
        take_messages(d, now, messages);
    if (intr->rises != c->int_rises || intr->level != c->int_level) {
        c->int_rises = intr->rises;
        c->int_level = intr->level;
        c->int_posted = vtime_tsc(&d->time);
        trace_put(TRACE_EMUL_PIC_OUTPUT, intr->level, 0);
        if (intr->level)
            trace_put(TRACE_EMUL_PIC_KICK);
        vcpu_post_work(d->vcpu[0], WORK_LINT0);
    }
    hvm_breathe();
    take_deadlines(c, parts);
    rearm(d);
    hvm_breathe();
}

/* A vCPU on another pCPU would see early what is done early: then the moment is waited for here, before the lock is taken, which others
 * wait for. */
static void await_expiry(const struct domain *d)
{
    uint64_t host = vtime_host_of_master(&d->time, __atomic_load_n(&d->chipset.deadline_ticks, __ATOMIC_RELAXED));

    if (domain_on_one_pcpu(d) || host > rdtsc() + ADVANCE_MAX)
        return;
    while (rdtsc() < host)
        hvm_breathe();
}

/* Now, or the moment to come that the timer has fired for: the guest is entered when it has. */
static uint64_t expiry_now(struct domain *d)
{
    uint64_t now = vtime_master(&d->time), due = d->chipset.deadline_ticks, host = vtime_host_of_master(&d->time, due);

    if (!domain_on_one_pcpu(d) || host > rdtsc() + ADVANCE_MAX)
        return now;
    hvm_hold(&d->chipset.hold_until, host);
    hvm_be_quiet(d->vcpu[0], host);
    return due > now ? due : now;
}

/* Models are lazy: only those with something to do are brought up to date. */
static unsigned advance_due(struct chipset *c, uint64_t now)
{
    unsigned parts = 0;

    if (c->deadlines[DEADLINE_PIT] <= now) {
        vpit_advance(&c->vpit, now);
        parts |= PART_PIT;
    }
    if (c->deadlines[DEADLINE_HPET] <= now) {
        hpet_advance(&c->hpet, now);
        parts |= PART_HPET;
    }
    if (c->deadlines[DEADLINE_RTC] <= now) {
        rtc_advance(&c->rtc, now);
        parts |= PART_RTC;
    }
    if (c->deadlines[DEADLINE_PM] <= now) {
        pmtimer_advance(&c->pmtimer, now);
        parts |= PART_PM;
    }
    vioapic_advance(&c->vioapic, now);
    return parts;
}

void chipset_expire(struct deadline *deadline)
{
    struct domain *d = (struct domain *)((char *)deadline - offsetof(struct domain, chipset.deadline));
    struct chipset *c = &d->chipset;
    uint64_t now, soonest = rdtsc() + tsc_hz / 1000000 * EXPIRY_GAP_US;
    unsigned parts;

    await_expiry(d);
    spin_lock(&c->lock);
    now = expiry_now(d);
    hvm_breathe();
    c->deadline_ticks = NEVER;
    parts = advance_due(c, now);
    hvm_breathe();
    chipset_update(d, now, parts);
    hvm_breathe();
    if (c->deadline.when < soonest) {
        c->expiries_put_off++;
        deadline_arm(&c->deadline, soonest);
    }
    spin_unlock(&c->lock);
}

void chipset_rearm(struct domain *d)
{
    struct chipset *c = &d->chipset;

    spin_lock(&c->lock);
    c->deadline_ticks = 0;
    take_deadlines(c, PARTS_ALL);
    rearm(d);
    spin_unlock(&c->lock);
}

void chipset_leave(struct domain *d, unsigned home)
{
    struct chipset *c = &d->chipset;

    spin_lock(&c->lock);
    deadline_set(&this_hvm()->deadlines, &c->deadline, DEADLINE_UNSET);
    d->home = home;
    spin_unlock(&c->lock);
}

/* The line that the PICs have acknowledged. */
static unsigned irq_of_vector(const struct vpic *p, int vector)
{
    unsigned slave = (unsigned)((vector ^ p->chip[0].icw2) >> 3 != 0);

    return slave << 3 | ((unsigned)vector & 7);
}

int chipset_intack(struct vcpu *v)
{
    struct domain *d = v->domain;
    struct chipset *c = &d->chipset;
    int vector = -1;

    spin_lock(&c->lock);
    if (c->vpic.out.line[0].level) {
        uint64_t now = vtime_master(&d->time);

        struct cause cause;

        vector = vpic_intack(&c->vpic, now);
        trace_put(TRACE_EMUL_PIC_INTACK, (uint32_t)vector);
        cause = cause_of(d, c->risen[irq_of_vector(&c->vpic, vector)], METRONOME_INJECT_PIC);
        latency_posted(&v->latency, (uint8_t)vector, cause.source, cause.due, c->int_posted);
        hvm_breathe();
        chipset_update(d, now, 0);
        hvm_breathe();
    }
    spin_unlock(&c->lock);
    return vector;
}

void chipset_set_isa(struct domain *d, unsigned irq, bool level)
{
    drive(d, vtime_master(&d->time), irq, SOURCE_DM_ISA, level);
}

void chipset_set_sci(struct domain *d, bool level)
{
    drive(d, vtime_master(&d->time), SCI_GSI, SOURCE_DM_SCI, level);
}

void chipset_nmi(struct domain *d)
{
    bool masked;

    spin_lock(&d->chipset.lock);
    masked = rtc_nmi_masked(&d->chipset.rtc);
    spin_unlock(&d->chipset.lock);
    for (unsigned i = 0; i < d->vcpus && !masked; i++)
        vcpu_post_work(d->vcpu[i], WORK_LINT1);
}

static void drive_link(struct domain *d, unsigned link)
{
    struct chipset *c = &d->chipset;

    if (c->link_irq[link])
        drive(d, vtime_master(&d->time), c->link_irq[link], SOURCE_LINK + link, c->link_devices[link] != 0);
}

/* The PIIX3's swizzle: INTA of device 1 is on link A. */
void chipset_set_intx(struct domain *d, unsigned device, unsigned pin, bool level)
{
    unsigned link = (device + pin + PCI_LINKS - 1) % PCI_LINKS;
    uint32_t bit = 1u << device;

    d->chipset.link_devices[link] = level ? d->chipset.link_devices[link] | bit : d->chipset.link_devices[link] & ~bit;
    drive_link(d, link);
}

void chipset_set_link(struct domain *d, unsigned link, unsigned irq)
{
    struct chipset *c = &d->chipset;

    if (c->link_irq[link] == irq)
        return;
    if (c->link_irq[link])
        drive(d, vtime_master(&d->time), c->link_irq[link], SOURCE_LINK + link, false);
    c->link_irq[link] = (uint8_t)irq;
    drive_link(d, link);
}

/* Where PM1a and the PM timer answer: fixed without device model, else as the guest has programmed the PIIX4. */
void chipset_set_pm_base(struct domain *d)
{
    struct chipset *c = &d->chipset;
    uint16_t base = PM_BASE_DEFAULT;

    if (d->has_dm)
        base = c->pm_enabled ? c->pm_base_register & 0xffc0 : 0;
    if (base == c->pm_base)
        return;
    io_move_pm(d, c->pm_base, base);
    c->pm_base = base;
}

/* What was under way is lost; the account goes on, but for that of a new domain. */
static void reset_ticks(struct domain *d, bool power_on)
{
    struct chipset *c = &d->chipset;

    memset(c->ticks_seen, 0, sizeof(c->ticks_seen));
    for (unsigned s = 0; s < TICK_SOURCES; s++) {
        if (power_on)
            ticks_init(&c->ledger[s], ticks_policy(d->header.ticks, chipset_tick_source(s)));
        ticks_lost(&c->ledger[s]);
        ticks_forget(&c->ledger[s]);
        note_open(c, s);
    }
}

/* Of the lines that are high, a source that asserts it. */
static void note_risen(struct chipset *c)
{
    for (unsigned gsi = 0; gsi < VIOAPIC_MAX_PINS; gsi++)
        c->risen[gsi] = c->gsi_sources[gsi] ? (uint8_t)__builtin_ctz(c->gsi_sources[gsi]) : SOURCE_DM_ISA;
}

/* What the device model drives it goes on driving: it says what changes, and its own reset is before ours. */
static void reset_lines(struct chipset *c, bool power_on)
{
    for (unsigned gsi = 0; gsi < VIOAPIC_MAX_PINS; gsi++)
        c->gsi_sources[gsi] &= power_on ? 0 : DM_SOURCES;
    if (power_on)
        memset(c->link_devices, 0, sizeof(c->link_devices));
    memset(c->rises_seen, 0, sizeof(c->rises_seen));
    memset(c->link_irq, 0, sizeof(c->link_irq));
    memset(c->due, 0, sizeof(c->due));
    note_risen(c);
    for (unsigned t = 0; t < HPET_TIMERS; t++)
        c->hpet_gsi[t] = NO_GSI;
    c->int_rises = 0;
    c->int_level = 0;
}

/* To chips that have been reset, and know of no level. */
static void drive_again(struct domain *d, uint64_t now)
{
    for (unsigned gsi = 0; gsi < VIOAPIC_MAX_PINS; gsi++)
        if (d->chipset.gsi_sources[gsi])
            set_pin(d, now, gsi, true);
}

bool chipset_check(const struct chipset *c)
{
    for (unsigned t = 0; t < HPET_TIMERS; t++)
        if (c->hpet_gsi[t] != NO_GSI && c->hpet_gsi[t] >= VIOAPIC_MAX_PINS)
            return false;
    for (unsigned s = 0; s < TICK_SOURCES; s++)
        if (!ticks_check(&c->ledger[s]))
            return false;
    return true;
}

/* Nothing is brought up to date here: what runs on is what was saved, to the byte. */
void chipset_restored(struct domain *d, uint64_t rtc_seconds)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    note_risen(c);
    for (unsigned s = 0; s < TICK_SOURCES; s++)
        note_open(c, s);
    take_deadlines(c, PARTS_ALL);
    chipset_set_pm_base(d);
    if (rtc_seconds) {
        rtc_forward(&c->rtc, now, rtc_seconds);
        chipset_update(d, now, PARTS_ALL);
    }
    spin_unlock(&c->lock);
}

/* What it has sent is on the line. */
static void reset_uart(struct uart *u, uint64_t now)
{
    uint8_t sent[UART_SENT];
    unsigned n = uart_take(u, sent, sizeof(sent));

    uart_reset(u, now);
    for (unsigned i = 0; i < n; i++)
        uart_write(u, now, 0, 1, sent[i]);
}

void chipset_reset(struct domain *d, bool power_on)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    reset_lines(c, power_on);
    hvm_breathe();
    reset_ticks(d, power_on);
    hvm_breathe();
    if (power_on)
        rtc_reset(&c->rtc, now, d->header.wallclock);
    else
        rtc_reset_pin(&c->rtc, now);
    hvm_breathe();
    vpic_reset(&c->vpic, now);
    vioapic_reset(&c->vioapic, now, VIOAPIC_MIN_PINS, 0);
    vpit_reset(&c->vpit, now);
    hpet_reset(&c->hpet, now);
    hvm_breathe();
    c->rises_seen[SOURCE_RTC] = c->rtc.out.line[0].rises;
    c->ticks_seen[SOURCE_RTC] = c->rtc.periodic_due;
    pmtimer_reset(&c->pmtimer, now, false);
    pmtimer_set_sci_enable(&c->pmtimer, now, true); /* SCI_EN is the device model's: PM1a_EN alone gates ours */
    reset_uart(&c->uart, now);
    c->pm_enabled = false;
    c->deadline_ticks = 0;
    hvm_breathe();
    chipset_set_pm_base(d);
    drive_again(d, now);
    hvm_breathe();
    chipset_update(d, now, PARTS_ALL);
    spin_unlock(&c->lock);
}
