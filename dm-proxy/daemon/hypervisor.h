/*
 * The one hypervisor of this daemon: the outer QEMU, its shared-memory devices, its console and the control ring.
 */
#ifndef METRONOME_HYPERVISOR_H
#define METRONOME_HYPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/ivshmem.h"
#include "daemon/protocol.h"
#include "public/control.h"

#define HYPERVISOR_SLOTS 8u

enum hypervisor_state { HYPERVISOR_STARTING, HYPERVISOR_READY, HYPERVISOR_FAILED };

struct hypervisor_info {
    enum hypervisor_state state;
    int status;        /* FAILED: enum exit_status */
    char error[400];   /* FAILED: one line */
    char machine[100]; /* what it runs on, for people */
};

extern struct hypervisor_info hypervisor;

/* `changed` is called whenever the state or a slot's status may have changed. `log`: a file for its console, or -1. */
void hypervisor_start(int log, void (*changed)(void));
void hypervisor_stop(void);

/* What it is: all but guests and log. */
void hypervisor_describe(struct hypervisor_facts *to);

const struct ivshmem *hypervisor_slot(unsigned slot);

/* A copy: the hypervisor writes while we read. */
void hypervisor_slot_status(unsigned slot, struct metronome_slot_status *copy);

/* A slot's ledger, where the hypervisor writes it, and the rate of its ticks. */
const struct metronome_latency *hypervisor_latency(unsigned slot);
uint64_t hypervisor_tsc_hz(void);
uint64_t hypervisor_ns(uint64_t ticks);

/* The trace's rings, and the memory that they are in. */
struct metronome_trace *hypervisor_trace(void);
int hypervisor_memory(void);

/* How long a slot's interrupts took until they were injected, by enum metronome_latency_source, in ns. */
void hypervisor_latency_ns(unsigned slot, struct metronome_latency_summary *to);

/* `done` gets 0 or a negative METRONOME_E*; it is not called when the hypervisor fails. */
void hypervisor_command(uint32_t op, unsigned slot, const uint64_t arguments[2], void (*done)(void *owner, int status),
                        void *owner);

/* Nothing of what `owner` has asked for calls back any more. */
void hypervisor_forget(const void *owner);

#endif
