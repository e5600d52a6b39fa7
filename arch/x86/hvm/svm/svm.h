/*
 * AMD-V: what the files of this folder share.
 */
#ifndef METRONOME_SVM_H
#define METRONOME_SVM_H

#include "hvm.h"
#include "loader/loader.h"
#include "svm/vmcb.h"

/*
 * What was found out about an instruction that exits, for CPUs that do not save the next RIP. It holds while the same bytes are in the
 * same place and the same exit comes from the same address: a page that the guest maps anew there, with the same kind of instruction
 * behind other prefixes, is not told from the old one.
 */
struct skipped {
    uint64_t rip, cs_base, cr3, generation, next; /* of the p2m: where `code` is may have changed */
    const uint8_t *code;
    uint32_t exitcode, bytes;
};
#define SKIPPED_BITS 6u

struct vendor_state {
    struct vmcb *vmcb;
    uint64_t vmcb_physical;
    bool lme_hidden;     /* EFER.LME that the guest has set is kept from the VMCB until CR4.PAE is (quirk of TCG) */
    bool stepping;       /* one instruction, then an exit: TF, DR6.BS and the exception intercepts are ours */
    bool step_tf, step_bs; /* the guest's own TF and DR6.BS meanwhile */
    bool over_iret;      /* the instruction is the IRET that ends an NMI's handler */
    bool virtual_interrupt; /* V_IRQ at this entry is an interrupt to deliver, not a window to wait for (quirk of TCG) */
    bool entry_shadow;   /* this entry was at an instruction in an interrupt shadow (quirk of TCG) */
    bool leave;          /* this entry is to be left at once */
    bool at_rest;        /* the last entry injected nothing, and the VMCB asks for no exit on account of an event */
    bool flush;          /* its translations on this pCPU are stale */
    struct skipped skipped[1u << SKIPPED_BITS];
};

static inline struct vmcb *vmcb_of(const struct vcpu *v)
{
    return v->vendor->vmcb;
}

/* What the last exit was for (exits.c). */
enum exit_action svm_exit(struct vcpu *v);

void svm_enter(uint64_t gpr[16], uint64_t vmcb);
bool svm_set_efer(struct vcpu *v, uint64_t value);
uint64_t svm_get_efer(const struct vcpu *v);
void svm_load_regs(struct vcpu *v);
/* Makes the guest exit after one instruction, or in the fault that it raises. */
void svm_step(struct vcpu *v);
/* The guest's own RFLAGS and DR6, if a step is under way. */
void svm_without_step(const struct vcpu *v, uint64_t *rflags, uint64_t *dr6);
/* Continues the instruction whose device access has been answered. */
enum exit_action svm_again(struct vcpu *v);

/* #DB and #AC could loop for ever in delivery; #MC is ours. */
#define EXCEPTIONS (1u << 1 | 1u << 17 | 1u << 18)

#endif
