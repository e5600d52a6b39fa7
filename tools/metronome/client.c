#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "daemon/paths.h"

#define TRIES 10

static pid_t daemon_pid; /* if we have started it */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* In a session of its own: it outlives this run if other guests do. */
static void become_daemon(const char *program, int tell)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (chdir("/"))
        _exit(1);
    /* What our caller has left open is not for a process that outlives it. */
    dup2(tell, 3);
    close_range(4, ~0u, 0);
    execl(program, program, "3", (char *)NULL);
    dprintf(3, "%s: %s", program, strerror(errno));
    _exit(1);
}

/* True when it listens. */
static bool start_daemon(char *error, size_t error_size)
{
    char program[PATH_MAX];
    int ends[2];
    pid_t pid;
    ssize_t n;

    beside_program(program, "metronome-daemon", "METRONOME_DAEMON");
    if (pipe2(ends, O_CLOEXEC) || (pid = fork()) < 0) {
        snprintf(error, error_size, "cannot start the daemon: %s", strerror(errno));
        return false;
    }
    if (!pid)
        become_daemon(program, ends[1]);
    close(ends[1]);
    daemon_pid = pid;
    n = read(ends[0], error, error_size - 1);
    close(ends[0]);
    error[n > 0 ? n : 0] = 0;
    if (n <= 0)
        snprintf(error, error_size, "the daemon ended while it started");
    return n == 1 && !*error;
}

static bool is_still_there(int folder, const char *path)
{
    struct stat opened, there;

    return !fstat(folder, &opened) && !stat(path, &there) && opened.st_ino == there.st_ino &&
           opened.st_dev == there.st_dev;
}

/*
 * One try under the folder's lock, which makes sure that only one daemon is started. A socket that nobody listens to is
 * what a killed daemon has left. -1 without an error: try again.
 */
static int try_connect(const char *folder, char *error, size_t error_size)
{
    char path[PATH_MAX];
    int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;

    if (lock < 0)
        return -1;
    flock(lock, LOCK_EX);
    if (is_still_there(lock, folder)) {
        snprintf(path, sizeof path, "%.*s/socket", PATH_MAX - 20, folder);
        fd = connect_to(path);
        if (fd < 0) {
            unlink(path);
            if (start_daemon(error, error_size))
                fd = connect_to(path);
        }
    }
    close(lock);
    return fd;
}

int client_connect(char *error, size_t error_size)
{
    char folder[PATH_MAX];
    int fd = -1;

    *error = 0;
    for (unsigned i = 0; i < TRIES && fd < 0 && !*error; i++) {
        if (!runtime_folder(folder, error, error_size))
            return -1;
        fd = try_connect(folder, error, error_size);
    }
    if (fd < 0 && !*error)
        snprintf(error, error_size, "cannot reach the daemon");
    return fd;
}

int client_connect_running(void)
{
    char folder[PATH_MAX], path[PATH_MAX], error[300];

    if (!runtime_folder(folder, error, sizeof error))
        return -1;
    snprintf(path, sizeof path, "%.*s/socket", PATH_MAX - 20, folder);
    return connect_to(path);
}

bool client_started_daemon(void)
{
    return daemon_pid;
}

/* With other guests it goes on, so the wait is short. */
static void reap_daemon(void)
{
    for (unsigned i = 0; daemon_pid && i < 20 && !waitpid(daemon_pid, NULL, WNOHANG); i++)
        usleep(10000);
}

bool client_leave(int socket, int patience_ms)
{
    struct pollfd p = {.fd = socket, .events = POLLIN};
    bool closed = false;
    char byte;

    shutdown(socket, SHUT_WR);
    while (!closed && poll(&p, 1, patience_ms) > 0)
        closed = recv(socket, &byte, 1, 0) <= 0;
    reap_daemon();
    return closed;
}
