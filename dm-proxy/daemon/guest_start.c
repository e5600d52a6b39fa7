/*
 * A guest's beginning: a slot, what is put into it, the domain, the device model.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/guest_life.h"
#include "daemon/image.h"
#include "daemon/lifetime.h"
#include "daemon/slot.h"

static void on_power_button(void *owner)
{
    guest_command(owner, METRONOME_CONTROL_POWER_BUTTON, NULL, NULL);
}

static void on_reset(void *owner)
{
    struct guest *g = owner;

    if (g->phase == PHASE_RUNNING)
        guest_command(g, METRONOME_CONTROL_RESET, NULL, NULL);
}

static void refuse_creation(struct guest *g, int error)
{
    static const struct {
        int error, status;
        const char *text;
    } causes[] = {
        {METRONOME_ENOEXEC, EXIT_USAGE, "the module is no image that can be started"},
        {METRONOME_ENOMEM, EXIT_USAGE, "the hypervisor's own memory is used up: `metronome up --memory` gives it more"},
        {METRONOME_EINVAL, EXIT_INTERNAL, "the hypervisor does not accept the guest's description"},
        {METRONOME_EBUSY, EXIT_INTERNAL, "the hypervisor still uses the guest's slot"},
        {METRONOME_EVERSION, EXIT_INTERNAL, "the hypervisor is of another version of Metronome"},
    };
    const char *image = g->image < 0 ? g->request.module : ""; /* a saved guest needs no module any more */
    struct metronome_slot_status s;
    char text[300];

    hypervisor_slot_status((unsigned)g->slot, &s);
    for (unsigned i = 0; i < sizeof causes / sizeof causes[0]; i++)
        if (error == -causes[i].error) {
            snprintf(text, sizeof text, "%.100s%s%s", image, *image ? ": " : "",
                     s.message[0] ? s.message : causes[i].text);
            guest_refuse(g, causes[i].status, text);
            return;
        }
    guest_end_because(g, EVENT_REFUSED, EXIT_INTERNAL, "the hypervisor refused the guest with error %d", -error);
}

static void start_device_model(struct guest *g)
{
    const struct device_model_place place = {g->cwd, g->devices, g->streams.theirs};
    char error[300];

    guest_tell_text(g, EVENT_PROGRESS, "starting the device model");
    g->dm.ended = guest_device_model_ended;
    g->dm.power_button = on_power_button;
    g->dm.reset = on_reset;
    g->dm.owner = g;
    if (!device_model_start(&g->dm, &place, &g->request, hypervisor_slot((unsigned)g->slot), error, sizeof error))
        guest_refuse(g, EXIT_USAGE, error);
}

static void on_created(void *owner, int status)
{
    struct guest *g = owner;

    if (g->phase != PHASE_CREATING)
        return;
    if (status) {
        g->phase = PHASE_WAITING; /* there is nothing to destroy */
        refuse_creation(g, status);
        return;
    }
    g->phase = PHASE_STARTING;
    if (!*g->request.module)
        start_device_model(g);
}

static int free_slot(void)
{
    bool used[HYPERVISOR_SLOTS];

    for (unsigned i = 0; i < HYPERVISOR_SLOTS; i++)
        used[i] = guest_slot_lost(i);
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

    return image_load(g->image, memory->memory, memory->bytes, g->devices, error, error_size);
}

static void on_loaded(void *owner)
{
    struct guest *g = owner;
    const uint64_t arguments[2] = {g->request.rtc_seconds, g->request.any_tsc ? METRONOME_RESTORE_ANY_TSC : 0};
    const char *error = process_work_error(&g->loading);

    if (g->phase != PHASE_LOADING)
        return;
    if (error) {
        guest_end_because(g, EVENT_REFUSED, EXIT_USAGE, "the saved guest %s", error);
        return;
    }
    g->phase = PHASE_CREATING;
    hypervisor_command(METRONOME_CONTROL_RESTORE, (unsigned)g->slot, arguments, on_created, g);
}

/* A saved guest's memory is read by a process of its own: others do not wait for it. */
static void start_loading(struct guest *g)
{
    guest_make_devices(g);
    g->phase = PHASE_LOADING;
    guest_tell_text(g, EVENT_PROGRESS, "loading the guest");
    if (!slot_begin(hypervisor_slot((unsigned)g->slot)) || !process_work(&g->loading, load, g, on_loaded, g))
        guest_end_because(g, EVENT_REFUSED, EXIT_INTERNAL, "cannot load the saved guest: %s", strerror(errno));
}

void guest_create(struct guest *g)
{
    const struct ivshmem *memory;
    char error[300];
    bool saved = g->image >= 0;

    g->slot = free_slot();
    if (g->slot < 0) {
        guest_end_because(g, EVENT_REFUSED, EXIT_USAGE, "all %u slots for guests are in use", HYPERVISOR_SLOTS);
        return;
    }
    memory = hypervisor_slot((unsigned)g->slot);
    if (!saved && !slot_fill(memory, &g->request, g->cwd, error, sizeof error)) {
        guest_refuse(g, EXIT_USAGE, error);
        return;
    }
    if (*g->request.module && !console_open(&g->console, memory, g->streams.theirs[STREAM_SERIAL])) {
        guest_refuse(g, EXIT_INTERNAL, "cannot map the guest's console");
        return;
    }
    if (saved) {
        start_loading(g);
        return;
    }
    g->phase = PHASE_CREATING;
    guest_tell_text(g, EVENT_PROGRESS, "creating the guest");
    guest_command(g, METRONOME_CONTROL_CREATE, on_created, g);
}
