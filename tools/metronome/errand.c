#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "errand.h"
#include "run.h"

int errand(int daemon, const char *guest, enum errand_type type, uint32_t flags, int fd)
{
    struct errand e = {ERRAND_MAGIC, PROTOCOL_VERSION, type, flags, ""};
    struct event answer = {.type = EVENT_REFUSED, .status = EXIT_INTERNAL, .text = "the daemon is gone, and the guest with it"};

    if (strlen(guest) >= sizeof e.guest)
        bad_input("%s: a name has 1 to 63 characters", guest);
    strcpy(e.guest, guest);
    if (client_send(daemon, &e, sizeof e, &fd, fd >= 0) && recv(daemon, &answer, sizeof answer, 0) == sizeof answer &&
        answer.type == EVENT_ENDED)
        return EXIT_ENDED;
    answer.text[sizeof answer.text - 1] = 0;
    fprintf(stderr, "metronome: %s: %s\n", guest, answer.text);
    return answer.status ? (int)answer.status : EXIT_INTERNAL;
}

static const char help[] = "Usage: metronome trigger GUEST nmi|power|reset\n"
                           "Presses a button of a running guest's board: NMI (which its port 0x70 can mask), power or reset.\n";

int trigger_command(int argc, char **argv)
{
    static const char *const names[TRIGGERS] = {[TRIGGER_NMI] = "nmi", [TRIGGER_POWER] = "power", [TRIGGER_RESET] = "reset"};
    int daemon;

    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(help, stdout);
        return 0;
    }
    if (argc != 3)
        bad_input("trigger takes a guest and a button: `metronome trigger --help` tells more");
    for (uint32_t i = 0; i < TRIGGERS; i++)
        if (!strcmp(argv[2], names[i])) {
            daemon = client_connect_running();
            if (daemon < 0)
                bad_input("no guest is running");
            return errand(daemon, argv[1], ERRAND_TRIGGER, i, -1);
        }
    bad_input("%s: is no button: nmi, power or reset", argv[2]);
}
