/*
 * MSR policy, beside docs/cpuid-msr.md: what is emulated here, everything else is #GP. FS, GS, KernelGSBase, STAR, LSTAR,
 * CSTAR, SFMASK and SYSENTER belong to the hardware and never exit.
 */
#include "hvm.h"

#define MSR_MTRRCAP 0xfeu
#define MSR_MCG_CAP 0x179u
#define MSR_MCG_STATUS 0x17au
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_MTRR_PHYS 0x200u /* eight pairs of base and mask */
#define MSR_MTRR_DEF 0x2ffu
#define MSR_MC0_CTL 0x400u
#define MSR_SYSCFG 0xc0010010u
#define MSR_HWCR 0xc0010015u

#define MTRR_VARIABLE 8u
#define MC_BANKS 4u
#define PAT_RESET 0x0007040600070406ull
#define MISC_ENABLE_RESET 1ull /* fast strings */
#define HWCR_ALLOWED 0x01000059ull
#define PAT_TYPES 0xf3u  /* memory types 0, 1, 4, 5, 6, 7 */
#define MTRR_TYPES 0x73u /* without 7, UC-, which only a PAT has */

static const uint32_t fixed_mtrr[11] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

void msr_reset(struct vcpu *v)
{
    v->pat = PAT_RESET;
    v->misc_enable = MISC_ENABLE_RESET;
    v->mtrr_def = v->syscfg = v->hwcr = v->mcg_status = v->tsc_aux = 0;
    memset(v->mtrr_fixed, 0, sizeof(v->mtrr_fixed));
    memset(v->mtrr_variable, 0, sizeof(v->mtrr_variable));
    memset(v->mc, 0, sizeof(v->mc));
}

/* The stored register behind an MSR with its writable bits; NULL where there is none. */
static uint64_t *stored(struct vcpu *v, uint32_t msr, uint64_t *writable)
{
    *writable = UINT64_MAX;
    if (msr - MSR_MTRR_PHYS < 2 * MTRR_VARIABLE) {
        *writable = ((1ull << cpu_features.phys_bits) - 1) & (msr & 1 ? ~0x7ffull : ~0xf00ull);
        return &v->mtrr_variable[msr - MSR_MTRR_PHYS];
    }
    if (msr - MSR_MC0_CTL < 4 * MC_BANKS)
        return &v->mc[msr - MSR_MC0_CTL];
    for (unsigned i = 0; i < 11; i++)
        if (fixed_mtrr[i] == msr)
            return &v->mtrr_fixed[i];
    switch (msr) {
    case MSR_MTRR_DEF:
        *writable = 0xcff;
        return &v->mtrr_def;
    case MSR_MISC_ENABLE:
        *writable = MISC_ENABLE_RESET;
        return &v->misc_enable;
    case MSR_MCG_STATUS:
        *writable = 7;
        return &v->mcg_status;
    case MSR_SYSCFG:
        *writable = 0x7c0000;
        return &v->syscfg;
    case MSR_HWCR:
        *writable = HWCR_ALLOWED;
        return &v->hwcr;
    case MSR_TSC_AUX:
        *writable = UINT32_MAX;
        return cpu_features.rdtscp ? &v->tsc_aux : NULL;
    }
    return NULL;
}

static bool is_vlapic(uint32_t msr)
{
    return msr - MSR_X2APIC_FIRST < 0x100 || msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || msr == MSR_TSC ||
           msr == MSR_TSC_ADJUST;
}

/* Constants: microcode revision, platform id, and registers of power management that systems look at. */
static bool constant(uint32_t msr, uint64_t *value)
{
    static const struct {
        uint32_t msr;
        uint64_t value;
    } constants[] = {
        {MSR_MTRRCAP, 0x500 | MTRR_VARIABLE}, {MSR_MCG_CAP, MC_BANKS}, {0x8b, 0x1000065}, {0x17, 0}, {0x2a, 0},
        {0xc0010055, 0}, {0xc0010058, 0}, {0xc001001f, 0}, {0xc0010140, 0}, {0xc0010141, 0}, {0xc0010112, 0}, {0xc0010113, 0},
        {0xc0011029, 2}, /* DE_CFG: LFENCE serialises */
    };

    for (unsigned i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
        if (constants[i].msr == msr) {
            *value = constants[i].value;
            return true;
        }
    return false;
}

bool msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    uint64_t writable, *reg;

    if (is_vlapic(msr))
        return vlapic_msr_read(&v->vlapic, vtime_tsc(&v->domain->time), msr, value);
    reg = stored(v, msr, &writable);
    if (reg) {
        *value = *reg;
        return true;
    }
    if (msr == MSR_EFER || msr == MSR_PAT) {
        *value = msr == MSR_PAT ? v->pat : vendor->get_efer(v);
        return true;
    }
    return constant(msr, value);
}

/* The lowest `n` bytes are memory types of the set. */
static bool valid_types(uint64_t value, unsigned n, unsigned types)
{
    for (; n; n--, value >>= 8)
        if ((value & 0xff) > 7 || !(types >> (value & 7) & 1))
            return false;
    return true;
}

static bool valid_write(uint32_t msr, uint64_t value)
{
    if (msr == MSR_MTRR_DEF || (msr - MSR_MTRR_PHYS < 2 * MTRR_VARIABLE && !(msr & 1)))
        return valid_types(value, 1, MTRR_TYPES);
    return msr < fixed_mtrr[0] || msr > fixed_mtrr[10] || valid_types(value, 8, MTRR_TYPES);
}

/* False: no register that is stored, or no value of it. */
static bool store(struct vcpu *v, uint32_t msr, uint64_t value)
{
    uint64_t writable, *reg = stored(v, msr, &writable);

    if (!reg || (value & ~writable) || !valid_write(msr, value))
        return false;
    *reg = value;
    return true;
}

static bool store_pat(struct vcpu *v, uint64_t value)
{
    if (!valid_types(value, 8, PAT_TYPES))
        return false;
    v->pat = value;
    vendor->set_pat(v);
    return true;
}

bool msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
    uint64_t unused;

    if (is_vlapic(msr)) {
        uint64_t now = vtime_tsc(&v->domain->time);
        unsigned reg = (msr - MSR_X2APIC_FIRST) * 16; /* of the other MSRs none */
        uint64_t base = v->vlapic.apic_base;

        if (!value)
            inject_ended(v, reg, now);
        if (!vlapic_msr_write(&v->vlapic, now, msr, value))
            return false;
        if (trace_on(TRACE_EMUL_LAPIC_START))
            trace_apic_timer(v, msr == MSR_TSC_DEADLINE ? APIC_TIMER_COUNT : reg, now);
        if (v->vlapic.apic_base != base)
            vcpu_forget_walks(v); /* its page may lie over RAM now, or no longer */
        inject_sent(v, reg, value, now);
        fabric_take_apic_output(v);
        return true;
    }
    if (stored(v, msr, &unused)) {
        if (!store(v, msr, value))
            return false;
        if (msr == MSR_TSC_AUX)
            wrmsr(MSR_TSC_AUX, value);
        return true;
    }
    if (msr == MSR_PAT)
        return store_pat(v, value);
    if (msr == MSR_EFER && !(value & ~EFER_ALLOWED))
        return vendor->set_efer(v, value);
    if (msr == MSR_MCG_CAP || msr == MSR_MTRRCAP)
        return false;
    return constant(msr, &unused); /* writes to the constants vanish */
}

/* Runs of the MSRs that are stored. */
static const struct {
    uint32_t first, count;
} saved_runs[] = {
    {MSR_MTRR_PHYS, 2 * MTRR_VARIABLE}, {MSR_MC0_CTL, 4 * MC_BANKS}, {0x250, 1}, {0x258, 2},      {0x268, 8},
    {MSR_MTRR_DEF, 1},                  {MSR_MISC_ENABLE, 1},        {MSR_MCG_STATUS, 1}, {MSR_SYSCFG, 1}, {MSR_HWCR, 1},
    {MSR_TSC_AUX, 1},
};

unsigned msr_save(struct vcpu *v, struct metronome_state_msr *to)
{
    unsigned n = 0;

    to[n++] = (struct metronome_state_msr){.index = MSR_PAT, .value = v->pat};
    for (unsigned i = 0; i < sizeof(saved_runs) / sizeof(saved_runs[0]); i++)
        for (uint32_t msr = saved_runs[i].first; msr < saved_runs[i].first + saved_runs[i].count; msr++) {
            uint64_t writable, *reg = stored(v, msr, &writable);

            if (reg)
                to[n++] = (struct metronome_state_msr){.index = msr, .value = *reg};
        }
    return n;
}

bool msr_restore(struct vcpu *v, uint32_t msr, uint64_t value)
{
    return msr == MSR_PAT ? store_pat(v, value) : store(v, msr, value);
}
