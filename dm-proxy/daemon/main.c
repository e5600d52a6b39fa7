/*
 * metronome-daemon: started by `metronome run` or `metronome up`. It owns the shared memory, runs the hypervisor in the outer
 * QEMU, and a QEMU for each guest's devices.
 *
 *   main.c          the socket that clients come to, the daemon's own start and end; lifetime.c says when that is
 *   connection.c    what a client wants: a guest, or an errand (errand.c: one table)
 *   guest.c         a guest while it runs, with guest_start.c and guest_end.c before and after it
 *   streams.c       its consoles, and who has them      console.c  the serial one's other end, without QEMU
 *   device_model.c  its QEMU
 *   save.c          a guest to a file    image.c         the file
 *   tracing.c       who reads the trace
 *   slot.c          a slot's memory      hypervisor.c    the hypervisor, with outer.c, control.c, ivshmem.c
 *   loop.c, process.c, log.c             what all of them stand on
 *   packet.c, request.c, paths.c, host.c shared with the command line
 *
 * Usage: metronome-daemon FD: writes one byte to FD once clients can connect, or a line that says why they cannot.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/errand.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/lifetime.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/paths.h"
#include "daemon/protocol.h"

static char folder[PATH_MAX], socket_path[PATH_MAX];
static struct watch listener = {.fd = -1}, signals = {.fd = -1};
static int log_file;

static void on_connection(void *owner)
{
    int connection = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC);

    (void)owner;
    if (connection >= 0)
        connection_accept(connection);
}

/* As `down -f`; a second one does not wait. */
static void on_signal(void *owner)
{
    struct signalfd_siginfo info;

    (void)owner;
    if (read(signals.fd, &info, sizeof info) != sizeof info || lifetime_leaving()) {
        loop_stop();
        return;
    }
    lifetime_leave();
    guests_stop_all("the daemon was ended by a signal");
}

static bool listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool fits = (size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s", path) < sizeof address.sun_path;

    if (!fits)
        errno = ENAMETOOLONG;
    if (fd < 0 || !fits || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 16))
        return false;
    loop_watch(&listener, fd, on_connection, NULL);
    return true;
}

static void take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    loop_watch(&signals, signalfd(-1, &set, SFD_CLOEXEC), on_signal, NULL);
}

/*
 * From here on no client can come; one that has connected but was not accepted sees its connection end and starts a new
 * daemon. The lock keeps us from removing what that one makes. The log stays if the hypervisor failed.
 */
static void leave_folder(void)
{
    int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    flock(lock, LOCK_EX);
    unlink(socket_path);
    loop_close(&listener);
    if (hypervisor.state != HYPERVISOR_FAILED || hypervisor.status != EXIT_INTERNAL)
        log_remove();
    rmdir(folder);
    close(lock);
}

static bool start(char *error, size_t error_size)
{
    const char *log = getenv("METRONOME_LOG");
    char path[PATH_MAX];

    if (!runtime_folder(folder, error, error_size))
        return false;
    snprintf(socket_path, sizeof socket_path, "%.*s/socket", PATH_MAX - 20, folder);
    if (log && *log)
        snprintf(path, sizeof path, "%s", log);
    else
        snprintf(path, sizeof path, "%.*s/hypervisor.log", PATH_MAX - 20, folder);
    log_file = log_open(path);
    loop_init();
    take_signals();
    if (!listen_at(socket_path)) {
        snprintf(error, error_size, "%.300s: %s", socket_path, strerror(errno));
        return false;
    }
    return true;
}

/* One that has failed is of no use to whoever comes next: a new daemon is. */
static void on_hypervisor_changed(void)
{
    guests_hypervisor_changed();
    errands_hypervisor_changed();
    if (hypervisor.state == HYPERVISOR_FAILED && lifetime_stays()) {
        log_line("%s", hypervisor.error);
        lifetime_leave();
    }
}

int main(int argc, char **argv)
{
    int tell = argc == 2 ? atoi(argv[1]) : -1;
    char error[400] = "";

    umask(077);
    if (tell < 3) {
        fprintf(stderr, "metronome-daemon is started by `metronome up` or `metronome run`.\n");
        return EXIT_USAGE;
    }
    fcntl(tell, F_SETFD, FD_CLOEXEC);
    if (!start(error, sizeof error)) {
        dprintf(tell, "%s", error);
        return EXIT_INTERNAL;
    }
    if (write(tell, "", 1) != 1)
        return EXIT_INTERNAL;
    close(tell);
    lifetime_begin();
    hypervisor_start(log_file, on_hypervisor_changed);
    loop_run();
    leave_folder();
    hypervisor_stop();
    return 0;
}
