/*
 * Starts a stock QEMU as the device model of one domain slot. The caller has filled the slot's header and has had it
 * created (CONTROL_CREATE) before: QEMU's first commands go out while it starts, and the ring holds 128 of them.
 *
 *     struct dm_launch l = {.mem_fd = m, .wait_fd = w, .ring_fd = r, .memory = 256 << 20, .vcpus = 1};
 *     l.disks[l.disk_count++] = (struct dm_disk){.path = "disk.img"};
 *     pid_t pid = dm_launch(&l, error, sizeof error);
 *
 * Descriptors given here stay the caller's: the child has its own copies. The child dies with the thread that started
 * it.
 */
#ifndef METRONOME_DM_LAUNCH_H
#define METRONOME_DM_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DM_MAX_DISKS 16
#define DM_MAX_NICS 8
#define DM_MAX_FDS 16
#define DM_MAX_WORDS 256

enum dm_bus { DM_BUS_IDE, DM_BUS_AHCI, DM_BUS_VIRTIO };

struct dm_disk {
    const char *path;
    const char *format; /* "raw", "qcow2" ...; NULL: raw */
    enum dm_bus bus;
    bool cdrom; /* IDE or AHCI; `path` may be NULL: an empty drive */
    bool read_only;
};

struct dm_nic {
    const char *model;  /* QEMU's device: "e1000", "virtio-net-pci", "rtl8139" ...; NULL: e1000 */
    const char *netdev; /* "user[,hostfwd=...,tftp=...]": a metronome-net process, with the words of QEMU's -netdev
                           user; or another -netdev without its id: "bridge,br=br0", "tap,fd=7" (name the fd in `fds`);
                           NULL: no cable */
    const char *mac;    /* NULL: QEMU's */
};

/* A character channel: a connected socket (every byte from the start), or a path at which QEMU listens. */
struct dm_channel {
    int fd;           /* 0: none */
    const char *path; /* NULL: none */
};

struct dm_launch {
    int mem_fd, wait_fd, ring_fd; /* the slot's memory; doorbell to us; doorbell to the hypervisor */
    uint64_t memory;              /* bytes: ram_low + ram_high */
    unsigned vcpus;
    const char *name;

    struct dm_disk disks[DM_MAX_DISKS]; /* IDE drives take primary master, primary slave, secondary master, slave; CDs
                                           from the secondary master on */
    unsigned disk_count;
    const char *floppy;
    struct dm_nic nics[DM_MAX_NICS];
    unsigned nic_count;
    const char *vga; /* "std", "cirrus", "none"; NULL: std */
    const char *vnc; /* QEMU's -vnc; NULL: none */
    struct dm_channel serial, qmp;

    const char *fw_cfg_files; /* folder whose files fw_cfg serves */
    const char *boot_order;   /* of a, c, d, n: makes fw_cfg's "bootorder", in which disks come as listed here; NULL: as
                                 CMOS says */
    bool no_boot_menu;
    unsigned boot_menu_wait_ms;
    unsigned patience_s; /* how long QEMU waits for a silent hypervisor before it ends; 0: 10 s */

    const char *const *extra; /* NULL-terminated: more QEMU arguments */
    int fds[DM_MAX_FDS];      /* descriptors that those, or netdevs, name: kept open under the same number */
    unsigned fd_count;
    int log_fd; /* QEMU's stdout and stderr; 0: the caller's */
};

/* Process id, or -1 with one line in `error`. */
pid_t dm_launch(const struct dm_launch *l, char *error, size_t error_bytes);

/* The parts of it, for tests. */
struct dm_words {
    char *word[DM_MAX_WORDS + 1];
    unsigned count;
};
bool dm_launch_arguments(const struct dm_launch *l, struct dm_words *out, char *error, size_t error_bytes);
void dm_words_free(struct dm_words *w);
/* SeaBIOS's "bootorder": one device per line. */
void dm_boot_order(const struct dm_launch *l, char *out, size_t bytes);
bool dm_find_qemu(char *out, size_t bytes);
bool dm_find_library(char *out, size_t bytes);

#endif
