#include "deadline.h"

static void place(struct deadline_heap *h, unsigned i, struct deadline *d)
{
    h->slot[i] = d;
    d->index = i;
}

static void sift_up(struct deadline_heap *h, unsigned i, struct deadline *d)
{
    while (i > 0 && h->slot[(i - 1) / 2]->when > d->when) {
        place(h, i, h->slot[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, d);
}

static void sift_down(struct deadline_heap *h, unsigned i, struct deadline *d)
{
    for (;;) {
        unsigned child = 2 * i + 1;

        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->slot[child + 1]->when < h->slot[child]->when)
            child++;
        if (h->slot[child]->when >= d->when)
            break;
        place(h, i, h->slot[child]);
        i = child;
    }
    place(h, i, d);
}

static void take_out(struct deadline_heap *h, struct deadline *d)
{
    struct deadline *last = h->slot[--h->count];
    unsigned i = d->index;

    if (last == d)
        return;
    if (last->when < d->when)
        sift_up(h, i, last);
    else
        sift_down(h, i, last);
}

void deadline_set(struct deadline_heap *h, struct deadline *d, uint64_t when)
{
    uint64_t old = d->when;

    if (when == old)
        return;
    if (when == DEADLINE_UNSET) {
        take_out(h, d);
        d->when = DEADLINE_UNSET;
        return;
    }
    d->when = when;
    if (old == DEADLINE_UNSET)
        sift_up(h, h->count++, d);
    else if (when < old)
        sift_up(h, d->index, d);
    else
        sift_down(h, d->index, d);
}

/* What is due is the top of the heap. */
static struct deadline *before_below(const struct deadline_heap *h, unsigned i, uint64_t when,
                                     bool (*comes_before)(const void *owner, const void *than), const void *than)
{
    struct deadline *d = i < h->count ? h->slot[i] : 0, *found;

    if (!d || d->when > when || (d->owner && comes_before(d->owner, than)))
        return d && d->when <= when ? d : 0;
    found = before_below(h, 2 * i + 1, when, comes_before, than);
    return found ? found : before_below(h, 2 * i + 2, when, comes_before, than);
}

struct deadline *deadline_before(const struct deadline_heap *h, uint64_t when, bool (*comes_before)(const void *owner, const void *than),
                                 const void *than)
{
    return before_below(h, 0, when, comes_before, than);
}

void deadline_expire(struct deadline_heap *h, struct deadline *d)
{
    deadline_set(h, d, DEADLINE_UNSET);
    d->expire(d);
}
