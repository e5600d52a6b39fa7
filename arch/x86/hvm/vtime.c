/*
 * Virtual time: the domain's TSC and, from it, the master count of 157500000/11 Hz. Counts are computed from the TSC in
 * wide arithmetic, never accumulated, so they cannot drift against it.
 */
#include "hvm.h"

void vtime_start(struct vtime *t)
{
    t->tsc_offset = 0 - rdtsc();
    t->stopped_at = 0;
    t->stopped = false;
    t->tsc_hz = tsc_hz;
}

void vtime_stop(struct vtime *t)
{
    t->stopped_at = vtime_tsc(t);
    __atomic_store_n(&t->stopped, true, __ATOMIC_RELEASE);
}

void vtime_resume(struct vtime *t)
{
    if (!t->stopped)
        return;
    t->tsc_offset = t->stopped_at - rdtsc();
    __atomic_store_n(&t->stopped, false, __ATOMIC_RELEASE); /* others read the time meanwhile */
}

uint64_t vtime_master(const struct vtime *t)
{
    return muldiv_u64(vtime_tsc(t), MASTER_HZ_NUM, MASTER_HZ_DEN * t->tsc_hz);
}

uint64_t vtime_tsc_of_master(const struct vtime *t, uint64_t ticks)
{
    return muldiv_up_u64(ticks, MASTER_HZ_DEN * t->tsc_hz, MASTER_HZ_NUM);
}

/* What is 2^63 ticks away, a lifetime, is never: in the host's TSC it could wrap into the past. A restored domain may be ahead of
 * the host: its past before the host's count began is 0, and does not wrap into the future. */
uint64_t vtime_host_of_tsc(const struct vtime *t, uint64_t tsc)
{
    if (tsc >> 63 || t->stopped)
        return DEADLINE_UNSET;
    return (int64_t)t->tsc_offset > 0 && tsc < t->tsc_offset ? 0 : tsc - t->tsc_offset;
}

uint64_t vtime_host_of_master(const struct vtime *t, uint64_t ticks)
{
    if (ticks == NEVER)
        return DEADLINE_UNSET;
    return vtime_host_of_tsc(t, vtime_tsc_of_master(t, ticks));
}
