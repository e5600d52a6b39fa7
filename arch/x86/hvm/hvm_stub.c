/*
 * In place of arch/x86/hvm until it is there; weak, so that it never wins.
 */
#include "console.h"
#include "cpu.h"

void __attribute__((weak)) hvm_boot(void)
{
    log_info("no hvm core in this image\n");
}

void __attribute__((weak)) hvm_cpu_loop(void)
{
    if (this_cpu()->id == 0)
        machine_stop(0);
    for (;;)
        sti_hlt_cli();
}
