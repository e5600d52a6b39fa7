/*
 * The 256 entries of the IDT, in front of trap_dispatch(). No SWAPGS: per-CPU data is found by the stack (cpu.h).
 */
#include "../boot/layout.h"

    .text
    .balign 16
    .global trap_entries
trap_entries: /* 16 bytes each */
    .set vector, 0
    .rept 256
    .balign 16
    /* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC and #SX push an error code (SDM 3A table 6-1, APM 2 table 8-1) */
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push $0
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    cld
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    push 17 * 8(%rsp) /* RIP and RBP once more, as a frame: backtraces go through an interrupt */
    push %rbp
    mov %rsp, %rbp
    call trap_dispatch /* the CPU aligned the stack by 16; 24 words were pushed */
    add $16, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq

/* void load_segments(void): the selectors of the GDT just loaded. FS and GS are the guest's to have. */
    .global load_segments
load_segments:
    pop %rax
    push $SELECTOR_CODE
    push %rax
    mov $SELECTOR_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lretq

/* void call_on_stack(void (*f)(void), void *top): never returns. */
    .global call_on_stack
call_on_stack:
    mov %rsi, %rsp
    xor %ebp, %ebp
    push %rbp /* no return address: backtraces end here */
    jmp *%rdi

    .section .note.GNU-stack, "", @progbits
