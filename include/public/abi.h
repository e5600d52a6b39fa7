/*
 * The ABI between hypervisor, dom0 and tools: conventions. Everything is little-endian, naturally aligned and free of
 * padding; sizes are asserted. Memory shared by it is data: the hypervisor reads a field once, validates the copy and
 * never trusts the shared one again.
 *
 * Two kinds of shared memory, each an ivshmem device (PCI 1af4:1110: BAR0 registers and doorbell, BAR2 the memory):
 *   control device   control.h: the daemon's alone
 *   domain slot      domain.h:  one per possible domain; its memory is given to that domain's device model only
 * On every ivshmem device peer 0 is the hypervisor and peer 1 its dom0 side; vector 0 is the one doorbell each way.
 */
#ifndef METRONOME_PUBLIC_ABI_H
#define METRONOME_PUBLIC_ABI_H

#include <stdint.h>

#define METRONOME_ABI_VERSION 5u

#define METRONOME_PEER_HYPERVISOR 0u
#define METRONOME_PEER_DOM0 1u

#define METRONOME_MAX_SLOTS 16u
#define METRONOME_MAX_VCPUS 64u

#define METRONOME_ABI_JOIN2(a, b) a##b
#define METRONOME_ABI_JOIN(a, b) METRONOME_ABI_JOIN2(a, b)
#define METRONOME_ABI_SIZE(type, size) \
    typedef char METRONOME_ABI_JOIN(abi_size_at_line_, __LINE__)[sizeof(type) == (size) ? 1 : -1] __attribute__((unused))

/*
 * A single-producer single-consumer ring. `produced` and `consumed` are free-running counts, each written by one side
 * only, on cache lines of their own; entry n lies at index n modulo the capacity (a power of two). The producer stores
 * the entry, then `produced` with release order. A consumer that sees more than the capacity outstanding stops using it.
 */
struct metronome_ring {
    uint32_t produced;
    uint32_t zero0[15];
    uint32_t consumed;
    uint32_t zero1[15];
};
METRONOME_ABI_SIZE(struct metronome_ring, 128);

/* A command in a ring: slot ring (dm_op) or control ring (control_op). 64 bytes. */
struct metronome_command {
    uint32_t op;
    uint32_t sequence; /* chosen by the sender, returned in the completion */
    uint32_t flags;    /* METRONOME_COMMAND_* */
    uint32_t zero;
    uint64_t args[6];
};
METRONOME_ABI_SIZE(struct metronome_command, 64);

#define METRONOME_COMMAND_COMPLETE 1u /* the sender wants a completion */

struct metronome_completion {
    uint32_t sequence;
    int32_t status; /* 0, or a negative METRONOME_E* */
    uint64_t value;
};
METRONOME_ABI_SIZE(struct metronome_completion, 16);

#define METRONOME_RING_ENTRIES 128u

struct metronome_command_ring {
    struct metronome_ring ring;
    struct metronome_command entry[METRONOME_RING_ENTRIES];
};
METRONOME_ABI_SIZE(struct metronome_command_ring, 128 + 64 * 128);

struct metronome_completion_ring {
    struct metronome_ring ring;
    struct metronome_completion entry[METRONOME_RING_ENTRIES];
};
METRONOME_ABI_SIZE(struct metronome_completion_ring, 128 + 16 * 128);

/* Errors, as in completions. */
#define METRONOME_EINVAL 22    /* an argument is out of range */
#define METRONOME_ENOSYS 38    /* unknown command */
#define METRONOME_ENOMEM 12    /* the hypervisor's memory is used up */
#define METRONOME_EBUSY 16     /* the slot is in use, or not yet gone */
#define METRONOME_ENOENT 2     /* no such domain */
#define METRONOME_ENOEXEC 8    /* the module is no image that can be started */
#define METRONOME_EVERSION 71  /* header of another ABI version */
#define METRONOME_EAGAIN 11    /* not yet: the device model has still to answer or to take posted writes */

#endif
