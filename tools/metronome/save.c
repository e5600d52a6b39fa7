/*
 * `metronome save`, and the reading of what it has written for `metronome restore`.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/image.h"
#include "errand.h"
#include "run.h"

static const char help[] =
    "Usage: metronome save [-c] GUEST FILE\n"
    "Puts a running guest, given by name or number, into FILE and ends it; `metronome restore FILE` goes on with it.\n"
    "Its disks stay where they are, and must be then what they are now.\n\n"
    "  -c, --continue  the guest goes on here\n"
    "  --help          this text\n";

/* The file appears when it is complete: a save that fails leaves what was there before. Until then it has a name of its own,
 * whoever else saves to the same. */
struct target {
    const char *path;
    char *partial;
    int fd;
};

static void open_target(struct target *t)
{
    struct stat st;

    if (!stat(t->path, &st) && !S_ISREG(st.st_mode))
        bad_input("%s: is no plain file", t->path);
    if (asprintf(&t->partial, "%s.XXXXXX", t->path) < 0)
        exit(EXIT_INTERNAL);
    t->fd = mkostemp(t->partial, O_CLOEXEC);
    if (t->fd < 0)
        bad_input("%s: %s", t->path, strerror(errno));
}

/* The guest has ended by now: its file is not given up. */
static int keep_target(struct target *t)
{
    if (!rename(t->partial, t->path))
        return EXIT_ENDED;
    fprintf(stderr, "metronome: %s: %s: it is in %s\n", t->path, strerror(errno), t->partial);
    return EXIT_INTERNAL;
}

static int connection;
static volatile sig_atomic_t interrupted; /* signal that did it */

/* Tells the daemon, which may have saved the guest by then: its answer counts. A second signal ends us. */
static void on_signal(int number)
{
    interrupted = number;
    shutdown(connection, SHUT_WR);
}

static void take_signals(void)
{
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};

    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

static int save(const char *guest, struct target *t, uint32_t flags)
{
    int status;

    connection = errand_connect();
    take_signals();
    open_target(t);
    status = errand_to(connection, &(struct errand_order){ERRAND_SAVE, guest, flags, t->fd, NULL}, NULL);
    if (!status)
        return keep_target(t);
    unlink(t->partial);
    return interrupted ? 128 + interrupted : status;
}

int save_command(int argc, char **argv)
{
    static const struct option options[] = {{"continue", no_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct target t = {.fd = -1};
    uint32_t flags = 0;
    int found;

    while ((found = getopt_long(argc, argv, "ch", options, NULL)) != -1)
        switch (found) {
        case 'c':
            flags = ERRAND_LEAVE_RUNNING;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return EXIT_USAGE; /* getopt has said why */
        }
    if (argc - optind != 2)
        bad_input("save takes a guest and a file: `metronome save --help` tells more");
    t.path = argv[optind + 1];
    return save(argv[optind], &t, flags);
}

/* ---- Reading ---- */

static uint64_t seconds_since(int64_t wallclock)
{
    int64_t passed = (int64_t)time(NULL) - wallclock;

    return passed > 0 ? (uint64_t)passed : 0;
}

/* All of the file is checked before anything starts. From here on its paths start where the guest's did. */
void restore_read(struct run *r, const char *path)
{
    static struct image image;
    char why[300];

    r->image = open(path, O_RDONLY | O_CLOEXEC);
    if (r->image < 0)
        bad_input("%s: %s", path, strerror(errno));
    if (!image_read(r->image, &image, why, sizeof why))
        bad_input("%s: %s", path, why);
    if (!request_unpack(&r->request, image.request, image.request_bytes))
        bad_input("%s: was saved by another version of Metronome", path);
    if (image.has_devices == !!*r->request.module)
        bad_input("%s: is damaged: the devices in it are not those of the guest", path);
    if (chdir(image.guest.folder))
        bad_input("%s: the guest was started in %s: %s", path, image.guest.folder, strerror(errno));
    r->request.rtc_seconds = seconds_since(image.guest.wallclock);
    r->request.any_tsc = false; /* which was said for that restoring, if this is of a guest that was restored */
}
