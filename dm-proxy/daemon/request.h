/*
 * What a guest is to be: filled by the command line, carried to the daemon as words "key=value", each NUL-terminated.
 */
#ifndef METRONOME_REQUEST_H
#define METRONOME_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_MAX_DISKS     12
#define REQUEST_MAX_NICS      8
#define REQUEST_MAX_QEMU_ARGS 64

enum disk_bus { DISK_IDE, DISK_AHCI, DISK_VIRTIO, DISK_BUSES };

struct request_disk {
    unsigned bus, index; /* enum disk_bus; the disk's place on it */
    bool cdrom, readonly;
    const char *format; /* QEMU's name of it */
    const char *path;   /* empty: a drive without medium */
};

struct request_nic {
    const char *model; /* QEMU's name of the device */
    const char *mac;   /* empty: QEMU's choice */
    const char *net;   /* "user", "none", or QEMU's -netdev without its id */
};

struct request {
    const char *name, *boot, *vga, *vnc, *serial, *qmp; /* empty: not given */
    const char *firmware, *module, *append, *initrd;
    const char *latency; /* a file for the histograms */
    uint64_t memory; /* bytes */
    uint64_t vcpus;
    uint64_t sockets; /* that many packages of them */
    uint32_t ticks; /* as in the domain's header */
    uint64_t rtc_seconds; /* a guest to restore: its RTC is put so far forward */
    bool any_tsc;         /* although the TSC has another frequency than where it was saved */
    unsigned disks, nics, qemu_args;
    struct request_disk disk[REQUEST_MAX_DISKS];
    struct request_nic nic[REQUEST_MAX_NICS];
    const char *qemu_arg[REQUEST_MAX_QEMU_ARGS];
};

/* Every string empty, no lists. */
void request_init(struct request *r);

/* Returns the bytes used, or 0 if they are more than `size`. */
size_t request_pack(const struct request *r, char *to, size_t size);

/* The strings point into `from`, which is changed. False: it is no request of this version. */
bool request_unpack(struct request *r, char *from, size_t bytes);

#endif
