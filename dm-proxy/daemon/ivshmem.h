/*
 * The server's side of an ivshmem device. Everything the outer QEMU has to be told is known before it starts, so it
 * lies waiting in the socket: nothing has to be served.
 */
#ifndef METRONOME_IVSHMEM_H
#define METRONOME_IVSHMEM_H

#include <stdbool.h>
#include <stdint.h>

struct ivshmem {
    int memory;  /* memfd */
    int to_dom0; /* eventfd, rung by the hypervisor */
    int to_hypervisor;
    int server, client; /* the socket's ends: ours, and the one that the outer QEMU inherits */
    uint64_t bytes;
};

/* False: errno says why. What was opened so far is closed by ivshmem_close(). */
bool ivshmem_open(struct ivshmem *s, const char *name, uint64_t bytes);
void ivshmem_close(struct ivshmem *s);

#endif
