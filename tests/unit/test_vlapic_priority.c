/* The local APIC's priorities against a naive reference that scans. */
#include "vlapic_test.h"

/* The reference: plain arrays, every rule written as the manual words it. */
struct naive {
    bool irr[256], isr[256], tmr[256];
    unsigned tpr;
};

static int naive_highest(const bool *set)
{
    for (int v = 255; v >= 0; v--)
        if (set[v])
            return v;
    return -1;
}

static unsigned naive_ppr(const struct naive *n)
{
    int isrv = naive_highest(n->isr);
    unsigned isr_class = isrv < 0 ? 0 : (unsigned)isrv / 16;
    return n->tpr / 16 >= isr_class ? n->tpr : isr_class * 16;
}

static int naive_pending(const struct naive *n)
{
    int v = naive_highest(n->irr);
    return v >= 0 && (unsigned)v / 16 > naive_ppr(n) / 16 ? v : -1;
}

static unsigned naive_apr(const struct naive *n)
{
    int irrv = naive_highest(n->irr), isrv = naive_highest(n->isr);
    unsigned irr_class = irrv < 0 ? 0 : (unsigned)irrv / 16, isr_class = isrv < 0 ? 0 : (unsigned)isrv / 16;
    unsigned best = n->tpr / 16;
    if (n->tpr / 16 >= irr_class && n->tpr / 16 > isr_class)
        return n->tpr;
    best = irr_class > best ? irr_class : best;
    best = isr_class > best ? isr_class : best;
    return best * 16;
}

/* Every pair of a vector in service and a vector requested, under every TPR. */
static void all_pairs_and_all_tprs(void **state)
{
    struct vlapic empty, s;
    UNUSED(state);
    enabled(&empty, 0, false);
    for (unsigned in_service = 15; in_service < 256; in_service++)
        for (unsigned requested = 15; requested < 256; requested++) {
            s = empty;
            if (in_service > 15) { /* 15 stands for none */
                vlapic_post(&s, 0, (uint8_t)in_service, false);
                vlapic_ack(&s, 0);
            }
            if (requested > 15)
                vlapic_post(&s, 0, (uint8_t)requested, false);
            unsigned isr_class = in_service > 15 ? in_service >> 4 : 0;
            for (unsigned tpr = 0; tpr < 256; tpr++) {
                vlapic_write(&s, 0, TPR, 4, tpr);
                unsigned ppr = (tpr >> 4) >= isr_class ? tpr : isr_class << 4;
                bool delivered = requested > 15 && requested >> 4 > ppr >> 4;
                if (s.ppr != ppr || vlapic_pending(&s) != (delivered ? (int)requested : -1))
                    fail_msg("ISR %x IRR %x TPR %x: PPR %x, pending %d", in_service, requested, tpr, s.ppr,
                             vlapic_pending(&s));
            }
        }
}

static void assert_same(struct vlapic *s, const struct naive *n)
{
    assert_int_equal(vlapic_highest_irr(s), naive_highest(n->irr));
    assert_int_equal(vlapic_pending(s), naive_pending(n));
    assert_int_equal(rd(s, 0, PPR), naive_ppr(n));
    assert_int_equal(vlapic_arbitration(s), naive_apr(n));
    for (unsigned v = 0; v < 256; v++) {
        assert_int_equal((s->irr.word[v / 32] >> (v % 32)) & 1, n->irr[v]);
        assert_int_equal((s->isr.word[v / 32] >> (v % 32)) & 1, n->isr[v]);
        assert_int_equal((s->tmr[v / 32] >> (v % 32)) & 1, n->tmr[v]);
    }
    assert_sane(s);
}

static void naive_step(struct vlapic *s, struct naive *n, uint64_t r)
{
    uint8_t v = (uint8_t)(r >> 8);
    bool level = (r >> 16) & 1;
    int got, top;
    switch (r & 7) {
    case 0: case 1: case 2:
        assert_int_equal(vlapic_post(s, 0, v, level), v >= 16);
        if (v >= 16) {
            n->irr[v] = true;
            n->tmr[v] = level;
        }
        break;
    case 3: case 4:
        got = vlapic_ack(s, 0);
        top = naive_pending(n);
        assert_int_equal(got, top < 0 ? 0xff : top);
        if (top >= 0) {
            n->irr[top] = false;
            n->isr[top] = true;
        }
        break;
    case 5: case 6:
        take(s);
        vlapic_eoi(s, 0);
        top = naive_highest(n->isr);
        assert_int_equal(s->out.message.kind, top >= 0 && n->tmr[top] ? BUS_EOI : BUS_NONE);
        if (top >= 0)
            n->isr[top] = false;
        break;
    default:
        n->tpr = (r & 0x1000000) ? v & 0xf0 : v & 0x3f;
        wr(s, 0, TPR, n->tpr);
    }
}

static void random_walk_equals_reference(void **state)
{
    UNUSED(state);
    for (uint64_t walk = 1; walk <= 60; walk++) {
        struct naive n = {0};
        struct vlapic s;
        uint64_t seed = walk * 0x9e3779b97f4a7c15ull;
        enabled(&s, 0, walk & 1);
        for (int i = 0; i < 3000; i++) {
            naive_step(&s, &n, random_after(&seed) >> 20);
            assert_same(&s, &n);
        }
    }
}

/* The maps alone: every pair of vectors, set and cleared in both orders. */
static void maps_find_the_highest(void **state)
{
    UNUSED(state);
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            struct vector_map m = {{0}, 0};
            assert_int_equal(map_highest(&m), -1);
            map_set(&m, (uint8_t)a);
            map_set(&m, (uint8_t)b);
            assert_int_equal(map_highest(&m), a > b ? a : b);
            map_clear(&m, (uint8_t)a);
            assert_int_equal(map_highest(&m), a == b ? -1 : (int)b);
            map_clear(&m, (uint8_t)b);
            assert_int_equal(map_highest(&m), -1);
            assert_int_equal(m.summary, 0);
        }
}

/* All 240 vectors at once come out in order, highest first, each above the last in nothing but class order. */
static void all_vectors_drain_in_order(void **state)
{
    struct vlapic s;
    UNUSED(state);
    enabled(&s, 0, true);
    for (unsigned v = 16; v < 256; v++)
        vlapic_post(&s, 0, (uint8_t)(v * 7 % 240 + 16), v & 1);
    for (int v = 255; v >= 16; v--) {
        assert_int_equal(vlapic_ack(&s, 0), v);
        assert_int_equal(vlapic_pending(&s), -1); /* the rest are of the same class or below */
        vlapic_eoi(&s, 0);
        take(&s);
    }
    assert_int_equal(vlapic_highest_irr(&s), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_find_the_highest),
        cmocka_unit_test(all_pairs_and_all_tprs),
        cmocka_unit_test(random_walk_equals_reference),
        cmocka_unit_test(all_vectors_drain_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
