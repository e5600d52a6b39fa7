/*
 * Finds QEMU and the library, and starts the one under the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"
#include "user_net.h"

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

    for (char *folder = copy ? strtok_r(copy, ":", &rest) : NULL; folder && !taken;
         folder = strtok_r(NULL, ":", &rest)) {
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
    return take(out, bytes, "/usr/libexec/" QEMU_NAME, X_OK) ||
           take_glob(out, bytes, "/usr/lib/xen-*/bin/qemu-system-i386") ||
           take_glob(out, bytes, "/usr/lib/*/xen-*/bin/qemu-system-i386") || take_from_path(out, bytes);
}

/* The folder of the program that runs: in build/, build/unit/, or installed. */
static bool own_folder(char *out, size_t bytes)
{
    ssize_t n = readlink("/proc/self/exe", out, bytes - 1);

    if (n < 0)
        return false;
    out[n] = 0;
    *strrchr(out, '/') = 0;
    return true;
}

struct wanted {
    const char *variable;  /* names it outright */
    const char *places[6]; /* from the own folder */
    const char *inside;    /* is looked for in a folder that is wanted */
    int mode;
};

static bool find(const struct wanted *w, char *out, size_t bytes)
{
    const char *given = getenv(w->variable);
    char own[PATH_MAX], full[PATH_MAX + 64], probe[PATH_MAX + 128];

    if (given)
        return take(out, bytes, given, w->mode);
    if (!own_folder(own, sizeof own))
        return false;
    for (unsigned i = 0; i < sizeof w->places / sizeof w->places[0] && w->places[i]; i++) {
        snprintf(full, sizeof full, "%s/%s", own, w->places[i]);
        snprintf(probe, sizeof probe, "%s%s", full, w->inside);
        if (!access(probe, w->mode))
            return take(out, bytes, full, w->mode);
    }
    return false;
}

bool dm_find_library(char *out, size_t bytes)
{
    static const struct wanted library = {
        "METRONOME_DM_LIBRARY", {"dm", "../dm", "../lib/metronome/dm", "../build/dm"}, "/libxenctrl.so.4.17", R_OK};

    return find(&library, out, bytes);
}

static bool find_net(char *out, size_t bytes)
{
    static const struct wanted net = {
        "METRONOME_NET",
        {"metronome-net", "../metronome-net", "../lib/metronome/metronome-net", "../build/metronome-net"},
        "",
        X_OK};

    return find(&net, out, bytes);
}

/* The environment of the child: the words that attach.c reads, and where the libraries are. */
static void set_environment(const struct dm_launch *l, const char *library)
{
    char text[PATH_MAX + 256], path[2 * PATH_MAX], order[4096];
    const char *old = getenv("LD_LIBRARY_PATH");

    snprintf(text, sizeof text, "mem=%d,wait=%d,ring=%d,menu=%d,menu_wait=%u,patience=%u%s%s", l->mem_fd, l->wait_fd,
             l->ring_fd, !l->no_boot_menu, l->boot_menu_wait_ms, l->patience_s ? l->patience_s : 10,
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

struct programs {
    char qemu[PATH_MAX], library[PATH_MAX], net[PATH_MAX];
};

static void become_qemu(const struct dm_launch *l, const struct programs *p, const struct user_nets *nets, char **words,
                        int report)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    redirect(l);
    user_nets_start(nets, p->net, report);
    set_environment(l, p->library);
    keep_descriptors(l);
    execv(p->qemu, words);
    dprintf(report, "cannot run %s: %s", p->qemu, strerror(errno));
    _exit(127);
}

/* The pipe closes when QEMU and its networks run; what fails says so through it. */
static pid_t start(const struct dm_launch *l, const struct programs *p, const struct user_nets *nets, char **words,
                   char *error, size_t error_bytes)
{
    int report[2];
    ssize_t n;
    pid_t pid;

    if (pipe2(report, O_CLOEXEC) || (pid = fork()) < 0) {
        snprintf(error, error_bytes, "cannot start QEMU: %s", strerror(errno));
        return -1;
    }
    if (pid == 0)
        become_qemu(l, p, nets, words, report[1]);
    close(report[1]);
    n = read(report[0], error, error_bytes - 1);
    close(report[0]);
    if (n <= 0)
        return pid;
    error[n] = 0;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

static bool find_programs(struct programs *p, char *error, size_t error_bytes)
{
    const char *given = getenv("METRONOME_QEMU");

    if (!dm_find_qemu(p->qemu, sizeof p->qemu)) {
        snprintf(error, error_bytes, "no QEMU: %s%s",
                 given ? "METRONOME_QEMU is not a program: " : "install qemu-system-xen", given ? given : "");
        return false;
    }
    if (!dm_find_library(p->library, sizeof p->library)) {
        snprintf(error, error_bytes, "no device-model library: build it with 'make dm', or set METRONOME_DM_LIBRARY");
        return false;
    }
    return true;
}

pid_t dm_launch(const struct dm_launch *given, char *error, size_t error_bytes)
{
    struct dm_launch l = *given;
    struct programs p;
    struct user_nets nets;
    struct dm_words words;
    pid_t pid = -1;

    if (!find_programs(&p, error, error_bytes) || !user_nets_prepare(&nets, &l, error, error_bytes))
        return -1;
    if (nets.count && !find_net(p.net, sizeof p.net))
        snprintf(error, error_bytes,
                 "no metronome-net for the user network: build it with 'make', or set METRONOME_NET");
    else if (dm_launch_arguments(&l, &words, error, error_bytes)) {
        pid = start(&l, &p, &nets, words.word, error, error_bytes);
        dm_words_free(&words);
    }
    user_nets_close(&nets);
    return pid;
}
