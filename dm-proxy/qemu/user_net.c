#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "user_net.h"

/* Room for what a guest has not yet taken; the kernel caps it at its own limit. */
#define SOCKET_BYTES (1 << 20)

/* The words after "user,", or NULL if it is another kind of netdev. */
static const char *words_of(const char *netdev)
{
    if (!netdev || strncmp(netdev, "user", 4) || (netdev[4] && netdev[4] != ','))
        return NULL;
    return netdev[4] ? netdev + 5 : "";
}

static bool open_pair(struct user_net *n)
{
    int ends[2], bytes = SOCKET_BYTES;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return false;
    for (unsigned i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    n->qemu_end = ends[0];
    n->net_end = ends[1];
    return true;
}

bool user_nets_prepare(struct user_nets *nets, struct dm_launch *l, char *error, size_t error_bytes)
{
    nets->count = 0;
    for (unsigned i = 0; i < l->nic_count && i < DM_MAX_NICS; i++) {
        struct user_net *n = &nets->net[nets->count];
        n->words = words_of(l->nics[i].netdev);
        if (!n->words)
            continue;
        if (l->fd_count == DM_MAX_FDS || !open_pair(n)) {
            snprintf(error, error_bytes, "cannot make a socket for the user network: %s", strerror(errno));
            user_nets_close(nets);
            return false;
        }
        nets->count++;
        snprintf(n->netdev, sizeof n->netdev, "dgram,local.type=fd,local.str=%d", n->qemu_end);
        l->nics[i].netdev = n->netdev;
        l->fds[l->fd_count++] = n->qemu_end;
    }
    return true;
}

static void become_net(const struct user_net *n, const char *program, int report)
{
    char fd[16], report_fd[16];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fcntl(n->net_end, F_SETFD, 0);
    fcntl(report, F_SETFD, 0);
    snprintf(fd, sizeof fd, "%d", n->net_end);
    snprintf(report_fd, sizeof report_fd, "%d", report);
    execl(program, "metronome-net", fd, n->words, report_fd, (char *)NULL);
    dprintf(report, "cannot run %s: %s", program, strerror(errno));
    _exit(127);
}

void user_nets_start(const struct user_nets *nets, const char *program, int report)
{
    for (unsigned i = 0; i < nets->count; i++) {
        pid_t pid = fork();
        if (pid == 0)
            become_net(&nets->net[i], program, report);
        if (pid < 0) {
            dprintf(report, "cannot start the user network: %s", strerror(errno));
            _exit(127);
        }
    }
}

void user_nets_close(struct user_nets *nets)
{
    for (unsigned i = 0; i < nets->count; i++) {
        close(nets->net[i].qemu_end);
        close(nets->net[i].net_end);
    }
    nets->count = 0;
}
