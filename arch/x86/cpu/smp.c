/*
 * Starting the other CPUs (SDM 3A 8.4.4): INIT, then a start-up IPI that names a page below 1 MiB.
 */
#include "acpi.h"
#include "boot.h"
#include "console.h"
#include "setup.h"
#include "string.h"

#define LOW_FIRST         0x8000u
#define LOW_LAST          0x9f000u
#define ONLINE_TIMEOUT_MS 1000u

extern const char trampoline_start[], trampoline_end[], trampoline_fields[];

struct fields {
    uint64_t stack, entry;
    uint32_t cr3, long_offset;
    uint16_t long_selector, gdt_limit;
    uint32_t gdt_base;
} __attribute__((packed));

static bool overlaps(uint64_t base, uint64_t size, uint64_t page)
{
    return page < base + size && page + PAGE_SIZE > base;
}

/* A page of RAM that no other range and no module touches; 0: none. */
static uint32_t find_page(void)
{
    for (uint32_t page = LOW_FIRST; page <= LOW_LAST; page += PAGE_SIZE) {
        bool ram = false, taken = false;
        for (unsigned i = 0; i < boot_info.ranges; i++) {
            const struct boot_range *r = &boot_info.range[i];
            if (r->type == 1)
                ram |= page >= r->base && page + PAGE_SIZE <= r->base + r->size;
            else
                taken |= overlaps(r->base, r->size, page);
        }
        for (unsigned i = 0; i < boot_info.modules; i++)
            taken |= overlaps(boot_info.module[i].base, boot_info.module[i].size, page);
        if (ram && !taken)
            return page;
    }
    return 0;
}

static void ap_main(void)
{
    struct pcpu *cpu = this_cpu();
    features_enable();
    tables_load(cpu);
    lapic_init();
    timer_init_cpu();
    cpu->online = true;
    cpu_main();
}

static bool wait_online(const struct pcpu *cpu, uint32_t ms)
{
    uint64_t until = rdtsc() + tsc_hz / 1000 * ms;
    while (!cpu->online && rdtsc() < until)
        pause();
    return cpu->online;
}

static bool start(struct pcpu *cpu, uint32_t page, struct fields *f)
{
    f->stack = (uint64_t)stack_top(cpu->stack);
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        ipi_startup(cpu->apic_id, (uint8_t)(page >> 12));
        if (wait_online(cpu, ONLINE_TIMEOUT_MS))
            return true;
    }
    ipi_init(cpu->apic_id); /* should it be late: not with what the next one is given */
    return false;
}

static struct fields *prepare(char *copy, uint32_t page)
{
    memcpy(copy, trampoline_start, (size_t)(trampoline_end - trampoline_start));
    struct fields *f = (void *)(copy + (trampoline_fields - trampoline_start));
    f->entry = (uint64_t)ap_main;
    f->cr3 = (uint32_t)read_cr3();
    f->long_offset += page;
    f->gdt_base += page;
    return f;
}

/* An xAPIC cannot name ids of more than 8 bits, and 255 means all. */
static bool reachable(uint32_t apic_id)
{
    return lapic_x2apic() || apic_id < 255;
}

static void start_all(const uint32_t *ids, unsigned n, uint32_t page, struct fields *f)
{
    uint32_t me = lapic_id();
    for (unsigned i = 0; i < n; i++)
        if (ids[i] != me && reachable(ids[i]))
            ipi_init(ids[i]);
    sleep_us(10000);
    for (unsigned i = 0; i < n; i++) {
        if (ids[i] == me || !reachable(ids[i]))
            continue;
        struct pcpu *cpu = pcpu_create(pcpu_count, ids[i]);
        if (!cpu) {
            log_warning("no memory for CPU %u\n", pcpu_count);
            return;
        }
        pcpus[pcpu_count] = cpu;
        if (start(cpu, page, f))
            pcpu_count++;
        else
            log_warning("the CPU with APIC id %u does not start\n", (unsigned)ids[i]);
    }
}

void smp_start(void)
{
    static uint32_t ids[MAX_PCPUS];
    unsigned n = acpi_cpus(ids, MAX_PCPUS);
    uint32_t page = find_page();
    if (n > MAX_PCPUS) {
        log_warning("%u CPUs, of which %u are used\n", n, MAX_PCPUS);
        n = MAX_PCPUS;
    }
    if (n > 1 && page) {
        char *copy = map_physical(page, PAGE_SIZE, MAP_MEMORY);
        struct fields *f = copy ? prepare(copy, page) : NULL;
        if (f && mm_map_trampoline(page)) {
            start_all(ids, n, page, f);
            mm_unmap_trampoline(page);
        }
        unmap_physical(copy, PAGE_SIZE);
    }
    log_info("%u CPU%s online\n", pcpu_count, pcpu_count == 1 ? "" : "s");
}
