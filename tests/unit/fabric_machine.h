/*
 * A whole domain in a process: the real HVM core from the control device's commands to the injection, on one pCPU whose CPU
 * is simulated (simulated_cpu.h). Programs of operations drive it: guests that access devices, take interrupts and halt;
 * a device model that answers, moves lines and sends messages; the daemon's commands; time, which also jumps.
 *
 * Two twins run every program. One runs without interruption; the other is paused, saved, destroyed and restored wherever
 * the program says so. After each step they have done the same and are the same, byte for byte.
 *
 * Included once by a program, which says in violated() what becomes of a property that does not hold.
 */
#ifndef METRONOME_TESTS_FABRIC_MACHINE_H
#define METRONOME_TESTS_FABRIC_MACHINE_H

#include "../../arch/x86/hvm/hvm.c"
#include "pci.h"

#include <stdio.h>
#include <stdlib.h>

#define TWINS 2u
#define RAM (2 * LARGE_PAGE_SIZE)
#define EXTRA 65536u /* the firmware, or a guest that starts without */
#define SLOT_BYTES (METRONOME_DOMAIN_ARENA + RAM + EXTRA)
#define CODE 0x180000u /* the guests' instructions, 16 bytes for each */
#define DATA 0x181000u
#define DM_MMIO 0xf0000000u
#define XSAVE_BYTES 832u /* x87, SSE, AVX */
#define XCR0_ALLOWED 7u
#define GAP (tsc_hz / 1000000 * 5) /* a chipset's deadlines come no faster: EXPIRY_GAP_US of fabric.c */
#define SETTLES 4096u         /* rounds of the pCPU's loop, by far, until nothing is left to do */

static void violated(const char *what, const char *condition);
#define EXPECT(condition, what) ((condition) ? (void)0 : violated(what, #condition))

struct operation {
    uint8_t kind, vcpu;
    uint16_t argument;
    uint32_t value;
};

struct twin {
    struct slot *slot;
    uint64_t outputs; /* a hash of all that came out of it */
};

__thread struct pcpu *test_cpu;
struct pcpu *pcpus[MAX_PCPUS];
unsigned pcpu_count = 1;
uint64_t tsc_hz = 1000000000;
struct cpu_features cpu_features = {.svm = true, .npt = true, .nrips = true, .nx = true, .rdtscp = true, .xsave = true,
                                    .smep = true, .umip = true, .invariant_tsc = true, .phys_bits = 40};

static struct pcpu the_cpu;
static uint64_t tsc, timers_ran_at, tsc_per_look;
static bool jumped; /* the TSC did, since timers were last put where they belong */
static struct twin twins[TWINS], *twin_now;
static const struct operation *operation_now; /* of the vCPU that runs */
static unsigned pages_out, allocation_fails;  /* 1: the next one; 0: none */

/* ---- The simulated CPU ---- */

static struct {
    uint8_t area[XSAVE_BYTES];
    uint64_t xcr0;
} fpu = {.xcr0 = 1};
uint64_t simulated_dr[4];

#define FPU_MXCSR 24u
#define FPU_HEADER 512u

uint64_t simulated_rdtsc(void)
{
    return tsc += tsc_per_look;
}

struct cpuid_result simulated_cpuid(uint32_t leaf, uint32_t subleaf)
{
    switch (leaf) {
    case 0x0:
        return (struct cpuid_result){0xd, 0x68747541, 0x444d4163, 0x69746e65};
    case 0x1:
        return (struct cpuid_result){0x00a20f10, 0, 0x3ed8320b, 0x178bfbff};
    case 0x4: /* a data cache for 8 threads, in a package of 4 cores */
        return subleaf ? (struct cpuid_result){0, 0, 0, 0} : (struct cpuid_result){0x0c01c121, 0x01c0003f, 0x3f, 1};
    case 0x7:
        return (struct cpuid_result){0, subleaf ? 0 : 0x219c07a9, subleaf ? 0 : 4, 0};
    case 0xd:
        return subleaf == 0   ? (struct cpuid_result){XCR0_ALLOWED, XSAVE_BYTES, XSAVE_BYTES, 0}
               : subleaf == 2 ? (struct cpuid_result){256, 576, 0, 0}
                              : (struct cpuid_result){0, 0, 0, 0};
    case 0x80000000:
        return (struct cpuid_result){0x80000008, 0, 0, 0};
    case 0x80000001:
        return (struct cpuid_result){0, 0, 0xe9, 0x2fd3fbff};
    case 0x80000007:
        return (struct cpuid_result){0, 0, 0, 0x100};
    case 0x80000008:
        return (struct cpuid_result){0x3028, 0, 0, 0};
    }
    return (struct cpuid_result){0, 0, 0, 0};
}

uint64_t simulated_xgetbv(void)
{
    return fpu.xcr0;
}

void simulated_xsetbv(uint64_t value)
{
    EXPECT((value & 1) && !(value & ~(uint64_t)XCR0_ALLOWED) && (!(value & 4) || (value & 2)), "XSETBV does not fault");
    fpu.xcr0 = value;
}

void simulated_fxsave(void *area)
{
    static const uint32_t mask = 0x2ffff; /* with MXCSR.MM, as AMD's CPUs have it */

    memset(area, 0, 512);
    memcpy((uint8_t *)area + 28, &mask, sizeof(mask));
}

void simulated_xsave(void *area)
{
    memcpy(area, fpu.area, XSAVE_BYTES);
}

static uint64_t quad(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

void simulated_xrstor(const void *area)
{
    const uint8_t *a = area;

    EXPECT(!(quad(a + FPU_HEADER) & ~fpu.xcr0), "XRSTOR does not fault: components");
    for (unsigned i = FPU_HEADER + 8; i < FPU_HEADER + 64; i++)
        EXPECT(!a[i], "XRSTOR does not fault: header");
    EXPECT(!(quad(a + FPU_MXCSR) & 0xfffd0000u), "XRSTOR does not fault: MXCSR");
    memcpy(fpu.area, area, XSAVE_BYTES);
}

void simulated_wrmsr(uint32_t msr, uint64_t value)
{
    EXPECT(msr == MSR_TSC_AUX && !(value >> 32), "WRMSR does not fault");
}

void test_window(void) {}
void test_halt(void) {}
void ipi_send(unsigned cpu, uint8_t vector) { (void)cpu, (void)vector; }
void host_timer_arm(uint64_t when) { (void)when; }

/* ---- The rest of the hypervisor ---- */

void *alloc_pages_uncleared(unsigned order)
{
    void *pages = NULL;

    if (allocation_fails && --allocation_fails == 0)
        return NULL;
    if (posix_memalign(&pages, PAGE_SIZE, PAGE_SIZE << order))
        abort();
    pages_out += 1u << order;
    return memset(pages, 0xcc, PAGE_SIZE << order);
}

void *alloc_pages(unsigned order)
{
    void *pages = alloc_pages_uncleared(order);

    return pages ? memset(pages, 0, PAGE_SIZE << order) : NULL;
}

void free_pages(void *pages, unsigned order)
{
    pages_out -= pages ? 1u << order : 0;
    free(pages);
}

uint64_t total_page_count(void) { return 1 << 20; }
uint64_t free_page_count(void) { return total_page_count() - pages_out; }
uint64_t virt_to_phys(const void *p) { return (uint64_t)p; }
void *phys_to_virt(uint64_t physical) { return (void *)physical; }
int vformat_line(char *to, size_t size, const char *format, va_list args) { return vsnprintf(to, size, format, args); }
int console_read(void) { return -1; }
void standalone_init(void) {}
void standalone_made(int status) { (void)status; }
void standalone_poll(void) {}
void standalone_ended(struct domain *d) { (void)d; }
void standalone_console(struct domain *d, const uint8_t *bytes, unsigned n) { (void)d, (void)bytes, (void)n; }
void irq_set_handler(uint8_t vector, irq_handler *handler, void *argument) { (void)vector, (void)handler, (void)argument; }
int irq_alloc(irq_handler *handler, void *argument) { return handler && argument ? 0x31 : 0x30; }
void machine_stop(int code) { exit(code); }
bool boot_option_number(const char *name, uint64_t *value) { return false; }

int format_line(char *to, size_t size, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(to, size, format, args);
    va_end(args);
    return n;
}

void console_set_pause(void (*between_characters)(void)) { (void)between_characters; }
void log_at(enum log_level level, const char *format, ...)
{
    va_list args;

    (void)level;
    if (!getenv("FUZZ_TRACE"))
        return;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}

void panic(const char *format, ...)
{
    violated("nothing that a guest or a saved state holds leads to a panic", format);
    abort();
}

/* The control device and the slots, as they are found on the PCI bus: device 0, then a device for each slot. */
static uint8_t control_memory[METRONOME_CONTROL_BYTES] __attribute__((aligned(4096)));
static uint8_t slot_memory[TWINS][SLOT_BYTES] __attribute__((aligned(4096)));
static uint8_t registers[PAGE_SIZE];
#define REGISTERS_AT (1ull << 40)
#define MEMORY_AT(device) ((2ull + (device)) << 30)

void pci_for_each(uint16_t vendor, uint16_t device, void (*found)(struct pci_address a, void *argument), void *argument)
{
    (void)vendor, (void)device;
    for (uint8_t i = 0; i <= TWINS; i++)
        found((struct pci_address){0, i, 0}, argument);
}

bool pci_bar(struct pci_address a, unsigned bar, uint64_t *base, uint64_t *size)
{
    *base = bar ? MEMORY_AT(a.device) : REGISTERS_AT;
    *size = !bar ? PAGE_SIZE : a.device ? SLOT_BYTES : METRONOME_CONTROL_BYTES;
    return true;
}

bool pci_msix_enable(struct pci_address a, unsigned entry, uint8_t vector, uint32_t apic_id)
{
    (void)a, (void)entry, (void)vector, (void)apic_id;
    return true;
}

void *map_physical(uint64_t physical, uint64_t size, enum map_type type)
{
    (void)size, (void)type;
    if (physical == REGISTERS_AT)
        return registers;
    return physical == MEMORY_AT(0) ? control_memory : slot_memory[(physical >> 30) - 3];
}

/* ---- The vendor's part: a CPU that enters guests, and refuses what AMD-V refuses (APM 2 15.5.1, 15.20) ---- */

struct vendor_state {
    struct metronome_state_registers r;
    uint64_t root; /* of the nested tables */
};

static void note(uint64_t value)
{
    twin_now->outputs = (twin_now->outputs ^ value) * 0x100000001b3 + (value >> 32);
}

static bool is_canonical(uint64_t address)
{
    return (int64_t)(address << 16) >> 16 == (int64_t)address;
}

static void expect_enterable(const struct metronome_state_registers *r)
{
    bool pg = r->cr0 & CR0_PG;

    EXPECT(!(r->cr0 >> 32) && !(r->dr6 >> 32) && !(r->dr7 >> 32), "VMRUN: high halves are 0");
    EXPECT((r->cr0 & (CR0_CD | CR0_NW)) != CR0_NW, "VMRUN: CR0.NW has CR0.CD with it");
    EXPECT(!(r->efer & ~EFER_ALLOWED) && !(r->cr4 & ~cr4_allowed()), "VMRUN: reserved bits of EFER and CR4 are 0");
    EXPECT(!(r->cr3 >> cpu_features.phys_bits), "VMRUN: CR3 is an address");
    EXPECT(!pg || (r->cr0 & CR0_PE), "VMRUN: paging is protected mode");
    EXPECT(!(pg && (r->efer & EFER_LME)) || ((r->cr0 & CR0_PE) && (r->cr4 & CR4_PAE)), "VMRUN: long mode has PAE");
    EXPECT(!(pg && (r->efer & EFER_LME)) || (r->cs.attributes & 0x600) != 0x600, "VMRUN: CS is not L and D");
    EXPECT(is_canonical(r->fs.base) && is_canonical(r->gs.base) && is_canonical(r->ldtr.base) && is_canonical(r->tr.base) &&
               is_canonical(r->kernel_gs_base) && is_canonical(r->lstar) && is_canonical(r->cstar) && is_canonical(r->rip),
           "VMLOAD: bases are canonical");
    EXPECT(r->cpl <= 3 && (r->rflags & 2), "VMRUN: CPL and RFLAGS");
}

static void expect_injectable(struct injection i)
{
    EXPECT(i.type == EVENT_INTR || i.type == EVENT_NMI || i.type == EVENT_EXCEPTION || i.type == EVENT_SOFTWARE,
           "VMRUN: the event has a type");
    EXPECT(i.type != EVENT_EXCEPTION || (i.vector != 2 && i.vector < 32), "VMRUN: the exception has a vector");
}

static struct emu_segment emulated(struct metronome_state_segment s)
{
    return (struct emu_segment){.selector = s.selector, .attributes = s.attributes, .limit = s.limit, .base = s.base};
}

static void load_regs(struct vcpu *v)
{
    const struct metronome_state_registers *from = &v->vendor->r;
    struct emu_regs *r = &v->emu.regs;

    r->seg[EMU_ES] = emulated(from->es);
    r->seg[EMU_CS] = emulated(from->cs);
    r->seg[EMU_SS] = emulated(from->ss);
    r->seg[EMU_DS] = emulated(from->ds);
    r->seg[EMU_FS] = emulated(from->fs);
    r->seg[EMU_GS] = emulated(from->gs);
    r->cr0 = from->cr0;
    r->cr3 = from->cr3;
    r->cpl = (uint8_t)from->cpl;
}

static void take_regs(struct vcpu *v)
{
    const struct metronome_state_registers *from = &v->vendor->r;
    struct emu_regs *r = &v->emu.regs;

    r->rip = from->rip;
    r->rflags = from->rflags;
    r->efer = from->efer;
    r->cr4 = from->cr4;
    r->seg[EMU_CS] = emulated(from->cs);
}

static bool make_vcpu(struct vcpu *v)
{
    v->vendor = alloc_pages(0);
    return v->vendor;
}

static void destroy_vcpu(struct vcpu *v)
{
    free_pages(v->vendor, 0);
}

/* Firmware's first instructions are done: 32 bits, flat, no paging. */
static void reset_vcpu(struct vcpu *v, bool sipi, uint8_t vector)
{
    const struct metronome_state_segment data = {16, 0xc93, UINT32_MAX, 0};
    struct metronome_state_registers *r = &v->vendor->r;

    *r = (struct metronome_state_registers){
        .cs = {8, 0xc9b, UINT32_MAX, 0}, .es = data, .ss = data, .ds = data, .fs = data, .gs = data, .ldtr = {0, 0x82, 0xffff, 0},
        .tr = {0, 0x8b, 0xffff, 0}, .gdtr = {0, 0, 0xffff, 0}, .idtr = {0, 0, 0xffff, 0}, .cr0 = CR0_PE | CR0_ET,
        .dr6 = 0xffff0ff0, .dr7 = 0x400, .rflags = 2 | RFLAGS_IF, .rip = sipi ? (uint64_t)vector << 12 : CODE,
    };
    take_regs(v);
}

static void start_flat(struct vcpu *v, const struct loader_entry *entry)
{
    (void)entry;
    reset_vcpu(v, false, 0);
}

static void set_cr2(struct vcpu *v, uint64_t value) { v->vendor->r.cr2 = value; }
static void set_pat(struct vcpu *v) { (void)v; }
static uint64_t get_efer(const struct vcpu *v) { return v->vendor->r.efer; }

static bool set_efer(struct vcpu *v, uint64_t value)
{
    uint64_t *efer = &v->vendor->r.efer;

    if (((value ^ *efer) & EFER_LME) && (v->vendor->r.cr0 & CR0_PG))
        return false;
    *efer = (value & ~EFER_LMA) | (*efer & EFER_LMA);
    v->emu.regs.efer = *efer;
    return true;
}

static void get_registers(const struct vcpu *v, struct metronome_state_registers *r)
{
    uint64_t xcr0 = r->xcr0;

    *r = v->vendor->r;
    r->xcr0 = xcr0;
    r->rip = v->emu.regs.rip;
    r->rflags = v->emu.regs.rflags;
}

static void set_registers(struct vcpu *v, const struct metronome_state_registers *r)
{
    expect_enterable(r);
    v->vendor->r = *r;
    memset(v->vendor->r.gpr, 0, sizeof(r->gpr));
    memset(v->vendor->r.dr, 0, sizeof(r->dr));
    take_regs(v);
}

/* ---- What guests do ---- */

enum {
    PORT_IN, PORT_OUT, PORT_ANY, STRING, MMIO, READ_MSR, WRITE_MSR, RECIPE, END_PIC, END_APIC, HALT, FLAGS, CR8, FPU, COUNT,
    DM_ISA, DM_INTX, DM_LINK, DM_MSI, DM_SCI, DM_ANSWER, DM_RESET_DONE, BUTTON, TYPE,
    FORWARD, DEADLINE_, AROUND_DEADLINE, JUMP, SAVE, SAVE_LATER, CORRUPT, RUN, KINDS
};

static const char *const names[KINDS] = {
    "IN", "OUT", "any port", "string I/O", "MMIO", "RDMSR", "WRMSR", "recipe", "EOI to PIC", "EOI to APIC", "HLT", "flags",
    "CR8", "FPU", "counter", "ISA line", "INTx", "link", "MSI", "SCI", "answer", "reset done", "button or NMI", "type",
    "forward", "deadline", "around deadline", "jump", "save", "save, and time goes by", "corrupt", "run",
};

static const uint16_t ports[] = {
    0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,  0x61,  0x70,  0x71,  0x72,  0x73,  0x600,
    0x602, 0x604, 0x608, 0xb000, 0xb002, 0xb008, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0xcf8, 0xcfc, 0x1f0, 0xe9,
    0xcf9, 0x92,  0x3c0, 0x60a,
};

static const uint32_t msrs[] = {MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_TSC_ADJUST, MSR_TSC, MSR_PAT, MSR_EFER, 0x2ff, 0x200,
                                0x201, 0x250, MSR_TSC_AUX, 0x17a, 0x1a0, 0x400, 0xc0010015, 0x8b};

static const uint64_t places[] = {IOAPIC_BASE, HPET_BASE, 0, TEST_PAGE_BASE, 0xa0000, DM_MMIO, 0xffff0000, 0x1000};

/* Instructions at CODE, for what goes through the emulator; the first four for exits that skip theirs. */
enum { AT_RDMSR, AT_WRMSR, AT_HLT, AT_CPUID, AT_MMIO, MMIO_FORMS = 18, AT_STRING = AT_MMIO + MMIO_FORMS, STRING_FORMS = 9 };
static const uint8_t code[AT_STRING + STRING_FORMS][4] = {
    {0x0f, 0x32}, {0x0f, 0x30}, {0xf4}, {0x0f, 0xa2},
    {0x8b, 0x06}, {0x89, 0x07}, {0x8a, 0x06}, {0x88, 0x07}, {0x66, 0x8b, 0x06}, {0x66, 0x89, 0x07}, {0xa5}, {0xf3, 0xa4},
    {0xf3, 0xa5}, {0xf3, 0xaa}, {0xf3, 0xab}, {0x01, 0x07}, {0x87, 0x07}, {0xff, 0x36}, {0x8f, 0x07}, {0x31, 0x06},
    {0x0f, 0xb1, 0x0f}, {0xa7},
    {0x6c}, {0x6d}, {0x6e}, {0x6f}, {0xf3, 0x6c}, {0xf3, 0x6d}, {0xf3, 0x6e}, {0xf3, 0x6f}, {0x66, 0xf3, 0x6d},
};

/* What systems write to set devices up, by any vCPU. `vary` takes bits of the operation's value in the place of those. */
struct write {
    uint8_t size; /* of a port; 0: 4 bytes of memory; 8: an MSR */
    uint32_t address;
    uint64_t value;
    uint32_t vary;
};
#define MSR_WRITE 8u
#define APIC 0xfee00000u
static const struct write recipes[][10] = {
    {{1, 0x20, 0x11, 0}, {1, 0x21, 0x30, 0}, {1, 0x21, 4, 0}, {1, 0x21, 1, 2}, {1, 0xa0, 0x11, 0}, {1, 0xa1, 0x38, 0}, {1, 0xa1, 2, 0},
     {1, 0xa1, 1, 0}, {1, 0x21, 0, 0}, {1, 0xa1, 0, 0}},
    {{1, 0x43, 0x34, 0}, {1, 0x40, 0, 0xff}, {1, 0x40, 4, 0x1f}},
    {{1, 0x43, 0x30, 0xe}, {1, 0x40, 0x50, 0xff}, {1, 0x40, 0, 0xf}},
    {{1, 0x61, 1, 0}, {1, 0x43, 0xb0, 0xe}, {1, 0x42, 0, 0xff}, {1, 0x42, 1, 0xff}},
    {{0, APIC + 0xf0, 0x1ff, 0}, {0, APIC + 0x80, 0, 0}, {0, APIC + 0x350, 0x700, 0}, {0, APIC + 0x360, 0x400, 0},
     {0, APIC + 0x370, 0xfe, 0}, {0, APIC + 0xe0, UINT32_MAX, 0}, {0, APIC + 0xd0, 0x01000000, 0x0f000000}},
    {{0, APIC + 0xf0, 0x1ff, 0x1000}, {0, APIC + 0x320, 0x20040, 3}, {0, APIC + 0x3e0, 3, 3}, {0, APIC + 0x380, 0x1000, 0xffff}},
    {{0, APIC + 0x320, 0x44, 0}, {0, APIC + 0x3e0, 0xb, 0}, {0, APIC + 0x380, 0x100, 0xfffff}},
    {{0, APIC + 0x320, 0x40045, 0}, {MSR_WRITE, 0x832, 0x40045, 0}, {MSR_WRITE, MSR_TSC_DEADLINE, 0x10000, 0xffffffff}},
    {{MSR_WRITE, MSR_APIC_BASE, APIC | 0x800, 0x500}, {MSR_WRITE, 0x80f, 0x1ff, 0}},
    {{0, APIC + 0x310, 0, 0xff000000}, {0, APIC + 0x300, 0x4050, 0xc0800}, {MSR_WRITE, 0x830, 0x4051, 0xc0800}},
    {{0, APIC + 0x310, 0, 0x0f000000}, {0, APIC + 0x300, 0x4500, 0x80000}, {0, APIC + 0x300, 0x4608, 0}},
    {{0, IOAPIC_BASE, 0x14, 0}, {0, IOAPIC_BASE + 0x10, 0x60, 0x900}, {0, IOAPIC_BASE, 0x15, 0}, {0, IOAPIC_BASE + 0x10, 0, 0x0f000000}},
    {{0, IOAPIC_BASE, 0x20, 0x1e}, {0, IOAPIC_BASE + 0x10, 0x8068, 0x10107}, {0, IOAPIC_BASE, 0x20, 0}, {0, IOAPIC_BASE + 0x10, 0x61, 0}},
    {{0, IOAPIC_BASE, 0x38, 6}, {0, IOAPIC_BASE + 0x10, 0x70, 0x8007}, {0, IOAPIC_BASE, 0x22, 0}, {0, IOAPIC_BASE + 0x10, 0x8062, 0}},
    {{0, HPET_BASE + 0x10, 0, 0}, {0, HPET_BASE + 0xf0, 0, 0}, {0, HPET_BASE + 0x100, 0x284c, 0x600},
     {0, HPET_BASE + 0x108, 0x1000, 0xfffff}, {0, HPET_BASE + 0x10, 1, 2}},
    {{0, HPET_BASE + 0x10, 1, 0}, {0, HPET_BASE + 0x120, 0x2a06, 0x1e00}, {0, HPET_BASE + 0x128, 0x100, 0xfffff}},
    {{0, HPET_BASE + 0x10, 0, 0}, {0, HPET_BASE + 0xf0, 0, 0}, {0, HPET_BASE + 0x150, 0x4071, 0}, {0, HPET_BASE + 0x154, APIC, 0},
     {0, HPET_BASE + 0x140, 0x404c, 8}, {0, HPET_BASE + 0x148, 0x800, 0xfff}, {0, HPET_BASE + 0x10, 1, 0}},
    {{1, 0x70, 0xa, 0}, {1, 0x71, 0x26, 0xf}, {1, 0x70, 0xb, 0}, {1, 0x71, 0x42, 0x30}},
    {{1, 0x70, 0xc, 0}, {1, 0x70, 5, 0}, {1, 0x71, 0xc0, 0}, {1, 0x70, 3, 0}, {1, 0x71, 0xc0, 0}, {1, 0x70, 1, 0}, {1, 0x71, 0xc0, 0}},
    {{2, 0x602, 1, 0x721}, {2, 0xb002, 1, 0x721}},
    {{2, 0x600, 0xffff, 0}, {2, 0xb000, 0xffff, 0}},
    {{4, 0xcf8, 0x80000b40, 0}}, {{4, 0xcfc, 0xb001, 0}}, {{4, 0xcf8, 0x80000b80, 0}}, {{1, 0xcfc, 1, 1}},
    {{1, 0x3fc, 8, 3}, {1, 0x3f9, 0xf, 0xf}, {1, 0x3fa, 1, 0xc6}, {1, 0x3f8, 'x', 0}},
    {{1, 0x4d0, 0, 0xf8}, {1, 0x4d1, 0, 0xde}},
};
#define RECIPES (sizeof(recipes) / sizeof(recipes[0]))

static unsigned kind_of(const struct operation *o)
{
    return o->kind % KINDS;
}

static uint64_t *rax(struct vcpu *v)
{
    return &v->emu.regs.gpr[EMU_RAX];
}

static enum exit_action port(struct vcpu *v, uint16_t number, unsigned size, bool in, uint64_t value)
{
    enum exit_action action;

    *rax(v) = value;
    action = exit_port(v, number, size, in, v->emu.regs.rip + 1);
    if (in && action == EXIT_RESUME)
        note(*rax(v));
    return action;
}

static enum exit_action any_port(struct vcpu *v, const struct operation *o)
{
    uint16_t number = kind_of(o) == PORT_ANY ? o->argument : ports[o->argument % (sizeof(ports) / sizeof(ports[0]))];
    bool in = kind_of(o) == PORT_ANY ? o->vcpu & 0x80 : kind_of(o) == PORT_IN;

    return port(v, number, 1u << (o->argument >> 8) % 3, in, o->value);
}

static void at(struct vcpu *v, unsigned instruction)
{
    v->emu.regs.rip = CODE + 16 * instruction;
}

static uint64_t place(const struct vcpu *v, const struct operation *o)
{
    uint64_t base = places[o->argument % 8];

    return (base ? base : vlapic_base(&v->vlapic)) + ((o->argument >> 3) & 0x7f) * (base == HPET_BASE ? 4 : 16) % PAGE_SIZE;
}

static enum exit_action mmio(struct vcpu *v, const struct operation *o)
{
    uint64_t *gpr = v->emu.regs.gpr, address = place(v, o);
    bool to_device = o->argument & 0x400;
    enum exit_action action;

    at(v, AT_MMIO + o->vcpu / 8 % MMIO_FORMS);
    *rax(v) = gpr[EMU_RCX] = o->value;
    gpr[EMU_RSI] = to_device ? DATA : address;
    gpr[EMU_RDI] = to_device ? address : DATA;
    gpr[EMU_RSP] = DATA + 0x800;
    if (code[AT_MMIO + o->vcpu / 8 % MMIO_FORMS][0] == 0xf3)
        gpr[EMU_RCX] = 1 + o->value % 40;
    v->emu.regs.rflags &= ~0x400ull;
    action = exit_npf(v, address, to_device, false, true);
    note(*rax(v) + (v->emu.regs.rip << 32));
    return action;
}

static enum exit_action string_io(struct vcpu *v, const struct operation *o)
{
    uint64_t *gpr = v->emu.regs.gpr;
    enum exit_action action;

    at(v, AT_STRING + o->vcpu / 8 % STRING_FORMS);
    gpr[EMU_RCX] = 1 + o->value % 200;
    gpr[EMU_RDX] = ports[o->argument % (sizeof(ports) / sizeof(ports[0]))];
    gpr[EMU_RSI] = gpr[EMU_RDI] = DATA + (o->argument >> 8) * 8;
    v->emu.regs.rflags &= ~0x400ull;
    action = exit_string_io(v, (uint16_t)gpr[EMU_RDX]);
    note(gpr[EMU_RCX] + (v->emu.regs.rip << 32));
    return action;
}

static enum exit_action any_msr(struct vcpu *v, const struct operation *o)
{
    bool write = kind_of(o) == WRITE_MSR, x2apic = o->argument & 0x100;
    uint64_t *gpr = v->emu.regs.gpr, now = vtime_tsc(&v->domain->time);
    uint64_t value = o->vcpu & 0x80 ? now + o->value : o->vcpu & 0x40 ? (uint64_t)o->value << 32 | o->value : o->value;

    at(v, write ? AT_WRMSR : AT_RDMSR);
    gpr[EMU_RCX] = x2apic ? MSR_X2APIC_FIRST + (o->argument & 0xff) : msrs[o->argument % (sizeof(msrs) / sizeof(msrs[0]))];
    *rax(v) = (uint32_t)value;
    gpr[EMU_RDX] = value >> 32;
    exit_msr(v, write);
    note(*rax(v) ^ gpr[EMU_RDX] << 32);
    return EXIT_RESUME;
}

/* False: the vCPU waits for the device model. */
static bool follow_recipe(struct vcpu *v, const struct write *w, uint32_t variation)
{
    uint64_t value = (w->value & ~(uint64_t)w->vary) | (variation & w->vary);

    if (w->size == MSR_WRITE) {
        if (w->address == MSR_TSC_DEADLINE)
            value += vtime_tsc(&v->domain->time) + v->vlapic.tsc_adjust;
        note(msr_write(v, w->address, w->address == MSR_APIC_BASE ? value | (v->id == 0 ? APIC_BASE_BSP : 0) : value));
    } else if (w->size) {
        return port(v, (uint16_t)w->address, w->size, false, value) == EXIT_RESUME;
    } else if (io_is_ours(v, w->address)) {
        v->io.emulating = false;
        (void)io_mmio(v, w->address, 4, true, &value);
    }
    return true;
}

static enum exit_action cook(struct vcpu *v, const struct operation *o)
{
    const struct write *w = recipes[o->argument % RECIPES];

    for (unsigned i = 0; i < 10 && w[i].address; i++)
        if (!follow_recipe(v, &w[i], o->value))
            return EXIT_LEAVE;
    return EXIT_RESUME;
}

static enum exit_action end_of_interrupt(struct vcpu *v, const struct operation *o)
{
    static const uint16_t pic[2] = {0x20, 0xa0};
    uint64_t zero = 0;

    if (kind_of(o) == END_PIC)
        return port(v, pic[o->argument & 1], 1, false, o->argument & 2 ? 0x60 | (o->value & 7) : 0x20);
    if (vlapic_x2apic(&v->vlapic))
        msr_write(v, 0x80b, 0);
    else if (vlapic_mmio_enabled(&v->vlapic))
        (void)io_mmio(v, vlapic_base(&v->vlapic) + 0xb0, 4, true, &zero);
    return EXIT_RESUME;
}

/* IRET, STI, CLI, and MOV to debug registers. */
static void change_flags(struct vcpu *v, const struct operation *o)
{
    v->vendor->r.interrupt_shadow = o->argument & 1;
    if (o->argument & 2)
        v->nmi_blocked = false;
    v->emu.regs.rflags = (v->emu.regs.rflags & ~RFLAGS_IF) | (o->argument & 12 ? RFLAGS_IF : 0);
    v->vendor->r.dr7 = 0x400 | (o->value & 0xff);
    simulated_dr[o->value & 3] = o->value;
}

static void compute(const struct operation *o)
{
    if (o->argument & 1)
        fpu.xcr0 = 1 | (o->value & 2 ? o->value & 6 : 0);
    memcpy(fpu.area + 32 + o->argument % 256, &o->value, sizeof(o->value));
    fpu.area[FPU_HEADER] = XCR0_ALLOWED;
}

static enum exit_action act(struct vcpu *v, const struct operation *o)
{
    switch (kind_of(o)) {
    case PORT_IN:
    case PORT_OUT:
    case PORT_ANY:
        return any_port(v, o);
    case STRING:
        return string_io(v, o);
    case MMIO:
        return mmio(v, o);
    case READ_MSR:
    case WRITE_MSR:
        return any_msr(v, o);
    case RECIPE:
        return cook(v, o);
    case END_PIC:
    case END_APIC:
        return end_of_interrupt(v, o);
    case HALT:
        at(v, AT_HLT);
        return exit_hlt(v);
    case FLAGS:
        change_flags(v, o);
        return EXIT_RESUME;
    case CR8:
        vlapic_set_cr8(&v->vlapic, o->value & 15);
        return EXIT_RESUME;
    case FPU:
        compute(o);
        return EXIT_RESUME;
    case COUNT:
        note(vtime_tsc(&v->domain->time) + vlapic_guest_tsc_offset(&v->vlapic));
        at(v, AT_CPUID);
        *rax(v) = o->value;
        exit_cpuid(v);
        note(*rax(v));
        return EXIT_RESUME;
    }
    return EXIT_RESUME;
}

/* The entry of nested tables that the CPU finds for an address; NULL: none. */
static uint64_t *mapped(uint64_t root, uint64_t gpa)
{
    uint64_t *e = (uint64_t *)root + (gpa >> 39 & 511);

    for (unsigned shift = 30; (*e & P2M_PRESENT) && shift >= 12 && !(*e & P2M_LARGE); shift -= 9)
        e = (uint64_t *)(*e & P2M_ADDRESS) + (gpa >> shift & 511);
    return (*e & P2M_PRESENT) ? e : NULL;
}

static void enter(struct vcpu *v)
{
    bool shadow = v->vendor->r.interrupt_shadow;
    int want;
    struct injection i = inject_next(v, (struct injectability){(v->emu.regs.rflags & RFLAGS_IF) && !shadow, shadow}, &want);

    if (v->p2m_generation != v->domain->p2m.generation)
        v->vendor->root = vcpu_new_root(v);
    EXPECT(!vlapic_mmio_enabled(&v->vlapic) || !mapped(v->vendor->root, vlapic_base(&v->vlapic)), "a vCPU's APIC is over RAM");
    v->vendor->r.rip = v->emu.regs.rip;
    v->vendor->r.rflags = v->emu.regs.rflags;
    expect_enterable(&v->vendor->r);
    if (i.valid)
        expect_injectable(i);
    note(i.valid ? 1 + i.vector + ((uint64_t)i.type << 8) + ((uint64_t)i.error << 32) + ((uint64_t)v->id << 16) : 0);
    note((unsigned)want);
    note(vlapic_get_cr8(&v->vlapic));
}

/* Who wanted the pCPU meanwhile gets it later: the program is the scheduler. */
static bool prepare(struct vcpu *v)
{
    struct hvm_pcpu *p = this_hvm();
    uint64_t wake = p->wake;
    bool ready;

    p->resched = false;
    p->wake = 0;
    ready = vcpu_prepare(v);
    p->wake |= wake;
    return ready;
}

/* One entry into the guest and what it does there; the rest of an instruction that waited goes first. */
static void run_guest(struct vcpu *v)
{
    __atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);
    if (v->io.again) {
        v->io.again = false;
        if (exit_emulate(v) == EXIT_LEAVE)
            return;
        note(*rax(v) + v->emu.regs.gpr[EMU_RCX] + (v->emu.regs.rip << 32));
    }
    if (!prepare(v))
        return;
    enter(v);
    if (operation_now && act(v, operation_now) == EXIT_LEAVE)
        return;
    operation_now = NULL;
    if (prepare(v))
        enter(v);
}

const struct vendor_ops svm_ops = {
    .name = "simulated", .vcpu_init = make_vcpu, .vcpu_destroy = destroy_vcpu, .vcpu_reset = reset_vcpu,
    .vcpu_start_flat = start_flat, .run = run_guest, .load_regs = load_regs, .set_cr2 = set_cr2, .get_efer = get_efer, .set_efer = set_efer, .set_pat = set_pat,
    .get_registers = get_registers, .set_registers = set_registers,
};

/* ---- The pCPU's loop, with the test as scheduler ---- */

static bool take_timers(struct hvm_pcpu *p)
{
    if (deadline_next(&p->deadlines) > tsc || (tsc >= timers_ran_at && tsc - timers_ran_at < GAP))
        return false;
    timers_ran_at = tsc;
    do { /* as often as what is put off for others' sake needs it */
        p->quiet_until = 0;
        run_timer(p);
    } while (deadline_next(&p->deadlines) <= tsc + p->advance);
    p->quiet_until = 0;
    return true;
}

/* All that a pCPU does but for running guests, until nothing is left of it. */
static void settle(void)
{
    struct hvm_pcpu *p = this_hvm();

    for (unsigned n = 0;; n++) {
        bool more;

        for (unsigned i = 0; i < TWINS; i++)
            if (domain_in_progress(&slots[i]))
                hvm_attention(0, ATTENTION_WORK); /* the guests' turn is the program's to give */
        more = take_timers(p) || p->attention || p->wake;

        EXPECT(n < SETTLES, "the pCPU comes to rest");
        if (p->attention)
            give_attention(p);
        take_wakes(p);
        if (p->io_waiting)
            poll_requests(p);
        if (!more)
            return;
    }
}

static struct domain *domain_of(const struct twin *t)
{
    return t->slot->domain;
}

/* A turn on the pCPU for one vCPU, if it can run. */
static void turn(struct vcpu *v, const struct operation *o)
{
    struct hvm_pcpu *p = this_hvm();

    settle();
    p->resched = false;
    if (!(p->runnable >> v->place.local & 1))
        return;
    operation_now = o;
    if (v->domain->action)
        look_at(p, v);
    else
        vcpu_run(v);
    operation_now = NULL;
    settle();
}

/* ---- The device model ---- */

static struct metronome_ioreq *request_of(const struct twin *t, unsigned vcpu)
{
    return &((struct metronome_ioreq_page *)(t->slot->memory + METRONOME_DOMAIN_IOREQ))->vcpu[vcpu];
}

/* What there is to see, for those who look at requests, posted writes and the console. */
static void observe(const struct twin *t)
{
    struct metronome_bufioreq_page *b = (void *)(t->slot->memory + METRONOME_DOMAIN_BUFIOREQ);
    struct metronome_console *c = (void *)(t->slot->memory + METRONOME_DOMAIN_CONSOLE);

    for (unsigned i = 0; i < domain_of(t)->vcpus; i++) {
        struct metronome_ioreq *r = request_of(t, i);

        if ((r->state_dir_df & METRONOME_IOREQ_STATE_MASK) != METRONOME_IOREQ_READY)
            continue;
        note(r->addr ^ r->data << 7 ^ (uint64_t)r->count << 48 ^ (uint64_t)r->size << 40 ^ r->type);
        note(r->state_dir_df);
        r->state_dir_df = (uint8_t)((r->state_dir_df & ~METRONOME_IOREQ_STATE_MASK) | METRONOME_IOREQ_INPROCESS);
    }
    for (; b->read_pointer != b->write_pointer; b->read_pointer++)
        note(b->slot[b->read_pointer % METRONOME_BUFIOREQ_SLOTS]);
    for (; c->out_ring.consumed != c->out_ring.produced; c->out_ring.consumed++)
        note(c->out[c->out_ring.consumed % sizeof(c->out)]);
}

/* The answer depends on the question alone. */
static void answer(const struct twin *t, unsigned vcpu)
{
    struct metronome_ioreq *r = request_of(t, vcpu);

    if ((r->state_dir_df & METRONOME_IOREQ_STATE_MASK) != METRONOME_IOREQ_INPROCESS)
        return;
    if (!(r->state_dir_df & METRONOME_IOREQ_DATA_IS_PTR))
        r->data = (r->addr * 0x9e3779b97f4a7c15 + r->size) >> 8;
    r->state_dir_df = METRONOME_IOREQ_RESPONSE;
}

static void answer_all(const struct twin *t)
{
    for (unsigned i = 0; i < domain_of(t)->vcpus; i++)
        answer(t, i);
}

static void dm_command(const struct twin *t, uint32_t op, uint64_t a0, uint64_t a1, uint64_t a2)
{
    struct metronome_command_ring *r = (void *)(t->slot->memory + METRONOME_DOMAIN_COMMANDS);

    r->entry[r->ring.produced++ % METRONOME_RING_ENTRIES] = (struct metronome_command){.op = op, .args = {a0, a1, a2}};
    slot_rung(t->slot);
    settle();
}

/* ---- The daemon ---- */

static struct metronome_slot_status *status_of_slot(const struct slot *s)
{
    return (void *)(control_memory + METRONOME_CONTROL_SLOTS + s->index * sizeof(struct metronome_slot_status));
}

static int control_command(const struct slot *s, uint32_t op, uint64_t a1, uint64_t a2)
{
    struct metronome_command_ring *r = (void *)(control_memory + METRONOME_CONTROL_COMMANDS);
    struct metronome_completion_ring *done = (void *)(control_memory + METRONOME_CONTROL_COMPLETIONS);
    uint32_t before = done->ring.produced;

    r->entry[r->ring.produced++ % METRONOME_RING_ENTRIES] =
        (struct metronome_command){.op = op, .flags = METRONOME_COMMAND_COMPLETE, .args = {s->index, a1, a2}};
    hvm_attention(0, ATTENTION_CONTROL);
    settle();
    EXPECT(done->ring.produced == before + 1, "a command of the daemon is completed");
    return done->entry[before % METRONOME_RING_ENTRIES].status;
}

/* As the daemon leaves it for the next domain; its RAM and the state are the file's to bring. */
static void clean_slot(const struct slot *s)
{
    memset(s->memory, 0, METRONOME_DOMAIN_STATE);
}

static uint8_t *state_area(const struct slot *s)
{
    return s->memory + METRONOME_DOMAIN_STATE;
}

static uint32_t state_bytes(const struct slot *s)
{
    return ((const struct metronome_state_header *)state_area(s))->bytes;
}

static void destroy(const struct slot *s)
{
    EXPECT(control_command(s, METRONOME_CONTROL_DESTROY, 0, 0) == 0, "a domain is destroyed");
    EXPECT(!s->domain && status_of_slot(s)->state == METRONOME_SLOT_FREE, "its slot is free");
}

static void start_with_dm(const struct twin *t)
{
    if (domain_of(t)->has_dm)
        dm_command(t, METRONOME_DM_READY, 0, 0, 0);
}

static void pause_domain(const struct twin *t)
{
    EXPECT(control_command(t->slot, METRONOME_CONTROL_PAUSE, 0, 0) == 0, "a domain is paused");
    settle();
    EXPECT(domain_of(t)->paused, "it stands still");
}

static void save(const struct twin *t)
{
    pause_domain(t);
    EXPECT(control_command(t->slot, METRONOME_CONTROL_SAVE, 0, 0) == 0, "a paused domain is saved");
}

static void unpause(const struct twin *t)
{
    EXPECT(control_command(t->slot, METRONOME_CONTROL_UNPAUSE, 0, 0) == 0, "a domain goes on");
}

static int restore(const struct twin *t)
{
    clean_slot(t->slot);
    return control_command(t->slot, METRONOME_CONTROL_RESTORE, 0, 0);
}

/* ---- Properties ---- */

static void expect_legal(const struct domain *d)
{
    const struct chipset *c = &d->chipset;

    EXPECT(vpic_check(&c->vpic) && vioapic_check(&c->vioapic) && vpit_check(&c->vpit) && hpet_check(&c->hpet),
           "check holds: vpic, vioapic, vpit, hpet");
    EXPECT(rtc_check(&c->rtc) && pmtimer_check(&c->pmtimer) && uart_check(&c->uart), "check holds: rtc, pmtimer, uart");
    EXPECT(chipset_check(c), "check holds: lines");
    for (unsigned i = 0; i < d->vcpus; i++)
        EXPECT(vlapic_check(&d->vcpu[i]->vlapic), "check holds: vlapic");
}

static void expect_equal(const void *a, const void *b, size_t bytes, const char *what)
{
    size_t i = 0;

    if (!memcmp(a, b, bytes))
        return;
    while (((const uint8_t *)a)[i] == ((const uint8_t *)b)[i])
        i++;
    fprintf(stderr, "byte %zu of %zu differs\n", i, bytes);
    violated(what, "");
}

/* All from one member of a struct to the next one named. */
#define SAME(a, b, from, to, what) \
    expect_equal(&(a)->from, &(b)->from, (size_t)((const char *)&(a)->to - (const char *)&(a)->from), what)

static void expect_same_vcpu(const struct vcpu *a, const struct vcpu *b)
{
    expect_equal(&a->vlapic, &b->vlapic, sizeof(a->vlapic), "the twins are the same: vlapic");
    SAME(&a->posted, &b->posted, pir, on, "the twins are the same: posted");
    expect_equal(a->posted.source, b->posted.source, 256, "the twins are the same: sources");
    SAME(a, b, nmi_pending, io, "the twins are the same: events");
    SAME(a, b, mtrr_def, dr, "the twins are the same: MSRs"); /* XCR0 and DR0-3 may be in the CPU */
    SAME(&a->emu.regs, &b->emu.regs, gpr, cr0, "the twins are the same: registers");
    SAME(a, b, ticks, halted, "the twins are the same: ticks");
    EXPECT(a->halted == b->halted, "the twins are the same: halted");
    EXPECT(a->io.waiting == b->io.waiting && a->io.again == b->io.again && a->io.logged == b->io.logged,
           "the twins are the same: requests");
}

static void expect_same(const struct domain *a, const struct domain *b)
{
    EXPECT(twins[0].outputs == twins[1].outputs, "the twins have done the same");
    EXPECT(a->action == b->action && a->end == b->end && a->resets == b->resets, "the twins are the same: action, end");
    SAME(&a->chipset, &b->chipset, vpic, deadline_ticks, "the twins are the same: chipset");
    for (unsigned i = 0; i < a->vcpus; i++)
        expect_same_vcpu(a->vcpu[i], b->vcpu[i]);
}

/* ---- Programs ---- */

static bool alone; /* the uninterrupted twin is gone: the other one was not restored from what had been saved */

static struct twin *first_twin(void)
{
    return &twins[alone ? 1 : 0];
}

static bool over(const struct domain *d)
{
    return !d || d->end != METRONOME_END_NONE;
}

/* Timers where they belong after the TSC has jumped, as a start puts them there. */
static void place_timers(struct domain *d)
{
    for (unsigned i = 0; i < d->vcpus; i++) {
        deadline_set(&this_hvm()->deadlines, &d->vcpu[i]->deadline, DEADLINE_UNSET);
        d->vcpu[i]->timer_due = false;
        vcpu_arm_timer(d->vcpu[i]);
    }
    chipset_rearm(d);
}

/* Time goes by until every timer that is due has been seen. */
static void let_timers_run(void)
{
    if (tsc - timers_ran_at < GAP)
        tsc = timers_ran_at + GAP;
    settle();
}

static bool can_be_saved(const struct domain *d)
{
    return !d->resetting && !d->action;
}

static void expect_restored(const struct twin *t)
{
    EXPECT(restore(t) == 0, status_of_slot(t->slot)->message[0] ? status_of_slot(t->slot)->message : "what was saved is restored");
    start_with_dm(t);
}

static uint8_t saved_image[METRONOME_DOMAIN_STATE_BYTES];

/* Saves the second twin, restores it, and saves it again. */
static void save_and_restore(const struct operation *o)
{
    const struct twin *t = &twins[1];
    uint32_t bytes;

    save(t);
    bytes = state_bytes(t->slot);
    memcpy(saved_image, state_area(t->slot), bytes);
    destroy(t->slot);
    if (kind_of(o) == SAVE_LATER)
        tsc += (uint64_t)o->value << o->argument % 24;
    expect_restored(t);
    save(t);
    EXPECT(bytes == state_bytes(t->slot) && !memcmp(saved_image, state_area(t->slot), bytes), "saved again it is the same");
    unpause(t);
}

static void interrupt(const struct operation *o)
{
    for (unsigned i = 0; i < TWINS; i++)
        if (!can_be_saved(domain_of(&twins[i])))
            return;
    for (unsigned i = 0; i < TWINS; i++)
        answer_all(&twins[i]);
    let_timers_run();
    if (jumped)
        place_timers(domain_of(&twins[0]));
    jumped = false;
    if (kind_of(o) == SAVE_LATER) /* the other one stands still meanwhile */
        pause_domain(&twins[0]);
    save_and_restore(o);
    if (kind_of(o) == SAVE_LATER) {
        unpause(&twins[0]);
        timers_ran_at = tsc;
    }
}

/* Restores from a state in which some byte is wrong: refused, or a domain like any other, which goes on alone. */
static void corrupt(const struct operation *o)
{
    struct slot *s = twins[1].slot;
    uint8_t *byte, was;
    unsigned before;

    if (!can_be_saved(domain_of(&twins[1])))
        return;
    answer_all(&twins[1]);
    save(&twins[1]);
    destroy(s);
    byte = &state_area(s)[o->value % state_bytes(s)];
    was = *byte;
    *byte ^= (uint8_t)(o->argument ? o->argument : 1);
    before = pages_out;
    if (!alone && restore(&twins[1])) {
        EXPECT(!s->domain && pages_out == before && status_of_slot(s)->message[0], "a refused state leaves nothing behind");
        *byte = was;
        destroy(twins[0].slot);
        alone = true;
        expect_restored(&twins[1]);
        return;
    }
    if (!alone)
        destroy(twins[0].slot);
    alone = true;
    if (!s->domain && restore(&twins[1]))
        return;
    start_with_dm(&twins[1]);
}

static uint64_t distance(const struct operation *o)
{
    return (uint64_t)o->value << (o->argument & 31);
}

static void move_time(const struct operation *o)
{
    uint64_t next = deadline_next(&this_hvm()->deadlines);

    if (kind_of(o) == JUMP) {
        tsc = o->argument & 0x8000 ? tsc - (distance(o) < tsc ? distance(o) : tsc) : distance(o);
        timers_ran_at = tsc - GAP;
        jumped = true;
        hvm_attention(0, ATTENTION_DEADLINES);
    } else if (kind_of(o) == FORWARD) {
        tsc += distance(o) % (1ull << 56);
    } else if (next != DEADLINE_UNSET && next > tsc) {
        next += kind_of(o) == AROUND_DEADLINE ? (uint64_t)(o->value % 4096) - 2048 : 0;
        tsc = next > tsc ? next : tsc;
    }
    settle();
}

/* What is not the guest's doing, for one twin. */
static void happen(const struct twin *t, const struct operation *o)
{
    const struct domain *d = domain_of(t);
    uint64_t a = o->argument, level = o->value & 1;

    if (kind_of(o) <= DM_RESET_DONE && !d->has_dm)
        return;
    switch (kind_of(o)) {
    case DM_ISA:
        return dm_command(t, METRONOME_DM_SET_ISA_IRQ, a % 17, level, 0);
    case DM_INTX:
        return dm_command(t, METRONOME_DM_SET_PCI_INTX, a % 33, a >> 8 & 3, level);
    case DM_LINK:
        return dm_command(t, METRONOME_DM_SET_PCI_LINK, a % 5, o->value % 17, 0);
    case DM_MSI:
        return dm_command(t, METRONOME_DM_MSI, APIC | (a & 3) << 12 | (a & 0xff00) << 4 | (a >> 2 & 4), o->value, 0);
    case DM_SCI:
        return dm_command(t, METRONOME_DM_SCI, level, 0, 0);
    case DM_RESET_DONE:
        if (d->resetting && d->paused)
            dm_command(t, METRONOME_DM_RESET_DONE, 0, 0, 0);
        return;
    case DM_ANSWER:
        return answer(t, o->vcpu % d->vcpus);
    case BUTTON:
        (void)control_command(t->slot, a & 1 ? METRONOME_CONTROL_POWER_BUTTON : METRONOME_CONTROL_NMI, o->vcpu % d->vcpus, 0);
        return;
    case TYPE: {
        struct metronome_console *c = (void *)(t->slot->memory + METRONOME_DOMAIN_CONSOLE);

        if (c->in_ring.produced == c->in_ring.consumed && !d->console_holds)
            c->in[c->in_ring.produced++ % sizeof(c->in)] = (uint8_t)o->value;
        slot_rung(t->slot);
        return;
    }
    }
}

static void trace(const struct operation *o)
{
    fprintf(stderr, "%20llu %-15s vCPU %u (%#x) argument %#x value %#x\n", (unsigned long long)tsc, names[kind_of(o)],
            o->vcpu % domain_of(first_twin())->vcpus, o->vcpu, o->argument, o->value);
}

static void step_twin(struct twin *t, const struct operation *o)
{
    bool guest = kind_of(o) < DM_ISA || kind_of(o) == RUN;

    twin_now = t;
    if (guest)
        turn(domain_of(t)->vcpu[o->vcpu % domain_of(t)->vcpus], kind_of(o) == RUN ? NULL : o);
    else
        happen(t, o);
    settle();
    if (!domain_of(t))
        return;
    observe(t);
    expect_legal(domain_of(t));
}

static void step_all(const struct operation *o)
{
    if (kind_of(o) == CORRUPT)
        return corrupt(o);
    if (kind_of(o) == SAVE || kind_of(o) == SAVE_LATER)
        return alone ? (void)0 : interrupt(o);
    if (kind_of(o) >= FORWARD && kind_of(o) <= JUMP)
        return move_time(o);
    for (struct twin *t = first_twin(); t < twins + TWINS; t++)
        step_twin(t, o);
}

/* False: the domain has ended. */
static bool fabric_step(const struct operation *o)
{
    twin_now = first_twin();
    if (getenv("FUZZ_TRACE"))
        trace(o);
    step_all(o);
    if (!alone && !over(domain_of(&twins[0])))
        expect_same(domain_of(&twins[0]), domain_of(&twins[1]));
    return !over(domain_of(first_twin()));
}

/* A guest that starts without firmware: a multiboot header, loaded at 1 MiB. */
static void put_module(uint8_t *to)
{
    static const uint32_t multiboot[] = {0x1badb002, 0x10000,  0u - 0x1badb002 - 0x10000, 0x100000, 0x100000, 0x100040,
                                         0x100040,   0x100020};

    memcpy(to, multiboot, sizeof(multiboot));
}

static void fill_slot(const struct slot *s, unsigned vcpus, bool has_dm)
{
    struct metronome_domain_header *h = (void *)(s->memory + METRONOME_DOMAIN_HEADER);
    uint8_t *arena = s->memory + METRONOME_DOMAIN_ARENA;

    clean_slot(s);
    memset(arena, 0, RAM + EXTRA);
    *h = (struct metronome_domain_header){.magic = METRONOME_DOMAIN_MAGIC, .version = METRONOME_ABI_VERSION,
        .flags = has_dm ? METRONOME_DOMAIN_HAS_DM : 0, .vcpus = vcpus, .cores = 1, .ram_low = RAM, .extra = RAM, .extra_bytes = EXTRA,
        .firmware = RAM, .firmware_bytes = EXTRA, .module = RAM, .module_bytes = PAGE_SIZE, .wallclock = 951868795, .name = "twin"};
    put_module(arena + RAM);
    for (unsigned i = 0; i < sizeof(code) / sizeof(code[0]); i++)
        memcpy(arena + CODE + 16 * i, code[i], sizeof(code[i]));
}

static void create_twin(struct twin *t, unsigned vcpus, bool has_dm)
{
    fill_slot(t->slot, vcpus, has_dm);
    t->outputs = 0;
    twin_now = t;
    EXPECT(control_command(t->slot, METRONOME_CONTROL_CREATE, 0, 0) == 0, status_of_slot(t->slot)->message);
    start_with_dm(t);
}

static void boot_once(void)
{
    struct metronome_control_header *h = (void *)control_memory;

    if (vendor)
        return;
    pcpus[0] = test_cpu = &the_cpu;
    *h = (struct metronome_control_header){.magic = METRONOME_CONTROL_MAGIC, .version = METRONOME_ABI_VERSION, .slots = TWINS,
                                           .slot_bytes = SLOT_BYTES};
    hvm_boot();
    hvm_pcpus[0]->advance = 0; /* nothing fires early: the program enters when it likes, and no entry is held for a deadline */
    control_ready();
    EXPECT(slot_count == TWINS && h->ready == 1, "the control device and its slots are found");
    for (unsigned i = 0; i < TWINS; i++)
        twins[i].slot = &slots[i];
}

/* Two domains of 1 to 4 vCPUs, with or without device model. */
static void fabric_begin(const struct operation *o)
{
    boot_once();
    tsc = (uint64_t)o->value << (o->argument & 15);
    timers_ran_at = tsc;
    alone = jumped = false;
    memset(fpu.area, 0, sizeof(fpu.area));
    fpu.xcr0 = 1;
    memset(simulated_dr, 0, sizeof(simulated_dr));
    for (unsigned i = 0; i < TWINS; i++) {
        if (twins[i].slot->domain) /* of a program that failed */
            destroy(twins[i].slot);
        create_twin(&twins[i], 1 + o->vcpu % 4, o->kind & 1);
    }
}

/* But for the end of a time slice, which is the pCPU's own. */
static bool is_idle(struct hvm_pcpu *p)
{
    deadline_set(&p->deadlines, &p->slice, DEADLINE_UNSET);
    return !p->runnable && !p->io_waiting && !p->deadlines.count && pages_out == 1;
}

static void fabric_end(void)
{
    static const struct operation at_last = {.kind = SAVE};

    if (!alone && !over(domain_of(&twins[0]))) {
        fabric_step(&at_last);
        EXPECT(!memcmp(twins[0].slot->memory + METRONOME_DOMAIN_ARENA, twins[1].slot->memory + METRONOME_DOMAIN_ARENA, RAM),
               "the twins' RAM is the same");
    }
    if (!alone && can_be_saved(domain_of(&twins[0]))) {
        for (unsigned i = 0; i < TWINS; i++)
            save(&twins[i]);
        EXPECT(!memcmp(state_area(twins[0].slot), state_area(twins[1].slot), state_bytes(twins[0].slot)),
               "what is saved of the twins is the same");
    }
    for (unsigned i = 0; i < TWINS; i++)
        if (twins[i].slot->domain)
            destroy(twins[i].slot);
    EXPECT(is_idle(this_hvm()), "nothing is left of a domain but the pCPU's own page");
}

#endif
