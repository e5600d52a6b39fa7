/*
 * Two CPUs that share a physical one: what the world switch does not keep for a guest (debug registers, SSE, TSC_AUX) and
 * translations must be each CPU's own. The second CPU runs in real mode, counts, and notes what it finds.
 */
#include "guest.h"

#define COUNT 0x600u /* its rounds */
#define WRONG 0x604u /* rounds in which a register was not its own */
#define ROUNDS 40u   /* of the first CPU, each longer than a time slice */

extern const char ap_start[], ap_end[];

/* DR0 and MM/XMM0 hold 0x22222222 there; the first CPU keeps 0x11111111 in them. */
__asm__(".pushsection .text\n"
        ".code16\n"
        "ap_start:\n\t"
        "mov %cr4, %eax\n\t"
        "or $0x200, %eax\n\t"
        "mov %eax, %cr4\n\t"
        "mov $0x22222222, %ebx\n\t"
        "mov %ebx, %dr0\n\t"
        "movd %ebx, %xmm0\n"
        "1: mov %dr0, %eax\n\t"
        "cmp %ebx, %eax\n\t"
        "jne 2f\n\t"
        "movd %xmm0, %eax\n\t"
        "cmp %ebx, %eax\n\t"
        "je 3f\n"
        "2: incl 0x604\n"
        "3: incl 0x600\n\t"
        "jmp 1b\n"
        "ap_end:\n"
        ".code64\n"
        ".popsection\n");

void guest_main(void)
{
    uint64_t mine = 0x11111111, found;
    unsigned wrong_dr = 0, wrong_xmm = 0, shared = 0;

    apic_enable();
    place_start(ap_start, ap_end);
    *word(COUNT) = *word(WRONG) = 0;
    __asm__ volatile("mov %0, %%dr0; movq %0, %%xmm0" : : "r"(mine));
    start_cpu(1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t before = *word(COUNT);

        delay_us(7000);
        shared += *word(COUNT) != before;
        __asm__ volatile("mov %%dr0, %0" : "=r"(found));
        wrong_dr += found != mine;
        __asm__ volatile("movq %%xmm0, %0" : "=r"(found));
        wrong_xmm += found != mine;
    }
    check(shared > ROUNDS / 4, "both run", "in %u of %u rounds", shared, ROUNDS);
    check(wrong_dr == 0, "the first CPU's DR0 is its own", "not in %u rounds", wrong_dr);
    check(wrong_xmm == 0, "the first CPU's XMM0 is its own", "not in %u rounds", wrong_xmm);
    check(*word(WRONG) == 0, "the second CPU's registers are its own", "not in %u of %u rounds", *word(WRONG), *word(COUNT));
}
