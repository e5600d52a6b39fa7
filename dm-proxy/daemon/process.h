/*
 * A child process: started with exactly the descriptors it is to have, ended when the daemon ends, however that
 * happens.
 */
#ifndef METRONOME_PROCESS_H
#define METRONOME_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "daemon/loop.h"

struct process {
    pid_t pid; /* 0: none */
    struct watch gone;
    bool exited; /* else ended by a signal */
    int status;  /* exit status or signal */
    void (*ended)(void *owner);
    void *owner;
};

struct process_plan {
    char *const *argv;
    const char *const *environment; /* NULL-terminated "NAME=value", added to ours; may be NULL */
    const int *keep;                /* descriptors that stay open under their numbers, -1 last; may be NULL */
    int out, err;                   /* its stdout and stderr; -1: /dev/null */
    int cwd;                        /* folder, or -1 */
};

/* `ended` is called from the loop. False: it could not be started, `error` says why. */
bool process_start(struct process *p, const struct process_plan *plan, void (*ended)(void *owner), void *owner,
                   char *error, size_t error_size);
/* The same for a child that something else has started. */
void process_adopt(struct process *p, pid_t pid, void (*ended)(void *owner), void *owner);
/* A child of the same program that does `work`, which says in `error` why it fails: a page of memory that both see. */
#define PROCESS_ERROR_BYTES 400
struct process_work {
    struct process process;
    char *error; /* empty: it has not failed, or has been killed */
};
bool process_work(struct process_work *p, bool (*work)(void *argument, char *error, size_t error_size), void *argument,
                  void (*ended)(void *owner), void *owner);
/* NULL: it is done; else why not. */
const char *process_work_error(const struct process_work *p);
void process_work_close(struct process_work *p);
void process_signal(struct process *p, int signal);

/* Kills it and waits, without a call of `ended`. */
void process_end_now(struct process *p);

/* "ended with status 1", "was killed by signal 9 (Killed)" */
void process_describe(const struct process *p, char *to, size_t size);

#endif
