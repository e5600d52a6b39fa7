/*
 * Exceptions: raised by the CPU itself, and by accesses that go through the hypervisor's emulator: page faults with the right
 * code and address and nothing half done, single steps over instructions that the hypervisor skips, interrupt shadows, faults
 * in faults. The window's first page is a device (behind the emulator), the next one is not there.
 */
#include "guest.h"

enum { DE = 0, DB = 1, NMI = 2, BP = 3, UD = 6, NM = 7, DF = 8, NP = 11, SS = 12, GP = 13, PF = 14, XM = 19 };
#define WINDOW 0x40000000ul
#define PAGE_P 1
#define PAGE_W 2
#define PAGE_A 0x20
#define PAGE_D 0x40
#define PAGE_NX (1ull << 63)

extern uint64_t page_directories[], page_map[], boot_gdt[];
static volatile uint64_t table[512] __attribute__((aligned(4096)));
static uint64_t device;

static void flush(void)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)(uintptr_t)page_map) : "memory");
}

static void map(unsigned page, uint64_t entry)
{
    table[page] = entry;
    flush();
}

static void raised(const char *name, int vector, uint64_t error)
{
    check(trap_vector == vector && trap_error == error, name, "vector %d, error 0x%lx", trap_vector, trap_error);
}

static void test_cpu(void)
{
    TRY("div %%ecx" TRIED : : "a"(1), "d"(0), "c"(0) : "memory");
    raised("#DE by DIV", DE, 0);
    TRY("int3" TRIED : : : "memory");
    raised("#BP by INT3", BP, 0);
    TRY("ud2" TRIED : : : "memory");
    raised("#UD by UD2", UD, 0);
    TRY("mov (%0), %%eax" TRIED : : "r"(1ull << 60) : "rax", "memory");
    raised("#GP by a non-canonical address", GP, 0);
    TRY("mov %0, %%rbp; mov (%%rbp), %%eax" TRIED : : "r"(1ull << 60) : "rax", "rbp", "memory");
    if (option("silicon")) /* TCG: #GP */
        raised("#SS by a non-canonical stack address", SS, 0);
    TRY("mov %0, %%es" TRIED : : "r"(0x1000) : "memory");
    raised("#GP by a selector beyond the table", GP, 0x1000);
    uint64_t cr0;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0 | 8));
    TRY("fninit" TRIED : : : "memory");
    raised("#NM by x87 with CR0.TS", NM, 0);
    __asm__ volatile("clts");
    TRY("fninit" TRIED : : : "memory");
    raised("none after CLTS", -1, trap_error);
}

static void test_page_faults(void)
{
    map(1, 0);
    TRY("mov (%0), %%eax" TRIED : : "r"(WINDOW + 0x1234) : "rax", "memory");
    raised("#PF reading what is not there", PF, 0);
    check(trap_cr2 == WINDOW + 0x1234, "with its address", "0x%lx", trap_cr2);
    TRY("mov %%eax, (%0)" TRIED : : "r"(WINDOW + 0x1000) : "memory");
    raised("#PF writing what is not there", PF, 2);
    map(1, device | PAGE_P | PAGE_NX);
    TRY("jmp *%0" TRIED : : "r"(WINDOW + 0x1000) : "memory");
    raised("#PF running what may not run", PF, 0x11);
    map(1, (1ull << 51) | PAGE_P);
    TRY("mov (%0), %%eax" TRIED : : "r"(WINDOW + 0x1000) : "rax", "memory");
    check(trap_vector == PF && (trap_error | 1) == 9, "#PF by a reserved bit", "vector %d, error 0x%lx", trap_vector, trap_error); /* TCG: P is 0 */
    map(1, 0);
}

/* The same by accesses to the device page, which the emulator makes. */
static void test_emulated(void)
{
    volatile uint64_t *w = (volatile uint64_t *)WINDOW;
    uint64_t rcx, rsi, rdi;
    static uint8_t buffer[64];
    map(0, device | PAGE_P); /* read-only */
    TRY("movl $1, (%0)" TRIED : : "r"(WINDOW + 8) : "memory");
    raised("emulated: #PF by a write to what is read-only", PF, 3);
    check(trap_cr2 == WINDOW + 8, "emulated: with its address", "0x%lx", trap_cr2);
    map(0, device | PAGE_P | PAGE_W);
    (void)w[1];
    check((table[0] & (PAGE_A | PAGE_D)) == PAGE_A, "emulated: a read sets A", "entry 0x%lx", table[0]);
    w[1] = 5;
    check((table[0] & (PAGE_A | PAGE_D)) == (PAGE_A | PAGE_D), "emulated: a write sets D", "entry 0x%lx", table[0]);
    w[511] = 0x1111111111111111;
    TRY("movq %1, (%0)" TRIED : : "r"(WINDOW + 0xffc), "r"(0x2222222222222222ull) : "memory");
    raised("emulated: #PF by a write across the page's end", PF, 2);
    check(trap_cr2 == WINDOW + 0x1000, "emulated: at the next page", "0x%lx", trap_cr2);
    check(w[511] == 0x1111111111111111, "emulated: and nothing is written", "0x%lx", w[511]);
    TRY("movq (%0), %%rax" TRIED : : "r"(WINDOW + 0xffc) : "rax", "memory");
    raised("emulated: #PF by a read across the page's end", PF, 0);
    rcx = 8, rsi = (uintptr_t)buffer, rdi = WINDOW + 0xff0;
    TRY("rep movsl" TRIED : "+c"(rcx), "+S"(rsi), "+D"(rdi) : : "memory");
    check(trap_vector == PF && trap_cr2 == WINDOW + 0x1000, "emulated: REP MOVS stops at the page that is not there", "vector %d, 0x%lx", trap_vector,
          trap_cr2);
    check(rcx == 4 && rdi == WINDOW + 0x1000 && rsi == (uintptr_t)buffer + 16, "emulated: with its registers there", "count %lu, to 0x%lx", rcx, rdi);
    TRY("lock; incl (%0)" TRIED : : "r"(WINDOW + 0xffe) : "memory");
    if (test_page_is_emulated())
        raised("emulated: a locked access across the page's end", PF, 2);
    TRY(".byte 0xf0; movl (%0), %%eax" TRIED : : "r"(WINDOW) : "rax", "memory");
    if (test_page_is_emulated())
        raised("emulated: LOCK where it may not be", UD, 0);
    TRY("movaps (%0), %%xmm0" TRIED : : "r"(WINDOW + 8) : "memory");
    raised("emulated: MOVAPS not aligned", GP, 0);
}

static unsigned steps;
static uint64_t step_rip[64];
static void on_debug(struct frame *f)
{
    if (steps < 64)
        step_rip[steps] = f->rip;
    steps++;
}

/* Runs `ins` with TF set from before it: one #DB must come with RIP right behind it. */
#define STEP(name, ins, rax, rcx, rdi) \
    do { \
        uint64_t behind, a = rax, b, c = rcx, d; \
        steps = 0; \
        __asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n\t" ins "\n\t772: pushf; andl $~0x100, (%%rsp); popf; movq $772b, %0" \
                         : "=m"(behind), "+a"(a), "=b"(b), "+c"(c), "=d"(d) : "D"(rdi) : "memory", "cc"); \
        check(steps >= 1 && step_rip[0] == behind, "single step over " name, "%u steps, first at 0x%lx, not 0x%lx", steps, step_rip[0], behind); \
    } while (0)

static void test_single_step(void)
{
    on_vector(DB, on_debug);
    STEP("NOP", "nop", 0, 0, 0ul);
    STEP("CPUID", "cpuid", 0, 0, 0ul);
    STEP("RDMSR", "rdmsr", 0, 0x1b, 0ul);
    STEP("an emulated read", "mov (%%rdi), %%eax", 0, 0, WINDOW);
    STEP("an emulated write", "mov %%eax, (%%rdi)", 0, 0, WINDOW);
    STEP("IN", "inb $0x61, %%al", 0, 0, 0ul);
    STEP("OUT", "outb %%al, $0x80", 0, 0, 0ul);
    if (!differs_on_qemu("single step over HLT", "it halts"))
        STEP("HLT", "hlt", 0, 0, 0ul);
    on_vector(DB, NULL);
}

static uint64_t shadow_rip;
static void on_shadow(struct frame *f)
{
    shadow_rip = f->rip;
    apic_write(APIC_EOI, 0);
}

/* STI lets nothing in before the next instruction is done, also where the hypervisor does that one. */
#define SHADOW(name, ins, rax, rcx, rdi) \
    do { \
        uint64_t behind, a = rax, b, c = rcx, d; \
        on_vector(0x61, on_shadow); \
        shadow_rip = 0; \
        apic_icr(0, 0x40000 | 0x61); \
        __asm__ volatile("sti\n\t" ins "\n\t774: nop; nop; cli; movq $774b, %0" \
                         : "=m"(behind), "+a"(a), "=b"(b), "+c"(c), "=d"(d) : "D"(rdi) : "memory", "cc"); \
        check(shadow_rip == behind, "STI's shadow covers " name, "interrupted at 0x%lx, not 0x%lx", shadow_rip, behind); \
    } while (0)

static void test_shadow(void)
{
    SHADOW("NOP", "nop", 0, 0, 0ul);
    if (differs_on_qemu("STI's shadow", "an interrupt may come some instructions late"))
        return;
    SHADOW("CPUID", "cpuid", 0, 0, 0ul);
    SHADOW("IN", "inb $0x61, %%al", 0, 0, 0ul);
    SHADOW("an emulated read", "mov (%%rdi), %%eax", 0, 0, WINDOW);
    SHADOW("RDMSR", "rdmsr", 0, 0x1b, 0ul);
}

static uint64_t fault_flags;
uint64_t fault_behind;
static void on_fault(struct frame *f)
{
    fault_flags = f->rflags;
    f->rip = fault_behind;
}

/* How the hypervisor waits for the shadow's end is nothing that a fault in it shows. */
static void test_fault_in_shadow(void)
{
    on_vector(PF, on_fault);
    on_vector(0x61, on_shadow);
    map(1, 0);
    shadow_rip = 0;
    apic_icr(0, 0x40000 | 0x61);
    __asm__ volatile("movq $775f, fault_behind\n\tsti\n\tmov (%0), %%eax\n\t775: nop; nop; cli" : : "r"(WINDOW + 0x1000) : "rax", "memory", "cc");
    check(!(fault_flags & 0x100), "a fault in STI's shadow shows no TF", "flags 0x%lx", fault_flags);
    check(shadow_rip != 0, "and the interrupt comes", "%s", "it does not");
    on_vector(PF, NULL);
    on_vector(0x61, NULL);
}

/* A fault whose handler's gate is not present: #NP while delivering #GP is #DF. */
static void test_double_fault(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) reg;
    __asm__ volatile("sidt %0" : "=m"(reg));
    uint8_t *gate = (uint8_t *)reg.base + 16 * GP, *page_gate = (uint8_t *)reg.base + 16 * PF;
    gate[5] &= 0x7f;
    TRY("mov (%0), %%eax" TRIED : : "r"(1ull << 60) : "rax", "memory");
    raised("#NP in #GP is #DF", DF, 0);
    page_gate[5] &= 0x7f;
    map(0, device | PAGE_P);
    TRY("movl $1, (%0)" TRIED : : "r"(WINDOW + 8) : "memory");
    raised("#NP in an emulated access's #PF is #DF", DF, 0);
    gate[5] |= 0x80;
    page_gate[5] |= 0x80;
    map(0, device | PAGE_P | PAGE_W);
    gate = (uint8_t *)reg.base + 16 * BP;
    gate[5] &= 0x7f;
    TRY("int3" TRIED : : : "memory");
    check(trap_vector == NP && ((trap_error & ~1ull) == (BP << 3 | 2) || trap_error == 0x32 /* TCG */), "#NP in INT3 is itself",
          "vector %d, error 0x%lx", trap_vector, trap_error);
    gate[5] |= 0x80;
}

static volatile unsigned nmis, nested;
static volatile bool ahead_of_iret;
static void on_nmi(struct frame *f)
{
    ahead_of_iret = *(const uint16_t *)f->rip == 0xcf48; /* IRETQ */
    if (++nmis == 1) {
        apic_icr(0, 0x4400); /* another one, which must wait for IRET */
        for (volatile unsigned i = 0; i < 1000; i++)
            ;
        (void)inb(0x61);
        nested = nmis;
    }
}

static void test_nmi(void)
{
    on_vector(NMI, on_nmi);
    apic_icr(0, 0x4400);
    for (unsigned i = 0; i < 100000 && nmis < 2; i++)
        pause();
    check(nested == 1, "an NMI waits until the handler of the one before returns", "%u came", nested);
    check(nmis == 2, "and then comes", "%u came", nmis);
    check(!ahead_of_iret, "behind its IRET", "ahead of it: on the same stack of the IST it would destroy the first one's frame");
    on_vector(NMI, NULL);
}

void guest_main(void)
{
    device = (uintptr_t)test_page();
    page_directories[WINDOW >> 21] = (uintptr_t)table | PAGE_P | PAGE_W;
    map(0, device | PAGE_P | PAGE_W);
    test_cpu();
    test_page_faults();
    test_emulated();
    test_single_step();
    test_shadow();
    test_fault_in_shadow();
    test_double_fault();
    test_nmi();
}
