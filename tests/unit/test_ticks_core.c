/*
 * Missed ticks in the HVM core: the real fabric, injection and models under a guest that goes deaf, ends its interrupts
 * late and is looked at late, for every policy and source. The guest counts what it takes; every ledger must agree with it
 * and add up after every step. Time stands still but for the test's own steps.
 */
#include "hvm.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define US 1000u /* TSC ticks */
#define MS (1000u * US)
#define LVT_TIMER_PERIODIC 0x20000u

__thread struct pcpu *test_cpu;
struct pcpu *pcpus[MAX_PCPUS];
unsigned pcpu_count = 1;
uint64_t tsc_hz = 1000000000;
struct cpu_features cpu_features;
struct hvm_pcpu *hvm_pcpus[MAX_PCPUS];
static struct pcpu cpu;
static struct hvm_pcpu hvm_cpu;

/* ---- What the core needs of the rest of the hypervisor ---- */

static void no_regs(struct vcpu *v) { (void)v; }
static void no_reset(struct vcpu *v, bool sipi, uint8_t vector) { (void)v, (void)sipi, (void)vector; }
static const struct vendor_ops no_vendor = {.name = "none", .load_regs = no_regs, .vcpu_reset = no_reset};
const struct vendor_ops *vendor = &no_vendor;
void hvm_kick(unsigned number) { (void)number; }
void ipi_send(unsigned number, uint8_t vector) { (void)number, (void)vector; }
void hvm_attention(unsigned number, uint32_t what) { (void)number, (void)what; }
void hvm_take_breath(struct hvm_pcpu *p) { (void)p; }
void deadline_arm(struct deadline *d, uint64_t host_tsc) { deadline_set(&this_hvm()->deadlines, d, host_tsc); }
void vcpu_arm_timer(struct vcpu *v) { (void)v; }
void log_at(enum log_level level, const char *format, ...) { (void)level, (void)format; }
int vformat_line(char *to, size_t size, const char *format, va_list args) { return vsnprintf(to, size, format, args); }
void *domain_ram(const struct domain *d, uint64_t gpa, bool write) { return (void)d, (void)gpa, (void)write, NULL; }

void panic(const char *format, ...)
{
    printf("panic: %s\n", format);
    abort();
}

/* ---- A machine with all its timers running ---- */

enum { PIT, RTC, EDGE, LEVEL, FSB, LAPIC, KINDS }; /* HPET comparators 0 to 2 are edge, level and FSB */
enum { PIC_BASE = 0x20, VECTOR = 0x40, SPURIOUS = 0xff };
static const unsigned pins[] = {[PIT] = 2, [RTC] = 8, [EDGE] = 20, [LEVEL] = 21};

static struct domain d;
static struct vcpu vcpu;
static struct slot slot;
static bool deaf, through_pic, wild; /* wild: it may well have made an interrupt that never ends */
static uint64_t taken[KINDS];
static bool in_service[KINDS];
static struct metronome_latency latency;
static uint64_t injected[KINDS];
static struct ledger *ledger_of(unsigned kind)
{
    return kind == LAPIC ? &vcpu.ticks
           : kind == PIT ? &d.chipset.ledger[SOURCE_PIT]
           : kind == RTC ? &d.chipset.ledger[SOURCE_RTC]
                         : &d.chipset.ledger[SOURCE_HPET + kind - EDGE];
}

static uint64_t came_due(unsigned kind)
{
    const struct chipset *c = &d.chipset;

    return kind == LAPIC ? vcpu.vlapic.timer_due
           : kind == PIT ? c->vpit.out.line[0].rises
           : kind == RTC ? c->rtc.periodic_due
                         : c->hpet.timer[kind - EDGE].matches;
}

static uint8_t in(unsigned port)
{
    uint64_t value = 0;

    assert_int_equal(io_port(&vcpu, (uint16_t)port, 1, false, &value), EMU_OK);
    return (uint8_t)value;
}

static void out(unsigned port, uint64_t value)
{
    assert_int_equal(io_port(&vcpu, (uint16_t)port, 1, true, &value), EMU_OK);
}

static uint64_t load(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(io_mmio(&vcpu, gpa, size, false, &value), EMU_OK);
    return value;
}

static void store(uint64_t gpa, unsigned size, uint64_t value)
{
    assert_int_equal(io_mmio(&vcpu, gpa, size, true, &value), EMU_OK);
}

static void set_pin(unsigned pin, uint32_t entry)
{
    store(IOAPIC_BASE, 4, 0x10 + 2 * pin);
    store(IOAPIC_BASE + 0x10, 4, entry);
}

static void cmos(unsigned index, uint8_t value)
{
    out(0x70, index);
    out(0x71, value);
}

static void lapic(unsigned offset, uint32_t value)
{
    vlapic_write(&vcpu.vlapic, vtime_tsc(&d.time), offset, 4, value);
    fabric_take_apic_output(&vcpu);
}

static void start_pic(void)
{
    for (unsigned slave = 0; slave < 2; slave++) {
        unsigned port = slave ? 0xa0 : 0x20;

        out(port, 0x11);
        out(port + 1, PIC_BASE + 8 * slave);
        out(port + 1, slave ? 2 : 4);
        out(port + 1, 1);
        out(port + 1, through_pic ? slave ? 0xfe : 0xfa : 0xff);
    }
}

static void start_timers(void)
{
    lapic(0xf0, 0x100 | SPURIOUS);
    lapic(0x80, 0);
    lapic(0x350, through_pic ? 0x700 : 0x10000);
    start_pic();
    for (unsigned pin = 0; pin < 24; pin++)
        set_pin(pin, 0x10000);
    if (!through_pic) {
        set_pin(pins[PIT], VECTOR + PIT);
        set_pin(pins[RTC], VECTOR + RTC);
    }
    set_pin(pins[EDGE], VECTOR + EDGE);
    set_pin(pins[LEVEL], 0x8000 | 0x2000 | (VECTOR + LEVEL));
    out(0x43, 0x34 | (below(2) ? 2 : 0)); /* mode 2 or 3, 1 kHz */
    out(0x40, 1193 & 0xff);
    out(0x40, 1193 >> 8);
    cmos(0x0b, 2);
    cmos(0x0a, 0x26); /* 1024 Hz */
    out(0x70, 0x0c);
    in(0x71);
    cmos(0x0b, 0x42);
    store(HPET_BASE + 0x10, 8, 0);
    store(HPET_BASE + 0x20, 8, 0xff);
    for (unsigned t = 0; t < 3; t++) {
        static const uint64_t how[] = {20 << 9, 21 << 9 | 2, 1 << 14};

        store(HPET_BASE + 0x110 + 0x20 * t, 8, 0xfee0000000000000 | (VECTOR + FSB));
        store(HPET_BASE + 0x100 + 0x20 * t, 8, how[t] | 0x4c);
        store(HPET_BASE + 0x108 + 0x20 * t, 8, load(HPET_BASE + 0xf0, 8) + 14318 + 100 * t);
        store(HPET_BASE + 0x108 + 0x20 * t, 8, 14318 + 100 * t);
    }
    store(HPET_BASE + 0x10, 8, 1);
    lapic(0x320, LVT_TIMER_PERIODIC | (VECTOR + LAPIC));
    lapic(0x3e0, 11);
    lapic(0x380, MS);
}

static void new_machine(uint32_t choice)
{
    memset(&d, 0, sizeof(d));
    memset(&vcpu, 0, sizeof(vcpu));
    memset(&cpu, 0, sizeof(cpu));
    memset(&hvm_cpu, 0, sizeof(hvm_cpu));
    memset(taken, 0, sizeof(taken));
    memset(in_service, 0, sizeof(in_service));
    memset(&latency, 0, sizeof(latency));
    memset(injected, 0, sizeof(injected));
    vcpu.latency.ledger = &latency;
    vcpu.latency.bar = d.late.bar;
    cpu.hvm = hvm_pcpus[0] = &hvm_cpu;
    pcpus[0] = test_cpu = &cpu;
    deadline_init(&hvm_cpu.slice, NULL);
    hvm_cpu.local[0] = &vcpu;
    d = (struct domain){.slot = &slot, .vcpus = 1, .vcpu = {&vcpu}, .header.ticks = choice};
    d.time = (struct vtime){.tsc_hz = tsc_hz, .stopped = true};
    memset(d.map.physical, 0xff, sizeof(d.map.physical));
    vcpu.domain = &d;
    vcpu.state = VCPU_RUNNABLE;
    vcpu.emu.ops = &emulator_ops;
    vcpu.emu.ctx = &vcpu;
    vcpu.emu.regs.rflags = RFLAGS_IF;
    vlapic_reset(&vcpu.vlapic, 0, 0, true);
    ticks_init(&vcpu.ticks, ticks_policy(choice, METRONOME_TICKS_OF_LAPIC));
    fabric_publish_apic(&vcpu);
    deadline_init(&d.chipset.deadline, chipset_expire);
    chipset_reset(&d, true);
    io_build_ports(&d);
    deaf = false;
    start_timers();
}

/* ---- The guest ---- */

static void end_of_interrupt(unsigned kind)
{
    in_service[kind] = false;
    if (!through_pic || (kind != PIT && kind != RTC)) {
        store(0xfee000b0, 4, 0);
        return;
    }
    if (kind == RTC)
        out(0xa0, 0x60);
    out(0x20, kind == RTC ? 0x62 : 0x60);
}

/* Flags are cleared in any case: a timer whose flag stays up is silent. */
static void serve(unsigned kind)
{
    if (kind == RTC) {
        out(0x70, 0x0c);
        taken[RTC] += in(0x71) >> 6 & 1;
    } else if (kind == LEVEL) {
        taken[LEVEL] += load(HPET_BASE + 0x20, 4) >> 1 & 1;
        store(HPET_BASE + 0x20, 4, 2);
    } else {
        taken[kind]++;
    }
}

static unsigned kind_of(uint8_t vector)
{
    return vector == PIC_BASE ? PIT : vector == PIC_BASE + 8 ? RTC : vector - VECTOR;
}

/* Enters the guest, which takes what comes, and ends it at once or some time later. */
static void enter(bool patient)
{
    struct injectability can = {.interrupts = !deaf};
    uint64_t now = vtime_tsc(&d.time);
    int want;

    vcpu_drain(&vcpu);
    vlapic_advance(&vcpu.vlapic, now);
    vcpu_book_ticks(&vcpu);
    vcpu_repay_ticks(&vcpu);
    for (unsigned n = 0; n < (wild ? 50 : 5000); n++) {
        struct injection i = inject_next(&vcpu, can, &want);
        unsigned kind = kind_of(i.vector);

        if (vcpu.latency.entering)
            latency_entered(&vcpu.latency, 0, now);
        if (!i.valid || i.vector == SPURIOUS || i.vector == PIC_BASE + 7)
            return;
        if (kind >= KINDS) {
            lapic(0xb0, 0);
            continue;
        }
        in_service[kind] = true;
        injected[kind]++;
        serve(kind);
        if (patient && !below(4))
            return;
        end_of_interrupt(kind);
        vcpu_drain(&vcpu);
    }
    if (!wild)
        fail_msg("the interrupts have no end");
}

static void end_what_is_in_service(void)
{
    for (unsigned kind = KINDS; kind-- > 0;)
        if (in_service[kind])
            end_of_interrupt(kind);
}

/* The next moment at which the hypervisor would look by itself. */
static uint64_t next_look(void)
{
    uint64_t chipset = d.chipset.deadline_ticks, lapics = vlapic_deadline(&vcpu.vlapic), owed = ticks_deadline(&vcpu.ticks);
    uint64_t next = chipset == NEVER ? NEVER : muldiv_up_u64(chipset, MASTER_HZ_DEN * tsc_hz, MASTER_HZ_NUM);

    next = lapics < next ? lapics : next;
    return owed < next ? owed : next;
}

static void look(void)
{
    if (vtime_master(&d.time) >= d.chipset.deadline_ticks)
        chipset_expire(&d.chipset.deadline);
}

/* Until `until`, on time; each step is checked by `check`. */
static void run(uint64_t until, void (*check)(void))
{
    while (next_look() <= until) {
        uint64_t next = next_look();

        d.time.stopped_at = next > d.time.stopped_at ? next : d.time.stopped_at;
        look();
        enter(false);
        check();
    }
    d.time.stopped_at = until;
}

/* ---- What must hold at any time ---- */

static void check_sums(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        const struct ledger *l = ledger_of(kind);

        assert_true(ticks_check(l));
        assert_true(l->n.delivered <= l->n.due);
    }
}

static void check_counts(void)
{
    check_sums();
    for (unsigned kind = 0; kind < KINDS; kind++) {
        const struct ledger *l = ledger_of(kind);

        if (l->n.due != came_due(kind) || l->n.delivered != taken[kind])
            fail_msg("timer %u, policy %u: %lu came due, the ledger says %lu; %lu were taken, it says %lu", kind,
                     (unsigned)l->policy, came_due(kind), l->n.due, taken[kind], l->n.delivered);
        if (l->policy == METRONOME_TICKS_DROP)
            assert_true(l->n.owed == 0 && l->n.collapsed == 0);
        else if (l->policy == METRONOME_TICKS_ONE_PENDING)
            assert_true(l->n.owed <= 1);
        else
            assert_true(l->n.dropped == 0 && l->n.collapsed == 0);
    }
}

/* Timers run all the time; the guest is deaf for up to 40 periods, slow to end interrupts, or not looked at in time. */
static void random_program(void)
{
    for (unsigned step = 0; step < 150; step++) {
        uint64_t until = d.time.stopped_at + below(below(10) ? 3 * MS : 40 * MS);

        deaf = below(3) == 0;
        if (below(3) == 0) { /* somebody else has the CPU */
            d.time.stopped_at = until;
            look();
            enter(true);
        } else {
            run(until, check_counts);
        }
        check_counts();
        end_what_is_in_service();
        check_counts();
    }
    deaf = false;
    run(d.time.stopped_at + 3000 * MS, check_counts);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        assert_int_equal(ledger_of(kind)->n.owed, 0);
        assert_true(ledger_of(kind)->n.delivered > 2900);
    }
}

static uint32_t all(unsigned policy)
{
    return policy * 0x1111u;
}

static void test_random_programs(void **state)
{
    (void)state;
    for (unsigned program = 0; program < 32; program++) {
        unsigned policy = 1 + program % 4;

        seed = 1000 + program;
        through_pic = program / 4 & 1;
        new_machine(program < 24 ? all(policy) : policy | (1 + below(4)) << 4 | (1 + below(4)) << 8 | (1 + below(4)) << 12);
        random_program();
    }
}

/* ---- The latency ledger ---- */

static uint64_t counted(unsigned source, unsigned stage)
{
    return metronome_latency_summary(&latency.of[source][stage]).n;
}

/* Each injection is counted once, with the moment at which it was due; its EOI too, but the PIC's. */
static void check_latency_counts(void)
{
    const uint64_t by_source[METRONOME_LATENCY_SOURCE_COUNT] = {
        [METRONOME_LATENCY_OF_PIT] = injected[PIT], [METRONOME_LATENCY_OF_RTC] = injected[RTC],
        [METRONOME_LATENCY_OF_HPET] = injected[EDGE] + injected[LEVEL] + injected[FSB],
        [METRONOME_LATENCY_OF_LAPIC] = injected[LAPIC],
    };

    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++) {
        bool by_pic = through_pic && (source == METRONOME_LATENCY_OF_PIT || source == METRONOME_LATENCY_OF_RTC);

        assert_int_equal(counted(source, METRONOME_LATENCY_POSTED), by_source[source]);
        assert_int_equal(counted(source, METRONOME_LATENCY_EOI), by_pic ? 0 : by_source[source]);
        assert_int_equal(counted(source, METRONOME_LATENCY_DUE), by_source[source]);
    }
}

static void test_latency_of_each_injection(void **state)
{
    (void)state;
    for (unsigned program = 0; program < 16; program++) {
        seed = 3000 + program;
        through_pic = program / 4 & 1;
        new_machine(all(1 + program % 4));
        random_program();
        check_latency_counts();
        for (unsigned kind = 0; kind < KINDS; kind++)
            assert_true(injected[kind] > 2900);
    }
}

static void expect_latency(unsigned source, uint64_t ticks, uint64_t n)
{
    assert_int_equal(latency.of[source][METRONOME_LATENCY_DUE].count[metronome_latency_bucket(ticks)], n);
}

static uint64_t tsc_of(uint64_t master)
{
    return muldiv_up_u64(master, MASTER_HZ_DEN * tsc_hz, MASTER_HZ_NUM);
}

/* What is looked at on time is entered when it is due; of a guest that is deaf the first tick waits for its end. */
static void test_latency_is_exact(void **state)
{
    static const unsigned sources[] = {METRONOME_LATENCY_OF_PIT, METRONOME_LATENCY_OF_RTC, METRONOME_LATENCY_OF_LAPIC};

    (void)state;
    for (unsigned by_pic = 0; by_pic < 2; by_pic++) {
        uint64_t due[3];

        through_pic = by_pic;
        new_machine(all(METRONOME_TICKS_DROP));
        run(100 * MS + 100 * US, check_sums);
        check_latency_counts();
        for (unsigned source = 0; source <= METRONOME_LATENCY_OF_LAPIC; source++)
            expect_latency(source, 0, counted(source, METRONOME_LATENCY_DUE));
        due[0] = tsc_of(vpit_deadline(&d.chipset.vpit));
        due[1] = tsc_of(rtc_deadline(&d.chipset.rtc));
        due[2] = vlapic_deadline(&vcpu.vlapic);
        deaf = true;
        run(d.time.stopped_at + 20 * MS, check_sums);
        deaf = false;
        enter(false);
        check_latency_counts();
        for (unsigned i = 0; i < 3; i++)
            expect_latency(sources[i], d.time.stopped_at - due[i], 1);
    }
}

/* Nobody looks for 20 ms: late by as much, and posted only then. */
static void test_latency_of_a_late_look(void **state)
{
    uint64_t due;

    (void)state;
    through_pic = false;
    new_machine(all(METRONOME_TICKS_DROP));
    run(100 * MS + 100 * US, check_sums);
    due = tsc_of(vpit_deadline(&d.chipset.vpit));
    d.time.stopped_at += 20 * MS;
    look();
    enter(false);
    expect_latency(METRONOME_LATENCY_OF_PIT, d.time.stopped_at - due, 1);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        assert_int_equal(latency.of[source][METRONOME_LATENCY_POSTED].count[0], counted(source, METRONOME_LATENCY_POSTED));
}

/* A reset takes requests away: what is injected later has not waited since before it. */
static void test_latency_forgets_requests_that_are_gone(void **state)
{
    (void)state;
    through_pic = false;
    new_machine(all(METRONOME_TICKS_DROP));
    run(10 * MS + 100 * US, check_sums);
    deaf = true;
    run(20 * MS, check_sums);
    vlapic_init(&vcpu.vlapic, vtime_tsc(&d.time));
    fabric_publish_apic(&vcpu);
    d.time.stopped_at += 500 * MS;
    deaf = false;
    start_timers();
    run(d.time.stopped_at + 10 * MS, check_sums);
    for (unsigned source = 0; source < METRONOME_LATENCY_SOURCE_COUNT; source++)
        assert_true(metronome_latency_summary(&latency.of[source][METRONOME_LATENCY_POSTED]).max < 100 * MS);
}

/* A guest deaf for 20 ms, then not: what each policy gives it for the ticks of that time. */
static void test_deaf_stretch(void **state)
{
    static const struct {
        unsigned policy, at_once; /* taken as soon as it listens again */
    } rows[] = {
        {METRONOME_TICKS_DROP, 1}, {METRONOME_TICKS_ONE_PENDING, 2}, {METRONOME_TICKS_BURST, 0}, {METRONOME_TICKS_CATCH_UP, 2},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t before[KINDS];

        through_pic = false;
        new_machine(all(rows[i].policy));
        run(100 * MS + 100 * US, check_counts);
        memcpy(before, taken, sizeof(before));
        deaf = true;
        run(d.time.stopped_at + 20 * MS, check_counts);
        assert_memory_equal(before, taken, sizeof(before));
        deaf = false;
        look();
        enter(false);
        for (unsigned kind = 0; kind < KINDS; kind++)
            assert_int_equal(taken[kind] - before[kind], rows[i].at_once ? rows[i].at_once : came_due(kind) - before[kind]);
        check_counts();
    }
}

/* ---- Guests that program anything ---- */

static void disturb(void)
{
    switch (below(14)) {
    case 0:
        out(0x43, below(256));
        break;
    case 1:
        out(0x40, below(256));
        break;
    case 2:
        cmos(0x0a, (uint8_t)(0x20 | below(16)));
        break;
    case 3:
        cmos(0x0b, (uint8_t)(below(8) << 4 | 2));
        break;
    case 4:
        store(HPET_BASE + 0x10, 8, below(4));
        break;
    case 5:
        store(HPET_BASE + 0x100 + 0x20 * below(3), 8, below(0x8000));
        break;
    case 6:
        store(HPET_BASE + 0x108 + 0x20 * below(3), 4, 5000 + below(20000));
        break;
    case 7:
        store(HPET_BASE + 0x110 + 0x20 * below(3), 8, below(2) ? 0xfee0000000000000 | below(0x1000) : below(UINT64_MAX));
        break;
    case 8:
        set_pin((unsigned)below(24), (uint32_t)below(0x20000));
        break;
    case 9:
        out(below(2) ? 0x21 : 0xa1, below(256));
        break;
    case 10:
        out(below(2) ? 0x20 : 0xa0, below(0x40));
        break;
    case 11:
        lapic(0x320, (uint32_t)below(0x80000));
        break;
    case 12:
        lapic(below(2) ? 0xf0 : 0x350, (uint32_t)below(0x20000));
        break;
    default:
        if (below(10) == 0)
            chipset_reset(&d, false);
        else if (below(10) == 0)
            vcpu_post_work(&vcpu, WORK_NMI);
        else
            lapic(0x380, (uint32_t)below(3 * MS));
    }
}

/*
 * Whatever is programmed, the ledgers add up, and no timer is left waiting for a tick that nobody will take: programmed
 * anew, all of them run.
 */
static void test_random_registers(void **state)
{
    (void)state;
    for (unsigned program = 0; program < 100; program++) {
        uint64_t before[KINDS];

        seed = 7000 + program;
        through_pic = below(2);
        new_machine(all(1 + program % 4));
        wild = true;
        for (unsigned step = 0; step < 200; step++) {
            disturb();
            check_sums();
            deaf = below(2);
            d.time.stopped_at += below(2 * MS);
            look();
            enter(true);
            check_sums();
            if (below(2))
                end_what_is_in_service();
        }
        deaf = wild = false;
        vlapic_init(&vcpu.vlapic, vtime_tsc(&d.time));
        memset(in_service, 0, sizeof(in_service));
        start_timers();
        run(d.time.stopped_at + 2 * MS, check_sums);
        for (unsigned kind = 0; kind < KINDS; kind++)
            before[kind] = ledger_of(kind)->n.delivered;
        run(d.time.stopped_at + 100 * MS, check_sums);
        for (unsigned kind = 0; kind < KINDS; kind++)
            if (ledger_of(kind)->n.delivered - before[kind] - 95 > 10)
                fail_msg("program %u: timer %u: %lu ticks in 100 ms", program, kind, ledger_of(kind)->n.delivered - before[kind]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deaf_stretch),
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_random_registers),
        cmocka_unit_test(test_latency_of_each_injection),
        cmocka_unit_test(test_latency_is_exact),
        cmocka_unit_test(test_latency_of_a_late_look),
        cmocka_unit_test(test_latency_forgets_requests_that_are_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
