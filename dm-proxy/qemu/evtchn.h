/* Event-channel ports, as QEMU sees them. */
#ifndef METRONOME_DM_EVTCHN_H
#define METRONOME_DM_EVTCHN_H

#include "public/abi.h"

#define VCPU_PORT(vcpu) (1u + (vcpu))
#define BUFFERED_PORT VCPU_PORT(METRONOME_MAX_VCPUS)

#endif
