/*
 * For the HVM core in a Linux process: included before everything else. The hypervisor finds its per-CPU data at the top
 * of the stack; here each thread of a test is a CPU and says which.
 */
#ifndef METRONOME_TESTS_CORE_CPU_H
#define METRONOME_TESTS_CORE_CPU_H

#include "cpu.h"

extern __thread struct pcpu *test_cpu;
#define this_cpu() (test_cpu)

#endif
