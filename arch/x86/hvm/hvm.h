/*
 * The HVM core: domains, vCPUs, and what its files offer each other. It owns time, lines, routes and injection, and it
 * alone calls the device models. svm (and vmx) below it only enter, leave and inject.
 */
#ifndef METRONOME_HVM_H
#define METRONOME_HVM_H

#include "boot.h"
#include "clock.h"
#include "console.h"
#include "cpu.h"
#include "deadline.h"
#include "emulate/emulate.h"
#include "hpet/hpet.h"
#include "latency/latency.h"
#include "loader/loader.h"
#include "p2m.h"
#include "pmtimer/pmtimer.h"
#include "public/control.h"
#include "public/domain.h"
#include "public/state.h"
#include "rtc/rtc.h"
#include "spinlock.h"
#include "string.h"
#include "ticks/ticks.h"
#include "trace.h"
#include "uart/uart.h"
#include "vioapic/vioapic.h"
#include "vlapic/vlapic.h"
#include "vpic/vpic.h"
#include "vpit/vpit.h"
#include "wide.h"

#define IOAPIC_BASE 0xfec00000ull
#define HPET_BASE 0xfed00000ull
#define TEST_PAGE_BASE 0xfed80000ull /* guests without device model: RAM that is reached through the emulator */
#define PM_BASE_DEFAULT 0x600u       /* without device model; with one the PIIX4's own register says */

/* ---- Work in parts (work.c), and what takes long with a domain (plan.c). ---- */
struct work {
    struct work *next;
    bool (*part)(struct work *w); /* does a part of it, on CPU 0; true: there is more */
};

struct plan;
struct slot;

struct progress {
    struct work work;
    struct spinlock lock;             /* of the two plans */
    const struct plan *plan, *wanted; /* the one under way and, behind it, the next one; NULL: none */
    int (*const *step)(struct slot *s);
    uint64_t at;                      /* how far the step has come, 0 at first, in its own unit */
    uint8_t *area;                    /* memory that it has taken */
    unsigned area_order;
    uint64_t uncleared;               /* bytes of it from its start */
    unsigned promised;                /* places on pCPUs, kept for the vCPUs of a domain that is being made */
    int failure;                      /* of the making that is being taken back */
    char why[160];                    /* and in words; "": the status says all */
};

struct restore {
    uint64_t rtc_seconds; /* to put the RTC forward */
    bool any_tsc;         /* although the TSC has another frequency here */
};

/* A saved state that is being read. */
struct state_reader {
    const uint8_t *at;
    uint32_t left;
    uint8_t *copy; /* memory of our own for a record's value */
    uint32_t room;
};
#define STATE_COPY_BYTES 0x8000u /* the longest value, an XSAVE area, is less than that */

/* ---- The shared memory behind a domain: a slot's, or (standalone) the hypervisor's own. ---- */
struct slot {
    unsigned index;
    uint64_t physical, size;      /* BAR2, or the frames of a standalone domain */
    uint8_t *memory;              /* where it is mapped */
    volatile uint32_t *registers; /* BAR0; NULL for a standalone domain */
    struct domain *domain;        /* what runs on it, or NULL */
    uint32_t generation;
    volatile bool rung;           /* its doorbell has rung since slot_service() looked */
    const void *module, *initrd;  /* boot modules of a standalone domain; else they lie in the arena */
    struct progress progress;
    struct restore restore;       /* as asked for by CONTROL_RESTORE */
    struct state_reader reader;
};

/* ---- Virtual time (vtime.c). ---- */
struct vtime {
    uint64_t tsc_offset; /* domain TSC = host TSC + tsc_offset, while not stopped */
    uint64_t stopped_at; /* domain TSC while stopped */
    uint64_t tsc_hz;     /* of this domain's clocks, for ever: the host's when it was created */
    bool stopped;
};

static inline uint64_t vtime_tsc(const struct vtime *t) /* domain TSC */
{
    return __atomic_load_n(&t->stopped, __ATOMIC_ACQUIRE) ? t->stopped_at : rdtsc() + t->tsc_offset;
}

/* ---- Interrupt lines (fabric.c). A source's number is its bit in gsi_sources; those that tick come first. ---- */
#define PCI_LINKS 4u
enum {
    SOURCE_PIT, SOURCE_RTC, SOURCE_HPET, TICK_SOURCES = SOURCE_HPET + HPET_TIMERS,
    SOURCE_PM = TICK_SOURCES, SOURCE_UART, SOURCE_DM_ISA, SOURCE_DM_SCI, SOURCE_LINK,
    SOURCE_COUNT = SOURCE_LINK + PCI_LINKS,
};

static inline enum metronome_tick_source chipset_tick_source(unsigned source)
{
    return source == SOURCE_PIT ? METRONOME_TICKS_OF_PIT : source == SOURCE_RTC ? METRONOME_TICKS_OF_RTC : METRONOME_TICKS_OF_HPET;
}

static inline enum metronome_latency_source chipset_latency_source(unsigned source)
{
    return source == SOURCE_PIT ? METRONOME_LATENCY_OF_PIT : source == SOURCE_RTC ? METRONOME_LATENCY_OF_RTC
           : source < TICK_SOURCES ? METRONOME_LATENCY_OF_HPET : METRONOME_LATENCY_OF_LINE;
}
#define SCI_GSI 9u
#define MSR_TSC_AUX 0xc0000103u
enum { APIC_EOI = 0xb0, APIC_ICR = 0x300, APIC_SELF_IPI = 0x3f0 }; /* in the local APIC's page; and 16 to an MSR */

/* The parts of a chipset, of which one that has been touched may have changed its outputs and its deadline. */
enum { PART_PIT = 1, PART_HPET = 2, PART_RTC = 4, PART_PM = 8, PART_UART = 16, PART_PIC = 32, PART_IOAPIC = 64, PARTS_ALL = 127 };
enum { DEADLINE_PIT, DEADLINE_HPET, DEADLINE_RTC, DEADLINE_PM, DEADLINES }; /* the first parts, by their bits' numbers */

/* The domain's devices that all its vCPUs share, under one lock. */
struct chipset {
    struct spinlock lock;
    struct vpic vpic;
    struct vioapic vioapic;
    struct vpit vpit;
    struct hpet hpet;
    struct rtc rtc;
    struct pmtimer pmtimer;
    struct uart uart;
    uint32_t gsi_sources[VIOAPIC_MAX_PINS]; /* who asserts each line */
    uint64_t rises_seen[SOURCE_COUNT];      /* of each model's output line */
    uint32_t hpet_gsi[HPET_TIMERS];         /* where a comparator's line was last driven */
    uint64_t int_rises;                     /* of the PIC's INT, as last posted to vCPU 0 */
    uint32_t int_level;
    uint32_t link_devices[PCI_LINKS];       /* PCI devices that assert a link: each has one pin on each */
    uint8_t link_irq[PCI_LINKS];
    struct ledger ledger[TICK_SOURCES];     /* in master ticks */
    uint64_t ticks_seen[TICK_SOURCES];      /* of the model's own count of what came due */
    uint64_t ticks_deadline;                /* when the next owed tick may be signalled */
    uint64_t expiries_put_off;              /* by the budget of a domain's timers */
    uint16_t pm_base;                       /* 0: not decoded */
    uint32_t pci_address;                   /* last write to 0xcf8 */
    uint32_t pm_base_register;              /* PIIX4 function 3, 0x40 */
    bool pm_enabled;                        /* and 0x80 bit 0 */
    uint64_t deadline_ticks;                /* earliest deadline of all models, master ticks */
    uint64_t hold_until;                    /* host TSC before which no vCPU is entered: it would see one early; 0: none */
    struct deadline deadline;               /* on the home pCPU */
    /* Not saved: what is known of the state above. */
    uint64_t deadlines[DEADLINES];          /* of the models */
    uint32_t open;                          /* sources with ticks that are owed or pending, by bit */
    uint32_t hpet_traced;                   /* comparators that run, as the trace has said */
    /* For the latency ledger; not saved. */
    uint8_t risen[VIOAPIC_MAX_PINS];        /* the source that was the last to assert each line */
    uint64_t due[TICK_SOURCES];             /* when the last interrupt of each was due, master ticks; 0: it is on its way */
    uint64_t int_posted;                    /* when the PIC's INT rose, domain TSC */
};

/* ---- Posting (post.c). ---- */
enum { WORK_NMI = 1, WORK_INIT = 2, WORK_SIPI = 4, WORK_LINT0 = 8, WORK_EXTINT = 16, WORK_LINT1 = 32, WORK_ALL = 63 };

/* Shaped like a posted-interrupt descriptor; written by any pCPU, drained by the owner. */
struct posted {
    uint64_t pir[4], tmr[4];
    uint32_t work;
    uint32_t on;
    uint8_t sipi_vector;
    uint8_t source[256]; /* enum metronome_inject_source of each vector's last post */
} __attribute__((aligned(64)));

enum vcpu_state {
    VCPU_OFF,        /* not started, or waits for SIPI */
    VCPU_RUNNABLE,
    VCPU_IN_GUEST,
    VCPU_IDLE,       /* HLT */
    VCPU_WAIT_IOREQ,
    VCPU_STOPPED,    /* its domain is stopped for a reset, a pause or its end */
    VCPU_STARTING,   /* and has been started again: its pCPU has not looked yet */
    VCPU_ARRIVING,   /* can run, on a pCPU that has not looked yet */
};

/* ---- A request to the device model (ioreq.c). The shared page is data; this is the state. ---- */
struct access {
    uint64_t address, value;
    uint32_t count; /* REP: iterations done */
    uint8_t size;
    bool write, port;
};
#define ACCESS_LOG 16

struct io_state {
    bool waiting;            /* a request is out */
    struct access request;
    bool port_in;            /* an IN that completes straight into RAX */
    bool emulating;          /* the answer is for an instruction that runs again */
    bool again;              /* run it at the next entry */
    bool further;            /* this exit has been counted: an iteration of its instruction is committed */
    uint64_t fault_gpa;      /* what the instruction under emulation has exited for, where its operand is */
    bool fault_write;
    unsigned logged, replayed;
    struct access log[ACCESS_LOG]; /* accesses of the instruction under emulation, for its next run */
};

/* ---- The flight recorder (flight.c): a vCPU's last exits, and the domain's latest interrupts with those before them. ---- */
#define FLIGHT_EXITS 64u /* of which the last METRONOME_LATE_EXITS are kept: it has room for the exits until they are */

struct flight {
    struct metronome_exit_record exit[FLIGHT_EXITS];
    uint32_t at;             /* in bytes, of the exit that is handled */
    uint32_t late_at;        /* of the one behind which latency.late was injected */
    uint64_t run_ticks;      /* the vCPU's count when it was picked */
    uint64_t cpu_ticks;      /* that pCPU's ran_ticks when it was left */
    uint32_t cpu;
};

/* The latest ones, as the shared copies have them. */
struct late {
    struct spinlock lock;
    uint64_t ticks[METRONOME_LATENCY_SOURCE_COUNT][METRONOME_LATE_KEPT];
    uint64_t bar[METRONOME_LATENCY_SOURCE_COUNT]; /* the least of them */
    uint32_t writes;
};

struct vendor_state; /* svm's or vmx's own */

#define DECODE_CACHE 64

/* The pCPU that a vCPU lives on, and its bit in that one's masks. It is read by others while it moves: both together. */
struct place {
    uint32_t cpu, local;
} __attribute__((aligned(8)));

/* What the scheduler knows of a vCPU (sched.c), in host TSC ticks. */
struct turn {
    int64_t had;          /* the time it had on its pCPU, as against the others there */
    int64_t urgent_until; /* counts as urgent while it had less than that */
    int64_t urgent_had;   /* of `had`, what it had while it was urgent, as against the others there */
    uint64_t here_since;  /* that it lives there */
    uint64_t since;       /* it can run or, if it is the pCPU's `last`, runs */
};

struct decode_entry {
    uint64_t linear, cr3;
    uint32_t mode;
    struct emu_insn insn;
};

/* Where the RAM behind a guest-physical page is, by the emulator's ram_generation. */
struct ram_entry {
    uint64_t page, generation; /* bit 0 of page: to be written */
    void *memory;
};
#define RAM_CACHE 16

struct vcpu {
    struct emu emu;               /* regs.gpr is where the world switch keeps the general registers */
    struct domain *domain;
    struct vendor_state *vendor;
    struct posted posted;
    struct vlapic vlapic;
    struct latency latency;
    struct flight flight;
    unsigned id;                  /* index in the domain */
    struct place place;           /* for others: vcpu_place() */
    struct turn turn;
    volatile uint32_t state;      /* enum vcpu_state */
    uint32_t runstate;            /* RUNSTATE_*, for the trace */
    struct deadline deadline;     /* of the local APIC's timer */
    bool timer_due;               /* that deadline has passed */
    bool timer_traced;            /* the local APIC's timer runs, as the trace has said */
    uint64_t hold_until;          /* host TSC before which it is not entered: it would see that timer early; 0: none */
    struct ledger ticks;          /* of that timer, in domain TSC; the route is the vector */
    uint64_t ticks_seen;          /* of vlapic.timer_due */
    bool halted;                  /* in HLT: runs on only when inject_pending() */
    bool fpu_fresh;               /* load FPU and DRs from memory at the next run, whatever the registers hold */
    uint32_t lapic_generation;    /* of vlapic.map_generation, as published in the domain's map */
    uint32_t published_id, published_logical; /* there */

    /* Events on their way in (inject.c). */
    unsigned nmi_pending;
    bool nmi_blocked, extint_pending;
    bool event_pending;           /* an exception, or an event whose delivery an exit interrupted */
    uint8_t event_vector, event_type;
    bool event_has_error;
    uint32_t event_error;
    uint64_t lint0_rises;

    struct io_state io;
    struct decode_entry decode[DECODE_CACHE];
    struct ram_entry ram[RAM_CACHE];

    /* Registers that the hardware does not keep for a guest. */
    uint64_t pat, xcr0, mtrr_def, mtrr_fixed[11], mtrr_variable[16], misc_enable, syscfg, hwcr, mcg_status, tsc_aux;
    uint64_t mc[4 * 4];
    uint64_t dr[4];               /* DR0-DR3; DR6 and DR7 are in the VMCB */
    uint64_t p2m_generation;      /* of the p2m at the last entry; 0: its root must be looked for again */
    uint64_t *view;               /* of the p2m without its APIC's page; NULL where that has never been over RAM */
    void *fpu;                    /* XSAVE area, one or more pages */
    struct {
        uint64_t exits[METRONOME_EXIT_COUNT], injected[METRONOME_INJECT_COUNT], held_ticks, run_ticks, steal_ticks;
        uint64_t longest_off[METRONOME_EXIT_COUNT]; /* spans with interrupts off */
    } counts;
    uint64_t *off_longest;        /* of them: where the one that is under way counts */
};

static inline struct place vcpu_place(const struct vcpu *v)
{
    struct place place;

    __atomic_load(&v->place, &place, __ATOMIC_SEQ_CST);
    return place;
}

static inline void vcpu_set_place(struct vcpu *v, struct place place)
{
    __atomic_store(&v->place, &place, __ATOMIC_SEQ_CST);
}

/* Where interrupts addressed to APIC ids go; updated in place by the vCPU that changes, read without lock. */
struct apic_map {
    uint8_t physical[256];      /* xAPIC or x2APIC id to vCPU, 0xff: none */
    uint64_t flat[8];           /* vCPUs by bit of a flat logical id */
    uint64_t cluster[16][4];    /* and of a cluster one */
};

struct domain {
    struct slot *slot;
    struct p2m p2m;
    struct vtime time;
    struct chipset chipset;
    struct apic_map map;
    struct spinlock map_lock;
    struct late late;
    struct metronome_latency *latency;     /* in the control device's memory; standalone: its own */
    struct metronome_domain_header header; /* our validated copy */
    bool has_dm, ready;
    bool made;                             /* and not taken apart yet: it takes commands */
    unsigned vcpus, home;                  /* number; the pCPU of the chipset's deadline */
    struct vcpu *vcpu[METRONOME_MAX_VCPUS];
    uint8_t port_owner[65536];             /* enum port_owner */
    uint8_t *test_page;
    struct loader loader;                  /* of the module of a domain without device model */
    struct spinlock command_lock;          /* one consumer of the slot's ring at a time */
    uint32_t commands_consumed;
    struct metronome_command command;      /* the last one taken from it */
    bool command_open;                     /* and not done yet: it goes on behind this page */
    uint64_t command_pages;
    uint32_t saved_bytes;                  /* of the state being saved: written so far */
    uint32_t refused;                      /* commands, of which the first few are logged */
    uint32_t completions;                  /* produced into its completion ring */
    struct spinlock posted_lock;           /* one producer of posted writes at a time */
    uint32_t posted_writes;                /* our count of the buffered ring's write pointer */
    struct spinlock lock;                  /* of what starts, stops and ends it: the fields from here to end_message */
    uint32_t running;                      /* vCPUs not stopped */
    uint32_t placed;                       /* vCPUs that have a pCPU: the end takes them away */
    volatile uint32_t action;              /* enum domain_action, done when the last vCPU has stopped, or left */
    uint32_t reset_cause;                  /* last port seen of those that reset; 0: none, so a triple fault or the button */
    uint32_t resets;
    bool paused;                           /* all vCPUs have stopped */
    bool unpause_wanted;                   /* they shall go on as soon as they have */
    bool ended;                            /* all have left, and nothing but the control device's commands knows it */
    bool resetting;                        /* stopped or stopping until the device model has reset itself */
    bool reset_wanted;                     /* the device model does not know yet: it is told when all have stopped */
    uint32_t console_produced, console_consumed; /* its rings' counts: console.c */
    int console_held;                      /* a byte that the UART had no room for, while console_holds */
    bool console_holds;
    bool console_waited_for;               /* a vCPU waits for room in its ring */
    enum metronome_end_reason end;
    uint32_t end_code;
    char end_message[192];
};

/* Do its vCPUs never run at the same time? */
static inline bool domain_on_one_pcpu(const struct domain *d)
{
    return d->vcpus == 1 || pcpu_count == 1;
}

enum domain_action { ACTION_NONE, ACTION_RESET, ACTION_PAUSE, ACTION_END };

/* ---- Per-pCPU part (hvm.c, sched.c). ---- */
struct hvm_pcpu {
    unsigned id;
    struct deadline_heap deadlines;
    uint64_t timer_armed;             /* deadline that the one-shot timer is set for: it fires `advance` before */
    uint64_t quiet_until;             /* but not before that host TSC: an entry waits for its moment undisturbed; 0: none does */
    const struct domain *quiet_for;   /* of whom that is */
    uint32_t advance;                 /* TSC ticks from that timer to a guest's entry, as far as they are known; at most ADVANCE_MAX */
    volatile bool timer_fired;
    volatile uint64_t wake;           /* local vCPUs that were posted to */
    volatile uint32_t attention;      /* ATTENTION_* */
    struct vcpu *local[64];           /* vCPUs that live here */
    volatile uint64_t taken;          /* places of theirs; any pCPU takes one */
    volatile uint64_t runnable, io_waiting; /* masks of local ones; others look at them */
    unsigned last;                    /* that ran last */
    uint64_t breath_takes;            /* TSC ticks, at least: letting interrupts in amid an exit's handling */
    uint64_t breath_after;
    uint64_t off_since;               /* host TSC at which interrupts went off */
    uint64_t *off_longest;            /* of spans like the one under way: the loop's, or a vCPU's that has just left */
    struct vcpu *handled;             /* that runs, or whose exit is handled; NULL: in the loop */
    uint64_t longest_off;             /* the loop's: from where it lets interrupts in, until it does so again or enters */
    volatile int64_t least_had;       /* of those that can run, `had`; never less than it was */
    volatile int64_t urgent_had;      /* `urgent_had` of the urgent one that was picked last, or more */
    uint64_t slice_end;               /* host TSC */
    volatile uint64_t spread_at;      /* and this, which others put off */
    struct deadline slice;            /* the end of the slice, while others wait for it */
    bool resched, yielded;
    uint64_t ran_ticks, idle_ticks;   /* that vCPUs have run here, and had when there was none to run last */
    uint32_t ran_last;                /* METRONOME_VCPU_ID() of the last one; 0: none has since then */
    uint64_t exit_begins;             /* what an exit_record has behind its times at first */
    struct vcpu *traced;              /* who runs here, as the trace has it; NULL: nobody */
    uint32_t trace_settings;          /* and of which of its settings that is */
    struct vendor_pcpu *vendor;
};
/* What timers may be early by, in TSC ticks: a chipset's timer behind another one's exit takes some 5,000 instructions to the guest.
 * An entry is held for what this is more than the way to it. */
#define ADVANCE_MAX 7000u
enum { ATTENTION_SLOTS = 1, ATTENTION_CONTROL = 2, ATTENTION_DEADLINES = 4, ATTENTION_WORK = 8 };

static inline struct hvm_pcpu *this_hvm(void)
{
    return this_cpu()->hvm;
}
extern struct hvm_pcpu *hvm_pcpus[MAX_PCPUS];

/* ---- tracing.c: what takes more than one line at its place ---- */
static inline uint32_t trace_id(const struct vcpu *v)
{
    return v->id | v->domain->slot->index << 16;
}
void trace_runstate(struct vcpu *v, unsigned runstate);
void trace_pick(struct hvm_pcpu *p, struct vcpu *v); /* who runs now; NULL: nobody */
void trace_forget(struct hvm_pcpu *p, struct vcpu *v); /* it leaves the pCPU */
void trace_io(bool port, bool write, uint64_t address, uint64_t value);
bool trace_set(uint32_t mask);                       /* on every pCPU */
/* Behind a write, before what follows from it. */
void trace_chipset_timers(struct chipset *c, uint64_t now, unsigned part);
void trace_hpet_timers(struct chipset *c, unsigned offset);
enum { APIC_LVT_TIMER = 0x320, APIC_TIMER_COUNT = 0x380, APIC_TIMER_DIVISOR = 0x3e0 };
void trace_apic_timer(struct vcpu *v, unsigned reg, uint64_t now);

/* ---- The vendor ops table: entering, leaving, injecting. ---- */
enum exit_action {
    EXIT_RESUME, /* handled: go on in the guest */
    EXIT_LEAVE,  /* the pCPU's loop must look: host interrupt, wait, stop */
};

struct vendor_ops {
    const char *name;
    /* Checks and switches on the extension on this pCPU; NULL, or one line that says why it cannot be used. */
    const char *(*cpu_init)(struct hvm_pcpu *p);
    bool (*vcpu_init)(struct vcpu *v);
    void (*vcpu_destroy)(struct vcpu *v);
    /* Architectural reset state; SIPI starts at vector << 12. */
    void (*vcpu_reset)(struct vcpu *v, bool sipi, uint8_t vector);
    void (*vcpu_start_flat)(struct vcpu *v, const struct loader_entry *entry); /* where a boot protocol starts */
    /* Runs the guest until something needs the pCPU's loop. GIF or interrupts are off inside. */
    void (*run)(struct vcpu *v);
    void (*let_in)(struct vcpu *v); /* NULL: never; interrupts, amid an exit's handling; what they ask for is not forgotten at the entry */
    /* At each exit emu.regs has gpr, rip, rflags and cr4; this adds the rest for the emulator. gpr, rip and rflags are written
     * back before entry. */
    void (*load_regs)(struct vcpu *v);
    /* The address behind the instruction that the exit is for; 0: it is not known. Then the emulator finds it out, puts RIP there,
     * and skipped() is told, unless it is NULL. */
    uint64_t (*next_rip)(const struct vcpu *v);
    void (*skipped)(struct vcpu *v);
    void (*set_cr2)(struct vcpu *v, uint64_t value);
    uint64_t (*get_efer)(const struct vcpu *v);
    bool (*set_efer)(struct vcpu *v, uint64_t value); /* false: #GP */
    void (*set_pat)(struct vcpu *v);
    /* All but gpr, XCR0 and DR0 to DR3, of a vCPU that is stopped, to and from a saved domain. They have been checked. */
    void (*get_registers)(const struct vcpu *v, struct metronome_state_registers *r);
    void (*set_registers)(struct vcpu *v, const struct metronome_state_registers *r);
};
extern const struct vendor_ops *vendor;
extern const struct vendor_ops svm_ops;

/* ---- hvm.c ---- */
void hvm_kick(unsigned cpu);                     /* IPI unless it is this one */
void hvm_attention(unsigned cpu, uint32_t what); /* sets ATTENTION_* and kicks */
void deadline_arm(struct deadline *d, uint64_t host_tsc); /* on this pCPU */
/*
 * Timers fire early, so that what they cause is at the guest's entry when it is due. Whoever acts on a deadline that lies less
 * than ADVANCE_MAX ahead has the entries of those that would see it held until then; for what is further away none waits.
 */
void hvm_hold(uint64_t *hold_until, uint64_t host_tsc);
/*
 * Until `v` is in at that moment, this pCPU does nothing else, unless the deadline of one that comes before it is near: others'
 * deadlines wait, and so does what interrupts ask the loop for. At most ADVANCE_MAX ticks, and some.
 */
void hvm_be_quiet(struct vcpu *v, uint64_t host_tsc);
/* The longer part of the wait; false: one who comes before it wants the CPU. */
bool hvm_await_injection(struct vcpu *v, uint64_t until);
/* The rest, right before the entry; with it the quiet ends. 0: there is no moment to wait for. */
void hvm_await(struct hvm_pcpu *p, struct vcpu *v, uint64_t until);
void hvm_let_in(struct hvm_pcpu *p, bool halt);  /* interrupts, for a moment or until one comes */

/* Interrupts are let in: what has gone since they went off counts, but for what is waited for on purpose. */
static inline uint64_t off_ends(const struct hvm_pcpu *p, uint64_t *longest)
{
    uint64_t now = rdtsc(), span = now - p->off_since;

    if (span > *longest)
        *longest = span;
    return now;
}

/*
 * Long work lets interrupts in between its steps: their handlers only set flags, which are looked at before the entry. It does so
 * when they have been off for 4 times as long as letting them in takes, whatever an instruction costs here: that is some 250
 * instructions, and with the longest step behind them no span is longer than 1,000.
 */
static inline bool off_long(const struct hvm_pcpu *p)
{
    return rdtsc() - p->off_since > p->breath_after;
}

/* Anywhere outside handlers, also with locks held: no handler takes one. */
void hvm_take_breath(struct hvm_pcpu *p);
static inline void hvm_breathe(void)
{
    if (vendor->let_in && off_long(this_hvm()))
        hvm_take_breath(this_hvm());
}

/* Until when its entry is held; 0: it is not. */
static inline uint64_t held_until(const struct vcpu *v)
{
    uint64_t chipset = v->domain->chipset.hold_until;

    return v->hold_until > chipset ? v->hold_until : chipset;
}

/* Behind vcpu_prepare(), before anything is injected. */
static inline bool hvm_may_inject(struct vcpu *v)
{
    uint64_t until = held_until(v);

    return !until || hvm_await_injection(v, until);
}

/* Does anything ask this pCPU's loop to look? */
static inline bool hvm_called(const struct hvm_pcpu *p)
{
    return p->timer_fired || p->attention || p->resched || p->wake;
}

/* ---- flight.c ---- */
static inline struct metronome_exit_record *flight_exit(struct flight *f, uint32_t at)
{
    return (void *)((uint8_t *)f->exit + at);
}
static inline void flight_idles(struct hvm_pcpu *p)
{
    p->idle_ticks = p->ran_ticks;
    p->ran_last = 0;
}
void flight_picked(const struct hvm_pcpu *p, struct vcpu *v);
void flight_ran(struct hvm_pcpu *p, struct vcpu *v);
void flight_forget(struct domain *d);

static inline void hvm_after_exit(struct vcpu *v, uint64_t rip)
{
    struct metronome_exit_record *e = flight_exit(&v->flight, v->flight.at);
    struct hvm_pcpu *p = this_hvm();
    uint64_t now = rdtsc();

    p->off_since = e->left = now;
    e->rip = rip;
    __builtin_memcpy(&e->reason, &p->exit_begins, sizeof(p->exit_begins)); /* one store */
    v->off_longest = &v->counts.longest_off[METRONOME_EXIT_OTHER];         /* until the exit's reason is counted */
}

/* One of the latest: the exits before it are copied when the loop comes by. */
static inline void flight_note(struct hvm_pcpu *p, struct vcpu *v)
{
    v->flight.late_at = v->flight.at;
    p->resched = true;
}

/* `leave`: the guest leaves again at once, by a kick that is sent last: a breath would take it. */
static inline void hvm_before_entry(struct vcpu *v, bool leave)
{
    struct hvm_pcpu *p = this_hvm();
    uint64_t until = held_until(v);
    struct metronome_exit_record *e = flight_exit(&v->flight, v->flight.at);

    if (v->latency.entering) {
        uint64_t now = rdtsc(), offset = v->domain->time.tsc_offset;
        uint64_t left = e->left && e->reason != METRONOME_EXIT_HLT ? e->left + offset : 0;

        latency_entered(&v->latency, left, (now > until ? now : until) + offset);
        if (v->latency.late)
            flight_note(p, v);
    }
    e->entered = off_ends(p, v->off_longest);
    v->flight.at = (v->flight.at + sizeof(*e)) % sizeof(v->flight.exit);
    if (until | p->quiet_until)
        hvm_await(p, v, until);
    if (leave)
        ipi_send(this_cpu()->id, VECTOR_KICK);
}

/* ---- sched.c: who runs ---- */
void sched_add(struct vcpu *v, unsigned cpu);
void sched_remove(struct vcpu *v);    /* on its own pCPU, like all below */
void sched_wake(struct vcpu *v);      /* can run from now, and is urgent */
/* Would `v` run rather than `than`, on the same pCPU, which is urgent, if it became so now? Not of the same domain. */
bool sched_comes_before(const struct vcpu *v, const struct vcpu *than);
void sched_block(struct vcpu *v, enum vcpu_state state);
void sched_urge(struct vcpu *v);      /* one that can run has an interrupt */
void sched_pause(struct hvm_pcpu *p); /* the running vCPU waits for others */
struct vcpu *sched_pick(struct hvm_pcpu *p);
void sched_ran(struct hvm_pcpu *p, struct vcpu *v); /* from the pick until now */
void sched_idle(struct hvm_pcpu *p, bool idle);     /* is there nothing to run here? */
/* A vCPU that does not run here and could elsewhere, and the place there, which is kept for it; then it goes there. */
bool sched_surplus(struct hvm_pcpu *p, struct vcpu **v, struct place *to);
void sched_move(struct vcpu *v, struct place to);
static inline bool sched_shared(const struct hvm_pcpu *p) /* do several want to run? */
{
    uint64_t runnable = __atomic_load_n(&p->runnable, __ATOMIC_RELAXED);

    return runnable & (runnable - 1);
}
unsigned sched_place(void);           /* pCPU for a new vCPU */
bool sched_room(unsigned vcpus);      /* is there place for so many more? */

/* ---- vtime.c ---- */
void vtime_start(struct vtime *t);
void vtime_stop(struct vtime *t);
void vtime_resume(struct vtime *t);
uint64_t vtime_master(const struct vtime *t);                         /* master ticks */
uint64_t vtime_tsc_of_master(const struct vtime *t, uint64_t ticks);  /* first domain TSC at which master >= ticks */
uint64_t vtime_host_of_tsc(const struct vtime *t, uint64_t tsc);      /* host TSC at which the domain TSC is reached */
uint64_t vtime_host_of_master(const struct vtime *t, uint64_t ticks); /* first host TSC at which master >= ticks */

/* ---- fabric.c: lines, routes, pins, messages. Callers of chipset_* hold the lock. ---- */
/* Time for the models is read under the lock, so that what guests see of it never goes back. */
void chipset_reset(struct domain *d, bool power_on);
void chipset_update(struct domain *d, uint64_t now, unsigned parts); /* propagates the PART_*' outputs and re-arms the deadline */
/* Does that one's time come to something by then, so that a look at it must be followed by an update? */
static inline bool chipset_part_due(const struct chipset *c, unsigned part, uint64_t now)
{
    unsigned i = (unsigned)__builtin_ctz(part);

    return i < DEADLINES && c->deadlines[i] <= now;
}
void chipset_expire(struct deadline *deadline);
void chipset_rearm(struct domain *d);                 /* on the home pCPU, after virtual time has started */
void chipset_leave(struct domain *d, unsigned home);  /* on the home pCPU: another one is it from now on, and asked to rearm */
void chipset_set_isa(struct domain *d, unsigned irq, bool level);
void chipset_set_intx(struct domain *d, unsigned device, unsigned pin, bool level);
void chipset_set_link(struct domain *d, unsigned link, unsigned irq);
void chipset_set_sci(struct domain *d, bool level);
void chipset_nmi(struct domain *d);                   /* the board's NMI, at each LINT1, unless port 0x70 masks it: takes the lock */
void chipset_set_pm_base(struct domain *d);
bool chipset_check(const struct chipset *c);          /* are these states that the lines can be in? */
void chipset_restored(struct domain *d, uint64_t rtc_seconds); /* its state has been put back: takes the lock */
void chipset_acknowledged(struct domain *d, uint8_t vector); /* a vCPU has taken the vector */
int chipset_intack(struct vcpu *v);                   /* takes the lock; the PIC's vector, or -1 if INT is low */
/* Where a message comes from: the way that is counted, and for the latency ledger the source and when it was due (domain TSC). */
struct cause {
    uint64_t due;
    uint32_t way;    /* enum metronome_inject_source */
    uint32_t source; /* enum metronome_latency_source */
};
void fabric_message(struct domain *d, struct bus_message m, struct cause cause);
void fabric_publish_apic(struct vcpu *v);
void fabric_take_apic_output(struct vcpu *v);         /* ICR sends and EOI broadcasts of the vCPU's APIC */

/* ---- post.c ---- */
void vcpu_post(struct vcpu *v, uint8_t vector, bool level, enum metronome_inject_source source);
void vcpu_post_work(struct vcpu *v, uint32_t work);
void vcpu_drain(struct vcpu *v);                      /* owner: takes what was posted into the APIC */
void vcpu_discard_posts(struct vcpu *v);
void vcpu_look(struct vcpu *v);                       /* its pCPU looks at its state and its domain's action */
void vcpu_look_at(struct place at);                   /* the same for whoever lives there */

/* ---- inject.c ---- */
enum { EVENT_INTR = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFTWARE = 4 };
struct injection {
    bool valid, has_error;
    uint8_t vector, type;
    uint32_t error;
};
/* What stands between the guest and an interrupt, as the vendor's part sees it at this entry. */
struct injectability {
    bool interrupts; /* RFLAGS.IF and no interrupt shadow */
    bool shadow;
};
enum {
    WANT_WINDOW = 1, /* an exit as soon as interrupts can be taken */
    WANT_STEP = 2,   /* an exit after one instruction: the interrupt shadow's */
    WANT_TPR = 4,    /* an exit when the TPR is written: it holds back a request */
    WANT_EXIT = 8,   /* a kick behind the last breath before the entry: it leaves again at once, and the event must be in by then */
};
static inline bool pic_asserts(const struct vcpu *v)
{
    return __atomic_load_n(&v->domain->chipset.vpic.out.line[0].level, __ATOMIC_ACQUIRE);
}
/* Is there anything that inject_next() could inject, or let wait? */
static inline bool inject_needed(const struct vcpu *v)
{
    return v->event_pending || v->nmi_pending || v->vlapic.irr.summary || pic_asserts(v);
}
/* Chooses the event for this entry; *want: WANT_* bits to ask of the hardware because something must wait. */
struct injection inject_next(struct vcpu *v, struct injectability can, int *want);
void trace_injection(const struct vcpu *v, const struct injection *i, int want); /* tracing.c */
bool inject_pending(struct vcpu *v);                  /* would wake a halted vCPU */
void vcpu_book_ticks(struct vcpu *v);                 /* what the local APIC's timer has signalled by itself */
void vcpu_repay_ticks(struct vcpu *v);                /* signals one that is owed, if it is to follow now */
/* What the counts need of a guest's write to a register of its local APIC: an EOI that is about to be taken, an IPI to itself
 * that has been sent, which the APIC posts by itself. */
static inline void inject_ended(struct vcpu *v, unsigned reg, uint64_t now)
{
    int vector = reg == APIC_EOI ? map_highest(&v->vlapic.isr) : -1;

    if (vector < 0)
        return;
    trace_put(TRACE_EOI, (uint32_t)vector);
    latency_ended(&v->latency, (uint8_t)vector, now);
}
void inject_self_ipi(struct vcpu *v, unsigned reg, uint64_t value, uint64_t now);
static inline void inject_sent(struct vcpu *v, unsigned reg, uint64_t value, uint64_t now)
{
    if (reg == APIC_ICR || reg == APIC_SELF_IPI)
        inject_self_ipi(v, reg, value, now);
}
void inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error);
void inject_again(struct vcpu *v, uint8_t vector, uint8_t type, bool has_error, uint32_t error);

/* ---- vcpu.c ---- */
void vcpu_init(struct vcpu *v, struct domain *d, unsigned id); /* of zeros; its FPU area and the vendor's part come after */
void vcpu_reset(struct vcpu *v);                      /* platform reset */
void vcpu_run(struct vcpu *v);                        /* from the pCPU's loop */
bool vcpu_prepare(struct vcpu *v);                    /* before each entry; false: leave instead */
void vcpu_unload(void);                               /* saves FPU and DRs of the vCPU that is in the registers */
uint64_t vcpu_new_root(struct vcpu *v);               /* of its nested tables, asked for at an entry whose generation is new */
void vcpu_forget_walks(struct vcpu *v);               /* guest-physical pages may lead elsewhere, for it alone */
void vcpu_arm_timer(struct vcpu *v);
uint32_t vcpu_fpu_bytes(void);                        /* of a vCPU's XSAVE or FXSAVE area */

/* ---- exit.c: what exits mean, for every vendor ---- */
enum exit_action exit_cpuid(struct vcpu *v);
enum exit_action exit_hlt(struct vcpu *v);
enum exit_action exit_msr(struct vcpu *v, bool write);
enum exit_action exit_port(struct vcpu *v, uint16_t port, unsigned size, bool in, uint64_t next); /* the RIP behind it */
#define BUDGET_REQUEST 4096u /* iterations at most that go to the device model as one request */
enum exit_action exit_string_io(struct vcpu *v, uint16_t port);
/* `operand`: it is the address that the instruction accesses, and not that of one of the tables on the way there. */
enum exit_action exit_npf(struct vcpu *v, uint64_t gpa, bool write, bool present, bool operand);
enum exit_action exit_vmmcall(struct vcpu *v);
enum exit_action exit_emulate(struct vcpu *v);        /* the instruction at RIP through the emulator */
enum exit_action exit_triple_fault(struct vcpu *v);
/* Moves RIP past the instruction there, by what the CPU says of it if it does; or by its bytes, which are decoded then. False:
 * fetching it raised an exception, which was injected. */
bool exit_skip(struct vcpu *v);
bool exit_decode_skip(struct vcpu *v);
void exit_crash(struct vcpu *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline void count_exit(struct vcpu *v, enum metronome_exit_reason reason)
{
    v->counts.exits[reason]++;
    flight_exit(&v->flight, v->flight.at)->reason = (uint8_t)reason;
    v->off_longest = &v->counts.longest_off[reason];
}

/* ---- io.c: ports and MMIO ---- */
enum port_owner {
    OWNER_DM, OWNER_PIC_MASTER, OWNER_PIC_SLAVE, OWNER_ELCR, OWNER_PIT, OWNER_PORT61, OWNER_RTC, OWNER_PM, OWNER_UART,
    OWNER_DEBUG_CONSOLE, OWNER_DEBUG_EXIT, OWNER_PCI_ADDRESS, OWNER_PCI_DATA, OWNER_RESET_WATCH, OWNER_PM_CONTROL, OWNER_COUNT,
};
void io_build_ports(struct domain *d);
void io_move_pm(struct domain *d, unsigned from, unsigned to); /* the PM block's ports; 0: nowhere */
enum emu_status io_port(struct vcpu *v, uint16_t port, unsigned size, bool write, uint64_t *value);
enum emu_status io_mmio(struct vcpu *v, uint64_t gpa, unsigned size, bool write, uint64_t *value);
bool io_is_ours(const struct vcpu *v, uint64_t gpa);  /* does this guest-physical page belong to the hypervisor's devices? */
extern const struct emu_ops emulator_ops;

/* ---- ioreq.c ---- */
/* Sends the access out and blocks the vCPU: EMU_WAIT. `ram_gpa`: data lies in guest RAM, `count` elements of it. */
enum emu_status ioreq_access(struct vcpu *v, const struct access *a, uint64_t ram_gpa, bool df);
bool ioreq_posted_write(struct domain *d, uint64_t gpa, unsigned size, uint64_t value);
bool ioreq_poll(struct vcpu *v);                      /* true: the answer is in */
void ioreq_cancel(struct vcpu *v);
uint64_t ioreq_answer(const struct vcpu *v);          /* that is in, and has not been taken */
void ioreq_answered(struct vcpu *v, uint64_t value);  /* puts it there */
bool ioreq_posted_taken(const struct domain *d);      /* the device model has taken all posted writes */
void ioreq_press_reset(struct vcpu *v);               /* a stopped vCPU's write to the reset register, which nobody waits for */
bool ioreq_complete(struct vcpu *v);                  /* before the vCPU resumes; false: not yet */

/* ---- cpuid.c, msr.c ---- */
struct cpuid_result cpuid_policy(struct vcpu *v, uint32_t leaf, uint32_t subleaf);
bool msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);  /* false: #GP */
bool msr_write(struct vcpu *v, uint32_t msr, uint64_t value);
#define EFER_ALLOWED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR)
void msr_reset(struct vcpu *v);
#define MSRS_SAVED 64u
/* The MSRs that nothing else of a saved vCPU holds, at most MSRS_SAVED; and one of them back. False: not a value of it. */
unsigned msr_save(struct vcpu *v, struct metronome_state_msr *to);
bool msr_restore(struct vcpu *v, uint32_t msr, uint64_t value);
/* What a system may have found out about its CPU: the number of words; and whether all that was saved of it is here. */
#define CPUID_WORDS 16u
unsigned cpuid_save(uint32_t *words);
bool cpuid_covers(const uint32_t *words);
uint64_t cr4_allowed(void);
uint64_t xcr0_allowed(void);

/* ---- domain.c ---- */
int domain_check_header(struct domain *d); /* our copy; 0 or -METRONOME_E* */
bool domain_request(struct domain *d, enum domain_action action); /* false: it ends, or a reset is under way */
/* A reset begins with the device model: it is told to, through its port 0xcf9, or has begun by itself (await); with its
 * RESET_DONE the domain starts anew. */
void domain_request_reset(struct domain *d);
void domain_await_reset(struct domain *d);
void domain_vcpu_stopped(struct domain *d);
void domain_vcpu_left(struct domain *d);              /* its pCPU knows it no more */
void domain_end(struct domain *d, enum metronome_end_reason reason, uint32_t code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static inline bool domain_has_ended(const struct domain *d) /* whatever its pCPUs did with it is done */
{
    return __atomic_load_n(&d->ended, __ATOMIC_ACQUIRE);
}
void domain_start(struct domain *d);
void domain_unpause(struct domain *d);
bool domain_stands_still(const struct domain *d);     /* paused, and so can be saved */
void domain_was_reset(struct domain *d, const char *why); /* `why` not: NULL */
/* Parts, as p2m_map() and p2m_unmap(). */
int64_t domain_map(struct domain *d, uint64_t gpa, uint64_t offset, uint64_t size, bool writable);
int64_t domain_unmap(struct domain *d, uint64_t gpa, uint64_t size);
bool domain_translations_changed(struct domain *d); /* behind one or more of the two above; true: once more, there is more to free */
void *domain_ram(const struct domain *d, uint64_t gpa, bool write); /* host pointer to a guest page, or NULL */
void *domain_arena(const struct domain *d, uint64_t offset, uint64_t size);
void domain_stats(struct domain *d, struct metronome_stats *s); /* exact when no vCPU runs */
unsigned domain_vcpus_running(const struct domain *d);

/* ---- console.c: of a domain without device model. Callers of the first two hold the chipset's lock. ---- */
void domain_console_exchange(struct domain *d, uint64_t now); /* behind an access to the UART */
/* Before a write to it: EMU_WAIT, and the vCPU is blocked, while the byte would be lost. */
enum emu_status domain_console_make_room(struct vcpu *v, uint64_t now, unsigned offset, unsigned size);
enum emu_status domain_console_put(struct vcpu *v, uint8_t byte); /* port 0xe9; EMU_WAIT as above */
void domain_console_poll(struct domain *d);           /* dom0 has rung, or may have: on the home pCPU */
void domain_console_end(struct domain *d);            /* what its UART has yet goes out: no vCPU is left */

/* ---- work.c: CPU 0 ---- */
void work_add(struct work *w);                        /* any pCPU; not while it is under way */
void work_service(void);

/* ---- plan.c. Each comes to its end with control_finished() or control_destroyed(). ---- */
void domain_make(struct slot *s);                     /* from the header in the slot's memory */
void domain_restore(struct slot *s, const struct restore *r); /* from the state there */
void domain_save(struct domain *d);                   /* that stands still, to there */
void domain_reset(struct domain *d);                  /* all vCPUs have stopped: domain_was_reset() */
void domain_take_apart(struct slot *s);               /* they have left */
bool domain_in_progress(const struct slot *s);        /* is any of them under way? */

/* ---- state.c: a domain saved and restored, a record at a time ---- */
/* 1: record `n` is done, 0: there are no more, or -METRONOME_E*. Of a domain that stands still; into one made from the
 * description in what was saved, with what is wrong with it in `why`. */
int state_save(struct domain *d, uint32_t n);
int state_restore(struct domain *d, uint32_t n, char *why, size_t size);
const char *state_description(const struct slot *s, struct metronome_domain_header *h); /* NULL, or what is wrong with it */

/* ---- slot.c, control.c ---- */
void control_init(void);                              /* finds the shared-memory devices */
struct metronome_latency *control_latency(struct slot *s);
void control_finished(struct slot *s, int status);    /* what the daemon asked for, but for DESTROY */
void control_destroyed(struct slot *s);
bool control_present(void);                           /* somebody commands */
bool control_records(void);                           /* there is memory for figures that are read outside */
void control_service(void);
void control_publish(struct domain *d, enum metronome_slot_state state);
void control_failed(const char *why);
void control_message(struct slot *s, const char *text);
void control_ended(struct domain *d);
void slot_ring(struct slot *s);                       /* the doorbell to dom0 */
void slot_rung(void *slot);                           /* the doorbell from dom0: an interrupt handler */
void slot_ask(struct domain *d);                      /* its home pCPU looks as if the doorbell had rung */
void slot_service(struct domain *d);                  /* what it is for: commands, or typed bytes */
bool slot_drain_commands(struct domain *d);           /* a bounded part of them; true: there are no more */
void slot_look(struct domain *d);                     /* as a doorbell that may have been spared while a pCPU polled */
void slot_set_waits(struct slot *s, bool waits);      /* must dom0 ring, or does a pCPU poll? */
extern struct slot slots[METRONOME_MAX_SLOTS];
extern unsigned slot_count;
void control_ready(void);

/* ---- standalone.c: boot modules as domains, where there is no control device ---- */
void standalone_init(void);
void standalone_made(int status);
void standalone_poll(void);
void standalone_console(struct domain *d, const uint8_t *bytes, unsigned n);
void standalone_ended(struct domain *d);

#endif
