/*
 * The end of the road: stop the other CPUs, print once, stop the machine.
 */
#include "boot.h"
#include "console.h"
#include "serial.h"
#include "setup.h"
#include "symbols.h"
#include "string.h"

#define MAX_FRAMES  32
#define MAX_REPEATS 1000 /* a damaged chain may run in a circle */
#define NOBODY      UINT32_MAX

static uint32_t panicking = NOBODY; /* the CPU that prints */

bool panic_in_progress(void)
{
    return __atomic_load_n(&panicking, __ATOMIC_ACQUIRE) != NOBODY;
}

void panic_stop_here(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

/* `after` is 1 for a return address, which may lie behind the end of its function: the one that does not return. */
static void print_address(const char *title, uint64_t address, unsigned after)
{
    uint64_t offset;
    const char *name = symbol_at(address - after, &offset);
    console_print("%s%016llx", title, (unsigned long long)address);
    if (name)
        console_print(" %s+%#llx", name, (unsigned long long)offset + after);
    console_print("\n");
}

/* Frames as -fno-omit-frame-pointer lays them: the caller's RBP, then the return address. */
static void print_backtrace(uint64_t rip, uint64_t rbp, unsigned after)
{
    uint64_t next, from = rip;
    unsigned again = 0;
    console_print("backtrace:\n");
    print_address("  ", rip, after);
    for (unsigned i = 0; i < MAX_FRAMES; rbp = next) {
        uint64_t last = from;
        if (!rbp || rbp & 7 || !read_safe((void *)rbp, &next) || !read_safe((void *)(rbp + 8), &from) || !from)
            break;
        if (from == last && ++again < MAX_REPEATS)
            continue;
        if (again)
            console_print("  ... %u times the same\n", again);
        again = 0;
        print_address("  ", from, 1);
        i++;
    }
}

static void print_registers(const struct trap_frame *f, unsigned after)
{
    const struct {
        const char *name;
        uint64_t value;
    } r[] = {
        {"RAX", f->rax},     {"RBX", f->rbx},     {"RCX", f->rcx},          {"RDX", f->rdx},     {"RSI", f->rsi},
        {"RDI", f->rdi},     {"RBP", f->rbp},     {"RSP", f->rsp},          {"R8 ", f->r8},      {"R9 ", f->r9},
        {"R10", f->r10},     {"R11", f->r11},     {"R12", f->r12},          {"R13", f->r13},     {"R14", f->r14},
        {"R15", f->r15},     {"FLG", f->rflags},  {"CS ", f->cs},           {"CR0", read_cr0()}, {"CR2", read_cr2()},
        {"CR3", read_cr3()}, {"CR4", read_cr4()}, {"EFR", rdmsr(MSR_EFER)}, {"TSC", rdtsc()},
    };
    print_address("RIP ", f->rip, after);
    const unsigned n = sizeof r / sizeof *r;
    for (unsigned i = 0; i < n; i++)
        console_print("%s %016llx%s", r[i].name, (unsigned long long)r[i].value,
                      i % 4 == 3 || i == n - 1 ? "\n" : "  ");
}

/* Only the first CPU to arrive returns, the others having been stopped; a panic within a panic says so and ends. */
static void claim(void)
{
    uint32_t expected = NOBODY, me = this_cpu()->id;
    cli();
    if (__atomic_compare_exchange_n(&panicking, &expected, me, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        ipi_nmi_others();
        console_unlock_for_panic();
        return;
    }
    if (expected == me) {
        console_print("\npanic within a panic\n");
        machine_stop(1);
    }
    panic_stop_here();
}

static void __attribute__((noreturn))
report(const struct trap_frame *frame, unsigned after, const char *format, va_list args)
{
    char text[256];
    claim();
    vformat_line(text, sizeof text, format, args);
    console_print("\n");
    console_print("panic on CPU %u: %s\n", this_cpu()->id, text);
    print_registers(frame, after);
    print_backtrace(frame->rip, frame->rbp, after);
    machine_stop(1);
}

void panic_at(const struct trap_frame *frame, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(frame, 0, format, args);
}

void panic(const char *format, ...)
{
    struct trap_frame f = {0};
    va_list args;
    /* Of the caller: where it called from and its frame. The registers it had in use are those a call preserves. */
    f.rip = (uint64_t)__builtin_return_address(0);
    f.rbp = *(uint64_t *)__builtin_frame_address(0);
    f.rsp = (uint64_t)__builtin_frame_address(0) + 16;
    __asm__ volatile("mov %%rbx, %0; mov %%r12, %1; mov %%r13, %2; mov %%r14, %3; mov %%r15, %4"
                     : "=m"(f.rbx), "=m"(f.r12), "=m"(f.r13), "=m"(f.r14), "=m"(f.r15));
    __asm__ volatile("pushfq; pop %0; mov %%cs, %1" : "=r"(f.rflags), "=r"(f.cs));
    va_start(args, format);
    report(&f, 1, format, args);
}

void __stack_chk_fail(void);
void __stack_chk_fail(void)
{
    panic("stack smashed");
}

void machine_stop(int code)
{
    uint64_t port;
    uint32_t expected = NOBODY;
    cli();
    if (__atomic_compare_exchange_n(&panicking, &expected, this_cpu()->id, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ipi_nmi_others();
    serial_drain();
    if (boot_option_number("exit", &port))
        outb((uint16_t)port, (uint8_t)code);
    if (cpu_features.on_bochs)
        for (const char *s = "Shutdown"; *s; s++)
            outb(0x8900, (uint8_t)*s);
    panic_stop_here();
}
