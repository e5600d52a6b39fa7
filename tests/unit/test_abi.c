/*
 * The request pages are Xen's own layout, since QEMU reads and answers them in place: held equal to Xen's header here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xen/xen.h>
#include <xen/hvm/ioreq.h>
#include "public/control.h"
#include "public/domain.h"

static void test_request_layout(void **state)
{
    assert_int_equal(sizeof(struct metronome_ioreq), sizeof(struct ioreq));
    assert_int_equal(offsetof(struct metronome_ioreq, addr), offsetof(struct ioreq, addr));
    assert_int_equal(offsetof(struct metronome_ioreq, data), offsetof(struct ioreq, data));
    assert_int_equal(offsetof(struct metronome_ioreq, count), offsetof(struct ioreq, count));
    assert_int_equal(offsetof(struct metronome_ioreq, size), offsetof(struct ioreq, size));
    assert_int_equal(offsetof(struct metronome_ioreq, vp_eport), offsetof(struct ioreq, vp_eport));
    assert_int_equal(offsetof(struct metronome_ioreq, type), offsetof(struct ioreq, type));
}

/* Xen keeps state and flags in bit-fields: each is set alone, and must come out in our byte. */
static void test_request_bits(void **state)
{
    static const struct {
        uint8_t state, data_is_ptr, dir, df, expected;
    } rows[] = {
        {STATE_IOREQ_READY, 0, IOREQ_WRITE, 0, METRONOME_IOREQ_READY},
        {STATE_IOREQ_INPROCESS, 0, IOREQ_WRITE, 0, METRONOME_IOREQ_INPROCESS},
        {STATE_IORESP_READY, 0, IOREQ_WRITE, 0, METRONOME_IOREQ_RESPONSE},
        {STATE_IOREQ_NONE, 1, IOREQ_WRITE, 0, METRONOME_IOREQ_DATA_IS_PTR},
        {STATE_IOREQ_NONE, 0, IOREQ_READ, 0, METRONOME_IOREQ_READ},
        {STATE_IOREQ_NONE, 0, IOREQ_WRITE, 1, METRONOME_IOREQ_DF},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ioreq theirs;
        struct metronome_ioreq ours;

        memset(&theirs, 0, sizeof(theirs));
        theirs.state = rows[i].state;
        theirs.data_is_ptr = rows[i].data_is_ptr;
        theirs.dir = rows[i].dir;
        theirs.df = rows[i].df;
        memcpy(&ours, &theirs, sizeof(ours));
        assert_int_equal(ours.state_dir_df, rows[i].expected);
    }
}

static void test_request_types(void **state)
{
    assert_int_equal(METRONOME_IOREQ_PIO, IOREQ_TYPE_PIO);
    assert_int_equal(METRONOME_IOREQ_COPY, IOREQ_TYPE_COPY);
    assert_int_equal(METRONOME_IOREQ_PCI_CONFIG, IOREQ_TYPE_PCI_CONFIG);
    assert_int_equal(METRONOME_IOREQ_TIMEOFFSET, IOREQ_TYPE_TIMEOFFSET);
    assert_int_equal(METRONOME_IOREQ_INVALIDATE, IOREQ_TYPE_INVALIDATE);
}

/* A posted write as the hypervisor composes it: 4 bytes of 0x12345678 at 0xb8000. */
static void test_buffered_layout(void **state)
{
    struct buf_ioreq theirs;
    uint64_t ours = METRONOME_IOREQ_COPY | 2ull << 10 | 0xb8000ull << 12 | 0x12345678ull << 32;

    memset(&theirs, 0, sizeof(theirs));
    theirs.type = IOREQ_TYPE_COPY;
    theirs.dir = IOREQ_WRITE;
    theirs.size = 2;
    theirs.addr = 0xb8000;
    theirs.data = 0x12345678;
    assert_int_equal(sizeof(theirs), 8);
    assert_memory_equal(&ours, &theirs, 8);
}

static void test_pages(void **state)
{
    assert_int_equal(METRONOME_BUFIOREQ_SLOTS, IOREQ_BUFFER_SLOT_NUM);
    assert_int_equal(offsetof(struct metronome_bufioreq_page, slot), offsetof(struct buffered_iopage, buf_ioreq));
    assert_int_equal(offsetof(struct metronome_bufioreq_page, write_pointer), offsetof(struct buffered_iopage, write_pointer));
    assert_int_equal(offsetof(struct metronome_ioreq_page, vcpu), offsetof(struct shared_iopage, vcpu_ioreq));
}

/* Nothing in a slot overlaps, and all lies below the arena. */
static void test_slot_layout(void **state)
{
    static const struct {
        uint64_t offset, size;
    } parts[] = {
        {METRONOME_DOMAIN_HEADER, sizeof(struct metronome_domain_header)},
        {METRONOME_DOMAIN_IOREQ, sizeof(struct metronome_ioreq_page)},
        {METRONOME_DOMAIN_BUFIOREQ, sizeof(struct metronome_bufioreq_page)},
        {METRONOME_DOMAIN_NOTIFY, sizeof(struct metronome_notify)},
        {METRONOME_DOMAIN_COMMANDS, sizeof(struct metronome_command_ring)},
        {METRONOME_DOMAIN_COMPLETIONS, sizeof(struct metronome_completion_ring)},
        {METRONOME_DOMAIN_CONSOLE, sizeof(struct metronome_console)},
        {METRONOME_DOMAIN_DIRTY, METRONOME_DOMAIN_DIRTY_BYTES},
        {METRONOME_DOMAIN_ARENA, 0},
    };

    for (unsigned i = 0; i + 1 < sizeof(parts) / sizeof(parts[0]); i++)
        assert_true(parts[i].offset + parts[i].size <= parts[i + 1].offset);
}

static void test_control_layout(void **state)
{
    assert_true(METRONOME_CONTROL_HEADER + sizeof(struct metronome_control_header) <= METRONOME_CONTROL_COMMANDS);
    assert_true(METRONOME_CONTROL_COMMANDS + sizeof(struct metronome_command_ring) <= METRONOME_CONTROL_COMPLETIONS);
    assert_true(METRONOME_CONTROL_COMPLETIONS + sizeof(struct metronome_completion_ring) <= METRONOME_CONTROL_SLOTS);
    assert_true(METRONOME_CONTROL_SLOTS + METRONOME_MAX_SLOTS * sizeof(struct metronome_slot_status) <= METRONOME_CONTROL_LATENCY);
    assert_true(METRONOME_CONTROL_LATENCY + METRONOME_MAX_SLOTS * sizeof(struct metronome_latency) <= METRONOME_CONTROL_TRACE);
    assert_true((unsigned)METRONOME_EXIT_COUNT <= sizeof(((struct metronome_stats *)0)->exits) / 8);
    assert_true((unsigned)METRONOME_INJECT_COUNT <= sizeof(((struct metronome_stats *)0)->injected) / 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_layout), cmocka_unit_test(test_request_bits), cmocka_unit_test(test_request_types),
        cmocka_unit_test(test_buffered_layout), cmocka_unit_test(test_pages), cmocka_unit_test(test_slot_layout),
        cmocka_unit_test(test_control_layout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
