/*
 * Bad input, found before anything is started.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/host.h"
#include "daemon/paths.h"
#include "qemu/launch.h"
#include "run.h"

#define MIB                   (1ull << 20)
#define SMALLEST_MODULE_GUEST (2 * MIB)
#define SMALLEST_GUEST        (8 * MIB) /* what SeaBIOS needs */
#define FIRMWARE_UNIT         (64u << 10)
#define LARGEST_FIRMWARE      (1u << 20)

static void check_memory(const struct request *r)
{
    uint64_t least = *r->module ? SMALLEST_MODULE_GUEST : SMALLEST_GUEST, available = host_available_bytes();

    if (r->memory < least)
        bad_input("memory: %llu KiB is too little: a guest needs %llu MiB", (unsigned long long)r->memory >> 10,
                  (unsigned long long)(least / MIB));
    if (r->memory > slot_largest_guest())
        bad_input("memory: %llu MiB is too much: a guest can have %llu MiB at most",
                  (unsigned long long)(r->memory / MIB), (unsigned long long)(slot_largest_guest() / MIB));
    if (r->memory > available)
        bad_input("memory: %llu MiB is too much: this computer has %llu MiB available",
                  (unsigned long long)(r->memory / MIB), (unsigned long long)(available / MIB));
}

/* Returns the file's size. */
static uint64_t check_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        bad_input("%s: %s", path, strerror(errno));
    close(fd);
    if (!S_ISREG(st.st_mode))
        bad_input("%s: is not a file", path);
    if (!st.st_size)
        bad_input("%s: is empty", path);
    return (uint64_t)st.st_size;
}

static void check_firmware(const struct request *r)
{
    const char *path = *r->firmware ? r->firmware : SEABIOS_IMAGE;
    uint64_t bytes = check_file(path);

    if (bytes % FIRMWARE_UNIT || bytes > LARGEST_FIRMWARE)
        bad_input("%s: is no firmware image: %llu bytes, where 64 KiB to 1 MiB in steps of 64 KiB are possible", path,
                  (unsigned long long)bytes);
}

static void check_module(const struct request *r)
{
    const struct {
        const char *option;
        bool given;
    } devices[] = {{"--disk and --cdrom", r->disks},
                   {"--nic", r->nics},
                   {"--firmware", *r->firmware},
                   {"--vga", *r->vga},
                   {"--vnc", *r->vnc},
                   {"--qmp", *r->qmp},
                   {"--qemu-arg", r->qemu_args},
                   {"--serial", *r->serial},
                   {"--boot", *r->boot}};
    uint64_t bytes = check_file(r->module) + (*r->initrd ? check_file(r->initrd) : 0);

    for (unsigned i = 0; i < sizeof devices / sizeof devices[0]; i++)
        if (devices[i].given)
            bad_input("%s: a guest started with --module has no device model", devices[i].option);
    if (bytes > r->memory)
        bad_input("memory: %llu MiB is too little for the module and its initial RAM disk",
                  (unsigned long long)(r->memory / MIB));
}

static void check_tcp(const char *option, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    int error = getaddrinfo(*host ? host : NULL, port, &hints, &list), fd, one = 1;

    if (error)
        bad_input("--%s: %s:%s: %s", option, host, port, gai_strerror(error));
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 1))
        bad_input("--%s: port %s %s", option, port, errno == EADDRINUSE ? "is in use already" : strerror(errno));
    close(fd);
    freeaddrinfo(list);
}

static void check_unix(const char *option, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char folder[PATH_MAX];
    struct stat st;

    if (strlen(path) >= sizeof address.sun_path)
        bad_input("--%s: %s: is too long for a socket's path", option, path);
    strcpy(address.sun_path, path);
    if (!connect(fd, (struct sockaddr *)&address, sizeof address))
        bad_input("--%s: %s: is in use already", option, path);
    close(fd);
    if (!lstat(path, &st) && !S_ISSOCK(st.st_mode))
        bad_input("--%s: %s: exists and is no socket", option, path);
    snprintf(folder, sizeof folder, "%s", path);
    *(strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder) = 0;
    if (access(*folder ? folder : ".", W_OK))
        bad_input("--%s: %s: %s", option, path, strerror(errno));
}

/* An address without the options behind it. */
static char *address_of(const char *text)
{
    char *copy = strdup(text);

    copy[strcspn(copy, ",")] = 0;
    return copy;
}

static void check_qmp(const struct request *r)
{
    char *address = address_of(r->qmp + strcspn(r->qmp, ":") + 1), *colon = strrchr(address, ':');

    if (!strncmp(r->qmp, "unix:", 5)) {
        check_unix("qmp", address);
    } else if (colon) {
        *colon = 0;
        check_tcp("qmp", address, colon + 1);
    }
    free(address);
}

static void check_vnc(const struct request *r)
{
    char *address = address_of(r->vnc), *colon = strrchr(address, ':'), *rest, port[16];
    unsigned long display;

    if (!colon)
        bad_input("--vnc: '%s' is no VNC display", address);
    display = strtoul(colon + 1, &rest, 10);
    *colon = 0;
    if (!strcmp(address, "unix")) {
        check_unix("vnc", colon + 1);
    } else if (*rest || display > 59635) {
        bad_input("--vnc: '%s' is no number of a display", colon + 1);
    } else if (!strstr(r->vnc, ",to=")) {
        snprintf(port, sizeof port, "%lu", 5900 + display);
        check_tcp("vnc", address, port);
    }
    free(address);
}

static void check_expect(const struct run *r)
{
    regex_t regex;
    char why[200];
    int error = regcomp(&regex, r->expect, REG_EXTENDED | REG_NEWLINE | REG_NOSUB);

    if (error) {
        regerror(error, &regex, why, sizeof why);
        bad_input("--expect: '%s': %s", r->expect, why);
    }
    regfree(&regex);
    if (*r->request.serial)
        bad_input("--expect: needs the serial console on the terminal, not at '%s'", r->request.serial);
}

static void check_programs(const struct request *r)
{
    char path[PATH_MAX];

    if (!find_outer_qemu(path))
        bad_input("no QEMU to run the hypervisor in: install the package qemu-system-x86");
    beside_program(path, "metronome.elf", "METRONOME_HYPERVISOR");
    if (access(path, R_OK))
        bad_input("%s: the hypervisor is not there: run make", path);
    if (*r->module)
        return;
    if (!dm_find_qemu(path, sizeof path))
        bad_input("no QEMU for the guest's devices: install the package qemu-system-xen");
    if (!dm_find_library(path, sizeof path))
        bad_input("the library for the guest's QEMU is not there: run make");
}

/* By which it will be found, and which others' terminals will show. */
static void check_name(const char *name)
{
    if (strspn(name, "0123456789") == strlen(name))
        bad_input("name: '%s' would be taken for the number of a guest", name);
    for (const unsigned char *p = (const void *)name; *p; p++)
        if (*p < ' ' || *p == 0x7f)
            bad_input("name: has a control character");
}

void check_console(const struct run *r)
{
    if (r->expect)
        check_expect(r);
}

/* What is the same for a guest that begins and for one that goes on. */
static void check_surroundings(struct run *r)
{
    const struct request *q = &r->request;

    check_name(q->name);
    if (r->detach && (r->expect || r->timeout_ms))
        bad_input("--expect and --timeout need the console, which --detach leaves");
    if (*q->qmp)
        check_qmp(q);
    if (*q->vnc)
        check_vnc(q);
    if (r->expect)
        check_expect(r);
    check_programs(q);
}

/* Its memory has its firmware or module in it. */
void check_restore(struct run *r)
{
    struct request *q = &r->request;

    check_memory(q);
    disks_check(q);
    check_surroundings(r);
}

void check_run(struct run *r)
{
    struct request *q = &r->request;

    check_memory(q);
    disks_check(q);
    if (r->deterministic)
        deterministic_check(r);
    else if (r->trace)
        bad_input("--trace: goes with --deterministic");
    if (*q->module)
        check_module(q);
    else if (*q->append || *q->initrd)
        bad_input("--append and --initrd go with --module");
    else
        check_firmware(q);
    check_surroundings(r);
}
