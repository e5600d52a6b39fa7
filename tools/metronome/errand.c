#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon/packet.h"
#include "errand.h"
#include "progress.h"
#include "run.h"

#define END_PATIENCE_MS 30000 /* of the hypervisor, where it ends with what was asked for */

union answer {
    struct event event;
    struct guest_facts guest;
    struct hypervisor_facts hypervisor;
};

static void no_answer(union answer *a, int status, const char *text)
{
    a->event = (struct event){.type = EVENT_REFUSED, .status = (uint32_t)status};
    snprintf(a->event.text, sizeof a->event.text, "%s", text);
}

/* Up to the event that ends it. */
static void take_answer(int daemon, const struct errand_order *o, union answer *a)
{
    for (;;) {
        ssize_t n = recv(daemon, a, sizeof *a, 0);

        if (n <= 0) {
            no_answer(a, EXIT_NOT_UP, "the daemon has ended, and its guests with it");
        } else if (n == sizeof a->guest || n == sizeof a->hypervisor) {
            if (o->fact)
                o->fact(a);
            continue;
        } else if (n != sizeof a->event) {
            no_answer(a, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
        }
        a->event.text[sizeof a->event.text - 1] = 0;
        if (a->event.type != EVENT_PROGRESS)
            return;
        progress_step(a->event.text);
    }
}

int errand_to(int daemon, const struct errand_order *o, char text[512])
{
    struct errand e = {ERRAND_MAGIC, PROTOCOL_VERSION, o->type, o->flags, ""};
    union answer a;

    if (o->guest && (!*o->guest || strlen(o->guest) >= sizeof e.guest))
        bad_input("%s: a name has 1 to 63 characters", o->guest);
    if (o->guest)
        strcpy(e.guest, o->guest);
    packet_send(daemon, &e, sizeof e, &o->file, o->file >= 0, 0); /* else no answer comes either */
    take_answer(daemon, o, &a);
    progress_done(NULL);
    if (text)
        memcpy(text, a.event.text, sizeof a.event.text);
    if (a.event.type == EVENT_ENDED) {
        if (client_leave(daemon, END_PATIENCE_MS))
            return EXIT_ENDED;
        snprintf(a.event.text, sizeof a.event.text, "the daemon does not end");
        a.event.status = EXIT_INTERNAL;
    }
    fprintf(stderr, "metronome: %s%s%s\n", o->guest ? o->guest : "", o->guest ? ": " : "", a.event.text);
    return a.event.status ? (int)a.event.status : EXIT_INTERNAL;
}

int errand_connect(void)
{
    int daemon = client_connect_running();

    if (daemon >= 0)
        return daemon;
    fputs("metronome: " NOT_UP "\n", stderr);
    exit(EXIT_NOT_UP);
}

int errand(const struct errand_order *o)
{
    return errand_to(errand_connect(), o, NULL);
}

/* ---- Commands that are about one guest ---- */

static const struct {
    const char *name;
    enum errand_type type;
    const char *help;
    uint32_t wait; /* the flag that -w stands for; 0: there is none */
} commands[] = {
    {"pause", ERRAND_PAUSE, "Stops a guest's CPUs and clocks.\n", 0},
    {"unpause", ERRAND_UNPAUSE, "Lets a paused guest go on.\n", 0},
    {"reset", ERRAND_RESET, "Presses a guest's reset button, and waits until it starts again. A paused one runs then.\n", 0},
    {"destroy", ERRAND_DESTROY, "Ends a guest at once, as if its plug were pulled, and waits until nothing of it is left.\n", 0},
    {"shutdown", ERRAND_POWER_BUTTON,
     "Presses a guest's power button. What that does is up to the guest.\n\n  -w, --wait  for its end\n", ERRAND_WAIT},
};

int guest_command(int argc, char **argv)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {"wait", no_argument, NULL, 'w'}, {0}};
    struct errand_order o = {.file = -1};
    unsigned i = 0;
    int found;

    while (strcmp(commands[i].name, command_name))
        i++;
    o.type = commands[i].type;
    while ((found = getopt_long(argc, argv, "hw", options, NULL)) != -1) {
        if (found == 'h') {
            printf("Usage: metronome %s%s GUEST\n%s", command_name, commands[i].wait ? " [-w]" : "", commands[i].help);
            return 0;
        }
        if (found != 'w')
            return EXIT_USAGE; /* getopt has said why */
        if (!commands[i].wait)
            bad_input("%s takes no -w: it waits anyway", command_name);
        o.flags = commands[i].wait;
    }
    if (argc - optind != 1)
        bad_input("%s takes a guest: its name or number", command_name);
    o.guest = argv[optind];
    return errand(&o);
}

static const char trigger_help[] =
    "Usage: metronome trigger GUEST nmi|power|reset\n"
    "Presses a button of a running guest's board: NMI (which its port 0x70 can mask), power or reset.\n";

int trigger_command(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum errand_type type;
    } buttons[] = {{"nmi", ERRAND_NMI}, {"power", ERRAND_POWER_BUTTON}, {"reset", ERRAND_RESET}};

    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(trigger_help, stdout);
        return 0;
    }
    if (argc != 3)
        bad_input("trigger takes a guest and a button: `metronome trigger --help` tells more");
    for (unsigned i = 0; i < sizeof buttons / sizeof buttons[0]; i++)
        if (!strcmp(argv[2], buttons[i].name))
            return errand(&(struct errand_order){.type = buttons[i].type, .guest = argv[1], .file = -1});
    bad_input("%s: is no button: nmi, power or reset", argv[2]);
}
