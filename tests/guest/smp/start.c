/*
 * INIT and SIPI at many CPUs (SDM 3A 9.4, APM 2 14.1.3), one by one and by broadcast; which of them run is told by fences.
 */
#include "smp.h"

#define DEASSERT 0x8500u

static const uint64_t first = 1;

static uint32_t starts_of(uint64_t mask)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < cpu_count; i++)
        sum += mask >> i & 1 ? cpu[i]->starts : 0;
    return sum;
}

static uint64_t others(void)
{
    return all_cpus() & ~first;
}

/* `running`: those that run, and no other does; `starts`: those that have been started since there were `before`. */
static void state_is(const char *name, uint64_t running, uint32_t before, uint32_t starts)
{
    uint64_t answer;

    AWAIT(starts_of(others()) - before >= starts, 5000);
    answer = fence(0, running);
    check(answer == running && starts_of(others()) - before == starts, name, "%lx run, not %lx; %u starts, not %u", answer, running,
          starts_of(others()) - before, starts);
}

static void to_others(uint32_t low)
{
    for (unsigned i = 1; i < cpu_count; i++)
        apic_icr(i, low);
}

static void job_identify(struct cpu *c)
{
    struct cpuid one = cpuid(1, 0);

    c->answer = one.ebx >> 24 == c->id && cpuid(0xb, 0).edx == c->id && apic_read(APIC_ID) >> 24 == c->id &&
                (one.ebx >> 16 & 0xff) == cpu_count && (cpuid(0x80000008, 0).ecx & 0xff) == cpu_count - 1 &&
                !(rdmsr(0x1b) & 0x100) == (c->id != 0);
}

static void identify(void)
{
    unsigned wrong = 0;

    for (unsigned i = 0; i < cpu_count; i++) {
        run_on(i, job_identify, 0);
        wrong += !cpu[i]->answer;
    }
    check(wrong == 0, "each CPU knows its number", "%u do not", wrong);
}

void test_start(void)
{
    uint32_t none = cpu_count - 1;

    state_is("the first CPU runs alone", first, 0, 0);
    to_others(ICR_INIT);
    state_is("INIT at waiting CPUs", first, 0, 0);
    to_others(ICR_SIPI);
    to_others(ICR_SIPI);
    state_is("started one by one, the second SIPI ignored", all_cpus(), 0, none);
    identify();
}

static void job_spin(struct cpu *c)
{
    c->answer = 1;
    for (;;)
        pause();
}

static void job_init_itself(struct cpu *c)
{
    c->answer = 1;
    apic_icr(c->id, ICR_INIT);
    for (;;)
        pause();
}

/* A job that does not come back. */
static void begin(unsigned id, void (*job)(struct cpu *c))
{
    cpu[id]->answer = 0;
    give_job(id, job, 0);
    AWAIT(cpu[id]->answer, 5000);
}

static void restart(const char *name, unsigned id)
{
    uint32_t before = starts_of(others());

    apic_icr(id, ICR_SIPI);
    state_is(name, all_cpus(), before, 1);
}

/* It is about to stop itself: a SIPI that comes before is ignored. */
static void restart_when_stopped(unsigned id)
{
    uint32_t before = starts_of(others());

    for (unsigned i = 0; i < 500 && starts_of(others()) == before; i++) {
        apic_icr(id, ICR_SIPI);
        AWAIT(starts_of(others()) != before, 10);
    }
    state_is("and its start", all_cpus(), before, 1);
}

static void init_one(unsigned id)
{
    uint64_t rest = all_cpus() & ~(1ull << id);
    uint32_t before = starts_of(others()), nmis = real_mode_nmis(), taken = cpu[id]->got[TESTED];

    apic_icr(id, ICR_INIT);
    state_is("INIT of a halted CPU", rest, before, 0);
    apic_icr(id, 0x400);
    state_is("NMI does not start a CPU", rest, before, 0);
    apic_icr(id, TESTED);
    state_is("nor does an interrupt", rest, before, 0);
    restart("SIPI does", id);
    check(real_mode_nmis() == nmis + 1, "the NMI has waited for it", "%u NMIs", real_mode_nmis() - nmis);
    begin(id, job_spin);
    apic_icr(id, TESTED);
    apic_icr(id, ICR_INIT);
    state_is("INIT of a running CPU", rest, before, 1);
    before = starts_of(others());
    restart("and its start", id);
    check(cpu[id]->got[TESTED] == taken, "what was pending is gone", "%u came", cpu[id]->got[TESTED] - taken);
    begin(id, job_init_itself);
    state_is("INIT of a CPU by itself", rest, before + 1, 0);
    restart_when_stopped(id);
}

/* A CPU that does not run meanwhile finds both when it does. */
static void sipi_then_init(unsigned id)
{
    uint64_t rest = all_cpus() & ~(1ull << id);
    uint32_t before = starts_of(others());

    begin(id, job_spin);
    apic_icr(id, ICR_SIPI);
    apic_icr(id, ICR_INIT);
    state_is("a SIPI before INIT is none after it", rest, before, 0);
    apic_icr(id, ICR_SIPI);
    AWAIT(starts_of(others()) != before, 5000);
    apic_icr(id, ICR_INIT);
    state_is("INIT behind a SIPI stops the CPU", rest, before, 1);
    restart("and its start", id);
}

void test_init(void)
{
    uint32_t before;

    init_one(1);
    init_one(cpu_count - 1);
    sipi_then_init(cpu_count / 2);
    before = starts_of(others());
    apic_icr(0, ICR_OTHERS | ICR_SIPI);
    state_is("SIPI at running CPUs is ignored", all_cpus(), before, 0);
    apic_icr(0, ICR_OTHERS | DEASSERT);
    state_is("INIT level de-assert does nothing", all_cpus(), before, 0);
    apic_icr(0, ICR_OTHERS | ICR_INIT);
    state_is("INIT at all others", first, before, 0);
    apic_icr(0, ICR_OTHERS | ICR_SIPI);
    apic_icr(0, ICR_OTHERS | ICR_SIPI);
    state_is("all started at once", all_cpus(), before, cpu_count - 1);
}
