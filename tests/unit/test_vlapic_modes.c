/* The local APIC: x2APIC MSRs and their #GP rules, APIC_BASE transitions, IPIs and destinations. */
#include "vlapic_test.h"

/* ---- x2APIC MSRs ---- */

/* MSRs 0x800-0x83f by SDM table 11-6, written down once more: r, w, b(oth) or '-'. */
static const char x2apic_map[65] = "--rr----b-rw-r-b"  /* 0x800: ID, version, TPR, PPR, EOI, LDR, SVR */
                                   "rrrrrrrrrrrrrrrr"  /* ISR, TMR */
                                   "rrrrrrrrb-------"  /* IRR, ESR */
                                   "b-bbbbbbbr----bw"; /* ICR, LVT, TMICT, TMCCT, DCR, self IPI */

/* XSA-108: 0x800-0x8ff are the APIC's, all 256 and no more; outside x2APIC mode each of them is #GP. */
static void xsa_108_msr_range_is_exact(void **state)
{
    UNUSED(state);
    for (unsigned mode = 0; mode < 3; mode++)
        for (uint32_t msr = 0; msr < 0x2000; msr++) {
            struct vlapic s, before;
            uint64_t value = 0x55;
            enabled(&s, 0, mode == 2);
            if (mode == 0)
                set_base(&s, 0, 0);
            before = s;
            char kind = mode == 2 && msr >= 0x800 && msr < 0x840 ? x2apic_map[msr - 0x800] : '-';
            bool other = msr == 0x10 || msr == 0x1b || msr == 0x3b || msr == 0x6e0;
            assert_int_equal(vlapic_msr_read(&s, 0, msr, &value), other || kind == 'r' || kind == 'b');
            assert_true(other || kind == 'r' || kind == 'b' || value == 0x55);
            assert_memory_equal(&s, &before, sizeof(s));
            if (other)
                continue;
            assert_int_equal(vlapic_msr_write(&s, 0, msr, 0), kind == 'w' || kind == 'b');
            assert_sane(&s);
            if (kind != 'w' && kind != 'b')
                assert_memory_equal(&s, &before, sizeof(s));
        }
    struct vlapic s;
    uint64_t value;
    enabled(&s, 0, true);
    assert_false(vlapic_msr_read(&s, 0, ~0u, &value));
    assert_false(vlapic_msr_write(&s, 0, ~0u, 0));
    assert_false(vlapic_msr_read(&s, 0, 0xc0000800, &value));
    assert_false(vlapic_msr_write(&s, 0, 0x80000808, 0));
}

/* Every single bit of every writable MSR: reserved ones are #GP and change nothing; others read back if writable. */
static void x2apic_reserved_bits(void **state)
{
    static const struct { uint32_t msr; uint64_t allowed, kept; } rules[] = {
        {0x808, 0xff, 0xff}, {0x80b, 0, 0}, {0x80f, 0x13ff, 0x13ff}, {0x828, 0, 0},
        {0x830, 0xffffffff000cdfff, 0xffffffff000ccfff}, {0x832, 0x710ff, 0x700ff}, {0x833, 0x117ff, 0x107ff},
        {0x834, 0x117ff, 0x107ff}, {0x835, 0x1f7ff, 0x1a7ff}, {0x836, 0x1f7ff, 0x1a7ff}, {0x837, 0x110ff, 0x100ff},
        {0x838, 0xffffffff, 0xffffffff}, {0x83e, 0xb, 0xb}, {0x83f, 0xff, 0},
    };
    UNUSED(state);
    for (size_t i = 0; i < COUNT_OF(rules); i++)
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t value = (uint64_t)1 << bit, got = 0;
            struct vlapic s, before;
            enabled(&s, 0, true);
            before = s;
            bool ok = vlapic_msr_write(&s, 0, rules[i].msr, value);
            assert_sane(&s);
            assert_int_equal(ok, (rules[i].allowed & value) != 0);
            if (!ok)
                assert_memory_equal(&s, &before, sizeof(s));
            else if (vlapic_msr_read(&s, 0, rules[i].msr, &got) && rules[i].msr != 0x80f)
                assert_true(got == (value & rules[i].kept));
            else
                assert_true(rules[i].msr == 0x83f || got == value);
        }
}

static void x2apic_id_and_ldr(void **state)
{
    UNUSED(state);
    for (uint32_t id = 0; id < 0x2000; id++) {
        struct vlapic s;
        enabled(&s, id, true);
        assert_int_equal(rd(&s, 0, ID), id);
        assert_int_equal(rd(&s, 0, LDR), ((id & ~15u) << 12) | (1u << (id & 15)));
        assert_int_equal(rd(&s, 0, VERSION), 0x01050014);
    }
}

/* Features that CPUID hides are reserved. */
static void hidden_features_are_reserved(void **state)
{
    struct vlapic s;
    uint64_t value;
    UNUSED(state);
    enabled(&s, 0, false);
    vlapic_configure(&s, 36, VLAPIC_X2APIC);
    assert_false(vlapic_msr_write(&s, 0, MSR_TSC_DEADLINE, 1));
    assert_false(vlapic_msr_read(&s, 0, MSR_TSC_DEADLINE, &value));
    wr(&s, 0, TIMER, 0x400ee);
    assert_int_equal(rd(&s, 0, TIMER), 0xee);
    set_base(&s, 0, BASE | 0xc00);
    assert_false(vlapic_msr_write(&s, 0, 0x832, 0x400ee));
    assert_true(vlapic_msr_write(&s, 0, 0x832, 0x200ee));
    power_on(&s, 0);
    vlapic_configure(&s, 36, VLAPIC_TSC_DEADLINE);
    assert_false(vlapic_msr_write(&s, 0, MSR_APIC_BASE, BASE | 0xc00));
    assert_true(vlapic_msr_write(&s, 0, MSR_APIC_BASE, BASE | 0x800));
    vlapic_configure(&s, 0, ~0u); /* nonsense is brought into range */
    assert_sane(&s);
    vlapic_configure(&s, 64, ~0u);
    assert_sane(&s);
}

/* ---- APIC_BASE ---- */

enum { OFF, INVALID, XAPIC, X2APIC };

static void enter(struct vlapic *s, unsigned mode)
{
    enabled(s, 0x1234, mode == X2APIC);
    if (mode == OFF)
        set_base(s, 0, BASE);
}

static void base_transitions(void **state)
{
    static const bool legal[4][4] = {/* to: OFF, INVALID, XAPIC, X2APIC */
                                     [OFF] = {true, false, true, false},
                                     [XAPIC] = {true, false, true, true},
                                     [X2APIC] = {true, false, false, true}};
    UNUSED(state);
    for (unsigned from = 0; from < 4; from++)
        for (unsigned to = 0; to < 4 && from != INVALID; to++) {
            struct vlapic s, before;
            enter(&s, from);
            before = s;
            assert_int_equal(vlapic_msr_write(&s, 0, MSR_APIC_BASE, BASE | to << 10), legal[from][to]);
            assert_sane(&s);
            if (!legal[from][to]) {
                assert_memory_equal(&s, &before, sizeof(s));
                continue;
            }
            assert_int_equal(s.apic_base & 0xc00, to << 10);
            assert_int_equal(vlapic_mmio_enabled(&s), to == XAPIC);
            assert_int_equal(vlapic_x2apic(&s), to == X2APIC);
            assert_int_equal(s.map_generation != before.map_generation, from != to);
        }
}

static void base_reserved_bits(void **state)
{
    static const unsigned widths[] = {32, 36, 40, 46, 52};
    UNUSED(state);
    for (size_t w = 0; w < COUNT_OF(widths); w++)
        for (unsigned bit = 0; bit < 64; bit++) {
            struct vlapic s, before;
            bool reserved = bit < 8 || bit == 9 || bit >= widths[w];
            uint64_t value = (uint64_t)1 << bit | 0x800;
            enabled(&s, 0, false);
            vlapic_configure(&s, widths[w], ~0u);
            before = s;
            assert_int_equal(vlapic_msr_write(&s, 0, MSR_APIC_BASE, value), !reserved);
            assert_sane(&s);
            if (reserved)
                assert_memory_equal(&s, &before, sizeof(s));
            else if (bit >= 12)
                assert_true(vlapic_base(&s) == value - 0x800);
        }
}

static void bsp_flag_is_read_only(void **state)
{
    struct vlapic s = {0};
    uint64_t value;
    UNUSED(state);
    enabled(&s, 0, false);
    set_base(&s, 0, BASE | 0x800);
    assert_true(vlapic_msr_read(&s, 0, MSR_APIC_BASE, &value));
    assert_int_equal(value, BASE | 0x900);
    vlapic_reset(&s, 0, 1, false);
    set_base(&s, 0, BASE | 0x900);
    assert_true(vlapic_msr_read(&s, 0, MSR_APIC_BASE, &value));
    assert_int_equal(value, BASE | 0x800);
}

static void global_disable_resets(void **state)
{
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++) {
        struct vlapic s, fresh;
        enabled(&s, 9, x2);
        wr(&s, 0, TPR, 0x20);
        wr(&s, 0, TIMER, 0x20040);
        wr(&s, 0, TMICT, 50);
        vlapic_post(&s, 0, 0x60, true);
        vlapic_ack(&s, 0);
        vlapic_post(&s, 0, 0x70, true);
        set_base(&s, 100, BASE);
        assert_int_equal(s.timer_due, 1); /* what was due is accounted for */
        s.timer_due = s.timer_due_at = 0;
        assert_int_equal(vlapic_pending(&s), -1);
        assert_true(vlapic_deadline(&s) == NEVER);
        assert_false(vlapic_matches(&s, 0xff, 0));
        set_base(&s, 0, BASE | 0x800);
        power_on(&fresh, 9);
        fresh.map_generation = s.map_generation;
        assert_memory_equal(&s, &fresh, sizeof(s));
    }
}

/* A restored one with the timer in TSC-deadline mode would count, and interrupt, while it is disabled. */
static void disabled_apic_cannot_be_armed(void **state)
{
    struct vlapic s, good;
    UNUSED(state);
    enabled(&good, 9, false);
    set_base(&good, 0, BASE);
    vlapic_set_cr8(&good, 5);
    assert_sane(&good);
#define REFUSED(change) s = good; change; assert_false(vlapic_check(&s))
    REFUSED(s.lvt[LVT_TIMER] = LVT_MASKED | 0x40000);
    REFUSED(s.lvt[LVT_LINT0] = LVT_MASKED | 0x700);
    REFUSED(s.tmict = 1);
    REFUSED(s.tsc_deadline = 1);
    REFUSED(s.timer_expiry = 1);
    REFUSED(s.tmr[3] = 1);
    REFUSED(s.esr_pending = 0x80);
    REFUSED(s.dfr = 0xfffffff);
    REFUSED(s.svr = 0xf0);
#undef REFUSED
    s = good;
    assert_true(vlapic_msr_write(&s, 0, MSR_TSC_DEADLINE, 100));
    assert_true(vlapic_deadline(&s) == NEVER && s.timer_expiry == NEVER);
    assert_sane(&s);
}

/* Entering x2APIC mode keeps the registers, but for ID, LDR and the high half of the ICR. */
static void entering_x2apic_keeps_registers(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0x21, false);
    wr(&s, 0, TPR, 0x30);
    wr(&s, 0, LDR, 0x80000000);
    wr(&s, 0, TIMER, 0x20040);
    wr(&s, 0, TMICT, 50);
    wr(&s, 0, ICR2, 0x07000000);
    wr(&s, 0, ICR, 0x4041);
    take(&s);
    vlapic_post(&s, 0, 0x70, false);
    set_base(&s, 0, BASE | 0xd00);
    assert_int_equal(rd(&s, 0, TPR), 0x30);
    assert_int_equal(rd(&s, 0, SVR), 0x1ff);
    assert_int_equal(rd(&s, 0, TMICT), 50);
    assert_int_equal(vlapic_deadline(&s), 100);
    assert_true(rd(&s, 0, ICR) == 0x4041);
    assert_int_equal(vlapic_pending(&s), 0x70);
    assert_int_equal(rd(&s, 0, LDR), 0x20002);
}

static void generation_counts_routing_changes(void **state)
{
    static const struct { unsigned offset; uint32_t value; bool routed; } writes[] = {
        {ID, 0x07000000, true}, {LDR, 0x02000000, true}, {DFR, 0, true}, {SVR, 0xff, true}, {SVR, 0x1fe, false},
        {TPR, 0x40, false}, {TIMER, 0x40, false}, {DFR, ~0u, false}, {TMICT, 5, false}, {ICR2, 1u << 24, false},
    };
    UNUSED(state);
    for (size_t i = 0; i < COUNT_OF(writes); i++) {
        struct vlapic s;
        enabled(&s, 0, false);
        uint32_t before = s.map_generation;
        wr(&s, 0, writes[i].offset, writes[i].value);
        assert_int_equal(s.map_generation, before + writes[i].routed);
    }
}

/* ---- IPIs ---- */

/* Every delivery mode, destination mode, level, trigger, shorthand, in both modes. */
static void icr_sends(void **state)
{
    UNUSED(state);
    for (unsigned bits = 0; bits < 512; bits++) {
        bool x2 = bits & 256, logical = bits & 8, assert_level = bits & 16, level = bits & 32;
        unsigned mode = bits & 7, shorthand = (bits >> 6) & 3;
        uint32_t icr = 0x51 | mode << 8 | (logical ? 0x800 : 0) | (assert_level ? 0x4000 : 0) | (level ? 0x8000 : 0) |
                       shorthand << 18;
        struct vlapic s;
        enabled(&s, 3, x2);
        if (x2) {
            wr(&s, 0, ICR, (uint64_t)0xabcd0012 << 32 | icr);
            assert_true(rd(&s, 0, ICR) == ((uint64_t)0xabcd0012 << 32 | icr));
        } else {
            wr(&s, 0, ICR2, 0x12ffffff);
            assert_int_equal(s.out.message.kind, BUS_NONE); /* the high half sends nothing */
            wr(&s, 0, ICR, icr);
            assert_int_equal(rd(&s, 0, ICR), icr);
            assert_int_equal(rd(&s, 0, ICR2), 0x12000000);
        }
        struct bus_message m = take(&s);
        bool self = shorthand == SHORTHAND_SELF;
        bool sent = !self && mode != DELIVER_RESERVED && !(mode == DELIVER_INIT && level && !assert_level) &&
                    !(shorthand == SHORTHAND_ALL && (mode == DELIVER_LOWEST || mode == DELIVER_INIT || mode == DELIVER_SIPI));
        assert_int_equal(vlapic_highest_irr(&s), self && mode == DELIVER_FIXED ? 0x51 : -1);
        assert_int_equal(s.out.nmi, self && mode == DELIVER_NMI);
        assert_int_equal(s.out.smi, self && mode == DELIVER_SMI);
        assert_int_equal(m.kind, sent ? BUS_INTERRUPT : BUS_NONE);
        if (!sent)
            continue;
        assert_int_equal(m.vector, 0x51);
        assert_int_equal(m.delivery, mode);
        assert_int_equal(m.shorthand, shorthand);
        assert_int_equal(m.flags, BUS_ASSERT | (logical ? BUS_LOGICAL : 0) | (x2 ? BUS_X2APIC : 0));
        assert_int_equal(m.dest, x2 ? 0xabcd0012 : 0x12);
    }
}

static void self_nmi_is_delivered(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, true);
    wr(&s, 0, ICR, 0x44400);
    wr(&s, 0, ICR, 0x44400);
    assert_int_equal(s.out.nmi, 2);
    assert_int_equal(take(&s).kind, BUS_NONE);
}

static void invalid_ipis_are_dropped(void **state)
{
    static const uint32_t icr[] = {0x44500, 0x44600, 0x44130, 0x84500, 0x84600, 0x84130, 0x4330, 0x84330, 0x44330, 0x8500,
                                   0x88500};
    UNUSED(state);
    for (size_t i = 0; i < COUNT_OF(icr); i++) {
        struct vlapic s, before;
        enabled(&s, 0, true);
        before = s;
        wr(&s, 0, ICR, icr[i]);
        before.icr = icr[i];
        assert_memory_equal(&s, &before, sizeof(s));
    }
}

static void illegal_vectors_are_logged_by_the_sender(void **state)
{
    UNUSED(state);
    for (unsigned v = 0; v < 256; v++)
        for (unsigned mode = 0; mode < 8; mode++) {
            struct vlapic s;
            bool bad = v < 16 && (mode == DELIVER_FIXED || mode == DELIVER_LOWEST);
            enabled(&s, 0, v & 1);
            wr(&s, 0, ICR, 0xc4000 | mode << 8 | v);
            assert_int_equal(s.esr_pending, bad ? 0x20 : 0);
            assert_int_equal(take(&s).kind, mode == DELIVER_RESERVED ? BUS_NONE : BUS_INTERRUPT);
            enabled(&s, 0, v & 1);
            wr(&s, 0, ICR, 0x44000 | v); /* to itself: sent and received */
            assert_int_equal(s.esr_pending, v < 16 ? 0x60 : 0);
            enabled(&s, 0, true);
            wr(&s, 0, SELF_IPI, v);
            assert_int_equal(s.esr_pending, v < 16 ? 0x60 : 0);
            assert_int_equal(vlapic_pending(&s), v < 16 ? -1 : (int)v);
            assert_int_equal(take(&s).kind, BUS_NONE);
        }
}

/* ---- destinations ---- */

/* SDM 11.6.2, as plainly as it can be put. */
static bool naive_match(bool x2, uint32_t id, uint32_t ldr, unsigned model, uint32_t dest, unsigned flags)
{
    bool wide = flags & BUS_X2APIC, logical = flags & BUS_LOGICAL;
    if (!wide)
        dest &= 0xff;
    if (wide ? dest == 0xffffffff : dest == 0xff)
        return true;
    if (!logical)
        return dest == id;
    if (x2)
        return dest >> 16 == id >> 4 && ((dest >> (id & 15)) & 1);
    if (dest > 0xff)
        return false;
    for (unsigned bit = 0; bit < 8; bit++) {
        bool both = ((ldr >> bit) & 1) && ((dest >> bit) & 1);
        if (model == 15 && both)
            return true;
        if (model == 0 && bit < 4 && both && ldr / 16 == dest / 16)
            return true;
    }
    return false;
}

static void destinations_match_the_manual(void **state)
{
    static const unsigned models[] = {15, 0, 7};
    UNUSED(state);
    for (unsigned m = 0; m < 3; m++)
        for (uint32_t ldr = 0; ldr < 256; ldr++) {
            struct vlapic s;
            enabled(&s, 0x1c5, false);
            wr(&s, 0, DFR, models[m] << 28);
            wr(&s, 0, LDR, ldr << 24);
            for (uint32_t dest = 0; dest < 0x180; dest++)
                for (unsigned flags = 0; flags < 16; flags++)
                    assert_int_equal(vlapic_matches(&s, dest, (uint8_t)flags),
                                     naive_match(false, 0xc5, ldr, models[m], dest, flags));
        }
    for (uint32_t id = 0; id < 0x200; id++) {
        struct vlapic s;
        enabled(&s, id, true);
        for (uint32_t high = 0; high < 0x22; high++)
            for (uint32_t low = 0; low < 0x200; low++)
                for (unsigned flags = 0; flags < 16; flags += 1 + (flags & 1) * 6) {
                    uint32_t dest = high << 16 | (low & 0xff) << (low & 0x100 ? 8 : 0);
                    assert_int_equal(vlapic_matches(&s, dest, (uint8_t)flags), naive_match(true, id, 0, 0, dest, flags));
                }
        assert_true(vlapic_matches(&s, ~0u, BUS_X2APIC));
        assert_true(vlapic_matches(&s, ~0u, BUS_X2APIC | BUS_LOGICAL));
        assert_true(vlapic_matches(&s, 0xff, 0));
        assert_int_equal(vlapic_matches(&s, 0xff, BUS_X2APIC), id == 0xff); /* no broadcast in 32 bits */
    }
}

static void logical_broadcast_matches_all(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 1, false);
    assert_true(vlapic_matches(&s, 0xff, BUS_LOGICAL));
    assert_false(vlapic_matches(&s, 0xfe, BUS_LOGICAL));
    wr(&s, 0, DFR, 0);
    assert_true(vlapic_matches(&s, 0xff, BUS_LOGICAL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xsa_108_msr_range_is_exact),
        cmocka_unit_test(x2apic_reserved_bits),
        cmocka_unit_test(x2apic_id_and_ldr),
        cmocka_unit_test(hidden_features_are_reserved),
        cmocka_unit_test(base_transitions),
        cmocka_unit_test(base_reserved_bits),
        cmocka_unit_test(bsp_flag_is_read_only),
        cmocka_unit_test(global_disable_resets),
        cmocka_unit_test(disabled_apic_cannot_be_armed),
        cmocka_unit_test(entering_x2apic_keeps_registers),
        cmocka_unit_test(generation_counts_routing_changes),
        cmocka_unit_test(icr_sends),
        cmocka_unit_test(self_nmi_is_delivered),
        cmocka_unit_test(invalid_ipis_are_dropped),
        cmocka_unit_test(illegal_vectors_are_logged_by_the_sender),
        cmocka_unit_test(destinations_match_the_manual),
        cmocka_unit_test(logical_broadcast_matches_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
