/*
 * Finds QEMU and the library, and starts the one under the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"

#define QEMU_NAME "xen-qemu-system-i386"

static bool take(char *out, size_t bytes, const char *path, int mode)
{
    if (access(path, mode) || strlen(path) >= bytes)
        return false;
    strcpy(out, path);
    return true;
}

static bool take_glob(char *out, size_t bytes, const char *pattern)
{
    glob_t found;
    bool taken;

    if (glob(pattern, 0, NULL, &found))
        return false;
    taken = take(out, bytes, found.gl_pathv[found.gl_pathc - 1], X_OK); /* the newest version sorts last */
    globfree(&found);
    return taken;
}

static bool take_from_path(char *out, size_t bytes)
{
    const char *path = getenv("PATH");
    char *copy = path ? strdup(path) : NULL, *rest, full[PATH_MAX];
    bool taken = false;

    for (char *folder = copy ? strtok_r(copy, ":", &rest) : NULL; folder && !taken; folder = strtok_r(NULL, ":", &rest)) {
        snprintf(full, sizeof full, "%s/%s", folder, QEMU_NAME);
        taken = take(out, bytes, full, X_OK);
    }
    free(copy);
    return taken;
}

bool dm_find_qemu(char *out, size_t bytes)
{
    const char *given = getenv("METRONOME_QEMU");

    if (given)
        return take(out, bytes, given, X_OK);
    return take(out, bytes, "/usr/libexec/" QEMU_NAME, X_OK) || take_glob(out, bytes, "/usr/lib/xen-*/bin/qemu-system-i386") ||
           take_glob(out, bytes, "/usr/lib/*/xen-*/bin/qemu-system-i386") || take_from_path(out, bytes);
}

/* Beside the program that runs (build/..., or installed as ../lib/metronome/dm). */
bool dm_find_library(char *out, size_t bytes)
{
    static const char *const places[] = {"dm", "../dm", "../../dm", "../lib/metronome/dm", "../build/dm"};
    const char *given = getenv("METRONOME_DM_LIBRARY");
    char self[PATH_MAX], full[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (given)
        return take(out, bytes, given, R_OK | X_OK);
    if (n < 0)
        return false;
    self[n] = 0;
    char *folder = dirname(self);
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(full, sizeof full, "%s/%s/libxenctrl.so.4.17", folder, places[i]);
        if (access(full, R_OK))
            continue;
        *strrchr(full, '/') = 0;
        return take(out, bytes, full, R_OK | X_OK);
    }
    return false;
}

/* The environment of the child: the words that attach.c reads, and where the libraries are. */
static void set_environment(const struct dm_launch *l, const char *library)
{
    char text[PATH_MAX + 256], path[2 * PATH_MAX], order[4096];
    const char *old = getenv("LD_LIBRARY_PATH");

    snprintf(text, sizeof text, "mem=%d,wait=%d,ring=%d,menu=%d,menu_wait=%u,patience=%u%s%s", l->mem_fd, l->wait_fd, l->ring_fd,
             !l->no_boot_menu, l->boot_menu_wait_ms, l->patience_s ? l->patience_s : 10,
             l->fw_cfg_files ? ",files=" : "", l->fw_cfg_files ? l->fw_cfg_files : "");
    setenv("METRONOME_DM", text, 1);
    dm_boot_order(l, order, sizeof order);
    if (order[0])
        setenv("METRONOME_BOOT_ORDER", order, 1);
    snprintf(path, sizeof path, "%s%s%s", library, old ? ":" : "", old ? old : "");
    setenv("LD_LIBRARY_PATH", path, 1);
}

static void keep_open(int fd)
{
    if (fd > 0)
        fcntl(fd, F_SETFD, 0);
}

static void keep_descriptors(const struct dm_launch *l)
{
    const int fds[] = {l->mem_fd, l->wait_fd, l->ring_fd, l->serial.fd, l->qmp.fd};

    for (unsigned i = 0; i < sizeof fds / sizeof fds[0]; i++)
        keep_open(fds[i]);
    for (unsigned i = 0; i < l->fd_count && i < DM_MAX_FDS; i++)
        keep_open(l->fds[i]);
}

static void redirect(const struct dm_launch *l)
{
    int null = open("/dev/null", O_RDONLY);

    dup2(null, 0);
    if (l->log_fd > 0) {
        dup2(l->log_fd, 1);
        dup2(l->log_fd, 2);
    }
}

static void become_qemu(const struct dm_launch *l, const char *qemu, const char *library, char **words, int report)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_environment(l, library);
    keep_descriptors(l);
    redirect(l);
    execv(qemu, words);
    int error = errno;
    if (write(report, &error, sizeof error) < 0)
        _exit(126);
    _exit(127);
}

/* The pipe closes by exec; if that fails, the reason comes through it. */
static pid_t start(const struct dm_launch *l, const char *qemu, const char *library, char **words, char *error, size_t error_bytes)
{
    int report[2], reason = 0;
    pid_t pid;

    if (pipe2(report, O_CLOEXEC) || (pid = fork()) < 0) {
        snprintf(error, error_bytes, "cannot start QEMU: %s", strerror(errno));
        return -1;
    }
    if (pid == 0)
        become_qemu(l, qemu, library, words, report[1]);
    close(report[1]);
    if (read(report[0], &reason, sizeof reason) > 0) {
        waitpid(pid, NULL, 0);
        snprintf(error, error_bytes, "cannot run %s: %s", qemu, strerror(reason));
        pid = -1;
    }
    close(report[0]);
    return pid;
}

pid_t dm_launch(const struct dm_launch *l, char *error, size_t error_bytes)
{
    char qemu[PATH_MAX], library[PATH_MAX];
    struct dm_words words;
    pid_t pid;

    if (!dm_find_qemu(qemu, sizeof qemu)) {
        const char *given = getenv("METRONOME_QEMU");
        snprintf(error, error_bytes, "no QEMU: %s%s", given ? "METRONOME_QEMU is not a program: " : "install qemu-system-xen",
                 given ? given : "");
        return -1;
    }
    if (!dm_find_library(library, sizeof library)) {
        snprintf(error, error_bytes, "no device-model library: build it with 'make dm', or set METRONOME_DM_LIBRARY");
        return -1;
    }
    if (!dm_launch_arguments(l, &words, error, error_bytes))
        return -1;
    pid = start(l, qemu, library, words.word, error, error_bytes);
    dm_words_free(&words);
    return pid;
}
