#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define PREFIX 24
#define HOST_PART(n) (n)

static bool read_address(const char *text, struct in_addr *out)
{
    return inet_pton(AF_INET, text, out) == 1;
}

static struct in_addr in_network(const struct net_options *o, uint32_t part)
{
    return (struct in_addr){htonl(ntohl(o->network.s_addr) + part)};
}

/* 10.0.2.0/24, as QEMU's users expect it: gateway .2, DNS .3, guests from .15. */
static void place_addresses(struct net_options *o)
{
    o->host = in_network(o, HOST_PART(2));
    o->dns = in_network(o, HOST_PART(3));
    o->dhcp_start = in_network(o, HOST_PART(15));
}

static bool set_network(struct net_options *o, char *value)
{
    char *slash = strchr(value, '/');
    int prefix = PREFIX;

    if (slash) {
        *slash = 0;
        prefix = atoi(slash + 1);
    }
    if (prefix < 8 || prefix > 27 || !read_address(value, &o->network))
        return false;
    o->mask.s_addr = htonl(~0u << (32 - prefix));
    o->network.s_addr &= o->mask.s_addr;
    place_addresses(o);
    return true;
}

static bool set_switch(bool *out, const char *value)
{
    *out = !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "y");
    return *out || !strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "n");
}

static bool read_port(const char *text, int *port)
{
    char *end;
    long value = strtol(text, &end, 10);

    *port = (int)value;
    return *text && !*end && value > 0 && value < 65536;
}

/* "[ADDRESS]:PORT" */
static bool read_end(char *text, struct in_addr *address, int *port)
{
    char *colon = strrchr(text, ':');

    if (!colon)
        return false;
    *colon = 0;
    return (!*text || read_address(text, address)) && read_port(colon + 1, port);
}

/* "tcp:[HOST]:PORT-[GUEST]:PORT" */
static bool add_forward(struct net_options *o, char *value)
{
    struct net_forward *f = &o->forwards[o->forward_count];
    char *kind = strsep(&value, ":"), *guest = value ? strchr(value, '-') : NULL;

    if (!guest || o->forward_count == NET_MAX_FORWARDS)
        return false;
    *guest++ = 0;
    *f = (struct net_forward){.udp = !strcmp(kind, "udp")};
    if (!f->udp && *kind && strcmp(kind, "tcp"))
        return false;
    if (!read_end(value, &f->host, &f->host_port) || !read_end(guest, &f->guest, &f->guest_port))
        return false;
    o->forward_count++;
    return true;
}

static bool set_address(struct net_options *o, struct in_addr *out, const char *value)
{
    return read_address(value, out) && (out->s_addr & o->mask.s_addr) == o->network.s_addr;
}

static const struct {
    const char *key;
    size_t offset;
} strings[] =
    {
        {"hostname", offsetof(struct net_options, host_name)},
        {"domainname", offsetof(struct net_options, domain_name)},
        {"tftp", offsetof(struct net_options, tftp)},
        {"bootfile", offsetof(struct net_options, boot_file)},
        {"tftp-server-name", offsetof(struct net_options, tftp_server)},
},
  addresses[] = {
      {"host", offsetof(struct net_options, host)},
      {"dns", offsetof(struct net_options, dns)},
      {"dhcpstart", offsetof(struct net_options, dhcp_start)},
};

static bool set(struct net_options *o, const char *key, char *value)
{
    for (unsigned i = 0; i < sizeof strings / sizeof strings[0]; i++)
        if (!strcmp(key, strings[i].key)) {
            *(const char **)(void *)((char *)o + strings[i].offset) = value;
            return true;
        }
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++)
        if (!strcmp(key, addresses[i].key))
            return set_address(o, (void *)((char *)o + addresses[i].offset), value);
    if (!strcmp(key, "net"))
        return set_network(o, value);
    if (!strcmp(key, "hostfwd"))
        return add_forward(o, value);
    if (!strcmp(key, "restrict"))
        return set_switch(&o->restricted, value);
    if (!strcmp(key, "ipv6"))
        return set_switch(&o->ipv6, value);
    return false;
}

bool net_parse(struct net_options *o, const char *words, char *error, size_t error_bytes)
{
    char network[] = "10.0.2.0/24", *rest = o->text, *word, *value, copy[NET_TEXT_BYTES];

    memset(o, 0, sizeof *o);
    o->ipv6 = true;
    set_network(o, network);
    if (strlen(words) >= sizeof o->text) {
        snprintf(error, error_bytes, "user network: too many words");
        return false;
    }
    strcpy(o->text, words);
    while (rest && (word = strsep(&rest, ","))) {
        if (!*word)
            continue;
        snprintf(copy, sizeof copy, "%s", word);
        value = strchr(word, '=');
        if (value)
            *value++ = 0;
        if (!value || !set(o, word, value)) {
            snprintf(error, error_bytes, "user network: cannot understand '%.200s'", copy);
            return false;
        }
    }
    return true;
}
