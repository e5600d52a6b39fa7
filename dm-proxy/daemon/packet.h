/*
 * One packet of a SOCK_SEQPACKET socket, with descriptors.
 */
#ifndef METRONOME_PACKET_H
#define METRONOME_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#define PACKET_MOST_FDS 4u

/* `flags`: of send(2). False: it has not been sent. */
bool packet_send(int socket, const void *bytes, size_t n, const int *fds, unsigned fd_count, int flags);

/* As recv(2); `fds` has room for PACKET_MOST_FDS. More than those are closed by the kernel. */
ssize_t packet_receive(int socket, void *bytes, size_t size, int *fds, unsigned *fd_count, int flags);

#endif
