/* What is due of a heap of deadlines, all of it. */
#ifndef DEADLINES_H
#define DEADLINES_H

#include "deadline.h"

static inline void expire_due(struct deadline_heap *h, uint64_t now)
{
    while (deadline_next(h) <= now)
        deadline_expire(h, deadline_first(h));
}

#endif
