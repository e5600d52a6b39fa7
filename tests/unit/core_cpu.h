/*
 * For the HVM core in a Linux process: included before everything else. The hypervisor finds its per-CPU data at the top
 * of the stack; here each thread of a test is a CPU and says which.
 */
#ifndef METRONOME_TESTS_CORE_CPU_H
#define METRONOME_TESTS_CORE_CPU_H

#include "cpu.h"

extern __thread struct pcpu *test_cpu;
#define this_cpu() (test_cpu)

/* What a process may not do. */
void test_window(void);
void test_halt(void);
#define sti_nop_cli() test_window()
#define sti_hlt_cli() test_halt()
#define read_dr0() 0
#define read_dr1() 0
#define read_dr2() 0
#define read_dr3() 0
#define write_dr0(v) ((void)(v))
#define write_dr1(v) ((void)(v))
#define write_dr2(v) ((void)(v))
#define write_dr3(v) ((void)(v))

#endif
