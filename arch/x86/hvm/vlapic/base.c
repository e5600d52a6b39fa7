/* IA32_APIC_BASE: where the APIC is, and its mode (SDM 11.4.3, 11.4.4, 11.12.5). */
#include "internal.h"

/* False for reserved bits, and for the transitions that figure 11-27 (local x2APIC states) calls illegal. */
static bool base_is_legal(const struct vlapic *s, uint64_t value)
{
    uint64_t reserved = ~(((uint64_t)1 << s->phys_bits) - 1) | 0x2ff;
    bool en = (value & APIC_BASE_EN) != 0, extd = (value & APIC_BASE_EXTD) != 0;
    if (!(s->features & VLAPIC_X2APIC))
        reserved |= APIC_BASE_EXTD;
    if (value & reserved)
        return false;
    if (extd && (!en || !(s->apic_base & APIC_BASE_EN))) /* invalid; disabled -> x2APIC */
        return false;
    return !(vlapic_x2apic(s) && en && !extd); /* x2APIC -> xAPIC */
}

bool vlapic_write_base(struct vlapic *s, uint64_t now, uint64_t value)
{
    uint64_t changed;
    if (!base_is_legal(s, value))
        return false;
    vlapic_advance(s, now);
    value = (value & ~(uint64_t)APIC_BASE_BSP) | (s->apic_base & APIC_BASE_BSP);
    changed = s->apic_base ^ value;
    s->apic_base = value;
    if (!(changed & (APIC_BASE_EN | APIC_BASE_EXTD)))
        return true;
    s->map_generation++;
    s->xapic_id = s->apic_id & 0xff;
    if (!(value & APIC_BASE_EN))
        vlapic_reset_registers(s);
    else
        s->icr_dest = 0; /* entering x2APIC mode keeps the registers, but for the ICR's high half (SDM 11.12.5) */
    return true;
}
