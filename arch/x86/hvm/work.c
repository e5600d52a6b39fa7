/*
 * Work that takes long, of any pCPU: done on CPU 0 in parts of some 1,000 instructions, between which interrupts are let in.
 * What an interrupt calls for comes first; guests that can run there go on for most of the time.
 */
#include "hvm.h"

#define BATCH_US 20u  /* of parts, unless an interrupt ends it */
#define GUESTS_US 50u /* and then the guests, if there are any that can run */

static struct spinlock lock;
static struct work *first, **last = &first;

static void over(struct deadline *d)
{
    (void)d;
    hvm_attention(0, ATTENTION_WORK);
}

static struct deadline guests_turn = {.when = DEADLINE_UNSET, .expire = over};

static void append(struct work *w)
{
    spin_lock(&lock);
    w->next = NULL;
    *last = w;
    last = &w->next;
    spin_unlock(&lock);
}

static bool is_left(void)
{
    bool left;

    spin_lock(&lock);
    left = first;
    spin_unlock(&lock);
    return left;
}

static struct work *take_first(void)
{
    struct work *w;

    spin_lock(&lock);
    w = first;
    if (w)
        first = w->next;
    if (!first)
        last = &first;
    spin_unlock(&lock);
    return w;
}

void work_add(struct work *w)
{
    append(w);
    hvm_attention(0, ATTENTION_WORK);
}

static uint64_t us(unsigned n)
{
    return tsc_hz / 1000000 * n;
}

static bool called(const struct hvm_pcpu *p)
{
    return p->timer_fired || p->attention || p->wake;
}

static void do_batch(struct hvm_pcpu *p)
{
    uint64_t end = rdtsc() + us(BATCH_US);
    struct work *w;

    while ((w = take_first())) {
        if (w->part(w))
            append(w);
        hvm_let_in(p, false);
        if (called(p) || rdtsc() >= end)
            return;
    }
}

void work_service(void)
{
    struct hvm_pcpu *p = this_hvm();

    do_batch(p);
    if (!is_left())
        deadline_set(&p->deadlines, &guests_turn, DEADLINE_UNSET);
    else if (p->runnable || called(p))
        deadline_arm(&guests_turn, rdtsc() + us(GUESTS_US));
    else
        hvm_attention(0, ATTENTION_WORK);
}
