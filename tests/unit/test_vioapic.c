/* The I/O APIC: registers, every delivery mode, level and edge rules, and random programs against a naive scan of pins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "random.h"
#include "vioapic/vioapic.h"

enum { SEL = 0x00, WIN = 0x10, EOIR = 0x40 };
#define LOGICAL (1u << 11)
#define PENDING (1u << 12)
#define LOW (1u << 13)
#define RIRR (1u << 14)
#define LEVEL (1u << 15)
#define MASKED (1u << 16)

static uint32_t get_at(struct vioapic *s, uint64_t now, unsigned index)
{
    vioapic_write(s, now, SEL, 4, index);
    return vioapic_read(s, now, WIN, 4);
}

static uint32_t get(struct vioapic *s, unsigned index)
{
    return get_at(s, 0, index);
}

static void put(struct vioapic *s, uint64_t now, unsigned index, uint32_t value)
{
    vioapic_write(s, now, SEL, 4, index);
    vioapic_write(s, now, WIN, 4, value);
}

static uint32_t low(struct vioapic *s, unsigned pin)
{
    return get(s, 0x10 + 2 * pin);
}

static void set_low(struct vioapic *s, unsigned pin, uint32_t value)
{
    put(s, 0, 0x10 + 2 * pin, value);
}

/* Takes the message in the slot as the fabric does; its vector, or -1. */
static int take(struct vioapic *s, uint64_t now)
{
    int vector = s->out.message.kind == BUS_INTERRUPT ? s->out.message.vector : -1;
    s->out.message.kind = BUS_NONE;
    vioapic_advance(s, now);
    assert_true(vioapic_check(s));
    return vector;
}

static void test_reset(void **state)
{
    struct vioapic s;
    const unsigned pins[][2] = {{24, 24}, {48, 48}, {32, 32}, {0, 24}, {1000, 48}};
    for (unsigned i = 0; i < 5; i++) {
        vioapic_reset(&s, 0, pins[i][0], 0x15);
        assert_true(vioapic_check(&s));
        assert_int_equal(get(&s, 0), 5 << 24);
        assert_int_equal(get(&s, 1), (pins[i][1] - 1) << 16 | 0x20);
        assert_int_equal(get(&s, 2), 5 << 24);
        assert_int_equal(get(&s, 3), 1);
        for (unsigned index = 4; index < 256; index++) {
            bool entry = index >= 0x10 && index < 0x10 + 2 * pins[i][1];
            assert_int_equal(get(&s, index), !entry ? 0xffffffff : index & 1 ? 0 : MASKED);
        }
        assert_int_equal(vioapic_deadline(&s), NEVER);
    }
}

static void test_registers(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    for (unsigned index = 1; index < 256; index++)
        put(&s, 0, index, 0xffffffff);
    assert_int_equal(get(&s, 0), 0);
    put(&s, 0, 0, 0xffffffff);
    assert_int_equal(get(&s, 0), 0x0f000000);
    assert_int_equal(get(&s, 1), 23 << 16 | 0x20);
    assert_int_equal(get(&s, 2), 0x0f000000);
    for (unsigned pin = 0; pin < 24; pin++) {
        assert_int_equal(low(&s, pin), 0x1afff); /* delivery status and remote IRR stay 0 */
        assert_int_equal(get(&s, 0x11 + 2 * pin), 0xff000000);
    }
    vioapic_write(&s, 0, SEL, 1, 0x12);
    assert_int_equal(vioapic_read(&s, 0, SEL, 1), 0x12);
    vioapic_write(&s, 0, SEL, 2, 0x4321);
    assert_int_equal(vioapic_read(&s, 0, SEL, 4), 0x21);
    assert_true(vioapic_check(&s));
}

static void test_undefined_access(void **state)
{
    struct vioapic s, copy;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 3, LEVEL | 0x33);
    vioapic_set_line(&s, 0, 3, true);
    copy = s;
    for (unsigned offset = 0; offset < 0x1010; offset++) {
        for (unsigned size = 0; size <= 9; size++) {
            bool narrow = size == 1 || size == 2 || size == 4;
            if (((offset == SEL || offset == EOIR) && narrow) || (offset == WIN && size == 4))
                continue;
            assert_int_equal(vioapic_read(&s, 0, offset, size), all_ones(size));
            vioapic_write(&s, 0, offset, size, 0x33);
            assert_memory_equal(&s, &copy, sizeof(s));
        }
    }
    assert_int_equal(vioapic_read(&s, 0, EOIR, 4), 0xffffffff); /* write-only */
}

static void test_edge(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 4, 0x44);
    vioapic_set_line(&s, 0, 4, true);
    assert_int_equal(s.out.message.flags, BUS_ASSERT);
    assert_int_equal(take(&s, 0), 0x44);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_line(&s, 0, 4, true);
    assert_int_equal(take(&s, 0), -1);
    vioapic_eoi(&s, 0, 0x44);
    assert_int_equal(take(&s, 0), -1);
    assert_int_equal(low(&s, 4), 0x44);
    vioapic_set_line(&s, 0, 4, false);
    vioapic_set_line(&s, 0, 4, true);
    assert_int_equal(take(&s, 0), 0x44);
    assert_false(s.vector_pins[0x44] != 0);
}

static void test_masked_edge_is_lost(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 4, MASKED | 0x44);
    vioapic_set_line(&s, 0, 4, true);
    set_low(&s, 4, 0x44);
    assert_int_equal(take(&s, 0), -1);
}

static void test_level(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 10, LEVEL | 0x55);
    assert_true(s.vector_pins[0x55] != 0);
    vioapic_set_line(&s, 0, 10, true);
    assert_int_equal(s.out.message.flags, BUS_ASSERT | BUS_LEVEL);
    assert_int_equal(take(&s, 0), 0x55);
    assert_int_equal(low(&s, 10), RIRR | LEVEL | 0x55);
    vioapic_set_line(&s, 0, 10, false);
    vioapic_set_line(&s, 0, 10, true);
    assert_int_equal(take(&s, 0), -1); /* remote IRR holds it */
    vioapic_eoi(&s, 0, 0x56);
    assert_int_equal(take(&s, 0), -1);
    vioapic_eoi(&s, 0, 0x55);
    assert_int_equal(take(&s, 0), 0x55); /* still asserted: again */
    vioapic_set_line(&s, 0, 10, false);
    assert_int_equal(low(&s, 10), RIRR | LEVEL | 0x55);
    vioapic_write(&s, 0, EOIR, 4, 0x55); /* directed EOI */
    assert_int_equal(low(&s, 10), LEVEL | 0x55);
    assert_int_equal(take(&s, 0), -1);
}

static void test_level_mask_and_unmask(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 10, MASKED | LEVEL | 0x55);
    vioapic_set_line(&s, 0, 10, true);
    assert_int_equal(take(&s, 0), -1);
    set_low(&s, 10, LEVEL | 0x55); /* unmasking an asserted level pin delivers */
    assert_int_equal(take(&s, 0), 0x55);
    set_low(&s, 10, MASKED | LEVEL | 0x55);
    assert_int_equal(low(&s, 10), MASKED | RIRR | LEVEL | 0x55);
    set_low(&s, 10, LEVEL | 0x55); /* not while remote IRR is set */
    assert_int_equal(take(&s, 0), -1);
    set_low(&s, 10, MASKED | LEVEL | 0x55);
    vioapic_eoi(&s, 0, 0x55); /* ends it although masked */
    assert_int_equal(low(&s, 10), MASKED | LEVEL | 0x55);
    assert_int_equal(take(&s, 0), -1);
    set_low(&s, 10, LEVEL | 0x55);
    assert_int_equal(take(&s, 0), 0x55);
}

/* Linux's way to end a level interrupt on chips without EOIR. */
static void test_edge_switch_clears_remote_irr(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 10, LEVEL | 0x55);
    vioapic_set_line(&s, 0, 10, true);
    assert_int_equal(take(&s, 0), 0x55);
    set_low(&s, 10, MASKED | 0x55);
    assert_int_equal(low(&s, 10), MASKED | 0x55);
    assert_false(s.vector_pins[0x55] != 0);
    set_low(&s, 10, LEVEL | 0x55);
    assert_int_equal(take(&s, 0), 0x55);
}

static void test_high_half_never_triggers(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 4, 0x44);
    set_low(&s, 5, LEVEL | 0x45);
    vioapic_set_line(&s, 0, 4, true);
    vioapic_set_line(&s, 0, 5, true);
    assert_int_equal(take(&s, 0), 0x44);
    assert_int_equal(take(&s, 0), 0x45);
    for (unsigned pin = 4; pin <= 5; pin++) {
        put(&s, 0, 0x11 + 2 * pin, 0xa5ffffff);
        assert_int_equal(get(&s, 0x11 + 2 * pin), 0xa5000000);
        assert_int_equal(take(&s, 0), -1);
    }
    vioapic_eoi(&s, 0, 0x45);
    assert_int_equal(s.out.message.dest, 0xa5);
    assert_int_equal(s.out.message.shorthand, SHORTHAND_NONE);
}

static void test_destinations_and_delivery(void **state)
{
    const unsigned modes[] = {DELIVER_FIXED, DELIVER_LOWEST, DELIVER_SMI, DELIVER_NMI, DELIVER_INIT, DELIVER_EXTINT};
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned logical = 0; logical < 2; logical++) {
            struct vioapic s;
            vioapic_reset(&s, 0, 24, 0);
            put(&s, 0, 0x11 + 2 * 23, 0xff000000);
            set_low(&s, 23, LOW | (logical ? LOGICAL : 0) | modes[i] << 8 | 0x77);
            vioapic_set_line(&s, 0, 23, true);
            struct bus_message want = {BUS_INTERRUPT, 0x77, modes[i], BUS_ASSERT | (logical ? BUS_LOGICAL : 0),
                                       SHORTHAND_NONE, {0}, 0xff};
            assert_memory_equal(&s.out.message, &want, sizeof(want));
            assert_int_equal(take(&s, 0), 0x77);
            assert_int_equal(take(&s, 0), -1);
        }
    }
}

static void test_edge_only_delivery_modes(void **state)
{
    const unsigned modes[] = {DELIVER_SMI, DELIVER_NMI, DELIVER_INIT, DELIVER_EXTINT};
    for (unsigned i = 0; i < 4; i++) {
        struct vioapic s;
        vioapic_reset(&s, 0, 24, 0);
        set_low(&s, 9, LEVEL | modes[i] << 8 | 0x21);
        vioapic_set_line(&s, 0, 9, true);
        assert_int_equal(s.out.message.delivery, modes[i]);
        assert_int_equal(s.out.message.flags, BUS_ASSERT);
        assert_int_equal(take(&s, 0), 0x21);
        assert_int_equal(low(&s, 9), LEVEL | modes[i] << 8 | 0x21);
        vioapic_eoi(&s, 0, 0x21);
        assert_int_equal(take(&s, 0), -1);
        assert_false(s.vector_pins[0x21] != 0);
        set_low(&s, 9, LEVEL | 0x21); /* becomes a real level pin */
        assert_int_equal(take(&s, 0), 0x21);
        set_low(&s, 9, LEVEL | modes[i] << 8 | 0x21); /* and is none again */
        assert_int_equal(low(&s, 9) & RIRR, 0);
    }
}

static void test_reserved_delivery_modes(void **state)
{
    for (unsigned mode = 3; mode <= 6; mode += 3) {
        struct vioapic s;
        vioapic_reset(&s, 0, 24, 0);
        set_low(&s, 9, mode << 8 | 0x21);
        set_low(&s, 10, LEVEL | mode << 8 | 0x21);
        vioapic_set_line(&s, 0, 9, true);
        vioapic_set_line(&s, 0, 10, true);
        assert_int_equal(take(&s, 0), -1);
        assert_int_equal(s.pending_mask, 0);
    }
}

/* Assertion is logical; an entry is inverted only where it contradicts the wiring. */
static void test_polarity(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    assert_int_equal(s.active_low_pins, 0xff0000);
    set_low(&s, 16, LOW | LEVEL | 0x60); /* a PCI pin, programmed as wired */
    set_low(&s, 5, LEVEL | 0x61);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_line(&s, 0, 16, true);
    assert_int_equal(take(&s, 0), 0x60);
    vioapic_set_line(&s, 0, 5, true);
    assert_int_equal(take(&s, 0), 0x61);
    assert_int_equal(low(&s, 16), RIRR | LOW | LEVEL | 0x60);

    set_low(&s, 17, LEVEL | 0x62); /* active high on an active-low pin: idle looks asserted */
    assert_int_equal(take(&s, 0), 0x62);
    vioapic_set_line(&s, 0, 17, true);
    vioapic_eoi(&s, 0, 0x62);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_line(&s, 0, 17, false);
    assert_int_equal(take(&s, 0), 0x62);

    set_low(&s, 6, LOW | 0x63); /* edge, active low on an active-high pin: fires at the falling edge */
    vioapic_set_line(&s, 0, 6, true);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_line(&s, 0, 6, false);
    assert_int_equal(take(&s, 0), 0x63);
}

static void test_wiring(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 9, LOW | LEVEL | MASKED | 0x60);
    vioapic_set_wiring(&s, 0, UINT64_MAX);
    assert_int_equal(s.active_low_pins, 0xffffff);
    set_low(&s, 9, LOW | LEVEL | 0x60);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_wiring(&s, 0, 0); /* rewired: the idle level pin now looks asserted */
    assert_int_equal(take(&s, 0), 0x60);
}

static void test_entry_write_makes_no_edge(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 6, 0x63);
    set_low(&s, 6, LOW | 0x63);
    set_low(&s, 6, 0x63);
    assert_int_equal(take(&s, 0), -1);
    vioapic_set_line(&s, 0, 6, true);
    assert_int_equal(take(&s, 0), 0x63);
    set_low(&s, 6, LOW | 0x63);
    set_low(&s, 6, 0x63);
    assert_int_equal(take(&s, 0), -1);
}

/* Every pin goes off while the slot is full: all come out, lowest pin first; edges and levels alike. */
static void test_full_slot_loses_nothing(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 48, 0);
    vioapic_set_wiring(&s, 0, 0);
    for (unsigned pin = 0; pin < 48; pin++)
        set_low(&s, pin, (pin & 1 ? LEVEL : 0) | (0x30 + pin));
    for (unsigned pin = 48; pin-- > 0;)
        vioapic_set_line(&s, 0, pin, true);
    assert_int_equal(low(&s, 3), LEVEL | PENDING | 0x33);
    assert_int_equal(take(&s, 0), 0x30 + 47); /* the first one in the slot */
    for (unsigned pin = 0; pin < 47; pin++)
        assert_int_equal(take(&s, 0), 0x30 + pin);
    assert_int_equal(take(&s, 0), -1);
}

static void test_shared_vector(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    for (unsigned pin = 1; pin < 16; pin++) {
        set_low(&s, pin, LEVEL | 0x40);
        vioapic_set_line(&s, 0, pin, true);
    }
    for (unsigned pin = 1; pin < 16; pin++)
        assert_int_equal(take(&s, 0), 0x40);
    assert_int_equal(s.remote_irr, 0xfffe);
    vioapic_set_line(&s, 0, 3, false);
    vioapic_eoi(&s, 0, 0x40);
    for (unsigned pin = 2; pin < 16; pin++)
        assert_int_equal(take(&s, 0), 0x40);
    assert_int_equal(take(&s, 0), -1);
    assert_int_equal(s.remote_irr, 0xfff6);
    for (unsigned pin = 1; pin < 16; pin++) {
        assert_true(s.vector_pins[0x40] != 0);
        set_low(&s, pin, LEVEL | 0x41);
    }
    assert_false(s.vector_pins[0x40] != 0);
    assert_true(s.vector_pins[0x41] != 0);
}

static void test_pending_withdrawn(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 1, 0x31);
    set_low(&s, 2, 0x32);
    set_low(&s, 3, LEVEL | 0x33);
    set_low(&s, 4, LEVEL | 0x34);
    for (unsigned pin = 1; pin <= 4; pin++)
        vioapic_set_line(&s, 0, pin, true);
    assert_int_equal(s.pending_mask, 0x1c);
    set_low(&s, 2, MASKED | 0x32);
    set_low(&s, 3, MASKED | LEVEL | 0x33);
    vioapic_set_line(&s, 0, 4, false);
    assert_int_equal(take(&s, 0), 0x31);
    assert_int_equal(take(&s, 0), -1);
}

/* XSA-261: a pin that is not there. */
static void test_pins_out_of_range(void **state)
{
    struct vioapic s, copy;
    vioapic_reset(&s, 0, 24, 0);
    copy = s;
    vioapic_set_line(&s, 0, 24, true);
    vioapic_set_line(&s, 0, 48, true);
    vioapic_set_line(&s, 0, 64, true);
    vioapic_set_line(&s, 0, UINT32_MAX, true);
    assert_memory_equal(&s, &copy, sizeof(s));
}

/* ---- Storm hold-off ---- */

/* A pin that never goes away, served every `spent` ticks; returns after its `n`th re-fire was asked for. */
static uint64_t refire(struct vioapic *s, uint64_t now, unsigned n, uint64_t spent)
{
    for (; n; n--) {
        assert_int_equal(take(s, now), 0x50);
        now += spent;
        vioapic_eoi(s, now, 0x50);
    }
    return now;
}

static uint64_t storm(struct vioapic *s)
{
    vioapic_reset(s, 0, 24, 0);
    set_low(s, 11, LEVEL | 0x50);
    vioapic_set_line(s, 0, 11, true);
    return refire(s, 0, VIOAPIC_STORM_RUN, 100);
}

static void test_storm_is_held_off(void **state)
{
    struct vioapic s;
    uint64_t now = storm(&s), hold = VIOAPIC_HOLD_MIN;
    assert_int_equal(s.storms[11], 0);
    for (unsigned i = 1; i < 20; i++) {
        now = refire(&s, now, 1, 100);
        assert_int_equal(s.storms[11], i);
        assert_int_equal(vioapic_deadline(&s), now + hold);
        assert_int_equal(take(&s, now + hold - 1), -1);
        assert_int_equal(get_at(&s, now, 0x10 + 22), LEVEL | 0x50);
        now += hold;
        vioapic_advance(&s, now);
        assert_int_equal(vioapic_deadline(&s), NEVER);
        assert_int_equal(get_at(&s, now, 0x10 + 22), LEVEL | RIRR | 0x50);
        hold = hold < VIOAPIC_HOLD_MAX ? 2 * hold : hold;
    }
    assert_int_equal(hold, VIOAPIC_HOLD_MAX);
}

static void test_storm_ends_with_deassertion(void **state)
{
    struct vioapic s;
    uint64_t now = refire(&s, storm(&s), 1, 100);
    vioapic_set_line(&s, now, 11, false);
    assert_int_equal(vioapic_deadline(&s), NEVER);
    vioapic_set_line(&s, now + 1, 11, true);
    refire(&s, now + 1, VIOAPIC_STORM_RUN, 100);
    assert_int_equal(s.storms[11], 1);
}

/* A handler that takes its time, or a second source that comes and goes, is no storm. */
static void test_storm_is_not_a_shared_line(void **state)
{
    struct vioapic s;
    uint64_t now = storm(&s);
    now = refire(&s, now, 3 * VIOAPIC_STORM_RUN, VIOAPIC_STORM_QUICK + 1);
    assert_int_equal(s.storms[11], 0);
    for (unsigned i = 0; i < 5; i++) {
        now = refire(&s, now, VIOAPIC_STORM_RUN, 10);
        vioapic_set_line(&s, now, 11, true);
    }
    assert_int_equal(s.storms[11], 0);
    now = refire(&s, now, VIOAPIC_STORM_RUN + 1, 10);
    assert_int_equal(s.storms[11], 1);
    vioapic_set_line(&s, now, 11, true); /* releases the hold, too */
    assert_int_equal(take(&s, now), 0x50);
}

static void test_storm_and_masking(void **state)
{
    struct vioapic s;
    uint64_t now = storm(&s);
    assert_int_equal(take(&s, now), 0x50);
    put(&s, now, 0x10 + 22, MASKED | LEVEL | 0x50);
    vioapic_eoi(&s, now, 0x50); /* masked, it does not fire again: no re-fire */
    assert_int_equal(s.storms[11], 0);
    put(&s, now, 0x10 + 22, LEVEL | 0x50);
    now = refire(&s, now, 1, 100);
    assert_int_equal(s.storms[11], 1);
    put(&s, now, 0x10 + 22, MASKED | LEVEL | 0x50);
    put(&s, now, 0x10 + 22, LEVEL | 0x50);
    assert_int_equal(take(&s, now), -1); /* unmasking does not cut a hold-off short */
    put(&s, now, 0x10 + 22, MASKED | LEVEL | 0x50);
    assert_int_equal(take(&s, now + VIOAPIC_HOLD_MIN), -1);
    put(&s, now, 0x10 + 22, LEVEL | 0x50);
    assert_int_equal(take(&s, now), 0x50);
}

static void test_storm_and_edge_switch(void **state)
{
    struct vioapic s;
    uint64_t now = refire(&s, storm(&s), 1, 100);
    put(&s, now, 0x10 + 22, 0x50);
    assert_int_equal(vioapic_deadline(&s), NEVER);
    assert_true(vioapic_check(&s));
}

static void test_storm_when_time_goes_back(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    set_low(&s, 11, LEVEL | 0x50);
    vioapic_set_line(&s, NEVER, 11, true);
    refire(&s, NEVER - 100 * (VIOAPIC_STORM_RUN + 1), VIOAPIC_STORM_RUN + 1, 100);
    assert_int_equal(s.storms[11], 1);
    assert_true(vioapic_check(&s));
    take(&s, 0); /* far before the hold-off: over */
    assert_int_equal(s.out.message.vector, 0x50);
}

/* What an entry's interrupt is, without one being sent. */
static void test_message_of_a_pin(void **state)
{
    struct vioapic s;
    struct bus_message m;

    vioapic_reset(&s, 0, 24, 0);
    assert_int_equal(vioapic_message(&s, 5).kind, BUS_NONE);
    assert_int_equal(vioapic_message(&s, VIOAPIC_MAX_PINS).kind, BUS_NONE);
    set_low(&s, 5, LEVEL | LOGICAL | DELIVER_LOWEST << 8 | 0x61);
    m = vioapic_message(&s, 5);
    vioapic_set_line(&s, 0, 5, true);
    assert_memory_equal(&m, &s.out.message, sizeof(m));
    set_low(&s, 5, DELIVER_RESERVED << 8 | 0x61);
    assert_int_equal(vioapic_message(&s, 5).kind, BUS_NONE);
}

static void test_check_rejects(void **state)
{
    struct vioapic good, s;
    vioapic_reset(&good, 0, 24, 0);
    set_low(&good, 3, LEVEL | 0x33);
    vioapic_set_line(&good, 0, 3, true);
    assert_true(vioapic_check(&good));
#define BAD(change) s = good; change; assert_false(vioapic_check(&s))
    BAD(s.pins = 23);
    BAD(s.pins = 49);
    BAD(s.id = 16);
    BAD(s.zero[0] = 1);
    BAD(s.out.pin = 24);
    BAD(s.lines |= 1ull << 24);
    BAD(s.remote_irr = 0); /* asserted, not in service, not pending: a lost interrupt */
    BAD(s.remote_irr |= 2); /* an edge pin */
    BAD(s.pending_mask = 2); /* a masked pin */
    BAD(s.held_mask = 8);
    BAD(s.hold_until[3] = 9);
    BAD(s.refires[3] = VIOAPIC_STORM_RUN + 1);
    BAD(s.refires[4] = 1);
    BAD(s.hold_shift[3] = 1);
    BAD(s.entry[3] |= RIRR);
    BAD(s.entry[30] = 0);
    BAD(s.sent_at[30] = 1);
    BAD(s.vector_pins[0x33] = 0);
    BAD(s.vector_pins[0x34] = 8);
    BAD(s.vector_pins[0x34] = 1ull << 63);
    BAD(s.out.message.kind = 9);
    BAD(s.out.message.delivery = 3);
    BAD(s.out.message.dest = 256);
    BAD(s.out.message.shorthand = 1);
    BAD(s.out.message.flags = BUS_X2APIC);
    for (unsigned i = 0; i < 3; i++) {
        BAD(s.out.message.zero[i] = 1);
    }
    BAD(s.zero[1] = 1);
    BAD(s.hold_shift[3] = VIOAPIC_HOLD_DOUBLINGS + 1);
    BAD(s.held_mask = 2; s.hold_until[1] = 9); /* an edge pin */
    BAD(s.out.message.delivery = 8);
    BAD(s.remote_irr = 0; s.held_mask = 8; s.hold_until[3] = 9); /* held off at its first re-fire */
    BAD(s.vector_pins[0x33] |= 16); /* an edge pin */
    BAD(s.lines = 0; s.refires[3] = 1); /* a run of re-fires of a line that is not asserted */
    BAD(s.entry[1] = (uint64_t)DELIVER_RESERVED << 8; s.pending_mask = 2); /* what can never be sent waits to be sent */
    good.lines = good.remote_irr = 0;
    assert_true(vioapic_check(&good));
    BAD(s.pending_mask = 8);
    BAD(s.held_mask = 8; s.hold_until[3] = 9; s.hold_shift[3] = 1; s.refires[3] = VIOAPIC_STORM_RUN);
    good.lines = 8;
    good.held_mask = 8;
    good.hold_until[3] = 9;
    good.hold_shift[3] = 1;
    good.refires[3] = VIOAPIC_STORM_RUN;
    assert_true(vioapic_check(&good));
    BAD(s.remote_irr = 8);
#undef BAD
}

/* Bits and numbers beyond the pins, which check refuses: whoever uses them all the same stays inside the state. */
static void test_pins_that_cannot_be_stay_inside(void **state)
{
    struct vioapic s;
    for (unsigned pins = 24; pins <= 63; pins += 39) {
        vioapic_reset(&s, 0, 24, 0);
        s.pins = pins;
        for (unsigned vector = 0; vector < 256; vector++)
            s.vector_pins[vector] = UINT64_MAX;
        s.lines = s.remote_irr = s.pending_mask = s.held_mask = UINT64_MAX << 48;
        assert_false(vioapic_check(&s));
        assert_true(vioapic_deadline(&s) == NEVER);
        for (unsigned pin = 40; pin < 70; pin++) {
            put(&s, 1, 0x10 + 2 * pin, LEVEL | pin);
            put(&s, 1, 0x11 + 2 * pin, UINT32_MAX);
            vioapic_set_line(&s, 1, pin, true);
            get_at(&s, 1, 0x10 + 2 * pin);
        }
        vioapic_set_wiring(&s, 2, UINT64_MAX);
        vioapic_eoi(&s, 3, 0x31);
        vioapic_advance(&s, 4);
        assert_int_equal(s.out.message.kind, pins > 24 ? BUS_INTERRUPT : BUS_NONE); /* of pins 40 to 47 */
    }
}

/* ---- A naive chip: bits where the manual has them, every call scans every pin ---- */

struct naive {
    uint64_t rte[48], sent[48], until[48], storms[48], wiring, lines;
    unsigned run[48], shift[48], pins, id, index;
    bool edge_pending[48];
    struct bus_message slot;
};

static bool n_active(struct naive *v, unsigned pin)
{
    return (v->lines ^ v->wiring ^ (v->rte[pin] & LOW ? 1ull << pin : 0)) >> pin & 1;
}

static unsigned n_mode(struct naive *v, unsigned pin)
{
    return v->rte[pin] >> 8 & 7;
}

static bool n_level(struct naive *v, unsigned pin)
{
    return (v->rte[pin] & LEVEL) && n_mode(v, pin) < 2;
}

static bool n_open(struct naive *v, unsigned pin)
{
    return !(v->rte[pin] & MASKED) && n_mode(v, pin) != 3 && n_mode(v, pin) != 6;
}

static bool n_wants(struct naive *v, unsigned pin)
{
    if (!n_open(v, pin))
        return false;
    return n_level(v, pin) ? n_active(v, pin) && !(v->rte[pin] & RIRR) && !v->until[pin] : v->edge_pending[pin];
}

static void n_settle(struct naive *v, uint64_t now)
{
    for (unsigned pin = 0; pin < v->pins; pin++) {
        if (!n_level(v, pin) || !n_active(v, pin))
            v->run[pin] = v->shift[pin] = v->until[pin] = 0;
        if (v->until[pin] && (now >= v->until[pin] || v->until[pin] - now > VIOAPIC_HOLD_MAX))
            v->until[pin] = 0;
        if (!n_level(v, pin))
            v->rte[pin] &= ~(uint64_t)RIRR;
        if (n_level(v, pin) || !n_open(v, pin))
            v->edge_pending[pin] = false;
    }
    for (unsigned pin = 0; pin < v->pins && v->slot.kind == BUS_NONE; pin++) {
        if (!n_wants(v, pin))
            continue;
        struct bus_message m = {BUS_INTERRUPT, (uint8_t)v->rte[pin], n_mode(v, pin), BUS_ASSERT, 0, {0}, v->rte[pin] >> 56};
        m.flags |= (v->rte[pin] & LOGICAL ? BUS_LOGICAL : 0) | (n_level(v, pin) ? BUS_LEVEL : 0);
        v->slot = m;
        v->edge_pending[pin] = false;
        if (n_level(v, pin)) {
            v->rte[pin] |= RIRR;
            v->sent[pin] = now;
        }
    }
}

static void n_line(struct naive *v, uint64_t now, unsigned pin, bool level)
{
    bool was = n_active(v, pin);
    v->lines = (v->lines & ~(1ull << pin)) | (uint64_t)level << pin;
    if (!n_level(v, pin) && !was && n_active(v, pin))
        v->edge_pending[pin] = true;
    if (n_level(v, pin))
        v->run[pin] = v->shift[pin] = v->until[pin] = 0;
    n_settle(v, now);
}

static void n_eoi(struct naive *v, uint64_t now, uint8_t vector)
{
    for (unsigned pin = 0; pin < v->pins; pin++) {
        if ((uint8_t)v->rte[pin] != vector || !n_level(v, pin) || !(v->rte[pin] & RIRR))
            continue;
        v->rte[pin] &= ~(uint64_t)RIRR;
        if (!n_active(v, pin) || !n_open(v, pin))
            continue;
        if (now > v->sent[pin] && now - v->sent[pin] > VIOAPIC_STORM_QUICK) {
            v->run[pin] = v->shift[pin] = 0;
        } else if (++v->run[pin] > VIOAPIC_STORM_RUN) {
            v->run[pin] = VIOAPIC_STORM_RUN;
            v->storms[pin]++;
            v->until[pin] = now + (716ull << v->shift[pin]);
            v->shift[pin] += v->shift[pin] < 8;
        }
    }
    n_settle(v, now);
}

static void n_write(struct naive *v, uint64_t now, unsigned index, uint32_t value)
{
    unsigned pin = (index - 0x10) / 2;
    if (index == 0)
        v->id = value >> 24 & 15;
    if (index >= 0x10 && pin < v->pins) {
        if (index & 1)
            v->rte[pin] = (uint32_t)v->rte[pin] | (uint64_t)(value & 0xff000000) << 32;
        else
            v->rte[pin] = (v->rte[pin] & (0xff00000000000000ull | RIRR)) | (value & 0x1afff);
    }
    n_settle(v, now);
}

static void same(struct vioapic *s, struct naive *v, uint64_t now)
{
    for (unsigned pin = 0; pin < v->pins; pin++) {
        uint64_t want = v->rte[pin] | (n_wants(v, pin) ? PENDING : 0);
        assert_int_equal(get_at(s, now, 0x10 + 2 * pin), (uint32_t)want);
        assert_int_equal(get_at(s, now, 0x11 + 2 * pin), want >> 32);
    }
    assert_int_equal(s->out.message.kind, v->slot.kind);
    if (v->slot.kind)
        assert_memory_equal(&s->out.message, &v->slot, sizeof(v->slot));
    assert_memory_equal(s->storms, v->storms, sizeof(v->storms));
    assert_int_equal(s->id, v->id);
    uint64_t deadline = NEVER;
    bool interest[256] = {0};
    for (unsigned pin = 0; pin < v->pins; pin++) {
        deadline = v->until[pin] && v->until[pin] < deadline ? v->until[pin] : deadline;
        interest[(uint8_t)v->rte[pin]] |= n_level(v, pin);
    }
    assert_int_equal(vioapic_deadline(s), deadline);
    for (unsigned vector = 0; vector < 256; vector++)
        assert_int_equal(s->vector_pins[vector] != 0, interest[vector]);
}

static uint32_t random_entry(void)
{
    uint32_t entry = 0x30 + below(6); /* few vectors, so that they are shared */
    if (!below(6))
        return random64();
    return entry | (below(3) ? LEVEL : 0) | (below(6) ? 0 : MASKED) | (below(8) ? 0 : LOW) | (below(4) ? 0 : below(8) << 8) |
           (random64() & (LOGICAL | RIRR | PENDING));
}

/* One random operation on both; returns the new time. */
static uint64_t random_step(struct vioapic *s, struct naive *v, uint64_t now)
{
    unsigned pin = below(8), index;
    uint64_t value = 0x30 + below(6);
    bool level = below(2);
    now += below(6) ? below(60) : below(20000);
    switch (below(16)) {
    case 0: case 1: case 2: case 3:
        vioapic_set_line(s, now, pin, level);
        n_line(v, now, pin, level);
        break;
    case 4:
        index = below(4) ? 0x10 + 2 * pin : below(256);
        value = index & 1 ? random64() : random_entry();
        n_settle(v, now); /* selecting the register is an access of its own */
        put(s, now, index, value);
        n_write(v, now, index, value);
        break;
    case 5:
        if (!below(50)) {
            v->wiring = random64() & random64() & random64() & ((1ull << v->pins) - 1);
            vioapic_set_wiring(s, now, v->wiring);
        }
        vioapic_advance(s, now);
        n_settle(v, now);
        break;
    case 6: case 7: case 8:
        vioapic_eoi(s, now, value);
        n_eoi(v, now, value);
        break;
    case 9:
        vioapic_write(s, now, EOIR, 4, value);
        n_eoi(v, now, value);
        break;
    default:
        s->out.message.kind = v->slot.kind = BUS_NONE;
        vioapic_advance(s, now);
        n_settle(v, now);
    }
    return now;
}

/* Serves everything at once, many times: the way into hold-offs. */
static uint64_t hammer(struct vioapic *s, struct naive *v, uint64_t now)
{
    for (unsigned i = 0; i < 8 * 300; i++) {
        uint8_t vector = v->slot.vector;
        s->out.message.kind = v->slot.kind = BUS_NONE;
        vioapic_eoi(s, now, vector);
        n_eoi(v, now, vector);
        now += 3;
    }
    return now;
}

static void test_random_programs_against_pin_scan(void **state)
{
    uint64_t storms = 0;
    for (unsigned program = 0; program < 60; program++) {
        struct vioapic s, copy;
        struct naive v = {.pins = 24 + below(25), .id = below(16)};
        uint64_t now = below(1000);
        vioapic_reset(&s, now, v.pins, v.id);
        for (unsigned pin = 0; pin < 48; pin++)
            v.rte[pin] = MASKED;
        v.wiring = ((1ull << v.pins) - 1) & ~0xffffull;
        for (unsigned step = 0; step < 400; step++) {
            copy = s; /* save and restore */
            memset(&s, 0xa5, sizeof(s));
            s = copy;
            now = random_step(&s, &v, now);
            if (!below(100))
                now = hammer(&s, &v, now);
            assert_true(vioapic_check(&s));
            same(&s, &v, now);
        }
        for (unsigned pin = 0; pin < 48; pin++)
            storms += v.storms[pin];
    }
    assert_true(storms > 100);
}

/* Anything at all, with time going anywhere: the state stays sound. */
static void test_random_walk_any_time(void **state)
{
    struct vioapic s;
    vioapic_reset(&s, 0, 24, 0);
    for (unsigned step = 0; step < 200000; step++) {
        uint64_t now = random64() >> below(64);
        switch (below(6)) {
        case 0:
            vioapic_write(&s, now, below(4) ? 0x10 * below(5) : below(0x1000), 1u << below(4), random64());
            break;
        case 1:
            put(&s, now, 0x10 + below(48), random_entry());
            break;
        case 2:
            vioapic_set_line(&s, now, below(30), below(2));
            break;
        case 3:
            vioapic_eoi(&s, now, below(4) ? 0x30 + below(6) : random64());
            break;
        case 4:
            vioapic_read(&s, now, below(0x1000), 1u << below(4));
            break;
        default:
            s.out.message.kind = BUS_NONE;
            vioapic_advance(&s, now);
        }
        assert_true(vioapic_check(&s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_undefined_access),
        cmocka_unit_test(test_edge),
        cmocka_unit_test(test_masked_edge_is_lost),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_level_mask_and_unmask),
        cmocka_unit_test(test_edge_switch_clears_remote_irr),
        cmocka_unit_test(test_high_half_never_triggers),
        cmocka_unit_test(test_destinations_and_delivery),
        cmocka_unit_test(test_edge_only_delivery_modes),
        cmocka_unit_test(test_reserved_delivery_modes),
        cmocka_unit_test(test_polarity),
        cmocka_unit_test(test_wiring),
        cmocka_unit_test(test_entry_write_makes_no_edge),
        cmocka_unit_test(test_full_slot_loses_nothing),
        cmocka_unit_test(test_shared_vector),
        cmocka_unit_test(test_pending_withdrawn),
        cmocka_unit_test(test_pins_out_of_range),
        cmocka_unit_test(test_storm_is_held_off),
        cmocka_unit_test(test_storm_ends_with_deassertion),
        cmocka_unit_test(test_storm_is_not_a_shared_line),
        cmocka_unit_test(test_storm_and_masking),
        cmocka_unit_test(test_storm_and_edge_switch),
        cmocka_unit_test(test_storm_when_time_goes_back),
        cmocka_unit_test(test_check_rejects),
        cmocka_unit_test(test_pins_that_cannot_be_stay_inside),
        cmocka_unit_test(test_random_programs_against_pin_scan),
        cmocka_unit_test(test_message_of_a_pin),
        cmocka_unit_test(test_random_walk_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
