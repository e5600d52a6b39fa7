/*
 * The local APIC of one virtual CPU, xAPIC and x2APIC, with its timer and the guest's TSC_ADJUST.
 *
 * State: complete for the in-hypervisor fabric; all of struct vlapic is saved, and nothing else.
 *
 * Features: xAPIC page and x2APIC MSRs 0x800-0x8ff over one table of registers; APIC_BASE with every #GP rule and mode
 * transition; software enable; TPR/PPR/APR/CR8; IRR/ISR/TMR with O(1) look-up; EOI, EOI broadcast and its suppression;
 * spurious vector; ICR with all shorthands and delivery modes; self-IPI MSR; logical flat, cluster and x2APIC
 * destinations, broadcast; LVT timer, thermal, PMC, LINT0, LINT1, error and, where the CPU is one of Intel's, CMCI; ESR
 * with its write-to-latch and an error interrupt that cannot recurse; timer one-shot, periodic, TSC-deadline; TSC and TSC_ADJUST; INIT, SIPI.
 *
 * Missing: remote read (RRD reads 0); AMD's extended
 * register space (0x400 and up is reserved); focus-processor checking (SVR bit 9 is only stored); ESR bits of the serial
 * APIC bus (0-3) and redirectable IPI (4). Lowest-priority arbitration is the fabric's: vlapic_arbitration() helps it.
 *
 * Accesses to the page:   size  offset in the 16-byte slot     result
 *     read                1,2,4 inside bytes 0-3               that part of the register
 *     read                any   everything else                all ones, no side effect (the SDM: undefined)
 *     write               4     0                              writes the register
 *     write               any   everything else                ignored
 * A reserved register reads 0, ignores writes and, in either case, logs ESR bit 7 (SDM 11.5.3). A read-only register
 * ignores writes, a write-only one reads 0.
 *
 * Difference (pinned by the named test in tests/unit/test_vlapic*.c):
 * - The delivery status bits always read idle: delivery is instantaneous. [delivery_status_is_always_idle]
 * - NMI and SMI with shorthand self are delivered, where the SDM calls them invalid; hypervisor tests rely on it.
 *   [self_nmi_is_delivered] INIT, SIPI and lowest priority to self, or to all including self, are dropped, as is the
 *   reserved delivery mode 3. [invalid_ipis_are_dropped]
 * - ICR bit 12 is ignored in x2APIC mode, as Intel parts do, not #GP. [x2apic_reserved_bits]
 * - APIC_BASE.BSP is read-only as on AMD; a write of the bit is ignored. [bsp_flag_is_read_only]
 * - Clearing APIC_BASE.EN resets the registers at once (the SDM: "may be lost"). [global_disable_resets]
 * - The xAPIC ID register is writable, as on older parts, until x2APIC mode is entered. [xapic_id_is_writable]
 * - An illegal vector in the LVT is logged when the interrupt is raised, not when it is written.
 *   [illegal_lvt_vector_is_logged_when_raised]
 * - LVT timer mode 3 (reserved) stops the timer. [reserved_timer_mode_stops]
 * - A new divider carries the running count over, fraction included. [divider_change_rescales]
 * - A logical broadcast (all ones) matches even an APIC whose LDR is 0. [logical_broadcast_matches_all]
 * - The page answers data accesses of its own CPU. An instruction fetched there, or an event whose stack or tables lie there,
 *   ends the domain; page tables there read as absent. Other CPUs, to whom it is RAM, use it for all of these.
 *   [instruction_fetch_from_apic_page_ends_the_domain] [event_through_apic_page_ends_the_domain]
 *   [page_tables_in_apic_page_read_as_absent]
 * - The error interrupt fires once per write to the ESR, which re-arms it (SDM 11.5.3). [error_interrupt_is_armed_once]
 *
 * Documentation: Intel SDM volume 3A chapter 11, APIC (chapter 10 in older editions): 11.4 local APIC, 11.5 LVT, ESR and
 * timer, 11.6 ICR and destinations, 11.8 priorities and EOI, 11.9 spurious, 11.12 x2APIC; 18.17 TSC. AMD APM volume 2
 * chapter 16.
 */
#ifndef METRONOME_VLAPIC_H
#define METRONOME_VLAPIC_H

#include "device.h"
#include "bitmap.h"

/* MSRs that the model answers, beside 0x800-0x8ff. */
#define MSR_TSC          0x10u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_ADJUST   0x3bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST  0x8ffu

#define APIC_BASE_BSP  0x100u
#define APIC_BASE_EXTD 0x400u /* x2APIC mode */
#define APIC_BASE_EN   0x800u

#define SVR_ENABLE       0x100u
#define SVR_SUPPRESS_EOI 0x1000u

#define LVT_MASKED     0x10000u
#define LVT_LEVEL      0x8000u
#define LVT_REMOTE_IRR 0x4000u
#define LVT_ACTIVE_LOW 0x2000u

/* Entries of lvt[]: in register order from offset 0x320, then the one at 0x2f0. */
enum { LVT_TIMER, LVT_THERMAL, LVT_PMC, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_CMCI, LVT_COUNT };

enum { VLAPIC_RUNNING, VLAPIC_WAIT_SIPI };

/* Features by the policy for CPUID and MSRs (CMCI: MCG_CAP bit 10); the first two are there after reset. */
enum { VLAPIC_X2APIC = 1, VLAPIC_TSC_DEADLINE = 2, VLAPIC_CMCI = 4, VLAPIC_FEATURES = 7 };

struct vlapic_out {
    struct bus_message message; /* taken by clearing kind; no call leaves more than one */
    uint32_t nmi;               /* NMIs raised by the LVT or a self-IPI; the fabric subtracts what it delivers */
    uint32_t smi;               /* SMIs, likewise */
    uint32_t init;              /* INITs raised by the LVT, likewise */
};

struct vlapic {
    uint64_t apic_base;    /* IA32_APIC_BASE */
    uint64_t tsc_adjust;   /* IA32_TSC_ADJUST: guest TSC = now + tsc_adjust */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE in guest TSC; 0: disarmed or not in that mode */
    uint64_t timer_expiry; /* next expiry in domain TSC, masked or not; NEVER: not counting */
    uint64_t timer_due;    /* expirations since reset while unmasked: what the guest is owed */
    uint64_t timer_due_at; /* when the last of them was due, in domain TSC */
    struct vlapic_out out;
    struct vector_map irr, isr;
    uint32_t tmr[VECTOR_WORDS];
    uint32_t tpr, ppr; /* ppr is a cache: vlapic_update_ppr() */
    uint32_t svr;
    uint32_t esr, esr_pending; /* what reads see; what the next write to ESR latches */
    uint32_t ldr, dfr;         /* xAPIC mode; x2APIC mode derives its LDR from apic_id */
    uint32_t apic_id;          /* the x2APIC ID, for good */
    uint32_t xapic_id;         /* 8 bits, writable by the guest */
    uint32_t icr, icr_dest;    /* low word; destination: 8 bits, or 32 in x2APIC mode */
    uint32_t tmict, dcr;
    uint32_t lvt[LVT_COUNT];
    uint32_t activity; /* VLAPIC_RUNNING or VLAPIC_WAIT_SIPI */
    uint32_t sipi_vector;
    uint32_t lines;          /* levels of LINT0 (bit 0) and LINT1 (bit 1) */
    uint32_t map_generation; /* goes up whenever ID, LDR, DFR, mode or software enable changes */
    uint32_t phys_bits;      /* MAXPHYADDR, for APIC_BASE */
    uint32_t features;       /* VLAPIC_X2APIC, VLAPIC_TSC_DEADLINE, VLAPIC_CMCI */
};
ct_assert(sizeof(struct vlapic) == 280);

/* Power-on: only map_generation counts on across it (so the storage starts zeroed); phys_bits becomes 40. */
void vlapic_reset(struct vlapic *s, uint64_t now, uint32_t apic_id, bool bsp);
/* After reset: MAXPHYADDR (32-52) and the features that CPUID shows. */
void vlapic_configure(struct vlapic *s, unsigned phys_bits, uint32_t features);
bool vlapic_check(const struct vlapic *s);

/* The xAPIC page. The caller has seen vlapic_mmio_enabled() and taken vlapic_base() off. */
uint64_t vlapic_read(struct vlapic *s, uint64_t now, unsigned offset, unsigned size);
void vlapic_write(struct vlapic *s, uint64_t now, unsigned offset, unsigned size, uint64_t value);

/* The MSRs above; false means #GP, and nothing has changed. */
bool vlapic_msr_read(struct vlapic *s, uint64_t now, uint32_t msr, uint64_t *value);
bool vlapic_msr_write(struct vlapic *s, uint64_t now, uint32_t msr, uint64_t value);

/* Accepts a fixed interrupt. False: software-disabled, or vector below 16 (logged in the ESR). */
bool vlapic_post(struct vlapic *s, uint64_t now, uint8_t vector, bool level);
/* Moves vlapic_pending() from IRR to ISR and returns it; the spurious vector if there is none. */
int vlapic_ack(struct vlapic *s, uint64_t now);

/* INIT: the registers reset; APIC_BASE, ID, TSC_ADJUST, the lines and the counts stay. A BSP keeps running. */
void vlapic_init(struct vlapic *s, uint64_t now);
/* SIPI: true if it starts the CPU, at sipi_vector << 12. */
bool vlapic_sipi(struct vlapic *s, uint64_t now, uint8_t vector);

/* LINT0 (0) and LINT1 (1). */
void vlapic_set_line(struct vlapic *s, uint64_t now, unsigned line, bool level);
/* Does the 8259A's INT reach the CPU through this APIC? */
bool vlapic_accepts_extint(const struct vlapic *s);
/* Raises LVT_THERMAL, LVT_CMCI or LVT_PMC (which masks itself, SDM 11.5.1). */
void vlapic_raise(struct vlapic *s, uint64_t now, unsigned entry);

/* Is this APIC addressed? `flags` are a message's BUS_LOGICAL and BUS_X2APIC; shorthands are the caller's. */
bool vlapic_matches(const struct vlapic *s, uint32_t dest, uint8_t flags);
/* Arbitration priority (APR): of several lowest-priority targets the smallest takes it. */
uint32_t vlapic_arbitration(const struct vlapic *s);

/* Slow parts of the inline functions below. */
void vlapic_timer_expire(struct vlapic *s, uint64_t now);
void vlapic_eoi_level(struct vlapic *s, uint8_t vector);

static inline bool vlapic_mmio_enabled(const struct vlapic *s)
{
    return (s->apic_base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
}

static inline bool vlapic_x2apic(const struct vlapic *s)
{
    return (s->apic_base & APIC_BASE_EXTD) != 0;
}

static inline uint64_t vlapic_base(const struct vlapic *s)
{
    return s->apic_base & ~(uint64_t)0xfff;
}

/* TSC ticks from one of its interrupts to the next; 0: it does not repeat. */
uint64_t vlapic_timer_period(const struct vlapic *s);

static inline uint64_t vlapic_guest_tsc_offset(const struct vlapic *s)
{
    return s->tsc_adjust;
}

/* Posts the timer's interrupt if it is due. */
static inline void vlapic_advance(struct vlapic *s, uint64_t now)
{
    if (now >= s->timer_expiry)
        vlapic_timer_expire(s, now);
}

/* The next expiry that would interrupt, in domain TSC. */
static inline uint64_t vlapic_deadline(const struct vlapic *s)
{
    return (s->lvt[LVT_TIMER] & LVT_MASKED) ? NEVER : s->timer_expiry;
}

/* PPR = max(TPR, class of the highest ISR vector) (SDM 11.8.3.1). Called where TPR or ISR changes. */
static inline void vlapic_update_ppr(struct vlapic *s)
{
    uint32_t isrv = 0;
    if (s->isr.summary)
        isrv = (uint32_t)map_highest(&s->isr) & 0xf0;
    s->ppr = (s->tpr & 0xf0) >= isrv ? s->tpr : isrv;
}

/* The highest requested vector whatever the priorities, or -1. */
static inline int vlapic_highest_irr(const struct vlapic *s)
{
    return map_highest(&s->irr);
}

/* The vector to inject now, or -1. */
static inline int vlapic_pending(const struct vlapic *s)
{
    int v = map_highest(&s->irr);
    return v > (int)(s->ppr | 15) ? v : -1;
}

static inline void vlapic_eoi(struct vlapic *s, uint64_t now)
{
    int v = map_highest(&s->isr);
    (void)now;
    if (v < 0)
        return;
    map_clear(&s->isr, (uint8_t)v);
    vlapic_update_ppr(s);
    if (s->tmr[(v >> 5) & 7] & (1u << (v & 31)))
        vlapic_eoi_level(s, (uint8_t)v);
}

static inline uint64_t vlapic_get_cr8(const struct vlapic *s)
{
    return s->tpr >> 4;
}

static inline void vlapic_set_cr8(struct vlapic *s, uint64_t value)
{
    s->tpr = (uint32_t)(value & 15) << 4;
    vlapic_update_ppr(s);
}

#endif
