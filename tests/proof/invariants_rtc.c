#include <string.h>
#include "step.h"
#include "clock.h"
#include "wide.h"
#include "rtc/rtc.h"

enum { A = 10, B, C, D, CENTURY = 0x32 };
enum { UIP = 0x80, SET = 0x80, UIE = 0x10, ENABLES = 0x70 };

static bool irqf(const struct rtc *s)
{
    return s->cmos[B] & s->cmos[C] & ENABLES;
}

/* ---- States ---- */

static void repair(void *state)
{
    struct rtc *s = state;
    uint64_t last_tick = muldiv_u64(UINT64_MAX, RTC_PER_MASTER_NUM, RTC_PER_MASTER_DEN);

    if (s->last > last_tick)
        s->last %= last_tick + 1;
    s->phase &= 32767;
    s->index &= 0x7f;
    s->index2 &= 0x7f;
    s->nmi_masked &= 1;
    memset(s->zero, 0, sizeof(s->zero));
    s->cmos[A] &= ~UIP;
    if (s->cmos[B] & SET)
        s->cmos[B] &= ~UIE;
    s->cmos[C] &= ENABLES;
    s->cmos[D] &= ~0x40;
    s->out.line[0].level = irqf(s);
    s->out.line[0].zero = 0;
}

/* ---- Steps ---- */

/* The index of the data port that an access comes to, or -1; it may set that index itself. */
static bool touches(const struct transition *t, unsigned index)
{
    const struct action *a = t->action;
    const struct rtc *is = t->after;
    bool ok = (a->size == 1 || a->size == 2 || a->size == 4) && a->offset < 4 && a->offset + a->size <= 4;

    return ok && ((a->offset <= 1 && a->offset + a->size > 1 && is->index == index) ||
                  (a->offset + a->size > 3 && 128u + is->index2 == index));
}

static void expect_read(const struct transition *t)
{
    struct rtc *was = (void *)copy_of(t->before);
    const struct rtc *is = t->after;
    struct line *l = &was->out.line[0];

    rtc_advance(was, t->action->now);
    if (touches(t, C)) {
        was->cmos[C] = 0;
        l->level = 0;
    }
    if (touches(t, D))
        was->cmos[D] |= 0x80;
    EXPECT(memcmp(was, is, sizeof(*was)) == 0, "RTC-1: reading register C clears it, reading D sets VRT, and that is all");
    free(was);
}

static bool is_reset_pin(const struct transition *t)
{
    return t->action->kind == SPECIAL && t->action->which >= 8 && t->action->which < 10;
}

static bool is_repeat(const struct transition *t)
{
    return t->action->kind == SPECIAL && t->action->which >= 10 && t->action->which < 12;
}

static void expect_flags(const struct transition *t)
{
    const struct rtc *was = t->before, *is = t->after;
    bool cleared = was->cmos[C] & ~is->cmos[C];

    EXPECT(!cleared || (reads(t->action) && touches(t, C)) || is_reset_pin(t), "RTC-2: flags go by reading C, or RESET#");
    EXPECT(!(is->cmos[C] & ~was->cmos[C]) || is->last > was->last || is_repeat(t), "RTC-2: and come with time, or repeated");
    EXPECT(is->periodic_due == was->periodic_due || (was->cmos[B] & 0x40), "RTC-3: periods are owed only while PIE is set");
}

/* The clock does not count while SET or the divider reset holds it. */
static void expect_held(const struct transition *t)
{
    static const uint8_t fields[] = {0, 2, 4, 6, 7, 8, 9, CENTURY};
    const struct rtc *was = t->before, *is = t->after;
    bool held = (was->cmos[B] & SET) || (was->cmos[A] & 0x60) == 0x60;

    if (!held || writes(t->action) || t->action->kind == SPECIAL)
        return;
    for (unsigned i = 0; i < sizeof(fields); i++)
        EXPECT(was->cmos[fields[i]] == is->cmos[fields[i]], "RTC-4: a clock that is held does not move");
}

static void expect(const struct transition *t)
{
    const struct rtc *was = t->before, *is = t->after;

    if (reads(t->action))
        expect_read(t);
    expect_flags(t);
    expect_held(t);
    EXPECT(is->last >= was->last, "RTC-5: time never goes back");
    for (unsigned i = 128; i < 256; i++)
        EXPECT(was->cmos[i] == is->cmos[i] || writes(t->action) || t->action->kind == SPECIAL, "RTC-6: RAM stays");
}

const struct invariants invariants = {{1, 1, 4}, repair, expect};
