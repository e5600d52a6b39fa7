/* The local APIC's interrupt commands and destinations (SDM 11.6). */
#include "internal.h"

/* A fixed interrupt to itself stays inside (SDM 11.12.11); its errors are those of sending and of receiving. */
void vlapic_self_ipi(struct vlapic *s, uint8_t vector)
{
    if (vector < 16)
        vlapic_error(s, ESR_SEND_VECTOR);
    vlapic_post(s, 0, vector, false);
}

/* Shorthand self: only fixed is valid in the manual, NMI and SMI work on every CPU we know of. */
static void send_to_self(struct vlapic *s)
{
    switch (lvt_delivery(s->icr)) {
    case DELIVER_FIXED:
        vlapic_self_ipi(s, (uint8_t)s->icr);
        break;
    case DELIVER_NMI:
        s->out.nmi++;
        break;
    case DELIVER_SMI:
        s->out.smi++;
        break;
    default:
        break;
    }
}

/* Is the combination in ICR one that no APIC sends (SDM tables 11-3 and 11-4)? */
static bool is_invalid(unsigned delivery, unsigned shorthand, uint32_t icr)
{
    if (delivery == DELIVER_RESERVED)
        return true;
    if (delivery == DELIVER_INIT && (icr & 0xc000) == 0x8000) /* INIT level de-assert: gone since the Pentium 4 */
        return true;
    return shorthand == SHORTHAND_ALL &&
           (delivery == DELIVER_LOWEST || delivery == DELIVER_INIT || delivery == DELIVER_SIPI);
}

/* Sends what ICR says. The trigger and level bits mean nothing but INIT de-assert: every IPI is an asserted edge. */
void vlapic_send(struct vlapic *s)
{
    unsigned delivery = lvt_delivery(s->icr), shorthand = (s->icr >> 18) & 3;
    struct bus_message m = {.kind = BUS_INTERRUPT};
    if (shorthand == SHORTHAND_SELF) {
        send_to_self(s);
        return;
    }
    if (is_invalid(delivery, shorthand, s->icr))
        return;
    if ((delivery == DELIVER_FIXED || delivery == DELIVER_LOWEST) && (uint8_t)s->icr < 16)
        vlapic_error(s, ESR_SEND_VECTOR); /* sent all the same: every receiver logs it too */
    m.vector = (uint8_t)s->icr;
    m.delivery = (uint8_t)delivery;
    m.shorthand = (uint8_t)shorthand;
    m.flags = (uint8_t)(BUS_ASSERT | ((s->icr & 0x800) ? BUS_LOGICAL : 0) | (vlapic_x2apic(s) ? BUS_X2APIC : 0));
    m.dest = s->icr_dest;
    s->out.message = m;
}

/* xAPIC logical destination: flat or cluster by DFR (SDM 11.6.2.2). */
static bool matches_xapic_logical(const struct vlapic *s, uint32_t dest)
{
    uint32_t ldr = s->ldr >> 24;
    if (dest > 0xff)
        return false;
    switch (s->dfr >> 28) {
    case 0xf:
        return (ldr & dest) != 0;
    case 0x0:
        return (ldr >> 4) == (dest >> 4) && (ldr & dest & 15) != 0;
    default:
        return false;
    }
}

bool vlapic_matches(const struct vlapic *s, uint32_t dest, uint8_t flags)
{
    uint32_t ldr;
    if (!(s->apic_base & APIC_BASE_EN))
        return false;
    if (!(flags & BUS_X2APIC))
        dest &= 0xff;
    if (dest == ((flags & BUS_X2APIC) ? ~0u : 0xffu))
        return true;
    if (!(flags & BUS_LOGICAL))
        return dest == (vlapic_x2apic(s) ? s->apic_id : s->xapic_id);
    if (!vlapic_x2apic(s))
        return matches_xapic_logical(s, dest);
    ldr = x2apic_ldr(s->apic_id);
    return (ldr >> 16) == (dest >> 16) && (ldr & dest & 0xffff) != 0;
}

/* The class of the highest vector in a map; 0 if there is none. */
static uint32_t highest_class(const struct vector_map *m)
{
    return m->summary ? (uint32_t)map_highest(m) & 0xf0 : 0;
}

/* SDM 11.6.2.4: the class of the highest of TPR, ISR and IRR; TPR's own sub-class where TPR wins. */
uint32_t vlapic_arbitration(const struct vlapic *s)
{
    uint32_t irrv = highest_class(&s->irr), isrv = highest_class(&s->isr), class = s->tpr & 0xf0;
    if (class >= irrv && class > isrv)
        return s->tpr;
    return irrv > isrv ? irrv : isrv; /* neither is below TPR's class, or it would have won or tied */
}
