/* From a SIPI at START to cpu_main() in long mode, with the boot CPU's descriptors and page tables. */
#define CR0_VALUE 0x80010033 /* as in start.S */
#define CR4_VALUE 0x620
#define MSR_EFER 0xc0000080
#define MSR_GS_BASE 0xc0000101

    .text
    .code16
    .global cpu_start, cpu_start_nmi, cpu_start_end
cpu_start:
    lgdtl %cs:start_gdt_register - cpu_start
    mov $CR4_VALUE, %eax
    mov %eax, %cr4
    mov $page_map, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    mov $0x900, %eax
    xor %edx, %edx
    wrmsr
    mov $CR0_VALUE, %eax
    mov %eax, %cr0
    ljmpl $8, $start64
cpu_start_nmi:
    incl %cs:start_nmis - cpu_start
    iret
    .balign 4
start_gdt_register:
    .word 4 * 8 - 1
    .long boot_gdt
    .balign 4
    .global start_nmis
start_nmis: .long 0
cpu_start_end:

    .code64
start64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %eax
    cpuid
    shr $24, %ebx
    mov cpu(, %rbx, 8), %rax /* its struct cpu is at the end of its stack */
    mov %rax, %rsp
    mov %rax, %rdx
    shr $32, %rdx
    mov $MSR_GS_BASE, %ecx
    wrmsr
    call cpu_main

    .section .note.GNU-stack, "", @progbits
