/*
 * What the CPU has (Intel SDM 2A CPUID, APM 3 appendix E), and turning on what we use of it.
 */
#include "console.h"
#include "setup.h"
#include "string.h"

struct cpu_features cpu_features;

enum { EAX, EBX, ECX, EDX };

/* clang-format off */
/* One CPUID bit for each flag of struct cpu_features. */
static const struct {
    uint32_t leaf;
    uint8_t reg, bit;
    uint16_t flag;
} bits[] = {
#define FLAG(leaf, reg, bit, name) {leaf, reg, bit, __builtin_offsetof(struct cpu_features, name)}
    FLAG(0x80000001, ECX, 2, svm),
    FLAG(1, ECX, 5, vmx),
    FLAG(0x8000000a, EDX, 0, npt),
    FLAG(0x8000000a, EDX, 3, nrips),
    FLAG(0x8000000a, EDX, 4, tsc_scaling),
    FLAG(0x8000000a, EDX, 5, vmcb_clean),
    FLAG(0x8000000a, EDX, 6, flush_by_asid),
    FLAG(0x8000000a, EDX, 7, decode_assists),
    FLAG(0x8000000a, EDX, 10, pause_filter),
    FLAG(0x8000000a, EDX, 13, avic),
    FLAG(0x8000000a, EDX, 16, vgif),
    FLAG(0x80000007, EDX, 8, invariant_tsc),
    FLAG(1, ECX, 24, tsc_deadline),
    FLAG(1, ECX, 21, x2apic),
    FLAG(1, ECX, 26, xsave),
    FLAG(7, EBX, 0, fsgsbase),
    FLAG(7, EBX, 7, smep),
    FLAG(7, EBX, 9, erms),
    FLAG(7, EBX, 20, smap),
    FLAG(7, ECX, 2, umip),
    FLAG(7, ECX, 3, pku),
    FLAG(7, ECX, 16, la57),
    FLAG(0x80000001, EDX, 20, nx),
    FLAG(0x80000001, EDX, 26, gib_pages),
    FLAG(0x80000001, EDX, 27, rdtscp),
#undef FLAG
};
/* clang-format on */

/* CPUID with zeros for a leaf that is not there (Intel CPUs then answer another one). */
static struct cpuid_result leaf(uint32_t number)
{
    if (number > cpuid(number & 0xffff0000, 0).eax)
        return (struct cpuid_result){0};
    return cpuid(number, 0);
}

static bool hypervisor_is(const char *signature)
{
    struct cpuid_result r;
    if (!(leaf(1).ecx & 1u << 31))
        return false;
    r = cpuid(0x40000000, 0);
    return !memcmp(&r.ebx, signature, 12);
}

void features_detect(void)
{
    for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++) {
        struct cpuid_result r = leaf(bits[i].leaf);
        uint32_t regs[] = {r.eax, r.ebx, r.ecx, r.edx};
        *((bool *)&cpu_features + bits[i].flag) = regs[bits[i].reg] >> bits[i].bit & 1;
    }
    uint32_t sizes = leaf(0x80000008).eax;
    cpu_features.phys_bits = sizes & 0xff ? (uint8_t)sizes : 36;
    cpu_features.asids = cpu_features.svm ? leaf(0x8000000a).ebx : 0;
    cpu_features.on_tcg = hypervisor_is("TCGTCGTCGTCG");
    cpu_features.invariant_tsc |= cpu_features.on_tcg; /* one clock of one rate for all its CPUs: it only does not say so */
}

/* The PAT of a reset (SDM 3A 11.12.4): the paging code counts on entry 3 being uncached. */
#define PAT_RESET 0x0007040600070406ull

void features_enable(void)
{
    const struct cpu_features *f = &cpu_features;
    uint64_t cr4 = CR4_PAE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

    cr4 |= (f->umip ? CR4_UMIP : 0) | (f->smep ? CR4_SMEP : 0) | (f->smap ? CR4_SMAP : 0);
    cr4 |= (f->fsgsbase ? CR4_FSGSBASE : 0) | (f->xsave ? CR4_OSXSAVE : 0);
    write_cr4(cr4);
    write_cr0(CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    if (leaf(1).edx & 1u << 16)
        wrmsr(MSR_PAT, PAT_RESET);
}
