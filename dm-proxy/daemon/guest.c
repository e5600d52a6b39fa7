#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/console.h"
#include "daemon/control.h"
#include "daemon/device_model.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/image.h"
#include "daemon/latency.h"
#include "daemon/protocol.h"
#include "daemon/slot.h"

#define REASON_PATIENCE_MS  1000  /* after QEMU's own end, for the hypervisor's word on why */
#define QEMU_PATIENCE_MS    3000  /* between asking it to end and killing it */
#define DESTROY_PATIENCE_MS 10000 /* for the hypervisor's answer */

enum phase {
    PHASE_WAITING,  /* for the hypervisor */
    PHASE_LOADING,  /* its memory is read from a file */
    PHASE_CREATING, /* the hypervisor makes the domain */
    PHASE_STARTING, /* its device model starts */
    PHASE_RUNNING,
    PHASE_DESTROYING, /* the hypervisor takes it apart */
    PHASE_STOPPING,   /* its device model ends */
    PHASE_GONE,       /* the client knows how it ended */
};

struct guest {
    struct guest *next;
    enum phase phase;
    struct watch client; /* -1: has left */
    int fds[REQUEST_MOST_FDS]; /* -1: not given */
    char text[REQUEST_MAX_BYTES]; /* what the request points into */
    struct request request;
    int slot; /* -1: none */
    struct device_model dm;
    struct console console;
    struct process_work loading;
    int devices; /* a file in memory: what QEMU loads of a saved guest, or saves; -1: none yet */
    void (*changed)(void *owner, const struct metronome_slot_status *status); /* whoever holds it */
    void *holder;
    struct timer patience;
    struct event end;
};

static struct guest *guests;
static bool slot_lost[HYPERVISOR_SLOTS]; /* the hypervisor did not give it back */
static void (*last_left)(void);

unsigned guests_count(void)
{
    unsigned n = 0;

    for (struct guest *g = guests; g; g = g->next)
        n++;
    return n;
}

static void tell(struct guest *g, const struct event *e)
{
    if (g->client.fd >= 0 && send(g->client.fd, e, sizeof *e, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* it has left: its descriptor says so next */
}

static void tell_text(struct guest *g, enum event_type type, const char *format, const char *argument)
{
    struct event e = {.type = type};

    snprintf(e.text, sizeof e.text, format, argument);
    tell(g, &e);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_fds(struct guest *g)
{
    for (unsigned i = 0; i < REQUEST_MOST_FDS; i++)
        close_fd(&g->fds[i]);
    close_fd(&g->devices);
}

static void forget(struct guest *g)
{
    struct guest **link = &guests;

    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    loop_cancel(&g->patience);
    if (g->client.fd >= 0)
        shutdown(g->client.fd, SHUT_RDWR); /* a process that does some work has inherited it */
    loop_close(&g->client);
    close_fds(g);
    free(g);
}

/* The last client's connection stays open until the process ends: so the client knows that everything has ended. */
static void forget_or_stop(struct guest *g)
{
    if (guests_count() > 1)
        forget(g);
    else
        last_left();
}

/* The last step: nothing of the guest is left, and the client is told. It is forgotten when the client leaves. */
static void gone(struct guest *g)
{
    console_close(&g->console);
    process_work_close(&g->loading);
    loop_cancel(&g->patience);
    if (g->slot >= 0)
        slot_empty(hypervisor_slot((unsigned)g->slot));
    g->slot = -1;
    g->phase = PHASE_GONE;
    close_fds(g);
    tell(g, &g->end);
    if (g->client.fd < 0)
        forget_or_stop(g);
}

static void on_impatient(void *owner)
{
    struct guest *g = owner;

    process_signal(&g->dm.process, SIGKILL);
}

static void stop_device_model(struct guest *g)
{
    g->phase = PHASE_STOPPING;
    if (!g->dm.process.pid) {
        gone(g);
        return;
    }
    process_signal(&g->dm.process, SIGTERM);
    loop_timer(&g->patience, QEMU_PATIENCE_MS, on_impatient, g);
}

/* The counts are final when the last vCPU has stopped. */
static void take_stats(struct guest *g)
{
    struct metronome_slot_status s;

    hypervisor_slot_status((unsigned)g->slot, &s);
    g->end.stats = s.stats;
    hypervisor_latency_ns((unsigned)g->slot, g->end.latency_ns);
    if (*g->request.latency && !latency_write(hypervisor_latency((unsigned)g->slot), hypervisor_tsc_hz(), g->fds[REQUEST_CWD],
                                              g->request.latency))
        fprintf(stderr, "metronome-daemon: %s: %s\n", g->request.latency, strerror(errno));
}

static void on_destroyed(void *owner, int status)
{
    struct guest *g = owner;

    if (status)
        fprintf(stderr, "metronome-daemon: destroying slot %d: error %d\n", g->slot, -status);
    if (g->phase != PHASE_DESTROYING)
        return;
    loop_cancel(&g->patience);
    take_stats(g);
    stop_device_model(g);
}

/* Its pages may be in use: the slot is not used again, and the guest's end is told without it. */
static void on_not_destroyed(void *owner)
{
    struct guest *g = owner;

    control_forget(g);
    take_stats(g);
    slot_lost[g->slot] = true;
    g->slot = -1;
    g->end.status = EXIT_INTERNAL;
    snprintf(g->end.text, sizeof g->end.text, "the hypervisor did not stop the guest within %d s",
             DESTROY_PATIENCE_MS / 1000);
    stop_device_model(g);
}

static void tell_holder(struct guest *g, const struct metronome_slot_status *s)
{
    void (*changed)(void *owner, const struct metronome_slot_status *status) = g->changed;

    if (!s)
        g->changed = NULL;
    if (changed)
        changed(g->holder, s);
}

/* The first reason counts. What had begun is taken back in the opposite order. */
static void end(struct guest *g, enum event_type type, int status, const char *format, const char *argument)
{
    bool created = g->phase >= PHASE_CREATING && hypervisor.state == HYPERVISOR_READY;

    if (g->phase >= PHASE_DESTROYING)
        return;
    tell_holder(g, NULL);
    g->end = (struct event){.type = type, .status = (uint32_t)status};
    snprintf(g->end.text, sizeof g->end.text, format, argument);
    g->phase = PHASE_DESTROYING;
    if (!created) {
        stop_device_model(g);
        return;
    }
    loop_timer(&g->patience, DESTROY_PATIENCE_MS, on_not_destroyed, g);
    hypervisor_command(METRONOME_CONTROL_DESTROY, (unsigned)g->slot, NULL, on_destroyed, g);
}

static void refuse(struct guest *g, int status, const char *text)
{
    end(g, EVENT_REFUSED, status, "%s", text);
}

static void on_no_reason(void *owner)
{
    end(owner, EVENT_ENDED, EXIT_ENDED, "the guest was ended from QEMU's monitor%s", "");
}

static void on_device_model_ended(void *owner)
{
    struct guest *g = owner;
    char how[100];

    process_describe(&g->dm.process, how, sizeof how);
    if (g->phase == PHASE_STOPPING)
        gone(g);
    else if (g->phase < PHASE_DESTROYING && g->dm.process.exited && !g->dm.process.status)
        /* A guest that has switched itself off ends its QEMU too, which may be seen before the hypervisor says so. */
        loop_timer(&g->patience, REASON_PATIENCE_MS, on_no_reason, g);
    else if (g->phase == PHASE_STARTING && g->dm.process.exited)
        end(g, EVENT_REFUSED, EXIT_USAGE, "the device model did not start: QEMU %s", how);
    else
        end(g, EVENT_ENDED, EXIT_INTERNAL, "the device model is gone: its QEMU %s", how);
}

static void on_power_button(void *owner)
{
    struct guest *g = owner;

    hypervisor_command(METRONOME_CONTROL_POWER_BUTTON, (unsigned)g->slot, NULL, NULL, NULL);
}

static void on_reset(void *owner)
{
    struct guest *g = owner;

    if (g->phase == PHASE_RUNNING)
        hypervisor_command(METRONOME_CONTROL_RESET, (unsigned)g->slot, NULL, NULL, NULL);
}

static void refuse_creation(struct guest *g, int error)
{
    static const struct {
        int error, status;
        const char *text;
    } causes[] = {
        {METRONOME_ENOEXEC, EXIT_USAGE, "the module is no image that can be started"},
        {METRONOME_ENOMEM, EXIT_USAGE, "the hypervisor's own memory is used up"},
        {METRONOME_EINVAL, EXIT_INTERNAL, "the hypervisor does not accept the guest's description"},
        {METRONOME_EBUSY, EXIT_INTERNAL, "the hypervisor still uses the guest's slot"},
        {METRONOME_EVERSION, EXIT_INTERNAL, "the hypervisor is of another version of Metronome"},
    };
    const char *image = g->fds[REQUEST_IMAGE] < 0 ? g->request.module : ""; /* a saved guest needs no module any more */
    struct metronome_slot_status s;
    char text[300];

    hypervisor_slot_status((unsigned)g->slot, &s);
    for (unsigned i = 0; i < sizeof causes / sizeof causes[0]; i++)
        if (error == -causes[i].error) {
            snprintf(text, sizeof text, "%.100s%s%s", image, *image ? ": " : "",
                     s.message[0] ? s.message : causes[i].text);
            refuse(g, causes[i].status, text);
            return;
        }
    snprintf(text, sizeof text, "%d", -error);
    end(g, EVENT_REFUSED, EXIT_INTERNAL, "the hypervisor refused the guest with error %s", text);
}

static void on_created(void *owner, int status)
{
    struct guest *g = owner;
    char error[300];

    if (g->phase != PHASE_CREATING)
        return;
    if (status) {
        g->phase = PHASE_WAITING; /* there is nothing to destroy */
        refuse_creation(g, status);
        return;
    }
    g->phase = PHASE_STARTING;
    if (*g->request.module)
        return;
    tell_text(g, EVENT_PROGRESS, "starting the device model%s", "");
    g->dm.ended = on_device_model_ended;
    g->dm.power_button = on_power_button;
    g->dm.reset = on_reset;
    g->dm.owner = g;
    if (!device_model_start(&g->dm, g->devices, &g->request, hypervisor_slot((unsigned)g->slot), g->fds, error,
                            sizeof error))
        refuse(g, EXIT_USAGE, error);
}

static int free_slot(void)
{
    bool used[HYPERVISOR_SLOTS];

    memcpy(used, slot_lost, sizeof used);
    for (struct guest *g = guests; g; g = g->next)
        if (g->slot >= 0)
            used[g->slot] = true;
    for (unsigned i = 0; i < HYPERVISOR_SLOTS; i++)
        if (!used[i])
            return (int)i;
    return -1;
}

static bool load(void *guest, char *error, size_t error_size)
{
    const struct guest *g = guest;
    const struct ivshmem *memory = hypervisor_slot((unsigned)g->slot);

    return image_load(g->fds[REQUEST_IMAGE], memory->memory, memory->bytes, g->devices, error, error_size);
}

static void on_loaded(void *owner)
{
    struct guest *g = owner;
    const uint64_t arguments[2] = {g->request.rtc_seconds, g->request.any_tsc ? METRONOME_RESTORE_ANY_TSC : 0};
    const char *error = process_work_error(&g->loading);

    if (g->phase != PHASE_LOADING)
        return;
    if (error) {
        end(g, EVENT_REFUSED, EXIT_USAGE, "the saved guest %s", error);
        return;
    }
    g->phase = PHASE_CREATING;
    hypervisor_command(METRONOME_CONTROL_RESTORE, (unsigned)g->slot, arguments, on_created, g);
}

static void make_devices(struct guest *g)
{
    g->devices = *g->request.module ? -1 : memfd_create("metronome-devices", MFD_CLOEXEC);
}

/* A saved guest's memory is read by a process of its own: others do not wait for it. */
static void start_loading(struct guest *g)
{
    char error[300];

    make_devices(g);
    g->phase = PHASE_LOADING;
    tell_text(g, EVENT_PROGRESS, "loading the guest%s", "");
    if (!slot_begin(hypervisor_slot((unsigned)g->slot)) || !process_work(&g->loading, load, g, on_loaded, g)) {
        snprintf(error, sizeof error, "cannot load the saved guest: %s", strerror(errno));
        refuse(g, EXIT_INTERNAL, error);
    }
}

static void create(struct guest *g)
{
    const struct ivshmem *memory;
    char error[300];
    bool saved = g->fds[REQUEST_IMAGE] >= 0;

    g->slot = free_slot();
    if (g->slot < 0) {
        refuse(g, EXIT_USAGE, "as many guests run already as the hypervisor has slots for");
        return;
    }
    memory = hypervisor_slot((unsigned)g->slot);
    if (!saved && !slot_fill(memory, &g->request, g->fds[REQUEST_CWD], error, sizeof error)) {
        refuse(g, EXIT_USAGE, error);
        return;
    }
    if (*g->request.module && !console_open(&g->console, memory, g->fds[REQUEST_SERIAL])) {
        refuse(g, EXIT_INTERNAL, "cannot map the guest's console");
        return;
    }
    if (saved) {
        start_loading(g);
        return;
    }
    g->phase = PHASE_CREATING;
    tell_text(g, EVENT_PROGRESS, "creating the guest%s", "");
    hypervisor_command(METRONOME_CONTROL_CREATE, (unsigned)g->slot, NULL, on_created, g);
}

/* Why a guest ended by itself, and what that is to its user. */
static const struct {
    int status;
    const char *text; /* %s: ": " and the hypervisor's message; no more than this is said where there is none */
} reasons[] = {
    [METRONOME_END_NONE] = {EXIT_INTERNAL, "the guest ended without a reason%s"},
    [METRONOME_END_POWEROFF] = {EXIT_ENDED, "the guest switched itself off"},
    [METRONOME_END_REBOOT] = {EXIT_ENDED, "the guest restarted, which it cannot without a device model"},
    [METRONOME_END_TRIPLE_FAULT] = {EXIT_CRASH, "the guest crashed: triple fault%s"},
    [METRONOME_END_CRASH] = {EXIT_CRASH, "the guest crashed%s"},
    [METRONOME_END_DM] = {EXIT_INTERNAL, "the device model broke the protocol%s"},
};

static void on_shutdown(struct guest *g, const struct metronome_slot_status *s)
{
    char message[sizeof s->message + 2] = "";

    if (s->message[0])
        snprintf(message, sizeof message, ": %.190s", s->message);
    if (s->reason == METRONOME_END_EXIT) {
        snprintf(message, sizeof message, "%u", s->code);
        end(g, EVENT_ENDED, s->code ? EXIT_CRASH : EXIT_ENDED, "the guest ended with code %s", message);
    } else if (s->reason < sizeof reasons / sizeof reasons[0]) {
        end(g, EVENT_ENDED, reasons[s->reason].status, reasons[s->reason].text, message);
    } else {
        end(g, EVENT_ENDED, EXIT_INTERNAL, "the guest ended for a reason unknown to this program%s", message);
    }
}

static void follow(struct guest *g)
{
    struct metronome_slot_status s;

    hypervisor_slot_status((unsigned)g->slot, &s);
    if (s.state == METRONOME_SLOT_RUNNING && g->phase == PHASE_STARTING) {
        g->phase = PHASE_RUNNING;
        tell_text(g, EVENT_RUNNING, "running%s", "");
    }
    tell_holder(g, &s);
    if (s.state == METRONOME_SLOT_SHUTDOWN)
        on_shutdown(g, &s);
}

static void hypervisor_failed(struct guest *g)
{
    if (g->phase == PHASE_DESTROYING) {
        loop_cancel(&g->patience);
        stop_device_model(g);
        return;
    }
    end(g, g->phase < PHASE_RUNNING ? EVENT_REFUSED : EVENT_ENDED, hypervisor.status, "%s", hypervisor.error);
}

static void update(struct guest *g)
{
    if (g->phase >= PHASE_STOPPING)
        return;
    if (hypervisor.state == HYPERVISOR_FAILED)
        hypervisor_failed(g);
    else if (hypervisor.state == HYPERVISOR_READY && g->phase == PHASE_WAITING)
        create(g);
    else if (g->phase == PHASE_STARTING || g->phase == PHASE_RUNNING)
        follow(g);
}

void guests_hypervisor_changed(void)
{
    struct guest *next;

    for (struct guest *g = guests; g; g = next) {
        next = g->next;
        update(g);
    }
}

static void client_left(struct guest *g)
{
    if (g->phase == PHASE_GONE) {
        forget_or_stop(g);
        return;
    }
    loop_close(&g->client);
    end(g, EVENT_ENDED, EXIT_ENDED, "stopped%s", "");
}

static void take_order(struct guest *g, const struct order *o, ssize_t bytes)
{
    if (bytes != sizeof *o)
        return;
    if (o->type == ORDER_STOP)
        end(g, EVENT_ENDED, EXIT_ENDED, "stopped%s", "");
    else if (g->phase == PHASE_RUNNING)
        guest_command(g, o->type == ORDER_RESET ? METRONOME_CONTROL_RESET : METRONOME_CONTROL_POWER_BUTTON);
}

static void on_client(void *owner)
{
    struct guest *g = owner;
    struct order order;
    ssize_t n = recv(g->client.fd, &order, sizeof order, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        client_left(g);
    else
        take_order(g, &order, n);
}

void guests_init(void (*on_last_left)(void))
{
    last_left = on_last_left;
}

void guests_none_came(void)
{
    if (!guests)
        last_left();
}

static struct guest *make(int client)
{
    struct guest *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    for (unsigned i = 0; i < REQUEST_MOST_FDS; i++)
        g->fds[i] = -1;
    g->slot = g->devices = g->loading.process.gone.fd = -1;
    g->phase = PHASE_WAITING;
    device_model_init(&g->dm);
    console_init(&g->console);
    g->next = guests;
    guests = g;
    loop_watch(&g->client, client, on_client, g);
    return g;
}

void guest_begin(int client, const char *request, size_t bytes, const int *fds, unsigned fd_count)
{
    struct guest *g = make(client);

    for (unsigned i = 0; i < fd_count; i++)
        if (g)
            g->fds[i] = fds[i];
        else
            close(fds[i]);
    if (!g) {
        close(client);
        return;
    }
    memcpy(g->text, request, bytes);
    if (fd_count < REQUEST_FDS || !request_unpack(&g->request, g->text, bytes)) {
        refuse(g, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
        return;
    }
    if (hypervisor.state == HYPERVISOR_STARTING)
        tell_text(g, EVENT_PROGRESS, "starting the hypervisor in %s", hypervisor.machine);
    update(g);
}

struct guest *guest_find(const char *name, const char **why)
{
    struct guest *found = NULL;

    for (struct guest *g = guests; g; g = g->next) {
        if (g->phase != PHASE_RUNNING || strcmp(g->request.name, name))
            continue;
        if (found) {
            *why = "several guests of this name are running";
            return NULL;
        }
        found = g;
    }
    *why = "no guest of this name is running";
    return found;
}

bool guest_hold(struct guest *g, void (*changed)(void *owner, const struct metronome_slot_status *status), void *owner,
                struct guest_view *view)
{
    if (g->changed)
        return false;
    g->changed = changed;
    g->holder = owner;
    if (g->devices < 0)
        make_devices(g);
    *view = (struct guest_view){(unsigned)g->slot, &g->dm, &g->request, g->fds[REQUEST_CWD], g->devices};
    return true;
}

void guest_release(struct guest *g)
{
    g->changed = NULL;
}

void guest_command(struct guest *g, uint32_t op)
{
    hypervisor_command(op, (unsigned)g->slot, NULL, NULL, NULL);
}

void guest_was_saved(struct guest *g)
{
    end(g, EVENT_ENDED, EXIT_ENDED, "saved%s", "");
}
