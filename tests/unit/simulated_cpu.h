/*
 * core_cpu.h with a CPU that is simulated throughout: time, CPUID, FPU, debug registers and MSRs are the test's, so that
 * runs are exact and repeat on any machine. The functions are in fabric_machine.h.
 */
#ifndef METRONOME_TESTS_SIMULATED_CPU_H
#define METRONOME_TESTS_SIMULATED_CPU_H

#include "core_cpu.h"

uint64_t simulated_rdtsc(void);
struct cpuid_result simulated_cpuid(uint32_t leaf, uint32_t subleaf);
uint64_t simulated_xgetbv(void);
void simulated_xsetbv(uint64_t value);
void simulated_fxsave(void *area);
void simulated_xsave(void *area);
void simulated_xrstor(const void *area);
extern uint64_t simulated_dr[4];
void simulated_wrmsr(uint32_t msr, uint64_t value);

#define rdtsc() simulated_rdtsc()
#define cpuid(leaf, subleaf) simulated_cpuid(leaf, subleaf)
#define xgetbv(reg) simulated_xgetbv()
#define xsetbv(reg, value) simulated_xsetbv(value)
#define fxsave(area) simulated_fxsave(area)
#define xsave(area) simulated_xsave(area)
#define xrstor(area) simulated_xrstor(area)
#define wrmsr(msr, value) simulated_wrmsr(msr, value)

#undef read_dr0
#undef read_dr1
#undef read_dr2
#undef read_dr3
#undef write_dr0
#undef write_dr1
#undef write_dr2
#undef write_dr3
#define read_dr0() simulated_dr[0]
#define read_dr1() simulated_dr[1]
#define read_dr2() simulated_dr[2]
#define read_dr3() simulated_dr[3]
#define write_dr0(v) (simulated_dr[0] = (v))
#define write_dr1(v) (simulated_dr[1] = (v))
#define write_dr2(v) (simulated_dr[2] = (v))
#define write_dr3(v) (simulated_dr[3] = (v))

#endif
