/*
 * Interrupts to the instruction. The vector's gate is `taken`: its first instruction reads the TSC, which the function that waits
 * returns; interrupts are off again behind it, and the caller ends the interrupt.
 *
 * uint64_t await_computing(void), await_halted(void): interrupts on until one comes.
 * uint64_t await_reading(void): the same; await_last_read has the low half of the TSC that the guest read last before it.
 * uint64_t await_of_msr(uint32_t msr, uint64_t value), await_of_mmio(uintptr_t address, uint32_t value): from the write that causes it;
 *     returns the TSC ticks between.
 */
    .text
    .balign 64
    .global await_computing, await_halted, await_reading, await_of_msr, await_of_mmio, taken
await_computing:
    movq $0, begun
    sti
1:  jmp 1b

await_halted:
    movq $0, begun
    sti
1:  hlt
    jmp 1b

await_reading:
    movq $0, begun
    rdtsc
    mov %eax, await_last_read
    sti
1:  rdtsc
    mov %eax, await_last_read
    jmp 1b

await_of_msr:
    mov %rsi, %r8
    shr $32, %rsi
    mov %edi, %ecx
    sti
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, begun
    mov %r8d, %eax
    mov %esi, %edx
    wrmsr
1:  jmp 1b

await_of_mmio:
    sti
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, begun
    mov %esi, (%rdi)
1:  jmp 1b

taken:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub begun, %rax
    mov 24(%rsp), %rsp /* back to the waiting function's stack; RIP and RFLAGS are not returned to */
    ret

    .bss
    .balign 8
begun: .skip 8
    .global await_last_read
await_last_read: .skip 4

    .section .note.GNU-stack, "", @progbits
