/*
 * The local APIC under anything at all: random calls with random arguments, time mostly forwards. After each, the state
 * must be one that the hardware can be in, and a copy that was "saved and restored" must go on byte for byte alike.
 */
#include "vlapic_test.h"

static const uint32_t msrs[] = {0x10, 0x1b, 0x3b, 0x6e0, 0x7ff, 0x900, 0x808, 0x80b, 0x80f, 0x828, 0x830, 0x832, 0x835,
                                0x837, 0x838, 0x839, 0x83e, 0x83f};

/* A value that is interesting more often than not. */
static uint64_t interesting(uint64_t *seed, uint64_t now)
{
    uint64_t r = random_after(seed);
    switch (random_after(seed) % 8) {
    case 0:
        return r;
    case 1:
        return (uint64_t)1 << (r % 64);
    case 2:
        return r & 0xff;
    case 3:
        return now + r % 5000 - 1000;
    case 4:
        return BASE | (r & 0xd00);
    case 5:
        return (r & 0xfff700ff);
    default:
        return r & 0x7a7ff;
    }
}

static uint64_t access_random(struct vlapic *s, uint64_t now, uint64_t *seed)
{
    uint64_t value = interesting(seed, now), result = 0, r = random_after(seed);
    uint32_t msr = (r & 3) ? msrs[(r >> 8) % COUNT_OF(msrs)] : 0x7f0 + (uint32_t)(r >> 8) % 0x120;
    unsigned offset = (r & 12) ? ((r >> 8) & 0x3f) << 4 : (r >> 8) & 0x1fff;
    unsigned size = (r & 0x30) ? 4 : (r >> 24) % 10;
    switch ((r >> 32) % 6) {
    case 0:
        return vlapic_msr_read(s, now, msr, &result) ? result : 1;
    case 1:
    case 2:
        return vlapic_msr_write(s, now, msr, value);
    case 3:
        return vlapic_mmio_enabled(s) ? vlapic_read(s, now, offset, size) : 0;
    default:
        if (vlapic_mmio_enabled(s))
            vlapic_write(s, now, offset, size, value);
        return 0;
    }
}

/* One random step; everything it returns goes into the result, so that two runs can be compared. */
static uint64_t step(struct vlapic *s, uint64_t now, uint64_t *seed)
{
    uint64_t r = random_after(seed);
    switch (r % 16) {
    case 0: case 1:
        return vlapic_post(s, now, (uint8_t)(r >> 8), (r >> 16) & 1);
    case 2:
        return (uint64_t)vlapic_ack(s, now);
    case 3:
        vlapic_eoi(s, now);
        return 0;
    case 4:
        vlapic_set_cr8(s, r >> 8);
        return vlapic_get_cr8(s);
    case 5:
        vlapic_set_line(s, now, (r >> 8) & 1, (r >> 16) & 1);
        return vlapic_accepts_extint(s);
    case 6:
        return vlapic_matches(s, (uint32_t)(r >> 32), (uint8_t)(r >> 8));
    case 7:
        vlapic_advance(s, now);
        return vlapic_deadline(s);
    case 8:
        if ((r >> 8) % 64 == 0)
            vlapic_init(s, now);
        return vlapic_sipi(s, now, (uint8_t)(r >> 16));
    case 9:
        vlapic_raise(s, now, (r >> 8) & 7);
        return (uint64_t)vlapic_pending(s);
    case 10:
        if ((r >> 8) % 16 == 0 && (s->apic_base & APIC_BASE_EN))
            wr(s, now, SVR, 0x1ff | ((r >> 16) & 0x1000));
        return 0;
    default:
        return access_random(s, now, seed);
    }
}

static uint64_t next_time(uint64_t now, uint64_t *seed)
{
    uint64_t r = random_after(seed);
    switch (r % 64) {
    case 0:
        return now + (r >> 20);
    case 1:
        return now - (r >> 8) % 3000; /* it should not, but must not hurt */
    case 2:
        return r;
    default:
        return now + (r >> 8) % 500;
    }
}

static void random_walk(void **state)
{
    UNUSED(state);
    for (uint64_t walk = 1; walk <= 2000; walk++) {
        uint64_t seed = walk * 0x9e3779b97f4a7c15ull, now = 0;
        struct vlapic s, copy;
        power_on(&s, (uint32_t)random_after(&seed) & 0x1ff);
        if (walk & 1)
            set_base(&s, 0, BASE | 0xd00);
        wr(&s, 0, SVR, 0x1ff);
        copy = s;
        for (int i = 0; i < 2500; i++) {
            now = next_time(now, &seed);
            uint64_t copy_seed = seed;
            uint64_t a = step(&s, now, &seed), b = step(&copy, now, &copy_seed);
            if (!vlapic_check(&s))
                fail_msg("walk %d step %d: not a legal state", (int)walk, i);
            assert_true(a == b && seed == copy_seed);
            assert_memory_equal(&s, &copy, sizeof(s));
            if (i % 64 == 0) { /* save, forget, restore */
                unsigned char saved[sizeof(s)];
                memcpy(saved, &copy, sizeof(copy));
                memset(&copy, 0xee, sizeof(copy));
                memcpy(&copy, saved, sizeof(copy));
            }
            if (random_after(&seed) & 1)
                s.out.message.kind = copy.out.message.kind = BUS_NONE;
        }
    }
}

/* Every call leaves at most one message, and takes none away: what the fabric's bound rests on. */
static void one_message_per_call(void **state)
{
    UNUSED(state);
    for (uint64_t walk = 1; walk <= 100; walk++) {
        uint64_t seed = walk * 0xd1342543de82ef95ull, now = 0;
        struct vlapic s;
        enabled(&s, 7, walk & 1);
        for (int i = 0; i < 2000; i++) {
            take(&s);
            now = next_time(now, &seed);
            step(&s, now, &seed);
            assert_true(s.out.message.kind <= BUS_EOI);
            struct vlapic again = s;
            vlapic_advance(&again, now);
            assert_memory_equal(&again.out.message, &s.out.message, sizeof(s.out.message));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_walk),
        cmocka_unit_test(one_message_per_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
