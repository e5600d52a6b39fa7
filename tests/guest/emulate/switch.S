/*
 * run_code(): from long mode into the mode that STATE says, through the code at CODE, and back. .low is below 64 KiB, one to
 * one. The tested code ends with a jump to leave64, leave32 or leave16 (all of them symbols for modes.c).
 *
 * FS is flat and reaches the state in every mode; DS and ES belong to the tested code; SS is flat.
 */
#define STATE 0x7000
#define IN(r) STATE + 8 * (r)
#define IN_FLAGS STATE + 0x80
#define OUT(r) STATE + 0x88 + 8 * (r)
#define OUT_FLAGS STATE + 0x108
#define HOST_RSP STATE + 0x110
#define MODE STATE + 0x118
#define CR3_LONG STATE + 0x11c
#define CR3_PAE STATE + 0x120
#define DS_SELECTOR STATE + 0x124
#define ES_SELECTOR STATE + 0x126
#define STACK 0x6e00 /* ours; the tested code's lies above */
#define CODE 0x9800

#define CODE64 0x08
#define DATA 0x10
#define CODE32 0x18
#define CODE16 0x20
#define DATA16 0x38

#define M_COMPAT16 2
#define M_PAE32 3
#define M_PROT16 5
#define M_REAL 6

#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

    .section .low, "awx"
    .global run_code, leave64, leave32, leave16

    .code64
run_code:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, HOST_RSP
    cmpl $0, MODE
    jne 1f
    pushq IN_FLAGS
    popfq
    .irp r, 8, 9, 10, 11, 12, 13, 14, 15
    mov IN(\r), %r\r
    .endr
    mov IN(0), %rax
    mov IN(1), %rcx
    mov IN(2), %rdx
    mov IN(3), %rbx
    mov IN(4), %rsp
    mov IN(5), %rbp
    mov IN(6), %rsi
    mov IN(7), %rdi
    jmp CODE
1:  mov $STACK, %rsp
    pushq $CODE32
    pushq $enter32
    lretq

leave64:
    .irp r, 8, 9, 10, 11, 12, 13, 14, 15
    mov %r\r, OUT(\r)
    .endr
    mov %rax, OUT(0)
    mov %rcx, OUT(1)
    mov %rdx, OUT(2)
    mov %rbx, OUT(3)
    mov %rsp, OUT(4)
    mov %rbp, OUT(5)
    mov %rsi, OUT(6)
    mov %rdi, OUT(7)
    mov HOST_RSP, %rsp
    pushfq
    popq OUT_FLAGS
return64:
    cld
    mov HOST_RSP, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* Loads and stores in 32 and 16-bit code: the same source, the assembler adds the prefixes. */
    .macro load_registers
    mov $STACK, %esp
    pushl %fs:IN_FLAGS
    popfl
    movl %fs:IN(0), %eax
    movl %fs:IN(1), %ecx
    movl %fs:IN(2), %edx
    movl %fs:IN(3), %ebx
    movl %fs:IN(4), %esp
    movl %fs:IN(5), %ebp
    movl %fs:IN(6), %esi
    movl %fs:IN(7), %edi
    .endm
    .macro store_registers
    movl %eax, %fs:OUT(0)
    movl %ecx, %fs:OUT(1)
    movl %edx, %fs:OUT(2)
    movl %ebx, %fs:OUT(3)
    movl %esp, %fs:OUT(4)
    movl %ebp, %fs:OUT(5)
    movl %esi, %fs:OUT(6)
    movl %edi, %fs:OUT(7)
    mov $STACK, %esp
    pushfl
    popl %fs:OUT_FLAGS
    cld
    .endm

    .code32
enter32: /* 32-bit code in long mode */
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov MODE, %ebx
    cmp $M_COMPAT16, %ebx
    jbe 2f
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov $MSR_EFER, %ecx
    rdmsr
    and $~EFER_LME, %eax
    wrmsr
    cmp $M_PAE32, %ebx
    jne 2f
    mov CR3_PAE, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
2:  cmp $M_COMPAT16, %ebx
    je 3f
    cmp $M_PROT16, %ebx
    jae 3f
    mov ES_SELECTOR, %eax
    mov %eax, %es
    mov DS_SELECTOR, %eax
    mov %eax, %ds
    load_registers
    jmp CODE
3:  ljmp $CODE16, $enter16

leave32:
    store_registers
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
back32: /* paging may be on or off, long mode active or not */
    mov $MSR_EFER, %ecx
    rdmsr
    test $EFER_LME, %eax
    jnz 4f
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov CR3_LONG, %eax
    mov %eax, %cr3
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
4:  ljmp $CODE64, $return64_in

    .code64
return64_in:
    xor %eax, %eax
    mov %eax, %fs
    jmp return64

    .code16
enter16: /* 16-bit protected code; paging as the mode wants it */
    movw $DATA16, %ax
    movw %ax, %ss
    movw %fs:ES_SELECTOR, %ax
    movw %ax, %es
    movw %fs:DS_SELECTOR, %ax
    movw %ax, %ds /* in real mode it stays: base and limit of the descriptor */
    cmpl $M_REAL, %fs:MODE
    jb 5f
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmp $0, $6f
6:  xorw %ax, %ax
    movw %ax, %ss
    movw %ax, %fs
5:  load_registers
    jmp CODE

leave16:
    store_registers
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $CODE32, $7f
    .code32
7:  mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    jmp back32

    .section .note.GNU-stack, "", @progbits
