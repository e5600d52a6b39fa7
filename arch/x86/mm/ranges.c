/*
 * Sets of disjoint address extents. Pure.
 */
#include "internal.h"

bool extents_remove(struct extents *s, uint64_t base, uint64_t end)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct extent old = s->e[i];
        if (base >= end || end <= old.base || base >= old.end)
            continue;
        if (base > old.base && end < old.end) {
            if (s->count == MAX_EXTENTS)
                return false;
            s->e[s->count++] = (struct extent){end, old.end};
            s->e[i].end = base;
        } else if (base > old.base) {
            s->e[i].end = base;
        } else if (end < old.end) {
            s->e[i].base = end;
        } else {
            s->e[i--] = s->e[--s->count];
        }
    }
    return true;
}

bool extents_add(struct extents *s, uint64_t base, uint64_t end)
{
    if (base >= end)
        return true;
    if (!extents_remove(s, base, end) || s->count == MAX_EXTENTS)
        return false;
    s->e[s->count++] = (struct extent){base, end};
    return true;
}
