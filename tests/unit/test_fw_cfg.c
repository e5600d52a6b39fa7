/*
 * fw_cfg as firmware drives it, and as a hostile guest does; e820 and CMOS RAM for several memory sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "firmware/fw_cfg.h"
#include "firmware/platform.h"

#define PAGE 4096u
#define PAGES 4u
#define BASE 0x10000u /* guest memory: four pages from here, of which the third is absent */
#define HOLE 2u

static uint8_t memory[PAGES * PAGE];
static struct fw_cfg cfg;
static struct e820_entry e820[E820_MAX];
static uint8_t blob[300];

static void *lookup(void *context, uint64_t address, uint64_t *bytes)
{
    uint64_t at = address - BASE;

    assert_ptr_equal(context, memory);
    if (address < BASE || at >= sizeof memory || at / PAGE == HOLE)
        return NULL;
    if (*bytes > PAGE - at % PAGE)
        *bytes = PAGE - at % PAGE;
    return memory + at;
}

static int fresh(void **state)
{
    struct platform p = {.ram_low = 3ull << 30, .ram_high = 1ull << 30, .vcpus = 3, .boot_menu_wait_ms = 1234};

    (void)state;
    for (unsigned i = 0; i < sizeof blob; i++)
        blob[i] = (uint8_t)(i * 7);
    memset(memory, 0xcc, sizeof memory);
    fw_cfg_init(&cfg, lookup, memory);
    assert_true(platform_items(&cfg, &p, e820));
    assert_true(fw_cfg_add_file(&cfg, "opt/blob", blob, sizeof blob));
    return 0;
}

static void select_key(uint16_t key)
{
    fw_cfg_write(&cfg, 0, 2, key);
}

static uint64_t number(uint16_t key, unsigned bytes)
{
    uint64_t value = 0;

    select_key(key);
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)fw_cfg_read(&cfg, 1, 1) << 8 * i;
    return value;
}

static void put_be(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static uint64_t get_be(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static uint16_t key_of(const char *name, uint32_t *bytes)
{
    uint8_t entry[64];
    uint64_t files;

    select_key(FW_CFG_FILE_DIR);
    for (unsigned i = 0; i < 4; i++)
        entry[i] = (uint8_t)fw_cfg_read(&cfg, 1, 1);
    files = get_be(entry, 4);
    for (uint64_t f = 0; f < files; f++) {
        for (unsigned i = 0; i < sizeof entry; i++)
            entry[i] = (uint8_t)fw_cfg_read(&cfg, 0, 1);
        if (!strcmp((char *)entry + 8, name)) {
            *bytes = (uint32_t)get_be(entry, 4);
            return (uint16_t)get_be(entry + 4, 2);
        }
    }
    return FW_CFG_NONE;
}

/* Runs a descriptor placed at `at`; the control word that comes back. */
static uint32_t dma_at(uint64_t at, uint32_t control, uint32_t length, uint64_t address)
{
    uint8_t descriptor[16], back[4];

    put_be(descriptor, control, 4);
    put_be(descriptor + 4, length, 4);
    put_be(descriptor + 8, address, 8);
    memcpy(memory + (at - BASE), descriptor, sizeof descriptor);
    fw_cfg_write(&cfg, 4, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    fw_cfg_write(&cfg, 8, 4, __builtin_bswap32((uint32_t)at));
    memcpy(back, memory + (at - BASE), sizeof back);
    return (uint32_t)get_be(back, 4);
}

static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    return dma_at(BASE, control, length, address);
}

#define ERROR 1u
#define READ 2u
#define SKIP 4u
#define SELECT(key) (8u | (uint32_t)(key) << 16)
#define WRITE 16u

static void items_read_as_seabios_reads_them(void **state)
{
    uint32_t bytes;

    (void)state;
    assert_int_equal(number(FW_CFG_SIGNATURE, 4), 0x554d4551);
    assert_int_equal(number(FW_CFG_ID, 4), 3);
    assert_int_equal(number(FW_CFG_RAM_SIZE, 8), 4ull << 30);
    assert_int_equal(number(FW_CFG_NB_CPUS, 2), 3);
    assert_int_equal(number(FW_CFG_MAX_CPUS, 2), 3);
    assert_int_equal(number(FW_CFG_BOOT_MENU, 2), 1);
    assert_int_equal(number(FW_CFG_IRQ0_OVERRIDE, 1), 1);
    assert_int_equal(number(key_of("etc/boot-menu-wait", &bytes), 4), 1234);
    assert_int_equal(bytes, 4);
}

static void absent_items_read_zero(void **state)
{
    static const uint16_t absent[] = {0x0d, 0x8000, 0x8001, 0x1234, FW_CFG_NONE, FW_CFG_FILE_FIRST + 90};

    (void)state;
    for (unsigned i = 0; i < sizeof absent / sizeof absent[0]; i++)
        assert_int_equal(number(absent[i], 8), 0);
    assert_int_equal(number(FW_CFG_NB_CPUS, 8), 3); /* past the end too */
}

static void e820_tells_both_halves(void **state)
{
    uint32_t bytes;
    struct e820_entry got[2];

    (void)state;
    select_key(key_of("etc/e820", &bytes));
    assert_int_equal(bytes, sizeof got);
    for (unsigned i = 0; i < bytes; i++)
        ((uint8_t *)got)[i] = (uint8_t)fw_cfg_read(&cfg, 1, 1);
    assert_int_equal(got[0].bytes, 3ull << 30);
    assert_int_equal(got[1].address, 4ull << 30);
    assert_int_equal(got[1].bytes, 1ull << 30);
    assert_int_equal(got[1].type, 1);
}

static void files_replace_and_overflow(void **state)
{
    uint32_t bytes;
    uint16_t key = key_of("opt/blob", &bytes);
    char name[FW_CFG_NAME_BYTES + 1];

    (void)state;
    assert_true(fw_cfg_add_file(&cfg, "opt/blob", blob, 10));
    assert_int_equal(key_of("opt/blob", &bytes), key);
    assert_int_equal(bytes, 10);
    memset(name, 'x', FW_CFG_NAME_BYTES);
    name[FW_CFG_NAME_BYTES] = 0;
    assert_false(fw_cfg_add_file(&cfg, name, blob, 1));
    name[FW_CFG_NAME_BYTES - 1] = 0;
    assert_true(fw_cfg_add_file(&cfg, name, blob, 1));
    assert_false(fw_cfg_add_file(&cfg, "", blob, 1));
    for (unsigned i = 0; i < FW_CFG_MAX_ITEMS; i++) {
        snprintf(name, sizeof name, "f%u", i);
        fw_cfg_add_file(&cfg, name, blob, i);
    }
    assert_int_equal(cfg.count, FW_CFG_MAX_ITEMS);
    assert_false(fw_cfg_add(&cfg, 0x999, blob, 1));
    for (unsigned i = 0; i < 2 * FW_CFG_POOL_BYTES; i++)
        fw_cfg_add_number(&cfg, FW_CFG_ID, 1, 1);
    assert_int_equal(cfg.pool_used, FW_CFG_POOL_BYTES);
}

static void dma_reads_skips_and_selects(void **state)
{
    uint32_t bytes;
    uint16_t key = key_of("opt/blob", &bytes);
    const uint64_t target = BASE + PAGE - 20; /* crosses a page */

    (void)state;
    assert_int_equal(dma(SELECT(key) | SKIP, 5, 0), 0);
    assert_int_equal(dma(READ, 100, target), 0);
    assert_memory_equal(memory + (target - BASE), blob + 5, 100);
    assert_int_equal(fw_cfg_read(&cfg, 1, 1), blob[105]);
    assert_int_equal(dma(READ, 300, target), 0); /* 194 are left: the rest is zeros */
    assert_memory_equal(memory + (target - BASE), blob + 106, 194);
    assert_int_equal(memory[target - BASE + 194], 0);
    assert_int_equal(memory[target - BASE + 299], 0);
    assert_int_equal(memory[target - BASE + 300], 0xcc);
    assert_int_equal(dma(SELECT(key) | SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(fw_cfg_read(&cfg, 1, 1), 0);
    assert_int_equal(dma(READ, 0, 0), 0);
}

static void dma_write_is_refused(void **state)
{
    uint8_t before[sizeof blob];
    uint32_t bytes;

    (void)state;
    memcpy(before, blob, sizeof blob);
    assert_int_equal(dma(SELECT(key_of("opt/blob", &bytes)) | WRITE, 16, BASE + 64), ERROR);
    assert_memory_equal(blob, before, sizeof blob);
}

static void dma_target_outside_memory(void **state)
{
    static const uint64_t bad[] = {0,
                                   BASE - 1,
                                   BASE + HOLE * PAGE,
                                   BASE + HOLE * PAGE - 1,
                                   BASE + PAGES * PAGE - 1,
                                   UINT64_MAX,
                                   UINT64_MAX - 50,
                                   1ull << 63,
                                   0xffffffff};
    uint32_t bytes;
    uint16_t key = key_of("opt/blob", &bytes);

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(dma(SELECT(key) | READ, 100, bad[i]), ERROR);
    assert_int_equal(number(FW_CFG_ID, 4), 3);
}

/* There is nowhere to report an error: nothing happens. */
static void dma_descriptor_outside_memory(void **state)
{
    static const uint64_t bad[] = {0,          BASE - 8,        BASE + HOLE * PAGE, BASE + HOLE * PAGE - 8,
                                   UINT64_MAX, UINT64_MAX - 15, 1ull << 40};
    uint8_t before[sizeof memory];

    (void)state;
    memcpy(before, memory, sizeof memory);
    select_key(FW_CFG_SIGNATURE);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fw_cfg_write(&cfg, 4, 4, __builtin_bswap32((uint32_t)(bad[i] >> 32)));
        fw_cfg_write(&cfg, 8, 4, __builtin_bswap32((uint32_t)bad[i]));
    }
    assert_memory_equal(memory, before, sizeof memory);
    assert_int_equal(fw_cfg_read(&cfg, 1, 1), 'Q');
}

static void dma_over_its_own_descriptor(void **state)
{
    uint32_t bytes;

    (void)state;
    assert_int_equal(dma(SELECT(key_of("opt/blob", &bytes)) | READ, 64, BASE), 0);
    assert_memory_equal(memory + 4, blob + 4, 60);
}

static void dma_endless_read(void **state)
{
    (void)state;
    assert_int_equal(dma(SELECT(FW_CFG_SIGNATURE) | READ, UINT32_MAX, BASE + 64), ERROR);
    assert_int_equal(memory[64], 0xcc);
}

/* The high half holds for one descriptor only, as in QEMU. */
static void the_high_half_is_used_once(void **state)
{
    (void)state;
    fw_cfg_write(&cfg, 4, 4, __builtin_bswap32(5));
    fw_cfg_write(&cfg, 8, 4, __builtin_bswap32(BASE));
    put_be(memory, SELECT(FW_CFG_SIGNATURE) | READ, 4);
    put_be(memory + 4, 4, 4);
    put_be(memory + 8, BASE + 64, 8);
    fw_cfg_write(&cfg, 8, 4, __builtin_bswap32(BASE));
    assert_memory_equal(memory + 64, "QEMU", 4);
}

static void dma_signature(void **state)
{
    (void)state;
    assert_int_equal(fw_cfg_read(&cfg, 4, 4), 0x554d4551);
    assert_int_equal(fw_cfg_read(&cfg, 8, 4), 0x47464320);
    assert_int_equal(fw_cfg_read(&cfg, 11, 1), 'G');
    assert_int_equal(fw_cfg_read(&cfg, 6, 2), 'M' | 'U' << 8);
}

static void odd_accesses(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, UINT32_MAX};

    (void)state;
    select_key(FW_CFG_SIGNATURE);
    for (unsigned offset = 0; offset < 20; offset++)
        for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            bool data = offset < 2 && sizes[i] == 1;
            bool signature = offset >= 4 && offset + sizes[i] <= 12 &&
                             (sizes[i] == 1 || sizes[i] == 2 || sizes[i] == 4) && offset % sizes[i] == 0;
            if (!data && !signature)
                assert_int_equal(fw_cfg_read(&cfg, offset, sizes[i]), UINT32_MAX);
            if (!(offset == 0 && sizes[i] == 2) && !(offset == 8 && sizes[i] == 4))
                fw_cfg_write(&cfg, offset, sizes[i], 0x01010101);
        }
    assert_int_equal(fw_cfg_read(&cfg, 0, 1), 'Q');
}

static void random_guests_do_no_harm(void **state)
{
    (void)state;
    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned offset = (unsigned)rand() % 14, size = 1u << rand() % 4;
        uint32_t value = rand() % 4 ? __builtin_bswap32(BASE + (uint32_t)rand() % sizeof memory) : (uint32_t)rand();
        if (rand() % 8 == 0)
            memory[(unsigned)rand() % sizeof memory] = (uint8_t)rand();
        if (rand() % 2)
            fw_cfg_write(&cfg, offset, size, offset == 4 && rand() % 4 ? 0 : value);
        else
            fw_cfg_read(&cfg, offset, size);
    }
    assert_int_equal(number(FW_CFG_SIGNATURE, 4), 0x554d4551);
}

/* ---- CMOS ---- */

static unsigned word(const uint8_t *cmos, unsigned at)
{
    return cmos[at] | cmos[at + 1] << 8;
}

static void cmos_memory_sizes(void **state)
{
    static const struct {
        uint64_t low, high;
        unsigned kib, blocks, high_blocks;
    } cases[] = {
        {2 << 20, 0, 1024, 0, 0},
        {16 << 20, 0, 15360, 0, 0},
        {256 << 20, 0, 0xffff, 3840, 0},
        {3ull << 30, 0, 0xffff, 48896, 0},
        {3ull << 30, 5ull << 30, 0xffff, 48896, 81920},
    };
    uint8_t cmos[256];

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct platform p = {.ram_low = cases[i].low, .ram_high = cases[i].high, .vcpus = 4};
        cmos_fill(cmos, &p);
        assert_int_equal(word(cmos, 0x15), 640);
        assert_int_equal(word(cmos, 0x17), cases[i].kib);
        assert_int_equal(word(cmos, 0x30), cases[i].kib);
        assert_int_equal(word(cmos, 0x34), cases[i].blocks);
        assert_int_equal(word(cmos, 0x5b) | cmos[0x5d] << 16, cases[i].high_blocks);
        assert_int_equal(cmos[0x5f], 3);
    }
}

static void cmos_devices(void **state)
{
    struct platform p = {.ram_low = 64 << 20,
                         .vcpus = 1,
                         .boot_order = "dna",
                         .floppies = {FLOPPY_1440K, FLOPPY_2880K},
                         .ide_sectors = {1 << 20, 0, 1 << 24, 2000}};
    uint8_t cmos[256];
    unsigned sum = 0;

    (void)state;
    cmos_fill(cmos, &p);
    assert_int_equal(cmos[0x10], 0x45);
    assert_int_equal(cmos[0x14], 0x47);
    assert_int_equal(cmos[0x3d], 0x43);
    assert_int_equal(cmos[0x38], 0x11);
    assert_int_equal(cmos[0x39], 2 | 1 << 4);
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += cmos[i];
    assert_int_equal(cmos[0x2e] << 8 | cmos[0x2f], sum);
    p.boot_order = "";
    p.floppies[0] = p.floppies[1] = FLOPPY_NONE;
    cmos_fill(cmos, &p);
    assert_int_equal(cmos[0x3d], 0);
    assert_int_equal(cmos[0x14], 0x06);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(items_read_as_seabios_reads_them, fresh),
        cmocka_unit_test_setup(absent_items_read_zero, fresh),
        cmocka_unit_test_setup(e820_tells_both_halves, fresh),
        cmocka_unit_test_setup(files_replace_and_overflow, fresh),
        cmocka_unit_test_setup(dma_reads_skips_and_selects, fresh),
        cmocka_unit_test_setup(dma_write_is_refused, fresh),
        cmocka_unit_test_setup(dma_target_outside_memory, fresh),
        cmocka_unit_test_setup(dma_descriptor_outside_memory, fresh),
        cmocka_unit_test_setup(dma_over_its_own_descriptor, fresh),
        cmocka_unit_test_setup(dma_endless_read, fresh),
        cmocka_unit_test_setup(the_high_half_is_used_once, fresh),
        cmocka_unit_test_setup(dma_signature, fresh),
        cmocka_unit_test_setup(odd_accesses, fresh),
        cmocka_unit_test_setup(random_guests_do_no_harm, fresh),
        cmocka_unit_test(cmos_memory_sizes),
        cmocka_unit_test(cmos_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
