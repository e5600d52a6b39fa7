/*
 * A guest's time at a terminal: from the daemon's start, or from our coming, to the last page given back, or our leaving.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach.h"
#include "client.h"
#include "daemon/packet.h"
#include "daemon/paths.h"
#include "expect.h"
#include "progress.h"
#include "run.h"
#include "terminal.h"

#define TICK_MS            100
#define KEYS_BYTES         4096  /* that a guest has not taken: more stay where they are typed */
#define GATHER_MS 1           /* a serial port's bytes come one by one: those of so long together, for one wake-up */
#define LAST_WORDS_MS      500   /* output that is still on its way when the guest has ended */
#define STOP_PATIENCE_S    20    /* between asking for the guest's end and hearing of it */
#define DAEMON_PATIENCE_MS 10000 /* for the hypervisor's end, after ours */

enum { AT_STDIN, AT_SERIAL, AT_MONITOR, AT_MESSAGES, AT_DAEMON, AT_SIGNALS, PLACES };

/* Typed, and not sent yet: who waited for a guest to take it would not read what the guest says, and that may wait too. */
struct keys {
    char bytes[KEYS_BYTES];
    size_t n;
};

struct session {
    struct run *run;
    struct attachment at;
    int signals;
    bool in_monitor, monitor_shown, stdin_open;
    struct keys keys[STREAMS];
    bool asked; /* the daemon, for the guest's end or our leaving it */
    bool detaching;
    bool ended; /* the guest has, or is left */
    bool mid_line; /* the guest's last output was not the end of a line */
    struct event end;
    int status; /* why we asked: -1: we did not, or the daemon knows better */
    char why[200];
    double asked_at;
    char message[400]; /* of the device model, being read */
    size_t message_bytes;
    char early[600]; /* what it said before the guest ran: why it does not, or warnings */
    bool running;
};

static void order(struct session *s, enum order_type type)
{
    struct order o = {type};

    packet_send(s->at.daemon, &o, sizeof o, NULL, 0, 0);
}

static void ask(struct session *s, enum order_type type, int status, const char *why)
{
    if (s->asked || s->ended)
        return;
    s->asked = true;
    s->detaching = type == ORDER_DETACH;
    s->asked_at = progress_seconds();
    s->status = status;
    snprintf(s->why, sizeof s->why, "%s", why);
    order(s, type);
}

/* Whose guest it is ends it; another leaves it as it is. */
static void stop(struct session *s, int status, const char *why)
{
    ask(s, s->run->guest ? ORDER_DETACH : ORDER_STOP, status, why);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* What the guest or the monitor says. */
static void show(struct session *s, int *from, bool is_serial)
{
    char bytes[8192];
    ssize_t n = read(*from, bytes, sizeof bytes);

    if (n <= 0) {
        if (!n || errno != EAGAIN)
            close_fd(from);
        return;
    }
    if (!s->run->guest)
        progress_done("running"); /* its first output may come before the daemon's word */
    s->mid_line = bytes[n - 1] != '\n';
    if (!terminal_write(bytes, (size_t)n))
        stop(s, EXIT_INTERNAL, "standard output is gone");
    if (is_serial && expect_feed(bytes, (size_t)n))
        stop(s, EXIT_ENDED, "the expected output was seen");
}

/* That the daemon has ended QEMU, and what every QEMU says that loads a saved state under this machine type. */
static bool is_no_news(const char *message)
{
    static const char *const known[] = {"terminating on signal", "when runstate is INMIGRATE", "Replacing a dummy mapcache entry",
                                        "Expected vmdescription section"};

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(message, known[i]))
            return true;
    return false;
}

static void show_message(struct session *s)
{
    size_t n = strlen(s->early);

    s->message[s->message_bytes] = 0;
    if (!s->message_bytes || is_no_news(s->message))
        ;
    else if (s->running)
        fprintf(stderr, "metronome: device model: %s\n", s->message);
    else
        snprintf(s->early + n, sizeof s->early - n, "%s%s", n ? "; " : "", s->message);
    s->message_bytes = 0;
}

static void now_running(struct session *s)
{
    progress_done(s->run->guest ? NULL : "running");
    if (*s->early)
        fprintf(stderr, "metronome: device model: %s\n", s->early);
    *s->early = 0;
    s->running = true;
    if (s->run->detach)
        ask(s, ORDER_DETACH, EXIT_ENDED, "");
}

static void show_messages(struct session *s)
{
    char bytes[1024];
    ssize_t n = read(s->at.stream[STREAM_MESSAGES], bytes, sizeof bytes);

    if (n <= 0)
        close_fd(&s->at.stream[STREAM_MESSAGES]);
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\n')
            show_message(s);
        else if (s->message_bytes < sizeof s->message - 1)
            s->message[s->message_bytes++] = bytes[i];
    if (n <= 0)
        show_message(s);
}

static unsigned keys_go_to(const struct session *s)
{
    return s->in_monitor ? STREAM_MONITOR : STREAM_SERIAL;
}

static void send_keys(struct session *s, unsigned stream)
{
    struct keys *k = &s->keys[stream];
    ssize_t sent = k->n ? send(s->at.stream[stream], k->bytes, k->n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        k->n = 0; /* nobody is there any more */
    if (sent <= 0)
        return;
    k->n -= (size_t)sent;
    memmove(k->bytes, k->bytes + sent, k->n);
}

/* No more than there is room for. */
static void add_keys(struct session *s, const char *bytes, size_t n)
{
    struct keys *k = &s->keys[keys_go_to(s)];

    memcpy(k->bytes + k->n, bytes, n);
    k->n += n;
    send_keys(s, keys_go_to(s));
}

/* Wherever they go. */
static size_t room_for_keys(const struct session *s)
{
    size_t serial = s->keys[STREAM_SERIAL].n, monitor = s->keys[STREAM_MONITOR].n;

    return KEYS_BYTES - (serial > monitor ? serial : monitor);
}

static void toggle_monitor(struct session *s)
{
    if (!s->at.monitor) {
        fputs("\nmetronome: a guest started with --module has no device model, so no monitor\n", stderr);
        return;
    }
    s->in_monitor = !s->in_monitor;
    fprintf(stderr, "\nmetronome: keys go to %s\n", s->in_monitor ? "QEMU's monitor" : "the guest");
    if (s->in_monitor && s->monitor_shown)
        add_keys(s, "\r", 1); /* so that it shows its prompt again */
    s->monitor_shown = true;
}

static void act_on_key(struct session *s, enum terminal_key key)
{
    if (key == KEY_END)
        ask(s, ORDER_STOP, EXIT_ENDED, "ended by Ctrl-a x");
    else if (key == KEY_DETACH)
        ask(s, ORDER_DETACH, EXIT_ENDED, "");
    else if (key == KEY_MONITOR)
        toggle_monitor(s);
    else if (key == KEY_POWER || key == KEY_RESET)
        order(s, key == KEY_RESET ? ORDER_RESET : ORDER_POWER_BUTTON);
    else if (key == KEY_HELP)
        fprintf(stderr,
                "\nCtrl-a x  end the guest\nCtrl-a d  leave it running%s\nCtrl-a c  switch between the guest and QEMU's monitor\n"
                "Ctrl-a p  press the power button\nCtrl-a r  press the reset button\nCtrl-a Ctrl-a  send Ctrl-a\n%s",
                s->run->guest ? " (or Ctrl-])" : "", s->run->guest ? "Ctrl-a Ctrl-]  send Ctrl-]\n" : "");
}

static void take_keys(struct session *s)
{
    char bytes[1024];
    size_t room = room_for_keys(s), done = 0, used, out;
    ssize_t n = read(STDIN_FILENO, bytes, room < sizeof bytes ? room : sizeof bytes);
    enum terminal_key key;

    if (n <= 0)
        s->stdin_open = false;
    while (n > 0 && done < (size_t)n) {
        out = terminal_keys(bytes + done, (size_t)n - done, &used, &key);
        add_keys(s, bytes + done, out);
        act_on_key(s, key);
        done += used;
    }
}

static void daemon_lost(struct session *s, const char *text)
{
    s->ended = true;
    s->status = -1;
    s->end = (struct event){.type = EVENT_ENDED, .status = EXIT_INTERNAL};
    snprintf(s->end.text, sizeof s->end.text, "%s", text);
}

static void take_event(struct session *s)
{
    struct event e;
    ssize_t n = recv(s->at.daemon, &e, sizeof e, 0);

    if (n != sizeof e) {
        daemon_lost(s, "the daemon is gone, and the guest with it");
        return;
    }
    e.text[sizeof e.text - 1] = 0;
    if (e.type == EVENT_PROGRESS)
        progress_step(e.text);
    else if (e.type == EVENT_RUNNING)
        now_running(s);
    else if (e.type != EVENT_ATTACHED) {
        s->end = e;
        s->ended = true;
    }
}

static void take_signal(struct session *s)
{
    struct signalfd_siginfo info;
    char why[64];

    if (read(s->signals, &info, sizeof info) != sizeof info)
        return;
    if (s->asked)
        exit(128 + (int)info.ssi_signo);
    snprintf(why, sizeof why, "ended by signal %u (%s)", info.ssi_signo, strsignal((int)info.ssi_signo));
    stop(s, 128 + (int)info.ssi_signo, why);
}

static short events_of(const struct session *s, unsigned stream)
{
    return (short)(POLLIN | (s->keys[stream].n ? POLLOUT : 0));
}

static void wait_for_something(struct session *s)
{
    /* What is typed before a restored QEMU has its serial port's state would be lost to that. */
    bool takes_keys = s->stdin_open && room_for_keys(s) && !s->detaching && !s->run->detach &&
                      (s->running || (!s->run->guest && s->run->image < 0));
    bool shows = !s->detaching && !s->run->detach; /* else it is kept for who attaches next */
    struct pollfd p[PLACES] = {
        [AT_STDIN] = {.fd = takes_keys ? STDIN_FILENO : -1, .events = POLLIN},
        [AT_SERIAL] = {.fd = shows ? s->at.stream[STREAM_SERIAL] : -1, .events = events_of(s, STREAM_SERIAL)},
        /* Until it is first asked for, the monitor's greeting waits in its socket. */
        [AT_MONITOR] = {.fd = shows && s->monitor_shown ? s->at.stream[STREAM_MONITOR] : -1,
                        .events = events_of(s, STREAM_MONITOR)},
        [AT_MESSAGES] = {.fd = s->detaching ? -1 : s->at.stream[STREAM_MESSAGES], .events = POLLIN},
        [AT_DAEMON] = {.fd = s->at.daemon, .events = POLLIN},
        [AT_SIGNALS] = {.fd = s->signals, .events = POLLIN},
    };

    if (poll(p, PLACES, TICK_MS) < 0)
        return;
    if (p[AT_SIGNALS].revents)
        take_signal(s);
    if (p[AT_SERIAL].revents & POLLOUT)
        send_keys(s, STREAM_SERIAL);
    if (p[AT_MONITOR].revents & POLLOUT)
        send_keys(s, STREAM_MONITOR);
    if (p[AT_SERIAL].revents & ~POLLOUT) {
        poll(NULL, 0, GATHER_MS);
        show(s, &s->at.stream[STREAM_SERIAL], true);
    }
    if (p[AT_MONITOR].revents & ~POLLOUT)
        show(s, &s->at.stream[STREAM_MONITOR], false);
    if (p[AT_MESSAGES].revents)
        show_messages(s);
    if (p[AT_DAEMON].revents)
        take_event(s);
    if (p[AT_STDIN].revents)
        take_keys(s);
}

/* The other ends are closed by now, so what is left comes to an end; the time is for a process that has inherited one.
 */
static void drain(struct session *s)
{
    struct pollfd p[2];

    do {
        p[0] = (struct pollfd){.fd = s->at.stream[STREAM_SERIAL], .events = POLLIN};
        p[1] = (struct pollfd){.fd = s->at.stream[STREAM_MESSAGES], .events = POLLIN};
        if (poll(p, 2, LAST_WORDS_MS) <= 0)
            return;
        if (p[0].revents)
            show(s, &s->at.stream[STREAM_SERIAL], true);
        if (p[1].revents)
            show_messages(s);
    } while (s->at.stream[STREAM_SERIAL] >= 0 || s->at.stream[STREAM_MESSAGES] >= 0);
}

static void take_signals(struct session *s)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What the console said before we came. */
static void show_past(struct session *s)
{
    if (s->at.lost)
        fprintf(stderr, "metronome: %llu bytes before this are not kept\n", (unsigned long long)s->at.lost);
    while (s->at.past >= 0)
        show(s, &s->at.past, true);
}

static int conclude(struct session *s)
{
    bool ours = s->status >= 0 && s->end.status != EXIT_INTERNAL; /* a failure while stopping says more */
    int status = ours ? s->status : (int)s->end.status;
    const char *why = ours ? s->why : s->end.text;

    if (s->end.type == EVENT_ENDED && !ours && !status && s->run->expect && !expect_feed("", 0)) {
        status = EXIT_UNMET;
        why = "the guest ended without the expected output";
    }
    bool table = s->end.type == EVENT_ENDED && !s->run->quiet;
    if (!s->run->quiet || status)
        fprintf(stderr, "metronome: %s", why);
    if (*s->early)
        fprintf(stderr, " (%s)", s->early);
    if (table)
        fprintf(stderr, " (%.1f s)", progress_seconds());
    if (!s->run->quiet || status || *s->early)
        fputc('\n', stderr);
    if (table)
        report_end(&s->end);
    return status;
}

/* The guest goes on without us. */
static int conclude_left(const struct session *s)
{
    if (*s->why && (!s->run->quiet || s->status))
        fprintf(stderr, "metronome: %s\n", s->why);
    else if (!s->run->quiet)
        fprintf(stderr, "metronome: %s goes on: `metronome console` is its terminal\n", s->end.text);
    return s->status;
}

static void look_at_clock(struct session *s)
{
    progress_tick();
    if (s->run->timeout_ms && progress_seconds() * 1000 > (double)s->run->timeout_ms)
        stop(s, EXIT_TIMEOUT, "the time is up");
    if (s->asked && !s->ended && progress_seconds() > s->asked_at + STOP_PATIENCE_S)
        daemon_lost(s, "the daemon does not answer");
}

static int refused(const struct run *r, const struct event *refusal)
{
    progress_done(NULL);
    fprintf(stderr, "metronome: %s%s%s\n", r->guest ? r->guest : "", r->guest ? ": " : "", refusal->text);
    return refusal->status ? (int)refusal->status : EXIT_INTERNAL;
}

int session_run(struct run *r)
{
    struct session s = {.run = r, .stdin_open = true, .status = -1};
    struct event refusal;

    progress_init(r->quiet);
    expect_init(r->expect);
    take_signals(&s);
    if (!r->guest)
        progress_step("starting");
    if (!attach(&s.at, r, &refusal))
        return refused(r, &refusal);
    atexit(terminal_leave);
    if (!r->detach && (!*r->request.serial || *r->request.module))
        terminal_enter(r->guest);
    show_past(&s);
    while (!s.ended) {
        wait_for_something(&s);
        look_at_clock(&s);
    }
    if (s.end.type != EVENT_DETACHED)
        drain(&s);
    progress_done(NULL);
    terminal_leave();
    if (s.mid_line && isatty(STDOUT_FILENO))
        terminal_write("\n", 1);
    client_leave(s.at.daemon, DAEMON_PATIENCE_MS); /* for the last guest when hypervisor and daemon are gone */
    if (s.end.type == EVENT_DETACHED)
        return conclude_left(&s);
    remove_socket(AT_FDCWD, r->request.qmp); /* the daemon has, if it lives */
    remove_socket(AT_FDCWD, r->request.vnc);
    return conclude(&s);
}
