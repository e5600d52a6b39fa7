/*
 * APIC bus messages: who is addressed, and what happens there. From I/O APIC pins, MSIs and ICRs; EOI broadcasts go the
 * other way.
 */
#include "hvm.h"

static uint64_t all_vcpus(const struct domain *d)
{
    return d->vcpus == 64 ? UINT64_MAX : (1ull << d->vcpus) - 1;
}

static uint64_t bit_of_id(const struct domain *d, uint32_t id)
{
    unsigned vcpu = id < 256 ? d->map.physical[id] : 0xff;

    return vcpu == 0xff ? 0 : 1ull << vcpu;
}

/* x2APIC logical ids: cluster in bits 31:16, one bit per id of it below (SDM 11.12.10.2). */
static uint64_t x2apic_logical(const struct domain *d, uint32_t dest)
{
    uint64_t mask = 0;

    for (uint32_t bits = dest & 0xffff; bits; bits &= bits - 1)
        mask |= bit_of_id(d, (dest >> 16) * 16 + (uint32_t)__builtin_ctz(bits));
    return mask;
}

static uint64_t xapic_logical(const struct domain *d, uint32_t dest)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < 8; i++)
        if (dest >> i & 1)
            mask |= d->map.flat[i];
    for (unsigned i = 0; i < 4; i++)
        if (dest >> i & 1)
            mask |= d->map.cluster[dest >> 4 & 15][i];
    return mask;
}

static uint64_t targets(const struct domain *d, const struct bus_message *m)
{
    bool x2apic = m->flags & BUS_X2APIC;

    if (m->dest == (x2apic ? 0xffffffffu : 0xffu))
        return all_vcpus(d);
    if (!(m->flags & BUS_LOGICAL))
        return bit_of_id(d, m->dest);
    return x2apic ? x2apic_logical(d, m->dest) : xapic_logical(d, m->dest);
}

/* Of several targets the one that serves the least takes a lowest-priority interrupt; one that is switched off would drop it. */
static uint64_t lowest_of(const struct domain *d, uint64_t mask)
{
    uint64_t best = mask & -mask;
    uint32_t least = UINT32_MAX;

    if (best == mask)
        return mask;
    for (; mask; mask &= mask - 1) {
        const struct vlapic *a = &d->vcpu[__builtin_ctzll(mask)]->vlapic;
        uint32_t apr = vlapic_arbitration(a);

        if ((a->svr & SVR_ENABLE) && apr < least) {
            least = apr;
            best = mask & -mask;
        }
    }
    return best;
}

static void deliver(struct vcpu *v, const struct bus_message *m, struct cause cause)
{
    static const uint8_t work[8] = {
        [DELIVER_NMI] = WORK_NMI, [DELIVER_INIT] = WORK_INIT, [DELIVER_SIPI] = WORK_SIPI, [DELIVER_EXTINT] = WORK_EXTINT,
    }; /* SMI: dropped, there is no SMM */

    if (m->delivery == DELIVER_FIXED || m->delivery == DELIVER_LOWEST) {
        latency_posted(&v->latency, m->vector, cause.source, cause.due, vtime_tsc(&v->domain->time));
        vcpu_post(v, m->vector, m->flags & BUS_LEVEL, cause.way);
        return;
    }
    if (m->delivery == DELIVER_INIT && !(m->flags & BUS_ASSERT))
        return; /* INIT level de-assert: nothing since the Pentium 4 (SDM 11.6.1) */
    if (m->delivery == DELIVER_INIT) /* what was sent before it, it ends; the drain takes INIT first */
        __atomic_fetch_and(&v->posted.work, ~(uint32_t)(WORK_SIPI | WORK_NMI), __ATOMIC_RELAXED);
    if (m->delivery == DELIVER_SIPI)
        v->posted.sipi_vector = m->vector;
    if (work[m->delivery & 7])
        vcpu_post_work(v, work[m->delivery & 7]);
}

static void deliver_all(struct domain *d, uint64_t mask, const struct bus_message *m, struct cause cause)
{
    if (m->delivery == DELIVER_LOWEST)
        mask = lowest_of(d, mask);
    for (; mask; mask &= mask - 1) {
        deliver(d->vcpu[__builtin_ctzll(mask)], m, cause);
        hvm_breathe();
    }
}

void fabric_message(struct domain *d, struct bus_message m, struct cause cause)
{
    deliver_all(d, targets(d, &m), &m, cause);
}

static void end_of_interrupt(struct domain *d, uint8_t vector)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    vioapic_eoi(&c->vioapic, now, vector);
    chipset_update(d, now, PART_IOAPIC);
    spin_unlock(&c->lock);
}

static void send_ipi(struct vcpu *v, const struct bus_message *m)
{
    struct domain *d = v->domain;
    uint64_t self = 1ull << v->id;
    uint64_t mask[] = {
        [SHORTHAND_NONE] = targets(d, m), [SHORTHAND_SELF] = self,
        [SHORTHAND_ALL] = all_vcpus(d), [SHORTHAND_OTHERS] = all_vcpus(d) & ~self,
    };

    deliver_all(d, mask[m->shorthand & 3], m, (struct cause){.way = METRONOME_INJECT_IPI, .source = METRONOME_LATENCY_OF_IPI});
}

/* Senders read the map without lock: what addresses a vCPU before and after a change does so all the time. */
static void publish_physical(struct apic_map *m, struct vcpu *v, uint32_t id)
{
    uint32_t before = v->published_id;

    if (id < 256)
        __atomic_store_n(&m->physical[id], (uint8_t)v->id, __ATOMIC_RELEASE);
    if (before != id && before < 256 && m->physical[before] == v->id)
        m->physical[before] = 0xff;
    v->published_id = id;
}

static void set_member(uint64_t *mask, uint64_t self, bool member)
{
    uint64_t value = member ? *mask | self : *mask & ~self;

    if (value != *mask)
        __atomic_store_n(mask, value, __ATOMIC_RELAXED);
}

/* A logical id as published: the LDR's byte, and whether it is a flat one. */
#define LOGICAL_FLAT 0x100u

static uint64_t *members(struct apic_map *m, uint32_t logical, unsigned bit)
{
    return logical & LOGICAL_FLAT ? &m->flat[bit] : &m->cluster[logical >> 4 & 15][bit];
}

static unsigned member_bits(uint32_t logical)
{
    return logical & LOGICAL_FLAT ? logical & 0xff : logical & 15;
}

/* xAPIC logical ids: flat (DFR all ones) or cluster (SDM 11.6.2.2); an x2APIC's is seen by 8-bit senders as flat. */
static uint32_t logical_of(const struct vlapic *a)
{
    if (!(a->apic_base & APIC_BASE_EN))
        return LOGICAL_FLAT;
    if (vlapic_x2apic(a))
        return LOGICAL_FLAT | (a->apic_id < 8 ? 1u << a->apic_id : 0);
    return a->ldr >> 24 | (a->dfr >> 28 == 15 ? LOGICAL_FLAT : 0);
}

static void publish_logical(struct apic_map *m, struct vcpu *v)
{
    uint32_t before = v->published_logical, now = logical_of(&v->vlapic);
    uint64_t self = 1ull << v->id;

    for (unsigned bits = member_bits(now); bits; bits &= bits - 1)
        set_member(members(m, now, (unsigned)__builtin_ctz(bits)), self, true);
    if ((before ^ now) & (LOGICAL_FLAT | (now & LOGICAL_FLAT ? 0 : 0xf0))) /* other masks than those */
        now = 0;
    for (unsigned bits = member_bits(before) & ~member_bits(now); bits; bits &= bits - 1)
        set_member(members(m, before, (unsigned)__builtin_ctz(bits)), self, false);
    v->published_logical = logical_of(&v->vlapic);
}

static void forget_all_but_posted(struct vcpu *v)
{
    uint64_t posted[4];

    for (unsigned w = 0; w < 4; w++)
        posted[w] = __atomic_load_n(&v->posted.pir[w], __ATOMIC_RELAXED);
    latency_forget(&v->latency, posted);
}

void fabric_publish_apic(struct vcpu *v)
{
    struct domain *d = v->domain;
    const struct vlapic *a = &v->vlapic;
    uint32_t id = vlapic_x2apic(a) ? a->apic_id : a->xapic_id;

    if (v->lapic_generation == a->map_generation)
        return;
    if (!(a->svr & SVR_ENABLE) && vlapic_highest_irr(a) < 0) /* it may have been reset */
        forget_all_but_posted(v);
    hvm_breathe();
    spin_lock(&d->map_lock);
    v->lapic_generation = a->map_generation;
    publish_physical(&d->map, v, a->apic_base & APIC_BASE_EN ? id : UINT32_MAX);
    publish_logical(&d->map, v);
    spin_unlock(&d->map_lock);
}

void fabric_take_apic_output(struct vcpu *v)
{
    struct vlapic *a = &v->vlapic;
    struct bus_message m = a->out.message;

    if (m.kind != BUS_NONE) {
        a->out.message.kind = BUS_NONE;
        if (m.kind == BUS_EOI)
            end_of_interrupt(v->domain, m.vector);
        else
            send_ipi(v, &m);
    }
    if (a->out.nmi) {
        a->out.nmi = 0;
        v->nmi_pending = 1;
    }
    if (a->out.init) {
        a->out.init = 0;
        vcpu_post_work(v, WORK_INIT);
    }
    a->out.smi = 0; /* no SMM: counted by the model, dropped here */
    if (v->lapic_generation != a->map_generation)
        fabric_publish_apic(v);
    vcpu_arm_timer(v);
}
