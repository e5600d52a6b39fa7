/*
 * How late interrupts come, measured from inside: local APIC timer and HPET against the moment at which they are due, an IPI
 * to itself against its sending. Each tenth time the guest is deaf for a while. What the hypervisor shows at the end is
 * compared with it by tests/system/test_latency.py. All in ns.
 */
#include "guest.h"

#define ROUNDS 1000u
#define DEAF_US 20
#define HPET_PIN 20
#define MSR_TSC_DEADLINE 0x6e0u
#define MASTER_HZ_NUM 157500000ull /* over 11: the HPET's */
enum { LAPIC_VECTOR = 0x71, IPI_VECTOR = 0x61, HPET_VECTOR = 0x51 };
enum { HPET_CONFIG = 0x10, HPET_COUNTER = 0xf0, HPET_TIMER0 = 0x100, HPET_COMPARATOR0 = 0x108 };

static int64_t late[ROUNDS];

static void tell(const char *name)
{
    for (unsigned i = 0; i < ROUNDS; i++)
        late[i] = (int64_t)muldiv((uint64_t)late[i], 1000000000, tsc_hz);
    sort(late, ROUNDS);
    print("measured %s: n %u p50 %ld p99 %ld p99.9 %ld max %ld\n", name, ROUNDS, permille(late, ROUNDS, 500), permille(late, ROUNDS, 990),
          permille(late, ROUNDS, 999), permille(late, ROUNDS, 1000));
}

/* Until the vector has come; deaf until `deaf`. */
static void await(unsigned vector, uint64_t deaf)
{
    uint32_t before = hits[vector];

    while (rdtsc() < deaf)
        ;
    while (hits[vector] == before)
        halt();
}

static uint64_t deaf_until(unsigned round, uint64_t due)
{
    return round % 10 ? 0 : due + us(DEAF_US) + 16 * round;
}

static void test_lapic(void)
{
    apic_write(APIC_LVT_TIMER, 0x40000 | LAPIC_VECTOR);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t due = rdtsc() + us(50) + 7 * i;

        wrmsr(MSR_TSC_DEADLINE, due);
        await(LAPIC_VECTOR, deaf_until(i, due));
        late[i] = hit_tsc[LAPIC_VECTOR] - due;
    }
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    tell("lapic");
}

/* From behind the exit that posts it the guest cannot measure: from before it. */
static void test_ipi(void)
{
    uint64_t begin = rdtsc();

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t sent = rdtsc();

        apic_icr(0, 0x40000 | IPI_VECTOR);
        await(IPI_VECTOR, deaf_until(i, sent));
        late[i] = hit_tsc[IPI_VECTOR] - sent;
    }
    print("a round of ipi: %lu TSC ticks\n", (rdtsc() - begin) / ROUNDS);
    tell("ipi");
}

/* The earliest that the comparator can match: the counter is read behind `before`. */
static void test_hpet(void)
{
    ioapic_set(HPET_PIN, IO_LOW | HPET_VECTOR);
    hpet_write(HPET_TIMER0, 4 | HPET_PIN << 9);
    hpet_write(HPET_CONFIG, 1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t had = hits[HPET_VECTOR];
        uint64_t before = rdtsc(), count = hpet_read(HPET_COUNTER), ticks = (strict ? 1000 : 100000) + i, due;

        hpet_write(HPET_COMPARATOR0, count + ticks);
        due = before + muldiv(ticks, 11 * tsc_hz, MASTER_HZ_NUM);
        if (hpet_read(HPET_COUNTER) - count >= ticks) { /* a host that was away so long may have armed it too late to match */
            open_interrupts();
            if (hits[HPET_VECTOR] == had) {
                i--;
                continue;
            }
        } else {
            await(HPET_VECTOR, deaf_until(i, due));
        }
        late[i] = hit_tsc[HPET_VECTOR] - due;
    }
    hpet_write(HPET_CONFIG, 0);
    tell("hpet");
}

void guest_main(void)
{
    apic_enable();
    count_vector(LAPIC_VECTOR, EOI_LAPIC);
    count_vector(IPI_VECTOR, EOI_LAPIC);
    count_vector(HPET_VECTOR, EOI_LAPIC);
    test_lapic();
    test_ipi();
    test_hpet();
    check(masked_hits == 0, "none came with interrupts off", "%u did", masked_hits);
}
