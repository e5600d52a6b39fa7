/*
 * Security advisories of other hypervisors, as far as they concern the device models and the deadline heap: each test
 * has the advisory's name, does what brought that hypervisor down, and fails on a model that does what it did. What
 * concerns the HVM core is in test_advisories_core.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "deadlines.h"
#include "deadline.h"
#include "hpet/hpet.h"
#include "pmtimer/pmtimer.h"
#include "random.h"
#include "rtc/rtc.h"
#include "vioapic/vioapic.h"
#include "vlapic/vlapic.h"
#include "vpic/vpic.h"
#include "vpit/vpit.h"

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* ---- Every model behind one door ---- */

static union any {
    struct vpic vpic;
    struct vioapic vioapic;
    struct vlapic vlapic;
    struct vpit vpit;
    struct hpet hpet;
    struct rtc rtc;
    struct pmtimer pmtimer;
} s;

#define DOOR(model)                                                                                                    \
    static uint64_t model##_in(union any *a, uint64_t now, unsigned offset, unsigned size)                             \
    {                                                                                                                  \
        return model##_read(&a->model, now, offset, size);                                                             \
    }                                                                                                                  \
    static void model##_out(union any *a, uint64_t now, unsigned offset, unsigned size, uint64_t value)                \
    {                                                                                                                  \
        model##_write(&a->model, now, offset, size, value);                                                            \
    }
DOOR(vpic)
DOOR(vioapic)
DOOR(vlapic)
DOOR(vpit)
DOOR(hpet)
DOOR(rtc)
DOOR(pmtimer)

struct door {
    uint64_t (*read)(union any *a, uint64_t now, unsigned offset, unsigned size);
    void (*write)(union any *a, uint64_t now, unsigned offset, unsigned size, uint64_t value);
    unsigned bytes; /* of the model's region */
};

enum { VPIC, VIOAPIC, VLAPIC, VPIT, HPET, RTC, PMTIMER, MODELS };
static const struct door doors[MODELS] = {
    {vpic_in, vpic_out, 6},        {vioapic_in, vioapic_out, 4096}, {vlapic_in, vlapic_out, 4096},
    {vpit_in, vpit_out, 5},        {hpet_in, hpet_out, 1024},       {rtc_in, rtc_out, 4},
    {pmtimer_in, pmtimer_out, 12},
};

static void reset_model(unsigned model)
{
    memset(&s, 0, sizeof(s));
    switch (model) {
    case VPIC:
        vpic_reset(&s.vpic, 0);
        break;
    case VIOAPIC:
        vioapic_reset(&s.vioapic, 0, 24, 0);
        break;
    case VLAPIC:
        vlapic_reset(&s.vlapic, 0, 0, true);
        break;
    case VPIT:
        vpit_reset(&s.vpit, 0);
        break;
    case HPET:
        hpet_reset(&s.hpet, 0);
        break;
    case RTC:
        rtc_reset(&s.rtc, 0, 0);
        break;
    default:
        pmtimer_reset(&s.pmtimer, 0, false);
    }
}

/* ---- Arithmetic ---- */

/*
 * XSA-504: a guest changed the timer's mode so that the next look at it divided by a period of 0, and the hypervisor
 * died. Here: every mode, with every count that could become a divisor, half-written ones too, and a mode change at
 * each step. A model that divides by 0 dies of SIGFPE.
 */
static void pit_divisors(void)
{
    static const uint8_t bytes[] = {0, 1, 2, 0x10, 0x99, 0xaa, 0xff};
    uint64_t now = 0;

    for (unsigned control = 0x10; control < 0x40; control++)
        for (unsigned first = 0; first < COUNT_OF(bytes); first++)
            for (unsigned second = 0; second < COUNT_OF(bytes); second++) {
                vpit_reset(&s.vpit, now);
                vpit_write(&s.vpit, now, 3, 1, control);
                vpit_write(&s.vpit, now, 0, 1, bytes[first]);
                vpit_advance(&s.vpit, now += 12 * 70000);
                vpit_write(&s.vpit, now, 0, 1, bytes[second]);
                vpit_set_line(&s.vpit, now += 24, 0, false);
                vpit_set_line(&s.vpit, now += 24, 0, true);
                vpit_deadline(&s.vpit);
                vpit_write(&s.vpit, now, 3, 1, control ^ below(16));
                vpit_advance(&s.vpit, now += 1ull << 40);
                vpit_read(&s.vpit, now, 0, 1);
                assert_true(vpit_check(&s.vpit));
            }
}

static void hpet_divisors(void)
{
    static const uint64_t values[] = {0, 1, 1ull << 32, UINT64_MAX};
    uint64_t now;

    for (unsigned config = 0; config < 0x200; config += 2)
        for (unsigned v = 0; v < COUNT_OF(values); v++) {
            hpet_reset(&s.hpet, now = 0);
            hpet_write(&s.hpet, now, 0x100, 8, config);
            hpet_write(&s.hpet, now, 0x108, 8, values[v]);
            hpet_write(&s.hpet, now, 0x10, 8, 1);
            hpet_advance(&s.hpet, now += 1ull << 40);
            hpet_write(&s.hpet, now, 0x108, 4, 0);
            hpet_write(&s.hpet, now, 0x100, 8, config ^ 0x108); /* periodic and 32 bits change places */
            hpet_deadline(&s.hpet);
            hpet_advance(&s.hpet, now += 1ull << 50);
            assert_true(hpet_check(&s.hpet));
        }
}

static void rtc_divisors(void)
{
    uint64_t now = 0;

    for (unsigned a = 0; a < 0x80; a++)
        for (unsigned b = 0; b < 0x80; b += 0x10) {
            rtc_reset(&s.rtc, now, 0);
            rtc_write(&s.rtc, now, 0, 2, a << 8 | 0x0a);
            rtc_write(&s.rtc, now, 0, 2, b << 8 | 0x0b);
            rtc_deadline(&s.rtc);
            rtc_advance(&s.rtc, now += 1ull << 30);
            rtc_write(&s.rtc, now, 0, 2, 0x0a);
            rtc_deadline(&s.rtc);
            rtc_advance(&s.rtc, now += 1ull << 30);
            assert_true(rtc_check(&s.rtc));
        }
}

/* Every divider and count, in every mode and from every mode to every other. */
static void lapic_divisors(void)
{
    uint64_t now = 0;

    for (unsigned from = 0; from < 4; from++)
        for (unsigned to = 0; to < 4; to++)
            for (unsigned dcr = 0; dcr < 16; dcr++)
                for (unsigned count = 0; count < 3; count++) {
                    reset_model(VLAPIC);
                    vlapic_write(&s.vlapic, now, 0xf0, 4, 0x1ff);
                    vlapic_write(&s.vlapic, now, 0x320, 4, from << 17 | 0x30);
                    vlapic_write(&s.vlapic, now, 0x3e0, 4, dcr);
                    vlapic_write(&s.vlapic, now, 0x380, 4, count);
                    vlapic_read(&s.vlapic, now += count, 0x390, 4);
                    vlapic_write(&s.vlapic, now, 0x320, 4, to << 17 | 0x30);
                    vlapic_read(&s.vlapic, now, 0x390, 4);
                    vlapic_advance(&s.vlapic, now += 1ull << 40);
                    vlapic_write(&s.vlapic, now, 0x380, 4, 0);
                    assert_int_equal(vlapic_read(&s.vlapic, now += 5, 0x390, 4), 0);
                    assert_true(vlapic_check(&s.vlapic));
                }
}

static void test_xsa_504_divide_by_zero(void **state)
{
    (void)state;
    pit_divisors();
    hpet_divisors();
    rtc_divisors();
    lapic_divisors();
}

/*
 * KVM, CVE-2013-6367: a guest made the APIC timer's period 0 and read the current count, which KVM computed as a
 * remainder of it. Here the count is read in every state in which the period is 0; a model that takes that remainder
 * dies.
 */
static void test_kvm_tmcct_divide_by_zero(void **state)
{
    (void)state;
    lapic_divisors();
    for (unsigned x2apic = 0; x2apic < 2; x2apic++) {
        uint64_t value = 1;

        reset_model(VLAPIC);
        vlapic_write(&s.vlapic, 0, 0xf0, 4, 0x1ff);
        if (x2apic)
            assert_true(vlapic_msr_write(&s.vlapic, 0, MSR_APIC_BASE, 0xfee00d00));
        assert_true(x2apic ? vlapic_msr_write(&s.vlapic, 0, 0x832, 0x20030) : true);
        for (uint64_t now = 0; now < 100; now++) {
            if (x2apic)
                assert_true(vlapic_msr_read(&s.vlapic, now, 0x839, &value));
            else
                value = vlapic_read(&s.vlapic, now, 0x390, 4);
            assert_int_equal(value, 0);
        }
    }
}

/* ---- Bounds ---- */

/* A copy of the model, to see that an access changed nothing. */
static union any before;

/*
 * KVM, CVE-2013-1798: IOREGSEL took any index, and reading the entry behind it leaked memory beyond the table. Here
 * every index and pin count: what is no register reads as ones and takes no write. A table read without a bound gives
 * the neighbouring fields, not ones; a table written without one changes them.
 */
static void test_kvm_ioapic_index_out_of_bounds(void **state)
{
    static const unsigned pin_counts[] = {24, 32, 48};

    (void)state;
    for (unsigned p = 0; p < COUNT_OF(pin_counts); p++)
        for (unsigned index = 0; index < 256; index++) {
            vioapic_reset(&s.vioapic, 0, pin_counts[p], 0);
            for (unsigned size = 1; size <= 4; size *= 2) {
                vioapic_write(&s.vioapic, 0, 0, size, 0xffffff00 | index);
                assert_int_equal(vioapic_read(&s.vioapic, 0, 0, 4), index);
            }
            if (index < 4 || (index >= 0x10 && index < 0x10 + 2 * pin_counts[p]))
                continue;
            before = s;
            assert_int_equal(vioapic_read(&s.vioapic, 0, 0x10, 4), 0xffffffff);
            vioapic_write(&s.vioapic, 0, 0x10, 4, 0x12345678);
            assert_memory_equal(&s.vioapic, &before.vioapic, sizeof(s.vioapic));
        }
}

/*
 * XSA-261: a GSI above 15 went to the 8259As, which indexed beyond their two chips. Here every number of a line, small
 * and large: one that is not there changes nothing. (The commands by which a device model names lines:
 * test_advisories_core.c.)
 */
static void test_xsa_261_gsi_above_15(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 300; n++) {
        unsigned line = n < 256 ? n : (unsigned)(UINT32_MAX - below(UINT32_MAX / 2));

        reset_model(VPIC);
        before = s;
        vpic_set_line(&s.vpic, 0, line, true);
        assert_int_equal(memcmp(&s, &before, sizeof(s)) != 0, line < 16 && line != 2);
        reset_model(VIOAPIC);
        before = s;
        vioapic_set_line(&s.vioapic, 0, line, true);
        assert_int_equal(memcmp(&s, &before, sizeof(s)) != 0, line < 24);
        reset_model(VPIT);
        s.vpit.channel[0].gate = s.vpit.channel[1].gate = 0;
        before = s;
        vpit_set_line(&s.vpit, 0, line, true);
        assert_int_equal(memcmp(&s, &before, sizeof(s)) != 0, line < 3);
        reset_model(PMTIMER);
        before = s;
        pmtimer_set_line(&s.pmtimer, 0, line, true);
        assert_int_equal(memcmp(&s, &before, sizeof(s)) != 0, line < PMTIMER_LINES);
    }
}

/*
 * XSA-108: 0x800-0xbff were taken for the APIC's 256 MSRs, and reads beyond the first 256 leaked the memory behind the
 * register page. Here every MSR of a wide range, in both modes: outside 0x800-0x8ff none is the APIC's.
 */
static void test_xsa_108_x2apic_range(void **state)
{
    (void)state;
    for (unsigned x2apic = 0; x2apic < 2; x2apic++) {
        reset_model(VLAPIC);
        if (x2apic)
            assert_true(vlapic_msr_write(&s.vlapic, 0, MSR_APIC_BASE, 0xfee00d00));
        before = s;
        for (uint32_t msr = 0x700; msr < 0xc00; msr++) {
            uint64_t value = 0x1122334455667788;

            if (x2apic && msr >= 0x800 && msr <= 0x83f)
                continue; /* what is there: test_vlapic_modes.c */
            assert_false(vlapic_msr_read(&s.vlapic, 0, msr, &value));
            assert_true(value == 0x1122334455667788);
            assert_false(vlapic_msr_write(&s.vlapic, 0, msr, 0));
            assert_memory_equal(&s.vlapic, &before.vlapic, sizeof(s.vlapic));
        }
    }
}

/*
 * XSA-112: an access that began in one region and ended beyond it reached the region's handler, which wrote past its
 * data. Here every access that crosses the end of a model's region or of a register inside it where the table of
 * accesses has no such thing: it reads as ones and changes nothing.
 */
static void test_xsa_112_access_across_two_regions(void **state)
{
    static const struct {
        unsigned model, offset, size;
    } crossing[] = {
        {VPIC, 1, 2},       {VPIC, 3, 2},        {VPIC, 5, 2},       {VPIC, 0, 4},       {VPIC, 4, 4},
        {VPIT, 2, 2},       {VPIT, 3, 2},        {VPIT, 4, 2},       {VPIT, 0, 4},       {VPIT, 4, 8},
        {RTC, 3, 2},        {RTC, 1, 4},         {RTC, 2, 4},        {RTC, 3, 4},        {RTC, 0, 8},
        {PMTIMER, 3, 2},    {PMTIMER, 2, 4},     {PMTIMER, 7, 2},    {PMTIMER, 6, 4},    {PMTIMER, 11, 2},
        {PMTIMER, 10, 4},   {PMTIMER, 9, 4},     {PMTIMER, 8, 8},    {PMTIMER, 0, 8},    {HPET, 0x0c, 8},
        {HPET, 0xf4, 8},    {HPET, 0xfc, 8},     {HPET, 0x104, 8},   {HPET, 0x10e, 4},   {HPET, 0x1ff, 2},
        {HPET, 0x3fe, 4},   {HPET, 0x3ff, 8},    {VIOAPIC, 0x0e, 4}, {VIOAPIC, 0x0c, 8}, {VIOAPIC, 0x12, 4},
        {VIOAPIC, 0x3e, 4}, {VIOAPIC, 0xffe, 4}, {VIOAPIC, 0x10, 8}, {VLAPIC, 0x7e, 4},  {VLAPIC, 0x82, 4},
        {VLAPIC, 0x80, 8},  {VLAPIC, 0xffd, 4},  {VLAPIC, 0xfff, 2},
    };

    (void)state;
    for (unsigned i = 0; i < COUNT_OF(crossing); i++) {
        unsigned size = crossing[i].size;

        reset_model(crossing[i].model);
        before = s;
        assert_true(doors[crossing[i].model].read(&s, 0, crossing[i].offset, size) == all_ones(size));
        doors[crossing[i].model].write(&s, 0, crossing[i].offset, size, 0xa5a5a5a5a5a5a5a5);
        assert_memory_equal(&s, &before, sizeof(s));
    }
}

/* ---- Results ---- */

/* Leaves a pattern where the next call has its locals. */
static void __attribute__((noinline)) paint_stack(int pattern)
{
    volatile uint8_t area[4096];

    for (unsigned i = 0; i < sizeof(area); i++)
        area[i] = (uint8_t)pattern;
}

static void check_filled(unsigned model, uint64_t now, unsigned offset, unsigned size)
{
    uint64_t first, second;

    before = s;
    paint_stack(0x55);
    first = doors[model].read(&s, now, offset, size);
    s = before;
    paint_stack(0xaa);
    second = doors[model].read(&s, now, offset, size);
    assert_true(first == second);
    assert_int_equal(first & ~all_ones(size), 0);
}

/*
 * XSA-121 and XSA-239: a read of a size that a device did not have, or that filled only a part of the result, gave the
 * guest what had been on the hypervisor's stack. Here every model, offset (beyond its end, too) and size, sizes that no
 * CPU makes included: all of the result is defined (the same whatever the stack holds), and nothing is above its size.
 */
static void test_xsa_121_partially_filled_results(void **state)
{
    static const unsigned sizes[] = {1, 2, 4, 8, 0, 3, 5, 16, UINT32_MAX};

    (void)state;
    for (unsigned model = 0; model < MODELS; model++) {
        reset_model(model);
        for (unsigned offset = 0; offset < doors[model].bytes + 16; offset++)
            for (unsigned i = 0; i < COUNT_OF(sizes); i++)
                check_filled(model, offset, offset, sizes[i]);
        for (unsigned i = 0; i < COUNT_OF(sizes); i++)
            check_filled(model, 0, UINT32_MAX - i, sizes[i]);
    }
}

static void test_xsa_239_partially_filled_results(void **state)
{
    (void)state;
    for (unsigned model = 0; model < MODELS; model++) {
        reset_model(model);
        for (unsigned n = 0; n < 20000; n++) { /* in any state that a guest can make */
            unsigned offset = (unsigned)below(doors[model].bytes), size = 1u << below(4);

            doors[model].write(&s, n, (unsigned)below(doors[model].bytes), 1u << below(4), below(UINT64_MAX));
            check_filled(model, n, offset, size);
        }
    }
}

/* ---- Recursion, walks, races ---- */

/*
 * XSA-462: an illegal vector in the error LVT entry was itself an error, which raised the error interrupt, which was
 * illegal, until the stack was used up. Here every illegal vector with every kind of error: one call logs both bits and
 * comes back. A model that goes around dies of its stack.
 */
static void test_xsa_462_error_interrupt_recursion(void **state)
{
    (void)state;
    for (unsigned vector = 0; vector < 16; vector++)
        for (unsigned kind = 0; kind < 3; kind++) {
            reset_model(VLAPIC);
            vlapic_write(&s.vlapic, 0, 0xf0, 4, 0x1ff);
            vlapic_write(&s.vlapic, 0, 0x370, 4, vector);
            if (kind == 0)
                assert_false(vlapic_post(&s.vlapic, 0, (uint8_t)vector, false));
            else if (kind == 1)
                vlapic_write(&s.vlapic, 0, 0x300, 4, 0x40000 | vector); /* to itself */
            else
                vlapic_write(&s.vlapic, 0, 0x2f0, 4, 0); /* no such register */
            vlapic_write(&s.vlapic, 0, 0x280, 4, 0);
            assert_int_equal(vlapic_read(&s.vlapic, 0, 0x280, 4), kind == 0 ? 0x40 : kind == 1 ? 0x60 : 0xc0);
            assert_int_equal(vlapic_highest_irr(&s.vlapic), -1);
            assert_true(vlapic_check(&s.vlapic));
        }
}

/* Deadlines that, when one of them expires, take others out and free them, and set themselves again. */
struct timer {
    struct deadline deadline;
    unsigned expired;
};
#define TIMERS 64u
static struct deadline_heap heap;
static struct timer *timers[TIMERS];
static uint64_t clock_now;
static unsigned expiries;

static void disturb(struct deadline *d)
{
    struct timer *self = (struct timer *)d;

    assert_true(++self->expired <= 1);
    expiries++;
    for (unsigned n = 0; n < 4; n++) {
        unsigned victim = (unsigned)below(TIMERS);

        if (!timers[victim] || timers[victim] == self)
            continue;
        if (n < 2) {
            deadline_set(&heap, &timers[victim]->deadline, DEADLINE_UNSET);
            free(timers[victim]);
            timers[victim] = NULL;
        } else if (timers[victim]->deadline.when != DEADLINE_UNSET) {
            deadline_set(&heap, &timers[victim]->deadline, clock_now + timers[victim]->expired + below(20));
        }
    }
    if (below(2))
        deadline_set(&heap, d, clock_now + 1 + below(20));
}

/*
 * XSA-491: a list of timers was walked while what the walk called took timers out of it and freed them. Here expiring
 * deadlines take out, free and move others, and come back themselves. A walk that keeps a pointer or an index over the
 * call touches freed memory (the address sanitizer sees it), runs one twice, or leaves one that is due.
 */
static void test_xsa_491_list_mutated_under_a_walker(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        memset(&heap, 0, sizeof(heap));
        for (unsigned i = 0; i < TIMERS; i++) {
            timers[i] = calloc(1, sizeof(*timers[i]));
            deadline_init(&timers[i]->deadline, disturb);
            deadline_set(&heap, &timers[i]->deadline, below(100));
        }
        for (clock_now = 0; clock_now < 100; clock_now += 1 + below(10)) {
            expire_due(&heap, clock_now);
            assert_true(deadline_next(&heap) > clock_now);
            for (unsigned i = 0; i < TIMERS; i++)
                if (timers[i])
                    timers[i]->expired = 0;
        }
        for (unsigned i = 0; i < TIMERS; i++)
            free(timers[i]);
    }
    assert_true(expiries > 2000);
}

/*
 * XSA-503: one CPU changed the RTC's index between another's check of it and its use, and wrote beyond the CMOS array.
 * Here two CPUs' accesses in every order and width: data always goes to the index last written, which is bounded when
 * it is stored, and a word written to 0x70 is index and data at once. A model that keeps the index as written, or looks
 * the data's place up from another access, puts it elsewhere. (Two CPUs at once: test_advisories_core.c.)
 */
static void test_xsa_503_index_race(void **state)
{
    unsigned index[2] = {0, 0};

    (void)state;
    reset_model(RTC);
    for (unsigned n = 0; n < 200000; n++) {
        unsigned bank = (unsigned)below(2), to = (unsigned)below(256), value = (unsigned)below(256);
        uint64_t now = n;

        if (below(2)) {
            rtc_write(&s.rtc, now, 2 * bank, 1, to);
            index[bank] = to & 0x7f;
        } else if (below(2)) {
            rtc_write(&s.rtc, now, 2 * bank, 2, value << 8 | to);
            index[bank] = to & 0x7f;
            if (bank || index[bank] > 0x0d)
                assert_int_equal(rtc_cmos_get(&s.rtc, 128 * bank + index[bank]), value);
        } else if (bank || index[bank] > 0x0d) {
            rtc_write(&s.rtc, now, 2 * bank + 1, 1, value);
            assert_int_equal(rtc_cmos_get(&s.rtc, 128 * bank + index[bank]), value);
            assert_int_equal(rtc_read(&s.rtc, now, 2 * bank + 1, 1), value);
        }
        assert_true(rtc_check(&s.rtc));
    }
}

/*
 * KVM, CVE-2014-3611 and its neighbours: two CPUs programmed the PIT and moved its gate at the same instant, and its
 * timer was left in a state that no PIT can be in. Here two CPUs' accesses in every order, at the same tick and at
 * times that differ by less than the CPUs' clocks do: the state is always one that hardware can be in, gate and port
 * 0x61 agree, and no edge is ever taken back. (Two CPUs at once: test_advisories_core.c.)
 */
static void test_kvm_pit_gate_races(void **state)
{
    uint64_t now = 1000, rises[3] = {0, 0, 0};
    unsigned gate = 0;

    (void)state;
    reset_model(VPIT);
    for (unsigned n = 0; n < 300000; n++) {
        uint64_t at = now - below(30); /* the slower CPU */

        switch (below(5)) {
        case 0:
            gate = (unsigned)below(2);
            vpit_write(&s.vpit, at, 4, 1, gate);
            break;
        case 1:
            vpit_write(&s.vpit, at, 3, 1, 0x80 | below(0x40));
            break;
        case 2:
            vpit_write(&s.vpit, at, 2, 1, below(4));
            break;
        case 3:
            vpit_advance(&s.vpit, at);
            break;
        default:
            now += below(50);
        }
        assert_true(vpit_check(&s.vpit));
        assert_int_equal(vpit_read(&s.vpit, at, 4, 1) & 1, gate);
        assert_int_equal(s.vpit.channel[2].gate, gate);
        for (unsigned c = 0; c < 3; c++) {
            assert_true(s.vpit.out.line[c].rises >= rises[c]);
            rises[c] = s.vpit.out.line[c].rises;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xsa_504_divide_by_zero),
        cmocka_unit_test(test_xsa_503_index_race),
        cmocka_unit_test(test_xsa_491_list_mutated_under_a_walker),
        cmocka_unit_test(test_xsa_462_error_interrupt_recursion),
        cmocka_unit_test(test_xsa_261_gsi_above_15),
        cmocka_unit_test(test_xsa_239_partially_filled_results),
        cmocka_unit_test(test_xsa_121_partially_filled_results),
        cmocka_unit_test(test_xsa_112_access_across_two_regions),
        cmocka_unit_test(test_xsa_108_x2apic_range),
        cmocka_unit_test(test_kvm_ioapic_index_out_of_bounds),
        cmocka_unit_test(test_kvm_tmcct_divide_by_zero),
        cmocka_unit_test(test_kvm_pit_gate_races),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
