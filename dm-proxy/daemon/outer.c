#define _GNU_SOURCE
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/host.h"
#include "daemon/outer.h"
#include "daemon/paths.h"

#define HYPERVISOR_MEMORY "256" /* MiB: its own; guests have theirs from the host */
#define EXIT_PORT         0xf4

__attribute__((format(printf, 2, 3))) static void add(struct outer_command *c, const char *format, ...)
{
    unsigned n = 0;
    va_list arguments;

    while (c->argv[n])
        n++;
    if (n + 1 >= OUTER_MAX_ARGS)
        return;
    va_start(arguments, format);
    if (vasprintf(&c->argv[n], format, arguments) < 0)
        c->argv[n] = NULL;
    va_end(arguments);
}

static void keep(struct outer_command *c, int fd)
{
    unsigned n = 0;

    while (c->keep[n] >= 0)
        n++;
    c->keep[n] = fd;
    c->keep[n + 1] = -1;
}

/* Accelerated only where that gives the hypervisor a working AMD-V; METRONOME_ACCEL=tcg|kvm decides otherwise. */
static bool accelerated(void)
{
    const char *given = getenv("METRONOME_ACCEL");

    if (given && *given)
        return !strcmp(given, "kvm");
    return host_nested_svm();
}

/* One CPU is left to the device models and the rest of the host. METRONOME_PCPUS decides otherwise. */
static unsigned pcpus(void)
{
    const char *given = getenv("METRONOME_PCPUS");
    unsigned cpus = host_cpus();

    if (given && atoi(given) > 0)
        return (unsigned)atoi(given);
    return cpus > 1 ? cpus - 1 : 1;
}

static void add_words(struct outer_command *c, const char *words)
{
    char *copy = strdup(words), *rest, *word;

    for (word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        add(c, "%s", word);
    free(copy);
}

/* The hypervisor takes the devices in the order of their PCI addresses. */
static void add_device(struct outer_command *c, const char *name, unsigned index, int socket)
{
    add(c, "-chardev");
    add(c, "socket,id=%s%u,fd=%d", name, index, socket);
    add(c, "-device");
    add(c, "ivshmem-doorbell,chardev=%s%u,vectors=1,addr=0x%x", name, index, index + 2);
    keep(c, socket);
}

static void add_machine(struct outer_command *c, bool kvm)
{
    const char *given = getenv("METRONOME_MEMORY");
    unsigned cpus = pcpus();

    /* TCG with a thread for each CPU loses a nested CPU's translations now and then: a page fault at the instruction behind VMRUN
     * ends the machine. With one thread for all it does not. */
    add_words(c, kvm ? "-accel kvm -cpu host" : "-accel tcg,thread=single -cpu max");
    add_words(c, "-machine q35 -nodefaults -display none -no-reboot -no-user-config");
    add(c, "-m");
    add(c, "%s", given && *given ? given : HYPERVISOR_MEMORY);
    add(c, "-smp");
    add(c, "%u", cpus);
    snprintf(c->machine, sizeof c->machine, "QEMU %s, %u CPU%s", kvm ? "with KVM" : "TCG", cpus, cpus > 1 ? "s" : "");
}

static void add_hypervisor(struct outer_command *c, const char *image)
{
    const char *append = getenv("METRONOME_APPEND");

    add(c, "-kernel");
    add(c, "%s", image);
    add(c, "-append");
    add(c, "exit=0x%x %s", EXIT_PORT, append ? append : "");
    add(c, "-device");
    add(c, "isa-debug-exit,iobase=0x%x,iosize=4", EXIT_PORT);
}

bool outer_command(struct outer_command *c, const struct outer *o, char *error, size_t error_size)
{
    const char *more = getenv("METRONOME_OUTER_ARGS");
    char qemu[PATH_MAX], image[PATH_MAX];

    memset(c, 0, sizeof *c);
    c->keep[0] = -1;
    beside_program(image, "metronome.elf", "METRONOME_HYPERVISOR");
    if (!find_outer_qemu(qemu)) {
        snprintf(error, error_size, "no QEMU to run the hypervisor in: qemu-system-x86_64 is not installed");
        return false;
    }
    if (access(image, R_OK)) {
        snprintf(error, error_size, "%.300s: the hypervisor is not there: run make", image);
        return false;
    }
    add(c, "%s", qemu);
    add_words(c, "-name metronome-hypervisor");
    add_machine(c, accelerated());
    add(c, "-chardev");
    add(c, "socket,id=com1,fd=%d", o->console);
    add_words(c, "-serial chardev:com1");
    keep(c, o->console);
    add_hypervisor(c, image);
    add_device(c, "control", 0, o->control);
    for (unsigned i = 0; i < o->slots; i++)
        add_device(c, "slot", i + 1, o->slot[i]);
    if (more)
        add_words(c, more);
    return true;
}
