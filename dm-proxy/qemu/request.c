/*
 * Requests are shaped by the guest, and QEMU ends with hw_error() on those it does not expect: they are refused here.
 * A refused read gives all ones, a refused write vanishes. Pure functions: tests/unit/test_dm_request.c.
 */
#include "dm.h"

/* Longer REP runs are split by the hypervisor: a single request may not hold QEMU's main loop for long. */
#define MAX_COUNT 65536u

#define SIZES_UP_TO_4 (1u << 1 | 1u << 2 | 1u << 4)
#define SIZES_UP_TO_8 (SIZES_UP_TO_4 | 1u << 8)

static const struct rule {
    uint32_t sizes; /* bit n: size n */
    uint32_t max_count;
    uint64_t max_address;
    bool known;
} rules[] = {
    [METRONOME_IOREQ_PIO] = {SIZES_UP_TO_4, MAX_COUNT, 0xffff, true},
    [METRONOME_IOREQ_COPY] = {SIZES_UP_TO_8, MAX_COUNT, UINT64_MAX, true},
    [METRONOME_IOREQ_PCI_CONFIG] = {SIZES_UP_TO_4, 1, UINT64_MAX, true},
    [METRONOME_IOREQ_TIMEOFFSET] = {~0u, ~0u, UINT64_MAX, true},
    [METRONOME_IOREQ_INVALIDATE] = {~0u, ~0u, UINT64_MAX, true},
};

bool request_acceptable(const struct metronome_ioreq *request)
{
    const struct rule *rule;

    if (request->type >= sizeof rules / sizeof rules[0])
        return false;
    rule = &rules[request->type];
    if (!rule->known || request->count > rule->max_count || request->addr > rule->max_address)
        return false;
    return rule->sizes == ~0u || (request->size <= 8 && (rule->sizes >> request->size & 1));
}

void request_answer(struct metronome_ioreq *request, uint64_t data)
{
    uint8_t flags = request->state_dir_df & ~METRONOME_IOREQ_STATE_MASK;

    if ((flags & METRONOME_IOREQ_READ) && !(flags & METRONOME_IOREQ_DATA_IS_PTR))
        request->data = data;
    __atomic_store_n(&request->state_dir_df, flags | METRONOME_IOREQ_RESPONSE, __ATOMIC_RELEASE);
}
