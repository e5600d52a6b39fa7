/*
 * Disks: xl's syntax, the place that a virtual device name means, and images that cannot be what they say.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>
#include <libxlutil.h>

#include "run.h"

#define SECTOR 512u

static const char *const bus_names[DISK_BUSES] = {"IDE", "AHCI", "virtio"};
static const char bus_letters[DISK_BUSES] = {'h', 's', 'v'};
static const unsigned bus_places[DISK_BUSES] = {4, 6, 12};

static bool place_taken(const struct request *r, unsigned bus, unsigned index)
{
    for (unsigned i = 0; i < r->disks; i++)
        if (r->disk[i].bus == bus && r->disk[i].index == index)
            return true;
    return false;
}

/* A name as "hda", "sdb", "vdc"; Xen's own "xvda" is IDE, as it is for Xen's firmware. */
static void place_by_name(struct request_disk *d, const char *vdev, const char *where)
{
    const char *name = strncmp(vdev, "xvd", 3) ? vdev : "hd";
    unsigned letter = (unsigned)(unsigned char)vdev[strlen(vdev) - 1] - 'a';

    for (d->bus = 0; d->bus < DISK_BUSES; d->bus++)
        if (name[0] == bus_letters[d->bus] && name[1] == 'd')
            break;
    if (d->bus == DISK_BUSES || strlen(vdev) != (name == vdev ? 3 : 4) || letter >= bus_places[d->bus])
        bad_input("%s: '%s' is no place for a disk: hda-hdd, sda-sdf or vda-vdl", where, vdev);
    d->index = letter;
}

/* The first free place on IDE: CD-ROM drives begin at the second channel, where systems look for them. */
static void place_anywhere(const struct request *r, struct request_disk *d, const char *where)
{
    d->bus = DISK_IDE;
    for (unsigned n = 0; n < bus_places[DISK_IDE]; n++) {
        d->index = (n + (d->cdrom ? 2 : 0)) % bus_places[DISK_IDE];
        if (!place_taken(r, d->bus, d->index))
            return;
    }
    bad_input("%s: all four IDE places are taken: name one on AHCI (sda) or virtio (vda)", where);
}

static void add(struct request *r, struct request_disk *d, const char *vdev, const char *where)
{
    if (r->disks == REQUEST_MAX_DISKS)
        bad_input("%s: a guest has at most %d disks", where, REQUEST_MAX_DISKS);
    if (vdev)
        place_by_name(d, vdev, where);
    else
        place_anywhere(r, d, where);
    if (place_taken(r, d->bus, d->index))
        bad_input("%s: two disks at the same place, %cd%c (%s)", where, bus_letters[d->bus], 'a' + d->index,
                  bus_names[d->bus]);
    r->disk[r->disks++] = *d;
}

static const char *format_name(libxl_disk_format format, const char *path, const char *where)
{
    static const struct {
        libxl_disk_format format;
        const char *name;
    } names[] = {{LIBXL_DISK_FORMAT_UNKNOWN, "raw"}, {LIBXL_DISK_FORMAT_RAW, "raw"}, {LIBXL_DISK_FORMAT_EMPTY, "raw"},
                 {LIBXL_DISK_FORMAT_QCOW2, "qcow2"}, {LIBXL_DISK_FORMAT_VHD, "vpc"}, {LIBXL_DISK_FORMAT_QCOW, "qcow"}};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (format == names[i].format)
            return names[i].name;
    bad_input("%s: %s: unknown format of a disk image", where, path);
}

static const char *copy_of(const char *text)
{
    return text ? strdup(text) : NULL;
}

/* Returns what libxlutil says against it, or NULL. */
static char *try_parse(libxl_device_disk *xl, const char *const *specs, int count)
{
    char *messages = NULL, *cause;
    size_t bytes;
    FILE *report = open_memstream(&messages, &bytes);
    XLU_Config *config = xlu_cfg_init(report, "disk");
    int error = config ? xlu_disk_parse(config, count, specs, xl) : ENOMEM;

    fclose(report);
    xlu_cfg_destroy(config);
    if (!error)
        return NULL;
    messages[strcspn(messages, "\n")] = 0;
    cause = strstr(messages, "specification: ");
    return cause ? cause + strlen("specification: ") : *messages ? messages : strerror(error);
}

/* xl demands a vdev. Here a disk without one gets the next free place: true if it has one. */
static bool parse(libxl_device_disk *xl, const char *spec, const char *where)
{
    const char *const with_any[] = {spec, "vdev=hda"};
    const char *cause;

    libxl_device_disk_init(xl);
    cause = try_parse(xl, &spec, 1);
    if (!cause)
        return true;
    if (strncmp(cause, "no vdev", 7))
        bad_input("%s: %s", where, cause);
    libxl_device_disk_dispose(xl);
    libxl_device_disk_init(xl);
    cause = try_parse(xl, with_any, 2);
    if (cause)
        bad_input("%s: %s", where, cause);
    return false;
}

void disk_add(struct request *r, const char *spec, const char *where)
{
    struct request_disk d = {0};
    libxl_device_disk xl;
    const char *vdev;
    bool placed = parse(&xl, spec, where);

    d.path = copy_of(xl.pdev_path ? xl.pdev_path : "");
    d.cdrom = xl.is_cdrom;
    d.readonly = !xl.readwrite || xl.is_cdrom;
    d.format = format_name(xl.format, d.path, where);
    vdev = placed ? copy_of(xl.vdev) : NULL;
    libxl_device_disk_dispose(&xl);
    if (!*d.path && !d.cdrom)
        bad_input("%s: '%s' names no image", where, spec);
    add(r, &d, vdev, where);
}

void cdrom_add(struct request *r, const char *path, const char *where)
{
    struct request_disk d = {.cdrom = true, .readonly = true, .format = "raw", .path = path};

    if (!*path)
        bad_input("%s: the image's file is missing", where);
    add(r, &d, NULL, where);
}

static uint64_t bytes_of(int fd, const char *path)
{
    struct stat st;
    uint64_t bytes = 0;

    if (fstat(fd, &st))
        bad_input("%s: %s", path, strerror(errno));
    if (S_ISBLK(st.st_mode))
        return ioctl(fd, BLKGETSIZE64, &bytes) ? 0 : bytes;
    if (!S_ISREG(st.st_mode))
        bad_input("%s: is neither a file nor a block device", path);
    return (uint64_t)st.st_size;
}

/* A file is at least as long as its header's two tables need; images grow behind them. */
static void check_qcow2(const char *path, const uint8_t *head, uint64_t bytes)
{
    uint32_t cluster_bits, l1_entries, refcount_clusters, words[2];
    uint64_t tables[2], l1_end, refcount_end;

    memcpy(words, head, 8);
    if (be32toh(words[0]) != 0x514649fb)
        bad_input("%s: is no qcow2 image", path);
    memcpy(&cluster_bits, head + 20, 4);
    memcpy(&l1_entries, head + 36, 4);
    memcpy(tables, head + 40, 16);
    memcpy(&refcount_clusters, head + 56, 4);
    cluster_bits = be32toh(cluster_bits);
    if (bytes < 72 || cluster_bits < 9 || cluster_bits > 21)
        bad_input("%s: is truncated or no qcow2 image", path);
    l1_end = be64toh(tables[0]) + be32toh(l1_entries) * 8ull;
    refcount_end = be64toh(tables[1]) + ((uint64_t)be32toh(refcount_clusters) << cluster_bits);
    if (bytes < l1_end || bytes < refcount_end)
        bad_input("%s: is truncated: %llu bytes, where its qcow2 header says at least %llu", path,
                  (unsigned long long)bytes, (unsigned long long)(l1_end > refcount_end ? l1_end : refcount_end));
}

/* Where a partition table says that the disk goes on behind the image's end. A GPT's protective entry says nothing. */
static void check_partitions(const char *path, const uint8_t *head, uint64_t bytes)
{
    if (bytes < SECTOR || head[510] != 0x55 || head[511] != 0xaa)
        return;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *entry = head + 446 + 16 * i;
        uint32_t start, count;

        memcpy(&start, entry + 8, 4);
        memcpy(&count, entry + 12, 4);
        if (!entry[4] || entry[4] == 0xee || (entry[0] & 0x7f) || !count)
            continue;
        if (((uint64_t)le32toh(start) + le32toh(count)) * SECTOR > bytes)
            bad_input("%s: is truncated: %llu bytes, but its partition %u ends at %llu", path,
                      (unsigned long long)bytes, i + 1, ((unsigned long long)le32toh(start) + le32toh(count)) * SECTOR);
    }
}

/* ISO 9660's volume descriptor says how many blocks there are. */
static void check_iso(int fd, const char *path, uint64_t bytes)
{
    uint8_t volume[128];
    uint32_t blocks;

    if (pread(fd, volume, sizeof volume, 0x8000) != sizeof volume || memcmp(volume + 1, "CD001", 5))
        return;
    memcpy(&blocks, volume + 80, 4);
    if (le32toh(blocks) * 2048ull > bytes)
        bad_input("%s: is truncated: %llu bytes, where its volume has %llu", path, (unsigned long long)bytes,
                  le32toh(blocks) * 2048ull);
}

static void check_raw(int fd, const struct request_disk *d, const uint8_t *head, uint64_t bytes)
{
    if (bytes >= 4 && !memcmp(head, "QFI\xfb", 4))
        bad_input("%s: is a qcow2 image: say so with %s,qcow2", d->path, d->path);
    if (bytes % SECTOR)
        bad_input("%s: is truncated: %llu bytes are no whole number of %u-byte sectors", d->path,
                  (unsigned long long)bytes, SECTOR);
    if (d->cdrom)
        check_iso(fd, d->path, bytes);
    else
        check_partitions(d->path, head, bytes);
}

static void check_image(const struct request_disk *d)
{
    uint8_t head[SECTOR] = {0};
    int fd = open(d->path, (d->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    uint64_t bytes;

    if (fd < 0)
        bad_input("%s: %s", d->path, strerror(errno));
    bytes = bytes_of(fd, d->path);
    if (!bytes)
        bad_input("%s: is empty", d->path);
    if (pread(fd, head, sizeof head, 0) < 0)
        bad_input("%s: %s", d->path, strerror(errno));
    if (!strcmp(d->format, "raw"))
        check_raw(fd, d, head, bytes);
    else if (!strcmp(d->format, "qcow2"))
        check_qcow2(d->path, head, bytes);
    close(fd);
}

static int by_place(const void *a, const void *b)
{
    const struct request_disk *x = a, *y = b;

    return x->bus != y->bus ? (int)x->bus - (int)y->bus : (int)x->index - (int)y->index;
}

void disks_check(struct request *r)
{
    for (unsigned i = 0; i < r->disks; i++)
        if (*r->disk[i].path)
            check_image(&r->disk[i]);
    qsort(r->disk, r->disks, sizeof r->disk[0], by_place);
}
