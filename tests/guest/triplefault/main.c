/* Ends itself by a triple fault. With a word `gp`, by one that an emulated access starts. */
#include "guest.h"

void guest_main(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};
    check(true, "triplefault: got there", "%s", "");
    print("now the triple fault\n");
    __asm__ volatile("lidt %0" : : "m"(none));
    if (option("mmio"))
        *(volatile uint32_t *)(1ul << 46) = mmio_read(LAPIC); /* #PF with no way to deliver it */
    __asm__ volatile("int3");
    check(false, "triplefault: never here", "%s", "it went on");
}
