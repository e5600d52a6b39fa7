#include "model.h"
#include "vlapic/vlapic.h"

MODEL_TIME(vlapic)
MODEL_SET_LINE(vlapic)

/* The core looks at the mode before it hands over an access to the page. */
static uint64_t read(void *s, uint64_t now, unsigned offset, unsigned size)
{
    return vlapic_mmio_enabled(s) ? vlapic_read(s, now, offset, size) : all_ones(size);
}

static void write(void *s, uint64_t now, unsigned offset, unsigned size, uint64_t value)
{
    if (vlapic_mmio_enabled(s))
        vlapic_write(s, now, offset, size, value);
}

static void reset(void *state, uint64_t now, unsigned argument, uint64_t value)
{
    struct vlapic *s = state;
    s->map_generation = 0;
    vlapic_reset(s, now, (uint32_t)value, argument & 1);
    if (argument & 2)
        vlapic_configure(s, argument >> 8, argument >> 4);
}

static uint32_t msr(unsigned argument)
{
    static const uint32_t others[4] = {MSR_TSC, MSR_APIC_BASE, MSR_TSC_ADJUST, MSR_TSC_DEADLINE};
    return argument & 0x8000   ? argument
           : argument & 0x4000 ? others[argument & 3]
                               : MSR_X2APIC_FIRST + (argument & 0xff);
}

static uint64_t read_msr(struct vlapic *s, uint64_t now, unsigned argument)
{
    uint64_t value = 0;
    bool done = vlapic_msr_read(s, now, msr(argument), &value);
    return value ^ done;
}

/* What the fabric takes. */
static uint64_t take(struct vlapic *s)
{
    s->out.nmi = s->out.smi = s->out.init = 0;
    return 0;
}

static uint64_t special(void *state, uint64_t now, unsigned which, unsigned argument, uint64_t value)
{
    struct vlapic *s = state;
    switch (which) {
    case 0:
    case 1:
    case 2:
    case 3:
        return vlapic_msr_write(s, now, msr(argument), value);
    case 4:
    case 5:
        return read_msr(s, now, argument);
    case 6:
        return vlapic_post(s, now, (uint8_t)argument, value & 1);
    case 7:
        return (uint64_t)vlapic_ack(s, now);
    case 8:
        return vlapic_eoi(s, now), 0;
    case 9:
        return vlapic_init(s, now), 0;
    case 10:
        return vlapic_sipi(s, now, (uint8_t)argument);
    case 11:
        return vlapic_raise(s, now, argument), 0;
    case 12:
        return vlapic_set_cr8(s, value), vlapic_get_cr8(s);
    case 13:
        return vlapic_matches(s, (uint32_t)value, (uint8_t)argument) + 2 * vlapic_accepts_extint(s) + vlapic_timer_period(s);
    case 14:
        return vlapic_arbitration(s) + vlapic_guest_tsc_offset(s) + vlapic_base(s) + (uint64_t)vlapic_highest_irr(s);
    default:
        return take(s);
    }
}

static uint64_t events(const void *state)
{
    const struct vlapic *s = state;
    return s->timer_due;
}

const struct model model = {
    .read = read,
    .write = write,
    .advance = model_advance,
    .deadline = model_deadline,
    .check = model_check,
    .size = sizeof(struct vlapic),
    .exact = true,
    .offsets = 0x1000,
    .message = offsetof(struct vlapic, out.message),
    .reset = reset,
    .set_line = model_set_line,
    .special = special,
    .events = events,
};
