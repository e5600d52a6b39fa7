/*
 * `metronome trace`: what the hypervisor that runs does, into a file. The daemon gives us the memory of its rings, which we empty
 * until we are told to end, or until it says that nothing is traced any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "daemon/packet.h"
#include "errand.h"
#include "perfetto.h"
#include "public/control.h"
#include "public/trace_events.h"
#include "run.h"
#include "trace.h"

#define LOOK_MS          10
#define STOP_PATIENCE_MS 10000
#define MOST_SECONDS     1000000
#define MOST_HZ          1e12
#define WHO_RUNS         0x00021000u /* of the mask: without it no record could be told to be a guest's */

static const char help[] =
    "Usage: metronome trace [-e MASK] [-o FILE] [--perfetto] [--seconds N] [GUEST]...\n"
    "       metronome trace --perfetto -i FILE [--cpu-hz HZ] [-o FILE]\n"
    "Writes what the hypervisor does into FILE, in the format that xenalyze(1) reads: until Ctrl-c, until the guests that are\n"
    "named have ended, or until the hypervisor ends. Without guests all of them are traced, and those to come.\n\n"
    "  -e, --events MASK  Xen's classes of events (all, gen, sched, dom0op, hvm, mem, pv, shadow, hw), separated by commas, or\n"
    "                     a number; xenalyze needs sched and hvm. What Xen does not have is in hw [all]\n"
    "  -o, --output FILE  - for standard output [-]\n"
    "  --seconds N        end after so long\n"
    "  --perfetto         write a timeline instead, in JSON, that Perfetto's viewer (ui.perfetto.dev) opens\n"
    "  -i, --input FILE   of this trace, with --perfetto\n"
    "  --cpu-hz HZ        how many TSC ticks a second had, where the trace does not say it\n"
    "  --help             this text\n";

struct tracing {
    struct trace_reader reader;
    const char *path;  /* of what is written at the end */
    const char *input; /* NULL: what runs */
    bool perfetto;
    double seconds, cpu_hz;
    char **names;
    int guests;           /* of those that were named, how many have not ended */
    struct pollfd *fds;   /* the trace's connection, then one for each guest */
    int named;
    bool gone; /* the daemon, before we were done */
};

/* ---- What was asked for ---- */

static const struct {
    const char *name;
    uint32_t mask;
} classes[] = {
    {"all", METRONOME_TRACE_ALL}, {"gen", 0x0001f000}, {"sched", METRONOME_TRACE_SCHED}, {"dom0op", 0x0004f000},
    {"hvm", METRONOME_TRACE_HVM}, {"mem", 0x0010f000}, {"pv", 0x0020f000},               {"shadow", 0x0040f000},
    {"hw", METRONOME_TRACE_OWN},
};

static uint32_t class_or_number(const char *word)
{
    char *rest;
    unsigned long long n = strtoull(word, &rest, 0);

    for (unsigned i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (!strcmp(word, classes[i].name))
            return classes[i].mask;
    if (rest == word || *rest || n > UINT32_MAX || *word == '-')
        bad_input("--events: '%s' is no class of events, and no mask: `metronome trace --help` has them", word);
    return (uint32_t)n;
}

static uint32_t mask_of(const char *words)
{
    char *copy = strdup(words), *rest = copy, *word;
    uint32_t mask = 0;

    while ((word = strsep(&rest, ",")))
        mask |= class_or_number(word);
    free(copy);
    if (!(mask & METRONOME_TRACE_ALL) >> 16 || !(mask & METRONOME_TRACE_SUBCLASSES))
        bad_input("--events: '%s' chooses no event", words);
    return mask & METRONOME_TRACE_ALL;
}

static double number_of(const char *option, const char *value, double most, const char *what)
{
    char *rest;
    double n = strtod(value, &rest);

    if (rest == value || *rest || !(n > 0 && n <= most))
        bad_input("--%s: '%s' is no number of %s", option, value, what);
    return n;
}

/* ---- The daemon ---- */

union answer {
    struct event event;
    struct guest_facts guest;
};

/* Ends the program where it is refused. `file`: that came with it. */
static void take_answer(int daemon, const char *guest, union answer *a, int *file)
{
    int fds[PACKET_MOST_FDS];
    unsigned fd_count = 0;
    ssize_t n;

    do
        n = packet_receive(daemon, a, sizeof *a, fds, &fd_count, 0);
    while (n == sizeof a->event && a->event.type == EVENT_PROGRESS);
    if (n <= 0) {
        fputs("metronome: the daemon has ended, and its guests with it\n", stderr);
        exit(EXIT_NOT_UP);
    }
    if (n == sizeof a->event && a->event.type == EVENT_REFUSED) {
        fprintf(stderr, "metronome: %s%s%.500s\n", guest, *guest ? ": " : "", a->event.text);
        exit((int)a->event.status);
    }
    if (file && fd_count == 1)
        *file = fds[0];
}

static int ask(enum errand_type type, const char *guest, uint32_t flags)
{
    struct errand e = {ERRAND_MAGIC, PROTOCOL_VERSION, type, flags, ""};
    int daemon = errand_connect();

    if (strlen(guest) >= sizeof e.guest)
        bad_input("%s: a name has 1 to 63 characters", guest);
    strcpy(e.guest, guest);
    packet_send(daemon, &e, sizeof e, NULL, 0, 0); /* else no answer comes either */
    return daemon;
}

/* The guests that are named: their slots are their numbers in the trace, and each end is heard of. */
static void find_guests(struct tracing *t)
{
    for (int i = 0; i < t->named; i++) {
        union answer a;

        if (!*t->names[i])
            bad_input("a name has 1 to 63 characters");
        t->fds[i + 1] = (struct pollfd){.fd = ask(ERRAND_AWAIT, t->names[i], 0), .events = POLLIN};
        take_answer(t->fds[i + 1].fd, t->names[i], &a, NULL);
        t->reader.choice.domains |= 1u << (a.guest.slot & 31);
    }
}

/* From here on the rings fill. */
static void begin(struct tracing *t)
{
    const struct metronome_control_header *control = MAP_FAILED;
    uint32_t mask = t->reader.choice.mask | (t->named ? WHO_RUNS : 0);
    int memory = -1, daemon = ask(ERRAND_TRACE, "", mask);
    union answer a;

    t->fds[0] = (struct pollfd){.fd = daemon, .events = POLLIN};
    take_answer(daemon, "", &a, &memory);
    if (memory >= 0)
        control = mmap(NULL, METRONOME_CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (control == MAP_FAILED) {
        fputs("metronome: the daemon gives no access to the trace\n", stderr);
        exit(EXIT_INTERNAL);
    }
    t->reader.tsc_hz = control->tsc_hz;
    if (!trace_open(&t->reader, (void *)((char *)control + METRONOME_CONTROL_TRACE), METRONOME_CONTROL_BYTES - METRONOME_CONTROL_TRACE)) {
        fprintf(stderr, "metronome: %s\n", t->reader.error);
        exit(EXIT_INTERNAL);
    }
}

/* ---- The end ---- */

static int connection;
static volatile sig_atomic_t told; /* the daemon, that it is to end */

static void stop(void)
{
    const struct order order = {ORDER_STOP};

    if (!told)
        send(connection, &order, sizeof order, MSG_NOSIGNAL | MSG_DONTWAIT);
    told = true;
}

/* A second one ends us: what takes our file may be stuck. */
static void on_signal(int number)
{
    int error = errno;

    (void)number;
    stop();
    errno = error;
}

static void take_signals(int daemon, double seconds)
{
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    const struct itimerval timer = {.it_value = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};

    connection = daemon;
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    if (seconds > 0)
        setitimer(ITIMER_REAL, &timer, NULL);
}

/* ---- The trace ---- */

static bool is_standard(const char *path)
{
    return !strcmp(path, "-");
}

static int open_file(const char *path)
{
    int fd = is_standard(path) ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0)
        bad_input("%s: %s", path, strerror(errno));
    return fd;
}

/* For a trace that is not what was asked for: beside that, where there may be as much room. It goes with us. */
static int open_nameless(const char *path)
{
    char *name;
    int fd;

    if (asprintf(&name, "%s.XXXXXX", is_standard(path) ? "/tmp/metronome" : path) < 0)
        exit(EXIT_INTERNAL);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        bad_input("%s: %s", path, strerror(errno));
    unlink(name);
    free(name);
    return fd;
}

/* False: nothing is traced any more. */
static bool look(struct tracing *t)
{
    struct event e;

    if (poll(t->fds, (nfds_t)t->named + 1, LOOK_MS) < 0)
        return true;
    for (int i = 1; i <= t->named; i++)
        if (t->fds[i].revents) {
            t->fds[i].fd = -1;
            t->guests--;
        }
    if (t->named && !t->guests)
        stop();
    if (!t->fds[0].revents)
        return true;
    t->gone = recv(t->fds[0].fd, &e, sizeof e, 0) <= 0;
    return false;
}

static bool read_rings(struct tracing *t)
{
    unsigned waited = 0;

    while (look(t)) {
        if (!trace_take(&t->reader))
            return false;
        if (told && ++waited > STOP_PATIENCE_MS / LOOK_MS) {
            t->reader.error = "the hypervisor does not answer";
            return false;
        }
    }
    return trace_take_rest(&t->reader);
}

static int failed(const char *path, const char *why)
{
    fprintf(stderr, "metronome: %s: %s\n", is_standard(path) ? "standard output" : path, why);
    return EXIT_INTERNAL;
}

/* The trace in `file` as a timeline. */
static int convert(const struct tracing *t, int file, const char *name)
{
    FILE *to = fdopen(open_file(t->path), "w");
    const char *why = NULL;
    bool whole = to && perfetto_write(file, (uint64_t)t->cpu_hz, to, &why);

    if (why)
        bad_input("%s: %s", name, why);
    if (!whole || ferror(to) || fclose(to))
        return failed(t->path, strerror(errno));
    return EXIT_ENDED;
}

static int trace(struct tracing *t)
{
    const struct trace_reader *r = &t->reader;
    bool whole;

    find_guests(t);
    begin(t);
    t->reader.to = t->perfetto ? open_nameless(t->path) : open_file(t->path);
    take_signals(t->fds[0].fd, t->seconds);
    whole = read_rings(t);
    if (!whole && !t->perfetto && !is_standard(t->path) && ftruncate(r->to, (off_t)r->bytes) == 0)
        lseek(r->to, 0, SEEK_END); /* it ends with a whole record */
    if (!whole)
        return failed(t->path, r->error);
    fprintf(stderr, "metronome: %s%" PRIu64 " records, %" PRIu64 " lost, %" PRIu64 " bytes\n",
            t->gone ? "the hypervisor has ended: " : "", r->records, r->lost, r->bytes);
    return t->perfetto && r->records ? convert(t, r->to, t->path) : EXIT_ENDED;
}

static int convert_file(const struct tracing *t)
{
    int file = open(t->input, O_RDONLY | O_CLOEXEC);

    if (file < 0)
        bad_input("%s: %s", t->input, strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    return convert(t, file, t->input);
}

static void check(const struct tracing *t)
{
    if (is_standard(t->path) && isatty(STDOUT_FILENO))
        bad_input("a trace is nothing for a terminal: -o FILE");
    if (t->input && !t->perfetto)
        bad_input("--input: a trace is read only to make a timeline of it: --perfetto");
    if (t->input && (t->named || t->seconds > 0 || t->reader.choice.mask != METRONOME_TRACE_ALL))
        bad_input("--input: all of it becomes a timeline: no guests, --events or --seconds");
    if (t->cpu_hz > 0 && !t->input)
        bad_input("--cpu-hz: goes with --input: the hypervisor that runs says it itself");
}

int trace_command(int argc, char **argv)
{
    static const struct option options[] = {{"events", required_argument, NULL, 'e'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"perfetto", no_argument, NULL, 'p'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"cpu-hz", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct tracing t = {.path = "-", .reader.choice.mask = METRONOME_TRACE_ALL};
    int option;

    while ((option = getopt_long(argc, argv, "e:o:i:h", options, NULL)) != -1)
        switch (option) {
        case 'e': t.reader.choice.mask = mask_of(optarg); break;
        case 'o': t.path = optarg; break;
        case 's': t.seconds = number_of("seconds", optarg, MOST_SECONDS, "seconds"); break;
        case 'p': t.perfetto = true; break;
        case 'i': t.input = optarg; break;
        case 'c': t.cpu_hz = number_of("cpu-hz", optarg, MOST_HZ, "ticks a second"); break;
        case 'h': fputs(help, stdout); return 0;
        default: return EXIT_USAGE; /* getopt has said why */
        }
    t.names = argv + optind;
    t.guests = t.named = argc - optind;
    check(&t);
    t.fds = calloc((size_t)t.named + 1, sizeof *t.fds);
    return t.input ? convert_file(&t) : trace(&t);
}
