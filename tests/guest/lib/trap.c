#include "guest.h"

extern uint8_t vector_stubs[256][16];
extern uint64_t boot_gdt[];
void trap(struct frame *f);
void trap_init(void);

static struct {
    uint16_t offset0, selector, flags, offset1;
    uint32_t offset2, zero;
} idt[256];
static handler *handlers[256];
static enum eoi eois[256];

volatile uint32_t hits[256];
volatile uint64_t hit_tsc[256];
volatile uint32_t masked_hits;
volatile uint8_t order[64];
volatile unsigned order_count;
void (*volatile on_hit)(unsigned vector);
volatile uint64_t trap_fixup, trap_error, trap_cr2, trap_rip;
volatile int trap_vector;

void set_gate(unsigned vector, void (*entry)(void))
{
    uintptr_t a = (uintptr_t)entry;

    idt[vector].offset0 = (uint16_t)a;
    idt[vector].selector = 8;
    idt[vector].flags = 0x8e00;
    idt[vector].offset1 = (uint16_t)(a >> 16);
}

void trap_init(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) reg = {sizeof(idt) - 1, (uintptr_t)idt};
    for (unsigned i = 0; i < 256; i++)
        set_gate(i, (void (*)(void))vector_stubs[i]);
    __asm__ volatile("lidt %0" : : "m"(reg));
}

void on_vector(unsigned vector, handler *h)
{
    handlers[vector] = h;
}

#define RFLAGS_IF 0x200u

static void counted(struct frame *f)
{
    unsigned v = (unsigned)f->vector;
    hit_tsc[v] = rdtsc();
    hits[v]++;
    masked_hits += !(f->rflags & RFLAGS_IF);
    if (v != WATCHDOG && order_count < sizeof(order))
        order[order_count++] = (uint8_t)v;
    if (on_hit)
        on_hit(v);
    if (eois[v] == EOI_LAPIC)
        apic_write(APIC_EOI, 0);
    else if (eois[v] == EOI_PIC)
        pic_eoi(v - PIC_BASE);
}

void count_vector(unsigned vector, enum eoi how)
{
    eois[vector] = how;
    hits[vector] = 0;
    handlers[vector] = counted;
}

void forget_vector(unsigned vector)
{
    handlers[vector] = NULL;
}

void reset_hits(void)
{
    for (unsigned i = 0; i < 256; i++)
        hits[i] = 0;
    order_count = 0;
}

void trap(struct frame *f)
{
    uint64_t cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    if (f->vector < 32 && f->vector != 2 && trap_fixup) {
        trap_vector = (int)f->vector;
        trap_error = f->error;
        trap_cr2 = cr2;
        trap_rip = f->rip;
        f->rip = trap_fixup;
        trap_fixup = 0;
        return;
    }
    if (handlers[f->vector]) {
        handlers[f->vector](f);
        return;
    }
    check(false, "no unexpected vector", "vector 0x%lx, error 0x%lx, rip 0x%lx, cr2 0x%lx", f->vector, f->error, f->rip, cr2);
    guest_end();
}

bool try_rdmsr(uint32_t msr, uint64_t *value)
{
    uint32_t lo = 0, hi = 0;
    TRY("rdmsr" TRIED : "+a"(lo), "+d"(hi) : "c"(msr) : "memory");
    *value = (uint64_t)hi << 32 | lo;
    return trap_vector < 0;
}

bool try_wrmsr(uint32_t msr, uint64_t value)
{
    TRY("wrmsr" TRIED : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
    return trap_vector < 0;
}
