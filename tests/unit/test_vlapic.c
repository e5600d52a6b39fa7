/* The local APIC: registers, accesses, errors, LVT entries and pins, INIT and SIPI. */
#include "vlapic_test.h"

static void reset_state(void **state)
{
    static const struct { unsigned offset; uint32_t value; } expected[] = {
        {ID, 5u << 24}, {VERSION, 0x01050014}, {TPR, 0}, {APR, 0}, {PPR, 0}, {RRD, 0}, {LDR, 0}, {DFR, ~0u}, {SVR, 0xff},
        {ESR, 0}, {ICR, 0}, {ICR2, 0}, {TIMER, MASKED}, {THERMAL, MASKED}, {PMC, MASKED}, {LINT0, MASKED},
        {LINT1, MASKED}, {ERROR, MASKED}, {TMICT, 0}, {TMCCT, 0}, {DCR, 0}, {EOI, 0},
    };
    struct vlapic s;
    uint64_t value;
    UNUSED(state);
    power_on(&s, 5);
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        assert_int_equal(vlapic_read(&s, 0, expected[i].offset, 4), expected[i].value);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(vlapic_read(&s, 0, ISR + 16 * i, 4), 0);
    assert_true(vlapic_msr_read(&s, 0, MSR_APIC_BASE, &value));
    assert_int_equal(value, BASE | 0x900);
    assert_int_equal(vlapic_base(&s), BASE);
    assert_true(vlapic_mmio_enabled(&s));
    assert_int_equal(s.activity, VLAPIC_RUNNING);
    assert_int_equal(vlapic_pending(&s), -1);
    assert_true(vlapic_deadline(&s) == NEVER);
    assert_int_equal(s.out.message.kind, BUS_NONE);
    assert_int_equal(vlapic_read(&s, 0, ESR, 4), 0); /* none of these reads was an error */
    wr(&s, 0, ESR, 0);
    assert_int_equal(vlapic_read(&s, 0, ESR, 4), 0);

    vlapic_reset(&s, 0, 6, false);
    assert_int_equal(s.activity, VLAPIC_WAIT_SIPI);
    assert_true(vlapic_msr_read(&s, 0, MSR_APIC_BASE, &value));
    assert_int_equal(value, BASE | 0x800);
}

/* Reset depends on nothing that was there but the generation, which only goes up. */
static void reset_forgets(void **state)
{
    struct vlapic s, t;
    UNUSED(state);
    memset(&s, 0xa5, sizeof(s));
    memset(&t, 0, sizeof(t));
    vlapic_reset(&s, 99, 3, true);
    vlapic_reset(&t, 0, 3, true);
    assert_int_equal(s.map_generation, 0xa5a5a5a6);
    s.map_generation = t.map_generation;
    assert_memory_equal(&s, &t, sizeof(s));
}

/* Which bits of each register a page write changes. */
static void writable_bits(void **state)
{
    static const struct { unsigned offset; uint32_t writable, fixed; } regs[] = {
        {ID, 0xff000000, 0}, {VERSION, 0, 0x01050014}, {TPR, 0xff, 0}, {RRD, 0, 0}, {LDR, 0xff000000, 0},
        {DFR, 0xf0000000, 0x0fffffff}, {SVR, 0x13ff, 0}, {ICR2, 0xff000000, 0}, {TIMER, 0x700ff, 0},
        {THERMAL, 0x107ff, 0}, {PMC, 0x107ff, 0}, {LINT0, 0x1a7ff, 0}, {LINT1, 0x1a7ff, 0}, {ERROR, 0x100ff, 0},
        {TMCCT, 0, 0}, {DCR, 0xb, 0}, {IRR, 0, 0}, {ISR + 0x70, 0, 0}, {TMR, 0, 0},
    };
    struct vlapic s;
    UNUSED(state);
    for (size_t i = 0; i < COUNT_OF(regs); i++)
        for (unsigned bit = 0; bit < 34; bit++) {
            uint32_t value = bit < 32 ? 1u << bit : bit == 32 ? ~0u : 0;
            enabled(&s, 0, false);
            wr(&s, 0, regs[i].offset, value);
            assert_int_equal(rd(&s, 0, regs[i].offset), (value & regs[i].writable) | regs[i].fixed);
        }
    enabled(&s, 0, false); /* PPR is read-only but follows TPR */
    wr(&s, 0, PPR, 0xff);
    assert_int_equal(rd(&s, 0, PPR), 0);
    wr(&s, 0, TMICT, 0x12345678);
    assert_int_equal(rd(&s, 0, TMICT), 0x12345678);
}

/* The table of accesses in the header: every offset, size and direction. */
static void mmio_access_table(void **state)
{
    static const unsigned sizes[] = {1, 2, 4, 8, 3};
    struct vlapic s, before;
    UNUSED(state);
    enabled(&s, 0xa1, false);
    wr(&s, 0, ICR2, 0xc3000000);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (unsigned offset = 0; offset < 0x1010; offset++) {
            unsigned size = sizes[i], byte = offset & 15;
            bool inside = size <= 4 && size != 3 && byte + size <= 4 && offset < 0x1000;
            before = s;
            uint64_t got = vlapic_read(&s, 0, offset, size);
            if (!inside) {
                assert_true(got == all_ones(size));
                assert_memory_equal(&s, &before, sizeof(s)); /* no side effect */
                if (size != 4 || byte) {
                    vlapic_write(&s, 0, offset, size, 0x55);
                    assert_memory_equal(&s, &before, sizeof(s));
                }
                continue;
            }
            s = before;
            uint64_t whole = vlapic_read(&s, 0, offset & ~15u, 4);
            assert_true(got == ((whole >> (8 * byte)) & all_ones(size)));
            s = before;
            if (size != 4 || byte) {
                vlapic_write(&s, 0, offset, size, ~0ull);
                assert_memory_equal(&s, &before, sizeof(s));
            }
        }
    assert_int_equal(vlapic_read(&s, 0, ID + 3, 1), 0xa1);
    assert_int_equal(vlapic_read(&s, 0, ICR2 + 2, 2), 0xc300);
    before = s;
    vlapic_write(&s, 0, 0x1000 + TPR, 4, 0x55); /* beyond the page */
    assert_memory_equal(&s, &before, sizeof(s));
}

/* Accesses to registers that are not there: exactly these, read 0 and set ESR bit 7. */
static void reserved_registers(void **state)
{
    struct vlapic s;
    UNUSED(state);
    for (unsigned offset = 0; offset < 0x1000; offset += 16) {
        bool reserved = offset < 0x20 || (offset >= 0x40 && offset < 0x80) || (offset >= 0x290 && offset <= 0x2f0) ||
                        (offset >= 0x3a0 && offset <= 0x3d0) || offset >= 0x3f0;
        enabled(&s, 0, false);
        uint64_t value = vlapic_read(&s, 0, offset, 4);
        wr(&s, 0, ESR, 0);
        assert_int_equal(rd(&s, 0, ESR), reserved ? 0x80 : 0);
        assert_true(!reserved || value == 0);
        enabled(&s, 0, false);
        wr(&s, 0, offset, 0);
        wr(&s, 0, ESR, 0);
        assert_int_equal((s.esr | s.esr_pending) & 0x80, reserved ? 0x80 : 0);
    }
}

static void xapic_id_is_writable(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 3, false);
    wr(&s, 0, ID, 0x42ffffff);
    assert_int_equal(rd(&s, 0, ID), 0x42000000);
    assert_true(vlapic_matches(&s, 0x42, 0));
    assert_false(vlapic_matches(&s, 3, 0));
    set_base(&s, 0, BASE | 0xc00);
    assert_int_equal(rd(&s, 0, ID), 3);
    set_base(&s, 0, 0);
    set_base(&s, 0, BASE | 0x800);
    assert_int_equal(rd(&s, 0, ID), 3 << 24);
}

/* ---- software enable ---- */

static void software_disable_masks_lvt(void **state)
{
    static const unsigned lvt[] = {TIMER, THERMAL, PMC, LINT0, LINT1, ERROR};
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++) {
        struct vlapic s;
        enabled(&s, 0, x2);
        for (size_t i = 0; i < COUNT_OF(lvt); i++)
            wr(&s, 0, lvt[i], 0x30 + i);
        assert_true(vlapic_post(&s, 0, 0x41, false));
        assert_true(vlapic_post(&s, 0, 0x51, false));
        assert_int_equal(vlapic_ack(&s, 0), 0x51);
        wr(&s, 0, SVR, 0xff);
        for (size_t i = 0; i < COUNT_OF(lvt); i++) {
            assert_int_equal(rd(&s, 0, lvt[i]), MASKED | (0x30 + i));
            wr(&s, 0, lvt[i], 0x60 + i); /* attempts to unmask fail */
            assert_int_equal(rd(&s, 0, lvt[i]), MASKED | (0x60 + i));
        }
        assert_false(vlapic_post(&s, 0, 0x80, false));
        vlapic_eoi(&s, 0); /* what was there stays and must be handled */
        assert_int_equal(vlapic_pending(&s), 0x41);
        wr(&s, 0, SVR, 0x1ff);
        assert_int_equal(rd(&s, 0, TIMER), MASKED | 0x60); /* enabling unmasks nothing */
        assert_true(vlapic_post(&s, 0, 0x80, false));
    }
}

static void disabled_apic_still_sends(void **state)
{
    struct vlapic s;
    UNUSED(state);
    power_on(&s, 0);
    wr(&s, 0, ICR2, 0x01000000);
    wr(&s, 0, ICR, 0x4500);
    struct bus_message m = take(&s);
    assert_int_equal(m.kind, BUS_INTERRUPT);
    assert_int_equal(m.delivery, DELIVER_INIT);
}

static void spurious_vector(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, SVR, 0x1ef);
    assert_int_equal(vlapic_ack(&s, 0), 0xef);
    vlapic_post(&s, 0, 0x31, false);
    wr(&s, 0, TPR, 0x30); /* TPR rose between INTR and the acknowledge */
    assert_int_equal(vlapic_ack(&s, 0), 0xef);
    assert_int_equal(rd(&s, 0, ISR + 0x70), 0); /* a spurious vector sets no ISR bit */
    assert_int_equal(vlapic_highest_irr(&s), 0x31);
}

/* ---- EOI ---- */

static void eoi_broadcast(void **state)
{
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++)
        for (unsigned v = 16; v < 256; v++)
            for (unsigned how = 0; how < 4; how++) { /* level, suppression */
                struct vlapic s;
                enabled(&s, 0, x2);
                wr(&s, 0, SVR, (how & 2) ? 0x11ff : 0x1ff);
                assert_true(vlapic_post(&s, 0, (uint8_t)v, how & 1));
                assert_int_equal(rd(&s, 0, TMR + (v / 32) * 16), (how & 1) ? 1u << (v & 31) : 0);
                assert_int_equal(vlapic_ack(&s, 0), v);
                assert_int_equal(rd(&s, 0, ISR + (v / 32) * 16), 1u << (v & 31));
                assert_int_equal(rd(&s, 0, PPR), v & 0xf0);
                assert_int_equal(take(&s).kind, BUS_NONE);
                wr(&s, 0, EOI, 0);
                struct bus_message m = take(&s);
                assert_int_equal(m.kind, how == 1 ? BUS_EOI : BUS_NONE);
                if (how == 1)
                    assert_int_equal(m.vector, v);
                assert_int_equal(rd(&s, 0, PPR), 0);
                wr(&s, 0, EOI, 0); /* nothing in service: nothing happens */
                assert_int_equal(take(&s).kind, BUS_NONE);
            }
}

/* An edge after a level on one vector clears its TMR bit. */
static void tmr_follows_the_last_post(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    vlapic_post(&s, 0, 0x77, true);
    vlapic_post(&s, 0, 0x77, false);
    vlapic_ack(&s, 0);
    vlapic_eoi(&s, 0);
    assert_int_equal(take(&s).kind, BUS_NONE);
    for (int how = 0; how < 3; how++) { /* the APIC's own interrupts are edges too */
        enabled(&s, 0, true);
        vlapic_post(&s, 0, 0x77, true);
        wr(&s, 0, TIMER, 0x40077);
        wr(&s, 0, ERROR, 0x77);
        if (how == 0)
            wr(&s, 0, SELF_IPI, 0x77);
        else if (how == 1)
            vlapic_msr_write(&s, 10, MSR_TSC_DEADLINE, 10);
        else
            vlapic_post(&s, 0, 1, false);
        assert_int_equal(rd(&s, 0, TMR + 0x30), 0);
    }
}

/* ---- errors ---- */

static void esr_latches_on_write(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    assert_false(vlapic_post(&s, 0, 15, false));
    vlapic_read(&s, 0, CMCI, 4);
    assert_int_equal(rd(&s, 0, ESR), 0); /* not before the write */
    wr(&s, 0, ESR, 0x12345678);          /* whose value does not matter */
    assert_int_equal(rd(&s, 0, ESR), 0xc0);
    assert_int_equal(rd(&s, 0, ESR), 0xc0);
    wr(&s, 0, ESR, 0);
    assert_int_equal(rd(&s, 0, ESR), 0);
}

static void error_interrupt_is_armed_once(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, ERROR, 0xfe);
    vlapic_post(&s, 0, 3, false);
    assert_int_equal(vlapic_ack(&s, 0), 0xfe);
    vlapic_eoi(&s, 0);
    assert_int_equal(take(&s).kind, BUS_NONE); /* edge-triggered */
    vlapic_post(&s, 0, 3, false);
    vlapic_read(&s, 0, 0, 4);
    assert_int_equal(vlapic_pending(&s), -1); /* not re-armed yet */
    wr(&s, 0, ESR, 0);
    vlapic_post(&s, 0, 3, false);
    assert_int_equal(vlapic_pending(&s), 0xfe);
    wr(&s, 0, ESR, 0);
    wr(&s, 0, ERROR, MASKED | 0xfd);
    vlapic_post(&s, 0, 3, false);
    assert_int_equal(vlapic_ack(&s, 0), 0xfe);
    assert_int_equal(vlapic_highest_irr(&s), -1); /* masked: nothing new */
    wr(&s, 0, ESR, 0);
    wr(&s, 0, ERROR, 0x10); /* the lowest legal vector */
    vlapic_post(&s, 0, 3, false);
    assert_int_equal(vlapic_highest_irr(&s), 0x10);
}

/* XSA-462: an error vector that is itself illegal must not raise the error it reports. */
static void xsa_462_error_does_not_recurse(void **state)
{
    UNUSED(state);
    for (unsigned v = 0; v < 16; v++) {
        struct vlapic s;
        enabled(&s, 0, false);
        wr(&s, 0, ERROR, v);
        vlapic_read(&s, 0, 0x3d0, 4);
        assert_sane(&s);
        assert_int_equal(vlapic_highest_irr(&s), -1);
        wr(&s, 0, ESR, 0);
        assert_int_equal(rd(&s, 0, ESR), 0xc0);
        vlapic_post(&s, 0, (uint8_t)v, false);
        wr(&s, 0, ESR, 0);
        assert_int_equal(rd(&s, 0, ESR), 0x40);
    }
}

static void illegal_vectors_are_refused(void **state)
{
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++)
        for (unsigned v = 0; v < 256; v++) {
            struct vlapic s;
            enabled(&s, 0, x2);
            assert_int_equal(vlapic_post(&s, 0, (uint8_t)v, v & 1), v >= 16);
            assert_int_equal(vlapic_highest_irr(&s), v >= 16 ? (int)v : -1);
            wr(&s, 0, ESR, 0);
            assert_int_equal(rd(&s, 0, ESR), v >= 16 ? 0 : 0x40);
        }
}

static void illegal_lvt_vector_is_logged_when_raised(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, LINT1, 0x0f);
    wr(&s, 0, LINT0, 0x800e);
    assert_int_equal(s.esr_pending, 0);
    vlapic_set_line(&s, 0, 1, true);
    assert_int_equal(s.esr_pending, 0x40);
    wr(&s, 0, ESR, 0);
    vlapic_set_line(&s, 0, 0, true);
    assert_int_equal(s.esr_pending, 0x40);
    assert_int_equal(rd(&s, 0, LINT0), 0x800e); /* not accepted: no remote IRR */
    assert_int_equal(vlapic_highest_irr(&s), -1);
    wr(&s, 0, ESR, 0);
    wr(&s, 0, TIMER, 5);
    wr(&s, 0, TMICT, 1);
    vlapic_advance(&s, 100);
    assert_int_equal(s.esr_pending, 0x40);
    assert_sane(&s);
}

/* ---- pins and local entries ---- */

/* Every delivery mode, trigger, polarity and mask of LINT0 and LINT1, at a rising edge. */
static void lint_delivery_modes(void **state)
{
    UNUSED(state);
    for (unsigned line = 0; line < 2; line++)
        for (unsigned bits = 0; bits < 64; bits++) {
            unsigned mode = bits & 7;
            bool level = bits & 8, low = bits & 16, masked = bits & 32;
            struct vlapic s;
            enabled(&s, 0, false);
            vlapic_set_line(&s, 0, line, low); /* idle */
            wr(&s, 0, line ? LINT1 : LINT0,
               0x41 | mode << 8 | (level ? 0x8000 : 0) | (low ? 0x2000 : 0) | (masked ? MASKED : 0));
            vlapic_set_line(&s, 0, line, low);
            assert_int_equal(vlapic_highest_irr(&s), -1);
            assert_int_equal(s.out.nmi + s.out.smi + s.out.init, 0);
            vlapic_set_line(&s, 0, line, !low);
            vlapic_set_line(&s, 0, line, !low);
            assert_sane(&s);
            assert_int_equal(vlapic_highest_irr(&s), mode == DELIVER_FIXED && !masked ? 0x41 : -1);
            assert_int_equal(s.out.nmi, mode == DELIVER_NMI && !masked);
            assert_int_equal(s.out.smi, mode == DELIVER_SMI && !masked);
            assert_int_equal(s.out.init, mode == DELIVER_INIT && !masked);
            assert_int_equal(vlapic_accepts_extint(&s), line == 0 && mode == DELIVER_EXTINT && !masked);
            bool remote = line == 0 && level && mode == DELIVER_FIXED && !masked;
            assert_int_equal((s.lvt[LVT_LINT0] & 0x4000) != 0, remote);
            assert_int_equal((s.tmr[2] & 2) != 0, remote); /* LINT1 is edge whatever it says */
        }
}

static void lint0_level_is_redelivered(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, true);
    wr(&s, 0, LINT0, 0x8041);
    vlapic_set_line(&s, 0, 0, true);
    assert_int_equal(rd(&s, 0, LINT0), 0xc041);
    wr(&s, 0, LINT0, rd(&s, 0, LINT0)); /* read-modify-write must not #GP, nor lose the bit */
    assert_int_equal(rd(&s, 0, LINT0), 0xc041);
    assert_int_equal(vlapic_ack(&s, 0), 0x41);
    wr(&s, 0, LINT0, rd(&s, 0, LINT0));
    vlapic_set_line(&s, 0, 0, false);
    vlapic_set_line(&s, 0, 0, true);
    assert_int_equal(vlapic_highest_irr(&s), -1); /* remote IRR holds it back */
    vlapic_post(&s, 0, 0x99, true);
    vlapic_ack(&s, 0);
    wr(&s, 0, EOI, 0); /* another vector's EOI is not its own */
    assert_int_equal(vlapic_highest_irr(&s), -1);
    assert_int_equal(rd(&s, 0, LINT0), 0xc041);
    wr(&s, 0, EOI, 0);
    assert_int_equal(vlapic_ack(&s, 0), 0x41); /* still asserted */
    vlapic_set_line(&s, 0, 0, false);
    wr(&s, 0, EOI, 0);
    assert_int_equal(rd(&s, 0, LINT0), 0x8041);
    assert_int_equal(vlapic_highest_irr(&s), -1);
    wr(&s, 0, LINT0, 0x18041);
    vlapic_set_line(&s, 0, 0, true);
    assert_int_equal(vlapic_highest_irr(&s), -1);
    wr(&s, 0, LINT0, 0x8041); /* unmasking an asserted level interrupts */
    assert_int_equal(vlapic_highest_irr(&s), 0x41);
    wr(&s, 0, LINT0, 0x41); /* edge: remote IRR goes */
    assert_int_equal(rd(&s, 0, LINT0), 0x41);
    wr(&s, 0, SVR, 0x11ff); /* suppression concerns the broadcast, not LINT0 */
    wr(&s, 0, LINT0, 0x8041);
    vlapic_ack(&s, 0);
    take(&s);
    wr(&s, 0, EOI, 0);
    assert_int_equal(take(&s).kind, BUS_NONE);
    assert_int_equal(vlapic_pending(&s), 0x41);
}

static void globally_disabled_pins(void **state)
{
    struct vlapic s;
    UNUSED(state);
    power_on(&s, 0);
    assert_false(vlapic_accepts_extint(&s));
    set_base(&s, 0, BASE);
    assert_true(vlapic_accepts_extint(&s));
    for (int i = 0; i < 3; i++) {
        vlapic_set_line(&s, 0, 1, true);
        vlapic_set_line(&s, 0, 1, false);
    }
    vlapic_set_line(&s, 0, 0, true);
    assert_int_equal(s.out.nmi, 3);
    vlapic_set_line(&s, 0, 3, true); /* there are two pins: only the low bit counts */
    assert_int_equal(s.out.nmi, 4);
    assert_int_equal(s.lines, 3);
    assert_false(vlapic_post(&s, 0, 0x40, false));
    assert_int_equal(vlapic_pending(&s), -1);
    assert_sane(&s);
}

static void thermal_and_pmc(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, false);
    wr(&s, 0, THERMAL, 0xfa);
    vlapic_raise(&s, 0, LVT_THERMAL);
    assert_int_equal(vlapic_ack(&s, 0), 0xfa);
    assert_int_equal(rd(&s, 0, THERMAL), 0xfa);
    wr(&s, 0, PMC, 0x400);
    vlapic_raise(&s, 0, LVT_PMC);
    assert_int_equal(s.out.nmi, 1);
    assert_int_equal(rd(&s, 0, PMC), MASKED | 0x400); /* a PMI masks itself */
    vlapic_raise(&s, 0, LVT_PMC);
    assert_int_equal(s.out.nmi, 1);
    wr(&s, 0, PMC, 0x200);
    vlapic_raise(&s, 0, LVT_PMC);
    assert_int_equal(s.out.smi, 1);
    vlapic_raise(&s, 0, LVT_LINT0); /* not for pins, nor out of bounds */
    vlapic_raise(&s, 0, 77);
    assert_sane(&s);
}

/* The CMCI entry (SDM 15.5.1.1): an Intel guest's seventh, a reserved register on others. */
static void cmci_where_the_cpu_has_it(void **state)
{
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++) {
        struct vlapic s;
        uint64_t value;
        enabled(&s, 0, x2);
        assert_int_equal(rd(&s, 0, VERSION) >> 16 & 0xff, 5);
        vlapic_raise(&s, 0, LVT_CMCI);
        assert_int_equal(vlapic_highest_irr(&s), -1);
        if (x2) {
            assert_false(vlapic_msr_read(&s, 0, 0x82f, &value));
            assert_false(vlapic_msr_write(&s, 0, 0x82f, 0x31));
        }
        vlapic_configure(&s, 40, VLAPIC_X2APIC | VLAPIC_TSC_DEADLINE | VLAPIC_CMCI);
        assert_sane(&s);
        assert_int_equal(rd(&s, 0, VERSION) >> 16 & 0xff, 6);
        assert_int_equal(rd(&s, 0, CMCI), MASKED);
        wr(&s, 0, CMCI, 0x31);
        vlapic_raise(&s, 0, LVT_CMCI);
        assert_int_equal(vlapic_ack(&s, 0), 0x31);
        wr(&s, 0, CMCI, 0x400);
        vlapic_raise(&s, 0, LVT_CMCI);
        vlapic_raise(&s, 0, LVT_CMCI); /* it does not mask itself */
        assert_int_equal(s.out.nmi, 2);
        wr(&s, 0, SVR, 0xff);
        assert_int_equal(rd(&s, 0, CMCI), MASKED | 0x400);
        if (x2)
            assert_false(vlapic_msr_write(&s, 0, 0x82f, 0x20031)); /* the timer's bits are reserved here */
    }
}

static void delivery_status_is_always_idle(void **state)
{
    static const unsigned regs[] = {TIMER, THERMAL, PMC, LINT0, LINT1, ERROR, ICR};
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++)
        for (size_t i = 0; i < COUNT_OF(regs); i++) {
            struct vlapic s;
            enabled(&s, 0, x2);
            wr(&s, 0, regs[i], 0x1040);
            assert_int_equal(rd(&s, 0, regs[i]), 0x40);
        }
}

/* ---- INIT and SIPI ---- */

/* Writes to everything, so that a reset has something to do. */
static void dirty(struct vlapic *s)
{
    bool xapic = vlapic_mmio_enabled(s);
    wr(s, 0, TPR, 0x21);
    wr(s, 0, SVR, 0x133);
    if (xapic) {
        wr(s, 0, LDR, 0x04000000);
        wr(s, 0, DFR, 0);
        wr(s, 0, ICR2, 0x09000000);
    }
    wr(s, 0, ICR, 0x00040055);
    wr(s, 0, LINT0, 0x8066);
    vlapic_set_line(s, 0, 0, true);
    vlapic_post(s, 0, 0x90, true);
    vlapic_post(s, 0, 0x1f, true);
    vlapic_ack(s, 0);
    vlapic_post(s, 0, 0xa0, true);
    vlapic_post(s, 0, 1, true);
    wr(s, 0, ESR, 0);
    wr(s, 0, DCR, 3);
    wr(s, 0, TIMER, 0x200ee);
    wr(s, 0, TMICT, 1000);
}

static void init_keeps_id_and_base(void **state)
{
    UNUSED(state);
    for (int x2 = 0; x2 < 2; x2++) {
        struct vlapic s, fresh;
        enabled(&s, 0x17, x2);
        vlapic_msr_write(&s, 0, MSR_TSC_ADJUST, 77);
        set_base(&s, 0, 0xfed00000u | (x2 ? 0xd00 : 0x900));
        if (!x2)
            wr(&s, 0, ID, 0x55000000);
        fresh = s;
        dirty(&s);
        uint32_t generation = s.map_generation;
        vlapic_init(&s, 5);
        assert_sane(&s);
        assert_int_not_equal(s.map_generation, generation);
        assert_int_equal(s.activity, VLAPIC_RUNNING); /* a BSP starts over */
        assert_int_equal(rd(&s, 5, ID), x2 ? 0x17 : 0x55000000);
        assert_int_equal(rd(&s, 5, SVR), 0xff);
        assert_true(vlapic_deadline(&s) == NEVER);
        assert_int_equal(s.tsc_adjust, 77);
        fresh.svr = 0xff; /* all else is as fresh, but for pins and counts */
        fresh.lines = s.lines;
        fresh.map_generation = s.map_generation;
        fresh.out = s.out;
        assert_memory_equal(&s, &fresh, sizeof(s));
    }
}

static void sipi_starts_a_waiting_cpu(void **state)
{
    struct vlapic s = {0};
    UNUSED(state);
    vlapic_reset(&s, 0, 1, false);
    assert_true(vlapic_sipi(&s, 0, 0x9a));
    assert_int_equal(s.activity, VLAPIC_RUNNING);
    assert_int_equal(s.sipi_vector, 0x9a);
    assert_false(vlapic_sipi(&s, 0, 0x10)); /* the second of the pair that Intel prescribes */
    assert_int_equal(s.sipi_vector, 0x9a);
    vlapic_init(&s, 0);
    assert_int_equal(s.activity, VLAPIC_WAIT_SIPI);
    assert_int_equal(s.sipi_vector, 0);
    assert_false(vlapic_post(&s, 0, 0x40, false));
    assert_true(vlapic_sipi(&s, 0, 0xff));
    assert_int_equal(s.sipi_vector, 0xff);
    assert_sane(&s);
}

/* ---- TPR and CR8 ---- */

static void cr8_is_tpr(void **state)
{
    UNUSED(state);
    for (unsigned v = 0; v < 256; v++) {
        struct vlapic s;
        enabled(&s, 0, v & 1);
        wr(&s, 0, TPR, v);
        assert_int_equal(vlapic_get_cr8(&s), v >> 4);
        assert_int_equal(rd(&s, 0, PPR), v);
        vlapic_set_cr8(&s, v & 15);
        assert_int_equal(rd(&s, 0, TPR), (v & 15) << 4);
        assert_int_equal(rd(&s, 0, PPR), (v & 15) << 4);
        assert_sane(&s);
    }
}

/* ---- what a restored state may not be ---- */

enum sane_state { IN_USE, XAPIC, TSC_DEADLINE, RESERVED_MODE, DISABLED };

static void make(struct vlapic *s, enum sane_state which)
{
    enabled(s, which == IN_USE ? 0x21 : 0, which == IN_USE);
    if (which == IN_USE)
        dirty(s);
    if (which >= TSC_DEADLINE) {
        wr(s, 0, TIMER, 0x40030);
        vlapic_msr_write(s, 0, MSR_TSC_DEADLINE, 500);
    }
    if (which >= RESERVED_MODE)
        wr(s, 0, TIMER, 0x60030);
    if (which >= DISABLED)
        set_base(s, 0, BASE);
    assert_sane(s);
}

/* A field becomes (itself & kept) ^ flipped. */
struct change {
    size_t offset, size;
    uint64_t kept, flipped;
};
#define FIELD(field)       offsetof(struct vlapic, field), sizeof(((struct vlapic *)0)->field)
#define PUT(field, value)  {FIELD(field), 0, value}
#define FLIP(field, bits)  {FIELD(field), UINT64_MAX, bits}
#define WITH(field, bits)  {FIELD(field), ~(uint64_t)(bits), bits}
#define CLEAR(field, bits) {FIELD(field), ~(uint64_t)(bits), 0}
#define REFUSED(which, ...) {#which ": " #__VA_ARGS__, which, {__VA_ARGS__}}

static const struct {
    const char *text;
    enum sane_state state;
    struct change changes[3];
} refused[] = {
    REFUSED(IN_USE, FLIP(irr.summary, 1)),
    REFUSED(IN_USE, PUT(isr.summary, 0)),
    REFUSED(IN_USE, PUT(irr.word[0], 0x8000), WITH(irr.summary, 1)),
    REFUSED(IN_USE, WITH(isr.word[4], 0x30000)),
    REFUSED(IN_USE, PUT(tmr[0], 0x8000)),
    REFUSED(IN_USE, FLIP(ppr, 0x10)),
    REFUSED(IN_USE, WITH(tpr, 0x100)),
    REFUSED(IN_USE, WITH(svr, 0x400)),
    REFUSED(IN_USE, PUT(svr, 0xff)), /* software-disabled with unmasked entries */
    REFUSED(IN_USE, PUT(esr, 0x100)),
    REFUSED(IN_USE, PUT(esr_pending, 1)),
    REFUSED(IN_USE, PUT(ldr, 1)),
    REFUSED(IN_USE, PUT(dfr, 0)),
    REFUSED(IN_USE, PUT(xapic_id, 0x22)),
    REFUSED(IN_USE, WITH(icr, 0x1000)),
    REFUSED(IN_USE, PUT(dcr, 4)),
    REFUSED(IN_USE, WITH(lvt[LVT_TIMER], 0x100)),
    REFUSED(IN_USE, WITH(lvt[LVT_LINT1], LVT_REMOTE_IRR)),
    REFUSED(IN_USE, PUT(lvt[LVT_LINT0], LVT_REMOTE_IRR | 0x40)),
    REFUSED(IN_USE, PUT(lvt[LVT_LINT0], LVT_REMOTE_IRR | LVT_LEVEL | 0x440)), /* an NMI has none */
    REFUSED(IN_USE, WITH(lvt[LVT_TIMER], 0x60000)), /* counting in the reserved mode */
    REFUSED(IN_USE, PUT(tsc_deadline, 1)), /* armed in periodic mode */
    REFUSED(IN_USE, PUT(tmict, 0)), /* counting from 0: a period of 0 */
    REFUSED(IN_USE, PUT(activity, 2)),
    REFUSED(IN_USE, PUT(sipi_vector, 0x100)),
    REFUSED(IN_USE, PUT(lines, 4)),
    REFUSED(IN_USE, PUT(lvt[LVT_CMCI], 0x30)), /* where there is no such entry */
    REFUSED(IN_USE, PUT(phys_bits, 64)),
    REFUSED(IN_USE, PUT(phys_bits, 0)),
    REFUSED(IN_USE, PUT(features, 8)),
    REFUSED(IN_USE, PUT(features, 0)),
    REFUSED(IN_USE, WITH(apic_base, (uint64_t)1 << 40)),
    REFUSED(IN_USE, WITH(apic_base, 1)),
    REFUSED(IN_USE, CLEAR(apic_base, 0x800)),
    REFUSED(IN_USE, CLEAR(apic_base, 0xc00)),
    REFUSED(IN_USE, PUT(out.message.kind, 3)),
    REFUSED(IN_USE, PUT(out.message.delivery, 8)),
    REFUSED(IN_USE, PUT(out.message.shorthand, 4)),
    REFUSED(IN_USE, PUT(out.message.flags, 16)),
    REFUSED(IN_USE, PUT(out.message.zero[0], 1)),
    REFUSED(IN_USE, PUT(out.message.zero[1], 1)),
    REFUSED(IN_USE, PUT(out.message.zero[2], 1)),
    REFUSED(IN_USE, PUT(irr.word[0], 1), WITH(irr.summary, 1)),
    REFUSED(IN_USE, PUT(tmr[0], 1)),
    REFUSED(IN_USE, FLIP(lvt[LVT_LINT1], 0x1000)),
    REFUSED(XAPIC, PUT(icr_dest, 0x100)),
    REFUSED(XAPIC, PUT(xapic_id, 0x100)),
    REFUSED(TSC_DEADLINE, PUT(timer_expiry, 501)),
    REFUSED(TSC_DEADLINE, PUT(tsc_deadline, 0)),
    REFUSED(TSC_DEADLINE, PUT(tsc_deadline, 0), PUT(timer_expiry, 0)),
    REFUSED(TSC_DEADLINE, PUT(tmict, 1)),
    REFUSED(TSC_DEADLINE, PUT(features, VLAPIC_X2APIC)),
    REFUSED(RESERVED_MODE, PUT(tmict, 1)),
    REFUSED(RESERVED_MODE, PUT(tsc_deadline, 1)),
    REFUSED(RESERVED_MODE, PUT(timer_expiry, 1)),
    REFUSED(DISABLED, WITH(irr.word[2], 1), WITH(irr.summary, 4)),
    REFUSED(DISABLED, WITH(isr.word[2], 1), WITH(isr.summary, 4), PUT(ppr, 0x40)),
    REFUSED(DISABLED, PUT(svr, 0xfe)),
    REFUSED(DISABLED, PUT(tmict, 5), PUT(timer_expiry, 5)),
    REFUSED(DISABLED, PUT(xapic_id, 1)),
};

static void apply(struct vlapic *s, const struct change *c)
{
    uint8_t *field = (uint8_t *)s + c->offset;
    uint64_t value = 0;

    memcpy(&value, field, c->size);
    value = (value & c->kept) ^ c->flipped;
    memcpy(field, &value, c->size);
}

static void check_refuses(void **state)
{
    UNUSED(state);
    for (unsigned i = 0; i < COUNT_OF(refused); i++) {
        struct vlapic s;

        make(&s, refused[i].state);
        for (unsigned k = 0; k < COUNT_OF(refused[i].changes); k++)
            apply(&s, &refused[i].changes[k]);
        if (vlapic_check(&s))
            fail_msg("accepted: %s", refused[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reset_state),
        cmocka_unit_test(reset_forgets),
        cmocka_unit_test(writable_bits),
        cmocka_unit_test(mmio_access_table),
        cmocka_unit_test(reserved_registers),
        cmocka_unit_test(xapic_id_is_writable),
        cmocka_unit_test(software_disable_masks_lvt),
        cmocka_unit_test(disabled_apic_still_sends),
        cmocka_unit_test(spurious_vector),
        cmocka_unit_test(eoi_broadcast),
        cmocka_unit_test(tmr_follows_the_last_post),
        cmocka_unit_test(esr_latches_on_write),
        cmocka_unit_test(error_interrupt_is_armed_once),
        cmocka_unit_test(xsa_462_error_does_not_recurse),
        cmocka_unit_test(illegal_vectors_are_refused),
        cmocka_unit_test(illegal_lvt_vector_is_logged_when_raised),
        cmocka_unit_test(lint_delivery_modes),
        cmocka_unit_test(lint0_level_is_redelivered),
        cmocka_unit_test(globally_disabled_pins),
        cmocka_unit_test(thermal_and_pmc),
        cmocka_unit_test(cmci_where_the_cpu_has_it),
        cmocka_unit_test(delivery_status_is_always_idle),
        cmocka_unit_test(init_keeps_id_and_base),
        cmocka_unit_test(sipi_starts_a_waiting_cpu),
        cmocka_unit_test(cr8_is_tpr),
        cmocka_unit_test(check_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
