/* What the test programs of the local APIC share. */
#ifndef VLAPIC_TEST_H
#define VLAPIC_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "random.h"
#include "vlapic/vlapic.h"

#define UNUSED(x)      (void)(x)
#define COUNT_OF(a)    (sizeof(a) / sizeof((a)[0]))
#define MASKED         0x10000u
#define BASE           0xfee00000u
#define assert_sane(s) assert_true(vlapic_check(s))

enum {
    ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xa0, EOI = 0xb0, RRD = 0xc0, LDR = 0xd0, DFR = 0xe0,
    SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, CMCI = 0x2f0, ICR = 0x300, ICR2 = 0x310,
    TIMER = 0x320, THERMAL = 0x330, PMC = 0x340, LINT0 = 0x350, LINT1 = 0x360, ERROR = 0x370, TMICT = 0x380,
    TMCCT = 0x390, DCR = 0x3e0, SELF_IPI = 0x3f0
};

/* Reads and writes a register through whichever door the mode leaves open. */
static inline uint64_t rd(struct vlapic *s, uint64_t now, unsigned offset)
{
    uint64_t value = 0;
    if (vlapic_mmio_enabled(s))
        return vlapic_read(s, now, offset, 4);
    assert_true(vlapic_msr_read(s, now, 0x800 + (offset >> 4), &value));
    return value;
}

static inline void wr(struct vlapic *s, uint64_t now, unsigned offset, uint64_t value)
{
    if (vlapic_mmio_enabled(s))
        vlapic_write(s, now, offset, 4, value);
    else
        assert_true(vlapic_msr_write(s, now, 0x800 + (offset >> 4), value));
    assert_sane(s);
}

static inline void set_base(struct vlapic *s, uint64_t now, uint64_t value)
{
    assert_true(vlapic_msr_write(s, now, MSR_APIC_BASE, value));
    assert_sane(s);
}

/* A BSP after power-on. */
static inline void power_on(struct vlapic *s, uint32_t id)
{
    memset(s, 0, sizeof(*s));
    vlapic_reset(s, 0, id, true);
    assert_sane(s);
}

/* A BSP, software-enabled, in xAPIC or x2APIC mode. */
static inline void enabled(struct vlapic *s, uint32_t id, bool x2apic)
{
    power_on(s, id);
    if (x2apic)
        set_base(s, 0, BASE | 0xd00);
    wr(s, 0, SVR, 0x1ff);
}

/* Takes the message out of its slot. */
static inline struct bus_message take(struct vlapic *s)
{
    struct bus_message m = s->out.message;
    s->out.message.kind = BUS_NONE;
    return m;
}

#endif
