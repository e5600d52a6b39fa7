/*
 * What is traced (docs/trace.md): the events' numbers and their words. A number with two words has its low one first.
 */
#ifndef METRONOME_PUBLIC_TRACE_EVENTS_H
#define METRONOME_PUBLIC_TRACE_EVENTS_H

#include <stdbool.h>
#include "trace.h"

/* Xen's numbers and words (xen/include/public/trace.h, held equal to it by tests/unit/test_trace.c) where Xen does the same. */
enum trace_event {
    TRACE_SCHED_RUNSTATE = 0x21001, /* | old << 8 | new << 4, RUNSTATE_*: {vCPU | domain << 16} */
    TRACE_HVM_VMENTRY = 0x81001,
    TRACE_HVM_VMEXIT = 0x81002,     /* {exit code, EIP} */
    TRACE_HVM_VMEXIT64 = 0x81102,   /* {exit code, RIP: two words} */
    TRACE_HVM_INJ_EXC = 0x82003,    /* {vector, error code} */
    TRACE_HVM_INJ_VIRQ = 0x82004,   /* {vector, 0} */
    TRACE_HVM_REINJ_VIRQ = 0x82005, /* {vector} */
    TRACE_HVM_MSR_READ = 0x8200c,   /* {MSR, value: two words} */
    TRACE_HVM_MSR_WRITE = 0x8200d,
    TRACE_HVM_CPUID = 0x8200e,      /* {leaf, subleaf, EAX, EBX, ECX, EDX} */
    TRACE_HVM_INTR = 0x8200f,
    TRACE_HVM_NMI = 0x82010,
    TRACE_HVM_VMMCALL = 0x82012,    /* {EAX} */
    TRACE_HVM_HLT = 0x82013,        /* {1: it goes on at once} */
    TRACE_HVM_IOPORT_READ = 0x82016, /* {address, value}, for all four; with TRACE_64 the address has two words */
    TRACE_HVM_IOMEM_READ = 0x82017,
    TRACE_HVM_IOPORT_WRITE = 0x82216,
    TRACE_HVM_IOMEM_WRITE = 0x82217,
    TRACE_HVM_INTR_WINDOW = 0x82020, /* {vector, source: 1 PIC, 2 local APIC, 3 NMI; vector being injected or -1} */
    TRACE_HVM_NPF = 0x82021,        /* {address: two words, frame: two words, 0, 0 RAM or 4 device memory} */
    TRACE_HVM_TRAP = 0x82023,       /* {vector} */
    TRACE_HVM_CR_WRITE64 = 0x82109, /* {register, value: two words} */
    TRACE_HVM_XCR_WRITE64 = 0x82127,
    TRACE_EMUL_HPET_START = 0x84001, /* {comparator, line, ns until it is due: two words, period in ns: two words} */
    TRACE_EMUL_PIT_START = 0x84002, /* {ns until it is due, period in ns} */
    TRACE_EMUL_RTC_START = 0x84003, /* the same */
    TRACE_EMUL_LAPIC_START = 0x84004, /* {ns: two words, period in ns: two words, vector} */
    TRACE_EMUL_HPET_STOP = 0x84005, /* {comparator} */
    TRACE_EMUL_PIT_STOP = 0x84006,
    TRACE_EMUL_RTC_STOP = 0x84007,
    TRACE_EMUL_LAPIC_STOP = 0x84008,
    TRACE_EMUL_PIT_TICK = 0x84009,
    TRACE_EMUL_LAPIC_TICK = 0x8400a,
    TRACE_EMUL_PIC_OUTPUT = 0x8400b, /* {level, 0} */
    TRACE_EMUL_PIC_KICK = 0x8400c,
    TRACE_EMUL_PIC_INTACK = 0x8400d, /* {vector} */
    TRACE_EMUL_PIC_RISE = 0x8400e,  /* {IRQ} */
    TRACE_EMUL_PIC_FALL = 0x8400f,
    /* Ours. */
    TRACE_POST = 0x80f001,    /* {vCPU | domain << 16, vector | level << 8 | enum metronome_inject_source << 16} */
    TRACE_KICK = 0x80f002,    /* {pCPU} */
    TRACE_HOLD = 0x80f003,    /* {TSC ticks}: an entry that waited for a deadline */
    TRACE_TICKS = 0x80f004,   /* {source, enum metronome_tick_source; domain << 16 | number; came due; are owed} */
    TRACE_REQUEST = 0x80f005, /* {vCPU | domain << 16, address: two words, size | write << 8 | port << 9}: to the device model */
    TRACE_ANSWER = 0x80f006,  /* {vCPU | domain << 16} */
    TRACE_LINE = 0x80f007,    /* {line, level, source} */
    TRACE_EOI = 0x80f008,     /* {vector} */
    TRACE_CLOCK = 0x80f009,   /* {TSC ticks in a second: two words}: only in files, by who wrote them */
};

enum { RUNSTATE_RUNNING, RUNSTATE_RUNNABLE, RUNSTATE_BLOCKED, RUNSTATE_OFFLINE };
#define TRACE_64 0x100u
#define TRACE_IDLE_DOMAIN 0x7fffu /* its vCPUs are what runs on pCPUs that have nothing to do */

/* Of a record's first word. */
static inline uint32_t trace_event_of(uint32_t first)
{
    return first & 0x0fffffff;
}

/* A change of who runs; and what state it has from then on. */
static inline bool trace_is_runstate(uint32_t event)
{
    return (event & ~0xff0u) == TRACE_SCHED_RUNSTATE;
}

static inline uint32_t trace_new_runstate(uint32_t event)
{
    return event >> 4 & 15;
}

/* As Xen chooses by a mask. */
static inline bool trace_is_in_mask(uint32_t event, uint32_t mask)
{
    return (event & mask) >> 16 && (event & mask & METRONOME_TRACE_SUBCLASSES);
}

#endif
