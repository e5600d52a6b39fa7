/*
 * What posts leave in a local APIC once they are drained: the same as if each had been accepted when it came. Every pair
 * of posts, with either trigger mode, into an APIC that has either request pending, or neither, and drained once or
 * twice. (The order of the accesses when sender and owner run at once is another matter.)
 */
#include "hvm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

__thread struct pcpu *test_cpu;
uint64_t tsc_hz = 1000000000;

static struct domain dom = {.time = {.stopped = true, .stopped_at = 1}};
static struct vcpu vcpu = {.domain = &dom, .state = VCPU_STOPPED};

struct post {
    unsigned vector;
    bool level;
};

static void make_lapic(struct vlapic *s, const struct post *pending)
{
    vlapic_reset(s, 0, 0, true);
    vlapic_write(s, 0, 0xf0, 4, 0x1ff);
    if (pending)
        vlapic_post(s, 0, (uint8_t)pending->vector, !pending->level);
}

static void expect_merge(struct post a, struct post b, const struct post *pending, bool drain_between)
{
    struct vlapic expected;

    make_lapic(&expected, pending);
    vcpu.vlapic = expected;
    vlapic_post(&expected, 1, (uint8_t)a.vector, a.level);
    vlapic_post(&expected, 1, (uint8_t)b.vector, b.level);
    vcpu_post(&vcpu, (uint8_t)a.vector, a.level, METRONOME_INJECT_IPI);
    if (drain_between)
        vcpu_drain(&vcpu);
    vcpu_post(&vcpu, (uint8_t)b.vector, b.level, METRONOME_INJECT_IOAPIC);
    vcpu_drain(&vcpu);
    assert_memory_equal(&vcpu.vlapic, &expected, sizeof(expected));
    assert_true(vlapic_check(&vcpu.vlapic));
    assert_false(vcpu.posted.on || vcpu.posted.pir[0] || vcpu.posted.pir[1] || vcpu.posted.pir[2] || vcpu.posted.pir[3]);
    assert_int_equal(vcpu.posted.source[b.vector], METRONOME_INJECT_IOAPIC);
}

static void posts_merge_like_accepts(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 256 * 256 * 4; n++) {
        struct post a = {n & 0xff, n >> 16 & 1}, b = {n >> 8 & 0xff, n >> 17 & 1};
        for (unsigned drains = 0; drains < 2; drains++) {
            expect_merge(a, b, NULL, drains);
            expect_merge(a, b, &a, drains);
            expect_merge(a, b, &b, drains);
        }
    }
}

/* An APIC that is software-disabled takes nothing, and what was posted meanwhile is gone. */
static void disabled_apic_drops_posts(void **state)
{
    (void)state;
    for (unsigned vector = 0; vector < 256; vector++) {
        vlapic_reset(&vcpu.vlapic, 0, 0, true);
        vcpu_post(&vcpu, (uint8_t)vector, true, METRONOME_INJECT_IPI);
        vcpu_drain(&vcpu);
        vlapic_write(&vcpu.vlapic, 0, 0xf0, 4, 0x1ff);
        vcpu_drain(&vcpu);
        assert_int_equal(vlapic_highest_irr(&vcpu.vlapic), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_merge_like_accepts),
        cmocka_unit_test(disabled_apic_drops_posts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
