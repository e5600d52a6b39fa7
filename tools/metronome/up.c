/*
 * `metronome up` and `metronome down`.
 */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "daemon/paths.h"
#include "errand.h"
#include "progress.h"
#include "run.h"

#define LEAST_MEMORY_MIB 16ull
#define MOST_MEMORY_MIB  65536ull
#define MOST_CPUS        64ull

static const char up_help[] =
    "Usage: metronome up [--cpus N] [--memory MIB]\n"
    "Starts a hypervisor that stays without guests, until `metronome down`. One that runs already stays from now on.\n\n"
    "  --cpus N      its CPUs [one less than this computer has]\n"
    "  --memory MIB  its own memory; guests have theirs from this computer [256]\n"
    "  --quiet       say nothing\n";

static const char down_help[] = "Usage: metronome down [-f]\n"
                                "Ends the hypervisor, if no guest is running.\n\n"
                                "  -f, --force  the guests end with it\n";

static void take_number(const char *option, const char *variable, const char *value, unsigned long long least,
                        unsigned long long most)
{
    char *rest;
    unsigned long long n = strtoull(value, &rest, 10);

    if (rest == value || *rest || n < least || n > most)
        bad_input("--%s: '%s' is no number from %llu to %llu", option, value, least, most);
    setenv(variable, value, 1);
}

/* What the daemon will need, before one is started. */
static void check(void)
{
    char path[PATH_MAX];

    if (!find_outer_qemu(path))
        bad_input("no QEMU to run the hypervisor in: install the package qemu-system-x86");
}

static int up(bool chosen, bool quiet)
{
    char error[400], machine[512];
    int daemon, status;

    progress_init(quiet);
    check();
    daemon = client_connect(error, sizeof error);
    if (daemon < 0) {
        fprintf(stderr, "metronome: %s\n", error);
        return EXIT_INTERNAL;
    }
    if (chosen && !client_started_daemon())
        bad_input("a hypervisor is running already: its CPUs and memory are chosen when it starts");
    status = errand_to(daemon, &(struct errand_order){.type = ERRAND_UP, .file = -1}, machine);
    if (!status && !quiet)
        fprintf(stderr, "metronome: up%s: %s\n", client_started_daemon() ? "" : " already", machine);
    return status;
}

int up_command(int argc, char **argv)
{
    static const struct option options[] = {{"cpus", required_argument, NULL, 'c'},
                                            {"memory", required_argument, NULL, 'm'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool chosen = false, quiet = false;
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        switch (option) {
        case 'h':
            fputs(up_help, stdout);
            return 0;
        case 'q':
            quiet = true;
            break;
        case 'c':
            take_number("cpus", "METRONOME_PCPUS", optarg, 1, MOST_CPUS);
            chosen = true;
            break;
        case 'm':
            take_number("memory", "METRONOME_MEMORY", optarg, LEAST_MEMORY_MIB, MOST_MEMORY_MIB);
            chosen = true;
            break;
        default:
            return EXIT_USAGE; /* getopt has said why */
        }
    if (optind < argc)
        bad_input("up takes no arguments but options");
    return up(chosen, quiet);
}

int down_command(int argc, char **argv)
{
    static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct errand_order o = {.type = ERRAND_DOWN, .file = -1};
    int option;

    while ((option = getopt_long(argc, argv, "hf", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(down_help, stdout);
            return 0;
        }
        if (option != 'f')
            return EXIT_USAGE; /* getopt has said why */
        o.flags = ERRAND_FORCE;
    }
    if (optind < argc)
        bad_input("down takes no arguments but options");
    return errand(&o);
}
