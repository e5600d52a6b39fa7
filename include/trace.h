/*
 * The trace's points: trace_put(EVENT, words...) puts a record into this CPU's ring (public/trace.h). Where the event is off that
 * is a test and a branch. Interrupts are off.
 */
#ifndef METRONOME_TRACE_H
#define METRONOME_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "public/trace.h"

/* Xen's numbers and words (xen/include/public/trace.h, held equal to it by tests/unit/test_abi.c) where Xen does the same. */
enum trace_event {
    TRACE_SCHED_RUNSTATE = 0x21001, /* | old << 8 | new << 4, RUNSTATE_*: {vCPU | domain << 16} */
    TRACE_HVM_VMENTRY = 0x81001,
    TRACE_HVM_VMEXIT = 0x81002,     /* {exit code, EIP} */
    TRACE_HVM_VMEXIT64 = 0x81102,   /* {exit code, RIP: two words} */
    TRACE_HVM_PF_INJECT64 = 0x82102, /* {error code, CR2: two words} */
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
    TRACE_EMUL_HPET_START = 0x84001, /* {ns until it is due: two words, period in ns: two words} */
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
};

enum { RUNSTATE_RUNNING, RUNSTATE_RUNNABLE, RUNSTATE_BLOCKED, RUNSTATE_OFFLINE };
#define TRACE_64 0x100u
#define TRACE_IDLE_DOMAIN 0x7fffu /* its vCPUs are what runs on pCPUs that have nothing to do */

/* The part of a mask that decides over an event: a bit for each subclass of the classes that we have. */
#define TRACE_GROUP(event) \
    ((event) >> 16 == 0x8 ? (event) >> 12 & 15 : (event) >> 16 == 0x2 ? ((event) >> 12 & 15) << 4 : 0x100u)
/* Xen times entries, exits, devices and the scheduler; what handlers do is a part of their exit. */
#define TRACE_FIRST(event, n) ((event) | METRONOME_TRACE_EXTRA(n) | ((event) >> 12 == 0x82 ? 0 : METRONOME_TRACE_TSC))

extern uint32_t trace_groups; /* that are on */

static inline bool trace_on(uint32_t event)
{
    return __builtin_expect(trace_groups & TRACE_GROUP(event), 0);
}

/* So many rings, one per CPU, as large as fit into `bytes` of memory that are all zero. */
void trace_init(void *memory, uint64_t bytes, unsigned rings);
/* Who runs on this CPU, for what is lost: domain | vCPU << 16. */
void trace_running(uint32_t who);
/* METRONOME_TRACE_*: what is on from now, on every CPU. False: there is no memory for a trace. */
bool trace_set_mask(uint32_t mask);
/* How often it has been set: who runs then has to be said anew. */
extern uint32_t trace_settings;

/* Two of the record's own words in each argument; `words`: of all of it. */
void trace_write(uint32_t first, uint32_t words, uint64_t ab, uint64_t cd, uint64_t ef);

static inline uint64_t trace_pair(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* trace_put(EVENT, up to six words...): they are looked at only where the event is on; trace_record(): it is on. */
#define TRACE_COUNT_(none, a, b, c, d, e, f, n, ...) n
#define TRACE_COUNT(...) TRACE_COUNT_(0 __VA_OPT__(, ) __VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define TRACE_PAIRS_(none, a, b, c, d, e, f, ...) \
    trace_pair((uint32_t)(a), (uint32_t)(b)), trace_pair((uint32_t)(c), (uint32_t)(d)), trace_pair((uint32_t)(e), (uint32_t)(f))
#define TRACE_PAIRS(...) TRACE_PAIRS_(0 __VA_OPT__(, ) __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define trace_record(event, ...) \
    do { \
        uint32_t first_ = TRACE_FIRST(event, TRACE_COUNT(__VA_ARGS__)); \
        trace_write(first_, metronome_trace_words(first_), TRACE_PAIRS(__VA_ARGS__)); \
    } while (0)
#define trace_put(event, ...) \
    do { \
        if (trace_on(event)) \
            trace_record(event, __VA_ARGS__); \
    } while (0)
#define TRACE_LONG(value) (value), (uint64_t)(value) >> 32

#endif
