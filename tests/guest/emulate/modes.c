#include "emulate.h"

extern uint8_t low_image[], low_start[], low_end[], leave64[], leave32[], leave16[];
extern void run_code(void);
extern uint64_t page_map[], page_directory_pointers[], page_directories[];

const char *const mode_names[MODES] = {"long", "compatibility 32", "compatibility 16", "PAE 32", "protected 32", "protected 16", "real", "big real"};

#define WINDOW 0x40000000ul /* its page directory entry gets a page table */

uint8_t scratch_page[4096] __attribute__((aligned(4096)));
static uint64_t window_table[512] __attribute__((aligned(4096)));
static uint64_t pae_pointers[4] __attribute__((aligned(4096)));
static uint64_t window_page;

/* Null, 64-bit code, data, 32-bit code, 16-bit code, test data for DS and ES, 16-bit data. */
enum { SEL_DS = 0x28, SEL_ES = 0x30 };
static uint64_t gdt[8] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00009b000000ffff, 0, 0, 0x000093000000ffff};

void modes_init(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) reg = {sizeof(gdt) - 1, (uintptr_t)gdt};
    memcpy(low_start, low_image, (size_t)(low_end - low_start));
    __asm__ volatile("lgdt %0" : : "m"(reg));
    for (unsigned i = 0; i < 4; i++)
        pae_pointers[i] = (uintptr_t)&page_directories[512 * i] | 1;
    page_directories[WINDOW >> 21] = (uintptr_t)window_table | 3;
    window_table[SCRATCH_OFFSET >> 12] = (uintptr_t)scratch_page | 3;
    STATE->cr3 = (uint32_t)(uintptr_t)page_map;
    STATE->pae_cr3 = (uint32_t)(uintptr_t)pae_pointers;
}

void window_to(uint64_t page)
{
    window_page = page;
    window_table[0] = page | 3;
    __asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)(uintptr_t)page_map) : "memory");
}

static bool paged(enum mode m)
{
    return m <= PAE32;
}

/* The effective address of the window's first byte. Addresses of 16 bits, and limits of 64 KiB, keep it at 0. */
uint64_t window_base(enum mode m, unsigned address_size)
{
    return address_size == 2 || m == REAL || m == PROT16 || m == COMPAT16 ? 0 : WINDOW;
}

/* A data descriptor: with 64 KiB and 16-bit in the modes that have such limits. */
static uint64_t data_segment(enum mode m, uint32_t base)
{
    bool small = m == REAL || m == PROT16 || m == COMPAT16;
    uint64_t d = small ? 0x000093000000ffff : 0x00cf93000000ffff;
    return d | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base >> 24) << 56;
}

void run_test(const struct test *t)
{
    static const uint8_t jump64[] = {0xff, 0x25, 0, 0, 0, 0};
    uint8_t *code = (uint8_t *)CODE_ADDRESS;
    uint32_t base = (uint32_t)window_base(t->mode, t->address_size), window, scratch;
    window = (paged(t->mode) ? (uint32_t)WINDOW : (uint32_t)window_page) - base;
    scratch = paged(t->mode) ? window : (uint32_t)(uintptr_t)scratch_page - SCRATCH_OFFSET - base;
    gdt[SEL_DS / 8] = data_segment(t->mode, t->from_scratch ? scratch : window);
    gdt[SEL_ES / 8] = data_segment(t->mode, t->to_scratch ? scratch : window);
    STATE->mode = t->mode;
    STATE->data = SEL_DS;
    STATE->extra = SEL_ES;
    for (unsigned i = 0; i < 16; i++)
        STATE->in[i] = t->gpr[i];
    STATE->in_flags = t->flags;
    memcpy(code, t->code, t->length);
    code += t->length;
    if (t->mode == LONG64) {
        uint64_t to = (uintptr_t)leave64;
        memcpy(code, jump64, 6);
        memcpy(code + 6, &to, 8);
    } else { /* a near jump of the mode's own size */
        bool small = t->mode == COMPAT16 || t->mode >= PROT16;
        uint32_t distance = (uint32_t)(uintptr_t)(small ? leave16 : leave32) - (uint32_t)(uintptr_t)code - (small ? 3 : 5);
        code[0] = 0xe9;
        memcpy(code + 1, &distance, 4);
    }
    run_code();
}
