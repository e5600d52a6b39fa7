/*
 * `metronome run`, `restore` and `console`: what was asked for, and the steps it goes through.
 *
 *   settings.c  every option and configuration key, in one table
 *   config.c    FILE.cfg
 *   disk.c      disks and images
 *   nic.c       network cards
 *   save.c      `metronome save`, and the file that `restore` reads
 *   check.c     bad input, found before anything starts
 *   attach.c    to a guest's console
 *   session.c   until the guest's end, or until it is left
 *   terminal.c  raw mode and the keys after Ctrl-a
 *   expect.c    --expect
 *   progress.c  what is happening
 *   report.c    the table at the end
 *   client.c    the way to the daemon
 *   errand.c    the commands about one guest
 *   facts.c     list and info
 *   up.c        up and down
 *   top.c       top
 *   why_late.c  why-late
 *   latency.c   latency: ledgers.c has copies of what the hypervisor counts, plot.c draws
 *   deterministic.c  --deterministic: a run without daemon
 *   tracing.c   `metronome trace`
 *   trace.c     the trace's rings, and its files
 *   perfetto.c  its timeline
 */
#ifndef METRONOME_RUN_H
#define METRONOME_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/protocol.h"
#include "daemon/request.h"

#define EXIT_UNMET 1 /* the guest ended without the output that --expect waits for */

#define NOT_UP     "no hypervisor is running: `metronome up` or `metronome run` starts one"

extern const char *command_name; /* the word behind "metronome" */

struct run {
    struct request request;
    const char *guest; /* `console`: the name or number of one that runs already; else NULL */
    bool detach;       /* leave it as soon as it runs */
    const char *config;
    const char *expect;
    uint64_t timeout_ms; /* 0: none */
    int image;           /* of a guest to restore; -1: none */
    bool rtc_of_host;    /* its RTC goes on with the time that has passed, not with that of its saving */
    bool quiet;
    bool deterministic;
    const char *trace; /* a file for what was traced; NULL: none */
};

/* Prints one line, "metronome: ...", and ends the program with EXIT_USAGE. */
void bad_input(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* What a command takes beside options. */
struct command_line {
    const char *usage;                                /* printed by --help, before the options */
    unsigned kind;                                    /* SETTING_* */
    void (*take_operand)(struct run *r, const char *operand); /* its only one */
};
enum { SETTING_RUN = 1, SETTING_RESTORE = 2, SETTING_CONSOLE = 4 };

/* settings.c: applies an option or key, or ends by bad_input(). `where`: "--memory", or "FILE.cfg: memory". */
void settings_from_arguments(struct run *r, const struct command_line *c, int argc, char **argv);
void settings_apply(struct run *r, const char *key, const char *value, const char *where);
bool settings_is_key(const char *key); /* of configuration files */

/* config.c */
void config_read(struct run *r, const char *path);

/* disk.c, nic.c */
void disk_add(struct request *r, const char *spec, const char *where);
void cdrom_add(struct request *r, const char *path, const char *where);
void disks_check(struct request *r);
void nic_add(struct request *r, const char *spec, const char *where);

/* check.c: ends by bad_input() where something cannot work. */
void check_console(const struct run *r);
void check_run(struct run *r);
void check_restore(struct run *r);

/* save.c: `metronome save`, and what `metronome restore` reads. */
int save_command(int argc, char **argv);
void restore_read(struct run *r, const char *path);

/* facts.c */
extern const char *const guest_state_words[GUEST_STATES];
int list_command(int argc, char **argv);
int info_command(int argc, char **argv);

/* latency.c */
int latency_command(int argc, char **argv);

/* why_late.c */
int why_late_command(int argc, char **argv);

/* top.c */
int top_command(int argc, char **argv);

/* tracing.c */
int trace_command(int argc, char **argv);

/* up.c */
int up_command(int argc, char **argv);
int down_command(int argc, char **argv);

/* session.c: returns the exit status. */
int session_run(struct run *r);

/* deterministic.c: the first ends by bad_input() where something cannot be so; the second returns the exit status. */
void deterministic_check(const struct run *r);
int deterministic_run(const struct run *r);

/* report.c */
void report_end(const struct event *end);

#endif
