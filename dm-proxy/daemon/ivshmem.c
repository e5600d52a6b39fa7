#define _GNU_SOURCE
#include <endian.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/ivshmem.h"
#include "public/abi.h"

#define IVSHMEM_PROTOCOL  0
#define IVSHMEM_IS_MEMORY (-1)

/* One message: a 64-bit number and perhaps a descriptor. */
static bool tell(int socket, int64_t number, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&number, sizeof number};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

    number = (int64_t)htole64((uint64_t)number);
    if (fd >= 0) {
        struct cmsghdr *c;

        message.msg_control = control;
        message.msg_controllen = sizeof control;
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof number;
}

static bool tell_all(const struct ivshmem *s)
{
    return tell(s->server, IVSHMEM_PROTOCOL, -1) && tell(s->server, METRONOME_PEER_HYPERVISOR, -1) &&
           tell(s->server, IVSHMEM_IS_MEMORY, s->memory) && tell(s->server, METRONOME_PEER_DOM0, s->to_dom0) &&
           tell(s->server, METRONOME_PEER_HYPERVISOR, s->to_hypervisor);
}

bool ivshmem_open(struct ivshmem *s, const char *name, uint64_t bytes)
{
    int ends[2];

    *s = (struct ivshmem){-1, -1, -1, -1, -1, bytes};
    s->memory = memfd_create(name, MFD_CLOEXEC);
    s->to_dom0 = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->to_hypervisor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->memory < 0 || s->to_dom0 < 0 || s->to_hypervisor < 0 || ftruncate(s->memory, (off_t)bytes))
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return false;
    s->server = ends[0];
    s->client = ends[1];
    return tell_all(s);
}

void ivshmem_close(struct ivshmem *s)
{
    const int fds[] = {s->memory, s->to_dom0, s->to_hypervisor, s->server, s->client};

    for (unsigned i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}
