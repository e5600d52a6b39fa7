/*
 * What the Linux host has.
 */
#ifndef METRONOME_HOST_H
#define METRONOME_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "public/domain.h"

/* Room in a slot beside RAM: video memory, option ROMs, firmware. It costs only what is used. */
#define SLOT_EXTRA_BYTES (256ull << 20)

uint64_t host_memory_bytes(void);    /* all of it */
uint64_t host_available_bytes(void); /* what new processes can have without swapping */
unsigned host_cpus(void);            /* that this process may use */
bool host_nested_svm(void);          /* hardware acceleration would give the hypervisor a working AMD-V */

/* The size of every slot: the power of two that holds a guest with all of the host's memory. METRONOME_SLOT_MIB
 * overrides. */
uint64_t slot_bytes(void);
uint64_t slot_largest_guest(void);

#endif
