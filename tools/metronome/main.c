#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errand.h"
#include "run.h"

const char *command_name;

void bad_input(const char *format, ...)
{
    va_list arguments;

    fputs("metronome: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_USAGE);
}

static void read_config(struct run *r, const char *path)
{
    config_read(r, r->config = path);
}

static int run(int argc, char **argv)
{
    static const struct command_line command = {
        .usage = "Usage: metronome run [OPTION]... [FILE.cfg]\n"
                 "Boots a guest; its serial console is the terminal. FILE.cfg is in the syntax of xl.cfg(5); options come "
                 "after it.\n",
        .kind = SETTING_RUN,
        .take_operand = read_config,
    };
    struct run r = {.image = -1};

    request_init(&r.request);
    r.request.memory = 512ull << 20;
    r.request.vcpus = r.request.sockets = 1;
    r.request.name = "guest";
    settings_from_arguments(&r, &command, argc, argv);
    check_run(&r);
    return r.deterministic ? deterministic_run(&r) : session_run(&r);
}

static int restore(int argc, char **argv)
{
    static const struct command_line command = {
        .usage = "Usage: metronome restore [OPTION]... FILE\n"
                 "Goes on with a guest that `metronome save` has put into FILE, its serial console at the terminal.\n",
        .kind = SETTING_RESTORE,
        .take_operand = restore_read,
    };
    struct run r = {.image = -1};

    request_init(&r.request);
    settings_from_arguments(&r, &command, argc, argv);
    if (r.image < 0)
        bad_input("which file? `metronome restore --help` tells more");
    if (!r.rtc_of_host)
        r.request.rtc_seconds = 0;
    check_restore(&r);
    return session_run(&r);
}

static void name_guest(struct run *r, const char *guest)
{
    r->guest = guest;
}

static int console(int argc, char **argv)
{
    static const struct command_line command = {
        .usage = "Usage: metronome console [OPTION]... GUEST\n"
                 "The terminal becomes the serial console of a guest that runs already. What it said while nobody was there "
                 "comes first.\nCtrl-] leaves it, as Ctrl-a d does; the guest goes on.\n",
        .kind = SETTING_CONSOLE,
        .take_operand = name_guest,
    };
    struct run r = {.image = -1};

    request_init(&r.request);
    settings_from_arguments(&r, &command, argc, argv);
    if (!r.guest)
        bad_input("which guest? `metronome list` shows them");
    check_console(&r);
    return session_run(&r);
}

static int help(int argc, char **argv);

static int version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("metronome " METRONOME_VERSION);
    return 0;
}

static const struct {
    const char *name;
    int (*act)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", run, "boots a guest"},
    {"list", list_command, "shows the guests"},
    {"console", console, "attaches to a guest's serial console"},
    {"pause", guest_command, "stops a guest's CPUs and clocks"},
    {"unpause", guest_command, "lets it go on"},
    {"shutdown", guest_command, "presses its power button"},
    {"reset", guest_command, "presses its reset button"},
    {"destroy", guest_command, "ends it at once"},
    {"trigger", trigger_command, "presses its NMI, power or reset button"},
    {"save", save_command, "puts a running guest into a file"},
    {"restore", restore, "goes on with it"},
    {"trace", trace_command, "writes what the hypervisor does to a file"},
    {"up", up_command, "starts a hypervisor that stays without guests"},
    {"down", down_command, "ends it"},
    {"info", info_command, "describes it"},
    {"top", top_command, "shows what guests do, again and again"},
    {"latency", latency_command, "shows how long interrupts take"},
    {"why-late", why_late_command, "shows what made the latest ones late"},
    {"--help", help, "this text; behind a command, what it takes"},
    {"--version", version, "the version"},
    {"-h", help, NULL},
    {"help", help, NULL},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static int help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("Usage: metronome COMMAND\n"
         "A hypervisor with the platform hardware inside and every other device in a stock QEMU.\n");
    for (unsigned i = 0; i < COMMANDS; i++)
        if (commands[i].help)
            printf("  %-10s %s\n", commands[i].name, commands[i].help);
    puts("\nExample: metronome run --memory 512 --disk linux.img\n"
         "More: man metronome");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        bad_input("no command: try `metronome --help`");
    for (unsigned i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            command_name = argv[1];
            argv[1] = "metronome";
            return commands[i].act(argc - 1, argv + 1);
        }
    bad_input("unknown command '%s': try `metronome --help`", argv[1]);
}
