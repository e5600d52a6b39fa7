/*
 * What firmware is told of the board: one description, from which e820, the fw_cfg items and the CMOS RAM are made.
 */
#ifndef METRONOME_PLATFORM_H
#define METRONOME_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#define PLATFORM_MAX_FLOPPIES 2
#define PLATFORM_MAX_IDE 4

enum floppy_type { FLOPPY_NONE = 0, FLOPPY_1200K = 2, FLOPPY_720K = 3, FLOPPY_1440K = 4, FLOPPY_2880K = 5 };

struct platform {
    uint64_t ram_low, ram_high; /* bytes below and from 4 GiB */
    uint32_t vcpus;
    const char *boot_order;     /* of a (floppy), c (disk), d (CD), n (network): at most three; NULL: "cda" */
    bool no_boot_menu;          /* SeaBIOS shows its menu on ESC unless this is set */
    uint32_t boot_menu_wait_ms; /* 0: the firmware's own default */
    uint8_t floppies[PLATFORM_MAX_FLOPPIES]; /* enum floppy_type */
    uint64_t ide_sectors[PLATFORM_MAX_IDE];  /* of 512 bytes; 0: no disk */
};

/* e820 entries as fw_cfg's etc/e820 has them. */
struct e820_entry {
    uint64_t address, bytes;
    uint32_t type; /* 1: RAM, 2: reserved */
} __attribute__((packed));

#define E820_MAX 4
unsigned e820_fill(struct e820_entry entries[E820_MAX], const struct platform *p);

/* Both banks of CMOS RAM, but for the clock's own registers. */
void cmos_fill(uint8_t cmos[256], const struct platform *p);

/* The standard items; `e820` must outlive `s`. False: no room. */
struct fw_cfg;
bool platform_items(struct fw_cfg *s, const struct platform *p, struct e820_entry e820[E820_MAX]);

#endif
