/*
 * QEMU's command line.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch.h"
#include "place.h"

struct builder {
    const struct dm_launch *l;
    struct dm_words *out;
    char *error;
    size_t error_bytes;
    bool failed;
    bool has_ahci;
    struct place places[DM_MAX_DISKS];
};

static void fail(struct builder *b, const char *format, const char *what)
{
    if (!b->failed)
        snprintf(b->error, b->error_bytes, format, what);
    b->failed = true;
}

static void add(struct builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct builder *b, const char *format, ...)
{
    va_list arguments;
    char *word = NULL;

    va_start(arguments, format);
    if (b->out->count == DM_MAX_WORDS || vasprintf(&word, format, arguments) < 0)
        fail(b, "QEMU's command line is too long%s", "");
    else
        b->out->word[b->out->count++] = word;
    va_end(arguments);
    b->out->word[b->out->count] = NULL;
}

static void add_option(struct builder *b, const char *option, const char *value)
{
    add(b, "%s", option);
    add(b, "%s", value);
}

/* A value inside a comma-separated option: QEMU wants commas doubled. The caller frees. */
static char *escaped(const char *text)
{
    char *out = malloc(2 * strlen(text) + 1), *at = out;

    for (; out && *text; text++) {
        *at++ = *text;
        if (*text == ',')
            *at++ = ',';
    }
    if (out)
        *at = 0;
    return out;
}

static void check_file(struct builder *b, const char *path, bool read_only)
{
    if (access(path, F_OK))
        fail(b, "no such disk image: %s", path);
    else if (access(path, read_only ? R_OK : R_OK | W_OK))
        fail(b, "cannot open the disk image for %s", read_only ? "reading" : "writing");
}

static void add_drive(struct builder *b, unsigned index, const struct dm_disk *d)
{
    char *path = escaped(d->path);

    check_file(b, d->path, d->read_only || d->cdrom);
    add(b, "-drive");
    add(b, "if=none,id=drive%u,file=%s,format=%s,read-only=%s", index, path ? path : "", d->format ? d->format : "raw",
        d->read_only || d->cdrom ? "on" : "off");
    free(path);
}

static const char *drive_model(const struct dm_disk *d)
{
    return d->cdrom ? "ide-cd" : "ide-hd";
}

static void add_ide(struct builder *b, unsigned index, const struct dm_disk *d)
{
    unsigned place = b->places[index].number;

    if (!b->places[index].found)
        fail(b, "IDE has room for four drives%s: put the others on ahci or virtio", "");
    add(b, "-device");
    add(b, "%s,bus=ide.%u,unit=%u,drive=drive%u", drive_model(d), place / 2, place % 2, index);
}

static void add_ahci(struct builder *b, unsigned index, const struct dm_disk *d)
{
    if (!b->places[index].found)
        fail(b, "AHCI has room for six drives%s", "");
    if (!b->has_ahci) {
        add(b, "-device");
        add(b, "ich9-ahci,id=ahci,addr=0x%x", PCI_AHCI);
    }
    b->has_ahci = true;
    add(b, "-device");
    add(b, "%s,bus=ahci.%u,drive=drive%u", drive_model(d), b->places[index].number, index);
}

static void add_virtio(struct builder *b, unsigned index, const struct dm_disk *d)
{
    if (d->cdrom)
        fail(b, "a CD-ROM drive is on ide or ahci, not virtio%s", "");
    add(b, "-device");
    add(b, "virtio-blk-pci,drive=drive%u,addr=0x%x", index, PCI_VIRTIO + b->places[index].number);
}

static void add_disks(struct builder *b)
{
    static void (*const by_bus[])(struct builder *, unsigned, const struct dm_disk *) = {
        [DM_BUS_IDE] = add_ide, [DM_BUS_AHCI] = add_ahci, [DM_BUS_VIRTIO] = add_virtio};

    place_disks(b->l, b->places);
    for (unsigned i = 0; i < b->l->disk_count; i++) {
        const struct dm_disk *d = &b->l->disks[i];
        if (d->path) {
            add_drive(b, i, d);
        } else {
            add(b, "-drive");
            add(b, "if=none,id=drive%u,media=cdrom", i);
        }
        by_bus[d->bus](b, i, d);
    }
    if (b->l->floppy) {
        char *path = escaped(b->l->floppy);
        check_file(b, b->l->floppy, false);
        add(b, "-drive");
        add(b, "if=floppy,index=0,file=%s,format=raw", path ? path : "");
        free(path);
    }
}

static void add_nics(struct builder *b)
{
    for (unsigned i = 0; i < b->l->nic_count; i++) {
        const struct dm_nic *n = &b->l->nics[i];
        const char *type = n->netdev ? n->netdev : "hubport,hubid=99";
        size_t kind = strcspn(type, ",");
        add(b, "-netdev");
        add(b, "%.*s,id=net%u%s", (int)kind, type, i, type + kind);
        add(b, "-device");
        add(b, "%s,netdev=net%u,addr=0x%x%s%s", n->model ? n->model : "e1000", i, PCI_NIC + i, n->mac ? ",mac=" : "",
            n->mac ? n->mac : "");
    }
}

static void add_display(struct builder *b)
{
    static const char *const devices[][2] = {{"std", "VGA"}, {"cirrus", "cirrus-vga"}, {"none", NULL}};
    const char *wanted = b->l->vga ? b->l->vga : "std";
    const char *device = wanted; /* anything else is taken as QEMU's own name */

    for (unsigned i = 0; i < sizeof devices / sizeof devices[0]; i++)
        if (!strcmp(wanted, devices[i][0]))
            device = devices[i][1];
    if (device) {
        add(b, "-device");
        add(b, "%s,addr=0x%x", device, PCI_VGA);
    }
    if (b->l->vnc)
        add_option(b, "-vnc", b->l->vnc);
    else
        add_option(b, "-display", "none");
}

static bool add_channel(struct builder *b, const char *id, const struct dm_channel *c)
{
    char *path = c->path ? escaped(c->path) : NULL;

    if (c->fd > 0) {
        add(b, "-chardev");
        add(b, "socket,id=%s,fd=%d", id, c->fd);
    } else if (path) {
        add(b, "-chardev");
        add(b, "socket,id=%s,path=%s,server=on,wait=off", id, path);
    }
    free(path);
    return c->fd > 0 || c->path;
}

/* Newer packages find their own data; older ones need to be told. */
static void add_data_folders(struct builder *b)
{
    static const char *const folders[] = {"/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu",
                                          "/usr/share/ipxe/qemu"};

    for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (!access(folders[i], R_OK | X_OK))
            add_option(b, "-L", folders[i]);
}

static void add_machine(struct builder *b)
{
    const struct dm_launch *l = b->l;

    add(b, "-xen-domid");
    add(b, "1"); /* each QEMU has a xenstore of its own, and a saved one finds its keys there in any slot */
    add(b, "-xen-attach");
    add_option(b, "-machine", "pc,accel=xen,max-ram-below-4g=3G,hpet=off,usb=off,vmport=off");
    add(b, "-nodefaults");
    add(b, "-no-user-config");
    add(b, "-m");
    add(b, "%lluM", (unsigned long long)l->memory >> 20);
    add(b, "-smp");
    add(b, "%u", l->vcpus);
    if (l->name) {
        char *name = escaped(l->name);
        add(b, "-name");
        add(b, "guest=%s", name ? name : "");
        free(name);
    }
}

static void check_sizes(struct builder *b)
{
    const struct dm_launch *l = b->l;

    if (!l->memory || l->memory % (2 << 20))
        fail(b, "a domain's memory is a multiple of 2 MiB%s", "");
    if (l->vcpus < 1 || l->vcpus > 64)
        fail(b, "a domain has 1 to 64 vCPUs%s", "");
    if (l->disk_count > DM_MAX_DISKS || l->nic_count > DM_MAX_NICS)
        fail(b, "too many disks or NICs%s", "");
}

bool dm_launch_arguments(const struct dm_launch *l, struct dm_words *out, char *error, size_t error_bytes)
{
    struct builder b = {.l = l, .out = out, .error = error, .error_bytes = error_bytes};

    out->count = 0;
    out->word[0] = NULL;
    check_sizes(&b);
    if (b.failed)
        return false;
    add(&b, "xen-qemu-system-i386");
    add_machine(&b);
    add_data_folders(&b);
    add_display(&b);
    add_disks(&b);
    add_nics(&b);
    if (add_channel(&b, "serial0", &l->serial))
        add_option(&b, "-serial", "chardev:serial0");
    if (add_channel(&b, "qmp", &l->qmp))
        add_option(&b, "-mon", "chardev=qmp,mode=control");
    for (unsigned i = 0; l->extra && l->extra[i]; i++)
        add(&b, "%s", l->extra[i]);
    if (b.failed)
        dm_words_free(out);
    return !b.failed;
}

void dm_words_free(struct dm_words *w)
{
    for (unsigned i = 0; i < w->count; i++)
        free(w->word[i]);
    w->count = 0;
    w->word[0] = NULL;
}
