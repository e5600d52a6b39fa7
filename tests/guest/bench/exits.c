/* One exit each: instructions that a hypervisor intercepts, and the registers of the devices inside it. */
#include "bench.h"

#define ELCR 0x4d0
#define X2APIC(reg) (0x800 + (reg) / 16)
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_COMPARATOR2 = 0x148 };

static volatile uint64_t sink;

TIMED(take_cpuid, cpuid(1, 0))
TIMED(take_vmmcall, __asm__ volatile("vmmcall" : : "a"(0) : "memory"))
TIMED(take_elcr_read, inb(ELCR))
TIMED(take_elcr_write, outb(ELCR, 0))
TIMED(take_imr_read, inb(0x21))
TIMED(take_imr_write, outb(0x21, 0xff))
TIMED(take_pic_read, inb(0x20))
TIMED(take_pit_read, inb(0x40))
TIMED(take_pit_latch, outb(0x43, 0))
TIMED(take_port61_read, inb(0x61))
TIMED(take_rtc_index, outb(0x70, 0xd))
TIMED(take_rtc_read, inb(0x71))
TIMED(take_pm_timer, inl(pm.timer))
TIMED(take_pm_event, inw(pm.event))
TIMED(take_hpet_counter, sink = hpet_read(HPET_COUNTER))
TIMED(take_hpet_config, sink = hpet_read(HPET_CONFIG))
TIMED(take_hpet_write, hpet_write(HPET_COMPARATOR2, 0))
TIMED(take_ioapic_select, mmio_write(IOAPIC, 0x10))
TIMED(take_ioapic_read, sink = mmio_read(IOAPIC + 0x10))
TIMED(take_ioapic_write, mmio_write(IOAPIC + 0x10, IO_MASKED))
TIMED(take_apic_read, sink = mmio_read(LAPIC + APIC_LDR))
TIMED(take_tpr_read, sink = mmio_read(LAPIC + APIC_TPR))
TIMED(take_tpr_write, mmio_write(LAPIC + APIC_TPR, 0))
TIMED(take_tmcct_read, sink = mmio_read(LAPIC + APIC_TMCCT))
TIMED(take_tmict_write, mmio_write(LAPIC + APIC_TMICT, 0))
TIMED(take_eoi, mmio_write(LAPIC + APIC_EOI, 0))
TIMED(take_cr8_read, uint64_t v; __asm__ volatile("mov %%cr8, %0" : "=r"(v)))
TIMED(take_cr8_write, __asm__ volatile("mov %0, %%cr8" : : "r"(0ull)))
TIMED(take_adjust_read, rdmsr(MSR_TSC_ADJUST))
TIMED(take_adjust_write, wrmsr(MSR_TSC_ADJUST, 0))
TIMED(take_pat_read, rdmsr(MSR_PAT))
TIMED(take_apic_base_read, rdmsr(0x1b))

static const struct operation exits[] = {
    {"CPUID", take_cpuid, NULL, NULL},
    {"PAT read", take_pat_read, NULL, NULL},
    {"APIC base read", take_apic_base_read, NULL, NULL},
    {"CR8 write", take_cr8_write, NULL, NULL},
    {"CR8 read", take_cr8_read, NULL, NULL},
    {"ELCR read", take_elcr_read, NULL, NULL},
    {"ELCR write", take_elcr_write, NULL, NULL},
    {"PIC mask read", take_imr_read, NULL, NULL},
    {"PIC mask write", take_imr_write, NULL, NULL},
    {"PIC IRR read", take_pic_read, NULL, NULL},
    {"PIT counter read", take_pit_read, NULL, NULL},
    {"PIT latch", take_pit_latch, NULL, NULL},
    {"port 0x61 read", take_port61_read, NULL, NULL},
    {"RTC index write", take_rtc_index, NULL, NULL},
    {"RTC register read", take_rtc_read, NULL, NULL},
    {"PM timer read", take_pm_timer, NULL, NULL},
    {"PM1 status read", take_pm_event, NULL, NULL},
    {"I/O APIC select", take_ioapic_select, NULL, NULL},
    {"I/O APIC read", take_ioapic_read, NULL, NULL},
    {"I/O APIC write", take_ioapic_write, NULL, NULL},
    {"xAPIC LDR read", take_apic_read, NULL, NULL},
    {"xAPIC TPR read", take_tpr_read, NULL, NULL},
    {"xAPIC TPR write", take_tpr_write, NULL, NULL},
    {"xAPIC timer's count read", take_tmcct_read, NULL, NULL},
    {"xAPIC timer's start", take_tmict_write, NULL, NULL},
    {"xAPIC EOI, nothing in service", take_eoi, NULL, NULL},
};
static const struct operation vmmcall = {"VMMCALL", take_vmmcall, NULL, NULL};
static const struct operation hpet[] = {
    {"HPET counter read", take_hpet_counter, NULL, NULL},
    {"HPET configuration read", take_hpet_config, NULL, NULL},
    {"HPET comparator write", take_hpet_write, NULL, NULL},
};
static const struct operation adjust[] = {
    {"TSC_ADJUST read", take_adjust_read, NULL, NULL},
    {"TSC_ADJUST write", take_adjust_write, NULL, NULL},
};

void bench_exits(void)
{
    uint64_t value;

    MEASURE(exits);
    TRY("vmmcall" TRIED : : "a"(0) : "memory");
    if (trap_vector < 0)
        measure(&vmmcall);
    else
        skip(vmmcall.name, "it faults: there is no AMD-V hypervisor");
    if ((uint32_t)hpet_read(0) != UINT32_MAX && hpet_read(0))
        MEASURE(hpet);
    else
        skip("HPET", "there is none");
    if (try_rdmsr(MSR_TSC_ADJUST, &value))
        MEASURE(adjust);
    else
        skip("TSC_ADJUST", "there is none");
}

TIMED(take_x2_read, rdmsr(X2APIC(APIC_LDR)))
TIMED(take_x2_tpr_write, wrmsr(X2APIC(APIC_TPR), 0))
TIMED(take_x2_count_read, rdmsr(X2APIC(APIC_TMCCT)))
TIMED(take_x2_start, wrmsr(X2APIC(APIC_TMICT), 0))
TIMED(take_x2_eoi, end_x2apic())

static const struct operation x2apic[] = {
    {"x2APIC LDR read", take_x2_read, NULL, NULL},
    {"x2APIC TPR write", take_x2_tpr_write, NULL, NULL},
    {"x2APIC timer's count read", take_x2_count_read, NULL, NULL},
    {"x2APIC timer's start", take_x2_start, NULL, NULL},
    {"x2APIC EOI, nothing in service", take_x2_eoi, NULL, NULL},
};

void bench_x2apic(void)
{
    apic_set_x2(true);
    MEASURE(x2apic);
}
