/*
 * AMD-V: what the files of this folder share.
 */
#ifndef METRONOME_SVM_H
#define METRONOME_SVM_H

#include "hvm.h"
#include "loader/loader.h"
#include "svm/vmcb.h"

struct vendor_state {
    struct vmcb *vmcb;
    uint64_t vmcb_physical;
    bool lme_hidden;     /* EFER.LME that the guest has set is kept from the VMCB until CR4.PAE is (quirk of TCG) */
    bool stepping_tf;    /* the guest's own TF while we step */
    bool flush;          /* its translations on this pCPU are stale */
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
/* Makes the guest exit after one instruction; where the CPU cannot hold an interrupt shadow for us. */
void svm_step(struct vcpu *v);

#endif
