/*
 * The VMCB (APM 2 appendix B) and what its fields mean.
 */
#ifndef METRONOME_VMCB_H
#define METRONOME_VMCB_H

#include "device.h"

struct vmcb_segment {
    uint16_t selector, attributes;
    uint32_t limit;
    uint64_t base;
};

struct vmcb {
    /* Control area. */
    uint16_t intercept_cr_read, intercept_cr_write;
    uint16_t intercept_dr_read, intercept_dr_write;
    uint32_t intercept_exceptions;
    uint32_t intercept1, intercept2, intercept3; /* 0x0c, 0x10, 0x14 */
    uint8_t zero_18[0x3c - 0x18];
    uint16_t pause_threshold, pause_count;
    uint64_t iopm, msrpm, tsc_offset;
    uint32_t asid;
    uint8_t tlb_control, zero_5d[3];
    uint8_t v_tpr, v_irq, v_control, v_enable; /* 0x60: TPR; V_IRQ, VGIF; priority, ignore TPR; V_INTR_MASKING */
    uint8_t v_vector, zero_65[3];
    uint64_t interrupt_shadow;
    uint64_t exitcode, exitinfo1, exitinfo2;
    uint64_t exitintinfo;
    uint64_t np_enable;
    uint8_t zero_98[0xa8 - 0x98];
    uint64_t eventinj;
    uint64_t n_cr3;
    uint64_t lbr_enable;
    uint32_t clean, zero_c4;
    uint64_t next_rip;
    uint8_t fetched, bytes[15];
    uint8_t zero_e0[0x400 - 0xe0];
    /* State save area. */
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    uint8_t zero_4a0[0x4cb - 0x4a0];
    uint8_t cpl;
    uint32_t zero_4cc;
    uint64_t efer;
    uint8_t zero_4d8[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
    uint8_t zero_580[0x5d8 - 0x580];
    uint64_t rsp, s_cet, ssp, isst, rax;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t cr2;
    uint8_t zero_648[0x668 - 0x648];
    uint64_t g_pat, debugctl;
    uint8_t zero_678[0x1000 - 0x678];
};
ct_assert(offsetof(struct vmcb, iopm) == 0x40);
ct_assert(offsetof(struct vmcb, asid) == 0x58);
ct_assert(offsetof(struct vmcb, v_tpr) == 0x60);
ct_assert(offsetof(struct vmcb, exitcode) == 0x70);
ct_assert(offsetof(struct vmcb, np_enable) == 0x90);
ct_assert(offsetof(struct vmcb, eventinj) == 0xa8);
ct_assert(offsetof(struct vmcb, next_rip) == 0xc8);
ct_assert(offsetof(struct vmcb, es) == 0x400);
ct_assert(offsetof(struct vmcb, cpl) == 0x4cb);
ct_assert(offsetof(struct vmcb, efer) == 0x4d0);
ct_assert(offsetof(struct vmcb, cr4) == 0x548);
ct_assert(offsetof(struct vmcb, rip) == 0x578);
ct_assert(offsetof(struct vmcb, rsp) == 0x5d8);
ct_assert(offsetof(struct vmcb, rax) == 0x5f8);
ct_assert(offsetof(struct vmcb, cr2) == 0x640);
ct_assert(offsetof(struct vmcb, g_pat) == 0x668);
ct_assert(sizeof(struct vmcb) == 4096);

/* intercept1 */
enum {
    I1_INTR = 1u << 0, I1_NMI = 1u << 1, I1_SMI = 1u << 2, I1_INIT = 1u << 3, I1_VINTR = 1u << 4, I1_RDPMC = 1u << 15,
    I1_CPUID = 1u << 18, I1_IRET = 1u << 20, I1_INVD = 1u << 22, I1_PAUSE = 1u << 23, I1_HLT = 1u << 24, I1_INVLPGA = 1u << 26,
    I1_IOIO = 1u << 27, I1_MSR = 1u << 28, I1_TASK_SWITCH = 1u << 29, I1_FERR = 1u << 30, I1_SHUTDOWN = 1u << 31,
};
/* intercept2 */
enum {
    I2_VMRUN = 1u << 0, I2_VMMCALL = 1u << 1, I2_VMLOAD = 1u << 2, I2_VMSAVE = 1u << 3, I2_STGI = 1u << 4, I2_CLGI = 1u << 5,
    I2_SKINIT = 1u << 6, I2_WBINVD = 1u << 9, I2_MONITOR = 1u << 10, I2_MWAIT = 1u << 11, I2_MWAIT_ARMED = 1u << 12,
    I2_XSETBV = 1u << 13,
};

#define V_IRQ 1u
#define V_PRIORITY_MAX 0x0fu
#define V_IGNORE_TPR 0x10u
#define V_INTR_MASKING 1u
#define TLB_FLUSH_ALL 1u

/* EVENTINJ and EXITINTINFO (APM 2 15.20). */
#define EVENT_VALID (1ull << 31)
#define EVENT_HAS_ERROR (1ull << 11)
#define WITH_ERROR_CODE (1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21 | 1u << 29 | 1u << 30) /* exceptions (APM 2 table 8-1) */

enum {
    VMEXIT_CR_READ = 0x00, VMEXIT_CR_WRITE = 0x10, VMEXIT_EXCEPTION = 0x40, VMEXIT_INTR = 0x60, VMEXIT_NMI = 0x61,
    VMEXIT_SMI = 0x62, VMEXIT_INIT = 0x63, VMEXIT_VINTR = 0x64, VMEXIT_RDPMC = 0x6f, VMEXIT_CPUID = 0x72, VMEXIT_IRET = 0x74,
    VMEXIT_INVD = 0x76, VMEXIT_PAUSE = 0x77, VMEXIT_HLT = 0x78, VMEXIT_INVLPGA = 0x7a, VMEXIT_IOIO = 0x7b, VMEXIT_MSR = 0x7c,
    VMEXIT_SHUTDOWN = 0x7f, VMEXIT_VMRUN = 0x80, VMEXIT_VMMCALL = 0x81, VMEXIT_VMLOAD = 0x82, VMEXIT_VMSAVE = 0x83,
    VMEXIT_STGI = 0x84, VMEXIT_CLGI = 0x85, VMEXIT_SKINIT = 0x86, VMEXIT_WBINVD = 0x89, VMEXIT_MONITOR = 0x8a,
    VMEXIT_MWAIT = 0x8b, VMEXIT_MWAIT_ARMED = 0x8c, VMEXIT_XSETBV = 0x8d, VMEXIT_NPF = 0x400,
};
#define VMEXIT_INVALID 0xffffffffu

#endif
