#include "latency.h"

/* All 64 at once where none is kept: this is done with interrupts off. */
static void forget_word(struct latency_stamp stamp[64], uint64_t kept)
{
    if (kept) {
        for (unsigned i = 0; i < 64; i++)
            if (!(kept >> i & 1))
                stamp[i].posted = 0;
        return;
    }
    for (unsigned i = 0; i < 64; i += 8) {
        stamp[i].posted = stamp[i + 1].posted = stamp[i + 2].posted = stamp[i + 3].posted = 0;
        stamp[i + 4].posted = stamp[i + 5].posted = stamp[i + 6].posted = stamp[i + 7].posted = 0;
    }
}

void latency_forget(struct latency *l, const uint64_t kept[4])
{
    for (unsigned w = 0; w < 4; w++)
        forget_word(&l->stamp[w * 64], kept[w]);
}
