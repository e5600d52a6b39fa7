/*
 * Exceptions and interrupts of the host.
 */
#ifndef METRONOME_TRAP_H
#define METRONOME_TRAP_H

#include <stdint.h>

/* As arch/x86/cpu/entry.S pushes it. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

enum { VECTOR_NMI = 2, VECTOR_DF = 8, VECTOR_GP = 13, VECTOR_PF = 14, VECTOR_MC = 18 };

void trap_dispatch(struct trap_frame *frame);

/* panic() with the registers of a trap instead of those of the caller. */
void panic_at(const struct trap_frame *frame, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Taken by an NMI while another CPU panics: does not return. */
void panic_stop_here(void) __attribute__((noreturn));
bool panic_in_progress(void);

#endif
