/*
 * Inside libmetronome-dm.so: the library that stands for the seven libxen libraries in a stock QEMU process, backed by
 * a domain slot's memory and two eventfds. One QEMU serves one domain, so there is one `dm`.
 *
 *   attach.c         the environment, the mapping of the slot's memory, the end of the process
 *   ring.c           commands to the hypervisor, their completions, the doorbell and its filter
 *   memory.c         what backs a page: RAM, pages that QEMU populated, aliases; the allocator of the extra area
 *   request.c        is this request one that QEMU can take? (pure)
 *   evtchn.c, devicemodel.c, foreignmemory.c, xenctrl.c, xenstore.c, gnttab.c   the libxen interfaces
 *   fw_cfg_port.c    ports 0x510-0x51b, answered before QEMU sees the request
 */
#ifndef METRONOME_DM_H
#define METRONOME_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "public/domain.h"

#define PAGE_SHIFT 12
#define PAGE_BYTES 4096ull

/* The hypervisor's answers and room in its ring are waited for this long, then the process ends with a message. */
#define DM_PATIENCE_S 10

struct dm_options {
    int mem_fd, wait_fd, ring_fd;
    bool no_boot_menu;          /* menu=0: SeaBIOS shows no boot menu on ESC */
    uint32_t boot_menu_wait_ms; /* menu_wait=N */
    uint32_t patience_s;        /* patience=N, instead of DM_PATIENCE_S: for debugging the hypervisor */
    char files[1024];           /* files=DIR: every file below it is served by fw_cfg under its relative name */
};

struct extent {
    uint64_t gfn, pages, arena; /* arena: byte offset in it */
    uint64_t active;            /* 0 or 1 */
};

/*
 * What this library knows and QEMU does not save: it lies in the slot's memory (METRONOME_DOMAIN_KEPT), is saved with the
 * domain, and found again by the QEMU of the restored one. All zero in a new domain.
 */
#define KEPT_MAGIC 0x3154504b4d44544dull /* "MTDMKPT1" */
#define KEPT_EXTENTS 64u
struct kept {
    uint64_t magic;
    uint32_t home_count, alias_count;
    struct extent homes[KEPT_EXTENTS], aliases[KEPT_EXTENTS];
    uint64_t next_free;      /* offset in the arena; 0: nothing allocated yet */
    uint16_t isa_levels;
    uint8_t zero[2];
    uint8_t intx_levels[32]; /* by device; bit: pin */
    uint16_t fw_cfg_key;
    uint8_t zero1[2];
    uint32_t fw_cfg_offset, fw_cfg_descriptor_high;
    uint32_t tree_bytes;
    char tree[8192];         /* xenstore's physmap: path, NUL, value, NUL ... */
};
METRONOME_ABI_SIZE(struct kept, 16 + 2 * 32 * KEPT_EXTENTS + 8 + 4 + 32 + 4 + 8 + 4 + 8192 + 4);

struct dm {
    struct dm_options options;
    struct metronome_domain_header header; /* a copy, checked once */
    uint8_t *base;                         /* the slot's memory, all of it */
    uint64_t bytes;
    struct metronome_ioreq_page *ioreq;
    struct metronome_bufioreq_page *buffered;
    struct metronome_notify *notify;
    struct metronome_command_ring *commands;
    struct metronome_completion_ring *completions;
    struct kept *kept;
    bool restored;   /* the domain was saved, and QEMU is going to load its devices' state */
    bool in_request; /* QEMU works on a request, whose answer will ring: commands need not */
};

extern struct dm dm;

/* attach.c */
void dm_attach(void);
void dm_fatal(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
uint64_t dm_now_ms(void);

/* ring.c */
void dm_send(uint32_t op, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);
int dm_ask(uint32_t op, uint64_t a0, uint64_t a1, uint64_t *value); /* waits: 0, or a negative METRONOME_E* */
void dm_ring(void);                                                 /* after producing: rings if the hypervisor waits */

/* evtchn.c */
void dm_absorb_doorbell(void); /* takes a doorbell rung while the library itself waits ... */
void dm_return_doorbell(void); /* ... and gives it back for QEMU to see */
void dm_reset_follows(void);   /* the answer to the request in hand ends a reset */
bool dm_ports_bound(void);     /* QEMU listens */

/* request.c */
bool request_acceptable(const struct metronome_ioreq *request);
void request_answer(struct metronome_ioreq *request, uint64_t data); /* in place: the vCPU may go on */

/* xenstore.c */
void xenstore_restore(void);

/* memory.c */
bool memory_kept_is_valid(void);
int memory_populate(uint64_t gfn, uint64_t pages);
int memory_relocate(uint64_t from, uint64_t to, uint64_t pages);
void memory_section_added(uint64_t start, uint64_t end);
void memory_section_removed(uint64_t start, uint64_t end);
bool memory_of_qemu(uint64_t gfn, uint64_t *offset); /* a page by QEMU's number: offset in the slot's memory */
void *memory_of_guest(void *unused, uint64_t address, uint64_t *bytes); /* by guest-physical address; *bytes: contiguous
                                                                           run */

/* fw_cfg_port.c */
void fw_cfg_port_init(void);
bool fw_cfg_port_answers(struct metronome_ioreq *request);

#endif
