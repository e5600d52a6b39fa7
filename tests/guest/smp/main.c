/*
 * Many CPUs, as many as `cpus=N` says there are: their tables, their start by INIT and SIPI, IPIs of every kind, each
 * counted at its receiver, and their halts.
 */
#include "smp.h"

void guest_main(void)
{
    cpus_init((unsigned)option_number("cpus", 2));
    count_interrupts();
    test_madt();
    test_start();
    test_ipis();
    test_halt();
    test_init();
}
