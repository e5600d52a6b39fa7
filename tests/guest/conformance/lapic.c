/* The local APIC through its page (xAPIC), and its base MSR; then x2APIC mode. */
#include "script.h"

#define SELF 0x40000u
#define PERIODIC 0x20000u
#define DEADLINE 0x40000u
#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define BASE 0xfee00000ull

static uint64_t counted_in(uint64_t n_us)
{
    uint32_t a, b;
    apic_write(APIC_TMICT, 0xffffffff);
    a = apic_read(APIC_TMCCT);
    spin_us(n_us);
    b = apic_read(APIC_TMCCT);
    apic_write(APIC_TMICT, 0);
    return a - b;
}

/* How many times slower than undivided the timer counts. */
static void divider(unsigned code)
{
    uint64_t undivided, divided;
    apic_write(APIC_TDCR, 0xb);
    undivided = counted_in(8000);
    apic_write(APIC_TDCR, code);
    divided = counted_in(8000);
    value_number(divided ? rounded(undivided, divided) : 0);
}

/* Starts the timer, undivided, for this long. */
static void start_us(unsigned n_us)
{
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_TMICT, (uint32_t)(lapic_timer_per_ms * n_us / 1000));
}

static void counts(unsigned unused)
{
    uint32_t a = apic_read(APIC_TMCCT);
    (void)unused;
    spin_us(200);
    value_word(apic_read(APIC_TMCCT) != a ? "counts" : "stands");
}

static bool has_deadline(void)
{
    return cpuid(1, 0).ecx >> 24 & 1;
}

static void deadline_in_us(unsigned n_us)
{
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + us(n_us));
}

static void deadline_state(unsigned unused)
{
    (void)unused;
    value_word(rdmsr(MSR_TSC_DEADLINE) ? "armed" : "0");
}

static void cr8(unsigned unused)
{
    uint64_t v;
    (void)unused;
    __asm__ volatile("mov %%cr8, %0" : "=r"(v));
    value_hex(v, 1);
}

static void set_cr8(unsigned v)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"((uint64_t)v) : "memory");
}

static void error_lvt(unsigned v)
{
    apic_write(APIC_LVT_ERROR, v);
}

/* clang-format off */
#define EOI_NOW     LAPIC_W(APIC_EOI, 0)
#define IPI(v)      LAPIC_W(APIC_ICR, SELF | (v))
#define TO(d, v)    LAPIC_W(APIC_ICR2, (uint32_t)(d) << 24), LAPIC_W(APIC_ICR, v)
#define ESR         LAPIC_W(APIC_ESR, 0), LAPIC_R(APIC_ESR)
#define BIT(reg, v) READ(MEM, 4, LAPIC + (reg) + ((v) >> 5) * 16, 1u << ((v) & 31))
#define LWALK(reg)  WALK(MEM, 4, LAPIC + (reg), 0xffffffff)

static const struct op ops[] = {
    /* Registers */
    LINE("lapic.id"),               LAPIC_R(APIC_ID),
    LINE("lapic.version"),          READ(MEM, 4, LAPIC + APIC_VERSION, 0x010000ff),
    LINE("lapic.lvt-count"),        READ(MEM, 4, LAPIC + APIC_VERSION, 0x00ff0000),
    LINE("lapic.version.read-only"), LAPIC_W(APIC_VERSION, 0), READ(MEM, 4, LAPIC + APIC_VERSION, 0x00ff),
    LINE("lapic.tpr.walk"),         LWALK(APIC_TPR),
    LINE("lapic.ldr.walk"),         LWALK(APIC_LDR),
    LINE("lapic.dfr.walk"),         LWALK(APIC_DFR),
    LINE("lapic.svr.walk"),         LWALK(APIC_SVR),
    LINE("lapic.icr-high.walk"),    LWALK(APIC_ICR2),
    LINE("lapic.icr-low.reserved"), TO(0x0e, 0xfff3f8fe), LAPIC_R(APIC_ICR),
    LINE("lapic.lvt.walk-timer"),   LWALK(APIC_LVT_TIMER),
    LINE("lapic.lvt.walk-thermal"), LWALK(APIC_LVT_THERMAL),
    LINE("lapic.lvt.walk-pmc"),     LWALK(APIC_LVT_PMC),
    LINE("lapic.lvt.walk-lint0"),   LWALK(APIC_LVT_LINT0),
    LINE("lapic.lvt.walk-lint1"),   LWALK(APIC_LVT_LINT1),
    LINE("lapic.lvt.walk-error"),   LWALK(APIC_LVT_ERROR),
    LINE("lapic.tdcr.walk"),        LWALK(APIC_TDCR),
    LINE("lapic.tmict.walk"),       LWALK(APIC_TMICT),
    LINE("lapic.read-only"),        LAPIC_W(APIC_PPR, 0xff), LAPIC_R(APIC_PPR), LAPIC_W(APIC_IRR + 0x20, 0xff),
                                    LAPIC_R(APIC_IRR + 0x20),
                                    LAPIC_W(APIC_ISR + 0x20, 0xff), LAPIC_R(APIC_ISR + 0x20), LAPIC_W(APIC_TMR + 0x20, 0xff),
                                    LAPIC_R(APIC_TMR + 0x20), LAPIC_W(APIC_TMCCT, 0xff), LAPIC_R(APIC_TMCCT),
    LINE("lapic.rrd"),              LAPIC_R(0xc0),
    LINE("lapic.reserved"),         LAPIC_R(0x00), LAPIC_R(0x10), LAPIC_R(0x40), LAPIC_R(0x2a0), LAPIC_R(0x3f0),
    /* Priorities */
    LINE("lapic.tpr.ppr"),          LAPIC_W(APIC_TPR, 0x53), LAPIC_R(APIC_PPR),
    LINE("lapic.tpr.cr8"),          LAPIC_W(APIC_TPR, 0x53), CALL(cr8, 0), CALL(set_cr8, 7), LAPIC_R(APIC_TPR), CALL(set_cr8, 0),
    LINE("lapic.ppr.in-service"),   IPI(0x91), INTS, LAPIC_R(APIC_PPR), LAPIC_W(APIC_TPR, 0x53), LAPIC_R(APIC_PPR),
                                    LAPIC_W(APIC_TPR, 0x9c), LAPIC_R(APIC_PPR), LAPIC_W(APIC_TPR, 0xa5), LAPIC_R(APIC_PPR),
    LINE("lapic.tpr.holds-class"),  LAPIC_W(APIC_TPR, 0x50), IPI(0x5f), INTS, BIT(APIC_IRR, 0x5f), LAPIC_W(APIC_TPR, 0x4f), INTS,
    LINE("lapic.tpr.highest"),      LAPIC_W(APIC_TPR, 0xf0), IPI(0xfe), INTS, LAPIC_W(APIC_TPR, 0), INTS,
    LINE("lapic.ipi.self"),         IPI(0x51), BIT(APIC_IRR, 0x51), BIT(APIC_ISR, 0x51), INTS, BIT(APIC_IRR, 0x51),
                                    BIT(APIC_ISR, 0x51), BIT(APIC_TMR, 0x51), EOI_NOW, BIT(APIC_ISR, 0x51),
    LINE("lapic.ipi.twice-is-once"), IPI(0x51), IPI(0x51), INTS, EOI_NOW, INTS,
    LINE("lapic.ipi.one-in-service-one-waits"), IPI(0x51), INTS, IPI(0x51), IPI(0x51), INTS, EOI_NOW, INTS, EOI_NOW, INTS,
    LINE("lapic.ipi.order"),        EOI(EOI_LAPIC), IPI(0x51), IPI(0x91), IPI(0x52), INTS,
    LINE("lapic.ipi.nests"),        IPI(0x51), INTS, IPI(0x91), INTS, IPI(0x61), INTS, EOI_NOW, INTS, EOI_NOW, EOI_NOW,
    LINE("lapic.ipi.same-class-waits"), IPI(0x51), INTS, IPI(0x5f), INTS, EOI_NOW, INTS,
    LINE("lapic.eoi.nothing-in-service"), EOI_NOW, LAPIC_R(APIC_PPR), IPI(0x51), INTS,
    LINE("lapic.eoi.any-value"),    IPI(0x51), INTS, LAPIC_W(APIC_EOI, 0x12345678), BIT(APIC_ISR, 0x51),
    /* Destinations and delivery modes */
    LINE("lapic.icr.own-id"),       TO(0, 0x51), INTS,
    LINE("lapic.icr.other-id"),     TO(0x0d, 0x51), INTS,
    LINE("lapic.icr.broadcast"),    TO(0xff, 0x51), INTS,
    LINE("lapic.icr.all"),          LAPIC_W(APIC_ICR, 0x80000 | 0x51), INTS,
    LINE("lapic.icr.all-but-self"), LAPIC_W(APIC_ICR, 0xc0000 | 0x51), INTS,
    LINE("lapic.icr.flat"),         LAPIC_W(APIC_DFR, 0xffffffff), LAPIC_W(APIC_LDR, 0x14000000), TO(0x05, 0x851), INTS,
                                    TO(0xeb, 0x852), INTS,
    LINE("lapic.icr.cluster"),      LAPIC_W(APIC_DFR, 0x0fffffff), LAPIC_W(APIC_LDR, 0x24000000), TO(0x25, 0x861), INTS,
                                    TO(0x2b, 0x852), INTS,
                                    TO(0x14, 0x853), INTS, LAPIC_W(APIC_DFR, 0xffffffff),
    LINE("lapic.icr.cluster-broadcast"), LAPIC_W(APIC_DFR, 0x0fffffff), LAPIC_W(APIC_LDR, 0x24000000), TO(0xff, 0x851), INTS,
                                    LAPIC_W(APIC_DFR, 0xffffffff),
    LINE("lapic.icr.logical-broadcast-without-ldr"), LAPIC_W(APIC_LDR, 0), TO(0xff, 0x851), INTS,
    LINE("lapic.icr.lowest-priority"), LAPIC_W(APIC_LDR, 0x04000000), TO(0x04, 0x951), INTS, LAPIC_W(APIC_LDR, 0),
    LINE("lapic.icr.nmi"),          TO(0, 0x400), INTS,
    LINE("lapic.icr.reserved-mode"), TO(0, 0x351), INTS,
    LINE("lapic.icr.sipi-while-running"), TO(0, 0x608), INTS, IPI(0x51), INTS,
    LINE("lapic.icr.init-deassert"), LAPIC_W(APIC_ICR, 0x88500), IPI(0x51), INTS,
    /* Errors */
    LINE("lapic.esr.send-illegal"), TO(0, 0x05), INTS, LAPIC_R(APIC_ESR), ESR, ESR,
    LINE("lapic.esr.self-illegal"), IPI(0x05), INTS, ESR,
    LINE("lapic.esr.vector-16"),    IPI(0x10), BIT(APIC_IRR, 0x10), ESR, LAPIC_W(APIC_TPR, 0x10),
    LINE("lapic.esr.lvt-illegal-vector"), LAPIC_W(APIC_LVT_TIMER, 0x05), ESR, CALL(start_us, 100), US(500), ESR,
    LINE("lapic.esr.reserved-register"), LAPIC_R(0x2a0), ESR, LAPIC_W(0x2a0, 0), ESR,
    LINE("lapic.esr.interrupt"),    LAPIC_W(APIC_LVT_ERROR, 0x61), TO(0, 0x05), INTS, EOI_NOW, TO(0, 0x05), INTS, ESR,
    /* Timer */
    LINE("lapic.timer.dividers"),   CALL(divider, 0xb), CALL(divider, 0), CALL(divider, 1), CALL(divider, 2), CALL(divider, 3),
                                    CALL(divider, 8), CALL(divider, 9), CALL(divider, 10),
    LINE("lapic.timer.one-shot"),   LAPIC_W(APIC_LVT_TIMER, 0x71), CALL(start_us, 3000), CALL(counts, 0), WAIT_INT(0x71, 1, 50),
                                    LAPIC_R(APIC_TMCCT), EOI_NOW, RUN_US(5000), HITS(0x71),
    LINE("lapic.timer.periodic"),   LAPIC_W(APIC_LVT_TIMER, PERIODIC | 0x71), EOI(EOI_LAPIC), CALL(start_us, 1000),
                                    RUN_US(10500), HITS(0x71),
                                    CALL(counts, 0),
    LINE("lapic.timer.masked-counts"), LAPIC_W(APIC_LVT_TIMER, APIC_MASKED | 0x71), CALL(start_us, 1000), CALL(counts, 0),
                                    US(2000), CALL(counts, 0),
                                    LAPIC_W(APIC_LVT_TIMER, 0x71), INTS,
    LINE("lapic.timer.stop"),       LAPIC_W(APIC_LVT_TIMER, PERIODIC | 0x71), CALL(start_us, 1000), LAPIC_W(APIC_TMICT, 0),
                                    LAPIC_R(APIC_TMCCT),
                                    RUN_US(3000), HITS(0x71),
    LINE("lapic.timer.restart"),    LAPIC_W(APIC_LVT_TIMER, 0x71), CALL(start_us, 4000), RUN_US(2000), CALL(start_us, 4000),
                                    RUN_US(3000), HITS(0x71),
                                    RUN_US(2000), HITS(0x71),
    LINE("lapic.timer.one-shot-to-periodic"), LAPIC_W(APIC_LVT_TIMER, 0x71), EOI(EOI_LAPIC), CALL(start_us, 2000),
                                    LAPIC_W(APIC_LVT_TIMER, PERIODIC | 0x71), RUN_US(7000), HITS(0x71),
    LINE("lapic.timer.deadline"),   NEEDS(has_deadline), LAPIC_W(APIC_LVT_TIMER, DEADLINE | 0x71), MSR_W(MSR_TSC_DEADLINE, 0),
                                    CALL(deadline_in_us, 1000), CALL(deadline_state, 0), WAIT_INT(0x71, 1, 50),
                                    CALL(deadline_state, 0), EOI_NOW,
    THEN("lapic.timer.deadline-past"), CALL(deadline_in_us, 0), WAIT_INT(0x71, 2, 5), EOI_NOW,
    THEN("lapic.timer.deadline-0-disarms"), CALL(deadline_in_us, 2000), MSR_W(MSR_TSC_DEADLINE, 0), RUN_US(4000), HITS(0x71),
    THEN("lapic.timer.deadline-ignores-tmict"), LAPIC_W(APIC_TMICT, 100000), LAPIC_R(APIC_TMCCT),
    THEN("lapic.timer.deadline-other-mode"), LAPIC_W(APIC_LVT_TIMER, 0x71), MSR_W(MSR_TSC_DEADLINE, ~0ull),
                                    CALL(deadline_state, 0),
    /* Software disable */
    LINE("lapic.disable.masks-lvts"), LAPIC_W(APIC_LVT_TIMER, 0x71), LAPIC_W(APIC_LVT_ERROR, 0x61), LAPIC_W(APIC_SVR, 0xff),
                                    LAPIC_R(APIC_LVT_TIMER), LAPIC_R(APIC_LVT_ERROR), LAPIC_W(APIC_LVT_TIMER, 0x71),
                                    LAPIC_R(APIC_LVT_TIMER),
                                    LAPIC_W(APIC_SVR, 0x1ff), LAPIC_R(APIC_LVT_TIMER),
    LINE("lapic.disable.drops-fixed"), LAPIC_W(APIC_SVR, 0xff), TO(0, 0x51), BIT(APIC_IRR, 0x51), LAPIC_W(APIC_SVR, 0x1ff), INTS,
    LINE("lapic.disable.nmi-comes"), LAPIC_W(APIC_SVR, 0xff), TO(0, 0x400), INTS,
    LINE("lapic.disable.keeps-irr"), IPI(0x51), LAPIC_W(APIC_SVR, 0xff), BIT(APIC_IRR, 0x51), LAPIC_W(APIC_SVR, 0x1ff), INTS,
    /* Base */
    LINE("lapic.base"),             READ(MSR, 8, MSR_APIC_BASE, 0xfffffff00),
    LINE("lapic.base.reserved-bits"), MSR_W(MSR_APIC_BASE, BASE | 0x901), MSR_W(MSR_APIC_BASE, BASE | 0xb00),
                                    MSR_W(MSR_APIC_BASE, 1ull << 63 | BASE | 0x900),
    LINE("lapic.base.x2-without-enable"), MSR_W(MSR_APIC_BASE, BASE | 0x500),
};

/* Once its base says "disabled", the APIC of some emulators never comes back: last of all, and after x2APIC mode. */
static const struct op end_ops[] = {
    LINE("lapic-end.base-disable"), CALL(set_cr8, 5), CALL(error_lvt, 0x61),
                                    MSR_W(MSR_APIC_BASE, BASE | 0x100), MSR_W(MSR_APIC_BASE, BASE | 0x900),
                                    READ(MSR, 8, MSR_APIC_BASE, 0xf00),
    THEN("lapic-end.reset.tpr"),    LAPIC_R(APIC_TPR),
    THEN("lapic-end.reset.ldr"),    LAPIC_R(APIC_LDR),
    THEN("lapic-end.reset.dfr"),    LAPIC_R(APIC_DFR),
    THEN("lapic-end.reset.svr"),    LAPIC_R(APIC_SVR),
    THEN("lapic-end.reset.lvts"),   LAPIC_R(APIC_LVT_TIMER), LAPIC_R(APIC_LVT_THERMAL), LAPIC_R(APIC_LVT_PMC),
                                    LAPIC_R(APIC_LVT_LINT0),
                                    LAPIC_R(APIC_LVT_LINT1), LAPIC_R(APIC_LVT_ERROR),
    THEN("lapic-end.reset.timer"),  LAPIC_R(APIC_TMICT), LAPIC_R(APIC_TDCR),
    THEN("lapic-end.reset.icr"),    LAPIC_R(APIC_ICR), LAPIC_R(APIC_ICR2),
};

const struct script lapic_script = {"lapic", NULL, SCRIPT(ops)};
const struct script lapic_end_script = {"lapic-end", NULL, SCRIPT(end_ops)};

/* ---- x2APIC ---- */

static bool has_x2apic(void)
{
    return cpuid(1, 0).ecx >> 21 & 1;
}

/* Which of the MSRs 0x800-0x8ff can be read: a bit for each. */
static void readable(unsigned unused)
{
    uint64_t v;
    (void)unused;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t map = 0;
        for (unsigned i = 0; i < 64; i++)
            map |= (uint64_t)try_rdmsr(0x800 + 64 * word + i, &v) << i;
        value_hex(map, 8);
    }
}

/* Which bits fault when they alone are set in what `base` else holds. */
static void faulting_bits(uint32_t msr, uint64_t base)
{
    uint64_t faults = 0;
    for (unsigned i = 0; i < 64; i++)
        faults |= (uint64_t)!try_wrmsr(msr, base | 1ull << i) << i;
    try_wrmsr(msr, base);
    value_hex(faults, 8);
}

static void reserved_of(unsigned msr)
{
    faulting_bits(msr, 0);
}

static void reserved_of_lvt(unsigned msr)
{
    faulting_bits(msr, APIC_MASKED | 0xfe);
}

static void reserved_of_svr(unsigned msr)
{
    faulting_bits(msr, 0x1ff);
}

/* Any bit of a destination is good; of the low word those that send nothing: fixed, to nobody. */
static void reserved_of_icr(unsigned msr)
{
    uint64_t faults = 0;
    for (unsigned i = 0; i < 64; i++)
        if (i < 8 || i == 11 || i > 19 || (i > 11 && i < 18))
            faults |= (uint64_t)!try_wrmsr(msr, 0x0e000000feull | 1ull << i) << i;
    value_hex(faults, 8);
}

#define X(reg)         (0x800 + (reg) / 16)

static const struct op x2_ops[] = {
    LINE("x2apic.off-faults"),      MSR_R(X(APIC_ID)), MSR_W(X(APIC_TPR), 0),
    LINE("x2apic.enter"),           LAPIC_W(APIC_TPR, 0x30), LAPIC_W(APIC_LVT_ERROR, 0x61), MSR_W(MSR_APIC_BASE, BASE | 0xd00),
                                    READ(MSR, 8, MSR_APIC_BASE, 0xf00),
    THEN("x2apic.keeps-registers"), MSR_R(X(APIC_TPR)), MSR_R(X(APIC_LVT_ERROR)), MSR_R(X(APIC_SVR)),
    LINE("x2apic.readable"), CALL(readable, 0),
    LINE("x2apic.id"), MSR_R(X(APIC_ID)),
    LINE("x2apic.version"), READ(MSR, 8, X(APIC_VERSION), 0xff0000ff),
    LINE("x2apic.ldr"), MSR_R(X(APIC_LDR)),
    LINE("x2apic.write.read-only"), MSR_W(X(APIC_ID), 0), MSR_W(X(APIC_VERSION), 0), MSR_W(X(APIC_PPR), 0), MSR_W(X(APIC_LDR), 0),
                                    MSR_W(X(APIC_ISR), 0), MSR_W(X(APIC_TMR), 0), MSR_W(X(APIC_IRR), 0), MSR_W(X(APIC_TMCCT), 0),
    LINE("x2apic.write.missing"), MSR_W(X(APIC_DFR), 0xffffffff), MSR_W(X(APIC_ICR2), 0), MSR_W(0x80c, 0), MSR_W(0x840, 0),
                                    MSR_W(0x8ff, 0),
    LINE("x2apic.read.write-only"), MSR_R(X(APIC_EOI)), MSR_R(0x83f),
    LINE("x2apic.reserved.tpr"), CALL(reserved_of, X(APIC_TPR)),
    LINE("x2apic.reserved.eoi"), CALL(reserved_of, X(APIC_EOI)),
    LINE("x2apic.reserved.svr"), CALL(reserved_of_svr, X(APIC_SVR)),
    LINE("x2apic.reserved.esr"), CALL(reserved_of, X(APIC_ESR)),
    LINE("x2apic.reserved.icr"), CALL(reserved_of_icr, X(APIC_ICR)),
    LINE("x2apic.reserved.lvt-timer"), CALL(reserved_of_lvt, X(APIC_LVT_TIMER)),
    LINE("x2apic.reserved.lvt-thermal"), CALL(reserved_of_lvt, X(APIC_LVT_THERMAL)),
    LINE("x2apic.reserved.lvt-pmc"), CALL(reserved_of_lvt, X(APIC_LVT_PMC)),
    LINE("x2apic.reserved.lvt-lint0"), CALL(reserved_of_lvt, X(APIC_LVT_LINT0)),
    LINE("x2apic.reserved.lvt-lint1"), CALL(reserved_of_lvt, X(APIC_LVT_LINT1)),
    LINE("x2apic.reserved.lvt-error"), CALL(reserved_of_lvt, X(APIC_LVT_ERROR)),
    LINE("x2apic.reserved.tmict"), CALL(reserved_of, X(APIC_TMICT)),
    LINE("x2apic.reserved.tdcr"), CALL(reserved_of, X(APIC_TDCR)),
    LINE("x2apic.reserved.self-ipi"), CALL(set_cr8, 15), CALL(reserved_of, 0x83f), CALL(set_cr8, 0),
    LINE("x2apic.icr.one-register"), MSR_W(X(APIC_ICR), 0x1234567800000851), MSR_R(X(APIC_ICR)), INTS,
    LINE("x2apic.icr.own-id"), MSR_W(X(APIC_ICR), 0x51), INTS, MSR_W(X(APIC_EOI), 0),
    LINE("x2apic.icr.broadcast"), MSR_W(X(APIC_ICR), 0xffffffff00000051), INTS,
    LINE("x2apic.icr.ff-is-an-id"), MSR_W(X(APIC_ICR), 0x000000ff00000051), INTS,
    LINE("x2apic.icr.logical"), MSR_W(X(APIC_ICR), 0x0000000100000851), INTS, MSR_W(X(APIC_ICR), 0x0001000100000852), INTS,
    LINE("x2apic.self-ipi"), MSR_W(0x83f, 0x51), INTS, MSR_W(X(APIC_EOI), 0), MSR_R(X(APIC_ISR) + 2),
    LINE("x2apic.self-ipi.illegal"), MSR_W(0x83f, 0x05), MSR_W(X(APIC_ESR), 0), MSR_R(X(APIC_ESR)),
    LINE("x2apic.page-is-gone"), MSR_W(X(APIC_TPR), 0x50), LAPIC_W(APIC_TPR, 0), MSR_R(X(APIC_TPR)),
    LINE("x2apic.transitions"),     MSR_W(MSR_APIC_BASE, BASE | 0x900), MSR_W(MSR_APIC_BASE, BASE | 0x500),
    THEN("x2apic.disable-resets"),  MSR_W(X(APIC_TPR), 0x50), MSR_W(MSR_APIC_BASE, BASE | 0x100),
                                    MSR_W(MSR_APIC_BASE, BASE | 0xd00),
                                    MSR_W(MSR_APIC_BASE, BASE | 0x900), READ(MSR, 8, MSR_APIC_BASE, 0xf00), LAPIC_R(APIC_TPR),
                                    LAPIC_R(APIC_SVR),
};
/* clang-format on */

const struct script x2apic_script = {"x2apic", has_x2apic, SCRIPT(x2_ops)};
