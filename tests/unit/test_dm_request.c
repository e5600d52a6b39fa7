/*
 * Which requests QEMU may see: every type, size, count and address class, against a naive statement of the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dm-proxy/qemu/dm.h"

static bool power_of_two_up_to(uint32_t size, uint32_t most)
{
    return (size == 1 || size == 2 || size == 4 || size == 8) && size <= most;
}

static bool expected(const struct metronome_ioreq *r)
{
    switch (r->type) {
    case 0: /* port */
        return power_of_two_up_to(r->size, 4) && r->count <= 65536 && r->addr <= 0xffff;
    case 1: /* memory */
        return power_of_two_up_to(r->size, 8) && r->count <= 65536;
    case 2: /* configuration space */
        return power_of_two_up_to(r->size, 4) && r->count <= 1;
    case 7: /* time offset, map-cache invalidation: QEMU looks at nothing else */
    case 8:
        return true;
    default:
        return false;
    }
}

static void every_class(void **state)
{
    static const uint32_t sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 32, 33, 0x104, 0x80000001, UINT32_MAX};
    static const uint32_t counts[] = {0, 1, 2, 65536, 65537, UINT32_MAX};
    static const uint64_t addresses[] = {0, 0xffff, 0x10000, 0x100000000, UINT64_MAX};

    (void)state;
    for (unsigned type = 0; type < 256; type++)
        for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (unsigned c = 0; c < sizeof counts / sizeof counts[0]; c++)
                for (unsigned a = 0; a < sizeof addresses / sizeof addresses[0]; a++) {
                    struct metronome_ioreq r = {
                        .type = (uint8_t)type, .size = sizes[s], .count = counts[c], .addr = addresses[a]};
                    assert_int_equal(request_acceptable(&r), expected(&r));
                }
}

static void answers_keep_what_is_not_theirs(void **state)
{
    struct metronome_ioreq r = {.data = 5,
                                .state_dir_df = METRONOME_IOREQ_READ | METRONOME_IOREQ_DF | METRONOME_IOREQ_READY};

    (void)state;
    request_answer(&r, UINT64_MAX);
    assert_int_equal(r.data, UINT64_MAX);
    assert_int_equal(r.state_dir_df, METRONOME_IOREQ_READ | METRONOME_IOREQ_DF | METRONOME_IOREQ_RESPONSE);
    r = (struct metronome_ioreq){.data = 5, .state_dir_df = METRONOME_IOREQ_READY};
    request_answer(&r, UINT64_MAX);
    assert_int_equal(r.data, 5); /* a write's */
    r = (struct metronome_ioreq){
        .data = 5, .state_dir_df = METRONOME_IOREQ_READ | METRONOME_IOREQ_DATA_IS_PTR | METRONOME_IOREQ_READY};
    request_answer(&r, UINT64_MAX);
    assert_int_equal(r.data, 5); /* an address */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_class),
        cmocka_unit_test(answers_keep_what_is_not_theirs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
