#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/console.h"
#include "daemon/control.h"
#include "daemon/device_model.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/protocol.h"
#include "daemon/slot.h"

#define REASON_PATIENCE_MS  1000  /* after QEMU's own end, for the hypervisor's word on why */
#define QEMU_PATIENCE_MS    3000  /* between asking it to end and killing it */
#define DESTROY_PATIENCE_MS 10000 /* for the hypervisor's answer */

enum phase {
    PHASE_REQUEST,  /* its client has not said yet what it is to be */
    PHASE_WAITING,  /* for the hypervisor */
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
    int fds[REQUEST_FDS];
    char text[REQUEST_MAX_BYTES]; /* what the request points into */
    struct request request;
    int slot; /* -1: none */
    struct device_model dm;
    struct console console;
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

static void close_fds(struct guest *g)
{
    for (unsigned i = 0; i < REQUEST_FDS; i++) {
        if (g->fds[i] >= 0)
            close(g->fds[i]);
        g->fds[i] = -1;
    }
}

static void forget(struct guest *g)
{
    struct guest **link = &guests;

    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    loop_cancel(&g->patience);
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

/* The first reason counts. What had begun is taken back in the opposite order. */
static void end(struct guest *g, enum event_type type, int status, const char *format, const char *argument)
{
    bool created = g->phase >= PHASE_CREATING && hypervisor.state == HYPERVISOR_READY;

    if (g->phase >= PHASE_DESTROYING)
        return;
    g->end = (struct event){.type = type, .status = (uint32_t)status};
    snprintf(g->end.text, sizeof g->end.text, format, argument);
    g->phase = PHASE_DESTROYING;
    if (!created) {
        stop_device_model(g);
        return;
    }
    loop_timer(&g->patience, DESTROY_PATIENCE_MS, on_not_destroyed, g);
    hypervisor_command(METRONOME_CONTROL_DESTROY, (unsigned)g->slot, 0, on_destroyed, g);
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

    hypervisor_command(METRONOME_CONTROL_POWER_BUTTON, (unsigned)g->slot, 0, NULL, NULL);
}

static void on_reset(void *owner)
{
    struct guest *g = owner;

    if (g->phase == PHASE_RUNNING)
        hypervisor_command(METRONOME_CONTROL_RESET, (unsigned)g->slot, 0, NULL, NULL);
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
    struct metronome_slot_status s;
    char text[300];

    hypervisor_slot_status((unsigned)g->slot, &s);
    for (unsigned i = 0; i < sizeof causes / sizeof causes[0]; i++)
        if (error == -causes[i].error) {
            snprintf(text, sizeof text, "%.100s%s%s", g->request.module, *g->request.module ? ": " : "",
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
    if (!device_model_start(&g->dm, (unsigned)g->slot, &g->request, hypervisor_slot((unsigned)g->slot), g->fds, error,
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

static void create(struct guest *g)
{
    const struct ivshmem *memory;
    char error[300];

    g->slot = free_slot();
    if (g->slot < 0) {
        refuse(g, EXIT_USAGE, "as many guests run already as the hypervisor has slots for");
        return;
    }
    memory = hypervisor_slot((unsigned)g->slot);
    if (!slot_fill(memory, &g->request, g->fds[REQUEST_CWD], error, sizeof error)) {
        refuse(g, EXIT_USAGE, error);
        return;
    }
    if (*g->request.module && !console_open(&g->console, memory, g->fds[REQUEST_SERIAL])) {
        refuse(g, EXIT_INTERNAL, "cannot map the guest's console");
        return;
    }
    g->phase = PHASE_CREATING;
    tell_text(g, EVENT_PROGRESS, "creating the guest%s", "");
    hypervisor_command(METRONOME_CONTROL_CREATE, (unsigned)g->slot, 0, on_created, g);
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
    if (g->phase == PHASE_REQUEST || g->phase >= PHASE_STOPPING)
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
    if (g->phase == PHASE_GONE || g->phase == PHASE_REQUEST) {
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
        hypervisor_command(o->type == ORDER_RESET ? METRONOME_CONTROL_RESET : METRONOME_CONTROL_POWER_BUTTON,
                           (unsigned)g->slot, 0, NULL, NULL);
}

static void take_request(struct guest *g, ssize_t bytes, unsigned fds)
{
    g->phase = PHASE_WAITING;
    if (fds != REQUEST_FDS || !request_unpack(&g->request, g->text, (size_t)bytes)) {
        refuse(g, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
        return;
    }
    if (hypervisor.state == HYPERVISOR_STARTING)
        tell_text(g, EVENT_PROGRESS, "starting the hypervisor in %s", hypervisor.machine);
    update(g);
}

static unsigned take_fds(struct guest *g, struct msghdr *m)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    unsigned n;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return 0;
    n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(g->fds, CMSG_DATA(c), n * sizeof(int));
    return n;
}

static void on_client(void *owner)
{
    struct guest *g = owner;
    char control[CMSG_SPACE(sizeof g->fds)];
    struct order order;
    struct iovec data = {&order, sizeof order};
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n;

    if (g->phase == PHASE_REQUEST)
        data = (struct iovec){g->text, sizeof g->text};
    n = recvmsg(g->client.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        client_left(g);
    else if (g->phase == PHASE_REQUEST)
        take_request(g, n, take_fds(g, &m));
    else
        take_order(g, &order, n);
}

void guests_init(void (*on_last_left)(void))
{
    last_left = on_last_left;
}

void guest_accept(int connection)
{
    struct guest *g = calloc(1, sizeof *g);

    if (!g) {
        close(connection);
        return;
    }
    for (unsigned i = 0; i < REQUEST_FDS; i++)
        g->fds[i] = -1;
    g->slot = -1;
    device_model_init(&g->dm);
    console_init(&g->console);
    g->next = guests;
    guests = g;
    loop_watch(&g->client, connection, on_client, g);
}
