#include <stdio.h>
#include <string.h>

#include "place.h"

#define MAX_PLACES 16u

static const struct {
    unsigned places, first_cdrom;
} buses[] = {
    [DM_BUS_IDE] = {4, 2}, /* CDs begin at the secondary master, where firmware and people expect them */
    [DM_BUS_AHCI] = {6, 0},
    [DM_BUS_VIRTIO] = {MAX_PLACES, 0},
};

void place_disks(const struct dm_launch *l, struct place places[DM_MAX_DISKS])
{
    bool used[sizeof buses / sizeof buses[0]][MAX_PLACES] = {{false}};

    for (unsigned i = 0; i < l->disk_count; i++) {
        const struct dm_disk *d = &l->disks[i];
        unsigned count = buses[d->bus].places, first = d->cdrom ? buses[d->bus].first_cdrom : 0;
        places[i].found = false;
        for (unsigned n = 0; n < count && !places[i].found; n++) {
            unsigned number = (first + n) % count;
            if (!used[d->bus][number])
                places[i] = (struct place){.number = number, .found = true};
        }
        used[d->bus][places[i].number] = true;
    }
}

/* Open Firmware paths, as SeaBIOS forms them. */

struct text {
    char *at;
    size_t left;
};

static void append(struct text *t, int written)
{
    if (written < 0 || (size_t)written >= t->left) {
        *t->at = 0; /* a line that does not fit is left out */
        return;
    }
    t->at += written;
    t->left -= (size_t)written;
}

static void append_disk(struct text *t, const struct dm_disk *d, unsigned n)
{
    switch (d->bus) {
    case DM_BUS_IDE:
        append(t, snprintf(t->at, t->left, "/pci@i0cf8/ide@1,1/drive@%x/disk@%x\n", n / 2, n % 2));
        break;
    case DM_BUS_AHCI:
        append(t, snprintf(t->at, t->left, "/pci@i0cf8/pci8086,2922@%x/drive@%x/disk@0\n", PCI_AHCI, n));
        break;
    case DM_BUS_VIRTIO:
        append(t, snprintf(t->at, t->left, "/pci@i0cf8/scsi@%x/disk@0,0\n", PCI_VIRTIO + n));
        break;
    }
}

void dm_boot_order(const struct dm_launch *l, char *out, size_t bytes)
{
    struct place places[DM_MAX_DISKS];
    struct text t = {out, bytes};

    out[0] = 0;
    if (l->disk_count > DM_MAX_DISKS)
        return;
    place_disks(l, places);
    for (const char *c = l->boot_order ? l->boot_order : ""; *c; c++) {
        if (*c == 'a')
            append(&t, snprintf(t.at, t.left, "/pci@i0cf8/isa@1/fdc@03f0/floppy@0\n"));
        for (unsigned i = 0; (*c == 'c' || *c == 'd') && i < l->disk_count; i++)
            if (l->disks[i].cdrom == (*c == 'd') && places[i].found)
                append_disk(&t, &l->disks[i], places[i].number);
        for (unsigned i = 0; *c == 'n' && i < l->nic_count; i++)
            append(&t, snprintf(t.at, t.left, "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n", PCI_NIC + i));
    }
}
