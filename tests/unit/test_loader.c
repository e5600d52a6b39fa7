/*
 * The loader on images made here: what it puts where, and that no image, however damaged, makes it read or write outside.
 * Guest RAM is one heap block per 2 MiB page and images are heap blocks of their exact size, so ASan sees every slip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "loader/loader.h"
#include "acpi/tables.h"
#include "random.h"

#define MIB 0x100000ull
#define PAGE (2 * MIB)
#define MAX_PAGES 1024

static uint8_t *page[MAX_PAGES];
static struct loader_memory memory;
static struct loader_input input;
static struct loader_entry entry;
static bool hole; /* one page is missing */

static void *at(void *ctx, uint64_t gpa, uint64_t size)
{
    assert_ptr_equal(ctx, page);
    assert_true(size && gpa / PAGE == (gpa + size - 1) / PAGE);
    if (gpa + size > memory.ram_low || (hole && gpa / PAGE == 1))
        return NULL;
    if (!page[gpa / PAGE])
        page[gpa / PAGE] = memset(malloc(PAGE), 0xa5, PAGE);
    return page[gpa / PAGE] + gpa % PAGE;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < MAX_PAGES; i++) {
        free(page[i]);
        page[i] = NULL;
    }
    free((void *)input.image);
    input.image = NULL;
    return 0;
}

static int setup(void **state)
{
    memory = (struct loader_memory){page, at, 8 * MIB, 0, NULL};
    input = (struct loader_input){.vcpus = 2, .command_line = "one two=3"};
    hole = false;
    return 0;
}

static void use(const void *bytes, size_t n)
{
    free((void *)input.image);
    input.image = memcpy(malloc(n ? n : 1), bytes, n);
    input.image_size = n;
}

/* Reads guest memory; it may cross pages. */
static void guest(uint64_t gpa, void *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)to)[i] = *(uint8_t *)at(page, gpa + i, 1);
}

static uint64_t number(uint64_t gpa, unsigned size)
{
    uint64_t v = 0;
    guest(gpa, &v, size);
    return v;
}

static void put(uint8_t *image, size_t offset, unsigned size, uint64_t v)
{
    memcpy(image + offset, &v, size);
}

/* ---- Images. ---- */

#define IMAGE_BYTES 0x3000
static uint8_t image[IMAGE_BYTES];

static void fill(void)
{
    for (unsigned i = 0; i < IMAGE_BYTES; i++)
        image[i] = (uint8_t)(i * 7 + (i >> 8));
}

static void put_multiboot(unsigned offset, uint32_t flags)
{
    put(image, offset, 4, 0x1badb002);
    put(image, offset + 4, 4, flags);
    put(image, offset + 8, 4, -(0x1badb002 + flags));
}

/* Header at 0x40 of the file; loaded from 0x20 on at 0x200000, bss up to 0x210000. */
static void make_addresses(void)
{
    fill();
    put_multiboot(0x40, 0x10003);
    put(image, 0x4c, 4, 0x200020);
    put(image, 0x50, 4, 0x200000);
    put(image, 0x54, 4, 0x202000);
    put(image, 0x58, 4, 0x210000);
    put(image, 0x5c, 4, 0x200100);
    use(image, IMAGE_BYTES);
}

/* One segment of 0x2000 bytes at file offset 0x1000, virtual 3 GiB + 2 MiB, physical 2 MiB, 0x5000 in memory; a note in it. */
static void make_elf(bool is64, bool multiboot, bool note)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 0, 1, 1};
    unsigned ph = is64 ? 64 : 52, size = is64 ? 56 : 32, word = is64 ? 8 : 4;
    fill();
    memset(image, 0, 0x1000);
    memcpy(image, ident, sizeof(ident));
    image[4] = is64 ? 2 : 1;
    put(image, 16, 2, 2);
    put(image, 18, 2, is64 ? 62 : 3);
    put(image, 24, word, 0xc0200010);
    put(image, is64 ? 32 : 28, word, ph);
    put(image, is64 ? 54 : 42, 2, size);
    put(image, is64 ? 56 : 44, 2, note ? 2 : 1);
    for (unsigned i = 0; i < (note ? 2 : 1); i++, ph += size) {
        const uint64_t v[] = {i ? 0x1020 : 0x1000, i ? 0xc0200020 : 0xc0200000, i ? 0x200020 : 0x200000, i ? 0x40 : 0x2000, i ? 0x40 : 0x5000};
        put(image, ph, 4, i ? 4 : 1);
        for (unsigned f = 0; f < 5; f++)
            put(image, ph + (is64 ? 8 + 8 * f : 4 + 4 * f), word, v[f]);
    }
    if (note) {
        static const uint32_t notes[] = {4, 6, 99, 0x006e6558, 1, 2, 4, 8, 18, 0x006e6558, 0x200030, 0};
        memcpy(image + 0x1020, notes, sizeof(notes));
    }
    if (multiboot)
        put_multiboot(0x200, 3);
    use(image, IMAGE_BYTES);
}

static void make_linux(void)
{
    fill();
    memset(image, 0, 0x400);
    put(image, 0x1f1, 1, 1);
    put(image, 0x1fe, 2, 0xaa55);
    put(image, 0x200, 2, 0x66eb);
    put(image, 0x202, 4, 0x53726448);
    put(image, 0x206, 2, 0x20f);
    put(image, 0x211, 1, 1);
    put(image, 0x22c, 4, 0x7fffffff);
    put(image, 0x230, 4, 0x200000);
    put(image, 0x238, 4, 2047);
    put(image, 0x250, 8, 0xdead);
    put(image, 0x258, 8, 0x200000);
    put(image, 0x260, 4, 0x100000);
    use(image, IMAGE_BYTES);
}

static void make_multiboot32(void)
{
    make_elf(false, true, false);
}
static void make_multiboot64(void)
{
    make_elf(true, true, false);
}
static void make_pvh32(void)
{
    make_elf(false, false, true);
}
static void make_pvh64(void)
{
    make_elf(true, false, true);
}

static void (*const makers[])(void) = {make_addresses, make_multiboot32, make_multiboot64, make_pvh32, make_pvh64, make_linux};
#define MAKERS (sizeof(makers) / sizeof(makers[0]))

/* All parts of it. */
static const char *load_all(void)
{
    static struct loader l;
    const char *error = loader_begin(&l, &input, &memory);

    while (!error && loader_continue(&l, &error))
        ;
    entry = l.entry;
    return error;
}

static void load(void)
{
    const char *error = load_all();
    if (error)
        fail_msg("%s", error);
}

static void refused(const char *part)
{
    const char *error = load_all();
    if (!error || !strstr(error, part))
        fail_msg("expected an error with '%s', got '%s'", part, error ? error : "success");
}

static void assert_image(uint64_t gpa, size_t offset, size_t n)
{
    uint8_t got[IMAGE_BYTES];
    guest(gpa, got, n);
    assert_memory_equal(got, image + offset, n);
}

static void assert_zeros(uint64_t gpa, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(*(uint8_t *)at(page, gpa + i, 1), 0);
}

static void assert_string(uint64_t gpa, const char *s)
{
    char got[LOADER_COMMAND_LINE];
    guest(gpa, got, strlen(s) + 1);
    assert_string_equal(got, s);
}

/* ---- What goes where. ---- */

static void assert_multiboot_info(void)
{
    uint32_t info = entry.ebx, map;
    assert_int_equal(entry.eax, 0x2badb002);
    assert_int_equal(number(info, 4) & 0x45, 0x45);
    assert_int_equal(number(info + 4, 4), 640);
    assert_int_equal(number(info + 8, 4), (7 * MIB - 0x10000) / 1024);
    assert_string(number(info + 16, 4), "one two=3");
    assert_int_equal(number(info + 44, 4), 24 * 4);
    map = (uint32_t)number(info + 48, 4);
    static const uint64_t want[4][3] = {
        {0, 0xa0000, 1}, {0xa0000, 0x60000, 2}, {0x100000, 7 * MIB - 0x10000, 1}, {8 * MIB - 0x10000, 0x10000, 3}};
    for (unsigned i = 0; i < 4; i++, map += 24) {
        assert_int_equal(number(map, 4), 20);
        assert_int_equal(number(map + 4, 8), want[i][0]);
        assert_int_equal(number(map + 12, 8), want[i][1]);
        assert_int_equal(number(map + 20, 4), want[i][2]);
    }
}

static void test_multiboot_addresses(void **state)
{
    make_addresses();
    load();
    assert_int_equal(entry.eip, 0x200100);
    assert_image(0x200000, 0x20, 0x2000);
    assert_zeros(0x202000, 0xe000);
    assert_int_equal(number(0x210000, 1), 0xa5);
    assert_multiboot_info();
}

static void test_multiboot_elf(void **state)
{
    for (int is64 = 0; is64 < 2; is64++) {
        make_elf(is64, true, false);
        load();
        assert_int_equal(entry.eip, 0x200010);
        assert_image(0x200000, 0x1000, 0x2000);
        assert_zeros(0x202000, 0x3000);
        assert_multiboot_info();
    }
}

static void test_multiboot_module(void **state)
{
    uint32_t module;
    make_multiboot32();
    input.initrd = "hello";
    input.initrd_size = 5;
    load();
    assert_int_equal(number(entry.ebx + 20, 4), 1);
    module = (uint32_t)number(entry.ebx + 24, 4);
    assert_int_equal(number(module, 4), 8 * MIB - 0x11000);
    assert_int_equal(number(module + 4, 4), 8 * MIB - 0x11000 + 5);
    assert_string(number(module + 8, 4), "");
    assert_int_equal(number(8 * MIB - 0x11000, 4), 0x6c6c6568);
}

static void test_pvh(void **state)
{
    for (int is64 = 0; is64 < 2; is64++) {
        make_elf(is64, false, true);
        memory.ram_high = 64 * MIB;
        input.initrd = "hello";
        input.initrd_size = 5;
        load();
        assert_int_equal(entry.eip, 0x200030);
        assert_image(0x200000, 0x1000, 0x2000);
        uint32_t s = entry.ebx, module = (uint32_t)number(s + 16, 8), map = (uint32_t)number(s + 40, 8);
        assert_int_equal(number(s, 4), 0x336ec578);
        assert_int_equal(number(s + 4, 4), 1);
        assert_int_equal(number(s + 12, 4), 1);
        assert_string(number(s + 24, 8), "one two=3");
        assert_int_equal(number(s + 32, 8), 0xf0000);
        assert_int_equal(number(s + 48, 4), 5);
        assert_int_equal(number(module + 8, 8), 5);
        assert_memory_equal(at(page, number(module, 8), 5), "hello", 5);
        assert_int_equal(number(map + 4 * 24, 8), 1ull << 32);
        assert_int_equal(number(map + 4 * 24 + 8, 8), 64 * MIB);
        assert_int_equal(number(map + 4 * 24 + 16, 4), 1);
    }
}

static void test_linux(void **state)
{
    uint32_t bp;
    make_linux();
    input.initrd = "hello";
    input.initrd_size = 5;
    load();
    bp = entry.esi;
    assert_int_equal(entry.eip, 0x100000);
    assert_image(0x100000, 0x400, IMAGE_BYTES - 0x400);
    assert_int_equal(number(bp + 0x202, 4), 0x53726448);
    assert_int_equal(number(bp + 0x210, 1), 0xff);
    assert_int_equal(number(bp + 0x250, 8), 0);
    assert_int_equal(number(bp + 0x70, 8), 0xf0000);
    assert_string(number(bp + 0x228, 4), "one two=3");
    assert_int_equal(number(bp + 0x218, 4), 8 * MIB - 0x11000);
    assert_int_equal(number(bp + 0x21c, 4), 5);
    assert_int_equal(number(bp + 0x1e8, 1), 4);
    assert_int_equal(number(bp + 0x2d0 + 40, 8), 0x100000);
    assert_int_equal(number(bp + 0x2d0 + 56, 4), 1);
}

static void test_linux_initrd_respects_its_limit(void **state)
{
    make_linux();
    put((uint8_t *)input.image, 0x22c, 4, 0x3fffff);
    input.initrd = "hello";
    input.initrd_size = 5;
    load();
    assert_int_equal(number(entry.esi + 0x218, 4), 0x3ff000);
    put((uint8_t *)input.image, 0x22c, 4, 0x2fffff);
    refused("RAM disk");
}

static void test_linux_refusals(void **state)
{
    make_linux();
    put((uint8_t *)input.image, 0x206, 2, 0x209);
    refused("too old");
    make_linux();
    put((uint8_t *)input.image, 0x211, 1, 0);
    refused("zImage");
    make_linux();
    put((uint8_t *)input.image, 0x260, 4, 7 * MIB);
    refused("does not fit");
    make_linux();
    put((uint8_t *)input.image, 0x238, 4, 8);
    refused("command line");
    make_linux();
    input.image_size = 0x400;
    refused("truncated");
    input.image_size = 0x250;
    refused("truncated");
}

static void test_entry_state(void **state)
{
    for (unsigned i = 0; i < MAKERS; i++) {
        makers[i]();
        load();
        assert_int_equal(entry.gdt_limit, 31);
        assert_int_equal(number(entry.gdt + LOADER_CS, 8), 0x00cf9b000000ffff);
        assert_int_equal(number(entry.gdt + LOADER_DS, 8), 0x00cf93000000ffff);
        assert_int_equal(entry.esp, 0x80000);
    }
}

static void test_refusals(void **state)
{
    char line[LOADER_COMMAND_LINE + 1];
    use("junk", 4);
    refused("not a bootable image");
    use("", 0);
    refused("empty");
    make_elf(true, false, false);
    refused("not a bootable image");
    make_multiboot32();
    memory.ram_low = 2 * MIB;
    refused("4 MiB");
    memory.ram_low = 8 * MIB + 4096;
    refused("2 MiB");
    memory.ram_low = 4 * MIB;
    load();
    hole = true;
    refused("memory");
    hole = false;
    memory.ram_low = 8 * MIB;
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = 0;
    input.command_line = line;
    refused("2047");
    line[2047] = 0;
    load();
    input.command_line = NULL;
    load();
    assert_string(number(entry.ebx + 16, 4), "");
    input.vcpus = 100000;
    refused("vCPUs");
    input.vcpus = 1;
    input.initrd = line;
    input.initrd_size = 9 * MIB;
    refused("RAM disk");
    put((uint8_t *)input.image, 0x204, 4, 7);
    put((uint8_t *)input.image, 0x208, 4, -(0x1badb002 + 7));
    refused("feature");
}

static void test_segments_outside(void **state)
{
    static const uint64_t bad[] = {0x7f000, 0x90000, 0xa0000, 0xfffff, 8 * MIB - 0x10000 - 0x4fff, 8 * MIB, 1ull << 32, UINT64_MAX - 0x1000, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        make_multiboot64();
        put((uint8_t *)input.image, 64 + 24, 8, bad[i]);
        refused("does not fit");
    }
    make_multiboot64();
    put((uint8_t *)input.image, 64 + 40, 8, 0x1fff);
    refused("larger in the file");
    make_multiboot64();
    put((uint8_t *)input.image, 64 + 8, 8, 0x1001);
    refused("truncated");
    make_multiboot64();
    put((uint8_t *)input.image, 24, 8, 0xc0205000);
    refused("entry point");
}

/* ---- ACPI. ---- */

static uint64_t table(const char *signature)
{
    uint64_t xsdt = number(0xf0000 + 24, 8), n = (number(xsdt + 4, 4) - 36) / 8;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t t = number(xsdt + 36 + 8 * i, 8);
        char s[4];
        guest(t, s, 4);
        if (!memcmp(s, signature, 4))
            return t;
    }
    fail_msg("no table %s", signature);
    return 0;
}

static unsigned sum(uint64_t gpa, uint64_t n)
{
    uint8_t s = 0;
    for (uint64_t i = 0; i < n; i++)
        s += (uint8_t)number(gpa + i, 1);
    return s;
}

static void test_acpi(void **state)
{
    uint64_t fadt, madt, dsdt, o;
    unsigned cpus = 0;
    make_linux();
    input.vcpus = 64;
    load();
    assert_int_equal(number(0xf0000, 8), 0x2052545020445352);
    assert_int_equal(sum(0xf0000, 20), 0);
    assert_int_equal(sum(0xf0000, 36), 0);
    fadt = table("FACP");
    madt = table("APIC");
    dsdt = number(fadt + 140, 8);
    const uint64_t all[] = {number(0xf0000 + 24, 8), fadt, madt, table("HPET"), dsdt};
    for (unsigned i = 0; i < 5; i++) {
        assert_true(all[i] >= 8 * MIB - 0x10000 && all[i] + number(all[i] + 4, 4) <= 8 * MIB);
        assert_int_equal(sum(all[i], number(all[i] + 4, 4)), 0);
    }
    assert_int_equal(number(dsdt, 4), 0x54445344);
    assert_int_equal(number(fadt + 46, 2), 9);
    assert_int_equal(number(fadt + 56, 4), 0x600);
    assert_int_equal(number(fadt + 64, 4), 0x604);
    assert_int_equal(number(fadt + 76, 4), 0x608);
    assert_int_equal(number(fadt + 36, 4) % 64, 0);
    assert_int_equal(number(table("HPET") + 44, 8), 0xfed00000);
    for (o = 44; o < number(madt + 4, 4); o += number(madt + o + 1, 1))
        cpus += number(madt + o, 1) == 0;
    assert_int_equal(o, number(madt + 4, 4));
    assert_int_equal(cpus, 64);
}

static void test_acpi_area_too_small(void **state)
{
    uint8_t rsdp[ACPI_RSDP_BYTES];
    for (unsigned n = 0; n < 4096; n += 7) {
        uint8_t *area = malloc(n ? n : 1);
        bool done = acpi_build(area, n, 0x1000, 4, rsdp, NULL);
        assert_true(done ? n > 700 : n < 3000);
        free(area);
    }
}

/* ---- Hostile images. ---- */

/* Damages a few bytes, mostly where the format's own fields are, or cuts the image off. */
static void mutate(void)
{
    static const uint64_t nasty[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, 0x200000, 0x7f0000, 0x800000};
    uint8_t *p = (uint8_t *)input.image;
    for (unsigned n = 1 + random64() % 4; n; n--) {
        static const uint32_t range[] = {0x80, 0x100, 0x300, 0x1100, IMAGE_BYTES};
        uint32_t o = random64() % range[random64() % 5], size = 1u << random64() % 4;
        if (o + size > IMAGE_BYTES)
            continue;
        uint64_t v = random64() & 1 ? nasty[random64() % 13] : random64();
        put(p, o, size, v);
    }
    if (random64() % 8 == 0)
        use(memcpy(image, p, IMAGE_BYTES), random64() % (IMAGE_BYTES + 1));
}

static void test_hostile_images(void **state)
{
    unsigned loaded = 0, refusals = 0;
    input.initrd = image;
    for (unsigned i = 0; i < 60000; i++) {
        makers[i % MAKERS]();
        mutate();
        input.initrd_size = random64() % 16 ? IMAGE_BYTES : 0;
        if (load_all()) {
            refusals++;
            continue;
        }
        loaded++;
        assert_true(entry.eip < 8 * MIB);
    }
    print_message("hostile images: %u refused, %u loaded\n", refusals, loaded);
    assert_true(refusals > 1000 && loaded > 1000);
}

static void test_every_truncation(void **state)
{
    for (unsigned m = 0; m < MAKERS; m++) {
        makers[m]();
        for (unsigned n = IMAGE_BYTES; n > 0; n -= n > 0x1100 ? 0x101 : 1) {
            use(image, n - 1);
            load_all();
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_multiboot_addresses),
        TEST(test_multiboot_elf),
        TEST(test_multiboot_module),
        TEST(test_pvh),
        TEST(test_linux),
        TEST(test_linux_initrd_respects_its_limit),
        TEST(test_linux_refusals),
        TEST(test_entry_state),
        TEST(test_refusals),
        TEST(test_segments_outside),
        TEST(test_acpi),
        TEST(test_acpi_area_too_small),
        TEST(test_hostile_images),
        TEST(test_every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
