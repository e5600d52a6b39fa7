/*
 * A guest's end: why, and what had begun taken back in the opposite order.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/control.h"
#include "daemon/guest_life.h"
#include "daemon/latency.h"
#include "daemon/lifetime.h"
#include "daemon/log.h"
#include "daemon/paths.h"
#include "daemon/reason.h"
#include "daemon/slot.h"

#define REASON_PATIENCE_MS  1000  /* after QEMU's own end, for the hypervisor's word on why */
#define QEMU_PATIENCE_MS    3000  /* between asking it to end and killing it */
#define DESTROY_PATIENCE_MS 10000 /* for the hypervisor's answer */

static bool slot_lost[HYPERVISOR_SLOTS]; /* the hypervisor did not give it back */

bool guest_slot_lost(unsigned slot)
{
    return slot_lost[slot];
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The last step: nothing of the guest is left, and the client is told. It is forgotten when the client leaves; where there is
 * none, now. */
static void gone(struct guest *g)
{
    console_close(&g->console);
    process_work_close(&g->loading);
    loop_cancel(&g->patience);
    if (g->slot >= 0)
        slot_empty(hypervisor_slot((unsigned)g->slot));
    g->slot = -1;
    g->phase = PHASE_GONE;
    streams_end(&g->streams);
    remove_socket(g->cwd, g->request.qmp);
    remove_socket(g->cwd, g->request.vnc);
    close_fd(&g->cwd);
    close_fd(&g->image);
    close_fd(&g->devices);
    log_line("%s: %s", g->label, g->end.text);
    client_send(g->client.fd, &g->end, sizeof g->end);
    guest_tell_watchers(g, GUEST_NEWS_GONE, NULL);
    if (g->client.fd < 0)
        guest_forget(g);
    lifetime_drop();
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
    g->end.run_ns = hypervisor_ns(s.stats.run_ticks);
    g->end.steal_ns = hypervisor_ns(s.stats.steal_ticks);
    hypervisor_latency_ns((unsigned)g->slot, g->end.latency_ns);
    if (*g->request.latency &&
        !latency_write(hypervisor_latency((unsigned)g->slot), hypervisor_tsc_hz(), g->cwd, g->request.latency))
        log_line("%s: %s: %s", g->label, g->request.latency, strerror(errno));
}

static void on_destroyed(void *owner, int status)
{
    struct guest *g = owner;

    if (status)
        log_line("%s: destroying slot %d: error %d", g->label, g->slot, -status);
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
    slot_lost[g->slot] = g->lost = true;
    g->slot = -1;
    g->end.status = EXIT_INTERNAL;
    snprintf(g->end.text, sizeof g->end.text, "the hypervisor did not stop the guest within %d s",
             DESTROY_PATIENCE_MS / 1000);
    stop_device_model(g);
}

void guest_end_because(struct guest *g, enum event_type type, int status, const char *format, ...)
{
    bool created = g->phase >= PHASE_CREATING && hypervisor.state == HYPERVISOR_READY;
    va_list arguments;

    if (g->phase >= PHASE_DESTROYING)
        return;
    g->end = (struct event){.type = type, .status = (uint32_t)status};
    va_start(arguments, format);
    vsnprintf(g->end.text, sizeof g->end.text, format, arguments);
    va_end(arguments);
    g->phase = PHASE_DESTROYING;
    g->held = false;
    guest_tell_watchers(g, GUEST_NEWS_ENDING, NULL);
    if (!created) {
        stop_device_model(g);
        return;
    }
    loop_timer(&g->patience, DESTROY_PATIENCE_MS, on_not_destroyed, g);
    guest_command(g, METRONOME_CONTROL_DESTROY, on_destroyed, g);
}

void guest_refuse(struct guest *g, int status, const char *text)
{
    guest_end_because(g, EVENT_REFUSED, status, "%s", text);
}

void guest_stop(struct guest *g, const char *why)
{
    guest_end_because(g, EVENT_ENDED, EXIT_ENDED, "%s", why);
}

void guest_was_saved(struct guest *g)
{
    guest_stop(g, "saved");
}

static void on_no_reason(void *owner)
{
    guest_stop(owner, "the guest was ended from QEMU's monitor");
}

void guest_device_model_ended(void *guest)
{
    struct guest *g = guest;
    char how[100];

    process_describe(&g->dm.process, how, sizeof how);
    if (g->phase == PHASE_STOPPING)
        gone(g);
    else if (g->phase < PHASE_DESTROYING && g->dm.process.exited && !g->dm.process.status)
        /* A guest that has switched itself off ends its QEMU too, which may be seen before the hypervisor says so. */
        loop_timer(&g->patience, REASON_PATIENCE_MS, on_no_reason, g);
    else if (g->phase == PHASE_STARTING && g->dm.process.exited)
        guest_end_because(g, EVENT_REFUSED, EXIT_USAGE, "the device model did not start: QEMU %s", how);
    else
        guest_end_because(g, EVENT_ENDED, EXIT_INTERNAL, "the device model is gone: its QEMU %s", how);
}

void guest_shut_down(struct guest *g, const struct metronome_slot_status *s)
{
    char text[sizeof g->end.text];
    int status = reason_text(s, text, sizeof text);

    guest_end_because(g, EVENT_ENDED, status, "%s", text);
}

void guest_hypervisor_failed(struct guest *g)
{
    if (g->phase == PHASE_DESTROYING) {
        loop_cancel(&g->patience);
        stop_device_model(g);
        return;
    }
    guest_end_because(g, g->phase < PHASE_RUNNING ? EVENT_REFUSED : EVENT_ENDED, hypervisor.status, "%s", hypervisor.error);
}
