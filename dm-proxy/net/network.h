/* A network of one guest behind libslirp: Ethernet frames come and go as packets of a SOCK_SEQPACKET socket. */
#ifndef METRONOME_NET_NETWORK_H
#define METRONOME_NET_NETWORK_H

#include "options.h"

struct network;

/* NULL: it could not start, and `error` says why. */
struct network *network_new(int fd, const struct net_options *o, char *error, size_t error_bytes);
void network_run(struct network *n); /* until the guest's side closes */
void network_free(struct network *n);

#endif
