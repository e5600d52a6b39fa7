/*
 * The local APIC's registers: one table for the xAPIC page and the x2APIC MSRs. The paths at the end of the file check
 * size, mode, direction and reserved bits, so a handler sees only what an access changes.
 */
#include "internal.h"

#define VERSION (0x14u | (1u << 24)) /* integrated; EOI suppression. Bits 23:16 are the last LVT entry. */

/* Where a register is there, and which way. */
enum {
    PAGE_R = 1,
    PAGE_W = 2,
    MSR_R = 4,
    MSR_W = 8,
    PAGE = PAGE_R | PAGE_W,
    RO = PAGE_R | MSR_R,
    RW = PAGE | MSR_R | MSR_W
};

struct vlapic_register {
    uint16_t access;
    uint16_t field;    /* where its value lies in struct vlapic, if it has no read handler */
    uint32_t writable; /* bits of the low word that a write changes: a write handler sees no others */
    uint64_t reserved; /* bits that WRMSR may not set */
    uint64_t (*read)(const struct vlapic *s, uint64_t now);
    void (*write)(struct vlapic *s, uint64_t now, uint64_t value); /* NULL: an LVT entry without side effects */
};

/* A register that other CPUs' destinations are matched with: the fabric must know of a change. */
static void set_routed(struct vlapic *s, uint32_t *field, uint32_t value)
{
    if (*field != value)
        s->map_generation++;
    *field = value;
}

static uint64_t read_id(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return vlapic_x2apic(s) ? s->apic_id : s->xapic_id << 24;
}

static void write_id(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    set_routed(s, &s->xapic_id, (uint32_t)value >> 24);
}

static uint64_t read_zero(const struct vlapic *s, uint64_t now)
{
    (void)s, (void)now;
    return 0;
}

static uint64_t read_version(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return VERSION | (s->features & VLAPIC_CMCI ? LVT_CMCI : LVT_ERROR) << 16;
}

static void write_tpr(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    s->tpr = (uint32_t)value;
    vlapic_update_ppr(s);
}

static uint64_t read_apr(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return vlapic_arbitration(s);
}

static void write_eoi(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)value;
    vlapic_eoi(s, now);
}

static uint64_t read_ldr(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return vlapic_x2apic(s) ? x2apic_ldr(s->apic_id) : s->ldr;
}

static void write_ldr(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    set_routed(s, &s->ldr, (uint32_t)value);
}

static void write_dfr(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    set_routed(s, &s->dfr, (uint32_t)value | DFR_FIXED);
}

/* Clearing the enable bit masks every LVT entry (SDM 11.4.7.2); what is requested or in service stays. */
static void write_svr(struct vlapic *s, uint64_t now, uint64_t value)
{
    uint32_t changed = s->svr ^ (uint32_t)value;
    vlapic_advance(s, now);
    s->svr = (uint32_t)value;
    if (!(changed & SVR_ENABLE))
        return;
    s->map_generation++;
    if (!(s->svr & SVR_ENABLE))
        for (unsigned i = 0; i < LVT_COUNT; i++)
            s->lvt[i] |= LVT_MASKED;
}

/* Any write shows the errors since the last one, and re-arms the error interrupt. */
static void write_esr(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now, (void)value;
    s->esr = s->esr_pending;
    s->esr_pending = 0;
}

static uint64_t read_icr(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return s->icr | (vlapic_x2apic(s) ? (uint64_t)s->icr_dest << 32 : 0);
}

static void write_icr(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    s->icr = (uint32_t)value;
    if (vlapic_x2apic(s))
        s->icr_dest = (uint32_t)(value >> 32);
    vlapic_send(s);
}

static uint64_t read_icr_high(const struct vlapic *s, uint64_t now)
{
    (void)now;
    return s->icr_dest << 24;
}

static void write_icr_high(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    s->icr_dest = (uint32_t)value >> 24;
}

/* The new value of an LVT entry: masked for as long as the APIC is software-disabled. */
static uint32_t lvt_value(const struct vlapic *s, uint64_t value)
{
    return (uint32_t)value | ((s->svr & SVR_ENABLE) ? 0 : LVT_MASKED);
}

static void write_lvt_timer(struct vlapic *s, uint64_t now, uint64_t value)
{
    uint32_t v = lvt_value(s, value);
    vlapic_timer_lvt(s, now, (s->features & VLAPIC_TSC_DEADLINE) ? v : v & ~TIMER_DEADLINE);
}

/* LINT0 keeps its remote IRR while it stays fixed and level, and interrupts if the pin is asserted. */
static void write_lvt_lint0(struct vlapic *s, uint64_t now, uint64_t value)
{
    uint32_t v = lvt_value(s, value);
    (void)now;
    if ((v & LVT_LEVEL) && lvt_delivery(v) == DELIVER_FIXED)
        v |= s->lvt[LVT_LINT0] & LVT_REMOTE_IRR;
    s->lvt[LVT_LINT0] = v;
    vlapic_lint0_level(s);
}

static void write_tmict(struct vlapic *s, uint64_t now, uint64_t value)
{
    vlapic_timer_start(s, now, (uint32_t)value);
}

static uint64_t read_tmcct(const struct vlapic *s, uint64_t now)
{
    return vlapic_timer_count(s, now);
}

static void write_dcr(struct vlapic *s, uint64_t now, uint64_t value)
{
    vlapic_timer_divide(s, now, (uint32_t)value);
}

static void write_self_ipi(struct vlapic *s, uint64_t now, uint64_t value)
{
    (void)now;
    vlapic_self_ipi(s, (uint8_t)value);
}

/* clang-format off */
#define FIELD(name) offsetof(struct vlapic, name), 0, 0, NULL, NULL
#define ABOVE(bits) (~(uint64_t)(bits))
#define LVT(entry, bits, status, handler) \
    {RW, offsetof(struct vlapic, lvt[entry]), (bits), ABOVE((bits) | (status)), NULL, handler}
#define VECTORS(reg, f)                                                 \
    [(reg) + 0] = {RO, FIELD(f[0])}, [(reg) + 1] = {RO, FIELD(f[1])},   \
    [(reg) + 2] = {RO, FIELD(f[2])}, [(reg) + 3] = {RO, FIELD(f[3])},   \
    [(reg) + 4] = {RO, FIELD(f[4])}, [(reg) + 5] = {RO, FIELD(f[5])},   \
    [(reg) + 6] = {RO, FIELD(f[6])}, [(reg) + 7] = {RO, FIELD(f[7])}
/* clang-format on */

/* SDM tables 11-1 (page) and 11-6 (MSRs). The read-only bits of an LVT entry may be written as they were read. */
static const struct vlapic_register registers[REG_COUNT] = {
    [REG_ID] = {RO | PAGE_W, 0, 0xff000000, 0, read_id, write_id},
    [REG_VERSION] = {RO, 0, 0, 0, read_version, NULL},
    [REG_TPR] = {RW, offsetof(struct vlapic, tpr), 0xff, ABOVE(0xff), NULL, write_tpr},
    [REG_APR] = {PAGE_R, 0, 0, 0, read_apr, NULL},
    [REG_PPR] = {RO, FIELD(ppr)},
    [REG_EOI] = {PAGE | MSR_W, 0, 0, ABOVE(0), read_zero, write_eoi},
    [REG_RRD] = {PAGE_R, 0, 0, 0, read_zero, NULL},
    [REG_LDR] = {RO | PAGE_W, 0, 0xff000000, 0, read_ldr, write_ldr},
    [REG_DFR] = {PAGE, offsetof(struct vlapic, dfr), 0xf0000000, 0, NULL, write_dfr},
    [REG_SVR] = {RW, offsetof(struct vlapic, svr), SVR_WRITABLE, ABOVE(SVR_WRITABLE), NULL, write_svr},
    VECTORS(REG_ISR, isr.word),
    VECTORS(REG_TMR, tmr),
    VECTORS(REG_IRR, irr.word),
    [REG_ESR] = {RW, offsetof(struct vlapic, esr), 0, ABOVE(0), NULL, write_esr},
    [REG_ICR] = {RW, 0, ICR_WRITABLE, ICR_RESERVED, read_icr, write_icr},
    [REG_ICR_HIGH] = {PAGE, 0, 0xff000000, 0, read_icr_high, write_icr_high},
    [REG_LVT_CMCI] = LVT(LVT_CMCI, LVT_SENSOR_WRITABLE, LVT_STATUS, NULL),
    [REG_LVT_TIMER] = LVT(LVT_TIMER, LVT_TIMER_WRITABLE, LVT_STATUS, write_lvt_timer),
    [REG_LVT_THERMAL] = LVT(LVT_THERMAL, LVT_SENSOR_WRITABLE, LVT_STATUS, NULL),
    [REG_LVT_PMC] = LVT(LVT_PMC, LVT_SENSOR_WRITABLE, LVT_STATUS, NULL),
    [REG_LVT_LINT0] = LVT(LVT_LINT0, LVT_LINT_WRITABLE, LVT_STATUS | LVT_REMOTE_IRR, write_lvt_lint0),
    [REG_LVT_LINT1] = LVT(LVT_LINT1, LVT_LINT_WRITABLE, LVT_STATUS | LVT_REMOTE_IRR, NULL),
    [REG_LVT_ERROR] = LVT(LVT_ERROR, LVT_ERROR_WRITABLE, LVT_STATUS, NULL),
    [REG_TMICT] = {RW, offsetof(struct vlapic, tmict), ~0u, ABOVE(~0u), NULL, write_tmict},
    [REG_TMCCT] = {RO, 0, 0, 0, read_tmcct, NULL},
    [REG_DCR] = {RW, offsetof(struct vlapic, dcr), DCR_WRITABLE, ABOVE(DCR_WRITABLE), NULL, write_dcr},
    [REG_SELF_IPI] = {MSR_W, 0, 0xff, ABOVE(0xff), NULL, write_self_ipi},
};

/* Is there a register of this number, on a CPU with these features? */
static bool is_register(const struct vlapic *s, uint32_t reg)
{
    return reg < REG_COUNT && (reg != REG_LVT_CMCI || (s->features & VLAPIC_CMCI));
}

static uint64_t read_register(const struct vlapic *s, uint64_t now, const struct vlapic_register *r)
{
    return r->read ? r->read(s, now) : *(const uint32_t *)((const char *)s + r->field);
}

static void write_register(struct vlapic *s, uint64_t now, const struct vlapic_register *r, uint64_t value)
{
    if (r->write)
        r->write(s, now, value);
    else
        *(uint32_t *)((char *)s + r->field) = lvt_value(s, value);
}

/* The register at a page offset; NULL, and an error logged, where the page has none. */
static const struct vlapic_register *page_register(struct vlapic *s, unsigned offset)
{
    unsigned reg = offset >> 4;
    if (is_register(s, reg) && (registers[reg].access & PAGE))
        return &registers[reg];
    vlapic_error(s, ESR_REGISTER);
    return NULL;
}

uint64_t vlapic_read(struct vlapic *s, uint64_t now, unsigned offset, unsigned size)
{
    const struct vlapic_register *r;
    unsigned byte = offset & 15;
    if (offset > 0xfff || (size != 1 && size != 2 && size != 4) || byte + size > 4)
        return all_ones(size);
    vlapic_advance(s, now);
    r = page_register(s, offset);
    return r ? (read_register(s, now, r) >> (byte * 8)) & all_ones(size) : 0;
}

void vlapic_write(struct vlapic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    const struct vlapic_register *r;
    if (offset > 0xfff || (offset & 15) || size != 4)
        return;
    r = page_register(s, offset);
    if (r && (r->access & PAGE_W))
        write_register(s, now, r, value & r->writable);
}

static bool x2apic_read(struct vlapic *s, uint64_t now, uint32_t reg, uint64_t *value)
{
    if (!is_register(s, reg) || !vlapic_x2apic(s) || !(registers[reg].access & MSR_R))
        return false;
    vlapic_advance(s, now);
    *value = read_register(s, now, &registers[reg]);
    return true;
}

static bool x2apic_write(struct vlapic *s, uint64_t now, uint32_t reg, uint64_t value)
{
    const struct vlapic_register *r;
    if (!is_register(s, reg) || !vlapic_x2apic(s))
        return false;
    r = &registers[reg];
    if (!(r->access & MSR_W) || (value & r->reserved))
        return false;
    if (reg == REG_LVT_TIMER && (value & TIMER_DEADLINE) && !(s->features & VLAPIC_TSC_DEADLINE))
        return false;
    write_register(s, now, r, value & (r->writable | ABOVE(~0u)));
    return true;
}

bool vlapic_msr_read(struct vlapic *s, uint64_t now, uint32_t msr, uint64_t *value)
{
    if (msr - MSR_X2APIC_FIRST <= MSR_X2APIC_LAST - MSR_X2APIC_FIRST)
        return x2apic_read(s, now, msr - MSR_X2APIC_FIRST, value);
    switch (msr) {
    case MSR_TSC_DEADLINE:
        if (!(s->features & VLAPIC_TSC_DEADLINE))
            return false;
        vlapic_advance(s, now);
        *value = s->tsc_deadline;
        return true;
    case MSR_APIC_BASE:
        *value = s->apic_base;
        return true;
    case MSR_TSC:
        *value = now + s->tsc_adjust;
        return true;
    case MSR_TSC_ADJUST:
        *value = s->tsc_adjust;
        return true;
    default:
        return false;
    }
}

bool vlapic_msr_write(struct vlapic *s, uint64_t now, uint32_t msr, uint64_t value)
{
    if (msr - MSR_X2APIC_FIRST <= MSR_X2APIC_LAST - MSR_X2APIC_FIRST)
        return x2apic_write(s, now, msr - MSR_X2APIC_FIRST, value);
    switch (msr) {
    case MSR_TSC_DEADLINE:
        if (!(s->features & VLAPIC_TSC_DEADLINE))
            return false;
        vlapic_write_deadline(s, now, value);
        return true;
    case MSR_APIC_BASE:
        return vlapic_write_base(s, now, value);
    case MSR_TSC:
        vlapic_write_adjust(s, now, value - now);
        return true;
    case MSR_TSC_ADJUST:
        vlapic_write_adjust(s, now, value);
        return true;
    default:
        return false;
    }
}
