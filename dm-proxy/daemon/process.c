#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/process.h"

static void keep_open(const int *keep)
{
    for (; keep && *keep >= 0; keep++)
        fcntl(*keep, F_SETFD, 0);
}

/* Only ends in exec, or by telling the parent why not. */
static void become(const struct process_plan *plan, pid_t parent, int tell)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;
    int error;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    dup2(null, 0);
    dup2(plan->out >= 0 ? plan->out : null, 1);
    dup2(plan->err >= 0 ? plan->err : null, 2);
    keep_open(plan->keep);
    for (const char *const *e = plan->environment; e && *e; e++)
        putenv((char *)*e);
    if (plan->cwd < 0 || !fchdir(plan->cwd))
        execv(plan->argv[0], plan->argv);
    error = errno;
    if (write(tell, &error, sizeof error) < 0)
        _exit(1);
    _exit(1);
}

static void collect(struct process *p)
{
    siginfo_t info = {0};

    waitid(P_PID, (id_t)p->pid, &info, WEXITED);
    p->exited = info.si_code == CLD_EXITED;
    p->status = info.si_status;
    p->pid = 0;
    loop_close(&p->gone);
}

static void on_gone(void *owner)
{
    struct process *p = owner;

    collect(p);
    p->ended(p->owner);
}

void process_adopt(struct process *p, pid_t pid, void (*ended)(void *owner), void *owner)
{
    *p = (struct process){.pid = pid, .ended = ended, .owner = owner};
    loop_watch(&p->gone, (int)syscall(SYS_pidfd_open, pid, 0), on_gone, p);
}

bool process_start(struct process *p, const struct process_plan *plan, void (*ended)(void *owner), void *owner,
                   char *error, size_t error_size)
{
    int tell[2], why = 0;
    pid_t parent = getpid(), pid;

    *p = (struct process){.gone.fd = -1};
    if (pipe2(tell, O_CLOEXEC) || (pid = fork()) < 0) {
        snprintf(error, error_size, "cannot start a process: %s", strerror(errno));
        return false;
    }
    if (!pid)
        become(plan, parent, tell[1]);
    close(tell[1]);
    /* The pipe closes by itself when exec succeeds. */
    if (read(tell[0], &why, sizeof why) != sizeof why)
        why = 0;
    close(tell[0]);
    process_adopt(p, pid, ended, owner);
    if (!why)
        return true;
    collect(p);
    snprintf(error, error_size, "cannot start %s: %s", plan->argv[0], strerror(why));
    return false;
}

bool process_work(struct process_work *p, bool (*work)(void *argument, char *error, size_t error_size), void *argument,
                  void (*ended)(void *owner), void *owner)
{
    pid_t parent = getpid(), pid;

    p->process.gone.fd = -1;
    p->error = mmap(NULL, PROCESS_ERROR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->error == MAP_FAILED)
        p->error = NULL;
    pid = p->error ? fork() : -1;
    if (pid < 0)
        return false;
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent && work(argument, p->error, PROCESS_ERROR_BYTES) ? 0 : 1);
    }
    process_adopt(&p->process, pid, ended, owner);
    return true;
}

const char *process_work_error(const struct process_work *p)
{
    if (p->process.exited && !p->process.status)
        return NULL;
    return p->error && *p->error ? p->error : "the process that does it was killed";
}

void process_work_close(struct process_work *p)
{
    process_end_now(&p->process);
    if (p->error)
        munmap(p->error, PROCESS_ERROR_BYTES);
    p->error = NULL;
}

void process_signal(struct process *p, int signal)
{
    if (p->pid)
        kill(p->pid, signal);
}

void process_end_now(struct process *p)
{
    if (!p->pid)
        return;
    kill(p->pid, SIGKILL);
    collect(p);
}

void process_describe(const struct process *p, char *to, size_t size)
{
    if (p->exited)
        snprintf(to, size, "ended with status %d", p->status);
    else
        snprintf(to, size, "was killed by signal %d (%s)", p->status, strsignal(p->status));
}
