#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/image.h"
#include "daemon/lifetime.h"
#include "daemon/process.h"
#include "daemon/save.h"
#include "public/domain.h"

#define PATIENCE_MS 10000 /* for each step but the writing of the file */
#define RETRY_MS    2     /* until posted writes have been taken */

struct saving {
    struct watch client;
    struct timer patience, retry;
    struct guest_watcher watcher; /* .guest: NULL: it has ended */
    struct guest_view view;
    bool leave_running;
    bool was_paused;   /* and is left so */
    bool pausing;      /* until the hypervisor says that it is */
    bool device_model_stops; /* it has been told to */
    struct process_work work;
    struct image_parts *parts;
    char error[400];
};

static void forget(struct saving *s)
{
    loop_cancel(&s->patience);
    loop_cancel(&s->retry);
    loop_close(&s->client);
    process_work_close(&s->work);
    if (s->parts) {
        close(s->parts->file);
        free(s->parts);
    }
    free(s);
    lifetime_drop();
}

static void resume(struct saving *s)
{
    if (s->device_model_stops)
        device_model_ask(s->view.dm, "{\"execute\":\"cont\"}\n", NULL, NULL);
    if (!s->was_paused)
        hypervisor_command(METRONOME_CONTROL_UNPAUSE, s->view.slot, NULL, NULL, NULL);
}

/* The guest is no longer ours. */
static struct guest *let_go(struct saving *s)
{
    struct guest *g = s->watcher.guest;

    guest_unwatch(&s->watcher);
    if (g)
        guest_release(g);
    return g;
}

static void fail(struct saving *s, int status, const char *why)
{
    if (let_go(s))
        resume(s);
    client_tell(s->client.fd, EVENT_REFUSED, status, why);
    hypervisor_forget(s);
    device_model_forget(s->view.dm, s);
    forget(s);
}

static void on_impatient(void *owner)
{
    fail(owner, EXIT_INTERNAL, "the guest does not come to rest: its device model or the hypervisor does not answer");
}

static void step(struct saving *s)
{
    loop_timer(&s->patience, PATIENCE_MS, on_impatient, s);
}

/* ---- The last step: the file is written ---- */

static void on_written(void *owner)
{
    struct saving *s = owner;
    const char *error = process_work_error(&s->work);
    char why[500];

    if (error) {
        snprintf(why, sizeof why, "the file: %.450s", error);
        fail(s, EXIT_USAGE, why);
        return;
    }
    struct guest *g = let_go(s);
    if (s->leave_running)
        resume(s);
    else
        guest_was_saved(g);
    client_tell(s->client.fd, EVENT_ENDED, EXIT_ENDED, "");
    forget(s);
}

static bool write_file(void *argument, char *error, size_t error_size)
{
    return image_write(argument, error, error_size);
}

static void on_state(void *owner, int status)
{
    struct saving *s = owner;

    if (status) {
        fail(s, EXIT_INTERNAL, "the hypervisor cannot save the guest's state");
        return;
    }
    loop_cancel(&s->patience);
    s->parts->guest.wallclock = (int64_t)time(NULL);
    if (!process_work(&s->work, write_file, s->parts, on_written, s))
        fail(s, EXIT_INTERNAL, "cannot start a process that writes the file");
}

static void on_devices(void *owner, const char *error)
{
    struct saving *s = owner;
    char why[300];

    if (error) {
        snprintf(why, sizeof why, "QEMU cannot save its devices: %.250s", error);
        fail(s, EXIT_INTERNAL, why);
        return;
    }
    step(s);
    hypervisor_command(METRONOME_CONTROL_SAVE, s->view.slot, NULL, on_state, s);
}

/* ---- The device model ---- */

static bool posted_writes_taken(const struct saving *s)
{
    uint32_t pointers[2] = {0, 0};

    return pread(s->parts->memory, pointers, sizeof pointers, METRONOME_DOMAIN_BUFIOREQ) == sizeof pointers &&
           pointers[0] == pointers[1];
}

/* QEMU writes through a name of our descriptor: a file that nobody else sees. */
static void save_devices(void *owner)
{
    struct saving *s = owner;
    char command[200];

    if (!posted_writes_taken(s)) {
        loop_timer(&s->retry, RETRY_MS, save_devices, s);
        return;
    }
    snprintf(command, sizeof command,
             "{\"execute\":\"xen-save-devices-state\",\"arguments\":{\"filename\":\"/proc/%d/fd/%d\",\"live\":false}}\n",
             (int)getpid(), s->parts->devices);
    step(s);
    if (!device_model_ask(s->view.dm, command, on_devices, s))
        fail(s, EXIT_INTERNAL, "QEMU does not take commands");
}

static void on_device_model_stopped(void *owner, const char *error)
{
    struct saving *s = owner;

    if (error) {
        fail(s, EXIT_INTERNAL, "QEMU does not stop");
        return;
    }
    save_devices(s);
}

static void paused(struct saving *s)
{
    s->pausing = false;
    if (*s->view.request->module) {
        on_devices(s, NULL);
        return;
    }
    step(s);
    s->parts->devices = s->view.devices;
    if (s->parts->devices < 0 || ftruncate(s->parts->devices, 0))
        fail(s, EXIT_INTERNAL, "no memory for the devices' state");
    else if (!(s->device_model_stops = device_model_ask(s->view.dm, "{\"execute\":\"stop\"}\n", on_device_model_stopped, s)))
        fail(s, EXIT_INTERNAL, "QEMU does not take commands");
}

/* ---- The guest ---- */

static void on_news(void *owner, enum guest_news news, struct guest *g, const struct metronome_slot_status *status)
{
    struct saving *s = owner;

    (void)g;
    if (news == GUEST_NEWS_ENDING) {
        guest_unwatch(&s->watcher);
        fail(s, EXIT_INTERNAL, "the guest ended before it was saved");
    } else if (news == GUEST_NEWS_STATUS && s->pausing && status->state == METRONOME_SLOT_PAUSED) {
        paused(s);
    }
}

static void on_pause(void *owner, int status)
{
    if (status)
        fail(owner, EXIT_USAGE, "the guest is being reset: try again");
}

static void on_client(void *owner)
{
    fail(owner, EXIT_USAGE, "given up, and the guest goes on"); /* it says nothing more, so it has left or wants to */
}

static bool describe(struct saving *s)
{
    struct image_parts *p = s->parts;
    char link[40];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", s->view.cwd);
    n = readlink(link, p->guest.folder, sizeof p->guest.folder - 1);
    p->memory = hypervisor_slot(s->view.slot)->memory;
    p->slot_bytes = hypervisor_slot(s->view.slot)->bytes;
    p->devices = -1;
    p->request_bytes = request_pack(s->view.request, p->request, sizeof p->request);
    return n > 0 && p->request_bytes;
}

static const char *start(struct saving *s, struct guest *g, bool leave_running, int file)
{
    s->parts->file = file;
    s->leave_running = leave_running;
    if (!guest_hold(g, &s->view))
        return "the guest is being saved already";
    guest_watch(g, &s->watcher);
    return describe(s) ? NULL : "the guest's working directory is gone";
}

static void begin(struct saving *s)
{
    struct metronome_slot_status status;

    guest_status(s->watcher.guest, &status);
    s->was_paused = status.state == METRONOME_SLOT_PAUSED;
    if (s->was_paused) {
        paused(s);
        return;
    }
    s->pausing = true;
    step(s);
    hypervisor_command(METRONOME_CONTROL_PAUSE, s->view.slot, NULL, on_pause, s);
}

void save_begin(int client, struct guest *g, bool leave_running, int file)
{
    struct saving *s = calloc(1, sizeof *s);
    const char *why;

    if (!s || !(s->parts = calloc(1, sizeof *s->parts))) {
        free(s);
        close(client);
        close(file);
        return;
    }
    s->work.process.gone.fd = -1;
    s->watcher = (struct guest_watcher){.hear = on_news, .owner = s};
    s->parts->file = s->parts->devices = -1;
    loop_watch(&s->client, client, on_client, s);
    lifetime_hold();
    why = start(s, g, leave_running, file);
    if (why)
        fail(s, EXIT_USAGE, why);
    else
        begin(s);
}
