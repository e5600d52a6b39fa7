/*
 * Network cards whose netdev is "user[,words]": stock QEMU for Xen has no user-mode network, so a metronome-net process
 * stands behind each, started by the child that becomes QEMU.
 */
#ifndef METRONOME_DM_USER_NET_H
#define METRONOME_DM_USER_NET_H

#include "launch.h"

struct user_net {
    int qemu_end, net_end;
    const char *words;
    char netdev[64]; /* what QEMU is told instead */
};

struct user_nets {
    struct user_net net[DM_MAX_NICS];
    unsigned count;
};

/* Rewrites l's netdevs and fds; `nets` must live as long as `l`. */
bool user_nets_prepare(struct user_nets *nets, struct dm_launch *l, char *error, size_t error_bytes);

/* In the child, before exec; does not return if a fork fails. `report`: gets one line per failure. */
void user_nets_start(const struct user_nets *nets, const char *program, int report);

void user_nets_close(struct user_nets *nets);

#endif
