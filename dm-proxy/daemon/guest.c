#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/guest_life.h"
#include "daemon/lifetime.h"

struct guest *guests;
static uint32_t last_id;

struct guest *guest_after(uint32_t id)
{
    struct guest *g = guests;

    while (g && (g->id <= id || g->phase == PHASE_GONE))
        g = g->next;
    return g;
}

uint32_t guest_id(const struct guest *g)
{
    return g->id;
}

unsigned guests_count(void)
{
    unsigned n = 0;

    for (struct guest *g = guest_after(0); g; g = guest_after(g->id))
        n++;
    return n;
}

unsigned guests_slots_lost(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < HYPERVISOR_SLOTS; i++)
        n += guest_slot_lost(i);
    return n;
}

/* ---- Who hears of it ---- */

void guest_tell_text(struct guest *g, enum event_type type, const char *text)
{
    client_tell(g->client.fd, type, 0, text);
}

void guest_watch(struct guest *g, struct guest_watcher *w)
{
    w->guest = g;
    w->next = g->watchers;
    g->watchers = w;
}

void guest_unwatch(struct guest_watcher *w)
{
    struct guest *g = w->guest;
    struct guest_watcher **link = g ? &g->watchers : NULL;

    if (!g)
        return;
    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    if (g->next_to_tell == w)
        g->next_to_tell = w->next;
    w->guest = NULL;
}

/* Whoever hears it may leave, and make others leave. */
void guest_tell_watchers(struct guest *g, enum guest_news news, const struct metronome_slot_status *status)
{
    for (struct guest_watcher *w = g->watchers; w; w = g->next_to_tell) {
        g->next_to_tell = w->next;
        if (news == GUEST_NEWS_GONE)
            guest_unwatch(w);
        w->hear(w->owner, news, g, status);
    }
}

const struct event *guest_end(const struct guest *g)
{
    return &g->end;
}

bool guest_is_lost(const struct guest *g)
{
    return g->lost;
}

void guest_forget(struct guest *g)
{
    struct guest **link = &guests;

    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    loop_cancel(&g->patience);
    if (g->client.fd >= 0)
        shutdown(g->client.fd, SHUT_RDWR); /* a process that does some work has inherited it */
    loop_close(&g->client);
    streams_close(&g->streams);
    free(g);
}

/* ---- From the request to its end ---- */

static void follow(struct guest *g)
{
    struct metronome_slot_status s;

    hypervisor_slot_status((unsigned)g->slot, &s);
    if (s.state == METRONOME_SLOT_RUNNING && g->phase == PHASE_STARTING) {
        g->phase = PHASE_RUNNING;
        guest_tell_text(g, EVENT_RUNNING, "running");
    }
    guest_tell_watchers(g, GUEST_NEWS_STATUS, &s);
    if (s.state == METRONOME_SLOT_SHUTDOWN)
        guest_shut_down(g, &s);
}

static void update(struct guest *g)
{
    if (g->phase >= PHASE_STOPPING)
        return;
    if (hypervisor.state == HYPERVISOR_FAILED)
        guest_hypervisor_failed(g);
    else if (hypervisor.state == HYPERVISOR_READY && g->phase == PHASE_WAITING)
        guest_create(g);
    else if (g->phase == PHASE_STARTING || g->phase == PHASE_RUNNING)
        follow(g);
}

/* What is done to one may forget it, but no other. */
void guests_hypervisor_changed(void)
{
    struct guest *next;

    for (struct guest *g = guests; g; g = next) {
        next = g->next;
        update(g);
    }
}

void guests_stop_all(const char *why)
{
    struct guest *next;

    for (struct guest *g = guests; g; g = next) {
        next = g->next;
        guest_stop(g, why);
    }
}

static void detach(struct guest *g)
{
    loop_close(&g->client);
    g->tied = false;
    streams_take_back(&g->streams);
}

static void client_left(struct guest *g)
{
    bool tied = g->tied;

    if (g->phase == PHASE_GONE) {
        guest_forget(g);
        return;
    }
    detach(g);
    if (tied)
        guest_stop(g, "stopped");
}

static void take_order(struct guest *g, const struct order *o)
{
    if (o->type == ORDER_STOP) {
        guest_stop(g, "stopped");
    } else if (o->type == ORDER_DETACH && g->phase < PHASE_DESTROYING) {
        guest_tell_text(g, EVENT_DETACHED, g->label);
        detach(g);
    } else if (g->phase == PHASE_RUNNING && (o->type == ORDER_RESET || o->type == ORDER_POWER_BUTTON)) {
        guest_command(g, o->type == ORDER_RESET ? METRONOME_CONTROL_RESET : METRONOME_CONTROL_POWER_BUTTON, NULL, NULL);
    }
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
    else if (n == sizeof order)
        take_order(g, &order);
}

static struct guest *make(int client)
{
    struct guest *g = calloc(1, sizeof *g), **last = &guests;

    if (!g)
        return NULL;
    g->cwd = g->image = g->slot = g->devices = g->loading.process.gone.fd = -1;
    g->id = ++last_id;
    g->phase = PHASE_WAITING;
    g->tied = true;
    g->began_ms = loop_now_ms();
    request_init(&g->request);
    device_model_init(&g->dm);
    console_init(&g->console);
    streams_init(&g->streams);
    while (*last)
        last = &(*last)->next;
    *last = g;
    loop_watch(&g->client, client, on_client, g);
    lifetime_hold();
    return g;
}

/* What the client sent is the guest's from here on. False: it is no request. */
static bool take_request(struct guest *g, const char *request, size_t bytes, const int *fds, unsigned fd_count)
{
    int *const places[REQUEST_MOST_FDS] = {[REQUEST_CWD] = &g->cwd, [REQUEST_IMAGE] = &g->image};

    for (unsigned i = 0; i < fd_count; i++)
        if (g && i < REQUEST_MOST_FDS)
            *places[i] = fds[i];
        else
            close(fds[i]);
    if (!g)
        return false;
    memcpy(g->text, request, bytes);
    return fd_count >= REQUEST_FDS && request_unpack(&g->request, g->text, bytes);
}

void guest_begin(int client, const char *request, size_t bytes, const int *fds, unsigned fd_count)
{
    struct guest *g = make(client);
    char text[200];

    if (!take_request(g, request, bytes, fds, fd_count)) {
        if (g)
            guest_refuse(g, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
        else
            close(client);
        return;
    }
    snprintf(g->label, sizeof g->label, "guest %u (%.63s)", g->id, g->request.name);
    if (!streams_open(&g->streams, g->label) || !streams_hand_over(&g->streams, client, !*g->request.module)) {
        guest_refuse(g, EXIT_INTERNAL, "no sockets for the guest's console");
        return;
    }
    if (lifetime_leaving()) {
        guest_refuse(g, EXIT_NOT_UP, "the hypervisor is being ended");
        return;
    }
    if (hypervisor.state == HYPERVISOR_STARTING) {
        snprintf(text, sizeof text, "starting the hypervisor in %s", hypervisor.machine);
        guest_tell_text(g, EVENT_PROGRESS, text);
    }
    update(g);
}

/* ---- What others do with it ---- */

static bool is_named(const struct guest *g, const char *name_or_number)
{
    char *rest;
    unsigned long id = strtoul(name_or_number, &rest, 10);

    return *rest || rest == name_or_number ? !strcmp(g->request.name, name_or_number) : g->id == id;
}

struct guest *guest_find(const char *name_or_number, bool running, const char **why)
{
    struct guest *found = NULL;

    *why = "no guest of this name or number is running";
    for (struct guest *g = guest_after(0); g; g = guest_after(g->id)) {
        if (!is_named(g, name_or_number))
            continue;
        if (found) {
            *why = "several guests of this name are running: `metronome list` shows their numbers";
            return NULL;
        }
        found = g;
    }
    if (!found || !running || found->phase == PHASE_RUNNING)
        return found;
    *why = found->phase < PHASE_RUNNING ? "the guest is starting yet" : "the guest is ending";
    return NULL;
}

void guest_status(const struct guest *g, struct metronome_slot_status *copy)
{
    hypervisor_slot_status((unsigned)g->slot, copy);
}

void guest_command(struct guest *g, uint32_t op, void (*done)(void *owner, int status), void *owner)
{
    hypervisor_command(op, (unsigned)g->slot, NULL, done, owner);
}

const char *guest_attach(struct guest *g, int client)
{
    static char why[300];
    struct ucred who = {0};
    socklen_t size = sizeof who;

    if (g->client.fd >= 0) {
        getsockopt(g->client.fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
        snprintf(why, sizeof why, "its console is in use by process %d", (int)who.pid);
        return why;
    }
    if (g->phase >= PHASE_DESTROYING)
        return "the guest is ending";
    if (*g->request.serial && !*g->request.module) {
        snprintf(why, sizeof why, "its serial console is at '%.200s'", g->request.serial);
        return why;
    }
    if (!streams_hand_over(&g->streams, client, !*g->request.module))
        return "no memory for what its console has said";
    loop_watch(&g->client, client, on_client, g);
    if (g->phase == PHASE_RUNNING)
        guest_tell_text(g, EVENT_RUNNING, "running");
    return NULL;
}

static enum guest_state state_of(const struct guest *g, const struct metronome_slot_status *s)
{
    if (g->phase < PHASE_STARTING)
        return GUEST_STARTING;
    if (s->state == METRONOME_SLOT_SHUTDOWN)
        return s->reason == METRONOME_END_POWEROFF ? GUEST_SHUTDOWN : GUEST_CRASHED;
    if (g->phase >= PHASE_DESTROYING)
        return GUEST_DYING;
    if (s->state == METRONOME_SLOT_PAUSED)
        return GUEST_PAUSED;
    if (s->state == METRONOME_SLOT_STARTING)
        return GUEST_STARTING;
    return s->vcpus_running ? GUEST_RUNNING : GUEST_BLOCKED;
}

void guest_describe(struct guest *g, struct guest_facts *to)
{
    struct metronome_slot_status s = {0};
    struct ucred who = {0};
    socklen_t size = sizeof who;

    if (g->slot >= 0 && g->phase >= PHASE_STARTING)
        hypervisor_slot_status((unsigned)g->slot, &s);
    if (g->client.fd >= 0)
        getsockopt(g->client.fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    *to = (struct guest_facts){.type = EVENT_GUEST,
                               .id = g->id,
                               .slot = g->slot,
                               .vcpus = (uint32_t)g->request.vcpus,
                               .state = state_of(g, &s),
                               .resets = s.resets,
                               .device_model = g->dm.process.pid,
                               .client = who.pid,
                               .memory = g->request.memory,
                               .run_ns = hypervisor_ns(s.stats.run_ticks),
                               .steal_ns = hypervisor_ns(s.stats.steal_ticks),
                               .age_ms = loop_now_ms() - g->began_ms,
                               .tsc_hz = hypervisor_tsc_hz(),
                               .stats = s.stats};
    snprintf(to->name, sizeof to->name, "%s", g->request.name);
}

/* ---- Saving ---- */

void guest_make_devices(struct guest *g)
{
    g->devices = *g->request.module ? -1 : memfd_create("metronome-devices", MFD_CLOEXEC);
}

bool guest_hold(struct guest *g, struct guest_view *view)
{
    if (g->held)
        return false;
    g->held = true;
    if (g->devices < 0)
        guest_make_devices(g);
    *view = (struct guest_view){(unsigned)g->slot, &g->dm, &g->request, g->cwd, g->devices};
    return true;
}

void guest_release(struct guest *g)
{
    g->held = false;
}

bool guest_held(const struct guest *g)
{
    return g->held;
}
