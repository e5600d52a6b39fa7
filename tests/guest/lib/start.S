/*
 * From the multiboot1 entry (32-bit protected mode) to guest_main() in long mode. The first 4 GiB are mapped one to one
 * with 2 MiB pages; interrupts stay off.
 */
#define PRESENT_WRITABLE 3
#define LARGE 0x80
#define CR0_VALUE 0x80010033 /* PG WP NE ET MP PE */
#define CR4_VALUE 0x620      /* OSXMMEXCPT OSFXSR PAE */
#define MSR_EFER 0xc0000080

    .section .boot, "ax"
    .code32
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .global _start
_start:
    cli
    cld
    mov $stack_top, %esp
    mov %eax, boot_magic
    mov %ebx, boot_info

    movl $page_directory_pointers + PRESENT_WRITABLE, page_map
    mov $page_directories + PRESENT_WRITABLE, %eax
    mov $page_directory_pointers, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $PRESENT_WRITABLE + LARGE, %eax
    mov $page_directories, %edi
    mov $2048, %ecx
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 2b

    mov $CR4_VALUE, %eax
    mov %eax, %cr4
    mov $page_map, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $0x900, %eax /* LME, NXE */
    wrmsr
    mov $CR0_VALUE, %eax
    mov %eax, %cr0
    lgdt boot_gdt_register
    ljmp $0x08, $start64

    .code64
start64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %esp
    call guest_start
1:  cli
    hlt
    jmp 1b

    .data
    .balign 8
    .global boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 0x08: 64-bit code */
    .quad 0x00cf93000000ffff /* 0x10: data */
    .quad 0x00cf9b000000ffff /* 0x18: 32-bit code */
boot_gdt_register:
    .word boot_gdt_register - boot_gdt - 1
    .quad boot_gdt

    .global boot_magic, boot_info
boot_magic: .long 0
boot_info: .long 0

    .bss
    .balign 4096
    .global page_map, page_directory_pointers, page_directories
page_map: .skip 4096
page_directory_pointers: .skip 4096
page_directories: .skip 4 * 4096
stack: .skip 32768
stack_top:

    .section .note.GNU-stack, "", @progbits
