/*
 * What CPUID says of packages and cores, of guests of many shapes: each way in which systems ask for it gives the same answer,
 * the one that was asked for, whatever the host's own packages are. On fabric_machine.h's whole domains.
 */
#include "fabric_machine.h"

#include <setjmp.h>
#include <cmocka.h>

static void violated(const char *what, const char *condition)
{
    fail_msg("%s: %s", what, condition);
}

#define HTT (1u << 28)
#define CMP_LEGACY (1u << 1)

static const struct shape {
    uint32_t vcpus, cores, core_bits;
} shapes[] = {
    {1, 1, 0},  {2, 1, 0},  {2, 2, 1},  {3, 1, 0},   {3, 3, 2},   {4, 1, 0},   {4, 2, 1},   {4, 4, 2},   {6, 1, 0},    {6, 2, 1},
    {6, 6, 3},  {8, 1, 0},  {8, 4, 2},  {8, 8, 3},   {12, 4, 2},  {63, 1, 0},  {63, 63, 6}, {64, 1, 0},  {64, 16, 4},  {64, 64, 6},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static struct domain *make(const struct shape *s)
{
    struct metronome_domain_header *h;

    boot_once();
    if (slots[0].domain) /* of a test that failed */
        destroy(&slots[0]);
    fill_slot(&slots[0], s->vcpus, true);
    h = (void *)(slots[0].memory + METRONOME_DOMAIN_HEADER);
    h->cores = s->cores;
    assert_int_equal(control_command(&slots[0], METRONOME_CONTROL_CREATE, 0, 0), 0);
    start_with_dm(&twins[0]);
    return slots[0].domain;
}

static void expect_leaf(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, struct cpuid_result expected)
{
    struct cpuid_result r = cpuid_policy((struct vcpu *)v, leaf, subleaf);

    if (memcmp(&r, &expected, sizeof(r)))
        fail_msg("CPUID %#x.%u: %#x %#x %#x %#x, not %#x %#x %#x %#x", leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx, expected.eax, expected.ebx,
                 expected.ecx, expected.edx);
}

/* The package by each way: APM 3 appendix E.5, SDM 3A 9.9.3. */
static void expect_shape(struct vcpu *v, const struct shape *s)
{
    const struct cpuid_result one = cpuid_policy(v, 1, 0), more = cpuid_policy(v, 0x80000001, 0);
    const uint32_t package = v->id / s->cores;

    assert_int_equal(one.ebx >> 24, v->id);
    assert_int_equal(one.ebx >> 16 & 0xff, s->cores);
    assert_int_equal(!!(one.edx & HTT), s->cores > 1);
    assert_int_equal(!!(more.ecx & CMP_LEGACY), s->cores > 1);
    assert_int_equal(one.ebx >> 24 >> s->core_bits, package);
    expect_leaf(v, 0xb, 0, (struct cpuid_result){0, 1, 0x100, v->id});
    expect_leaf(v, 0xb, 1, (struct cpuid_result){s->core_bits, s->cores, 0x201, v->id});
    expect_leaf(v, 0xb, 2, (struct cpuid_result){0, 0, 2, v->id});
    expect_leaf(v, 0x80000008, 0, (struct cpuid_result){0x3028, 0, s->core_bits << 12 | (s->cores - 1), 0});
    expect_leaf(v, 4, 0, (struct cpuid_result){(s->cores - 1) << 26 | 0x121, 0x01c0003f, 0x3f, 1});
    expect_leaf(v, 4, 1, (struct cpuid_result){0, 0, 0, 0});
    for (uint32_t leaf = 0x8000001d; leaf <= 0x8000001e; leaf++)
        expect_leaf(v, leaf, 0, (struct cpuid_result){0, 0, 0, 0});
    expect_leaf(v, 0x1f, 0, (struct cpuid_result){0, 0, 0, 0});
}

static void expect_all(const struct domain *d, const struct shape *s)
{
    assert_int_equal(d->vcpus, s->vcpus);
    for (unsigned i = 0; i < d->vcpus; i++)
        expect_shape(d->vcpu[i], s);
}

static void test_packages_and_cores(void **state)
{
    (void)state;
    for (const struct shape *s = shapes; s < shapes + SHAPES; s++) {
        expect_all(make(s), s);
        destroy(&slots[0]);
    }
}

static void test_saved_and_restored(void **state)
{
    (void)state;
    for (const struct shape *s = shapes; s < shapes + SHAPES; s++) {
        make(s);
        save(&twins[0]);
        destroy(&slots[0]);
        assert_int_equal(restore(&twins[0]), 0);
        expect_all(slots[0].domain, s);
        destroy(&slots[0]);
    }
}

/* The host's own HTT was shown to a guest of one vCPU, and was a feature that a machine of one CPU lacked at the restoring. */
static void test_host_packages_are_hidden(void **state)
{
    struct domain *d = make(&(struct shape){1, 1, 0});
    uint32_t words[CPUID_WORDS];
    unsigned n = cpuid_save(words);

    (void)state;
    assert_true(simulated_cpuid(1, 0).edx & HTT);
    assert_false(cpuid_policy(d->vcpu[0], 1, 0).edx & HTT);
    assert_true(n > 1);
    assert_int_equal(words[1], simulated_cpuid(1, 0).edx & ~HTT);
    destroy(&slots[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packages_and_cores),
        cmocka_unit_test(test_saved_and_restored),
        cmocka_unit_test(test_host_packages_are_hidden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
