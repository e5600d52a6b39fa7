/*
 * The trace: Xen's numbers, the rule by which a mask chooses, and a ring between a CPU that writes and a reader that is too slow:
 * every record comes out whole and in order, or is counted.
 */
#include "../../common/trace.c"
#include "random.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <xen/trace.h>

__thread struct pcpu *test_cpu;
static struct pcpu cpu0, cpu1 = {.id = 1};

static const struct {
    uint32_t ours, xens;
} numbers[] = {
    {TRACE_SCHED_RUNSTATE, TRC_SCHED_RUNSTATE_CHANGE}, {TRACE_HVM_VMENTRY, TRC_HVM_VMENTRY},
    {TRACE_HVM_VMEXIT, TRC_HVM_VMEXIT},                {TRACE_HVM_VMEXIT64, TRC_HVM_VMEXIT64},
    {TRACE_HVM_INJ_EXC, TRC_HVM_INJ_EXC},              {TRACE_HVM_INJ_VIRQ, TRC_HVM_INJ_VIRQ},
    {TRACE_HVM_REINJ_VIRQ, TRC_HVM_REINJ_VIRQ},        {TRACE_HVM_MSR_READ, TRC_HVM_MSR_READ},
    {TRACE_HVM_MSR_WRITE, TRC_HVM_MSR_WRITE},          {TRACE_HVM_CPUID, TRC_HVM_CPUID},
    {TRACE_HVM_INTR, TRC_HVM_INTR},                    {TRACE_HVM_NMI, TRC_HVM_NMI},
    {TRACE_HVM_VMMCALL, TRC_HVM_VMMCALL},              {TRACE_HVM_HLT, TRC_HVM_HLT},
    {TRACE_HVM_IOPORT_READ, TRC_HVM_IOPORT_READ},      {TRACE_HVM_IOPORT_WRITE, TRC_HVM_IOPORT_WRITE},
    {TRACE_HVM_IOMEM_READ, TRC_HVM_IOMEM_READ},        {TRACE_HVM_IOMEM_WRITE, TRC_HVM_IOMEM_WRITE},
    {TRACE_HVM_INTR_WINDOW, TRC_HVM_INTR_WINDOW},      {TRACE_HVM_NPF, TRC_HVM_NPF},
    {TRACE_HVM_TRAP, TRC_HVM_TRAP},                    {TRACE_HVM_CR_WRITE64, TRC_HVM_CR_WRITE64},
    {TRACE_EMUL_HPET_START, TRC_HVM_EMUL_HPET_START_TIMER}, {TRACE_EMUL_HPET_STOP, TRC_HVM_EMUL_HPET_STOP_TIMER},
    {TRACE_EMUL_PIT_START, TRC_HVM_EMUL_PIT_START_TIMER}, {TRACE_EMUL_PIT_STOP, TRC_HVM_EMUL_PIT_STOP_TIMER},
    {TRACE_EMUL_RTC_START, TRC_HVM_EMUL_RTC_START_TIMER}, {TRACE_EMUL_RTC_STOP, TRC_HVM_EMUL_RTC_STOP_TIMER},
    {TRACE_EMUL_LAPIC_START, TRC_HVM_EMUL_LAPIC_START_TIMER}, {TRACE_EMUL_LAPIC_STOP, TRC_HVM_EMUL_LAPIC_STOP_TIMER},
    {TRACE_HVM_XCR_WRITE64, TRC_HVM_XCR_WRITE64},      {TRACE_EMUL_PIT_TICK, TRC_HVM_EMUL_PIT_TIMER_CB},
    {TRACE_EMUL_LAPIC_TICK, TRC_HVM_EMUL_LAPIC_TIMER_CB}, {TRACE_EMUL_PIC_OUTPUT, TRC_HVM_EMUL_PIC_INT_OUTPUT},
    {TRACE_EMUL_PIC_KICK, TRC_HVM_EMUL_PIC_KICK},      {TRACE_EMUL_PIC_INTACK, TRC_HVM_EMUL_PIC_INTACK},
    {TRACE_EMUL_PIC_RISE, TRC_HVM_EMUL_PIC_POSEDGE},   {TRACE_EMUL_PIC_FALL, TRC_HVM_EMUL_PIC_NEGEDGE},
    {METRONOME_TRACE_LOST, TRC_LOST_RECORDS},          {METRONOME_TRACE_CPU_CHANGE, TRC_TRACE_CPU_CHANGE},
    {METRONOME_TRACE_ALL, TRC_ALL},                    {METRONOME_TRACE_SCHED, TRC_SCHED},
    {METRONOME_TRACE_HVM, TRC_HVM},                    {METRONOME_TRACE_OWN, TRC_HW},
    {TRACE_64, TRC_64_FLAG},                           {METRONOME_TRACE_TSC, TRC_HD_CYCLE_FLAG},
};

static void test_xens_numbers(void **state)
{
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        assert_int_equal(numbers[i].ours, numbers[i].xens);
    for (unsigned n = 0; n < 8; n++)
        assert_int_equal(TRC_HD_EXTRA(METRONOME_TRACE_EXTRA(n)), n);
    assert_true(TRACE_POST >> 16 == TRC_HW >> 16);
}

/* ---- A ring of one page, in memory of just its size ---- */

#define RING_BYTES 4096u
static struct metronome_trace *area;

static void make_rings(unsigned rings)
{
    uint64_t bytes = metronome_trace_offset(RING_BYTES, rings);

    free(area);
    area = calloc(1, bytes);
    test_cpu = &cpu0;
    trace_init(area, bytes, rings);
    assert_int_equal(area->ring_bytes, RING_BYTES);
    assert_int_equal(area->rings, rings);
    assert_true(trace_set_mask(METRONOME_TRACE_ALL));
}

static uint32_t word_at(unsigned ring, uint64_t at)
{
    const uint32_t *words = (const void *)((const char *)area + metronome_trace_offset(RING_BYTES, ring));

    return words[at % (RING_BYTES / 4)];
}

/* As xentrace's mask decides in Xen: some bit of the class, and some of the subclass. */
static bool xen_traces(uint32_t mask, uint32_t event)
{
    return (mask >> TRC_CLS_SHIFT & event >> TRC_CLS_SHIFT) && (mask >> TRC_SUBCLS_SHIFT & event >> TRC_SUBCLS_SHIFT & 15);
}

static void test_masks(void **state)
{
    make_rings(1);
    for (unsigned n = 0; n < 100000; n++) {
        uint32_t mask = below(0x10000) << 12, event = n % 30 ? numbers[n % 30].ours : TRACE_POST;

        trace_set_mask(mask);
        assert_int_equal(area->mask, mask);
        assert_int_equal(trace_on(event), xen_traces(mask, event));
    }
}

static void test_off_writes_nothing(void **state)
{
    make_rings(1);
    trace_set_mask(METRONOME_TRACE_HVM);
    trace_put(TRACE_POST, 1, 2);
    trace_put(TRACE_SCHED_RUNSTATE, 1);
    assert_int_equal(area->ring[0].produced, 0);
    trace_put(TRACE_HVM_CPUID, 1, 2, 3, 4, 5, 6);
    assert_int_equal(area->ring[0].produced, 7);
}

static void test_no_memory_no_trace(void **state)
{
    static uint64_t little[512];
    static const uint64_t none[512];

    trace_set_mask(0);
    trace_init(little, sizeof(little), 1);
    assert_memory_equal(little, none, sizeof(little));
}

/* ---- Numbered records, and a reader of them ---- */

struct reader {
    uint32_t next; /* number of the next record */
    uint64_t lost, taken, tsc;
};

static void write_numbered(uint32_t number)
{
    switch (number % 7) {
    case 0: trace_put(TRACE_POST, number, ~number); break;
    case 1: trace_put(TRACE_HVM_VMMCALL, number); break;
    case 2: trace_put(TRACE_HVM_CPUID, number, 1, 2, 3, 4, 5); break;
    case 3: trace_put(TRACE_HVM_VMEXIT64, number, TRACE_LONG(0x123456789abcdefull)); break;
    case 4: trace_put(TRACE_HVM_NPF, number, 1, 2, 3, 4, 5); break;
    case 5: trace_put(TRACE_TICKS, number, 1, 2, 3); break;
    case 6: trace_put(TRACE_HVM_INTR_WINDOW, number, 1, 2); break;
    }
}

static void check_words(unsigned ring, uint64_t at, uint32_t number)
{
    static const uint32_t events[7] = {TRACE_POST, TRACE_HVM_VMMCALL, TRACE_HVM_CPUID, TRACE_HVM_VMEXIT64, TRACE_HVM_NPF,
                                       TRACE_TICKS, TRACE_HVM_INTR_WINDOW};
    static const unsigned extra[7] = {2, 1, 6, 3, 6, 4, 3};
    uint32_t first = word_at(ring, at);
    uint64_t own = at + metronome_trace_words(first) - extra[number % 7];

    assert_int_equal(TRC_HD_TO_EVENT(first), events[number % 7]);
    assert_int_equal(TRC_HD_EXTRA(first), extra[number % 7]);
    assert_int_equal(word_at(ring, own), number);
    if (number % 7 == 3) {
        assert_int_equal(word_at(ring, own + 1), 0x89abcdef);
        assert_int_equal(word_at(ring, own + 2), 0x1234567);
    } else if (number % 7) {
        for (unsigned i = 1; i < extra[number % 7]; i++)
            assert_int_equal(word_at(ring, own + i), i);
    }
}

static void check_tsc(unsigned ring, uint64_t at, struct reader *r)
{
    uint64_t tsc = word_at(ring, at + 1) | (uint64_t)word_at(ring, at + 2) << 32;

    assert_true(tsc >= r->tsc);
    r->tsc = tsc;
}

static void take_one(unsigned ring, uint64_t at, struct reader *r)
{
    uint32_t first = word_at(ring, at);

    if (first & METRONOME_TRACE_TSC)
        check_tsc(ring, at, r);
    if (TRC_HD_TO_EVENT(first) == TRC_LOST_RECORDS) {
        assert_int_equal(metronome_trace_words(first), 7);
        assert_int_not_equal(word_at(ring, at + 3), 0);
        assert_int_equal(word_at(ring, at + 4), 5 | 7 << 16);
        r->lost += word_at(ring, at + 3);
        r->next += word_at(ring, at + 3);
        return;
    }
    check_words(ring, at, r->next++);
    r->taken++;
}

/* Everything that is there. */
static void take_all(unsigned ring, struct reader *r)
{
    struct metronome_trace_ring *s = &area->ring[ring];
    uint64_t produced = __atomic_load_n(&s->produced, __ATOMIC_ACQUIRE), at = s->consumed;

    assert_true(produced - at <= RING_BYTES / 4);
    while (at != produced) {
        take_one(ring, at, r);
        at += metronome_trace_words(word_at(ring, at));
        assert_true(at <= produced);
    }
    __atomic_store_n(&s->consumed, at, __ATOMIC_RELEASE);
}

static void test_slow_reader(void **state)
{
    struct reader r = {0};
    uint32_t written = 0;

    make_rings(1);
    trace_running(5 | 7 << 16);
    for (unsigned n = 0; n < 3000; n++) {
        for (unsigned i = below(400); i; i--)
            write_numbered(written++);
        take_all(0, &r);
        assert_int_equal(r.next + area->ring[0].lost, written);
    }
    assert_true(r.taken > 100000 && r.lost > 100000);
    assert_int_equal(r.taken + r.lost + area->ring[0].lost, written);
}

static void test_full_ring_is_filled(void **state)
{
    struct reader r = {0};

    make_rings(1);
    for (unsigned i = 0; i < 10000; i++)
        write_numbered(i);
    assert_in_range(area->ring[0].produced, RING_BYTES / 4 - 20, RING_BYTES / 4);
    take_all(0, &r);
    assert_int_equal(r.taken + area->ring[0].lost, 10000);
}

/* A trace that begins anew knows nothing of what one before it has lost. */
static void test_lost_before_is_forgotten(void **state)
{
    struct reader r = {0};

    make_rings(1);
    for (unsigned i = 0; i < 10000; i++)
        write_numbered(i);
    assert_int_not_equal(area->ring[0].lost, 0);
    trace_set_mask(METRONOME_TRACE_HVM);
    assert_int_not_equal(area->ring[0].lost, 0);
    trace_set_mask(0);
    area->ring[0].consumed = area->ring[0].produced;
    trace_set_mask(METRONOME_TRACE_ALL);
    assert_int_equal(area->ring[0].lost, 0);
    write_numbered(0);
    take_all(0, &r);
    assert_int_equal(r.taken, 1);
    assert_int_equal(r.lost, 0);
}

/* Whatever the reader claims: nothing is written outside the ring, and nothing that has not been consumed is overwritten. */
static void test_claims_of_a_bad_reader(void **state)
{
    make_rings(2);
    for (unsigned n = 0; n < 100000; n++) {
        area->ring[0].consumed = (uint64_t)below(UINT32_MAX) << below(33);
        write_numbered(n);
        assert_int_equal(area->ring[1].produced, 0);
        assert_int_equal(word_at(1, 0), 0);
    }
}

static void *write_million(void *argument)
{
    test_cpu = argument;
    for (uint32_t i = 0; i < 1000000; i++)
        write_numbered(i);
    return NULL;
}

static void test_readers_and_writers_at_once(void **state)
{
    struct reader r[2] = {{0}, {0}};
    pthread_t writer[2];

    make_rings(2);
    for (unsigned i = 0; i < 2; i++) {
        test_cpu = i ? &cpu1 : &cpu0;
        trace_running(5 | 7 << 16);
        assert_int_equal(pthread_create(&writer[i], NULL, write_million, test_cpu), 0);
    }
    while (r[0].next + area->ring[0].lost < 1000000 || r[1].next + area->ring[1].lost < 1000000) {
        take_all(0, &r[0]);
        take_all(1, &r[1]);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(writer[i], NULL);
        take_all(i, &r[i]);
        assert_int_equal(r[i].taken + r[i].lost + area->ring[i].lost, 1000000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory_no_trace),
        cmocka_unit_test(test_xens_numbers),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_off_writes_nothing),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_full_ring_is_filled),
        cmocka_unit_test(test_lost_before_is_forgotten),
        cmocka_unit_test(test_claims_of_a_bad_reader),
        cmocka_unit_test(test_readers_and_writers_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
