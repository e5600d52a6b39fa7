/*
 * CPUID policy: the host's leaves through one table of masks, then what describes this vCPU. docs/cpuid-msr.md is the
 * same table for people.
 */
#include "hvm.h"

#define MAX_BASIC 0x16u
#define MAX_EXTENDED 0x80000008u
#define HYPERVISOR_LEAF 0x40000000u

enum { EAX, EBX, ECX, EDX };
#define BIT(n) (1u << (n))

/* Bits that a guest may see, where the host has them. Leaves that are not here are all zero. */
struct leaf_mask {
    uint32_t leaf, subleaf;
    uint32_t mask[4];
};

#define ANY_SUBLEAF UINT32_MAX

static const struct leaf_mask leaf_masks[] = {
    {0x00000000, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    /* 1.ECX without MONITOR 3, VMX 5, SMX 6, EIST 7, TM2 8, SDBG 11, PDCM 15; OSXSAVE 27 follows CR4. 1.EDX without ACPI
     * thermal 22, HTT 28 (set below), TM 29, PBE 31, DS 21. */
    {0x00000001, ANY_SUBLEAF, {~0u, ~0u, 0x77fa3203, 0x0f8bfbff}},
    {0x00000002, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x00000004, ANY_SUBLEAF, {0x000003ff, ~0u, ~0u, ~0u}},
    /* 6.EAX bit 2: ARAT, set below. */
    {0x00000006, ANY_SUBLEAF, {0, 0, 0, 0}},
    /* 7.EBX: FSGSBASE 0, TSC_ADJUST 1, BMI1 3, AVX2 5, SMEP 7, BMI2 8, ERMS 9, INVPCID 10, RDSEED 18, ADX 19, SMAP 20,
     * CLFLUSHOPT 23, CLWB 24, SHA 29. 7.ECX: UMIP 2, PKU 3, VAES 9, VPCLMULQDQ 10, RDPID 22; neither LA57 16 nor PKS 31.
     * 7.EDX: FSRM 4. */
    {0x00000007, 0, {0, 0x219c07ab, 0x0040060c, 0x00000010}},
    /* XCR0: x87, SSE, AVX, PKRU. */
    {0x0000000d, 0, {0x00000207, ~0u, ~0u, 0}},
    {0x0000000d, 1, {0x00000007, ~0u, 0, 0}}, /* XSAVEOPT, XSAVEC, XGETBV1; no XSAVES */
    {0x0000000d, 2, {~0u, ~0u, ~0u, ~0u}},
    {0x0000000d, 9, {~0u, ~0u, ~0u, ~0u}},
    {0x80000000, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    /* 80000001.ECX: LAHF 0, ABM 5, SSE4A 6, MISALIGNSSE 7, 3DNOWPREFETCH 8, FMA4/TBM/XOP; no SVM 2, no MONITORX 29. */
    {0x80000001, ANY_SUBLEAF, {~0u, ~0u, 0x002109e1, 0xefd3fbff}},
    {0x80000002, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x80000003, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x80000004, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x80000005, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x80000006, ANY_SUBLEAF, {~0u, ~0u, ~0u, ~0u}},
    {0x80000007, ANY_SUBLEAF, {0, 0, 0, 0x00000100}}, /* invariant TSC, where the host's is */
    {0x80000008, ANY_SUBLEAF, {0x0000ffff, 0x00000001, 0, 0}},
};

static struct cpuid_result host_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r = cpuid(leaf, subleaf);

    if (leaf == 0x80000007 && cpu_features.invariant_tsc) /* TCG's is, but does not say so */
        r.edx |= BIT(8);
    return r;
}

static const struct leaf_mask *mask_of(uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < sizeof(leaf_masks) / sizeof(leaf_masks[0]); i++)
        if (leaf_masks[i].leaf == leaf && (leaf_masks[i].subleaf == ANY_SUBLEAF || leaf_masks[i].subleaf == subleaf))
            return &leaf_masks[i];
    return NULL;
}

/* Asked for at each change of vCPU: under another hypervisor CPUID is an exit. */
uint64_t xcr0_allowed(void)
{
    static uint64_t allowed;

    if (!allowed && cpu_features.xsave)
        allowed = 3 | (cpuid(0xd, 0).eax & 0x204);
    return allowed;
}

/* Size of the XSAVE area for the components in `xcr0`, in the standard or the compacted format (SDM 1 13.4). */
static uint32_t xsave_size(uint64_t xcr0, bool compacted)
{
    uint32_t size = 576; /* legacy region and header */

    for (unsigned i = 2; i < 32; i++) {
        struct cpuid_result r;
        uint32_t offset;

        if (!(xcr0 >> i & 1))
            continue;
        r = cpuid(0xd, i);
        offset = !compacted ? r.ebx : r.ecx & BIT(1) ? (size + 63) & ~63u : size;
        if (offset + r.eax > size)
            size = offset + r.eax;
    }
    return size;
}

/* A package's cores are numbered by that many low bits of the APIC id, the packages by those above. */
static unsigned core_bits(const struct domain *d)
{
    unsigned bits = 0;

    while (1u << bits < d->header.cores)
        bits++;
    return bits;
}

static void describe_topology(const struct vcpu *v, uint32_t subleaf, struct cpuid_result *r)
{
    r->eax = subleaf == 1 ? core_bits(v->domain) : 0;
    r->ebx = subleaf == 0 ? 1 : subleaf == 1 ? v->domain->header.cores : 0;
    r->ecx = subleaf | (subleaf == 0 ? 0x100 : subleaf == 1 ? 0x200 : 0);
    r->edx = v->vlapic.apic_id;
}

static void describe_basic(const struct vcpu *v, struct cpuid_result *r)
{
    const struct emu_regs *regs = &v->emu.regs;

    r->ebx = (r->ebx & 0xff00) | v->domain->header.cores << 16 | v->vlapic.apic_id << 24;
    r->ecx |= BIT(21) | BIT(24) | BIT(31); /* x2APIC, TSC-deadline, hypervisor */
    if ((regs->cr4 & CR4_OSXSAVE) && cpu_features.xsave)
        r->ecx |= BIT(27);
    if (v->domain->header.cores > 1)
        r->edx |= BIT(28); /* HTT */
    if (!(v->vlapic.apic_base & APIC_BASE_EN))
        r->edx &= ~BIT(9);
}

static struct cpuid_result hypervisor_leaf(const struct vcpu *v, uint32_t leaf)
{
    struct cpuid_result r = {0, 0, 0, 0};

    if (leaf == HYPERVISOR_LEAF) {
        r.eax = HYPERVISOR_LEAF + 0x10;
        memcpy(&r.ebx, "Metr", 4);
        memcpy(&r.ecx, "onom", 4);
        memcpy(&r.edx, "e\0\0\0", 4);
    } else if (leaf == HYPERVISOR_LEAF + 0x10) { /* TSC and APIC timer frequency in kHz: VMware's convention, which guests read */
        r.eax = r.ebx = (uint32_t)(v->domain->time.tsc_hz / 1000);
    }
    return r;
}

/* XCR0 is the guest's own while its vCPU is handled (and TCG has no XSETBV exit to keep a copy by). */
static void describe(struct vcpu *v, uint32_t leaf, uint32_t subleaf, struct cpuid_result *r)
{
    const struct domain *d = v->domain;

    switch (leaf) {
    case 0x0:
        r->eax = r->eax < MAX_BASIC ? (r->eax < 0xd ? 0xd : r->eax) : MAX_BASIC;
        break;
    case 0x1:
        describe_basic(v, r);
        break;
    case 0x4:
        if (r->eax & 0x1f) /* there is such a cache */
            r->eax |= (d->header.cores - 1) << 26;
        break;
    case 0x6:
        r->eax = BIT(2);
        break;
    case 0x7:
        if (subleaf == 0) {
            r->ebx |= BIT(1);
            if ((v->emu.regs.cr4 & CR4_PKE) && (r->ecx & BIT(3)))
                r->ecx |= BIT(4);
        }
        break;
    case 0xb:
        describe_topology(v, subleaf, r);
        break;
    case 0xd:
        if (!cpu_features.xsave)
            break;
        if (subleaf == 0) {
            r->ebx = xsave_size(xgetbv(0), false);
            r->ecx = xsave_size(xcr0_allowed(), false);
        } else if (subleaf == 1) {
            r->ebx = xsave_size(xgetbv(0), true);
        }
        break;
    case 0x80000000:
        r->eax = r->eax < MAX_EXTENDED ? r->eax : MAX_EXTENDED;
        break;
    case 0x80000001:
        if (d->header.cores > 1)
            r->ecx |= BIT(1); /* CmpLegacy: what leaf 1 counts are cores, no threads */
        break;
    case 0x80000008:
        r->ecx = core_bits(d) << 12 | (d->header.cores - 1);
        break;
    }
}

struct cpuid_result cpuid_policy(struct vcpu *v, uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r = {0, 0, 0, 0};
    const struct leaf_mask *m;

    if (leaf - HYPERVISOR_LEAF < 0x10000)
        return hypervisor_leaf(v, leaf);
    m = mask_of(leaf, subleaf);
    if (m) {
        r = host_cpuid(leaf, subleaf);
        r.eax &= m->mask[EAX];
        r.ebx &= m->mask[EBX];
        r.ecx &= m->mask[ECX];
        r.edx &= m->mask[EDX];
    }
    describe(v, leaf, subleaf, &r);
    return r;
}

/* CR4 bits that the policy's features leave a guest; others #GP. */
uint64_t cr4_allowed(void)
{
    static uint64_t allowed;
    const struct cpu_features *f = &cpu_features;

    if (!allowed)
        allowed = 0x7ff | (f->umip ? CR4_UMIP : 0) | (f->fsgsbase ? CR4_FSGSBASE : 0) |
                  (cpuid(1, 0).ecx & BIT(17) ? CR4_PCIDE : 0) | (f->xsave ? CR4_OSXSAVE : 0) | (f->smep ? CR4_SMEP : 0) |
                  (f->smap ? CR4_SMAP : 0) | (f->pku ? CR4_PKE : 0);
    return allowed;
}

/* A saved system needs its features (some of a word's bits), and its XSAVE areas where they were (the whole word). */
static const struct {
    uint32_t leaf, subleaf;
    unsigned word;
    bool same;
} saved_words[] = {
    {0x1, 0, ECX, false},        {0x1, 0, EDX, false},        {0x7, 0, EBX, false},        {0x7, 0, ECX, false},
    {0x7, 0, EDX, false},        {0xd, 0, EAX, false},        {0xd, 1, EAX, false},        {0xd, 2, EBX, true},
    {0xd, 9, EBX, true},         {0x80000001, 0, ECX, false}, {0x80000001, 0, EDX, false}, {0x80000007, 0, EDX, false},
    {0x80000008, 0, EAX, true},
};
#define SAVED_WORDS (sizeof(saved_words) / sizeof(saved_words[0]))
ct_assert(SAVED_WORDS <= CPUID_WORDS);

static uint32_t saved_word(unsigned i)
{
    const struct cpuid_result r = host_cpuid(saved_words[i].leaf, saved_words[i].subleaf);
    const uint32_t words[] = {r.eax, r.ebx, r.ecx, r.edx};

    return words[saved_words[i].word] & mask_of(saved_words[i].leaf, saved_words[i].subleaf)->mask[saved_words[i].word];
}

unsigned cpuid_save(uint32_t *words)
{
    for (unsigned i = 0; i < SAVED_WORDS; i++)
        words[i] = saved_word(i);
    return SAVED_WORDS;
}

bool cpuid_covers(const uint32_t *words)
{
    for (unsigned i = 0; i < SAVED_WORDS; i++) {
        uint32_t here = saved_word(i);

        if (saved_words[i].same ? words[i] != here : (words[i] & ~here) != 0)
            return false;
    }
    return true;
}
