#include "latency.h"

void latency_forget(struct latency *l, const uint64_t kept[4])
{
    for (unsigned v = 0; v < 256; v++)
        if (!(kept[v >> 6] >> (v & 63) & 1))
            l->stamp[v].posted = 0;
}
