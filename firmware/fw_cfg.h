/*
 * fw_cfg: how firmware asks its board for tables and settings (QEMU's docs/specs/fw_cfg.rst). A pure state machine over
 * a table of items, for x86 I/O ports:
 *
 *   0x510 w16   selector: choose an item, offset 0          0x510, 0x511 r8   next byte of the item; 0 past its end
 *   0x514 w32   high half of a descriptor's address (big-endian)          0x514-0x51b r   "QEMU CFG"
 *   0x518 w32   low half: runs the descriptor { control, length, address }, all big-endian
 *
 * Implemented: selector, data, DMA read, skip and select. Deliberately different:
 * - items are read-only: a DMA write sets the error bit          (test: dma_write_is_refused)
 * - a descriptor, or any part of its target, outside RAM sets the error bit; what was copied before stays
 *                                                                (tests: dma_*_outside_memory)
 * - a read longer than the item and FW_CFG_MAX_FILL bytes of zeros is refused: QEMU fills gigabytes (test:
 * dma_endless_read)
 * - other access sizes read all ones and write nothing           (test: odd_accesses)
 */
#ifndef METRONOME_FW_CFG_H
#define METRONOME_FW_CFG_H

#include <stdbool.h>
#include <stdint.h>

#define FW_CFG_PORT 0x510u
#define FW_CFG_PORTS 12u

enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
    FW_CFG_NONE = 0xffff,
};

#define FW_CFG_MAX_ITEMS 96u
#define FW_CFG_NAME_BYTES 56u
#define FW_CFG_POOL_BYTES 1024u
#define FW_CFG_MAX_FILL (1u << 20)

/* Guest memory at `address`: a pointer to a run of up to *bytes (which may be shortened), or NULL where there is none.
 */
typedef void *fw_cfg_memory(void *context, uint64_t address, uint64_t *bytes);

struct fw_cfg_item {
    const uint8_t *data;
    uint32_t bytes;
    uint16_t key;
    char name[FW_CFG_NAME_BYTES]; /* empty: not a file */
};

struct fw_cfg {
    fw_cfg_memory *memory;
    void *context;
    uint32_t count;
    uint32_t pool_used;
    uint32_t offset;
    uint32_t descriptor_high;
    uint16_t key;
    struct fw_cfg_item items[FW_CFG_MAX_ITEMS];
    uint8_t pool[FW_CFG_POOL_BYTES]; /* numbers added by value */
    uint8_t directory[4 + 64 * FW_CFG_MAX_ITEMS];
};

void fw_cfg_init(struct fw_cfg *s, fw_cfg_memory *memory, void *context);

/* Items refer to the caller's data. An item added again replaces the first. False: the table or the pool is full. */
bool fw_cfg_add(struct fw_cfg *s, uint16_t key, const void *data, uint32_t bytes);
bool fw_cfg_add_file(struct fw_cfg *s, const char *name, const void *data, uint32_t bytes);
bool fw_cfg_add_number(struct fw_cfg *s, uint16_t key, uint64_t value, uint32_t bytes);
bool fw_cfg_add_file_number(struct fw_cfg *s, const char *name, uint64_t value, uint32_t bytes);

uint32_t fw_cfg_read(struct fw_cfg *s, unsigned offset, unsigned size);
void fw_cfg_write(struct fw_cfg *s, unsigned offset, unsigned size, uint32_t value);

#endif
