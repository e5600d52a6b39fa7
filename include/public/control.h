/*
 * The control device's memory: daemon and hypervisor. Offsets are from the start of BAR2.
 */
#ifndef METRONOME_PUBLIC_CONTROL_H
#define METRONOME_PUBLIC_CONTROL_H

#include "abi.h"
#include "latency.h"
#include "stats.h"
#include "trace.h"

#define METRONOME_CONTROL_MAGIC 0x314c544352544dull /* "MTRCTL1" */

#define METRONOME_CONTROL_HEADER 0x0000u      /* struct metronome_control_header */
#define METRONOME_CONTROL_COMMANDS 0x1000u    /* struct metronome_command_ring, daemon to hypervisor */
#define METRONOME_CONTROL_COMPLETIONS 0x4000u /* struct metronome_completion_ring, the answers */
#define METRONOME_CONTROL_SLOTS 0x8000u       /* struct metronome_slot_status[METRONOME_MAX_SLOTS] */
#define METRONOME_CONTROL_LATENCY 0x200000u   /* struct metronome_latency[METRONOME_MAX_SLOTS]: of each one's last domain */
#define METRONOME_CONTROL_TRACE 0x2200000u    /* struct metronome_trace, to the end */
#define METRONOME_CONTROL_BYTES 0x4000000u    /* size of the control device's memory */

/*
 * A recorder is a device of the same layout that nobody is behind, with this magic: the hypervisor runs its boot modules, and
 * leaves there what status, latency and trace there were. It may be larger; what is added is the trace's.
 */
#define METRONOME_RECORDER_MAGIC 0x3143455252544dull /* "MTRREC1" */

/* The daemon fills magic to slot_bytes before the hypervisor starts; the hypervisor fills the rest, `ready` last. */
struct metronome_control_header {
    uint64_t magic;
    uint32_t version;
    uint32_t slots;        /* domain slots: ivshmem devices behind this one, in PCI order */
    uint64_t slot_bytes;   /* size of each slot's memory, a power of two */
    uint32_t ready;        /* 1: takes commands; 2: cannot run, see error */
    uint32_t pcpus;
    uint64_t tsc_hz;
    uint64_t free_bytes;   /* of the hypervisor's own memory, as of the last completion (NOP: now) */
    uint64_t total_bytes;  /* and with all that is in use */
    char error[256];       /* one line, NUL-terminated */
};
METRONOME_ABI_SIZE(struct metronome_control_header, 312);

enum metronome_slot_state {
    METRONOME_SLOT_FREE,      /* may be created */
    METRONOME_SLOT_STARTING,  /* created, waits for DM_READY */
    METRONOME_SLOT_RUNNING,
    METRONOME_SLOT_PAUSED,
    METRONOME_SLOT_SHUTDOWN,  /* has ended by itself: see `reason`; waits for CONTROL_DESTROY */
    METRONOME_SLOT_RESETTING, /* a guest reset waits for the device model's own reset */
};

/* Why a domain ended, or was reset. */
enum metronome_end_reason {
    METRONOME_END_NONE,
    METRONOME_END_POWEROFF,
    METRONOME_END_REBOOT,
    METRONOME_END_TRIPLE_FAULT,
    METRONOME_END_CRASH,      /* the guest did what cannot be carried on: `message` says what */
    METRONOME_END_DM,         /* its device model broke the protocol: `message` says how */
    METRONOME_END_EXIT,       /* a test guest ended through the debug-exit port; `code` has its value */
};

struct metronome_slot_status {
    uint32_t state;      /* enum metronome_slot_state, written by the hypervisor only */
    uint32_t reason;     /* enum metronome_end_reason */
    uint32_t code;
    uint32_t generation; /* counts creations of the slot */
    uint32_t resets;     /* guest resets so far */
    uint32_t vcpus_running; /* that are in the guest or could be, as of the last change of state (NOP: now) */
    uint32_t zero[10];
    char message[192];   /* one line, NUL-terminated */
    struct metronome_stats stats;
};
METRONOME_ABI_SIZE(struct metronome_slot_status, 64 + 192 + 2048);

/* Commands of the daemon; args[0] is always the slot. */
enum metronome_control_op {
    METRONOME_CONTROL_NOP,
    METRONOME_CONTROL_CREATE,       /* from the slot's header; a domain without device model starts at once */
    METRONOME_CONTROL_DESTROY,      /* completed when no page of the slot is in use any more */
    METRONOME_CONTROL_PAUSE,
    METRONOME_CONTROL_UNPAUSE,
    METRONOME_CONTROL_POWER_BUTTON,
    METRONOME_CONTROL_RESET,        /* as the reset button */
    METRONOME_CONTROL_NMI,          /* the board's, which port 0x70 can mask */
    METRONOME_CONTROL_SAVE,         /* of a paused domain, whose time stands still: its state to METRONOME_DOMAIN_STATE */
    METRONOME_CONTROL_RESTORE,      /* as CREATE, from the state there. args[1]: seconds to put the RTC forward;
                                     * args[2]: METRONOME_RESTORE_* */
    METRONOME_CONTROL_FORGET_LATE,  /* the latest interrupts kept so far; later ones are kept */
    METRONOME_CONTROL_SET_TRACE,    /* args[1]: the mask of events to trace; of the hypervisor, whatever the slot */
};

#define METRONOME_RESTORE_ANY_TSC 1u /* although the TSC here has another frequency: the guest's clocks run wrong by as much */

#endif
