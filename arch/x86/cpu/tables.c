/*
 * GDT, TSS and IDT (Intel SDM 3A chapters 3, 6, 8; APM 2 chapters 4, 8, 12).
 */
#include "cpu.h"
#include "setup.h"
#include "string.h"
#include "../boot/layout.h"

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, zero;
};

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

enum { GATE_INTERRUPT = 0x8e, TSS_AVAILABLE = 0x89, TSS_IST1 = 36, TSS_IOMAP = 102 };

extern char trap_entries[256][16];
static struct gate idt[256];

void idt_build(void)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t entry = (uint64_t)trap_entries[v];
        idt[v] = (struct gate){(uint16_t)entry,         SELECTOR_CODE,           0, GATE_INTERRUPT,
                               (uint16_t)(entry >> 16), (uint32_t)(entry >> 32), 0};
    }
}

void idt_use_stacks(void)
{
    idt[VECTOR_NMI].ist = 1;
    idt[VECTOR_DF].ist = 2;
    idt[VECTOR_MC].ist = 3;
}

static void set_ist(struct pcpu *cpu, unsigned ist, void *stack)
{
    uint64_t top = stack ? (uint64_t)stack_top(stack) : 0;
    memcpy(cpu->tss + TSS_IST1 + (ist - 1) * 8, &top, sizeof top);
}

void tables_load(struct pcpu *cpu)
{
    uint64_t tss = (uint64_t)cpu->tss;
    uint16_t iomap = sizeof cpu->tss; /* beyond the limit: none */

    memcpy(cpu->tss + TSS_IOMAP, &iomap, sizeof iomap);
    set_ist(cpu, 1, cpu->nmi_stack);
    set_ist(cpu, 2, cpu->df_stack);
    set_ist(cpu, 3, cpu->mc_stack);
    cpu->gdt[SELECTOR_CODE / 8] = 0x00af9b000000ffff;
    cpu->gdt[SELECTOR_DATA / 8] = 0x00cf93000000ffff;
    cpu->gdt[SELECTOR_TSS / 8] =
        (sizeof cpu->tss - 1) | (tss & 0xffffff) << 16 | (uint64_t)TSS_AVAILABLE << 40 | (tss >> 24 & 0xff) << 56;
    cpu->gdt[SELECTOR_TSS / 8 + 1] = tss >> 32;

    struct table_pointer gdtr = {sizeof cpu->gdt - 1, (uint64_t)cpu->gdt}, idtr = {sizeof idt - 1, (uint64_t)idt};
    __asm__ volatile("lgdt %0; lidt %1" : : "m"(gdtr), "m"(idtr) : "memory");
    load_segments();
    __asm__ volatile("lldt %w0; ltr %w1" : : "r"(0), "r"(SELECTOR_TSS) : "memory");
}
