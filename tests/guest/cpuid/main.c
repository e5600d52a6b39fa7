/*
 * CPUID and MSR policy as a guest sees it (docs/cpuid-msr.md): what is hidden and what is shown, which MSRs work, and that
 * everything else, like the reserved bits of control registers, is #GP.
 */
#include "guest.h"

#define GP 13
#define UD 6

/* A feature bit and what it must be. */
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
static const struct {
    const char *name;
    uint32_t leaf, subleaf;
    uint8_t reg, bit, value;
    bool metronome_only;
} bits[] = {
    {"SVM is hidden", 0x80000001, 0, REG_ECX, 2, 0, true},
    {"VMX is hidden", 1, 0, REG_ECX, 5, 0, false},
    {"MONITOR is hidden", 1, 0, REG_ECX, 3, 0, true},
    {"LA57 is hidden", 7, 0, REG_ECX, 16, 0, true},
    {"PKS is hidden", 7, 0, REG_ECX, 31, 0, true},
    {"the hypervisor bit is shown", 1, 0, REG_ECX, 31, 1, false},
    {"x2APIC is shown", 1, 0, REG_ECX, 21, 1, true},
    {"TSC-deadline is shown", 1, 0, REG_ECX, 24, 1, true},
    {"ARAT is shown", 6, 0, REG_EAX, 2, 1, false},
    {"TSC_ADJUST is shown", 7, 0, REG_EBX, 1, 1, true},
    {"the APIC is shown", 1, 0, REG_EDX, 9, 1, false},
    {"MTRRs are shown", 1, 0, REG_EDX, 12, 1, false},
    {"PAT is shown", 1, 0, REG_EDX, 16, 1, false},
    {"long mode is shown", 0x80000001, 0, REG_EDX, 29, 1, false},
};

static uint32_t cpuid_register(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    struct cpuid c = cpuid(leaf, subleaf);
    const uint32_t all[] = {c.eax, c.ebx, c.ecx, c.edx};
    return all[reg];
}

static void test_bits(void)
{
    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        uint32_t v = cpuid_register(bits[i].leaf, bits[i].subleaf, bits[i].reg);
        if (bits[i].metronome_only && !on_metronome())
            continue;
        check((v >> bits[i].bit & 1) == bits[i].value, bits[i].name, "register is 0x%x", v);
    }
}

static void test_leaves(void)
{
    struct cpuid c = cpuid(0, 0), h = cpuid(0x40000000, 0), x = cpuid(0xb, 0);
    char vendor[13] = {0};
    memcpy(vendor, &h.ebx, 12);
    print("hypervisor \"%s\", highest leaves 0x%x, 0x%x\n", vendor, c.eax, cpuid(0x80000000, 0).eax);
    check(c.eax >= 0xd && c.eax < 0x100, "the highest basic leaf", "0x%x", c.eax);
    check(cpuid(1, 0).ebx >> 24 == 0, "the APIC id in leaf 1", "0x%x", cpuid(1, 0).ebx);
    check(x.edx == 0, "the x2APIC id in leaf 0xb", "0x%x", x.edx);
    if (on_metronome()) {
        struct cpuid svm = cpuid(0x8000000a, 0), none = cpuid(0x8fffffff, 0);
        check(!(svm.eax | svm.ebx | svm.ecx | svm.edx), "the SVM leaf is empty", "0x%x", svm.eax);
        check(!(none.eax | none.ebx | none.ecx | none.edx), "an unknown leaf is empty", "0x%x", none.eax);
        check(h.eax >= 0x40000000 && h.eax < 0x40010000, "the highest hypervisor leaf", "0x%x", h.eax);
    }
    check((cpuid(0x80000008, 0).eax & 0xff) >= 36, "physical address bits", "0x%x", cpuid(0x80000008, 0).eax);
}

static void write_cr4(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(v) : "memory");
}
static uint64_t read_cr4(void)
{
    uint64_t v;
    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    return v;
}

/* Bits that follow the guest's own registers. */
static void test_dynamic(void)
{
    if (!(cpuid(1, 0).ecx >> 26 & 1)) {
        skip("XSAVE", "not in CPUID");
    } else {
        uint64_t cr4 = read_cr4();
        check(!(cpuid(1, 0).ecx >> 27 & 1), "OSXSAVE is off at first", "on");
        write_cr4(cr4 | 1 << 18);
        check(cpuid(1, 0).ecx >> 27 & 1, "OSXSAVE follows CR4", "off");
        __asm__ volatile("xsetbv" : : "c"(0), "a"(1), "d"(0));
        uint32_t small = cpuid(0xd, 0).ebx;
        uint32_t all = cpuid(0xd, 0).eax;
        __asm__ volatile("xsetbv" : : "c"(0), "a"(all & 7), "d"(0));
        uint32_t large = cpuid(0xd, 0).ebx;
        check(small == 576 && large >= small && cpuid(0xd, 0).ecx >= large, "the XSAVE size follows XCR0", "%u, %u", small, large);
        TRY("xsetbv" TRIED : : "c"(0), "a"(2), "d"(0) : "memory");
        check(trap_vector == GP, "XCR0 without x87 faults", "vector %d", trap_vector);
        TRY("xsetbv" TRIED : : "c"(0), "a"(1), "d"(0x80000000) : "memory");
        check(trap_vector == GP, "XCR0 with unknown bits faults", "vector %d", trap_vector);
        write_cr4(cr4);
    }
    if (on_metronome()) {
        uint64_t base = rdmsr(0x1b);
        wrmsr(0x1b, base & ~0x800ull);
        check(!(cpuid(1, 0).edx >> 9 & 1), "the APIC bit follows the APIC base", "still on");
        wrmsr(0x1b, base);
        apic_enable();
    }
}

static void test_control_registers(void)
{
    static const uint8_t reserved[] = {12, 13, 14, 15, 19, 23, 24, 25, 26, 31, 32, 63};
    uint64_t cr4 = read_cr4(), cr0;
    if (on_metronome())
        for (unsigned i = 0; i < sizeof(reserved); i++) {
            TRY("mov %0, %%cr4" TRIED : : "r"(cr4 | 1ull << reserved[i]) : "memory");
            check(trap_vector == GP && read_cr4() == cr4, "a hidden or reserved bit of CR4 faults", "bit %u: vector %d, CR4 0x%lx", reserved[i], trap_vector,
                  read_cr4());
        }
    if (on_metronome()) {
        TRY("mov %0, %%cr4" TRIED : : "r"(cr4 & ~0x20ull) : "memory");
        check(trap_vector == GP, "clearing CR4.PAE in long mode faults", "vector %d", trap_vector);
    }
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    TRY("mov %0, %%cr8" TRIED : : "r"(16ull) : "memory");
    check(trap_vector == GP || !option("silicon"), "reserved bits of CR8 fault", "vector %d", trap_vector);
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ull));
    if (option("silicon")) { /* no exits: the CPU's own checks, which TCG does not make */
        TRY("mov %0, %%cr0" TRIED : : "r"(cr0 & ~1ull) : "memory");
        check(trap_vector == GP, "CR0.PG without PE faults", "vector %d", trap_vector);
        TRY("mov %0, %%cr0" TRIED : : "r"(cr0 | 1ull << 40) : "memory");
        check(trap_vector == GP, "upper bits of CR0 fault", "vector %d", trap_vector);
        TRY("mov %0, %%cr0" TRIED : : "r"((cr0 | 1ull << 29) & ~(1ull << 30)) : "memory");
        check(trap_vector == GP, "CR0.NW without CD faults", "vector %d", trap_vector);
    }
}

/* Instructions of what is hidden. */
static void test_instructions(void)
{
    if (!on_metronome())
        return;
#define REFUSED(name, ins, vector) \
    do { \
        TRY(ins TRIED : : "a"(0), "b"(0), "c"(0), "d"(0) : "memory"); \
        check(trap_vector == vector, name " is refused", "vector %d", trap_vector); \
    } while (0)
    REFUSED("MONITOR", ".byte 0x0f, 0x01, 0xc8", UD);
    REFUSED("MWAIT", ".byte 0x0f, 0x01, 0xc9", UD);
    REFUSED("VMRUN", ".byte 0x0f, 0x01, 0xd8", UD);
    REFUSED("VMLOAD", ".byte 0x0f, 0x01, 0xda", UD);
    REFUSED("VMSAVE", ".byte 0x0f, 0x01, 0xdb", UD);
    REFUSED("STGI", ".byte 0x0f, 0x01, 0xdc", UD);
    REFUSED("CLGI", ".byte 0x0f, 0x01, 0xdd", UD);
    REFUSED("SKINIT", ".byte 0x0f, 0x01, 0xde", UD);
    REFUSED("INVLPGA", ".byte 0x0f, 0x01, 0xdf", UD);
    REFUSED("VMXOFF", ".byte 0x0f, 0x01, 0xc4", UD);
    REFUSED("RDPMC of counter 0", "rdpmc", GP);
}

/* MSRs that read back what was written: value to write, and one that must fault (0: none). */
static const struct {
    const char *name;
    uint32_t msr;
    uint64_t good, bad;
    bool metronome_only; /* a plain QEMU has no such check, or no such register */
} stored[] = {
    {"PAT", 0x277, 0x0007040600070406, 0x0007040600070402, true},
    {"MTRRdefType", 0x2ff, 0xc06, 0x302, true},
    {"MTRRphysBase0", 0x200, 0xc0000000, 0xc0000002, true},
    {"MTRRphysMask0", 0x201, 0xfc0000800, 0x8000000000000800, true},
    {"MTRRphysBase7", 0x20e, 0xd0000006, 0xd0000307, true},
    {"MTRRfix64K", 0x250, 0x0606060606060606, 0x0602060606060606, true},
    {"MTRRfix4K_F8000", 0x26f, 0x0505050505050505, 0x0005050503050505, true},
    {"TSC_AUX", 0xc0000103, 0x12345678, 0x123456789, true},
    {"HWCR", 0xc0010015, 0x1000010, 0x8000000000000000, true},
    {"SYSCFG", 0xc0010010, 0x40000, 0x8000000000000000, true},
    {"MCG_STATUS", 0x17a, 4, 8, true},
    {"MC0_CTL", 0x400, UINT64_MAX, 0, false},
    {"FS base", 0xc0000100, 0x7fffffff1000, 0x800000000000, false},
    {"GS base", 0xc0000101, 0xffff800000000000, 0x7fff800000000000, false},
    {"kernel GS base", 0xc0000102, 0x1000, 0x8000000000000000, false},
    {"LSTAR", 0xc0000082, 0xffffffff80000000, 0x0fffffff80000000, false},
    {"CSTAR", 0xc0000083, 0xffffffff80000000, 0, false},
    {"STAR", 0xc0000081, 0x0023001000000000, 0, false},
    {"SFMASK", 0xc0000084, 0x47700, 0, false},
    {"SYSENTER_EIP", 0x176, 0xffffffff81000000, 0, false},
};

static void test_stored(void)
{
    uint64_t before, after;
    for (unsigned i = 0; i < sizeof(stored) / sizeof(stored[0]); i++) {
        if (stored[i].metronome_only && !on_metronome())
            continue;
        if (!check(try_rdmsr(stored[i].msr, &before), stored[i].name, "reading faults"))
            continue;
        bool wrote = try_wrmsr(stored[i].msr, stored[i].good);
        check(wrote && try_rdmsr(stored[i].msr, &after) && after == stored[i].good, stored[i].name, "writing 0x%lx: %s, reads 0x%lx", stored[i].good,
              wrote ? "done" : "faults", after);
        bool native = stored[i].msr >= 0xc0000080 && stored[i].msr < 0xc0000103; /* no exits; TCG does not check addresses */
        if (stored[i].bad && (!native || option("silicon")))
            check(!try_wrmsr(stored[i].msr, stored[i].bad) && trap_vector == GP, stored[i].name, "writing 0x%lx does not fault", stored[i].bad);
        try_wrmsr(stored[i].msr, before);
    }
}

static void test_unknown(void)
{
    static const uint32_t unknown[] = {0x3a, 0x122, 0x345, 0x480, 0x491, 0x570, 0x12345678, 0x4b564d00, 0xc0000085, 0xc0010114, 0xc0010117, 0xc00000ff, 0xc0011fff, 0xffffffff};
    uint64_t v;
    if (!on_metronome())
        return;
    for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        bool reads = try_rdmsr(unknown[i], &v), writes = try_wrmsr(unknown[i], 0);
        check(!reads && !writes, "an unknown MSR faults", "0x%x: %s, %s", unknown[i], reads ? "reads" : "faults", writes ? "writes" : "faults");
    }
    check(try_rdmsr(0xfe, &v) && (v & 0xff) == 8 && !try_wrmsr(0xfe, v), "MTRRcap: eight pairs, read-only", "0x%lx", v);
    check(try_rdmsr(0x179, &v) && (v & 0xff) <= 32 && !try_wrmsr(0x179, v), "MCG_CAP is read-only", "0x%lx", v);
}

static void test_efer(void)
{
    uint64_t efer = rdmsr(0xc0000080);
    if (!on_metronome())
        return;
    check(!try_wrmsr(0xc0000080, efer | 1 << 12) && trap_vector == GP, "EFER.SVME faults", "vector %d", trap_vector);
    check(!try_wrmsr(0xc0000080, efer | 1ull << 20) && trap_vector == GP, "reserved bits of EFER fault", "vector %d", trap_vector);
    check(!try_wrmsr(0xc0000080, efer & ~(1ull << 8)) && trap_vector == GP, "clearing LME while paging faults", "vector %d", trap_vector);
    check(try_wrmsr(0xc0000080, efer | 1) && rdmsr(0xc0000080) == (efer | 1), "EFER.SCE can be set", "0x%lx", rdmsr(0xc0000080));
    wrmsr(0xc0000080, efer);
    check(rdmsr(0xc0000080) == efer && (efer & 0x500) == 0x500, "EFER shows LME and LMA", "0x%lx", efer);
}

static void test_tsc(void)
{
    uint64_t t, adjust, aux;
    if (!on_metronome())
        return;
    check(try_rdmsr(0x3b, &adjust) && adjust == 0, "TSC_ADJUST is 0 at first", "0x%lx", adjust);
    t = rdtsc();
    wrmsr(0x3b, 1ull << 40);
    check(rdtsc() - t >= 1ull << 40 && rdtsc() - t < 1ull << 41, "TSC_ADJUST moves the TSC", "by 0x%lx", rdtsc() - t);
    wrmsr(0x3b, 0);
    check(rdtsc() - t < 1ull << 39, "and back", "0x%lx", rdtsc() - t);
    wrmsr(0x10, 5000);
    check(rdtsc() < 5000 + us(2000000), "the TSC can be written", "0x%lx", rdtsc());
    check(rdmsr(0x3b) != 0, "and TSC_ADJUST follows", "0");
    wrmsr(0x3b, 0);
    check(rdmsr(0x10) - rdtsc() + us(1000000) < us(2000000), "MSR and RDTSC agree", "0x%lx, 0x%lx", rdmsr(0x10), rdtsc());
    wrmsr(0xc0000103, 77);
    uint32_t lo, hi;
    __asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
    check((uint32_t)aux == 77, "RDTSCP reads TSC_AUX", "%u", (unsigned)aux);
}

void guest_main(void)
{
    test_bits();
    test_leaves();
    test_dynamic();
    test_control_registers();
    test_instructions();
    test_stored();
    test_unknown();
    test_efer();
    test_tsc();
}
