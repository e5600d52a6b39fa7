/*
 * One of each exit, and of each timer's interrupt, for tests/bench/profile.py: it stops at profile_begin() and profile_end() and
 * sees what the hypervisor has done between them. By itself the guest only checks that what it waits for comes.
 */
#include "guest.h"

#define VECTOR 0x61
#define HPET_PIN 20
#define ELCR 0x4d0
#define MSR_TSC_DEADLINE 0x6e0
enum { MSR_X2APIC_EOI = 0x80b, MSR_X2APIC_SELF_IPI = 0x83f, MSR_X2APIC_ICR = 0x830, MSR_TSC_ADJUST = 0x3b };

void profile_begin(const char *name);
void profile_end(void);

__attribute__((noinline)) void profile_begin(const char *name)
{
    __asm__ volatile("" : : "r"(name) : "memory");
}

__attribute__((noinline)) void profile_end(void)
{
    __asm__ volatile("" : : : "memory");
}

static volatile bool end_at_hit;

/* What is called is volatile: one instruction, at one address, whose decoding the hypervisor may know from the rounds before. */

/* The handler's own EOI is no part of what it took to come here. */
static void at_hit(unsigned vector)
{
    (void)vector;
    if (end_at_hit)
        profile_end();
    end_at_hit = false;
}

static void one(const char *name, void (*volatile what)(void))
{
    for (unsigned i = 0; i < 3; i++)
        what();
    profile_begin(name);
    what();
    profile_end();
}

static void do_cpuid(void) { cpuid(1, 0); }
static void do_vmmcall(void) { __asm__ volatile("vmmcall" : : "a"(0) : "memory"); }
static void do_elcr_read(void) { inb(ELCR); }
static void do_elcr_write(void) { outb(ELCR, 0); }
static void do_pm_timer(void) { inl(pm.timer); }
static void do_adjust_read(void) { rdmsr(MSR_TSC_ADJUST); }
static void do_adjust_write(void) { wrmsr(MSR_TSC_ADJUST, 0); }
static void do_deadline_write(void) { wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000000); }
static void do_hpet_read(void) { hpet_read(0xf0); }
static void do_pit_read(void) { inb(0x40); }
static void do_eoi(void) { mmio_write(LAPIC + APIC_EOI, 0); }
static void do_x2_eoi(void) { wrmsr(MSR_X2APIC_EOI, 0); }

static void take(void)
{
    uint32_t before = hits[VECTOR];

    sti();
    while (hits[VECTOR] == before)
        ;
    cli();
}

static void self_ipi(void) { wrmsr(MSR_X2APIC_SELF_IPI, VECTOR); }
static void icr_self(void) { wrmsr(MSR_X2APIC_ICR, 0x44000 | VECTOR); }
static void icr_id_0(void) { wrmsr(MSR_X2APIC_ICR, 0x4000 | VECTOR); }
static void deadline(void) { wrmsr(MSR_TSC_DEADLINE, rdtsc() + 30000); }
static void deadline_past(void) { wrmsr(MSR_TSC_DEADLINE, 1); }
static void pit_one_shot(void) { pit_mode(0, 0, 60); }

static void hpet_one_shot(void)
{
    hpet_write(0x108, (hpet_read(0xf0) + 600) & 0xffffffff);
}

/* Until the guest's handler; its EOI apart. */
static void interrupt(const char *name, void (*volatile arm)(void), bool halts)
{
    for (unsigned i = 0; i < 4; i++) {
        uint32_t before = hits[VECTOR];

        arm();
        if (i == 3)
            profile_begin(name);
        end_at_hit = i == 3;
        if (halts)
            halt();
        else
            take();
        check(hits[VECTOR] == before + 1, name, "%u interrupts", hits[VECTOR] - before);
    }
}

/* From the write that causes it at once. */
static void immediate(const char *name, void (*volatile send)(void))
{
    for (unsigned i = 0; i < 4; i++) {
        uint32_t before = hits[VECTOR];

        sti();
        end_at_hit = i == 3;
        if (i == 3)
            profile_begin(name);
        send();
        while (hits[VECTOR] == before)
            ;
        cli();
    }
}

static void eoi_of_one(const char *name, void (*volatile end)(void))
{
    count_vector(VECTOR, EOI_NONE);
    for (unsigned i = 0; i < 4; i++) {
        apic_icr(apic_is_x2() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24, 0x4000 | VECTOR);
        open_interrupts();
        if (i == 3)
            profile_begin(name);
        end();
    }
    profile_end();
    count_vector(VECTOR, EOI_LAPIC);
}

static void through_pic(void)
{
    pic_init();
    pic_mask(0xfffe);
    count_vector(PIC_BASE, EOI_PIC);
    apic_write(APIC_LVT_LINT0, 0x700);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t before = hits[PIC_BASE];

        pit_one_shot();
        end_at_hit = i == 3;
        if (i == 3)
            profile_begin("PIT, through the PIC");
        sti();
        while (hits[PIC_BASE] == before)
            ;
        cli();
    }
    pic_mask(0xffff);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
}

static void through_ioapic(void)
{
    ioapic_set(2, (uint64_t)(apic_is_x2() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24) << 56 | VECTOR);
    interrupt("PIT, through the I/O APIC", pit_one_shot, false);
    ioapic_set(2, IO_MASKED);
    ioapic_set(HPET_PIN, (uint64_t)(apic_is_x2() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24) << 56 | VECTOR);
    hpet_write(0x10, 1);
    hpet_write(0x100, (uint64_t)HPET_PIN << 9 | 4);
    interrupt("HPET, through the I/O APIC", hpet_one_shot, false);
    hpet_write(0x100, 0);
    ioapic_set(HPET_PIN, IO_MASKED);
}

static void timer(void)
{
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    interrupt("TSC deadline", deadline, false);
    interrupt("TSC deadline, halted", deadline, true);
    immediate("TSC deadline in the past", deadline_past);
    apic_write(APIC_LVT_TIMER, 0x40000 | APIC_MASKED | VECTOR);
    one("TSC-deadline write, masked", do_deadline_write);
    apic_write(APIC_LVT_TIMER, 0x40000 | VECTOR);
    one("TSC-deadline write", do_deadline_write);
    wrmsr(MSR_TSC_DEADLINE, 0);
}

void guest_main(void)
{
    apic_enable();
    count_vector(VECTOR, EOI_LAPIC);
    on_hit = at_hit;
    one("CPUID", do_cpuid);
    if (on_metronome())
        one("VMMCALL", do_vmmcall);
    one("ELCR read", do_elcr_read);
    one("ELCR write", do_elcr_write);
    one("PM timer read", do_pm_timer);
    one("PIT counter read", do_pit_read);
    one("TSC_ADJUST read", do_adjust_read);
    one("TSC_ADJUST write", do_adjust_write);
    one("HPET counter read", do_hpet_read);
    one("xAPIC EOI, nothing in service", do_eoi);
    eoi_of_one("xAPIC EOI", do_eoi);
    through_pic();
    through_ioapic();
    apic_set_x2(true);
    eoi_of_one("x2APIC EOI", do_x2_eoi);
    immediate("x2APIC self-IPI", self_ipi);
    immediate("x2APIC ICR, shorthand self", icr_self);
    immediate("x2APIC ICR, own id", icr_id_0);
    timer();
}
