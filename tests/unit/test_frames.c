/*
 * The frame allocator and the extents it is fed with (arch/x86/mm/frames.c, ranges.c), on memory of this process:
 * against a map of who owns each page, and against a bitmap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#define METRONOME_ASM_H /* no CLI in a process */
static inline uint64_t irq_save(void)
{
    return 0;
}
static inline void irq_restore(uint64_t flags)
{
    (void)flags;
}
static uint64_t direct_base;
#define DIRECT_BASE direct_base

#include "../../arch/x86/mm/ranges.c"
#include "../../arch/x86/mm/frames.c"

void panic(const char *format, ...)
{
    (void)format;
    fail_msg("panic");
    abort();
}

#define FRAMES 3000u
#define STEPS  100000u
#define SLOTS  200u

static struct {
    void *pages;
    unsigned order;
} slots[SLOTS];
static uint8_t owned[FRAMES * 2];

static void own(void *pages, unsigned order, bool taken)
{
    uint64_t first = ((uint64_t)pages - direct_base) >> PAGE_SHIFT;
    for (uint64_t f = first; f < first + (1ull << order); f++) {
        assert_int_equal(owned[f], !taken);
        owned[f] = taken;
    }
}

static void take_one(unsigned slot)
{
    unsigned order = (unsigned)(rand() % 4 ? rand() % 3 : rand() % 10);
    uint64_t left = free_page_count();
    char *p = alloc_pages(order);
    slots[slot].pages = p;
    slots[slot].order = order;
    if (!p) {
        assert_int_equal(free_page_count(), left);
        return;
    }
    assert_int_equal(free_page_count(), left - (1ull << order));
    assert_int_equal(((uint64_t)p - direct_base) & ((PAGE_SIZE << order) - 1), 0);
    for (size_t i = 0; i < PAGE_SIZE << order; i += 512)
        assert_int_equal(*(uint64_t *)(p + i), 0);
    memset(p, 0xa5, PAGE_SIZE << order);
    own(p, order, true);
}

static void give_one(unsigned slot)
{
    own(slots[slot].pages, slots[slot].order, false);
    free_pages(slots[slot].pages, slots[slot].order);
    slots[slot].pages = NULL;
}

static void test_frames(void **state)
{
    unsigned refused = 0;
    (void)state;
    char *memory = mmap(NULL, FRAMES * 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    direct_base = (uint64_t)memory;
    memset(memory, 0xff, FRAMES * 2 * PAGE_SIZE); /* RAM is not zero */
    frames_add(7 * PAGE_SIZE, FRAMES * PAGE_SIZE);
    frames_add((FRAMES + 100) * PAGE_SIZE, (FRAMES * 2 - 1) * PAGE_SIZE);
    frames_add(5 * PAGE_SIZE, 6 * PAGE_SIZE); /* too small for its own bookkeeping */
    uint64_t all = free_page_count();
    assert_int_equal(total_page_count(), all);
    assert_int_equal(all, FRAMES - 7 - 1 + FRAMES - 101 - 1);

    srand(2);
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned slot = (unsigned)rand() % SLOTS;
        if (slots[slot].pages)
            give_one(slot);
        else
            take_one(slot);
        refused += !slots[slot].pages;
    }
    for (unsigned slot = 0; slot < SLOTS; slot++)
        if (slots[slot].pages)
            give_one(slot);
    assert_int_equal(free_page_count(), all);
    assert_int_equal(total_page_count(), all);
    /* All joined again: of 4 MiB there are 1024 to 2047 and 4096 to 5119, and no more. */
    assert_null(alloc_pages(11));
    assert_non_null(alloc_pages(10));
    assert_non_null(alloc_pages(10));
    assert_null(alloc_pages(10));
    assert_null(alloc_pages(MAX_ORDER + 1));
    print_message("%u steps, %u of them gave back or got nothing\n", STEPS, refused);
}

#define SPAN 400u

static void test_extents(void **state)
{
    (void)state;
    srand(3);
    for (unsigned run = 0; run < 2000; run++) {
        struct extents s = {0};
        uint8_t wanted[SPAN] = {0}, got[SPAN] = {0};
        for (unsigned i = 0; i < 60; i++) {
            uint64_t from = (uint64_t)rand() % SPAN, to = from + (uint64_t)rand() % (SPAN - from);
            bool add = rand() % 2;
            assert_true(add ? extents_add(&s, from, to) : extents_remove(&s, from, to));
            memset(wanted + from, add, to - from);
        }
        for (unsigned i = 0; i < s.count; i++) {
            assert_true(s.e[i].base < s.e[i].end);
            for (uint64_t at = s.e[i].base; at < s.e[i].end; at++)
                assert_int_equal(got[at]++, 0);
        }
        assert_memory_equal(wanted, got, SPAN);
    }
}

static void test_extents_full(void **state)
{
    struct extents s = {0};
    (void)state;
    for (unsigned i = 0; i < MAX_EXTENTS; i++)
        assert_true(extents_add(&s, i * 10, i * 10 + 5));
    assert_false(extents_add(&s, 100000, 100001));
    assert_false(extents_remove(&s, 1, 2));
    assert_true(extents_remove(&s, 0, 5));
    assert_true(extents_remove(&s, 11, 12));
    assert_int_equal(s.count, MAX_EXTENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_extents_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
