/*
 * `metronome list` and `metronome info`: for people, or in JSON.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/host.h"
#include "errand.h"
#include "json.h"
#include "run.h"

#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)

static enum { TABLE, LONG, JSON } form;

const char *const guest_state_words[GUEST_STATES] = {
    [GUEST_STARTING] = "starting", [GUEST_RUNNING] = "running",   [GUEST_BLOCKED] = "blocked", [GUEST_PAUSED] = "paused",
    [GUEST_SHUTDOWN] = "shutdown", [GUEST_CRASHED] = "crashed", [GUEST_DYING] = "dying"};

/* xl's: running, blocked, paused, shut down, crashed, dying. What is being built is paused there, too. */
static const char *const letters[GUEST_STATES] = {
    [GUEST_STARTING] = "--p---", [GUEST_RUNNING] = "r-----", [GUEST_BLOCKED] = "-b----", [GUEST_PAUSED] = "--p---",
    [GUEST_SHUTDOWN] = "---s--", [GUEST_CRASHED] = "---sc-", [GUEST_DYING] = "-----d"};

/* ---- One fact after the other ---- */

static unsigned shown; /* of the object that is being printed */

static void begin_object(void)
{
    shown = 0;
    if (form == JSON)
        putchar('{');
}

static void key(const char *name)
{
    if (form == JSON)
        printf("%s\"%s\": ", shown++ ? ", " : "", name);
    else
        printf("%-22s : ", name);
}

static void end_value(void)
{
    if (form != JSON)
        putchar('\n');
}

static void number(const char *name, uint64_t value)
{
    key(name);
    printf("%" PRIu64, value);
    end_value();
}

static void fraction(const char *name, double value)
{
    key(name);
    printf("%.3f", value);
    end_value();
}

static void text(const char *name, const char *value)
{
    key(name);
    if (form != JSON) {
        printf("%s\n", value);
        return;
    }
    json_string(value);
}

static void end_object(void)
{
    if (form == JSON)
        putchar('}');
}

/* ---- Guests ---- */

static char **wanted; /* names and numbers; none: all */
static int wanted_count;
static bool *found;
static unsigned listed;

static bool is_wanted(const struct guest_facts *f)
{
    bool any = !wanted_count;
    char id[16];

    snprintf(id, sizeof id, "%" PRIu32, f->id);
    for (int i = 0; i < wanted_count; i++)
        if (!strcmp(wanted[i], f->name) || !strcmp(wanted[i], id))
            any = found[i] = true;
    return any;
}

static void row(const struct guest_facts *f)
{
    printf("%-40s %5" PRIu32 " %5" PRIu64 " %5" PRIu32 "  %s %8.1f\n", f->name, f->id, f->memory / MIB, f->vcpus,
           letters[f->state], (double)f->run_ns / 1e9);
}

static void describe(const struct guest_facts *f)
{
    begin_object();
    text("name", f->name);
    number("id", f->id);
    text("state", guest_state_words[f->state]);
    number("memory_mib", f->memory / MIB);
    number("vcpus", f->vcpus);
    fraction("cpu_s", (double)f->run_ns / 1e9);
    fraction("steal_s", (double)f->steal_ns / 1e9);
    fraction("age_s", (double)f->age_ms / 1e3);
    number("resets", f->resets);
    if (f->slot >= 0)
        number("slot", (uint64_t)f->slot);
    if (f->device_model)
        number("device_model_pid", (uint64_t)f->device_model);
    if (f->client)
        number("console_pid", (uint64_t)f->client);
    end_object();
}

static void on_guest(const void *fact)
{
    const struct guest_facts *f = fact;

    if (f->type != EVENT_GUEST || f->state >= GUEST_STATES || !is_wanted(f))
        return;
    if (form == TABLE) {
        row(f);
        return;
    }
    if (listed++)
        puts(form == JSON ? "," : "");
    describe(f);
}

static void take_form(int argc, char **argv, const char *letters_of_options, const char *help)
{
    static const struct option options[] = {
        {"long", no_argument, NULL, 'l'}, {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, letters_of_options, options, NULL)) != -1)
        if (option == 'h') {
            fputs(help, stdout);
            exit(0);
        } else if (option == 'l') {
            form = LONG;
        } else if (option == 'j') {
            form = JSON;
        } else {
            exit(EXIT_USAGE); /* getopt has said why */
        }
}

static int missing(void)
{
    for (int i = 0; i < wanted_count; i++)
        if (!found[i])
            bad_input("%s: no guest of this name or number is running", wanted[i]);
    return EXIT_ENDED;
}

int list_command(int argc, char **argv)
{
    int daemon, status;

    take_form(argc, argv, "hl",
              "Usage: metronome list [-l | --json] [GUEST]...\n"
              "Shows guests: number, memory in MiB, virtual CPUs, state and CPU time. States: r running, b blocked,\n"
              "p paused (or being built), s shut down, c crashed, d dying.\n\n"
              "  -l, --long  more of each\n"
              "  --json      all of that for programs\n");
    wanted = argv + optind;
    wanted_count = argc - optind;
    found = calloc((size_t)wanted_count + 1, sizeof *found);
    daemon = errand_connect();
    if (form == TABLE)
        printf("%-40s %5s %5s %5s  %-6s %8s\n", "Name", "ID", "Mem", "VCPUs", "State", "Time(s)");
    if (form == JSON)
        putchar('[');
    status = errand_to(daemon, &(struct errand_order){.type = ERRAND_LIST, .file = -1, .fact = on_guest}, NULL);
    if (form == JSON)
        puts("]");
    fflush(stdout);
    return status ? status : missing();
}

/* ---- The hypervisor ---- */

static void on_hypervisor(const void *fact)
{
    const struct hypervisor_facts *f = fact;

    begin_object();
    text("version", f->version);
    text("machine", f->machine);
    number("nr_cpus", f->pcpus);
    fraction("cpu_mhz", (double)f->tsc_hz / 1e6);
    number("tsc_hz", f->tsc_hz);
    number("total_memory", host_memory_bytes() / MIB);
    number("free_memory", host_available_bytes() / MIB);
    number("largest_guest", f->slot_memory / MIB);
    number("hypervisor_memory_kib", f->memory / KIB);
    number("hypervisor_free_kib", f->free_memory / KIB);
    number("slots", f->slots);
    number("free_slots", f->slots - f->slots_used - f->slots_lost);
    if (f->slots_lost)
        number("lost_slots", f->slots_lost);
    number("guests", f->guests);
    number("vcpus", f->vcpus);
    fraction("age_s", (double)f->age_ms / 1e3);
    text("ends", f->stays ? "by metronome down" : "with its last guest");
    text("log", f->log);
    end_object();
    if (form == JSON)
        putchar('\n');
}

int info_command(int argc, char **argv)
{
    form = LONG;
    take_form(argc, argv, "h",
              "Usage: metronome info [--json]\n"
              "Describes the hypervisor that is running. total_memory and free_memory are this computer's, which guests have\n"
              "theirs from, in MiB as largest_guest; the hypervisor's own are beside them.\n");
    if (optind < argc)
        bad_input("info takes no arguments");
    return errand(&(struct errand_order){.type = ERRAND_INFO, .file = -1, .fact = on_hypervisor});
}
