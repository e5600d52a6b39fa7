#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/protocol.h"
#include "daemon/request.h"

static const struct {
    const char *key;
    size_t offset;
} strings[] = {
    {"name", offsetof(struct request, name)},         {"boot", offsetof(struct request, boot)},
    {"vga", offsetof(struct request, vga)},           {"vnc", offsetof(struct request, vnc)},
    {"serial", offsetof(struct request, serial)},     {"qmp", offsetof(struct request, qmp)},
    {"firmware", offsetof(struct request, firmware)}, {"module", offsetof(struct request, module)},
    {"append", offsetof(struct request, append)},     {"initrd", offsetof(struct request, initrd)},
    {"latency", offsetof(struct request, latency)},
};
#define STRINGS (sizeof strings / sizeof strings[0])

static const char **string_field(const struct request *r, unsigned i)
{
    return (const char **)((char *)r + strings[i].offset);
}

void request_init(struct request *r)
{
    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < STRINGS; i++)
        *string_field(r, i) = "";
}

struct packer {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void put(struct packer *p, const char *format, ...)
{
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(p->at, p->left, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= p->left) {
        p->left = 0;
        return;
    }
    p->at += n + 1;
    p->left -= n + 1;
}

size_t request_pack(const struct request *r, char *to, size_t size)
{
    struct packer p = {to, size};

    put(&p, "protocol=%d", PROTOCOL_VERSION);
    for (unsigned i = 0; i < STRINGS; i++)
        put(&p, "%s=%s", strings[i].key, *string_field(r, i));
    put(&p, "memory=%llu", (unsigned long long)r->memory);
    put(&p, "vcpus=%llu", (unsigned long long)r->vcpus);
    put(&p, "sockets=%llu", (unsigned long long)r->sockets);
    put(&p, "rtc_seconds=%llu", (unsigned long long)r->rtc_seconds);
    put(&p, "any_tsc=%d", r->any_tsc);
    put(&p, "ticks=%u", r->ticks);
    for (unsigned i = 0; i < r->disks; i++) {
        const struct request_disk *d = &r->disk[i];
        put(&p, "disk=%u,%u,%d,%d,%s,%s", d->bus, d->index, d->cdrom, d->readonly, d->format, d->path);
    }
    for (unsigned i = 0; i < r->nics; i++)
        put(&p, "nic=%s,%s,%s", r->nic[i].model, r->nic[i].mac, r->nic[i].net);
    for (unsigned i = 0; i < r->qemu_args; i++)
        put(&p, "qemu=%s", r->qemu_arg[i]);
    return p.left ? size - p.left : 0;
}

/* Cuts the next comma's part off; the last part may hold commas of its own and is what remains. */
static char *cut(char **rest)
{
    char *part = *rest, *comma = strchr(part, ',');

    if (!comma) {
        *rest = part + strlen(part);
        return part;
    }
    *comma = 0;
    *rest = comma + 1;
    return part;
}

static bool take_disk(struct request *r, char *value)
{
    struct request_disk *d = &r->disk[r->disks];

    if (r->disks == REQUEST_MAX_DISKS)
        return false;
    d->bus = (unsigned)atoi(cut(&value));
    d->index = (unsigned)atoi(cut(&value));
    d->cdrom = atoi(cut(&value));
    d->readonly = atoi(cut(&value));
    d->format = cut(&value);
    d->path = value;
    r->disks++;
    return d->bus < DISK_BUSES;
}

static bool take_nic(struct request *r, char *value)
{
    struct request_nic *n = &r->nic[r->nics];

    if (r->nics == REQUEST_MAX_NICS)
        return false;
    n->model = cut(&value);
    n->mac = cut(&value);
    n->net = value;
    r->nics++;
    return true;
}

static bool take(struct request *r, const char *key, char *value)
{
    for (unsigned i = 0; i < STRINGS; i++)
        if (!strcmp(key, strings[i].key)) {
            *string_field(r, i) = value;
            return true;
        }
    if (!strcmp(key, "protocol"))
        return atoi(value) == PROTOCOL_VERSION;
    if (!strcmp(key, "memory"))
        r->memory = strtoull(value, NULL, 10);
    else if (!strcmp(key, "vcpus"))
        r->vcpus = strtoull(value, NULL, 10);
    else if (!strcmp(key, "sockets"))
        r->sockets = strtoull(value, NULL, 10);
    else if (!strcmp(key, "rtc_seconds"))
        r->rtc_seconds = strtoull(value, NULL, 10);
    else if (!strcmp(key, "any_tsc"))
        r->any_tsc = atoi(value);
    else if (!strcmp(key, "ticks"))
        r->ticks = (uint32_t)strtoul(value, NULL, 10);
    else if (!strcmp(key, "disk"))
        return take_disk(r, value);
    else if (!strcmp(key, "nic"))
        return take_nic(r, value);
    else if (!strcmp(key, "qemu") && r->qemu_args < REQUEST_MAX_QEMU_ARGS)
        r->qemu_arg[r->qemu_args++] = value;
    else
        return false;
    return true;
}

bool request_unpack(struct request *r, char *from, size_t bytes)
{
    char *end = from + bytes;

    request_init(r);
    if (bytes < 10 || end[-1] || strncmp(from, "protocol=", 9))
        return false;
    while (from < end) {
        char *next = from + strlen(from) + 1, *value = strchr(from, '=');

        if (!value)
            return false;
        *value++ = 0;
        if (!take(r, from, value))
            return false;
        from = next;
    }
    return true;
}
