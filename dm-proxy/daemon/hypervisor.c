#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/control.h"
#include "daemon/host.h"
#include "daemon/hypervisor.h"
#include "daemon/latency.h"
#include "daemon/loop.h"
#include "daemon/outer.h"
#include "daemon/process.h"
#include "daemon/protocol.h"

#define START_PATIENCE_MS 60000
#define EXIT_CANNOT_RUN   5    /* of its QEMU, when the hypervisor stops with code 2 */
#define PANIC_PATIENCE_MS 1000 /* for its backtrace to reach the log */
#define POLL_MS           50   /* beside the doorbell, which a hypervisor that has just died does not ring */

struct hypervisor_info hypervisor;

static struct {
    struct ivshmem control, slot[HYPERVISOR_SLOTS];
    uint8_t *memory;
    struct process qemu;
    struct watch doorbell, console, messages;
    struct timer poll, notice, panicked;
    uint64_t started_ms;
    int log;
    char line[256], last[256], panic[256]; /* of its console: being read, the last one, the first of a panic */
    size_t line_bytes;
    void (*changed)(void);
} hv = {.qemu.gone.fd = -1, .doorbell.fd = -1, .console.fd = -1, .messages.fd = -1, .log = -1};

static struct metronome_control_header *header(void)
{
    return (void *)(hv.memory + METRONOME_CONTROL_HEADER);
}

static void on_notice(void *owner)
{
    (void)owner;
    hv.changed();
}

/* Whoever asked for what failed is in the middle of something, so it is told from the loop. */
static void fail(int status, const char *text)
{
    if (hypervisor.state == HYPERVISOR_FAILED)
        return;
    hypervisor.state = HYPERVISOR_FAILED;
    hypervisor.status = status;
    snprintf(hypervisor.error, sizeof hypervisor.error, "%s", text);
    loop_cancel(&hv.poll);
    loop_timer(&hv.notice, 0, on_notice, NULL);
}

static void on_panicked(void *owner)
{
    char text[300];

    (void)owner;
    snprintf(text, sizeof text, "the hypervisor stopped: %s", hv.panic);
    fail(EXIT_INTERNAL, text);
}

static void end_line(void)
{
    hv.line[hv.line_bytes] = 0;
    if (hv.line_bytes)
        memcpy(hv.last, hv.line, sizeof hv.last);
    if (!hv.panic[0] && strcasestr(hv.line, "panic")) {
        memcpy(hv.panic, hv.line, sizeof hv.panic);
        loop_timer(&hv.panicked, PANIC_PATIENCE_MS, on_panicked, NULL);
    }
    hv.line_bytes = 0;
}

/* Copies what it says to the log and remembers the lines that a failure is told with. */
static void take_output(struct watch *w)
{
    char bytes[4096];
    ssize_t n = read(w->fd, bytes, sizeof bytes);

    if (n <= 0) {
        loop_close(w);
        return;
    }
    if (hv.log >= 0 && write(hv.log, bytes, (size_t)n) < 0)
        hv.log = -1;
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\n')
            end_line();
        else if (bytes[i] != '\r' && hv.line_bytes < sizeof hv.line - 1)
            hv.line[hv.line_bytes++] = bytes[i];
}

static void on_output(void *owner)
{
    take_output(owner);
}

static void check_ready(void)
{
    uint32_t ready = __atomic_load_n(&header()->ready, __ATOMIC_ACQUIRE);
    char text[300];

    if (ready == 1) {
        hypervisor.state = HYPERVISOR_READY;
    } else if (ready == 2) {
        snprintf(text, sizeof text, "the hypervisor cannot run: %.255s", header()->error);
        fail(EXIT_USAGE, text);
    } else if (loop_now_ms() > hv.started_ms + START_PATIENCE_MS) {
        snprintf(text, sizeof text, "the hypervisor is not ready after %d s%s%s", START_PATIENCE_MS / 1000,
                 hv.last[0] ? ", its last words: " : "", hv.last);
        fail(EXIT_INTERNAL, text);
    }
}

static void look(void)
{
    if (hypervisor.state == HYPERVISOR_STARTING)
        check_ready();
    if (hypervisor.state == HYPERVISOR_READY)
        control_receive();
    if (hypervisor.state != HYPERVISOR_FAILED)
        hv.changed();
}

static void on_ended(void *owner)
{
    char how[100], text[400];

    (void)owner;
    while (hv.console.fd >= 0)
        take_output(&hv.console);
    while (hv.messages.fd >= 0)
        take_output(&hv.messages);
    end_line();
    process_describe(&hv.qemu, how, sizeof how);
    /* It may have said why and ended before we looked. */
    look();
    if (hv.panic[0])
        on_panicked(NULL);
    if (hypervisor.state == HYPERVISOR_STARTING && hv.qemu.exited && hv.qemu.status == EXIT_CANNOT_RUN) {
        snprintf(text, sizeof text, "the hypervisor cannot run: %s", hv.last);
        fail(EXIT_USAGE, text);
    }
    snprintf(text, sizeof text, "the hypervisor's QEMU %s%s%s", how, hv.last[0] ? ": " : "", hv.last);
    fail(EXIT_INTERNAL, text);
}

static void on_doorbell(void *owner)
{
    uint64_t count;

    (void)owner;
    if (read(hv.doorbell.fd, &count, sizeof count) == sizeof count)
        look();
}

static void on_poll(void *owner)
{
    (void)owner;
    look();
    if (hypervisor.state != HYPERVISOR_FAILED)
        loop_timer(&hv.poll, POLL_MS, on_poll, NULL);
}

static bool open_devices(void)
{
    char name[32];

    if (!ivshmem_open(&hv.control, "metronome-control", METRONOME_CONTROL_BYTES))
        return false;
    for (unsigned i = 0; i < HYPERVISOR_SLOTS; i++) {
        snprintf(name, sizeof name, "metronome-slot%u", i);
        if (!ivshmem_open(&hv.slot[i], name, slot_bytes()))
            return false;
    }
    hv.memory = mmap(NULL, METRONOME_CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, hv.control.memory, 0);
    if (hv.memory == MAP_FAILED)
        return false;
    header()->magic = METRONOME_CONTROL_MAGIC;
    header()->version = METRONOME_ABI_VERSION;
    header()->slots = HYPERVISOR_SLOTS;
    header()->slot_bytes = slot_bytes();
    control_init(hv.memory);
    return true;
}

/* Its ends of the sockets and pipes are ours to close once it has them. */
static bool start_qemu(int console, int messages, char *error, size_t error_size)
{
    struct outer o = {.slots = HYPERVISOR_SLOTS, .console = console, .control = hv.control.client};
    struct outer_command command;
    struct process_plan plan = {
        .argv = command.argv, .keep = command.keep, .out = messages, .err = messages, .cwd = -1};

    for (unsigned i = 0; i < HYPERVISOR_SLOTS; i++)
        o.slot[i] = hv.slot[i].client;
    if (!outer_command(&command, &o, error, error_size))
        return false;
    memcpy(hypervisor.machine, command.machine, sizeof hypervisor.machine);
    return process_start(&hv.qemu, &plan, on_ended, NULL, error, error_size);
}

static bool start(char *error, size_t error_size)
{
    int console[2], messages[2];
    bool started;

    if (!open_devices() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) || pipe2(messages, O_CLOEXEC)) {
        snprintf(error, error_size, "cannot make the shared memory: %s", strerror(errno));
        return false;
    }
    started = start_qemu(console[1], messages[1], error, error_size);
    close(console[1]);
    close(messages[1]);
    loop_watch(&hv.console, console[0], on_output, &hv.console);
    loop_watch(&hv.messages, messages[0], on_output, &hv.messages);
    loop_watch(&hv.doorbell, dup(hv.control.to_dom0), on_doorbell, NULL);
    return started;
}

void hypervisor_start(int log, void (*changed)(void))
{
    char error[300];

    hv.changed = changed;
    hv.log = log;
    hv.started_ms = loop_now_ms();
    if (!start(error, sizeof error)) {
        fail(EXIT_USAGE, error);
        return;
    }
    loop_timer(&hv.poll, POLL_MS, on_poll, NULL);
}

/* It has no state that could be lost, so it is not asked. */
void hypervisor_stop(void)
{
    loop_cancel(&hv.poll);
    loop_cancel(&hv.panicked);
    process_end_now(&hv.qemu);
}

const struct ivshmem *hypervisor_slot(unsigned slot)
{
    return &hv.slot[slot];
}

void hypervisor_slot_status(unsigned slot, struct metronome_slot_status *copy)
{
    const struct metronome_slot_status *shared = (void *)(hv.memory + METRONOME_CONTROL_SLOTS);

    /* The state first: what it promises was written before it. */
    uint32_t state = __atomic_load_n(&shared[slot].state, __ATOMIC_ACQUIRE);

    memcpy(copy, &shared[slot], sizeof *copy);
    copy->state = state;
    copy->message[sizeof copy->message - 1] = 0;
}

const struct metronome_latency *hypervisor_latency(unsigned slot)
{
    return (const struct metronome_latency *)(const void *)(hv.memory + METRONOME_CONTROL_LATENCY) + slot;
}

uint64_t hypervisor_tsc_hz(void)
{
    return header()->tsc_hz;
}

uint64_t hypervisor_ns(uint64_t ticks)
{
    return ticks_ns(ticks, hypervisor_tsc_hz());
}

struct metronome_trace *hypervisor_trace(void)
{
    return (struct metronome_trace *)(void *)(hv.memory + METRONOME_CONTROL_TRACE);
}

int hypervisor_memory(void)
{
    return hv.control.memory;
}

void hypervisor_latency_ns(unsigned slot, struct metronome_latency_summary *to)
{
    latency_ns(hypervisor_latency(slot), hypervisor_tsc_hz(), to);
}

void hypervisor_describe(struct hypervisor_facts *to)
{
    const struct metronome_control_header *h = header();

    to->pcpus = h->pcpus;
    to->slots = h->slots;
    to->tsc_hz = h->tsc_hz;
    to->memory = h->total_bytes;
    to->free_memory = h->free_bytes;
    to->slot_memory = slot_largest_guest();
    to->age_ms = loop_now_ms() - hv.started_ms;
    snprintf(to->version, sizeof to->version, "%s", METRONOME_VERSION);
    snprintf(to->machine, sizeof to->machine, "%s", hypervisor.machine);
}

void hypervisor_command(uint32_t op, unsigned slot, const uint64_t arguments[2], void (*done)(void *owner, int status),
                        void *owner)
{
    uint64_t one = 1;

    if (hypervisor.state != HYPERVISOR_READY)
        return;
    if (!control_send(op, slot, arguments, done, owner)) {
        fail(EXIT_INTERNAL, "the hypervisor does not take commands any more");
        return;
    }
    if (write(hv.control.to_hypervisor, &one, sizeof one) != sizeof one)
        fail(EXIT_INTERNAL, "cannot ring the hypervisor's doorbell");
}

void hypervisor_forget(const void *owner)
{
    control_forget(owner);
}
