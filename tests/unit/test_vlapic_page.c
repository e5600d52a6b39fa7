/*
 * The APIC's page over RAM: its own vCPU reaches the APIC there, every other one the RAM. The whole core, with a CPU that
 * walks the nested tables it is given as hardware does.
 */
#include "fabric_machine.h"

#include <pthread.h>
#include <setjmp.h>
#include <cmocka.h>

char *strstr(const char *text, const char *word); /* the hypervisor's string.h has none */

#define PAGE 0x203000u /* the RAM under the APIC, inside a 2 MiB page */
#define BASE(gpa) ((gpa) | APIC_BASE_EN | APIC_BASE_BSP)
#define HOLE 0xd0000000u /* where the device model maps RAM */
#define TABLES 0x300000u /* of the guest */

static struct domain *d;
static struct vcpu *owner, *other;
static unsigned flushes;

static void violated(const char *what, const char *condition)
{
    print_error("%s: %s\n", what, condition);
    fail();
}

static uint8_t *arena(uint64_t offset)
{
    return domain_arena(d, offset, PAGE_SIZE);
}

/* What the vendor's part does with translations at each entry. */
static void enter_tables(struct vcpu *v)
{
    v->state = VCPU_IN_GUEST;
    if (v->p2m_generation == v->domain->p2m.generation)
        return;
    v->vendor->root = vcpu_new_root(v);
    flushes++;
}

/* A bit for each page that was written, with large ones split first. */
static uint64_t take_dirty(uint64_t gpa, unsigned pages)
{
    uint64_t written = 0;
    unsigned n;

    while (!(n = p2m_take_dirty(&d->p2m, gpa, pages, &written)))
        ;
    assert_int_equal(n, pages);
    return written;
}

/* What the vCPU's own accesses to an address reach: memory, or NULL: they exit. `write` sets the D bit. */
static uint8_t *reaches(struct vcpu *v, uint64_t gpa, bool write)
{
    uint64_t *e, inside;

    enter_tables(v);
    e = mapped(v->vendor->root, gpa);
    if (!e || (write && !(*e & P2M_WRITABLE)))
        return NULL;
    *e |= P2M_ACCESSED | (write ? P2M_DIRTY : 0);
    inside = gpa & (*e & P2M_LARGE ? LARGE_PAGE_SIZE - 1 : PAGE_SIZE - 1);
    return d->slot->memory + ((*e & P2M_ADDRESS) - d->slot->physical) + inside;
}

static uint64_t read_at(struct vcpu *v, uint64_t gpa)
{
    const uint8_t *host = reaches(v, gpa, false);

    if (host)
        return *(const uint32_t *)host;
    at(v, AT_MMIO);
    v->emu.regs.gpr[EMU_RSI] = gpa;
    assert_int_equal(exit_npf(v, gpa, false, false, true), EXIT_RESUME);
    return (uint32_t)*rax(v);
}

static void write_at(struct vcpu *v, uint64_t gpa, uint32_t value)
{
    uint8_t *host = reaches(v, gpa, true);

    if (host) {
        *(uint32_t *)host = value;
        return;
    }
    at(v, AT_MMIO + 1);
    *rax(v) = value;
    v->emu.regs.gpr[EMU_RDI] = gpa;
    assert_int_equal(exit_npf(v, gpa, true, false, true), EXIT_RESUME);
}

static void move(struct vcpu *v, uint64_t base)
{
    assert_true(msr_write(v, MSR_APIC_BASE, base));
}

static void begin(void)
{
    boot_once();
    if (twins[0].slot->domain) /* of a test that failed */
        destroy(twins[0].slot);
    create_twin(&twins[0], 2, true);
    d = domain_of(&twins[0]);
    owner = d->vcpu[0];
    other = d->vcpu[1];
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        ((uint32_t *)arena(PAGE))[i] = 0xabcd0000 + i;
    flushes = 0;
}

static void finish(void)
{
    for (unsigned i = 0; i < d->vcpus; i++)
        d->vcpu[i]->state = VCPU_RUNNABLE;
    destroy(twins[0].slot);
    assert_int_equal(pages_out, 1);
}

/* `hidden`: the one page of all RAM that this vCPU must not reach; 0: it reaches all. */
static void expect_ram(struct vcpu *v, uint64_t hidden)
{
    for (uint64_t gpa = 0; gpa < RAM; gpa += PAGE_SIZE) {
        bool ram = (gpa < 0xa0000 || gpa >= 0xc0000) && (!hidden || gpa != hidden);

        assert_ptr_equal(reaches(v, gpa, false), ram ? arena(gpa) : NULL);
    }
}

static void test_apic_over_ram(void **state)
{
    (void)state;
    begin();
    expect_ram(owner, 0);
    move(owner, BASE(PAGE));
    expect_ram(owner, PAGE);
    expect_ram(other, 0);
    assert_int_equal(read_at(owner, PAGE + 0x20), 0);
    assert_int_equal(read_at(owner, PAGE + 0x30) & 0xff, 0x14);
    write_at(owner, PAGE + 0x80, 0x70);
    assert_int_equal(read_at(owner, PAGE + 0x80), 0x70);
    assert_int_equal(read_at(other, PAGE + 0x80), 0xabcd0020);
    write_at(other, PAGE + 0x80, 0x12345678);
    assert_int_equal(read_at(other, 0xfee00080), 0); /* its own APIC is where it was */
    assert_int_equal(read_at(owner, PAGE + 0x80), 0x70);
    /* The emulator's accesses, and those for the other vCPU. */
    assert_null(emulator_ops.ram_page(owner, PAGE, false));
    assert_ptr_equal(emulator_ops.ram_page(other, PAGE, true), arena(PAGE));
    move(owner, BASE(0xfee00000));
    expect_ram(owner, 0);
    assert_int_equal(read_at(owner, PAGE + 0x80), 0x12345678);
    assert_int_equal(read_at(owner, PAGE + 0x30), 0xabcd000c); /* nothing of the APIC is in it */
    assert_int_equal(read_at(owner, 0xfee00080), 0x70);
    finish();
}

/* Each of several vCPUs has its own place, or the same. */
static void test_each_cpu_has_its_own_page(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    move(other, PAGE | APIC_BASE_EN);
    assert_int_equal(read_at(owner, PAGE + 0x20) >> 24, 0);
    assert_int_equal(read_at(other, PAGE + 0x20) >> 24, 1);
    move(other, 0x5000 | APIC_BASE_EN);
    expect_ram(owner, PAGE);
    expect_ram(other, 0x5000);
    assert_int_equal(read_at(other, 0x5020) >> 24, 1);
    move(owner, BASE(0x6000)); /* away from there, in the same 2 MiB as the other */
    expect_ram(owner, 0x6000);
    expect_ram(other, 0x5000);
    finish();
}

static void test_disabled_or_x2apic_shows_the_ram(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    expect_ram(owner, PAGE);
    move(owner, PAGE | APIC_BASE_BSP);
    expect_ram(owner, 0);
    move(owner, BASE(PAGE));
    expect_ram(owner, PAGE);
    move(owner, BASE(PAGE) | APIC_BASE_EXTD);
    expect_ram(owner, 0);
    assert_int_equal(read_at(owner, PAGE + 0x30), 0xabcd000c);
    finish();
}

/* INIT leaves the APIC where it is, a reset of the machine does not. */
static void test_init_and_reset(void **state)
{
    (void)state;
    begin();
    move(other, PAGE | APIC_BASE_EN);
    vlapic_init(&other->vlapic, 0);
    vendor->vcpu_reset(other, true, 0x10);
    expect_ram(other, PAGE);
    owner->state = other->state = VCPU_STOPPED;
    d->running = 0;
    domain_request(d, ACTION_RESET);
    settle();
    expect_ram(other, 0);
    assert_int_equal(read_at(other, 0xfee00020) >> 24, 1);
    finish();
}

static void test_saved_and_restored(void **state)
{
    (void)state;
    begin();
    settle();
    move(owner, BASE(PAGE));
    pause_domain(&twins[0]);
    save(&twins[0]);
    destroy(twins[0].slot);
    assert_int_equal(restore(&twins[0]), 0);
    d = domain_of(&twins[0]);
    owner = d->vcpu[0];
    other = d->vcpu[1];
    expect_ram(owner, PAGE);
    expect_ram(other, 0);
    finish();
}

/* What the device model maps meanwhile: the vCPU sees it, but for the one page. */
static void test_mappings_change_around_it(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    expect_ram(owner, PAGE);
    dm_command(&twins[0], METRONOME_DM_MAP, PAGE >> PAGE_SHIFT, RAM, 2); /* over the page and the next one */
    assert_null(reaches(owner, PAGE, false));
    assert_ptr_equal(reaches(owner, PAGE + PAGE_SIZE, false), arena(RAM + PAGE_SIZE));
    assert_ptr_equal(reaches(other, PAGE, false), arena(RAM));
    dm_command(&twins[0], METRONOME_DM_UNMAP, PAGE >> PAGE_SHIFT, 2, 0);
    expect_ram(owner, PAGE);
    expect_ram(other, 0);
    dm_command(&twins[0], METRONOME_DM_MAP, LARGE_PAGE_SIZE >> PAGE_SHIFT, 0, 512); /* a large page over all of it */
    assert_null(reaches(owner, PAGE, false));
    assert_ptr_equal(reaches(owner, PAGE + PAGE_SIZE, false), arena(0x4000));
    assert_ptr_equal(reaches(other, PAGE, false), arena(0x3000));
    dm_command(&twins[0], METRONOME_DM_MAP, HOLE >> PAGE_SHIFT, 0, 1); /* tables that the view did not have */
    assert_ptr_equal(reaches(owner, HOLE, false), arena(0));
    finish();
}

/* Nothing was there when the APIC came; then the device model maps RAM. */
static void test_ram_comes_under_it(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(HOLE));
    assert_int_equal(read_at(owner, HOLE + 0x30) & 0xff, 0x14);
    dm_command(&twins[0], METRONOME_DM_MAP, HOLE >> PAGE_SHIFT, PAGE, 1);
    assert_null(reaches(owner, HOLE, false));
    assert_int_equal(read_at(owner, HOLE + 0x30) & 0xff, 0x14);
    assert_int_equal(read_at(other, HOLE + 0x30), 0xabcd000c);
    dm_command(&twins[0], METRONOME_DM_UNMAP, HOLE >> PAGE_SHIFT, 1, 0);
    assert_null(reaches(other, HOLE, false));
    assert_int_equal(read_at(owner, HOLE + 0x30) & 0xff, 0x14);
    finish();
}

/* The firmware's memory is not to be written: the APIC over it is. */
static void test_apic_over_read_only_memory(void **state)
{
    uint64_t firmware = (1ull << 32) - EXTRA;

    (void)state;
    begin();
    move(owner, BASE(firmware));
    write_at(owner, firmware + 0x80, 0x30);
    assert_int_equal(read_at(owner, firmware + 0x80), 0x30);
    assert_null(reaches(owner, firmware, false));
    assert_non_null(reaches(other, firmware, false));
    finish();
}

/* No write of a vCPU with an APIC over RAM is missed, wherever it goes. */
static void test_dirty_pages_are_reported(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    for (unsigned round = 0; round < 3; round++)
        for (uint64_t gpa = 0x100000; gpa < RAM; gpa += 0x5000) {
            if (gpa == PAGE)
                continue;
            assert_non_null(reaches(owner, gpa, true));
            assert_int_equal(take_dirty(gpa, 1), 1);
        }
    /* Elsewhere than around its page, the report is exact: only what was written. */
    reaches(owner, 0x100000, false);
    (void)take_dirty(0x100000, 64);
    reaches(owner, 0x105000, true);
    assert_int_equal(take_dirty(0x100000, 64), 1 << 5);
    finish();
}

static void test_no_cost_elsewhere(void **state)
{
    unsigned pages;

    (void)state;
    begin();
    pages = pages_out;
    expect_ram(owner, 0);
    expect_ram(other, 0);
    assert_int_equal(owner->vendor->root, d->p2m.root);
    assert_int_equal(other->vendor->root, d->p2m.root);
    assert_int_equal(flushes, 2);
    assert_int_equal(pages_out, pages);
    move(owner, BASE(PAGE));
    expect_ram(other, 0);
    assert_int_equal(other->vendor->root, d->p2m.root); /* the others keep the domain's tables as they were */
    assert_int_equal(flushes, 2);
    finish();
}

static void test_memory_is_used_up(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    allocation_fails = 1;
    enter_tables(owner);
    assert_int_equal(d->end, METRONOME_END_CRASH);
    assert_non_null(strstr(d->end_message, "too little memory"));
    finish();
}

/* ---- Views are made while a device model maps: nothing that was freed is walked ---- */

static volatile bool mapped_all;

/* The limit of tables may be reached while the vCPU has not yet let go of those that are retired. */
static void map_now(uint64_t gpa, uint64_t offset, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        int64_t part = domain_map(d, gpa + done, offset + done, size - done, true);

        if (part < 0)
            domain_translations_changed(d);
        done += part > 0 ? (uint64_t)part : 0;
    }
    domain_translations_changed(d);
}

static void *map_and_split(void *argument)
{
    test_cpu = argument;
    for (unsigned n = 0; n < 20000; n++) {
        uint64_t large = n % 3 ? LARGE_PAGE_SIZE : 0x40000000ull;

        map_now(large, 0, LARGE_PAGE_SIZE);
        map_now(large + n % 512 * PAGE_SIZE, PAGE, PAGE_SIZE);
        (void)take_dirty(large, 64);
        domain_translations_changed(d);
    }
    mapped_all = true;
    return NULL;
}

static void test_views_and_mappings_race(void **state)
{
    pthread_t thread;
    uint64_t views = 0;

    (void)state;
    begin();
    mapped_all = false;
    move(owner, BASE(PAGE));
    __atomic_store_n(&owner->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    assert_int_equal(pthread_create(&thread, NULL, map_and_split, test_cpu), 0);
    while (!mapped_all) {
        if (owner->p2m_generation != __atomic_load_n(&d->p2m.generation, __ATOMIC_ACQUIRE))
            owner->vendor->root = vcpu_new_root(owner), views++;
        assert_null(mapped(owner->vendor->root, PAGE));
        for (unsigned i = 0; i < 512; i += 73)
            (void)mapped(owner->vendor->root, 0x40000000ull + i * PAGE_SIZE);
    }
    pthread_join(thread, NULL);
    assert_true(views > 10); /* or the tables would have been used up */
    finish();
}

/* ---- Differences ---- */

static void instruction_fetch_from_apic_page_ends_the_domain(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    assert_null(reaches(owner, PAGE, false));
    owner->emu.regs.rip = PAGE;
    (void)exit_npf(owner, PAGE, false, false, true);
    assert_int_equal(d->end, METRONOME_END_CRASH);
    finish();
    begin();
    move(owner, BASE(PAGE)); /* others execute what is in the RAM: theirs is no exit at all */
    memcpy(arena(PAGE), code[AT_MMIO], 4);
    assert_ptr_equal(reaches(other, PAGE, false), arena(PAGE));
    other->emu.regs.rip = PAGE; /* and the emulator finds an instruction there, with its operand on a device */
    other->emu.regs.gpr[EMU_RSI] = 0xfee00030;
    assert_int_equal(exit_npf(other, 0xfee00030, false, false, true), EXIT_RESUME);
    assert_int_equal(*rax(other) & 0xff, 0x14);
    assert_int_equal(d->end, METRONOME_END_NONE);
    finish();
}

static void event_through_apic_page_ends_the_domain(void **state)
{
    (void)state;
    begin();
    move(owner, BASE(PAGE));
    inject_again(owner, 0x50, EVENT_INTR, false, 0);
    (void)exit_npf(owner, PAGE + 0x80, true, false, true);
    assert_int_equal(d->end, METRONOME_END_CRASH);
    assert_non_null(strstr(d->end_message, "cannot be delivered"));
    finish();
}

/* 32-bit tables: the directory at TABLES maps 4 MiB one to one by the table at PAGE. */
static void page_tables_in_apic_page_read_as_absent(void **state)
{
    uint32_t *directory, *table;
    uint64_t gpa = 0;

    (void)state;
    begin();
    directory = (uint32_t *)arena(TABLES);
    table = (uint32_t *)arena(PAGE);
    directory[0] = PAGE | 7;
    for (unsigned i = 0; i < 1024; i++)
        table[i] = i << 12 | 7;
    move(owner, BASE(PAGE));
    for (unsigned i = 0; i < 2; i++) {
        d->vcpu[i]->vendor->r.cr0 = CR0_PE | CR0_PG;
        d->vcpu[i]->vendor->r.cr3 = TABLES;
    }
    at(owner, AT_MMIO);
    assert_int_equal(exit_npf(owner, PAGE + 4 * (CODE >> PAGE_SHIFT), true, false, false), EXIT_RESUME); /* from the walk to CODE */
    assert_true(owner->event_pending && owner->event_vector == 14 && !(owner->event_error & 1));
    assert_int_equal(owner->vendor->r.cr2, owner->emu.regs.rip);
    load_regs(other);
    assert_int_equal(emu_translate(&other->emu, 0x5123, EMU_WRITE, &gpa), EMU_OK);
    assert_int_equal(gpa, 0x5123);
    assert_int_equal(table[5], 0x5000 | 0x67); /* accessed and dirty are set in the RAM */
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apic_over_ram),
        cmocka_unit_test(test_each_cpu_has_its_own_page),
        cmocka_unit_test(test_disabled_or_x2apic_shows_the_ram),
        cmocka_unit_test(test_init_and_reset),
        cmocka_unit_test(test_saved_and_restored),
        cmocka_unit_test(test_mappings_change_around_it),
        cmocka_unit_test(test_ram_comes_under_it),
        cmocka_unit_test(test_apic_over_read_only_memory),
        cmocka_unit_test(test_dirty_pages_are_reported),
        cmocka_unit_test(test_no_cost_elsewhere),
        cmocka_unit_test(test_memory_is_used_up),
        cmocka_unit_test(test_views_and_mappings_race),
        cmocka_unit_test(instruction_fetch_from_apic_page_ends_the_domain),
        cmocka_unit_test(event_through_apic_page_ends_the_domain),
        cmocka_unit_test(page_tables_in_apic_page_read_as_absent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
