#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>

#include "daemon/packet.h"

bool packet_send(int socket, const void *bytes, size_t n, const int *fds, unsigned fd_count, int flags)
{
    char control[CMSG_SPACE(PACKET_MOST_FDS * sizeof(int))] = {0};
    struct iovec data = {(void *)bytes, n};
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1};
    struct cmsghdr *c;

    if (fd_count) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    return sendmsg(socket, &m, flags | MSG_NOSIGNAL) == (ssize_t)n;
}

ssize_t packet_receive(int socket, void *bytes, size_t size, int *fds, unsigned *fd_count, int flags)
{
    char control[CMSG_SPACE(PACKET_MOST_FDS * sizeof(int))];
    struct iovec data = {bytes, size};
    /* Not sizeof control: rounded up it could have room for one descriptor more than we have. */
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(PACKET_MOST_FDS * sizeof(int))};
    ssize_t n = recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

    *fd_count = 0;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        *fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
    }
    return n;
}
