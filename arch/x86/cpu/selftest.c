/*
 * Checks at boot, and what `test=NAME` asks for: deliberate failures, each of which must end in one readable panic, and
 * exercises of the services that the hvm core builds on. Each ends the machine.
 */
#include "selftest.h"
#include "boot.h"
#include "console.h"
#include "pci.h"
#include "setup.h"
#include "string.h"
#include "wide.h"

#define IPIS        1000u
#define TIMER_SHOTS 20u
#define MAPPINGS    2000u
#define ORDERS      13u

static void test_panic(void)
{
    panic("a deliberate panic, %s", "test=panic");
}

static void panic_here(void *argument)
{
    (void)argument;
    panic("a deliberate panic, %s", "test=panic-other");
}

/* The last CPU panics in an interrupt while this one spins. */
static void test_panic_other(void)
{
    irq_set_handler(VECTOR_KICK, panic_here, NULL);
    ipi_send(pcpu_count - 1, VECTOR_KICK);
    for (;;)
        pause();
}

/* Not a tail call: each level keeps a frame. Until the count wraps, which no stack holds. */
static unsigned __attribute__((noinline)) overflow(volatile unsigned depth)
{
    volatile char frame[256];
    frame[0] = (char)depth;
    return depth ? overflow(depth + 1) + (unsigned)frame[0] : 0;
}

/* Neither inlined nor left by a tail call, as below: the test looks for it in the backtrace. */
static void __attribute__((noinline)) test_overflow(void)
{
    overflow(1);
    __asm__ volatile("");
}

static void __attribute__((noinline)) test_smash(void)
{
    char small[8];
    volatile char *p = small;
    for (unsigned i = 0; i < 24; i++)
        p[i] = 'x';
}

static void test_null(void)
{
    volatile unsigned *null = NULL;
    __asm__("" : "+r"(null));
    *null = 1;
}

static void test_write_text(void)
{
    *(volatile char *)(uintptr_t)test_null = 0;
}

static void __attribute__((noinline)) test_execute_data(void)
{
    static volatile uint8_t code[] = {0xc3};
    ((void (*)(void))(uintptr_t)code)();
    __asm__ volatile("");
}

static void test_wx(void)
{
    mm_map_writable_code();
    mm_check_wx();
}

/* Addresses and MSRs that are not there, by their fixups. TCG has every MSR. */
static void test_fixup(void)
{
    uint64_t v;
    bool msrs = cpu_features.on_tcg || (!rdmsr_safe(0x12345678, &v) && !wrmsr_safe(0x12345678, 1));
    bool fault = !read_safe((void *)8, &v) && !read_safe((void *)0x8000000000000000, &v);
    bool there = read_safe(&boot_info, &v) && v == *(uint64_t *)&boot_info && rdmsr_safe(MSR_EFER, &v) && v & EFER_LMA;
    log_info("fixups %s\n", msrs && fault && there ? "work" : "FAIL");
}

static volatile uint32_t ipis_taken[MAX_PCPUS];

static void count_ipi(void *argument)
{
    (void)argument;
    ipis_taken[this_cpu()->id]++;
}

/* One at a time to each CPU, this one too; none may be lost. */
static void test_ipi(void)
{
    uint64_t lost = 0;
    irq_set_handler(VECTOR_KICK, count_ipi, NULL);
    for (unsigned cpu = 0; cpu < pcpu_count; cpu++)
        for (uint32_t i = 1; i <= IPIS; i++) {
            uint64_t until = rdtsc() + tsc_hz;
            ipi_send(cpu, VECTOR_KICK);
            while (ipis_taken[cpu] < i && rdtsc() < until) {
                sti_nop_cli();
                pause();
            }
            lost += ipis_taken[cpu] != i;
        }
    log_info("%u interprocessor interrupts to each of %u CPUs, %llu lost\n", IPIS, pcpu_count,
             (unsigned long long)lost);
}

static void note_time(void *argument)
{
    *(volatile uint64_t *)argument = rdtsc();
}

/* Shots of 0 to 9.5 ms: none early, and how late. */
static void test_timer(void)
{
    volatile uint64_t at;
    uint64_t worst = 0, early = 0, best = UINT64_MAX;
    irq_set_handler(VECTOR_TIMER, note_time, (void *)&at);
    for (unsigned i = 0; i < TIMER_SHOTS; i++) {
        uint64_t due = rdtsc() + i * (tsc_hz / 2000);
        at = 0;
        host_timer_arm(due);
        while (!at)
            sti_hlt_cli();
        early += at < due;
        if (at >= due && at - due > worst)
            worst = at - due;
        if (at >= due && at - due < best)
            best = at - due;
    }
    log_info("%u timer shots, %llu early, late by %llu to %llu ticks\n", TIMER_SHOTS, (unsigned long long)early,
             (unsigned long long)best, (unsigned long long)worst);
}

static volatile uint32_t msix_taken;

static void count_msix(void *argument)
{
    (void)argument;
    msix_taken++;
}

/* An ivshmem-doorbell device rings itself (QEMU's ivshmem-spec: IVPosition at 8, doorbell at 12). */
static void ring(struct pci_address a, void *argument)
{
    uint64_t base, size, until = rdtsc() + tsc_hz;
    int vector = irq_alloc(count_msix, NULL);
    (void)argument;
    if (!pci_bar(a, 0, &base, &size) || !pci_msix_enable(a, 0, (uint8_t)vector, this_cpu()->apic_id))
        return;
    volatile uint32_t *registers = map_physical(base, size, MAP_DEVICE);
    registers[3] = registers[2] << 16;
    while (!msix_taken && rdtsc() < until)
        sti_nop_cli();
}

static void test_msix(void)
{
    pci_for_each(0x1af4, 0x1110, ring, NULL);
    log_info("MSI-X interrupts: %u\n", (unsigned)msix_taken);
}

static unsigned map_often(void *page)
{
    unsigned made = 0;
    for (unsigned i = 0; i < MAPPINGS; i++) {
        void *p = map_physical(virt_to_phys(page), PAGE_SIZE, MAP_READONLY);
        made += p && *(uint64_t *)p == 0;
        unmap_physical(p, PAGE_SIZE);
        sti_nop_cli();
    }
    return made;
}

/* Frames and mappings: all that is taken comes back, and what cannot be had is refused. */
static void test_memory(void)
{
    void *pages[ORDERS];
    pages[0] = alloc_pages(0);
    unsigned made = map_often(pages[0]); /* the tables that this makes stay */
    free_pages(pages[0], 0);

    uint64_t before = free_page_count();
    for (unsigned order = 0; order < ORDERS; order++)
        pages[order] = alloc_pages(order);
    made += map_often(pages[0]);
    for (unsigned order = 0; order < ORDERS; order++)
        free_pages(pages[order], order);
    bool refused = !map_physical(1ull << cpu_features.phys_bits, 1, MAP_DEVICE) && !map_physical(0, 0, MAP_MEMORY) &&
                   !map_physical(virt_to_phys((void *)(uintptr_t)test_null), PAGE_SIZE, MAP_MEMORY) && !alloc_pages(40);
    log_info("memory: %lld pages lost, %u mappings failed, %s\n", (long long)(before - free_page_count()),
             2 * MAPPINGS - made, refused ? "the impossible refused" : "WRONG");
}

static void test_boot(void)
{
}

void selftest_run(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"boot", test_boot},
        {"panic", test_panic},
        {"panic-other", test_panic_other},
        {"stack-overflow", test_overflow},
        {"stack-smash", test_smash},
        {"null", test_null},
        {"write-text", test_write_text},
        {"execute-data", test_execute_data},
        {"wx", test_wx},
        {"fixup", test_fixup},
        {"ipi", test_ipi},
        {"timer", test_timer},
        {"msix", test_msix},
        {"memory", test_memory},
    };
    char name[32];

    mm_check_wx();
    if (!boot_option("test", name, sizeof name))
        return;
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(name, tests[i].name)) {
            tests[i].run();
            machine_stop(0);
        }
}
