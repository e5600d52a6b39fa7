#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Where a setting is taken: a key of configuration files, an option of one command or of several. */
enum { OPTION_ONLY = 16, FLAG = 32, BOTH = SETTING_RUN | SETTING_RESTORE, ALL = BOTH | SETTING_CONSOLE };

struct setting {
    const char *name;
    void (*set)(struct run *r, const char *value, const char *where);
    const char *argument, *help;
    unsigned kind;
};

static void set_name(struct run *r, const char *value, const char *where)
{
    if (!*value || strlen(value) >= NAME_BYTES)
        bad_input("%s: a name has 1 to 63 characters", where);
    r->request.name = value;
}

/* A number with an optional suffix; MiB without one, as in xl.cfg(5). */
static void set_memory(struct run *r, const char *value, const char *where)
{
    static const char suffixes[] = "KMGT";
    char *rest;
    unsigned long long n = strtoull(value, &rest, 10);
    const char *suffix = *rest ? strchr(suffixes, *rest) : suffixes + 1;
    unsigned shift = suffix ? 10u * (unsigned)(suffix - suffixes + 1) : 0;

    if (rest == value || *value == '-' || !suffix || (*rest && rest[1]))
        bad_input("%s: '%s' is no size: a number of MiB, or with one of K, M, G behind it", where, value);
    if (n > UINT64_MAX >> shift || !n)
        bad_input("%s: '%s' is out of range", where, value);
    r->request.memory = (uint64_t)n << shift;
}

static uint64_t number(const char *value, const char *where)
{
    char *rest;
    unsigned long long n = strtoull(value, &rest, 10);

    if (rest == value || *rest || *value == '-')
        bad_input("%s: '%s' is no number", where, value);
    return n;
}

/* A virtual CPU's number is its APIC id, whose low bits are the core's in its socket: docs/cpuid-msr.md. */
static uint64_t sockets(const char *value, uint64_t vcpus, const char *where)
{
    uint64_t n = number(value, where), cores = n ? vcpus / n : 0;

    if (!cores)
        bad_input("%s: sockets=%s is out of range: %" PRIu64 " virtual CPUs are in 1 to %" PRIu64 " sockets", where, value, vcpus, vcpus);
    if (cores * n != vcpus)
        bad_input("%s: sockets=%s: %" PRIu64 " virtual CPUs cannot be shared out evenly among them", where, value, vcpus);
    if (n > 1 && (cores & (cores - 1)))
        bad_input("%s: sockets=%s would have %" PRIu64 " virtual CPUs each: where there are several, a power of two", where, value, cores);
    return n;
}

static void set_vcpus(struct run *r, const char *value, const char *where)
{
    static const char key[] = "sockets=";
    char *vcpus = strdup(value), *more = strchr(vcpus, ',');

    if (more)
        *more++ = 0;
    r->request.vcpus = number(vcpus, where);
    if (r->request.vcpus < 1 || r->request.vcpus > METRONOME_MAX_VCPUS)
        bad_input("%s: %s is out of range: a guest has 1 to %u virtual CPUs", where, vcpus, METRONOME_MAX_VCPUS);
    if (more && strncmp(more, key, strlen(key)))
        bad_input("%s: '%s' behind the number is not sockets=S", where, more);
    r->request.sockets = more ? sockets(more + strlen(key), r->request.vcpus, where) : 1;
    free(vcpus);
}

static void set_disk(struct run *r, const char *value, const char *where)
{
    disk_add(&r->request, value, where);
}

static void set_cdrom(struct run *r, const char *value, const char *where)
{
    cdrom_add(&r->request, value, where);
}

static void set_nic(struct run *r, const char *value, const char *where)
{
    nic_add(&r->request, value, where);
}

static void set_boot(struct run *r, const char *value, const char *where)
{
    if (!*value || strlen(value) > 3 || strspn(value, "acdn") != strlen(value))
        bad_input("%s: '%s' is no boot order: up to three of a (floppy), c (disk), d (CD-ROM), n (network)", where,
                  value);
    r->request.boot = value;
}

static void set_firmware(struct run *r, const char *value, const char *where)
{
    (void)where;
    if (strcmp(value, "bios") && strcmp(value, "seabios"))
        r->request.firmware = value;
}

static void set_vga(struct run *r, const char *value, const char *where)
{
    static const char *const names[][2] = {{"std", "std"}, {"stdvga", "std"}, {"cirrus", "cirrus"}, {"none", "none"}};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(value, names[i][0])) {
            r->request.vga = names[i][1];
            return;
        }
    bad_input("%s: '%s' is no display: std, cirrus or none", where, value);
}

static void set_vnc(struct run *r, const char *value, const char *where)
{
    const char *colon = strrchr(value, ':');
    char *all;

    if (!colon || !colon[1])
        bad_input("%s: '%s' is no VNC display: HOST:DISPLAY, :DISPLAY or unix:PATH", where, value);
    r->request.vnc = value;
    /* QEMU would let the whole network in. */
    if (colon == value && asprintf(&all, "127.0.0.1%s", value) > 0)
        r->request.vnc = all;
}

static void set_serial(struct run *r, const char *value, const char *where)
{
    (void)where;
    r->request.serial = !strcmp(value, "stdio") ? "" : value;
}

static void set_qmp(struct run *r, const char *value, const char *where)
{
    const char *format =
        strchr(value, '/') || !strchr(value, ':') ? "unix:%s,server=on,wait=off" : "tcp:%s,server=on,wait=off";
    char *spec;

    if (!*value)
        bad_input("%s: the path of a socket, or HOST:PORT, is missing", where);
    for (unsigned i = 0; i < 2; i++)
        if (!strncmp(value, i ? "tcp:" : "unix:", i ? 4 : 5)) {
            format = i ? "tcp:%s,server=on,wait=off" : "unix:%s,server=on,wait=off";
            value += i ? 4 : 5;
            break;
        }
    if (asprintf(&spec, format, value) > 0)
        r->request.qmp = spec;
}

static void check_output(const char *path, const char *where)
{
    FILE *f = fopen(path, "w");

    if (!f || fclose(f))
        bad_input("%s: %s: %s", where, path, strerror(errno));
}

static void set_latency(struct run *r, const char *value, const char *where)
{
    check_output(value, where);
    r->request.latency = value;
}

static void set_timeout(struct run *r, const char *value, const char *where)
{
    char *rest;
    double seconds = strtod(value, &rest);

    if (rest == value || *rest || !(seconds > 0 && seconds < 1e9))
        bad_input("%s: '%s' is no number of seconds", where, value);
    r->timeout_ms = (uint64_t)(seconds * 1000);
}

static void set_expect(struct run *r, const char *value, const char *where)
{
    (void)where;
    r->expect = value;
}

static void set_module(struct run *r, const char *value, const char *where)
{
    (void)where;
    r->request.module = value;
}

static void set_append(struct run *r, const char *value, const char *where)
{
    if (strlen(value) > 2047)
        bad_input("%s: a command line has at most 2047 characters", where);
    r->request.append = value;
}

static void set_initrd(struct run *r, const char *value, const char *where)
{
    (void)where;
    r->request.initrd = value;
}

static void set_qemu_arg(struct run *r, const char *value, const char *where)
{
    if (r->request.qemu_args == REQUEST_MAX_QEMU_ARGS)
        bad_input("%s: more than %d of them", where, REQUEST_MAX_QEMU_ARGS);
    r->request.qemu_arg[r->request.qemu_args++] = value;
}

static void set_quiet(struct run *r, const char *value, const char *where)
{
    (void)value;
    (void)where;
    r->quiet = true;
}

static void set_detach(struct run *r, const char *value, const char *where)
{
    (void)value;
    (void)where;
    r->detach = true;
}

static void set_deterministic(struct run *r, const char *value, const char *where)
{
    (void)value;
    (void)where;
    r->deterministic = true;
}

static void set_trace(struct run *r, const char *value, const char *where)
{
    check_output(value, where);
    r->trace = value;
}

static void set_rtc(struct run *r, const char *value, const char *where)
{
    r->rtc_of_host = !strcmp(value, "host");
    if (!r->rtc_of_host && strcmp(value, "saved"))
        bad_input("%s: '%s' is neither saved nor host", where, value);
}

static void set_any_tsc(struct run *r, const char *value, const char *where)
{
    (void)value;
    (void)where;
    r->request.any_tsc = true;
}

static void set_ticks(struct run *r, const char *value, const char *where)
{
    const char *wrong = metronome_ticks_parse(value, &r->request.ticks);

    if (wrong)
        bad_input("%s: '%s': not SOURCE=POLICY; sources are pit, rtc, hpet, lapic; policies catch-up, burst, one-pending, drop",
                  where, wrong);
}

/* xl's: one policy for all sources, by name or number. */
static void set_timer_mode(struct run *r, const char *value, const char *where)
{
    static const struct {
        const char *name, *number;
        enum metronome_tick_policy policy;
    } modes[] = {
        {"delay_for_missed_ticks", "0", METRONOME_TICKS_CATCH_UP},
        {"no_delay_for_missed_ticks", "1", METRONOME_TICKS_BURST},
        {"no_missed_ticks_pending", "2", METRONOME_TICKS_DROP},
        {"one_missed_tick_pending", "3", METRONOME_TICKS_ONE_PENDING},
    };

    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (!strcmp(value, modes[i].name) || !strcmp(value, modes[i].number)) {
            r->request.ticks = 0;
            for (unsigned source = 0; source < METRONOME_TICK_SOURCE_COUNT; source++)
                r->request.ticks |= modes[i].policy << METRONOME_TICKS_SHIFT(source);
            return;
        }
    bad_input("%s: '%s' is no timer mode: delay_for_missed_ticks, no_delay_for_missed_ticks, no_missed_ticks_pending, "
              "one_missed_tick_pending, or 0 to 3", where, value);
}

/* Every option and configuration key. Keys that the command line writes otherwise come twice: without help, and with the
 * option's name. */
static const struct setting settings[] = {
    {"name", set_name, "NAME", "the guest's name", BOTH},
    {"memory", set_memory, "SIZE", "its memory in MiB, or with K, M, G [512]", SETTING_RUN},
    {"vcpus", set_vcpus, "N", "its virtual CPUs [1]; N,sockets=S: in that many packages [1]", SETTING_RUN},
    {"disk", set_disk, "SPEC",
     "a disk: FILE, or in xl's syntax FILE,FORMAT,VDEV,ACCESS; VDEV hd* is IDE, sd* AHCI, vd* virtio", SETTING_RUN},
    {"cdrom", set_cdrom, "FILE", "a CD-ROM drive with this image", SETTING_RUN | OPTION_ONLY},
    {"nic", set_nic, "SPEC", "a network card: MODEL[,mac=MAC][,net=NETDEV]; NETDEV is user, none or QEMU's -netdev", SETTING_RUN | OPTION_ONLY},
    {"vif", set_nic, "nic", NULL, SETTING_RUN},
    {"boot", set_boot, "ORDER", "boot order: letters of a, c, d, n", SETTING_RUN},
    {"firmware", set_firmware, "FILE", "the firmware's image [SeaBIOS]", SETTING_RUN},
    {"vga", set_vga, "TYPE", "std, cirrus or none [std]", SETTING_RUN},
    {"vnc", set_vnc, "DISPLAY", "a VNC server for its screen: [HOST]:N or unix:PATH", BOTH},
    {"serial", set_serial, "CHARDEV", "its serial console: stdio, none, or QEMU's -serial [stdio]", BOTH},
    {"qmp", set_qmp, "ADDRESS", "QEMU's control socket: PATH or HOST:PORT", BOTH | OPTION_ONLY},
    {"ticks", set_ticks, "SPEC", "what becomes of missed ticks: SOURCE=POLICY,...; SOURCE is pit, rtc, hpet or lapic, POLICY\n"
     "                       catch-up, burst, one-pending or drop [pit=burst,rtc=drop,hpet=drop,lapic=burst]", SETTING_RUN},
    {"timer_mode", set_timer_mode, "ticks", NULL, SETTING_RUN},
    {"module", set_module, "IMAGE", "start IMAGE without device model and firmware (bzImage, multiboot1, PVH)", SETTING_RUN | OPTION_ONLY},
    {"append", set_append, "TEXT", "the module's command line", SETTING_RUN | OPTION_ONLY},
    {"initrd", set_initrd, "FILE", "the module's initial RAM disk", SETTING_RUN | OPTION_ONLY},
    {"deterministic", set_deterministic, NULL, "a module's run in which the same inputs give the same outputs, to the byte",
     SETTING_RUN | OPTION_ONLY | FLAG},
    {"trace", set_trace, "FILE", "with --deterministic: write what the hypervisor did to this file, for xenalyze(1)", SETTING_RUN | OPTION_ONLY},
    {"latency", set_latency, "FILE", "write how long interrupts took, in histograms, to this file in JSON", BOTH | OPTION_ONLY},
    {"timeout", set_timeout, "SECONDS", "end, or leave a console, with status 3 after so long", ALL | OPTION_ONLY},
    {"expect", set_expect, "REGEX", "end, or leave a console, with status 0 as soon as a line of serial output matches",
     ALL | OPTION_ONLY},
    {"qemu-arg", set_qemu_arg, "ARG", "one more argument for the device model's QEMU", SETTING_RUN | OPTION_ONLY},
    {"quiet", set_quiet, NULL, "no progress and no table at the end", ALL | OPTION_ONLY | FLAG},
    {"detach", set_detach, NULL, "or -d: leave the guest as soon as it runs; `metronome console` is its terminal then",
     BOTH | OPTION_ONLY | FLAG},
    {"rtc", set_rtc, "WHICH", "its RTC goes on where it was: saved; or with the time that has passed: host [saved]",
     SETTING_RESTORE | OPTION_ONLY},
    {"any-tsc", set_any_tsc, NULL, "although the TSC runs at another rate here than where it was saved",
     SETTING_RESTORE | OPTION_ONLY | FLAG},
};
#define SETTINGS (sizeof settings / sizeof settings[0])

bool settings_is_key(const char *key)
{
    for (unsigned i = 0; i < SETTINGS; i++)
        if (!(settings[i].kind & OPTION_ONLY) && !strcmp(settings[i].name, key))
            return true;
    return false;
}

static void print_settings(unsigned kind)
{
    for (unsigned i = 0; i < SETTINGS; i++)
        if (settings[i].help && (settings[i].kind & kind))
            printf("  --%s%s%-*s %s\n", settings[i].name, settings[i].argument ? " " : "",
                   18 - (int)strlen(settings[i].name) - (settings[i].argument ? 1 : 0),
                   settings[i].argument ? settings[i].argument : "", settings[i].help);
}

/* A key of a configuration file. */
void settings_apply(struct run *r, const char *key, const char *value, const char *where)
{
    for (unsigned i = 0; i < SETTINGS; i++)
        if (!(settings[i].kind & OPTION_ONLY) && !strcmp(settings[i].name, key)) {
            settings[i].set(r, value, where);
            return;
        }
    bad_input("%s: unknown key", where);
}

static void set_option(struct run *r, unsigned i, const char *value)
{
    char where[32];

    snprintf(where, sizeof where, "--%s", settings[i].name);
    settings[i].set(r, value, where);
}

static void help(const struct command_line *c)
{
    puts(c->usage);
    print_settings(c->kind);
    printf("\nKeys: Ctrl-a x ends the guest, Ctrl-a d leaves it running, Ctrl-a c switches between it and QEMU's monitor,\n"
           "Ctrl-a h shows all.\n"
           "Exit status: 0 power-off, expected output or left, 1 ended without that output, 2 bad usage or input, 3 time-out,\n"
           "4 guest crash, 5 internal failure, 6 no hypervisor, 128+N ended by signal N.\n");
    exit(0);
}

/* The command's options, and where each stands in the table. */
static void list_options(const struct command_line *c, struct option *options, unsigned *places)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SETTINGS; i++)
        if (settings[i].kind & c->kind) {
            places[n] = i;
            options[n++] =
                (struct option){settings[i].name, settings[i].kind & FLAG ? no_argument : required_argument, NULL, 'o'};
        }
    options[n] = (struct option){"help", no_argument, NULL, 'h'};
    options[n + 1] = (struct option){0};
}

/* The file is read first, so that options go on top of it wherever they stand. */
void settings_from_arguments(struct run *r, const struct command_line *c, int argc, char **argv)
{
    struct option options[SETTINGS + 2] = {{0}};
    unsigned places[SETTINGS];
    int found, index = 0;

    list_options(c, options, places);
    for (unsigned pass = 0; pass < 2; pass++) {
        optind = 0;
        opterr = pass == 0;
        while ((found = getopt_long(argc, argv, c->kind & BOTH ? "hd" : "h", options, &index)) != -1) {
            if (found == 'h')
                help(c);
            if (found == 'd') {
                r->detach = true;
                continue;
            }
            if (found != 'o')
                exit(EXIT_USAGE); /* getopt has said why */
            if (!settings[places[index]].help)
                bad_input("--%s: a key of configuration files; the option is --%s", settings[places[index]].name,
                          settings[places[index]].argument);
            if (pass)
                set_option(r, places[index], optarg);
        }
        if (argc - optind > 1)
            bad_input("%s: only one %s can be given", argv[optind + 1], c->kind == SETTING_CONSOLE ? "guest" : "file");
        if (!pass && optind < argc)
            c->take_operand(r, argv[optind]);
    }
}
