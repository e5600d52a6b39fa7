/*
 * `metronome run --deterministic`: the module alone on a hypervisor of its own, in an outer machine whose clock is its count of
 * instructions (QEMU's icount, without sleeping). There is no daemon, and nothing reaches that machine from outside while it
 * runs: what it says and what it records are files in memory, of which the first is shown as it grows, and the other read at
 * the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/latency.h"
#include "daemon/paths.h"
#include "daemon/reason.h"
#include "public/control.h"
#include "run.h"
#include "terminal.h"
#include "trace.h"

#define MIB (1ull << 20)
#define RECORDER_BYTES (1ull << 30) /* the rest of it is for the trace; it costs what is written */
#define HYPERVISOR_MIB 128u         /* for itself, beside the guest's memory */
#define LARGEST_BLOCK_MIB 1024u     /* the guest's memory is in one block, of a power of two, with 2 MiB of another use */
#define SMALLEST_BLOCK_MIB 32u
#define BLOCK_OTHER_MIB 2u
#define LONGEST_WORDS 1000u         /* on a boot module's command line */
#define LOOK_US 20000
#define STATUS_OF(code) ((code) * 2 + 1) /* of QEMU's isa-debug-exit */
#define CODE_CANNOT_RUN 2           /* the hypervisor's own */

/* In the outer QEMU: the same in each run, as names are part of what its machine sees. */
enum { FD_HYPERVISOR = 200, FD_MODULE, FD_INITRD, FD_CONSOLE, FD_RECORDER, FD_END };
#define FD_PATH "/proc/self/fd/%d"

struct outer_run {
    const struct run *run;
    int files[FD_END - FD_HYPERVISOR]; /* ours, in that order; -1: none */
    struct metronome_control_header *recorder;
    off_t shown; /* bytes of the console */
    char *argv[64];
    unsigned arguments;
};

static int *file_of(struct outer_run *o, int fd)
{
    return &o->files[fd - FD_HYPERVISOR];
}

static int open_input(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        bad_input("%s: %s", path, strerror(errno));
    return fd;
}

static int memory_file(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)bytes))
        bad_input("%s: %s", name, strerror(errno));
    return fd;
}

static void open_files(struct outer_run *o)
{
    const struct request *q = &o->run->request;
    char hypervisor[PATH_MAX];

    beside_program(hypervisor, "metronome.elf", "METRONOME_HYPERVISOR");
    *file_of(o, FD_HYPERVISOR) = open_input(hypervisor);
    *file_of(o, FD_MODULE) = open_input(q->module);
    *file_of(o, FD_INITRD) = *q->initrd ? open_input(q->initrd) : -1;
    *file_of(o, FD_CONSOLE) = memory_file("console", 0);
    *file_of(o, FD_RECORDER) = memory_file("recorder", RECORDER_BYTES);
    o->recorder = mmap(NULL, RECORDER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, *file_of(o, FD_RECORDER), 0);
    if (o->recorder == MAP_FAILED)
        bad_input("recorder: %s", strerror(errno));
    o->recorder->magic = METRONOME_RECORDER_MAGIC;
    o->recorder->version = METRONOME_ABI_VERSION;
}

/* ---- The outer machine's command line ---- */

__attribute__((format(printf, 2, 3))) static void add(struct outer_run *o, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&o->argv[o->arguments++], format, arguments) < 0)
        bad_input("no memory");
    va_end(arguments);
}

static void add_words(struct outer_run *o, const char *words)
{
    char *copy = strdup(words), *rest, *word;

    for (word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        add(o, "%s", word);
    free(copy);
}

/* As QEMU reads it: a comma would end the module. */
static char *module_words(const char *words)
{
    char *escaped = calloc(1, 2 * strlen(words) + 1), *to = escaped;

    for (const char *c = words; *c; c++) {
        if (*c == ',')
            *to++ = ',';
        *to++ = *c;
    }
    return escaped;
}

static unsigned block_mib(const struct request *q)
{
    unsigned mib = SMALLEST_BLOCK_MIB;

    while (mib < LARGEST_BLOCK_MIB && mib < q->memory / MIB + BLOCK_OTHER_MIB + 1)
        mib *= 2;
    return mib;
}

static void add_machine(struct outer_run *o)
{
    uint64_t files = 0;

    for (int fd = FD_MODULE; fd <= FD_INITRD; fd++)
        files += *file_of(o, fd) >= 0 ? (uint64_t)lseek(*file_of(o, fd), 0, SEEK_END) : 0;
    add_words(o, "-accel tcg -cpu max -machine q35 -nodefaults -display none -no-reboot -no-user-config -smp 1 "
                 "-icount shift=0,sleep=off -seed 1 -rtc clock=vm,base=2026-01-01");
    add(o, "-m");
    add(o, "%llu", 2 * block_mib(&o->run->request) + HYPERVISOR_MIB + (unsigned long long)(files / MIB));
    add(o, "-chardev");
    add(o, "file,id=console,path=" FD_PATH, FD_CONSOLE);
    add_words(o, "-serial chardev:console -device isa-debug-exit,iobase=0xf4,iosize=4");
    add(o, "-object");
    add(o, "memory-backend-file,id=recorder,size=%llu,share=on,mem-path=" FD_PATH, RECORDER_BYTES, FD_RECORDER);
    add_words(o, "-device ivshmem-plain,memdev=recorder");
}

/* The domain's request in the words of a boot option; empty where it is as usual. */
static void ticks_words(uint32_t ticks, char *to, size_t size)
{
    *to = 0;
    for (unsigned i = 0; i < METRONOME_TICK_SOURCE_COUNT; i++) {
        unsigned policy = ticks >> METRONOME_TICKS_SHIFT(i) & 15;
        size_t n = strlen(to);

        if (policy)
            snprintf(to + n, size - n, "%s%s=%s", n ? "," : "ticks=", metronome_tick_source_keys[i], metronome_tick_policy_keys[policy]);
    }
}

static void add_hypervisor(struct outer_run *o)
{
    const struct request *q = &o->run->request;
    const char *more = getenv("METRONOME_APPEND");
    char ticks[128];

    ticks_words(q->ticks, ticks, sizeof ticks);
    add(o, "-kernel");
    add(o, FD_PATH, FD_HYPERVISOR);
    add(o, "-append");
    add(o, "%s exit=0xf4 loglevel=warning mem=%llu vcpus=%llu trace=%#x %s", more ? more : "", (unsigned long long)(q->memory / MIB),
        (unsigned long long)q->vcpus, o->run->trace ? METRONOME_TRACE_ALL : 0, ticks); /* the first of two of one name counts */
    add(o, "-initrd");
    if (*q->initrd)
        add(o, FD_PATH " %s," FD_PATH, FD_MODULE, module_words(q->append), FD_INITRD);
    else
        add(o, FD_PATH " %s", FD_MODULE, module_words(q->append));
}

/* ---- Its time ---- */

static void become_qemu(struct outer_run *o, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    dup2(null, STDIN_FILENO);
    for (int fd = FD_HYPERVISOR; fd < FD_END; fd++)
        if (*file_of(o, fd) >= 0)
            dup2(*file_of(o, fd), fd);
    execv(o->argv[0], o->argv);
    fprintf(stderr, "metronome: %s: %s\n", o->argv[0], strerror(errno));
    _exit(127);
}

static void show_console(struct outer_run *o)
{
    char bytes[8192];
    ssize_t n;

    while ((n = pread(*file_of(o, FD_CONSOLE), bytes, sizeof bytes, o->shown)) > 0) {
        if (!terminal_write(bytes, (size_t)n))
            exit(EXIT_INTERNAL);
        o->shown += n;
    }
}

/* Returns QEMU's exit status, or that of the signal that ended it as a shell has it. */
static int run_outer(struct outer_run *o)
{
    pid_t parent = getpid(), pid = fork();
    int status;

    if (pid < 0)
        bad_input("cannot start a process: %s", strerror(errno));
    if (!pid)
        become_qemu(o, parent);
    while (!waitpid(pid, &status, WNOHANG)) {
        show_console(o);
        usleep(LOOK_US);
    }
    show_console(o);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- What it leaves ---- */

static void write_trace(struct outer_run *o)
{
    struct trace_reader r = {.choice = {.mask = METRONOME_TRACE_ALL}, .tsc_hz = o->recorder->tsc_hz};
    bool whole = false;

    r.to = open(o->run->trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (r.to < 0)
        r.error = strerror(errno);
    else if (trace_open(&r, (void *)((char *)o->recorder + METRONOME_CONTROL_TRACE), RECORDER_BYTES - METRONOME_CONTROL_TRACE))
        whole = trace_take_rest(&r);
    if (!whole)
        fprintf(stderr, "metronome: %s: %s\n", o->run->trace, r.error);
    trace_close(&r);
    close(r.to);
}

static void write_latency(const struct outer_run *o, const struct metronome_latency *l)
{
    const char *path = o->run->request.latency;

    if (*path && !latency_write(l, o->recorder->tsc_hz, AT_FDCWD, path))
        fprintf(stderr, "metronome: %s: %s\n", path, strerror(errno));
}

static int conclude(struct outer_run *o)
{
    const struct metronome_slot_status *s = (const void *)((const char *)o->recorder + METRONOME_CONTROL_SLOTS);
    const struct metronome_latency *l = (const void *)((const char *)o->recorder + METRONOME_CONTROL_LATENCY);
    struct event end = {.type = EVENT_ENDED, .stats = s->stats};
    int status = reason_text(s, end.text, sizeof end.text);

    latency_ns(l, o->recorder->tsc_hz, end.latency_ns);
    if (!o->run->quiet || status)
        fprintf(stderr, "metronome: %s\n", end.text);
    if (!o->run->quiet)
        report_end(&end);
    write_latency(o, l);
    if (o->run->trace)
        write_trace(o);
    return status;
}

static int failed(int status)
{
    if (status == STATUS_OF(CODE_CANNOT_RUN)) {
        fputs("metronome: the hypervisor cannot run this\n", stderr);
        return EXIT_USAGE;
    }
    fprintf(stderr, "metronome: the hypervisor's QEMU ended with status %d\n", status);
    return EXIT_INTERNAL;
}

/* ---- From the command line ---- */

void deterministic_check(const struct run *r)
{
    const struct request *q = &r->request;

    if (!*q->module)
        bad_input("--deterministic: needs --module: a device model answers when it does, not when it should");
    if (r->timeout_ms || r->expect)
        bad_input("--%s: not with --deterministic: it would end the run at another moment each time", r->expect ? "expect" : "timeout");
    if (r->detach)
        bad_input("--detach: a deterministic run has no daemon that would go on with it");
    if (q->sockets > 1)
        bad_input("vcpus: sockets=%llu: the CPUs of a guest are one package with --deterministic", (unsigned long long)q->sockets);
    if (q->memory / MIB + BLOCK_OTHER_MIB > LARGEST_BLOCK_MIB)
        bad_input("memory: %llu MiB is too much: a guest can have %u MiB at most with --deterministic",
                  (unsigned long long)(q->memory / MIB), LARGEST_BLOCK_MIB - BLOCK_OTHER_MIB);
    if (strlen(q->append) > LONGEST_WORDS)
        bad_input("--append: with --deterministic a command line has at most %u characters", LONGEST_WORDS);
}

int deterministic_run(const struct run *r)
{
    struct outer_run o = {.run = r};
    const struct metronome_slot_status *s;
    char qemu[PATH_MAX];
    int status;

    if (!find_outer_qemu(qemu))
        bad_input("no QEMU to run the hypervisor in: install the package qemu-system-x86");
    open_files(&o);
    add(&o, "%s", qemu);
    add_machine(&o);
    add_hypervisor(&o);
    status = run_outer(&o);
    s = (const void *)((const char *)o.recorder + METRONOME_CONTROL_SLOTS);
    return s->state == METRONOME_SLOT_SHUTDOWN ? conclude(&o) : failed(status);
}
