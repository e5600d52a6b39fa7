/*
 * A CPU that moves its local APIC over RAM: it alone reaches the APIC there. A second CPU goes on with the RAM, as data, as
 * instructions and as page tables, and the first one finds it as the second has left it.
 */
#include "guest.h"

#define MSR_APIC_BASE 0x1bu
#define BSP    0x100u
#define EXTD   0x400u
#define ENABLE 0x800u
#define PAGE   0x1803000ul /* inside a large page, if there are any */
#define ORDER  0x600u      /* the second CPU's mailbox: what to do, where, and with what, or the result */
#define WHERE  0x604u
#define VALUE  0x608u
#define VECTOR 0x61u
#define CODE_OFFSET 0x100u /* in the page: of instructions that return RETURNS */
#define RETURNS 0x600d600du

enum { DONE, READ, WRITE, CALL, WALK, END };

extern const char ap_start[], ap_end[];

/* 32 bits, flat, without paging but for WALK: then with the page directory in the page itself. */
__asm__(".pushsection .text\n"
        ".code16\n"
        "ap_start:\n\t"
        "lgdtl %cs:ap_gdtr - ap_start\n\t"
        "mov %cr0, %eax\n\t"
        "or $1, %eax\n\t"
        "mov %eax, %cr0\n\t"
        "ljmpl $8, $0x8000 + ap_flat - ap_start\n"
        ".code32\n"
        "ap_flat: mov $16, %eax\n\t"
        "mov %eax, %ds\n\t"
        "mov %eax, %ss\n\t"
        "mov $0x7000, %esp\n\t"
        "mov %cr4, %eax\n\t"
        "or $0x10, %eax\n\t"
        "mov %eax, %cr4\n"
        "1: pause\n\t"
        "mov 0x600, %ecx\n\t"
        "mov 0x604, %esi\n\t"
        "cmp $1, %ecx\n\t"
        "jb 1b\n\t"
        "je 2f\n\t"
        "cmp $3, %ecx\n\t"
        "jb 3f\n\t"
        "je 4f\n\t"
        "cmp $4, %ecx\n\t"
        "je 5f\n"
        "6: hlt\n\t"
        "jmp 6b\n"
        "2: mov (%esi), %eax\n\t"
        "jmp 7f\n"
        "3: mov 0x608, %eax\n\t"
        "mov %eax, (%esi)\n\t"
        "jmp 7f\n"
        "4: call *%esi\n\t"
        "jmp 7f\n"
        "5: mov %esi, %cr3\n\t"
        "mov %cr0, %ebx\n\t"
        "or $0x80000000, %ebx\n\t"
        "mov %ebx, %cr0\n\t"
        "mov (%esi), %eax\n\t"
        "and $0x7fffffff, %ebx\n\t"
        "mov %ebx, %cr0\n"
        "7: mov %eax, 0x608\n\t"
        "movl $0, 0x600\n\t"
        "jmp 1b\n"
        ".align 8\n"
        "ap_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
        "ap_gdtr: .word 23\n\t"
        ".long 0x8000 + ap_gdt - ap_start\n"
        "ap_end:\n"
        ".code64\n"
        ".popsection\n");

static uint32_t other(uint32_t order, uintptr_t where, uint32_t value)
{
    *word(WHERE) = (uint32_t)where;
    *word(VALUE) = value;
    *word(ORDER) = order;
    for (uint64_t end = rdtsc() + us(2000000); *word(ORDER) && rdtsc() < end;)
        pause();
    return *word(ORDER) ? 0xdeadbeef : *word(VALUE);
}

static void move(uint64_t base)
{
    wrmsr(MSR_APIC_BASE, base | BSP);
}

static uint32_t pattern(uintptr_t address)
{
    return (uint32_t)address * 0x9e3779b1u | 1;
}

/* The page and its neighbours; a page directory's first entries map 32 MiB one to one, in 4 MiB pages. */
static void fill(void)
{
    static const uint8_t code[] = {0xb8, 0x0d, 0x60, 0x0d, 0x60, 0xc3}; /* mov $RETURNS, %eax; ret */

    for (uintptr_t a = PAGE - 4096; a < PAGE + 8192; a += 4)
        *word(a) = pattern(a);
    for (uint32_t i = 0; i < 8; i++)
        *word(PAGE + 4 * i) = i << 22 | 0xe3; /* accessed and dirty already */
    memcpy(at(PAGE + CODE_OFFSET), code, sizeof(code));
}

static unsigned wrong_neighbours(void)
{
    unsigned wrong = 0;

    for (uintptr_t a = PAGE - 4096; a < PAGE + 8192; a += 4)
        wrong += (a < PAGE || a >= PAGE + 4096) && *word(a) != pattern(a);
    return wrong;
}

static void check_apic(uint32_t id, uint32_t version)
{
    check(*word(PAGE + APIC_ID) == id, "its APIC ID", "%x, not %x", *word(PAGE + APIC_ID), id);
    check(*word(PAGE + APIC_VERSION) == version, "its APIC's version", "%x, not %x", *word(PAGE + APIC_VERSION), version);
    *word(PAGE + APIC_TPR) = 0x30;
    check(*word(PAGE + APIC_TPR) == 0x30, "its TPR is written", "%x", *word(PAGE + APIC_TPR));
    *word(PAGE + APIC_TPR) = 0;
    check(*word(LAPIC + APIC_VERSION) == 0xffffffff, "no APIC where it was", "%x", *word(LAPIC + APIC_VERSION));
    check(wrong_neighbours() == 0, "the pages beside it", "%u words are wrong", wrong_neighbours());
}

static void check_interrupt(void)
{
    reset_hits();
    count_vector(VECTOR, EOI_NONE);
    *word(PAGE + APIC_ICR) = 0x40000 | VECTOR;
    open_interrupts();
    check(hits[VECTOR] == 1, "an IPI to itself", "%u came", hits[VECTOR]);
    check(*word(PAGE + APIC_ISR + VECTOR / 32 * 16) == 1u << VECTOR % 32, "it is in service", "%x",
          *word(PAGE + APIC_ISR + VECTOR / 32 * 16));
    *word(PAGE + APIC_EOI) = 0;
    check(*word(PAGE + APIC_ISR + VECTOR / 32 * 16) == 0, "its end", "%x", *word(PAGE + APIC_ISR + VECTOR / 32 * 16));
    forget_vector(VECTOR);
}

static void check_other(void)
{
    uintptr_t tpr = PAGE + APIC_TPR;
    uint32_t found = other(READ, tpr, 0);

    check(found == pattern(tpr), "the second CPU reads the RAM", "%x, not %x", found, pattern(tpr));
    other(WRITE, PAGE + APIC_ID, 0x12345678);
    found = other(READ, PAGE + APIC_ID, 0);
    check(found == 0x12345678, "and writes it", "%x", found);
    found = other(CALL, PAGE + CODE_OFFSET, 0);
    check(found == RETURNS, "runs instructions there", "%x", found);
    found = other(WALK, PAGE, 0);
    check(found == 0xe3, "has page tables there", "%x", found);
    found = other(READ, LAPIC + APIC_ID, 0);
    check(found == 1u << 24, "and its own APIC is where it was", "ID %x", found);
}

void guest_main(void)
{
    uint32_t id, version;

    apic_enable();
    id = apic_read(APIC_ID);
    version = apic_read(APIC_VERSION);
    fill();
    place_start(ap_start, ap_end);
    *word(ORDER) = DONE;
    start_cpu(1);
    check(other(READ, PAGE + 0x800, 0) == pattern(PAGE + 0x800), "the second CPU runs", "no answer");

    move(PAGE | ENABLE);
    check_apic(id, version);
    check_interrupt();
    check_other();
    check(*word(PAGE + APIC_ID) == id, "the first CPU still finds its APIC", "%x", *word(PAGE + APIC_ID));

    move(LAPIC | ENABLE);
    check(*word(PAGE + APIC_ID) == 0x12345678, "back again: the RAM as the other left it", "%x", *word(PAGE + APIC_ID));
    check(*word(PAGE + APIC_TPR) == pattern(PAGE + APIC_TPR), "and nothing of the APIC in it", "%x", *word(PAGE + APIC_TPR));
    check(apic_read(APIC_VERSION) == version, "the APIC is where it was", "%x", apic_read(APIC_VERSION));

    move(PAGE | ENABLE);
    move(PAGE | ENABLE | EXTD);
    check(*word(PAGE + APIC_ID) == 0x12345678, "x2APIC mode: the RAM", "%x", *word(PAGE + APIC_ID));
    move(PAGE);
    check(*word(PAGE + APIC_ID) == 0x12345678, "disabled: the RAM", "%x", *word(PAGE + APIC_ID));
    move(PAGE | ENABLE);
    check(*word(PAGE + APIC_ID) == id, "enabled there: the APIC", "%x", *word(PAGE + APIC_ID));
    move(LAPIC | ENABLE);
    *word(ORDER) = END;
}
