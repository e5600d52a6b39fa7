/*
 * The 8259A pair: the priority resolver against a naive reference in every state of it, every command and mode,
 * each stated difference, and random accesses against a reference pair written from the datasheet's prose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "vpic/vpic.h"

enum { M_CMD, M_DATA, S_CMD, S_DATA, ELCR1, ELCR2 };
enum { EOI = 0x20, ROTATE_EOI = 0xa0, SPECIFIC_EOI = 0x60, ROTATE_SPECIFIC_EOI = 0xe0, SET_PRIORITY = 0xc0 };
enum { ROTATE_AEOI_ON = 0x80, ROTATE_AEOI_OFF = 0, OCW2_NOP = 0x40 };
enum { READ_IRR = 0x0a, READ_ISR = 0x0b, POLL = 0x0c, SMM_ON = 0x68, SMM_OFF = 0x48 };

static struct vpic pic;
static uint64_t now;

static void out(unsigned offset, unsigned value)
{
    vpic_write(&pic, now++, offset, 1, value);
    assert_true(vpic_check(&pic));
}

static unsigned in(unsigned offset)
{
    unsigned v = (unsigned)vpic_read(&pic, now++, offset, 1);
    assert_true(vpic_check(&pic));
    return v;
}

static void irq(unsigned line, bool level)
{
    vpic_set_line(&pic, now++, line, level);
    assert_true(vpic_check(&pic));
}

static void pulse(unsigned line)
{
    irq(line, false);
    irq(line, true);
}

static unsigned intack(void)
{
    unsigned v = vpic_intack(&pic, now++);
    assert_true(vpic_check(&pic));
    return v;
}

static bool intr(void)
{
    return pic.out.line[0].level;
}

static unsigned isr(unsigned chip)
{
    out(2 * chip, READ_ISR);
    return in(2 * chip);
}

static unsigned irr(unsigned chip)
{
    out(2 * chip, READ_IRR);
    return in(2 * chip);
}

static void init_chip(unsigned chip, unsigned icw1, unsigned icw4)
{
    out(2 * chip, icw1);
    out(2 * chip + 1, chip ? 0x28 : 0x20);
    if (!(icw1 & 2))
        out(2 * chip + 1, chip ? 2 : 4);
    if (icw1 & 1)
        out(2 * chip + 1, icw4);
}

static int reset(void **state)
{
    now = 100;
    memset(&pic, 0xa5, sizeof(pic));
    vpic_reset(&pic, now);
    return 0;
}

/* As a PC BIOS leaves it, vectors 0x20 and 0x28. */
static int setup(void **state)
{
    reset(state);
    init_chip(0, 0x11, 1);
    init_chip(1, 0x11, 1);
    return 0;
}

/* The resolver. */

/* Levels in order of priority; each is held back by what is in service above it or at it. */
static unsigned naive_resolve(unsigned irr_bits, unsigned isr_bits, unsigned imr, unsigned highest, unsigned mode)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned line = (highest + i) % 8;
        bool serving = isr_bits >> line & 1, masked = imr >> line & 1, wanted = (irr_bits >> line & 1) && !masked;
        if ((mode & VPIC_SPECIAL_MASK) && masked)
            serving = false;
        if (serving)
            return wanted && (mode & VPIC_SPECIAL_NESTED) && line == 2 ? line : VPIC_NONE;
        if (wanted)
            return line;
    }
    return VPIC_NONE;
}

/* One byte of each mode and priority covers all (IRR, ISR) for one IMR. */
static void check_resolver(unsigned mode, unsigned highest, unsigned imr)
{
    for (unsigned i = 0; i < 0x10000; i++) {
        unsigned want = naive_resolve(i & 0xff, i >> 8, imr, highest, mode);
        if (vpic_resolve((uint8_t)i, (uint8_t)(i >> 8), (uint8_t)imr, highest, mode) != want)
            fail_msg("mode %u, highest %u, IMR %02x, ISR %02x, IRR %02x", mode, highest, imr, i >> 8, i & 0xff);
    }
}

static void test_resolver(void **state)
{
    unsigned long states = 0;

    for (unsigned mode = 0; mode < 4; mode++) {
        for (unsigned highest = 0; highest < 8; highest++) {
            for (unsigned imr = 0; imr < 256; imr++) {
                check_resolver(mode, highest, imr);
                states += 0x10000;
            }
        }
    }
    printf("resolver: %lu states\n", states);
    assert_true(states == 1ul << 29);
}

static void test_first(void **state)
{
    for (unsigned lines = 0; lines < 256; lines++) {
        for (unsigned highest = 0; highest < 8; highest++) {
            unsigned want = VPIC_NONE;
            for (unsigned i = 8; i-- > 0;)
                if (lines >> ((highest + i) % 8) & 1)
                    want = (highest + i) % 8;
            assert_int_equal(vpic_first((uint8_t)lines, highest), want);
        }
    }
}

/* Initialisation. */

static void test_silent_until_initialised(void **state)
{
    for (unsigned line = 0; line < 16; line++)
        irq(line, true);
    assert_false(intr());
    out(M_DATA, 0xfb);
    assert_int_equal(in(M_DATA), 0xfb); /* the mask works: this is how an OS probes for a PIC */
    out(M_DATA, 0);
    assert_false(intr());
    assert_int_equal(intack(), 7);
    assert_int_equal(isr(0), 0);
}

static void test_int_is_low_during_initialisation(void **state)
{
    irq(3, true);
    assert_true(intr());
    out(M_CMD, 0x11);
    assert_false(intr());
    pulse(4);
    out(M_DATA, 0x40);
    assert_false(intr());
    out(M_DATA, 4);
    assert_false(intr());
    out(M_DATA, 1);
    assert_true(intr());
    assert_int_equal(intack(), 0x44); /* IRQ3 rose before ICW1, IRQ4 after */
}

static void test_slave_int_is_low_during_initialisation(void **state)
{
    out(S_CMD, 0x11);
    irq(12, true);
    assert_false(intr());
    out(S_DATA, 0x70);
    out(S_DATA, 2);
    assert_false(intr());
    out(S_DATA, 1);
    assert_true(intr());
    assert_int_equal(intack(), 0x74);
}

static void test_icw1_clears(void **state)
{
    irq(0, true);
    irq(3, true);
    assert_int_equal(intack(), 0x20);
    out(M_DATA, 0x80);
    out(M_CMD, SMM_ON);
    out(M_CMD, SET_PRIORITY | 3);
    out(M_CMD, ROTATE_AEOI_ON);
    out(M_CMD, READ_ISR);
    out(M_CMD, 0x11);
    assert_int_equal(in(M_CMD), 0); /* IRR is selected, and clear although IR3 is high */
    assert_int_equal(in(M_DATA), 0);
    out(M_DATA, 0x20);
    out(M_DATA, 4);
    out(M_DATA, 1);
    assert_int_equal(isr(0), 0);
    assert_false(intr());
    assert_int_equal(pic.chip[0].highest, 0);
    assert_int_equal(pic.chip[0].special_mask, 0);
    assert_int_equal(pic.chip[0].rotate_aeoi, 0);
    pulse(3); /* an edge again */
    assert_int_equal(intack(), 0x23);
}

static void test_icw_sequences(void **state)
{
    static const struct {
        unsigned icw1, writes;
    } cases[] = {{0x11, 3}, {0x10, 2}, {0x13, 2}, {0x12, 1}};

    for (unsigned chip = 0; chip < 2; chip++) {
        for (unsigned i = 0; i < 4; i++) {
            out(2 * chip, cases[i].icw1);
            for (unsigned w = 0; w < cases[i].writes; w++) {
                assert_int_not_equal(pic.chip[chip].step, VPIC_READY);
                out(2 * chip + 1, 0x12);
                assert_int_equal(in(2 * chip + 1), 0);
            }
            assert_int_equal(pic.chip[chip].step, VPIC_READY);
            out(2 * chip + 1, 0x55);
            assert_int_equal(in(2 * chip + 1), 0x55);
        }
    }
}

static void test_vector_base(void **state)
{
    out(M_CMD, 0x13);
    out(M_DATA, 0xff); /* the low three bits are the line's */
    out(M_DATA, 1);
    irq(5, true);
    assert_int_equal(intack(), 0xfd);
}

static void test_no_icw4_clears_its_functions(void **state)
{
    init_chip(0, 0x11, 0x13);
    init_chip(0, 0x10, 0);
    irq(3, true);
    assert_int_equal(intack(), 0x23);
    assert_int_equal(isr(0), 8);
}

/* Edges, levels, masks. */

static void test_edge(void **state)
{
    irq(3, true);
    assert_true(intr());
    assert_int_equal(irr(0), 8);
    assert_int_equal(intack(), 0x23);
    assert_false(intr());
    assert_int_equal(irr(0), 0);
    assert_int_equal(isr(0), 8);
    out(M_CMD, EOI);
    assert_int_equal(isr(0), 0);
    assert_false(intr()); /* still high: no new edge */
    pulse(3);
    assert_true(intr());
}

static void test_request_falls_with_the_pin(void **state)
{
    irq(3, true);
    irq(3, false);
    assert_int_equal(irr(0), 0);
    assert_false(intr());
    irq(12, true);
    irq(12, false);
    assert_int_equal(irr(1), 0);
    assert_int_equal(irr(0), 0);
    assert_false(intr());
}

static void test_clock_edges_are_held(void **state)
{
    irq(0, true);
    irq(0, false);
    assert_int_equal(irr(0), 1);
    assert_int_equal(intack(), 0x20);
    assert_int_equal(irr(0), 0);
    out(M_CMD, EOI);
    assert_false(intr());
    irq(8, true);
    irq(8, false);
    assert_int_equal(irr(1), 1);
    assert_int_equal(intack(), 0x28);
    assert_int_equal(irr(1), 0);
    irq(0, true);
    irq(0, false);
    out(M_CMD, 0x11); /* ICW1 forgets it like any other */
    assert_int_equal(irr(0), 0);
}

static void test_level(void **state)
{
    out(ELCR1, 0x20);
    irq(5, true);
    assert_int_equal(intack(), 0x25);
    assert_int_equal(irr(0), 0x20); /* the level is the request */
    assert_false(intr());
    out(M_CMD, EOI);
    assert_true(intr());
    irq(5, false);
    assert_false(intr());
    assert_int_equal(irr(0), 0);
}

static void test_level_survives_icw1(void **state)
{
    out(ELCR2, 0x04);
    irq(10, true);
    init_chip(1, 0x11, 1);
    assert_true(intr());
    assert_int_equal(intack(), 0x2a);
}

static void test_elcr_bits(void **state)
{
    out(ELCR1, 0xff);
    out(ELCR2, 0xff);
    assert_int_equal(in(ELCR1), 0xf8);
    assert_int_equal(in(ELCR2), 0xde);
    vpic_write(&pic, now, ELCR1, 2, 0x0c20);
    assert_int_equal(in(ELCR1), 0x20);
    assert_int_equal(in(ELCR2), 0x0c);
    assert_int_equal(vpic_read(&pic, now, ELCR1, 2), 0x0c20);
    reset(NULL);
    assert_int_equal(vpic_read(&pic, now, ELCR1, 2), 0);
}

/* The latch is armed by the fall, not by the mode: what was never acknowledged is still a request as an edge. */
static void test_elcr_switch(void **state)
{
    irq(5, true);
    out(ELCR1, 0x20);
    assert_true(intr());
    out(ELCR1, 0);
    assert_true(intr());
    assert_int_equal(intack(), 0x25);
    out(M_CMD, EOI);
    assert_false(intr());
    out(ELCR1, 0x20);
    assert_true(intr());
    assert_int_equal(intack(), 0x25);
    out(M_CMD, EOI);
    out(ELCR1, 0);
    assert_false(intr());
}

static void test_ltim(void **state)
{
    init_chip(0, 0x19, 1);
    irq(1, true);
    assert_int_equal(intack(), 0x21);
    out(M_CMD, EOI);
    assert_true(intr()); /* whatever ELCR says */
    irq(1, false);
    assert_false(intr());
    irq(0, true);
    irq(0, false);
    assert_int_equal(irr(0), 0); /* a level is not held, not even the clock's */
    init_chip(0, 0x11, 1);
    pulse(1);
    assert_int_equal(intack(), 0x21);
    out(M_CMD, EOI);
    assert_false(intr());
}

static void test_mask(void **state)
{
    out(M_DATA, 0x08);
    irq(3, true);
    assert_int_equal(irr(0), 8);
    assert_false(intr());
    out(M_DATA, 0);
    assert_true(intr());
    out(M_DATA, 8);
    assert_false(intr());
    irq(12, true);
    assert_true(intr());
    out(S_DATA, 0x10);
    assert_false(intr());
    out(S_DATA, 0);
    out(M_DATA, 4 | 8);
    assert_false(intr());
    assert_int_equal(irr(0), 4 | 8);
    assert_int_equal(in(S_DATA), 0);
}

/* Priority. */

static void test_fully_nested(void **state)
{
    irq(4, true);
    assert_int_equal(intack(), 0x24);
    irq(6, true);
    assert_false(intr());
    irq(1, true);
    assert_true(intr());
    assert_int_equal(intack(), 0x21);
    assert_int_equal(isr(0), 0x12);
    out(M_CMD, EOI); /* the innermost */
    assert_int_equal(isr(0), 0x10);
    assert_false(intr());
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x26);
}

static void test_int_drops_at_intack(void **state)
{
    uint64_t before;

    irq(3, true);
    irq(1, true);
    before = pic.out.line[0].rises;
    assert_int_equal(intack(), 0x21);
    assert_int_equal(pic.out.line[0].rises, before);
    irq(0, true);
    assert_int_equal(pic.out.line[0].rises, before + 1);
    assert_int_equal(pic.out.line[0].last_rise, now - 1);
    out(M_CMD, SPECIFIC_EOI | 1);
    assert_int_equal(intack(), 0x20);
    out(M_CMD, EOI);
    assert_int_equal(pic.out.line[0].rises, before + 2);
}

static void test_specific_eoi(void **state)
{
    irq(4, true);
    intack();
    irq(1, true);
    intack();
    out(M_CMD, SPECIFIC_EOI | 4);
    assert_int_equal(isr(0), 2);
    out(M_CMD, SPECIFIC_EOI | 7);
    assert_int_equal(isr(0), 2);
    out(M_CMD, OCW2_NOP | 1);
    assert_int_equal(isr(0), 2);
}

static void test_set_priority(void **state)
{
    out(M_CMD, SET_PRIORITY | 4); /* IR5 is the highest now */
    irq(0, true);
    irq(4, true);
    irq(6, true);
    assert_int_equal(intack(), 0x26);
    irq(5, true);
    assert_int_equal(intack(), 0x25);
    assert_int_equal(isr(0), 0x60);
    out(M_CMD, EOI);
    assert_int_equal(isr(0), 0x40);
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x20);
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x24);
}

static void test_rotate_on_eoi(void **state)
{
    for (unsigned line = 3; line < 8; line++)
        irq(line, true);
    assert_int_equal(intack(), 0x23);
    out(M_CMD, ROTATE_EOI);
    pulse(3); /* at the end of the queue now */
    for (unsigned line = 4; line < 8; line++) {
        assert_int_equal(intack(), 0x20 + line);
        out(M_CMD, ROTATE_EOI);
    }
    assert_int_equal(intack(), 0x23);
    out(M_CMD, ROTATE_SPECIFIC_EOI | 3);
    assert_int_equal(isr(0), 0);
    assert_int_equal(pic.chip[0].highest, 4);
    out(M_CMD, ROTATE_EOI); /* nothing in service: nothing rotates */
    assert_int_equal(pic.chip[0].highest, 4);
    out(M_CMD, ROTATE_SPECIFIC_EOI | 6);
    assert_int_equal(pic.chip[0].highest, 7);
}

static void test_aeoi(void **state)
{
    init_chip(0, 0x11, 3);
    irq(3, true);
    irq(5, true);
    assert_int_equal(intack(), 0x23);
    assert_int_equal(isr(0), 0);
    assert_true(intr());
    assert_int_equal(intack(), 0x25);
    assert_false(intr());
    assert_int_equal(pic.chip[0].highest, 0);
}

static void test_rotate_in_aeoi(void **state)
{
    init_chip(0, 0x11, 3);
    out(M_CMD, ROTATE_AEOI_ON);
    irq(3, true);
    irq(5, true);
    assert_int_equal(intack(), 0x23);
    pulse(3);
    assert_int_equal(intack(), 0x25);
    pulse(5);
    assert_int_equal(intack(), 0x23);
    out(M_CMD, ROTATE_AEOI_OFF);
    pulse(3);
    assert_int_equal(intack(), 0x25);
    assert_int_equal(pic.chip[0].highest, 4);
}

static void test_special_mask(void **state)
{
    irq(3, true);
    intack();
    irq(6, true);
    assert_false(intr());
    out(M_DATA, 0x08);
    assert_false(intr());
    out(M_CMD, SMM_ON);
    assert_true(intr()); /* what is in service but masked holds nothing back */
    assert_int_equal(intack(), 0x26);
    out(M_CMD, EOI); /* does not end what is masked */
    assert_int_equal(isr(0), 0x08);
    out(M_CMD, EOI);
    assert_int_equal(isr(0), 0x08);
    out(M_CMD, 0x28); /* without ESMM, SMM means nothing */
    assert_int_equal(pic.chip[0].special_mask, 1);
    out(M_CMD, SPECIFIC_EOI | 3);
    assert_int_equal(isr(0), 0);
    out(M_CMD, SMM_OFF);
    assert_int_equal(pic.chip[0].special_mask, 0);
}

static void test_special_mask_unmasked_holds_back(void **state)
{
    out(M_CMD, SMM_ON);
    irq(3, true);
    intack();
    irq(6, true);
    pulse(3);
    assert_false(intr());
}

/* Cascade. */

static void test_cascade(void **state)
{
    irq(12, true);
    assert_int_equal(irr(0), 4);
    assert_int_equal(intack(), 0x2c);
    assert_int_equal(isr(0), 4);
    assert_int_equal(isr(1), 0x10);
    irq(9, true);
    assert_false(intr()); /* IR2 is in service */
    out(M_CMD, EOI);
    assert_true(intr());
    assert_int_equal(intack(), 0x29);
    out(S_CMD, EOI);
    out(M_CMD, EOI);
    assert_int_equal(isr(1), 0x10);
    irq(2, true); /* the cascade has no pin */
    assert_false(intr());
}

static void test_slave_raises_int_again_after_intack(void **state)
{
    init_chip(1, 0x11, 3); /* AEOI in the slave only */
    irq(12, true);
    irq(14, true);
    assert_int_equal(intack(), 0x2c);
    assert_int_equal(irr(0), 4);
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x2e);
    out(M_CMD, EOI);
    assert_false(intr());
}

/* KVM and QEMU drop IR2 from what is in service, which lets IR3-IR7 through as well. */
static void test_special_fully_nested(void **state)
{
    init_chip(0, 0x11, 0x11);
    irq(12, true);
    assert_int_equal(intack(), 0x2c);
    irq(4, true);
    assert_false(intr());
    irq(14, true);
    assert_false(intr()); /* the slave itself is fully nested */
    irq(9, true);
    assert_true(intr());
    assert_int_equal(intack(), 0x29);
    assert_int_equal(isr(1), 0x12);
    assert_int_equal(isr(0), 4);
    out(S_CMD, EOI);
    out(S_CMD, EOI);
    assert_true(intr());
    assert_int_equal(intack(), 0x2e);
    out(S_CMD, EOI);
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x24);
}

/* The slave has no slaves of its own: the bit does nothing there. */
static void test_special_fully_nested_in_slave(void **state)
{
    init_chip(1, 0x11, 0x11);
    init_chip(0, 0x11, 0x11);
    irq(10, true);
    assert_int_equal(intack(), 0x2a);
    pulse(10);
    assert_false(intr());
}

static void test_single_mode(void **state)
{
    init_chip(0, 0x13, 1);
    irq(12, true);
    assert_int_equal(intack(), 0x22); /* IR2 is a line like any other */
    assert_int_equal(isr(1), 0);
}

static void test_master_without_slave_on_ir2(void **state)
{
    out(M_CMD, 0x11);
    out(M_DATA, 0x20);
    out(M_DATA, 0xfb);
    out(M_DATA, 1);
    irq(12, true);
    assert_int_equal(intack(), 0x22);
}

static void test_slave_with_wrong_id(void **state)
{
    out(S_CMD, 0x11);
    out(S_DATA, 0x28);
    out(S_DATA, 3);
    out(S_DATA, 1);
    irq(12, true);
    assert_true(intr());
    assert_int_equal(intack(), 0xff);
    assert_int_equal(isr(0), 4);
    assert_int_equal(isr(1), 0);
    setup(NULL);
    init_chip(1, 0x13, 1);
    irq(12, true);
    assert_int_equal(intack(), 0xff);
}

/* Spurious interrupts. */

static void test_spurious_irq7(void **state)
{
    assert_int_equal(intack(), 0x27);
    assert_int_equal(isr(0), 0);
    irq(4, true);
    assert_true(intr());
    irq(4, false); /* between INT and INTA */
    assert_int_equal(intack(), 0x27);
    assert_int_equal(isr(0), 0); /* how a guest tells it from a real one */
    irq(7, true);
    assert_int_equal(intack(), 0x27);
    assert_int_equal(isr(0), 0x80);
}

static void test_spurious_irq15(void **state)
{
    irq(12, true);
    assert_true(intr());
    irq(12, false);
    assert_false(intr());
    assert_int_equal(intack(), 0x2f);
    assert_int_equal(isr(1), 0);
    assert_int_equal(isr(0), 4); /* the master has served its slave and wants an EOI */
    out(M_CMD, EOI);
    assert_int_equal(intack(), 0x27); /* nobody asked any more */
    irq(12, true);
    irq(1, true); /* the last request was the master's own */
    irq(12, false);
    irq(1, false);
    assert_int_equal(intack(), 0x27);
}

/* Poll. */

static void test_poll(void **state)
{
    irq(4, true);
    irq(6, true);
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0x84);
    assert_int_equal(isr(0), 0x10);
    assert_false(intr());
    out(M_CMD, EOI);
    out(M_CMD, POLL);
    assert_int_equal(in(M_DATA), 0x86); /* at either address */
    assert_int_equal(in(M_DATA), 0); /* once */
}

static void test_poll_without_request(void **state)
{
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0);
    irq(6, true);
    assert_int_equal(intack(), 0x26);
    pulse(7);
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0);
}

static void test_poll_cascade(void **state)
{
    irq(12, true);
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0x82);
    assert_int_equal(isr(1), 0);
    out(S_CMD, POLL);
    assert_int_equal(in(S_CMD), 0x84);
    assert_int_equal(isr(1), 0x10);
    assert_false(intr());
    out(S_CMD, EOI);
    out(M_CMD, EOI);
    assert_false(intr());
    irq(13, true); /* a poll of the slave withdraws its INT from the master */
    out(S_CMD, POLL);
    assert_int_equal(in(S_CMD), 0x85);
    assert_false(intr());
    assert_int_equal(irr(0), 0);
}

static void test_poll_in_aeoi(void **state)
{
    init_chip(0, 0x11, 3);
    out(M_CMD, ROTATE_AEOI_ON);
    irq(4, true);
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0x84);
    assert_int_equal(isr(0), 0);
    assert_int_equal(pic.chip[0].highest, 5);
}

static void test_poll_keeps_the_register_selected(void **state)
{
    irq(4, true);
    intack();
    out(M_CMD, READ_ISR);
    out(M_CMD, POLL);
    assert_int_equal(in(M_CMD), 0);
    assert_int_equal(in(M_CMD), 0x10);
    out(M_CMD, 0x08); /* OCW3 without RR changes nothing */
    assert_int_equal(in(M_CMD), 0x10);
    out(M_CMD, 0x09);
    assert_int_equal(in(M_CMD), 0x10);
    out(M_CMD, READ_IRR);
    assert_int_equal(in(M_CMD), 0);
}

/* Accesses. */

static void test_two_byte_accesses(void **state)
{
    vpic_write(&pic, now, M_CMD, 2, 0x5a00 | READ_ISR);
    assert_int_equal(in(M_DATA), 0x5a);
    irq(5, true);
    assert_int_equal(vpic_read(&pic, now, M_CMD, 2), 0x5a00);
    assert_int_equal(intack(), 0x25);
    assert_int_equal(vpic_read(&pic, now, M_CMD, 2), 0x5a20);
    vpic_write(&pic, now, S_CMD, 2, 0x1234);
    assert_int_equal(pic.chip[1].icw2, 0x10);
}

/* XSA-112, XSA-121: accesses across an edge, and what they return. */
static void test_undefined_accesses(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, ~0u};
    struct vpic before = pic;

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        for (unsigned offset = 0; offset < 10; offset++) {
            if (offset < 6 && (sizes[i] == 1 || (sizes[i] == 2 && offset % 2 == 0)))
                continue;
            assert_true(vpic_read(&pic, now, offset, sizes[i]) == all_ones(sizes[i]));
            vpic_write(&pic, now, offset, sizes[i], 0x1111111111111111);
        }
    }
    assert_true(vpic_read(&pic, now, ~0u, 1) == 0xff);
    vpic_write(&pic, now, ~0u, 1, 0x11);
    assert_memory_equal(&before, &pic, sizeof(pic));
}

/* XSA-261: lines above 15. */
static void test_lines_out_of_range_xsa261(void **state)
{
    struct vpic before = pic;

    for (unsigned line = 16; line < 300; line++)
        vpic_set_line(&pic, now, line, true);
    vpic_set_line(&pic, now, ~0u, true);
    vpic_set_line(&pic, now, 2, true);
    assert_memory_equal(&before, &pic, sizeof(pic));
}

static void test_time_does_nothing(void **state)
{
    struct vpic before;

    irq(3, true);
    before = pic;
    vpic_advance(&pic, now + 1000000);
    vpic_advance(&pic, 0);
    assert_memory_equal(&before, &pic, sizeof(pic));
    assert_true(vpic_deadline(&pic) == NEVER);
}

/* check() refuses what no pair of chips can be in. */
#define REFUSED(...) \
    do { \
        pic = good; \
        __VA_ARGS__; \
        assert_false(vpic_check(&pic)); \
    } while (0)

static void test_check_refuses(void **state)
{
    struct vpic good;

    irq(12, true);
    intack();
    irq(3, true);
    irq(1, true);
    good = pic;
    for (unsigned i = 0; i < sizeof(pic.zero); i++)
        REFUSED(pic.zero[i] = 1);
    REFUSED(pic.chip[0].zero = 1);
    REFUSED(pic.out.line[0].zero = 1);
    REFUSED(pic.out.line[0].level = 0);
    REFUSED(pic.out.line[0].level = 2);
    REFUSED(pic.from_slave = 2);
    REFUSED(pic.from_slave = 1);
    REFUSED(pic.chip[0].pins |= 4);
    REFUSED(pic.chip[0].edge |= 0x80);
    REFUSED(pic.chip[0].elcr = 1);
    REFUSED(pic.chip[1].elcr = 1);
    REFUSED(pic.chip[0].icw1 = 5);
    REFUSED(pic.chip[0].icw2 = 0x21);
    REFUSED(pic.chip[1].icw3 = 8);
    REFUSED(pic.chip[0].icw4 = 0x21);
    REFUSED(pic.chip[0].icw4 = 3); /* AEOI leaves nothing in service */
    REFUSED(pic.chip[1].step = 5);
    REFUSED(pic.chip[0].highest = 8);
    REFUSED(pic.chip[0].read_isr = 2);
    REFUSED(pic.chip[0].poll = 2);
    REFUSED(pic.chip[0].special_mask = 2);
    REFUSED(pic.chip[0].rotate_aeoi = 2);
    REFUSED(pic.chip[1].icw1 = 0); /* ICW4 was not announced */
}

static void test_check_refuses_registers_before_their_step(void **state)
{
    struct vpic good;

    reset(NULL);
    good = pic;
    REFUSED(pic.chip[1].isr = 1);
    REFUSED(pic.chip[1].icw1 = 1);
    REFUSED(pic.chip[1].icw2 = 8);
    REFUSED(pic.chip[1].icw3 = 1);
    REFUSED(pic.chip[1].icw4 = 1);
    out(S_CMD, 0x11);
    good = pic;
    REFUSED(pic.chip[1].isr = 1);
    REFUSED(pic.chip[1].imr = 1);
    REFUSED(pic.chip[1].icw4 = 1);
    REFUSED(pic.chip[1].step = VPIC_ICW3; pic.chip[1].icw1 = 3);
    REFUSED(pic.chip[1].step = VPIC_ICW4; pic.chip[1].icw1 = 0);
}

static void test_check_refuses_lost_inputs(void **state)
{
    struct vpic good;

    irq(12, true);
    irq(12, false); /* INT is low, the last request was the slave's */
    assert_true(pic.from_slave);
    good = pic;
    REFUSED(pic.from_slave = 2);
    REFUSED(pic.chip[0].icw1 = 3);
    REFUSED(pic.chip[0].icw3 = 0);
    REFUSED(pic.chip[0].step = VPIC_ICW2; pic.chip[0].icw4 = 0);
    REFUSED(pic.chip[1].step = VPIC_ICW2; pic.chip[1].icw4 = 0);
    setup(NULL);
    init_chip(0, 0x19, 1);
    good = pic;
    REFUSED(pic.chip[0].edge = 1); /* LTIM: nothing outlasts its level */
}
#undef REFUSED

/*
 * The reference pair: one array entry per line, priorities as an ordered list that rotates, as the datasheet tells it. A latch
 * "served" says that the present high level of a pin has been acknowledged; ICW1 sets it.
 */
struct ref_line {
    bool pin, served, held, serving, masked, elcr;
};

struct ref {
    struct ref_line line[8];
    unsigned order[8]; /* lines, highest priority first */
    unsigned icw1, icw2, icw3, icw4, next; /* next: ICW expected, 0 none */
    bool started, slave, show_isr, poll, smm, rotate;
};

struct ref_pair {
    struct ref c[2];
    bool slave_asked, intr;
    uint64_t rises;
};

static bool ref_is_level(const struct ref *r, unsigned line)
{
    return (r->icw1 & 8) || r->line[line].elcr;
}

static bool ref_requests(const struct ref *r, unsigned line)
{
    const struct ref_line *l = &r->line[line];
    if (ref_is_level(r, line))
        return l->pin;
    return (l->pin && !l->served) || l->held;
}

static bool ref_has_slave(const struct ref *r)
{
    return !r->slave && !(r->icw1 & 2) && (r->icw3 & 4);
}

static int ref_winner(const struct ref *r)
{
    if (!r->started || r->next)
        return -1;
    for (unsigned i = 0; i < 8; i++) {
        unsigned n = r->order[i];
        const struct ref_line *l = &r->line[n];
        bool wants = ref_requests(r, n) && !l->masked;
        if (l->serving && !(r->smm && l->masked)) {
            if (wants && n == 2 && (r->icw4 & 0x10) && ref_has_slave(r))
                return 2;
            return -1;
        }
        if (wants)
            return (int)n;
    }
    return -1;
}

static void ref_pin(struct ref *r, unsigned line, bool high)
{
    struct ref_line *l = &r->line[line];
    if (high && !l->pin && line == 0)
        l->held = true;
    if (!high)
        l->served = false;
    if (!high && ref_is_level(r, line))
        l->held = false;
    l->pin = high;
}

static void ref_update(struct ref_pair *p)
{
    int winner;
    ref_pin(&p->c[0], 2, ref_winner(&p->c[1]) >= 0);
    winner = ref_winner(&p->c[0]);
    if (winner >= 0)
        p->slave_asked = winner == 2 && ref_has_slave(&p->c[0]);
    if (winner >= 0 && !p->intr)
        p->rises++;
    p->intr = winner >= 0;
}

static void ref_to_bottom(struct ref *r, unsigned line)
{
    while (r->order[7] != line) {
        unsigned first = r->order[0];
        memmove(r->order, r->order + 1, 7 * sizeof(*r->order));
        r->order[7] = first;
    }
}

static void ref_ack(struct ref *r, unsigned line)
{
    r->line[line].served = true;
    r->line[line].held = false;
    if (!(r->icw4 & 2))
        r->line[line].serving = true;
    else if (r->rotate)
        ref_to_bottom(r, line);
}

static unsigned ref_vector(struct ref *r, int winner)
{
    if (winner < 0)
        return (r->icw2 & 0xf8) | 7;
    ref_ack(r, (unsigned)winner);
    return (r->icw2 & 0xf8) | (unsigned)winner;
}

static unsigned ref_intack(struct ref_pair *p)
{
    struct ref *s = &p->c[1];
    int winner = ref_winner(&p->c[0]);
    unsigned v;

    if (winner < 0 && p->slave_asked)
        winner = 2;
    v = ref_vector(&p->c[0], winner);
    p->slave_asked = false;
    p->intr = false;
    if (winner == 2 && ref_has_slave(&p->c[0])) {
        v = (s->icw1 & 2) || (s->icw3 & 7) != 2 ? 0xff : ref_vector(s, ref_winner(s));
        ref_pin(&p->c[0], 2, false);
    }
    ref_update(p);
    return v;
}

static unsigned ref_byte(const struct ref *r, unsigned what)
{
    unsigned v = 0;
    for (unsigned i = 0; i < 8; i++) {
        const struct ref_line *l = &r->line[i];
        bool bit = what == 0 ? ref_requests(r, i) : what == 1 ? l->serving : what == 2 ? l->masked : l->elcr;
        v |= (unsigned)bit << i;
    }
    return v;
}

static unsigned ref_read(struct ref_pair *p, unsigned offset)
{
    struct ref *r = &p->c[offset / 2 % 2];
    int winner;

    if (offset >= 4)
        return ref_byte(&p->c[offset - 4], 3);
    if (!r->poll)
        return ref_byte(r, offset & 1 ? 2 : r->show_isr);
    r->poll = false;
    winner = ref_winner(r);
    if (winner < 0)
        return 0;
    ref_ack(r, (unsigned)winner);
    if (r->slave) {
        ref_pin(&p->c[0], 2, false);
    } else {
        p->intr = false;
        p->slave_asked = false;
    }
    ref_update(p);
    return 0x80 + (unsigned)winner;
}

static void ref_icw1(struct ref_pair *p, struct ref *r, unsigned value)
{
    for (unsigned i = 0; i < 8; i++) {
        struct ref_line *l = &r->line[i];
        l->served = l->pin;
        l->held = l->serving = l->masked = false;
        r->order[i] = i;
    }
    r->icw1 = value;
    r->icw4 = 0;
    r->started = true;
    r->next = 2;
    r->show_isr = r->poll = r->smm = r->rotate = false;
    p->slave_asked = false;
}

static void ref_data(struct ref *r, unsigned value)
{
    switch (r->next) {
    case 2:
        r->icw2 = value;
        r->next = 3;
        if (!(r->icw1 & 2))
            return;
        break;
    case 3:
        r->icw3 = value;
        break;
    case 4:
        r->icw4 = value;
        r->next = 0;
        return;
    default:
        for (unsigned i = 0; i < 8; i++)
            r->line[i].masked = value >> i & 1;
        return;
    }
    r->next = r->icw1 & 1 ? 4 : 0;
}

static void ref_ocw2(struct ref *r, unsigned value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    int line = specific ? (int)(value & 7) : -1;

    if (!eoi && !specific) {
        r->rotate = rotate;
        return;
    }
    if (!specific)
        for (unsigned i = 8; i-- > 0;)
            if (r->line[r->order[i]].serving && !(r->smm && r->line[r->order[i]].masked))
                line = (int)r->order[i];
    if (line < 0)
        return;
    if (eoi)
        r->line[line].serving = false;
    if (rotate)
        ref_to_bottom(r, (unsigned)line);
}

static void ref_write(struct ref_pair *p, unsigned offset, unsigned value)
{
    struct ref *r = &p->c[offset >= 4 ? offset - 4 : offset / 2];

    if (offset >= 4) {
        for (unsigned i = 0; i < 8; i++)
            r->line[i].elcr = (r->slave ? i != 0 && i != 5 : i > 2) && (value >> i & 1);
    } else if (offset & 1) {
        ref_data(r, value);
    } else if (value & 0x10) {
        ref_icw1(p, r, value);
    } else if (value & 8) {
        if (value & 0x40)
            r->smm = value & 0x20;
        if (value & 2)
            r->show_isr = value & 1;
        r->poll = value & 4;
    } else {
        ref_ocw2(r, value);
    }
    ref_update(p);
}

static void ref_reset(struct ref_pair *p)
{
    memset(p, 0, sizeof(*p));
    p->c[1].slave = true;
    for (unsigned i = 0; i < 8; i++)
        p->c[0].order[i] = p->c[1].order[i] = i;
}

/* A write that a driver might do: initialisations mostly run to their end, in all their variants. */
static unsigned random_value(unsigned offset)
{
    unsigned chip = offset / 2 % 2, step = pic.chip[chip].step;

    if (below(20) == 0)
        return below(256);
    if (offset >= 4)
        return below(256) & below(256);
    if (offset & 1)
        return step == VPIC_ICW3 ? (chip ? 2 : 4) : step == VPIC_ICW4 ? below(32) : below(256) & below(256) & below(256);
    if (below(30) == 0)
        return 0x11 | below(2) << 3 | (below(8) == 0) << 1;
    return below(4) == 0 ? 8 | (below(256) & 0x67) : below(8) << 5 | below(8);
}

static void random_step(struct ref_pair *p)
{
    unsigned offset = below(16) ? below(4) : below(6), value, line = below(16);
    bool level = below(2);

    switch (below(8)) {
    case 0:
    case 1:
    case 2:
        vpic_set_line(&pic, now, line, level);
        if (line != 2) {
            ref_pin(&p->c[line / 8], line % 8, level);
            ref_update(p);
        }
        break;
    case 3:
    case 4:
        if (pic.out.line[0].level || below(16) == 0)
            assert_int_equal(vpic_intack(&pic, now), ref_intack(p));
        break;
    case 5:
        assert_int_equal(vpic_read(&pic, now, offset, 1), ref_read(p, offset));
        break;
    default:
        if (pic.chip[offset / 2 % 2].step != VPIC_READY && offset < 4)
            offset |= 1;
        if (pic.chip[offset / 2 % 2].step == VPIC_POWER_ON && offset < 4 && below(4))
            offset &= 2;
        value = pic.chip[offset / 2 % 2].step == VPIC_POWER_ON && offset < 4 && !(offset & 1) ? 0x11 : random_value(offset);
        vpic_write(&pic, now, offset, 1, value);
        ref_write(p, offset, value);
        break;
    }
}

static void test_against_reference(void **state)
{
    struct ref_pair p;

    seed = 0x8259;
    reset(NULL);
    ref_reset(&p);
    for (unsigned i = 0; i < 2000000; i++) {
        random_step(&p);
        now++;
        assert_true(vpic_check(&pic));
        assert_int_equal(intr(), p.intr);
        assert_int_equal(pic.out.line[0].rises, p.rises);
        for (unsigned chip = 0; chip < 2; chip++) {
            const struct vpic_chip *c = &pic.chip[chip];
            assert_int_equal(c->isr, ref_byte(&p.c[chip], 1));
            assert_int_equal(c->imr, ref_byte(&p.c[chip], 2));
            assert_int_equal(c->highest, p.c[chip].order[0]);
        }
        if (i % 5000 == 4999) {
            reset(NULL);
            ref_reset(&p);
        }
    }
}

/* Whatever is called with whatever arguments: the state stays one that hardware can be in, and a copy of it goes on alike. */
static void test_random_walk_stays_valid(void **state)
{
    struct vpic copy;

    seed = 0x20;
    for (unsigned i = 0; i < 400000; i++) {
        unsigned offset = below(8), size = below(4) ? 1 : 1u << below(4), value = below(65536), line = below(18), what = below(4);
        now = below(UINT64_MAX);
        memcpy(&copy, &pic, sizeof(pic));
        for (unsigned twice = 0; twice < 2; twice++) {
            struct vpic *p = twice ? &copy : &pic;
            if (what == 0)
                vpic_write(p, now, offset, size, value);
            else if (what == 1)
                vpic_read(p, now, offset, size);
            else if (what == 2)
                vpic_set_line(p, now, line, value & 1);
            else
                vpic_intack(p, now);
        }
        assert_true(vpic_check(&pic));
        assert_memory_equal(&copy, &pic, sizeof(pic));
        if (i % 1000 == 0)
            reset(NULL);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, setup)
#define TEST_AT_POWER_ON(name) cmocka_unit_test_setup(name, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_resolver),
        TEST(test_first),
        TEST_AT_POWER_ON(test_silent_until_initialised),
        TEST(test_int_is_low_during_initialisation),
        TEST(test_slave_int_is_low_during_initialisation),
        TEST(test_icw1_clears),
        TEST(test_icw_sequences),
        TEST(test_vector_base),
        TEST(test_no_icw4_clears_its_functions),
        TEST(test_edge),
        TEST(test_request_falls_with_the_pin),
        TEST(test_clock_edges_are_held),
        TEST(test_level),
        TEST(test_level_survives_icw1),
        TEST(test_elcr_bits),
        TEST(test_elcr_switch),
        TEST(test_ltim),
        TEST(test_mask),
        TEST(test_fully_nested),
        TEST(test_int_drops_at_intack),
        TEST(test_specific_eoi),
        TEST(test_set_priority),
        TEST(test_rotate_on_eoi),
        TEST(test_aeoi),
        TEST(test_rotate_in_aeoi),
        TEST(test_special_mask),
        TEST(test_special_mask_unmasked_holds_back),
        TEST(test_cascade),
        TEST(test_slave_raises_int_again_after_intack),
        TEST(test_special_fully_nested),
        TEST(test_special_fully_nested_in_slave),
        TEST(test_single_mode),
        TEST(test_master_without_slave_on_ir2),
        TEST(test_slave_with_wrong_id),
        TEST(test_spurious_irq7),
        TEST(test_spurious_irq15),
        TEST(test_poll),
        TEST(test_poll_without_request),
        TEST(test_poll_cascade),
        TEST(test_poll_in_aeoi),
        TEST(test_poll_keeps_the_register_selected),
        TEST(test_two_byte_accesses),
        TEST(test_undefined_accesses),
        TEST(test_lines_out_of_range_xsa261),
        TEST(test_time_does_nothing),
        TEST(test_check_refuses),
        TEST(test_check_refuses_registers_before_their_step),
        TEST(test_check_refuses_lost_inputs),
        TEST(test_against_reference),
        TEST(test_random_walk_stays_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
