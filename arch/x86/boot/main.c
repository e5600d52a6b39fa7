/*
 * The first C, on the boot CPU: brings up everything that hvm_boot() may use.
 */
#include "boot.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "loader.h"
#include "mm.h"
#include "selftest.h"
#include "../cpu/setup.h"

void boot_main(uint32_t magic, uint32_t information) __attribute__((noreturn));

static volatile bool booted; /* hvm_boot() has returned */

static void parse_information(uint32_t magic, uint32_t information)
{
    static const struct {
        uint32_t magic;
        void (*parse)(uint32_t information);
    } loaders[] = {{MAGIC_MULTIBOOT1, multiboot1_parse}, {MAGIC_MULTIBOOT2, multiboot2_parse}, {MAGIC_PVH, pvh_parse}};
    for (unsigned i = 0; i < sizeof loaders / sizeof *loaders; i++)
        if (loaders[i].magic == magic)
            loaders[i].parse(information);
}

static void greet(void)
{
    uint64_t ram = 0;
    for (unsigned i = 0; i < boot_info.ranges; i++)
        ram += boot_info.range[i].type == 1 ? boot_info.range[i].size : 0;
    log_info("Metronome: booted by %s, %llu MiB of memory, %u module%s\n", boot_info.loader,
             (unsigned long long)(ram >> 20), boot_info.modules, boot_info.modules == 1 ? "" : "s");
    log_debug("command line '%s'\n", boot_info.command_line);
    for (unsigned i = 0; i < boot_info.ranges; i++)
        log_debug("memory %#llx + %#llx, type %u\n", (unsigned long long)boot_info.range[i].base,
                  (unsigned long long)boot_info.range[i].size, (unsigned)boot_info.range[i].type);
    for (unsigned i = 0; i < boot_info.modules; i++)
        log_debug("module %u: %#llx + %#llx '%s'\n", i, (unsigned long long)boot_info.module[i].base,
                  (unsigned long long)boot_info.module[i].size, boot_info.module[i].command_line);
    if (boot_dropped)
        log_warning("%u parts of the boot loader's information were too much and were cut\n", boot_dropped);
}

/* On a stack with a guard page, with the final page tables. */
static void boot_with_memory(void)
{
    idt_use_stacks();
    tables_load(&boot_pcpu);
    platform_init();
    smp_start();
    selftest_run();
    hvm_boot();
    __atomic_store_n(&booted, true, __ATOMIC_RELEASE);
    for (unsigned i = 1; i < pcpu_count; i++)
        ipi_send(i, VECTOR_FLUSH); /* does nothing but end the halt */
    hvm_cpu_loop();
}

void cpu_main(void)
{
    while (!__atomic_load_n(&booted, __ATOMIC_ACQUIRE))
        sti_hlt_cli(); /* halted, so that on an emulator the boot CPU has the host to itself */
    hvm_cpu_loop();
}

void boot_main(uint32_t magic, uint32_t information)
{
    pcpu_boot_init();
    parse_information(magic, information);
    features_detect();
    console_init();
    idt_build();
    tables_load(&boot_pcpu);
    if (!boot_info.loader)
        panic("booted by an unknown loader (magic %#x)", magic);
    greet();
    features_enable();
    mm_init();
    if (!pcpu_alloc_stacks(&boot_pcpu))
        panic("no memory for stacks");
    call_on_stack(boot_with_memory, stack_top(boot_pcpu.stack));
}
