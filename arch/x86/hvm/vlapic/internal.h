/* What the files of the model share: not for its users. */
#ifndef METRONOME_VLAPIC_INTERNAL_H
#define METRONOME_VLAPIC_INTERNAL_H

#include "vlapic.h"

/* Register numbers: MMIO offset >> 4 and MSR - 0x800. */
enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b, REG_RRD = 0x0c,
    REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28,
    REG_LVT_CMCI = 0x2f, REG_ICR = 0x30, REG_ICR_HIGH = 0x31, REG_LVT_TIMER = 0x32, REG_LVT_THERMAL, REG_LVT_PMC, REG_LVT_LINT0,
    REG_LVT_LINT1, REG_LVT_ERROR, REG_TMICT = 0x38, REG_TMCCT = 0x39, REG_DCR = 0x3e, REG_SELF_IPI = 0x3f,
    REG_COUNT = 0x40
};

/* ESR bits (SDM 11.5.3). */
#define ESR_SEND_VECTOR    0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER       0x80u
#define ESR_ALL            (ESR_SEND_VECTOR | ESR_RECEIVE_VECTOR | ESR_REGISTER)

/* LVT bits 18:17. */
#define TIMER_MODE          0x60000u
#define TIMER_ONE_SHOT      0u
#define TIMER_PERIODIC      0x20000u
#define TIMER_DEADLINE      0x40000u
#define TIMER_MODE_RESERVED 0x60000u

#define SVR_WRITABLE 0x13ffu
#define DCR_WRITABLE 0xbu
#define ICR_WRITABLE 0xccfffu
#define ICR_RESERVED 0xfff32000u /* #GP in x2APIC mode */
#define DFR_FIXED    0x0fffffffu /* bits that read 1 */

/* Bits of the LVT entries that a write changes. */
#define LVT_TIMER_WRITABLE  0x700ffu
#define LVT_SENSOR_WRITABLE 0x107ffu /* thermal, PMC, CMCI */
#define LVT_LINT_WRITABLE   0x1a7ffu
#define LVT_ERROR_WRITABLE  0x100ffu
#define LVT_STATUS          0x1000u /* delivery status: always 0 */

static inline unsigned lvt_delivery(uint32_t lvt)
{
    return (lvt >> 8) & 7;
}

static inline uint32_t x2apic_ldr(uint32_t id)
{
    return ((id >> 4) << 16) | (1u << (id & 15));
}

/* vlapic.c */
void vlapic_error(struct vlapic *s, uint32_t bit);
void vlapic_accept(struct vlapic *s, uint8_t vector, bool level);
void vlapic_reset_registers(struct vlapic *s);
void vlapic_lint0_level(struct vlapic *s);

/* ipi.c */
void vlapic_send(struct vlapic *s);
void vlapic_self_ipi(struct vlapic *s, uint8_t vector);

/* timer.c */
void vlapic_timer_lvt(struct vlapic *s, uint64_t now, uint32_t value);
void vlapic_timer_start(struct vlapic *s, uint64_t now, uint32_t count);
void vlapic_timer_divide(struct vlapic *s, uint64_t now, uint32_t dcr);
uint32_t vlapic_timer_count(const struct vlapic *s, uint64_t now);
void vlapic_write_deadline(struct vlapic *s, uint64_t now, uint64_t value);
void vlapic_write_adjust(struct vlapic *s, uint64_t now, uint64_t value);

/* base.c */
bool vlapic_write_base(struct vlapic *s, uint64_t now, uint64_t value);

#endif
