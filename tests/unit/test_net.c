/*
 * The user-mode network with this test as its guest: words, DHCP with a boot file, ARP, TFTP, a UDP service of the
 * host.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dm-proxy/net/options.h"

#define PATIENCE_MS 3000
#define GUEST 0x0a00020fu
#define GATEWAY 0x0a000202u
#define FILE_BYTES 1300

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static uint8_t gateway_mac[6];
static int wire;
static pid_t child;
static char folder[] = "/tmp/metronome-tftp-XXXXXX";
static char file_path[64];

/* ---- Words ---- */

static struct net_options options;
static char error[256];

static bool parse(const char *words)
{
    return net_parse(&options, words, error, sizeof error);
}

static void words_are_understood(void **state)
{
    (void)state;
    assert_true(parse(""));
    assert_int_equal(ntohl(options.host.s_addr), GATEWAY);
    assert_int_equal(ntohl(options.dhcp_start.s_addr), GUEST);
    assert_true(
        parse("net=192.168.7.0/26,dhcpstart=192.168.7.20,tftp=/x,bootfile=a/b.ipxe,restrict=on,ipv6=off,hostname=h"));
    assert_int_equal(ntohl(options.mask.s_addr), 0xffffffc0);
    assert_int_equal(ntohl(options.host.s_addr), 0xc0a80702);
    assert_int_equal(ntohl(options.dhcp_start.s_addr), 0xc0a80714);
    assert_string_equal(options.tftp, "/x");
    assert_string_equal(options.boot_file, "a/b.ipxe");
    assert_true(options.restricted && !options.ipv6);
    assert_true(parse("hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.16:5353,hostfwd=::80-:8080"));
    assert_int_equal(options.forward_count, 3);
    assert_int_equal(options.forwards[0].host_port, 2222);
    assert_int_equal(options.forwards[0].guest_port, 22);
    assert_false(options.forwards[0].udp);
    assert_true(options.forwards[1].udp);
    assert_int_equal(ntohl(options.forwards[1].guest.s_addr), 0x0a000210);
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = {"what=ever",
                                      "tftp",
                                      "net=10.0.2.0/33",
                                      "net=hello",
                                      "net=10.0.2.0/31",
                                      "dhcpstart=11.0.0.1",
                                      "restrict=maybe",
                                      "hostfwd=",
                                      "hostfwd=tcp::22",
                                      "hostfwd=tcp::0-:22",
                                      "hostfwd=tcp::22-:65536",
                                      "hostfwd=icmp::1-:2",
                                      "hostfwd=tcp:x:1-:2",
                                      "hostfwd=tcp::1-:2x"};
    char long_word[3000];

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(parse(bad[i]));
        assert_non_null(strstr(error, bad[i]));
    }
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = 0;
    assert_false(parse(long_word));
}

/* ---- Frames ---- */

static void be16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void be32(uint8_t *at, uint32_t value)
{
    be16(at, value >> 16);
    be16(at + 2, value & 0xffff);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

static unsigned get16(const uint8_t *at)
{
    return at[0] << 8 | at[1];
}

static unsigned sum(const uint8_t *at, unsigned bytes)
{
    unsigned total = 0;

    for (unsigned i = 0; i < bytes; i += 2)
        total += get16(at + i);
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return ~total & 0xffff;
}

static void send_udp(const uint8_t *mac, uint32_t from, uint32_t to, unsigned from_port, unsigned to_port,
                     const void *data, unsigned bytes)
{
    uint8_t f[1600] = {0};

    memcpy(f, mac, 6);
    memcpy(f + 6, guest_mac, 6);
    be16(f + 12, 0x0800);
    uint8_t *ip = f + 14;
    ip[0] = 0x45;
    be16(ip + 2, 28 + bytes);
    ip[8] = 64;
    ip[9] = 17;
    be32(ip + 12, from);
    be32(ip + 16, to);
    be16(ip + 10, sum(ip, 20));
    be16(ip + 20, from_port);
    be16(ip + 22, to_port);
    be16(ip + 24, 8 + bytes);
    memcpy(ip + 28, data, bytes);
    assert_true(send(wire, f, 42 + bytes, 0) > 0);
}

/* The next UDP packet to the given port; its length, data in *data. */
static unsigned get_udp(unsigned port, uint8_t **data, unsigned *from_port)
{
    static uint8_t f[65536];

    for (;;) {
        struct pollfd p = {.fd = wire, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        ssize_t n = recv(wire, f, sizeof f, 0);
        if (n < 42 || get16(f + 12) != 0x0800 || f[23] != 17 || get16(f + 36) != port)
            continue;
        memcpy(gateway_mac, f + 6, 6);
        *from_port = get16(f + 34);
        *data = f + 42;
        return get16(f + 38) - 8;
    }
}

static void arp_answers(void)
{
    uint8_t f[60] = {0};

    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
    memcpy(f + 22, guest_mac, 6);
    be32(f + 28, GUEST);
    be32(f + 38, GATEWAY);
    assert_true(send(wire, f, sizeof f, 0) > 0);
    for (;;) {
        struct pollfd p = {.fd = wire, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        ssize_t n = recv(wire, f, sizeof f, 0);
        if (n >= 42 && get16(f + 12) == 0x0806 && get16(f + 20) == 2)
            return assert_int_equal(get32(f + 28), GATEWAY);
    }
}

static const uint8_t *dhcp_option(const uint8_t *packet, unsigned bytes, unsigned code)
{
    for (unsigned i = 240; i + 1 < bytes && packet[i] != 255; i += 2 + packet[i + 1])
        if (packet[i] == code)
            return packet + i + 1;
    return NULL;
}

static void dhcp_offers_the_boot_file(void **state)
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t packet[300] = {1, 1, 6}, *reply;
    unsigned bytes, from;

    (void)state;
    be32(packet + 4, 0x12345678);
    memcpy(packet + 28, guest_mac, 6);
    memcpy(packet + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
    send_udp(broadcast, 0, 0xffffffff, 68, 67, packet, sizeof packet);
    bytes = get_udp(68, &reply, &from);
    assert_int_equal(from, 67);
    assert_int_equal(get32(reply + 4), 0x12345678);
    assert_int_equal(get32(reply + 16), GUEST);
    assert_int_equal(get32(reply + 20), GATEWAY); /* next server */
    assert_string_equal((char *)reply + 108, "boot.txt");
    assert_int_equal(get32(dhcp_option(reply, bytes, 3) + 1), GATEWAY);
    arp_answers();
}

static void tftp_serves_the_folder(void **state)
{
    static const char ask[] = "\0\001boot.txt\0octet";
    uint8_t *data, ack[4] = {0, 4};
    unsigned server, total = 0, bytes, block = 0;

    (void)state;
    send_udp(gateway_mac, GUEST, GATEWAY, 1234, 69, ask, sizeof ask);
    do {
        bytes = get_udp(1234, &data, &server);
        assert_int_equal(get16(data), 3);
        assert_int_equal(get16(data + 2), ++block);
        for (unsigned i = 4; i < bytes; i++)
            assert_int_equal(data[i], (uint8_t)((total + i - 4) * 3));
        total += bytes - 4;
        be16(ack + 2, block);
        send_udp(gateway_mac, GUEST, GATEWAY, 1234, server, ack, sizeof ack);
    } while (bytes == 516);
    assert_int_equal(total, FILE_BYTES);
}

static void tftp_stays_in_the_folder(void **state)
{
    static const char ask[] = "\0\001../../etc/passwd\0octet";
    uint8_t *data;
    unsigned server;

    (void)state;
    send_udp(gateway_mac, GUEST, GATEWAY, 1235, 69, ask, sizeof ask);
    get_udp(1235, &data, &server);
    assert_int_equal(get16(data), 5); /* an error */
}

static void hosts_services_are_reached(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, peer;
    socklen_t size = sizeof address;
    int service = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[16] = "";
    uint8_t *data;
    unsigned from;

    (void)state;
    assert_int_equal(bind(service, (void *)&address, size), 0);
    getsockname(service, (void *)&address, &size);
    send_udp(gateway_mac, GUEST, GATEWAY, 4000, ntohs(address.sin_port), "ping", 4);
    struct pollfd p = {.fd = service, .events = POLLIN};
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    size = sizeof peer;
    assert_int_equal(recvfrom(service, text, sizeof text, 0, (void *)&peer, &size), 4);
    assert_string_equal(text, "ping");
    assert_int_equal(sendto(service, "pong!", 5, 0, (void *)&peer, size), 5);
    assert_int_equal(get_udp(4000, &data, &from), 5);
    assert_memory_equal(data, "pong!", 5);
    close(service);
}

/* A guest may send anything. */
static void garbage_does_no_harm(void **state)
{
    uint8_t f[1514];

    (void)state;
    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned bytes = 1 + (unsigned)rand() % sizeof f;
        for (unsigned k = 0; k < bytes; k++)
            f[k] = (uint8_t)rand();
        if (i % 2) {
            memcpy(f, gateway_mac, 6);
            be16(f + 12, i % 4 == 1 ? 0x0800 : i % 8 == 3 ? 0x86dd : 0x0806);
            f[14] = 0x45;
            f[23] = (uint8_t)(i % 3 ? 17 : 1);
        }
        send(wire, f, bytes, 0);
    }
    while (recv(wire, f, sizeof f, MSG_DONTWAIT) > 0)
        ;
    dhcp_offers_the_boot_file(NULL);
}

static void it_ends_with_its_guest(void **state)
{
    int status = -1;

    (void)state;
    close(wire);
    for (unsigned i = 0; i < PATIENCE_MS / 10 && waitpid(child, &status, WNOHANG) == 0; i++)
        usleep(10000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    child = -1;
}

/* ---- Start and end ---- */

static void make_file(void)
{
    FILE *f;

    assert_non_null(mkdtemp(folder));
    snprintf(file_path, sizeof file_path, "%s/boot.txt", folder);
    f = fopen(file_path, "wb");
    for (unsigned i = 0; i < FILE_BYTES; i++)
        fputc((uint8_t)(i * 3), f);
    fclose(f);
}

static int start(void **state)
{
    char self[512], words[256], fd[16];
    int ends[2];

    (void)state;
    make_file();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    wire = ends[0];
    snprintf(words, sizeof words, "ipv6=off,bootfile=boot.txt,tftp=%s", folder);
    self[readlink("/proc/self/exe", self, sizeof self - 32)] = 0;
    strcpy(strrchr(self, '/'), "/../metronome-net");
    child = fork();
    if (child == 0) {
        snprintf(fd, sizeof fd, "%d", dup(ends[1]));
        execl(self, "metronome-net", fd, words, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    unlink(file_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_understood),      cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(dhcp_offers_the_boot_file), cmocka_unit_test(tftp_serves_the_folder),
        cmocka_unit_test(tftp_stays_in_the_folder),  cmocka_unit_test(hosts_services_are_reached),
        cmocka_unit_test(garbage_does_no_harm),      cmocka_unit_test(it_ends_with_its_guest),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
