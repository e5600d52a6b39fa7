/*
 * From the loader to C on the boot CPU. All three loaders enter in flat 32-bit protected mode without paging, EBX
 * pointing to their information. Temporary tables map the first 4 GiB one to one and the image at IMAGE_OFFSET; they are
 * replaced in mm_init().
 */
#include "layout.h"

#define PTE_TABLE 0x003 /* present, writable */
#define PTE_LARGE 0x083
#define CR0_BOOT 0x80010023 /* PG, WP, NE, MP, PE */
#define EFER_BOOT 0x900     /* LME, NXE */
#define COM1 0x3f8

    .section .boot.text, "ax"
    .code32
    .global boot_multiboot, boot_pvh
boot_pvh:
    mov $MAGIC_PVH, %eax
boot_multiboot:
    cli
    cld
    mov $boot_stack32_end, %esp
    mov %eax, %ebp /* EBP: the loader's magic, ESI: its information */
    mov %ebx, %esi

    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb unsupported
    mov $0x80000001, %eax
    cpuid
    and $(1 << 29 | 1 << 20), %edx /* long mode, NX */
    cmp $(1 << 29 | 1 << 20), %edx
    jne unsupported

    /* 2,048 pages of 2 MiB; boot_directories are four tables in a row. */
    mov $boot_directories, %edi
    mov $PTE_LARGE, %eax
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $8, %edi
    add $0x200000, %eax
    jnc 1b

    mov $boot_pml4, %edi /* the PML4 and two PDPTs follow each other */
    xor %eax, %eax
    mov $(3 * 1024), %ecx
    rep stosl
    mov $(boot_directories + PTE_TABLE), %eax
    mov $boot_pdpt_low, %edi
1:  mov %eax, (%edi)
    add $8, %edi
    add $0x1000, %eax
    cmp $(boot_directories + 0x4000), %eax
    jb 1b
    movl $(boot_directories + PTE_TABLE), boot_pdpt_high + 510 * 8
    movl $(boot_pdpt_low + PTE_TABLE), boot_pml4
    movl $(boot_pdpt_high + PTE_TABLE), boot_pml4 + 511 * 8

    mov $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $EFER_BOOT, %eax
    wrmsr
    mov $CR0_BOOT, %eax
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $SELECTOR_CODE, $boot_long

    /* Not a CPU we can run on: the one line of the hypervisor that is printed from here. */
unsupported:
    mov $unsupported_text, %esi
1:  lodsb
    test %al, %al
    jz 3f
    mov %al, %ah
    mov $(COM1 + 5), %edx
2:  inb %dx, %al
    test $0x20, %al /* transmitter empty; all-ones without a port */
    jz 2b
    mov %ah, %al
    mov $COM1, %edx
    outb %al, %dx
    jmp 1b
3:  hlt
    jmp 3b

    .code64
boot_long:
    mov $SELECTOR_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    movabs $boot_high, %rax
    jmp *%rax

    .section .boot.data, "aw"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 64-bit code */
    .quad 0x00cf93000000ffff /* data */
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt, 0
    .balign 16
    .skip 64
boot_stack32_end:
unsupported_text:
    .asciz "error: Metronome needs a CPU with long mode and NX\r\n"

    .section .boot.tables, "aw", @nobits
    .balign 4096
boot_pml4:
    .skip 4096
boot_pdpt_low:
    .skip 4096
boot_pdpt_high:
    .skip 4096
boot_directories:
    .skip 4 * 4096

    .text
    .code64
boot_high:
    mov $boot_stack_end - 16, %rsp
    movq $boot_pcpu, 8(%rsp) /* this_cpu() works from the first line of C */

    /* The canary, before the first function that uses it. RDTSC is the same in each deterministic run; RDRAND, where
       there is one, changes the value but no instruction count. The lowest byte stays 0, so that no string reaches it. */
    rdtsc
    shl $32, %rdx
    lea (%rdx,%rax), %r12
    movabs $0x9e3779b97f4a7c15, %rax
    imul %rax, %r12
    mov $1, %eax
    xor %ecx, %ecx
    cpuid
    bt $30, %ecx
    jnc 1f
    rdrand %rax
    xor %rax, %r12
1:  xor %r12b, %r12b
    mov %r12, __stack_chk_guard

    mov %ebp, %edi
    mov %esi, %esi
    xor %ebp, %ebp /* the end of each backtrace */
    push %rbp
    jmp boot_main

    .section .rodata
    .balign 8
    .global __stack_chk_guard
__stack_chk_guard: /* written above, while nothing is write-protected yet */
    .quad 0

    .section .bss.stack, "aw", @nobits
    .balign 32768 /* STACK_SIZE, as this_cpu() wants it */
    .skip 32768
boot_stack_end:

    .section .note.GNU-stack, "", @progbits
