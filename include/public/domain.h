/*
 * A domain slot's memory: what hypervisor and device model share of one domain. Offsets are from the start of BAR2.
 */
#ifndef METRONOME_PUBLIC_DOMAIN_H
#define METRONOME_PUBLIC_DOMAIN_H

#include "ticks.h"

#define METRONOME_DOMAIN_MAGIC 0x314d4f444f52544dull /* "MTRODOM1" */

/* Layout of the first 2 MiB. */
#define METRONOME_DOMAIN_HEADER 0x0000u          /* struct metronome_domain_header */
#define METRONOME_DOMAIN_IOREQ 0x1000u           /* struct metronome_ioreq_page: Xen's shared_iopage */
#define METRONOME_DOMAIN_BUFIOREQ 0x2000u        /* struct metronome_bufioreq_page: Xen's buffered_iopage */
#define METRONOME_DOMAIN_NOTIFY 0x3000u          /* struct metronome_notify */
#define METRONOME_DOMAIN_COMMANDS 0x4000u        /* struct metronome_command_ring, device model to hypervisor */
#define METRONOME_DOMAIN_COMPLETIONS 0x8000u     /* struct metronome_completion_ring, the answers */
#define METRONOME_DOMAIN_CONSOLE 0x10000u        /* struct metronome_console: built-in 16550 and port 0xe9 */
#define METRONOME_DOMAIN_DIRTY 0x20000u          /* bitmap filled by DM_DIRTY: one bit per page */
#define METRONOME_DOMAIN_DIRTY_BYTES 0x10000u    /* so at most 524,288 pages (2 GiB) in one query */
#define METRONOME_DOMAIN_KEPT 0x30000u           /* what the device model's library keeps here is saved with the domain */
#define METRONOME_DOMAIN_KEPT_BYTES 0x4000u
#define METRONOME_DOMAIN_STATE 0x40000u          /* a saved domain: state.h */
#define METRONOME_DOMAIN_STATE_BYTES 0x1c0000u   /* to the arena: 28 KiB for each of 64 vCPUs */
#define METRONOME_DOMAIN_ARENA 0x200000u         /* the arena: everything a guest-physical page can be backed by */

/*
 * The arena: RAM from guest-physical 0 up to ram_low, then RAM above 4 GiB, then (from `extra`, 2 MiB aligned) video
 * memory, option ROMs, the firmware image and a module's files, in pages that the device model or the daemon places.
 */

#define METRONOME_DOMAIN_HAS_DM 1u  /* ports, MMIO and requests go to a device model; else there is none */

#define METRONOME_RAM_LOW_MAX 0xc0000000ull /* RAM below 4 GiB ends here at the latest (QEMU: max-ram-below-4g=3G) */

/* Written by the daemon before CONTROL_CREATE; the hypervisor copies and validates it once. */
struct metronome_domain_header {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;           /* METRONOME_DOMAIN_* flags */
    uint32_t vcpus;
    uint32_t ticks;           /* what becomes of missed ticks: METRONOME_TICKS_SHIFT() */
    uint32_t cores;           /* vCPUs in each package; a vCPU's number is its APIC id: docs/cpuid-msr.md tells what follows */
    uint32_t zero;
    uint64_t ram_low;         /* bytes of RAM below 4 GiB, a multiple of 2 MiB, at most METRONOME_RAM_LOW_MAX */
    uint64_t ram_high;        /* bytes of RAM from 4 GiB, a multiple of 2 MiB */
    uint64_t extra;           /* offset in the arena where RAM ends and the rest begins: ram_low + ram_high */
    uint64_t extra_bytes;     /* bytes of the rest */
    int64_t wallclock;        /* seconds since 1970-01-01 UTC that the RTC shows at the first instruction */
    uint64_t firmware;        /* offset in the arena of the firmware image (HAS_DM); mapped read-only below 4 GiB */
    uint64_t firmware_bytes;  /* multiple of 64 KiB, at most 1 MiB; its last 256 KiB are copied below 1 MiB at reset */
    uint64_t module;          /* without device model: offset in the arena of the image to start */
    uint64_t module_bytes;
    uint64_t initrd;          /* its initial RAM disk */
    uint64_t initrd_bytes;
    char name[64];            /* NUL-terminated */
    uint8_t cmos[256];        /* initial CMOS RAM, both banks; the clock's own registers are ignored */
    char command_line[2048];  /* for the module, NUL-terminated */
};
METRONOME_ABI_SIZE(struct metronome_domain_header, 16 + 16 + 11 * 8 + 64 + 256 + 2048);

/*
 * Xen's ioreq (xen/include/public/hvm/ioreq.h), which QEMU reads and answers in place: held equal to Xen's own header by
 * tests/unit/test_abi.c.
 */
struct metronome_ioreq {
    uint64_t addr;
    uint64_t data;
    uint32_t count;
    uint32_t size;
    uint32_t vp_eport;
    uint16_t zero;
    uint8_t state_dir_df; /* bits 0-3 state, 4 data_is_ptr, 5 dir (1: read), 6 df */
    uint8_t type;         /* METRONOME_IOREQ_* */
};
METRONOME_ABI_SIZE(struct metronome_ioreq, 32);

enum { METRONOME_IOREQ_NONE, METRONOME_IOREQ_READY, METRONOME_IOREQ_INPROCESS, METRONOME_IOREQ_RESPONSE };
enum { METRONOME_IOREQ_PIO = 0, METRONOME_IOREQ_COPY = 1, METRONOME_IOREQ_PCI_CONFIG = 2, METRONOME_IOREQ_TIMEOFFSET = 7, METRONOME_IOREQ_INVALIDATE = 8 };
#define METRONOME_IOREQ_STATE_MASK 0x0fu
#define METRONOME_IOREQ_DATA_IS_PTR 0x10u
#define METRONOME_IOREQ_READ 0x20u
#define METRONOME_IOREQ_DF 0x40u

struct metronome_ioreq_page {
    struct metronome_ioreq vcpu[METRONOME_MAX_VCPUS];
    uint8_t zero[4096 - 32 * METRONOME_MAX_VCPUS];
};
METRONOME_ABI_SIZE(struct metronome_ioreq_page, 4096);

/* Xen's buffered ioreq: posted writes with 20-bit addresses. Size code: 0, 1, 2, 3 = 1, 2, 4, 8 bytes (8 takes two). */
struct metronome_bufioreq {
    uint8_t type;
    uint8_t pad_dir_size; /* bit 0 unused, bit 1 dir, bits 2-3 size code */
    uint8_t addr_low[2];  /* `addr` is a 20-bit field at bit 12 of the first 32-bit word in Xen's layout */
    uint32_t data;
};
METRONOME_ABI_SIZE(struct metronome_bufioreq, 8);

#define METRONOME_BUFIOREQ_SLOTS 511u
struct metronome_bufioreq_page {
    uint32_t read_pointer;
    uint32_t write_pointer;
    uint64_t slot[METRONOME_BUFIOREQ_SLOTS]; /* bits 0-7 type, 8 pad, 9 dir, 10-11 size code, 12-31 addr, 32-63 data */
};
METRONOME_ABI_SIZE(struct metronome_bufioreq_page, 4096);

/* Doorbell filters. Each side writes only its own cache line. */
struct metronome_notify {
    uint32_t hypervisor_waits; /* hypervisor: 1 if the dom0 side must ring after producing, 0 while it polls */
    uint32_t zero0[15];
    uint64_t vcpu_pending;     /* hypervisor sets a vCPU's bit when its ioreq becomes READY; dom0 exchanges it for 0 */
    uint32_t buffered_pending; /* hypervisor sets it to 1 after posted writes; dom0 exchanges it for 0 */
    uint32_t zero1[13];
};
METRONOME_ABI_SIZE(struct metronome_notify, 128);

/* Console of a guest without device model. Bytes; each ring by struct metronome_ring's rules. */
struct metronome_console {
    struct metronome_ring out_ring, in_ring;
    uint8_t out[16384];  /* guest to terminal; when full the guest waits */
    uint8_t in[1024];    /* terminal to guest */
    uint32_t out_waits;  /* hypervisor sets it to 1 while `out` has no room; dom0, having made some, exchanges it for 0 and rings */
    uint32_t zero;
};
METRONOME_ABI_SIZE(struct metronome_console, 256 + 16384 + 1024 + 8);

/* Commands of a device model about its own domain. Arguments in args[]. They take effect in order, and before the vCPU
 * whose request is completed after them resumes. */
enum metronome_dm_op {
    METRONOME_DM_NOP,
    METRONOME_DM_SET_ISA_IRQ,  /* irq 0-15, level 0/1 */
    METRONOME_DM_SET_PCI_INTX, /* device 0-31, pin 0-3 (INTA-INTD), level 0/1 */
    METRONOME_DM_SET_PCI_LINK, /* link 0-3, isa irq (0: disconnected) */
    METRONOME_DM_MSI,          /* address (bits 0-19, or whole), data */
    METRONOME_DM_MAP,          /* gfn, arena offset (4 KiB aligned), pages, METRONOME_MAP_*: replaces what is there */
    METRONOME_DM_UNMAP,        /* gfn, pages: RAM shows again where there is RAM, else nothing */
    METRONOME_DM_DIRTY,        /* gfn, pages: sets a bit per page written since the last query; wants completion */
    METRONOME_DM_READY,        /* the device model serves requests: the domain starts */
    METRONOME_DM_SHUTDOWN,     /* METRONOME_SHUTDOWN_* */
    METRONOME_DM_SLEEP,        /* 3: suspend to RAM, 0: woken */
    METRONOME_DM_RESET_DONE,   /* the device model has finished its reset: the vCPUs start at the reset vector. No reset: nothing */
    METRONOME_DM_SCI,          /* level 0/1 of the device model's part of SCI (GPE0) */
};

#define METRONOME_MAP_READONLY 1u /* guest writes vanish */

enum metronome_shutdown { METRONOME_SHUTDOWN_POWEROFF, METRONOME_SHUTDOWN_REBOOT, METRONOME_SHUTDOWN_SUSPEND, METRONOME_SHUTDOWN_CRASH };

#endif
