/*
 * W^X, verified on the tables in use: nothing is writable and executable, only the text is executable, and no writable
 * mapping of any address reaches the frames of text and read-only data.
 */
#include "internal.h"
#include "console.h"
#include "selftest.h"
#include "../boot/layout.h"

struct totals {
    uint64_t executable, writable, readonly;
};

static void check_leaf(uint64_t va, uint64_t pte, uint64_t size, void *argument)
{
    struct totals *t = argument;
    uint64_t pa = pte & PTE_ADDRESS & ~(size - 1), text = (uint64_t)__text_start - IMAGE_OFFSET;
    uint64_t text_end = (uint64_t)__text_end - IMAGE_OFFSET, rodata_end = (uint64_t)__rodata_end - IMAGE_OFFSET;
    bool writable = pte & PTE_W, executable = !(pte & PTE_NX);

    if (writable && executable)
        panic("W^X: %#llx is writable and executable", (unsigned long long)va);
    if (executable && (pa < text || pa + size > text_end))
        panic("W^X: %#llx is executable and not text", (unsigned long long)va);
    if (writable && pa < rodata_end && pa + size > text)
        panic("W^X: %#llx maps the image writable", (unsigned long long)va);
    *(executable ? &t->executable : writable ? &t->writable : &t->readonly) += size;
}

void mm_map_writable_code(void)
{
    paging_map(WINDOW_BASE + WINDOW_SIZE - PAGE_SIZE, (uint64_t)__text_start - IMAGE_OFFSET, PAGE_SIZE, PTE_W | PTE_NX);
}

void mm_check_wx(void)
{
    struct totals t = {0};
    paging_walk(check_leaf, &t);
    log_info("W^X checked: %llu KiB executable, %llu KiB read-only, %llu KiB writable\n",
             (unsigned long long)t.executable >> 10, (unsigned long long)t.readonly >> 10,
             (unsigned long long)t.writable >> 10);
}
