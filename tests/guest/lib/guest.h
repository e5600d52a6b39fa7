/*
 * The library of the bare-metal test guests.
 *
 * Protocol, on port 0xe9 where it answers, else on COM1: a line `ok NAME` or `not ok NAME: why` per check, further lines
 * as they come, at last `guest: N passed, M failed`. Then the machine ends: the number of failures goes to the debug-exit
 * port 0xf4.
 *
 * A guest is one C function, guest_main(). It runs in long mode with the first 4 GiB mapped one to one and interrupts off.
 */
#ifndef METRONOME_TEST_GUEST_H
#define METRONOME_TEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void guest_main(void);

/* ---- Results (result.c). ---- */
void print(const char *format, ...) __attribute__((format(printf, 1, 2))); /* %d %u %x %s %c %%, l, width, 0 */
bool check(bool ok, const char *name, const char *why, ...) __attribute__((format(printf, 3, 4)));
void skip(const char *name, const char *why);
void guest_end(void) __attribute__((noreturn)); /* also after guest_main() returns */
extern unsigned passed, failed;
extern void (*also_print)(char c); /* a second console; may be NULL */

/* Is the word there in the command line? `name=N`: its number, or `otherwise`. */
bool option(const char *name);
uint64_t option_number(const char *name, uint64_t otherwise);

/* What we run on: checks that a plain QEMU fails by its own deviations ask for this. */
bool on_metronome(void);
/* Skips what a plain QEMU does otherwise, and says so. */
bool differs_on_qemu(const char *name, const char *why);
extern bool strict; /* option `strict`: time is exact (icount), so late is wrong too */

/* ---- Instructions. ---- */
static inline void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}
static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
static inline void cli(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void sti(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void pause(void) { __asm__ volatile("pause" : : : "memory"); }
static inline uint64_t flags(void)
{
    uint64_t f;
    __asm__ volatile("pushf; pop %0" : "=r"(f));
    return f;
}
/* Lets what is pending in. */
static inline void open_interrupts(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }
/* Halts until an interrupt has come. */
static inline void halt(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
static inline uint32_t mmio_read(uintptr_t a) { return *(volatile uint32_t *)a; }
static inline void mmio_write(uintptr_t a, uint32_t v) { *(volatile uint32_t *)a = v; }
static inline void *at(uintptr_t address)
{
    __asm__("" : "+r"(address)); /* low memory is no null pointer */
    return (void *)address;
}
static inline volatile uint32_t *word(uintptr_t address) { return at(address); }

/* ---- Traps and interrupts (trap.c). ---- */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};
typedef void handler(struct frame *f);

/* How a counted interrupt is ended. */
enum eoi { EOI_NONE, EOI_LAPIC, EOI_PIC /* specific, by vector: PIC_BASE + irq */ };

/* A vector that nothing was said about ends the guest with a failure. */
void on_vector(unsigned vector, handler *h);
/* Counts the vector's interrupts in hits[], the time of the last one in hit_tsc[]. */
void count_vector(unsigned vector, enum eoi how);
void forget_vector(unsigned vector);
/* The vector's first instruction is the caller's own. */
void set_gate(unsigned vector, void (*entry)(void));
extern volatile uint32_t hits[256];
extern volatile uint64_t hit_tsc[256];
extern volatile uint32_t masked_hits; /* those that came although interrupts were off */
extern volatile uint8_t order[64]; /* vectors in the order they came, since reset_hits() */
extern volatile unsigned order_count;
extern void (*volatile on_hit)(unsigned vector); /* called for each, before its EOI; may be NULL */
void reset_hits(void);

/* ---- The moment of an interrupt, to the instruction (await.S). The vector's gate is `taken`. ---- */
void taken(void);
uint64_t await_computing(void);
uint64_t await_halted(void);
uint64_t await_reading(void);
uint64_t await_of_msr(uint32_t msr, uint64_t value);
uint64_t await_of_mmio(uintptr_t address, uint32_t value);
extern volatile uint32_t await_last_read;

/* An instruction that may fault: TRY(ins) runs `ins`; trap_vector is then -1 or what it raised. */
extern volatile uint64_t trap_fixup, trap_error, trap_cr2, trap_rip;
extern volatile int trap_vector;
#define TRY(...) \
    do { \
        trap_vector = -1; \
        __asm__ volatile("movq $771f, trap_fixup\n\t" __VA_ARGS__); \
        trap_fixup = 0; \
    } while (0)
/* The tail of the instruction text in TRY. */
#define TRIED "\n771:\n\t"
bool try_rdmsr(uint32_t msr, uint64_t *value);
bool try_wrmsr(uint32_t msr, uint64_t value);

/* ---- Time (time.c). ---- */
#define WATCHDOG 0xf0u /* vector of the local APIC timer while wait_hits() halts */
extern uint64_t tsc_hz; /* as Metronome states it, or option `hz=N`; else by the PM timer */
void time_init(void);
uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c); /* a * b / c, where the result has 64 bits */
uint64_t us(uint64_t n); /* in TSC ticks */
void delay_us(uint64_t n);
/* Waits with interrupts on until the vector has been hit n times in all, at most for `ms`; true if it was. */
bool wait_hits(unsigned vector, uint32_t n, uint64_t ms);
/* Lets interrupts in for a while. */
void run_us(uint64_t n);
/* |got - want| <= want * ppm / 10^6 + slack */
bool near(uint64_t got, uint64_t want, uint64_t ppm, uint64_t slack);

/* ---- Devices (chips.c, apic.c, acpi.c). ---- */
#define PIC_BASE 0x20u
void pic_init(void);               /* vectors PIC_BASE.., everything masked, edge-triggered */
void pic_mask(uint16_t mask);      /* 1: masked */
uint16_t pic_irr(void);
uint16_t pic_isr(void);
void pic_eoi(unsigned irq);

void pit_mode(unsigned channel, unsigned mode, uint16_t count); /* LSB + MSB, binary */
uint16_t pit_count(unsigned channel);                           /* latched */
uint8_t pit_status(unsigned channel);                           /* by read-back */
#define PIT_HZ_NUM 13125000ull /* 13125000/11 Hz */
#define PIT_HZ_DEN 11ull

/* COM1's transmitter-empty interrupt: a level on IRQ 4 that a guest switches on and off. */
void irq4_set(bool level);

uint8_t cmos_read(uint8_t index);
void cmos_write(uint8_t index, uint8_t v);

/* The ports of the ACPI power management block (acpi.c). */
extern struct pm_ports {
    uint16_t event, control, timer;
    uint8_t sci; /* IRQ */
    bool timer_32bit;
} pm;
void acpi_init(void);
const void *acpi_table(const char signature[4]); /* or NULL */
#define PM_HZ 3579545ull
uint32_t pm_timer(void);
uint64_t pm_since(uint32_t start); /* ticks since, within 4 s */

#define LAPIC 0xfee00000ul
enum {
    APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_LDR = 0xd0, APIC_DFR = 0xe0,
    APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_TMR = 0x180, APIC_IRR = 0x200, APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR2 = 0x310,
    APIC_LVT_TIMER = 0x320, APIC_LVT_THERMAL = 0x330, APIC_LVT_PMC = 0x340, APIC_LVT_LINT0 = 0x350, APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370, APIC_TMICT = 0x380, APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0,
};
#define APIC_MASKED 0x10000u
void apic_enable(void);   /* xAPIC, software enabled, spurious vector 0xff, every LVT masked, TPR 0 */
void apic_set_x2(bool on);
bool apic_is_x2(void);
uint32_t apic_read(unsigned reg); /* in the present mode */
void apic_write(unsigned reg, uint32_t v);
bool apic_bit(unsigned base, unsigned vector); /* of IRR, ISR or TMR */
void apic_icr(uint32_t dest, uint32_t low);    /* dest: APIC id */

#define START 0x8000u /* where a SIPI starts a CPU, in real mode */
enum { ICR_INIT = 0x4500, ICR_SIPI = 0x4600 | START >> 12, ICR_SELF = 0x40000, ICR_ALL = 0x80000, ICR_OTHERS = 0xc0000 };
void place_start(const char *code, const char *end); /* at START */
void start_cpu(unsigned id);                         /* by INIT and SIPI */

#define IOAPIC 0xfec00000ul
uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t v);
uint64_t ioapic_entry(unsigned pin);
void ioapic_set(unsigned pin, uint64_t entry);
enum { IO_LOGICAL = 1 << 11, IO_LOW = 1 << 13, IO_REMOTE_IRR = 1 << 14, IO_LEVEL = 1 << 15, IO_MASKED = 1 << 16 };

#define HPET 0xfed00000ul
static inline uint64_t hpet_read(unsigned reg) { return *(volatile uint64_t *)(HPET + reg); }
static inline void hpet_write(unsigned reg, uint64_t v) { *(volatile uint64_t *)(HPET + reg) = v; }

/* ---- The page that reaches RAM through the emulator; a normal page where there is none. ---- */
#define TEST_PAGE 0xfed80000ul
uint8_t *test_page(void);
bool test_page_is_emulated(void);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
void sort(int64_t *values, unsigned n);
int64_t permille(const int64_t *sorted, unsigned n, unsigned part); /* the value that this many of a thousand do not exceed */
uint32_t random32(void);
uint64_t random64(void);

#endif
