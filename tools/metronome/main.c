#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errand.h"
#include "run.h"

#ifndef METRONOME_VERSION
#define METRONOME_VERSION "unknown"
#endif

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
        .read_file = read_config,
    };
    struct run r = {.image = -1};

    request_init(&r.request);
    r.request.memory = 512ull << 20;
    r.request.vcpus = 1;
    r.request.name = "guest";
    settings_from_arguments(&r, &command, argc, argv);
    check_run(&r);
    return session_run(&r);
}

static int restore(int argc, char **argv)
{
    static const struct command_line command = {
        .usage = "Usage: metronome restore [OPTION]... FILE\n"
                 "Goes on with a guest that `metronome save` has put into FILE, its serial console at the terminal.\n",
        .kind = SETTING_RESTORE,
        .read_file = restore_read,
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

static int help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("Usage: metronome COMMAND\n"
         "A hypervisor with the platform hardware inside and every other device in a stock QEMU.\n\n"
         "  run        boots a guest: `metronome run --help` tells how\n"
         "  save       puts a running guest into a file\n"
         "  restore    goes on with it\n"
         "  trigger    presses its NMI, power or reset button\n"
         "  --help     this text\n"
         "  --version  the version\n\n"
         "Example: metronome run --memory 512 --disk linux.img\n"
         "More: man metronome");
    return 0;
}

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
} commands[] = {
    {"run", run},      {"save", save_command}, {"restore", restore}, {"trigger", trigger_command},
    {"--help", help},  {"-h", help},           {"help", help},       {"--version", version},
};

int main(int argc, char **argv)
{
    if (argc < 2)
        bad_input("no command: try `metronome --help`");
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            argv[1] = "metronome";
            return commands[i].act(argc - 1, argv + 1);
        }
    bad_input("unknown command '%s': try `metronome --help`", argv[1]);
}
