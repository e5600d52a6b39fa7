/*
 * Where another CPU starts: copied to a page below 1 MiB, entered in real mode at its first byte. smp.c fills in the
 * fields at the end. One step from real to long mode (APM 2 14.8, SDM 3A 9.8.5): PE and PG are set together.
 */
#include "../boot/layout.h"

#define AT(label) ((label) - trampoline_start)

    .section .rodata
    .balign 16
    .global trampoline_start, trampoline_end, trampoline_fields
    .code16
trampoline_start:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    mov $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov AT(field_cr3), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax /* LME, NXE: the tables have NX bits */
    wrmsr
    lgdtl AT(field_gdt_limit)
    mov %cr0, %eax
    and $0x9fffffff, %eax /* caches on */
    or $0x80010001, %eax  /* PG, WP, PE */
    mov %eax, %cr0
    ljmpl *AT(field_long)

    .code64
trampoline_long:
    mov $SELECTOR_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov field_stack(%rip), %rsp
    xor %ebp, %ebp
    push %rbp /* no return address: backtraces end here */
    jmp *field_entry(%rip)

    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
trampoline_gdt_end:

    .balign 8
trampoline_fields: /* struct fields of smp.c */
field_stack:
    .quad 0
field_entry:
    .quad 0
field_cr3:
    .long 0
field_long:
    .long AT(trampoline_long)
    .word SELECTOR_CODE
field_gdt_limit:
    .word trampoline_gdt_end - trampoline_gdt - 1
    .long AT(trampoline_gdt)
trampoline_end:

    .section .note.GNU-stack, "", @progbits
