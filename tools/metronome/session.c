/*
 * A guest's time: from the daemon's start to the last page given back, with the terminal in between.
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
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "expect.h"
#include "progress.h"
#include "run.h"
#include "terminal.h"

#define TICK_MS            100
#define GATHER_MS 1           /* a serial port's bytes come one by one: those of so long together, for one wake-up */
#define LAST_WORDS_MS      500   /* output that is still on its way when the guest has ended */
#define STOP_PATIENCE_S    20    /* between asking for the guest's end and hearing of it */
#define DAEMON_PATIENCE_MS 10000 /* for the hypervisor's end, after ours */

enum { AT_STDIN, AT_SERIAL, AT_MONITOR, AT_MESSAGES, AT_DAEMON, AT_SIGNALS, PLACES };

struct session {
    struct run *run;
    int serial, monitor, messages, daemon, signals;
    bool in_monitor, monitor_shown, stdin_open, stopping;
    bool ended;
    bool mid_line; /* the guest's last output was not the end of a line */
    struct event end;
    int status; /* why we stopped it ourselves: -1: we did not */
    char why[200];
    double stopped_at;
    char message[400]; /* of the device model, being read */
    size_t message_bytes;
    char early[600]; /* what it said before the guest ran: why it does not, or warnings */
    bool running;
};

static void stop(struct session *s, int status, const char *why)
{
    struct order order = {ORDER_STOP};

    if (s->stopping || s->ended)
        return;
    s->stopping = true;
    s->stopped_at = progress_seconds();
    s->status = status;
    snprintf(s->why, sizeof s->why, "%s", why);
    client_send(s->daemon, &order, sizeof order, NULL, 0);
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
    progress_done("running");
    if (*s->early)
        fprintf(stderr, "metronome: device model: %s\n", s->early);
    *s->early = 0;
    s->running = true;
}

static void show_messages(struct session *s)
{
    char bytes[1024];
    ssize_t n = read(s->messages, bytes, sizeof bytes);

    if (n <= 0)
        close_fd(&s->messages);
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\n')
            show_message(s);
        else if (s->message_bytes < sizeof s->message - 1)
            s->message[s->message_bytes++] = bytes[i];
    if (n <= 0)
        show_message(s);
}

static void send_keys(struct session *s, const char *bytes, size_t n)
{
    int to = s->in_monitor ? s->monitor : s->serial;

    while (n && to >= 0) {
        ssize_t sent = send(to, bytes, n, MSG_NOSIGNAL);

        if (sent <= 0)
            return;
        bytes += sent;
        n -= (size_t)sent;
    }
}

static void toggle_monitor(struct session *s)
{
    if (*s->run->request.module) {
        fputs("\nmetronome: a guest started with --module has no device model, so no monitor\n", stderr);
        return;
    }
    s->in_monitor = !s->in_monitor;
    fprintf(stderr, "\nmetronome: keys go to %s\n", s->in_monitor ? "QEMU's monitor" : "the guest");
    if (s->in_monitor && s->monitor_shown)
        send_keys(s, "\r", 1); /* so that it shows its prompt again */
    s->monitor_shown = true;
}

static void act_on_key(struct session *s, enum terminal_key key)
{
    struct order order = {key == KEY_RESET ? ORDER_RESET : ORDER_POWER_BUTTON};

    if (key == KEY_LEAVE)
        stop(s, EXIT_ENDED, "left by Ctrl-a x");
    else if (key == KEY_MONITOR)
        toggle_monitor(s);
    else if (key == KEY_POWER || key == KEY_RESET)
        client_send(s->daemon, &order, sizeof order, NULL, 0);
    else if (key == KEY_HELP)
        fputs("\nCtrl-a x  end the guest\nCtrl-a c  switch between the guest and QEMU's monitor\n"
              "Ctrl-a p  press the power button\nCtrl-a r  press the reset button\nCtrl-a Ctrl-a  send Ctrl-a\n",
              stderr);
}

static void take_keys(struct session *s)
{
    char bytes[1024];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    size_t done = 0, used, out;
    enum terminal_key key;

    if (n <= 0)
        s->stdin_open = false;
    while (n > 0 && done < (size_t)n) {
        out = terminal_keys(bytes + done, (size_t)n - done, &used, &key);
        send_keys(s, bytes + done, out);
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
    ssize_t n = recv(s->daemon, &e, sizeof e, 0);

    if (n != sizeof e) {
        daemon_lost(s, "the daemon is gone, and the guest with it");
        return;
    }
    e.text[sizeof e.text - 1] = 0;
    if (e.type == EVENT_PROGRESS)
        progress_step(e.text);
    else if (e.type == EVENT_RUNNING)
        now_running(s);
    else {
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
    if (s->stopping)
        exit(128 + (int)info.ssi_signo);
    snprintf(why, sizeof why, "ended by signal %u (%s)", info.ssi_signo, strsignal((int)info.ssi_signo));
    stop(s, 128 + (int)info.ssi_signo, why);
}

static void wait_for_something(struct session *s)
{
    struct pollfd p[PLACES] = {
        /* What is typed before a restored QEMU has its serial port's state would be lost to that. */
        [AT_STDIN] = {.fd = s->stdin_open && (s->running || s->run->image < 0) ? STDIN_FILENO : -1, .events = POLLIN},
        [AT_SERIAL] = {.fd = s->serial, .events = POLLIN},
        /* Until it is first asked for, the monitor's greeting waits in its socket. */
        [AT_MONITOR] = {.fd = s->monitor_shown ? s->monitor : -1, .events = POLLIN},
        [AT_MESSAGES] = {.fd = s->messages, .events = POLLIN},
        [AT_DAEMON] = {.fd = s->daemon, .events = POLLIN},
        [AT_SIGNALS] = {.fd = s->signals, .events = POLLIN},
    };

    if (poll(p, PLACES, TICK_MS) < 0)
        return;
    if (p[AT_SIGNALS].revents)
        take_signal(s);
    if (p[AT_SERIAL].revents) {
        poll(NULL, 0, GATHER_MS);
        show(s, &s->serial, true);
    }
    if (p[AT_MONITOR].revents)
        show(s, &s->monitor, false);
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
        p[0] = (struct pollfd){.fd = s->serial, .events = POLLIN};
        p[1] = (struct pollfd){.fd = s->messages, .events = POLLIN};
        if (poll(p, 2, LAST_WORDS_MS) <= 0)
            return;
        if (p[0].revents)
            show(s, &s->serial, true);
        if (p[1].revents)
            show_messages(s);
    } while (s->serial >= 0 || s->messages >= 0);
}

static void pair(int type, int ends[2])
{
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends)) {
        perror("metronome: socket");
        exit(EXIT_INTERNAL);
    }
}

/* Sends the request and hears that it was taken: a daemon that is about to end does not, and then a new one is needed.
 */
static bool open_session(struct session *s, char *error, size_t error_size)
{
    static char text[REQUEST_MAX_BYTES];
    size_t n = request_pack(&s->run->request, text, sizeof text);
    int serial[2], monitor[2], messages[2], cwd;
    struct pollfd p;
    char byte;

    s->daemon = client_connect(error, error_size);
    if (s->daemon < 0)
        return false;
    pair(SOCK_STREAM, serial);
    pair(SOCK_STREAM, monitor);
    cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (cwd < 0 || pipe2(messages, O_CLOEXEC)) {
        snprintf(error, error_size, "%s", strerror(errno));
        return false;
    }
    const int fds[REQUEST_MOST_FDS] = {cwd, serial[1], monitor[1], messages[1], s->run->image};
    bool sent = n && client_send(s->daemon, text, n, fds, s->run->image >= 0 ? REQUEST_MOST_FDS : REQUEST_FDS);
    for (unsigned i = 0; i < REQUEST_FDS; i++)
        close(fds[i]);
    s->serial = serial[0];
    s->monitor = monitor[0];
    s->messages = messages[0];
    p = (struct pollfd){.fd = s->daemon, .events = POLLIN};
    return sent && poll(&p, 1, DAEMON_PATIENCE_MS) > 0 && recv(s->daemon, &byte, 1, MSG_PEEK) > 0;
}

static void close_session(struct session *s)
{
    close_fd(&s->daemon);
    close_fd(&s->serial);
    close_fd(&s->monitor);
    close_fd(&s->messages);
}

static bool open_with_retries(struct session *s)
{
    char error[400] = "";

    for (unsigned i = 0; i < 3 && !*error; i++) {
        if (open_session(s, error, sizeof error))
            return true;
        close_session(s);
    }
    progress_done(NULL);
    fprintf(stderr, "metronome: %s\n", *error ? error : "the daemon does not answer");
    return false;
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

/* For the last guest this is when hypervisor and daemon are gone. */
static void wait_for_daemon(struct session *s)
{
    struct pollfd p = {.fd = s->daemon, .events = POLLIN};
    char byte;

    shutdown(s->daemon, SHUT_WR);
    while (poll(&p, 1, DAEMON_PATIENCE_MS) > 0 && recv(s->daemon, &byte, 1, 0) > 0)
        ;
    client_reap_daemon();
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

static void look_at_clock(struct session *s)
{
    progress_tick();
    if (s->run->timeout_ms && progress_seconds() * 1000 > (double)s->run->timeout_ms)
        stop(s, EXIT_TIMEOUT, "the time is up");
    if (s->stopping && !s->ended && progress_seconds() > s->stopped_at + STOP_PATIENCE_S)
        daemon_lost(s, "the daemon does not answer");
}

/* QEMU removes what it listens at, unless it was killed. */
static void remove_socket(const char *address)
{
    char path[4096];
    struct stat st;

    if (strncmp(address, "unix:", 5))
        return;
    snprintf(path, sizeof path, "%.*s", (int)strcspn(address + 5, ","), address + 5);
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
        unlink(path);
}

int session_run(struct run *r)
{
    struct session s = {
        .run = r, .serial = -1, .monitor = -1, .messages = -1, .daemon = -1, .stdin_open = true, .status = -1};

    progress_init(r->quiet);
    expect_init(r->expect);
    take_signals(&s);
    progress_step("starting");
    if (!open_with_retries(&s))
        return EXIT_INTERNAL;
    atexit(terminal_leave);
    if (!*r->request.serial || *r->request.module)
        terminal_enter();
    while (!s.ended) {
        wait_for_something(&s);
        look_at_clock(&s);
    }
    drain(&s);
    progress_done(NULL);
    terminal_leave();
    if (s.mid_line && isatty(STDOUT_FILENO))
        terminal_write("\n", 1);
    wait_for_daemon(&s);
    remove_socket(r->request.qmp);
    remove_socket(r->request.vnc);
    return conclude(&s);
}
