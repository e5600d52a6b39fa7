/*
 * What "user,..." says: the words of QEMU's -netdev user.
 *   net=10.0.2.0/24  host=10.0.2.2  dns=10.0.2.3  dhcpstart=10.0.2.15  hostname=NAME  domainname=NAME
 *   tftp=FOLDER  bootfile=NAME  tftp-server-name=NAME  restrict=on|off  ipv6=on|off
 *   hostfwd=tcp|udp:[HOST]:PORT-[GUEST]:PORT   (several)
 */
#ifndef METRONOME_NET_OPTIONS_H
#define METRONOME_NET_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#define NET_MAX_FORWARDS 32
#define NET_TEXT_BYTES 2048

struct net_forward {
    bool udp;
    struct in_addr host, guest;
    int host_port, guest_port;
};

struct net_options {
    struct in_addr network, mask, host, dns, dhcp_start;
    const char *host_name, *domain_name, *tftp, *boot_file, *tftp_server;
    bool restricted, ipv6;
    struct net_forward forwards[NET_MAX_FORWARDS];
    unsigned forward_count;
    char text[NET_TEXT_BYTES]; /* the words themselves: strings above point here */
};

/* `words`: what follows "user,", or empty. False: `error` has one line. */
bool net_parse(struct net_options *o, const char *words, char *error, size_t error_bytes);

#endif
