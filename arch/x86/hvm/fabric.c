/*
 * The interrupt fabric's lines: model outputs, ISA and PCI lines, wired-OR onto the pins of PIC and I/O APIC. Order of
 * evaluation is fixed: timers, then PIC and I/O APIC, then local APICs. Messages are in message.c.
 */
#include "hvm.h"

#define NO_GSI 0xffu
/* Messages that one update can carry: each pin and comparator once and again. More than that waits for the next one. */
#define MESSAGE_BOUND 128u
/* The budget of a domain's chipset timers: at most 200,000 expiries a second take time from others on their pCPU. Edges that
 * are due faster are delivered together, and counted in the ledger. */
#define EXPIRY_GAP_US 5u

/* ISA lines sit on I/O APIC pins of the same number but for the PIT's: IRQ 0 is on pin 2, and the cascade on none. */
static unsigned pin_of(unsigned gsi)
{
    return gsi == 0 ? 2 : gsi;
}

static void set_pin(struct domain *d, uint64_t now, unsigned gsi, bool level)
{
    if (gsi < 16)
        vpic_set_line(&d->chipset.vpic, now, gsi, level);
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
    if (before != *sources)
        set_pin(d, now, gsi, *sources != 0);
}

static void pulse(struct domain *d, uint64_t now, unsigned source, unsigned gsi, bool level)
{
    d->chipset.ledger[source].delivered++;
    drive(d, now, gsi, source, false);
    drive(d, now, gsi, source, true);
    drive(d, now, gsi, source, level);
}

/*
 * Of several edges since the last look one can still reach the pin. The PIT's others are owed and follow in a burst, each
 * when the guest has taken the one before: systems that count ticks lose none to a vCPU that ran late, and one that tries
 * out its timer for some ticks (Linux's check_timer) finds them all. More than TICKS_OWED_MAX are not worth having.
 */
static void book(struct ledger *l, unsigned source, uint64_t edges)
{
    uint64_t room = source == SOURCE_PIT ? TICKS_OWED_MAX - l->owed : 0;
    uint64_t owed = edges - 1 < room ? edges - 1 : room;

    l->due += edges;
    l->owed += owed;
    l->collapsed += edges - 1 - owed;
}

static void repay(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    struct ledger *l = &c->ledger[SOURCE_PIT];

    if (l->owed && !hpet_legacy(&c->hpet)) {
        l->owed--;
        pulse(d, now, SOURCE_PIT, 0, c->vpit.out.line[0].level);
    }
}

void chipset_acknowledged(struct domain *d, uint8_t vector)
{
    struct chipset *c = &d->chipset;

    if (!c->ledger[SOURCE_PIT].owed || (uint8_t)c->vioapic.entry[pin_of(0)] != vector)
        return;
    spin_lock(&c->lock);
    repay(d, vtime_master(&d->time));
    chipset_update(d, vtime_master(&d->time));
    spin_unlock(&c->lock);
}

/* A new count or mode of channel 0 starts a new timer: the old one's ticks are owed no more. Latch commands are reads. */
void chipset_pit_written(struct chipset *c, unsigned offset, uint64_t value)
{
    struct ledger *l = &c->ledger[SOURCE_PIT];
    bool control = offset == 3 && (value & 0xc0) == 0 && (value & 0x30) != 0;

    if (offset != 0 && !control)
        return;
    l->collapsed += l->owed;
    l->owed = 0;
}

/* Carries a model's line to a pin. */
static void follow(struct domain *d, uint64_t now, unsigned source, unsigned gsi, const struct line *line)
{
    struct chipset *c = &d->chipset;
    uint64_t edges = line->rises - c->rises_seen[source];

    if (edges) {
        c->rises_seen[source] = line->rises;
        book(&c->ledger[source], source, edges);
        pulse(d, now, source, gsi, line->level);
    } else {
        drive(d, now, gsi, source, line->level);
    }
}

static unsigned hpet_gsi(const struct hpet *h, unsigned timer)
{
    unsigned route;

    if (hpet_legacy(h) && timer < 2)
        return timer == 0 ? 0 : 8;
    route = hpet_route(h, timer);
    return route ? route : NO_GSI;
}

static void follow_hpet(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;

    for (unsigned t = 0; t < HPET_TIMERS; t++) {
        const struct line *line = &c->hpet.out.line[t];
        unsigned gsi;

        if (line->rises == c->rises_seen[SOURCE_HPET + t] && !line->level && c->hpet_gsi[t] == NO_GSI)
            continue;
        gsi = hpet_gsi(&c->hpet, t);
        if (c->hpet_gsi[t] != gsi && c->hpet_gsi[t] != NO_GSI)
            drive(d, now, c->hpet_gsi[t], SOURCE_HPET + t, false);
        c->hpet_gsi[t] = gsi;
        if (gsi != NO_GSI)
            follow(d, now, SOURCE_HPET + t, gsi, line);
    }
}

/* A line that the HPET's legacy replacement has taken off its pin. */
static void cut_off(struct domain *d, uint64_t now, unsigned source, unsigned gsi, const struct line *line)
{
    d->chipset.rises_seen[source] = line->rises;
    drive(d, now, gsi, source, false);
}

static void follow_lines(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    bool legacy = hpet_legacy(&c->hpet);

    follow_hpet(d, now);
    if (legacy) {
        cut_off(d, now, SOURCE_PIT, 0, &c->vpit.out.line[0]);
        cut_off(d, now, SOURCE_RTC, 8, &c->rtc.out.line[0]);
    } else {
        follow(d, now, SOURCE_PIT, 0, &c->vpit.out.line[0]);
        follow(d, now, SOURCE_RTC, 8, &c->rtc.out.line[0]);
    }
    pmtimer_set_line(&c->pmtimer, now, PMTIMER_RTC_ALARM, c->rtc.out.line[0].level);
    follow(d, now, SOURCE_PM, SCI_GSI, &c->pmtimer.out.line[0]);
    follow(d, now, SOURCE_UART, 4, &c->uart.out.line[0]);
}

/* Takes what the chips want to say on the APIC bus. */
static void take_messages(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    unsigned n = 0;

    for (; c->vioapic.out.message.kind != BUS_NONE && n < MESSAGE_BOUND; n++) {
        fabric_message(d, c->vioapic.out.message, METRONOME_INJECT_IOAPIC);
        c->vioapic.out.message.kind = BUS_NONE;
        vioapic_advance(&c->vioapic, now);
    }
    for (; c->hpet.out.message.kind != BUS_NONE && n < MESSAGE_BOUND; n++) {
        fabric_message(d, c->hpet.out.message, METRONOME_INJECT_HPET_MSI);
        c->hpet.out.message.kind = BUS_NONE;
        hpet_advance(&c->hpet, now);
    }
}

static uint64_t earliest(const struct chipset *c)
{
    uint64_t t[] = {vpit_deadline(&c->vpit), hpet_deadline(&c->hpet), rtc_deadline(&c->rtc), pmtimer_deadline(&c->pmtimer),
                    vioapic_deadline(&c->vioapic)};
    uint64_t first = NEVER;

    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        first = t[i] < first ? t[i] : first;
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

void chipset_update(struct domain *d, uint64_t now)
{
    struct chipset *c = &d->chipset;
    const struct line *intr = &c->vpic.out.line[0];

    follow_lines(d, now);
    take_messages(d, now);
    if (intr->rises != c->int_rises || intr->level != c->int_level) {
        c->int_rises = intr->rises;
        c->int_level = intr->level;
        vcpu_post_work(d->vcpu[0], WORK_LINT0);
    }
    rearm(d);
}

void chipset_expire(struct deadline *deadline)
{
    struct domain *d = (struct domain *)((char *)deadline - offsetof(struct domain, chipset.deadline));
    struct chipset *c = &d->chipset;
    uint64_t now, soonest = rdtsc() + tsc_hz / 1000000 * EXPIRY_GAP_US;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    c->deadline_ticks = NEVER;
    vpit_advance(&c->vpit, now);
    hpet_advance(&c->hpet, now);
    rtc_advance(&c->rtc, now);
    pmtimer_advance(&c->pmtimer, now);
    vioapic_advance(&c->vioapic, now);
    chipset_update(d, now);
    if (c->deadline.when < soonest)
        deadline_arm(&c->deadline, soonest);
    spin_unlock(&c->lock);
}

void chipset_rearm(struct domain *d)
{
    struct chipset *c = &d->chipset;

    spin_lock(&c->lock);
    c->deadline_ticks = 0;
    rearm(d);
    spin_unlock(&c->lock);
}

int chipset_intack(struct domain *d)
{
    struct chipset *c = &d->chipset;
    int vector = -1;

    spin_lock(&c->lock);
    if (c->vpic.out.line[0].level) {
        uint64_t now = vtime_master(&d->time);

        vector = vpic_intack(&c->vpic, now);
        if (vector == (c->vpic.chip[0].icw2 & 0xf8))
            repay(d, now);
        chipset_update(d, now);
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

static void reset_lines(struct chipset *c)
{
    memset(c->gsi_sources, 0, sizeof(c->gsi_sources));
    memset(c->rises_seen, 0, sizeof(c->rises_seen));
    memset(c->link_devices, 0, sizeof(c->link_devices));
    memset(c->link_irq, 0, sizeof(c->link_irq));
    for (unsigned t = 0; t < HPET_TIMERS; t++)
        c->hpet_gsi[t] = NO_GSI;
    c->int_rises = 0;
    c->int_level = 0;
}

/* What the firmware expects to find, but for the clock's own registers: time, A to D, and the century. */
static void fill_cmos(struct domain *d)
{
    for (unsigned i = 14; i < sizeof(d->header.cmos); i++)
        if (i != 0x32)
            rtc_cmos_set(&d->chipset.rtc, i, d->header.cmos[i]);
}

bool chipset_check(const struct chipset *c)
{
    for (unsigned t = 0; t < HPET_TIMERS; t++)
        if (c->hpet_gsi[t] != NO_GSI && c->hpet_gsi[t] >= VIOAPIC_MAX_PINS)
            return false;
    return c->ledger[SOURCE_PIT].owed <= TICKS_OWED_MAX;
}

void chipset_restored(struct domain *d, uint64_t rtc_seconds)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    if (rtc_seconds)
        rtc_forward(&c->rtc, now, rtc_seconds);
    c->deadline_ticks = 0;
    chipset_set_pm_base(d);
    chipset_update(d, now);
    spin_unlock(&c->lock);
}

void chipset_reset(struct domain *d, bool power_on)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    reset_lines(c);
    vpic_reset(&c->vpic, now);
    vioapic_reset(&c->vioapic, now, VIOAPIC_MIN_PINS, 0);
    vpit_reset(&c->vpit, now);
    hpet_reset(&c->hpet, now);
    if (power_on) {
        rtc_reset(&c->rtc, now, d->header.wallclock);
        fill_cmos(d);
    } else {
        rtc_reset_pin(&c->rtc, now);
    }
    c->rises_seen[SOURCE_RTC] = c->rtc.out.line[0].rises;
    pmtimer_reset(&c->pmtimer, now, false);
    pmtimer_set_sci_enable(&c->pmtimer, now, true); /* SCI_EN is the device model's: PM1a_EN alone gates ours */
    uart_reset(&c->uart, now);
    c->pm_enabled = false;
    c->deadline_ticks = 0;
    chipset_set_pm_base(d);
    chipset_update(d, now);
    spin_unlock(&c->lock);
}
