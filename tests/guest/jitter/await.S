/*
 * uint64_t await_computing(void), await_halted(void): interrupts on until one comes through `taken`; the TSC that its handler's
 * first instruction read. Interrupts are off again behind it, and the caller ends the interrupt.
 */
    .text
    .global await_computing, await_halted, taken
await_computing:
    sti
1:  jmp 1b

await_halted:
    sti
1:  hlt
    jmp 1b

taken:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov 24(%rsp), %rsp /* back to the waiting function's stack; RIP and RFLAGS are not returned to */
    ret

    .section .note.GNU-stack, "", @progbits
