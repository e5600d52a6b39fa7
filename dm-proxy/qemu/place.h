/*
 * Where each device sits. Every one has a fixed place on the PCI bus, so that a guest finds the same board at each
 * start and the boot order can name its devices: 00.0 host   01.x PIIX   02 VGA   03 AHCI   04-0b NICs   10-1f virtio
 * disks
 */
#ifndef METRONOME_DM_PLACE_H
#define METRONOME_DM_PLACE_H

#include "launch.h"

#define PCI_VGA 0x02u
#define PCI_AHCI 0x03u
#define PCI_NIC 0x04u
#define PCI_VIRTIO 0x10u

/* A drive's number on its bus: IDE channel * 2 + unit, AHCI port, virtio disk. */
struct place {
    unsigned number;
    bool found;
};

void place_disks(const struct dm_launch *l, struct place places[DM_MAX_DISKS]);

#endif
