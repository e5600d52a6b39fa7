#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/errand.h"
#include "daemon/guest.h"
#include "daemon/hypervisor.h"
#include "daemon/lifetime.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/save.h"
#include "daemon/tracing.h"

#define MOST_VISITS 64    /* that wait for something; each has one command at most in the hypervisor's ring */
#define PATIENCE_MS 10000 /* for a command's effect */

struct kind;

/* A client that has come with an errand. */
struct visit {
    struct visit *next;
    struct watch client;
    struct errand errand;
    const struct kind *kind;
    int file; /* that came with it; -1: none */
    struct guest_watcher watcher; /* of the guest that it is about */
    struct timer patience;
    uint32_t resets;    /* of the guest, when it began */
    unsigned told;      /* LATENCY: guests so far */
    uint32_t refreshed; /* LIST, LATENCY: the last guest whose counts have been asked for */
    bool waits_for_hypervisor;
    bool taken;    /* the hypervisor has accepted the command */
    bool answered; /* the client's leaving is all that is left */
};

struct kind {
    void (*begin)(struct visit *v);
    bool file;             /* comes with one */
    bool needs_hypervisor; /* that is ready */
    enum { NO_GUEST, ANY_GUEST, RUNNING_GUEST, RUNNING_IF_NAMED } guest;
    uint32_t command; /* METRONOME_CONTROL_*, and what is seen when it has taken effect; NULL: at once */
    bool (*effect)(const struct visit *v, const struct metronome_slot_status *s);
    void (*gone)(struct visit *v, const struct guest *g); /* where the guest's end is awaited */
};

static struct visit *visits;

static void forget(struct visit *v)
{
    struct visit **link = &visits;

    while (*link != v)
        link = &(*link)->next;
    *link = v->next;
    loop_cancel(&v->patience);
    guest_unwatch(&v->watcher);
    hypervisor_forget(v);
    loop_close(&v->client);
    if (v->file >= 0)
        close(v->file);
    if (!v->answered)
        lifetime_drop();
    free(v);
}

/* The connection stays until the client closes it: so it sees the hypervisor's end, if that follows. */
static void answer(struct visit *v, enum event_type type, int status, const char *text)
{
    loop_cancel(&v->patience);
    guest_unwatch(&v->watcher);
    hypervisor_forget(v);
    v->waits_for_hypervisor = false;
    v->answered = true;
    if (!client_tell(v->client.fd, type, status, text))
        log_line("a client does not hear its answer");
    lifetime_drop();
}

static void done(struct visit *v)
{
    answer(v, EVENT_ENDED, EXIT_ENDED, "");
}

static void refuse(struct visit *v, int status, const char *why)
{
    answer(v, EVENT_REFUSED, status, why);
}

/* ---- Commands to a guest ---- */

static void on_impatient(void *owner)
{
    struct visit *v = owner;

    refuse(v, EXIT_INTERNAL, v->kind->guest ? "nothing happens: its device model or the hypervisor does not answer"
                                            : "the hypervisor does not answer");
}

static void look(struct visit *v, const struct metronome_slot_status *s)
{
    if (v->taken && v->kind->effect(v, s))
        done(v);
}

static void refuse_command(struct visit *v, int error)
{
    static const struct {
        int error, status;
        const char *text;
    } causes[] = {
        {METRONOME_EBUSY, EXIT_USAGE, "the guest is being reset: try again"},
        {METRONOME_ENOENT, EXIT_USAGE, "the guest has just ended"},
        {METRONOME_ENOSYS, EXIT_INTERNAL, "the hypervisor is of another version of Metronome"},
    };
    char text[100];

    for (unsigned i = 0; i < sizeof causes / sizeof causes[0]; i++)
        if (error == -causes[i].error) {
            refuse(v, causes[i].status, causes[i].text);
            return;
        }
    snprintf(text, sizeof text, "the hypervisor refused it with error %d", -error);
    refuse(v, EXIT_INTERNAL, text);
}

static void on_taken(void *owner, int status)
{
    struct visit *v = owner;
    struct metronome_slot_status s;

    v->taken = true;
    if (status) {
        refuse_command(v, status);
    } else if (v->kind->effect) {
        guest_status(v->watcher.guest, &s);
        look(v, &s);
    } else if (v->kind->gone && v->errand.flags & ERRAND_WAIT) {
        loop_cancel(&v->patience);
    } else {
        done(v);
    }
}

static void begin_command(struct visit *v)
{
    struct metronome_slot_status s;

    guest_status(v->watcher.guest, &s);
    v->resets = s.resets;
    if (v->kind->effect && guest_held(v->watcher.guest)) {
        refuse(v, EXIT_USAGE, "the guest is being saved");
        return;
    }
    if (v->kind->effect && v->kind->effect(v, &s)) {
        done(v);
        return;
    }
    loop_timer(&v->patience, PATIENCE_MS, on_impatient, v);
    guest_command(v->watcher.guest, v->kind->command, on_taken, v);
}

static bool is_paused(const struct visit *v, const struct metronome_slot_status *s)
{
    (void)v;
    return s->state == METRONOME_SLOT_PAUSED;
}

static bool is_running(const struct visit *v, const struct metronome_slot_status *s)
{
    (void)v;
    return s->state == METRONOME_SLOT_RUNNING;
}

static bool has_been_reset(const struct visit *v, const struct metronome_slot_status *s)
{
    return s->resets != v->resets && s->state == METRONOME_SLOT_RUNNING;
}

static void begin_destroy(struct visit *v)
{
    guest_stop(v->watcher.guest, "the guest was destroyed");
}

static void destroyed(struct visit *v, const struct guest *g)
{
    if (guest_is_lost(g))
        refuse(v, EXIT_INTERNAL, guest_end(g)->text);
    else
        done(v);
}

static void shut_down(struct visit *v, const struct guest *g)
{
    (void)g;
    done(v);
}

static void on_ending(struct visit *v, const struct event *end)
{
    char why[600];

    snprintf(why, sizeof why, "ended meanwhile: %s", end->text);
    refuse(v, EXIT_USAGE, why);
}

static void on_news(void *owner, enum guest_news news, struct guest *g, const struct metronome_slot_status *status)
{
    struct visit *v = owner;
    bool awaits_end = v->kind->gone && (v->kind->command == METRONOME_CONTROL_NOP || v->errand.flags & ERRAND_WAIT);

    if (news == GUEST_NEWS_STATUS && v->kind->effect)
        look(v, status);
    else if (news == GUEST_NEWS_ENDING && !awaits_end)
        on_ending(v, guest_end(g));
    else if (news == GUEST_NEWS_GONE)
        v->kind->gone(v, g);
}

/* ---- Who takes over the connection ---- */

static int connection_of(const struct visit *v)
{
    return fcntl(v->client.fd, F_DUPFD_CLOEXEC, 0);
}

/* `take` has it unless it says why not. */
static void give_away(struct visit *v, const char *(*take)(const struct visit *v, int client))
{
    int client = connection_of(v);
    const char *why = client < 0 ? strerror(errno) : take(v, client);

    if (!why) {
        forget(v);
        return;
    }
    if (client >= 0)
        close(client);
    refuse(v, EXIT_USAGE, why);
}

static const char *attach(const struct visit *v, int client)
{
    return guest_attach(v->watcher.guest, client);
}

static void begin_attach(struct visit *v)
{
    give_away(v, attach);
}

static const char *trace(const struct visit *v, int client)
{
    return tracing_begin(client, v->errand.flags);
}

static void begin_trace(struct visit *v)
{
    give_away(v, trace);
}

static void begin_save(struct visit *v)
{
    int client = connection_of(v);

    if (client < 0) {
        refuse(v, EXIT_INTERNAL, strerror(errno));
        return;
    }
    save_begin(client, v->watcher.guest, v->errand.flags & ERRAND_LEAVE_RUNNING, v->file);
    v->file = -1;
    forget(v);
}

/* ---- Facts ---- */

static bool tell_guest(struct visit *v, struct guest *g)
{
    struct guest_facts f;

    guest_describe(g, &f);
    if (v->errand.type == ERRAND_LATENCY) {
        ssize_t size = sizeof(struct metronome_latency);

        if (f.state == GUEST_STARTING || f.slot < 0)
            return true; /* what there is may be another's */
        if (pwrite(v->file, hypervisor_latency((unsigned)f.slot), (size_t)size, v->told++ * size) != size)
            return false;
    }
    return client_send(v->client.fd, &f, sizeof f);
}

static void tell_guests(struct visit *v)
{
    for (struct guest *g = guest_after(0); g; g = guest_after(guest_id(g)))
        if ((!v->watcher.guest || v->watcher.guest == g) && !tell_guest(v, g)) {
            refuse(v, EXIT_INTERNAL, "this command does not take its answer");
            return;
        }
    done(v);
}

static void begin_await(struct visit *v)
{
    struct guest_facts f;

    guest_describe(v->watcher.guest, &f);
    if (!client_send(v->client.fd, &f, sizeof f))
        refuse(v, EXIT_INTERNAL, "this command does not take its answer");
}

/* One after the other, so that many who ask do not fill the hypervisor's ring. */
static void on_refreshed(void *owner, int status)
{
    struct visit *v = owner;
    struct guest *g = guest_after(v->refreshed);

    (void)status; /* one that is not made yet has no counts */
    if (!g || hypervisor.state != HYPERVISOR_READY) {
        tell_guests(v);
        return;
    }
    v->refreshed = guest_id(g);
    guest_command(g, METRONOME_CONTROL_NOP, on_refreshed, v);
}

static void begin_list(struct visit *v)
{
    loop_timer(&v->patience, PATIENCE_MS, on_impatient, v);
    on_refreshed(v, 0);
}

static void on_memory_known(void *owner, int status)
{
    struct visit *v = owner;
    struct hypervisor_facts f = {.type = EVENT_HYPERVISOR, .stays = lifetime_stays(), .slots_lost = guests_slots_lost()};

    (void)status;
    hypervisor_describe(&f);
    for (struct guest *g = guest_after(0); g; g = guest_after(guest_id(g))) {
        struct guest_facts of;

        guest_describe(g, &of);
        f.guests++;
        f.vcpus += of.vcpus;
        f.slots_used += of.slot >= 0;
    }
    snprintf(f.log, sizeof f.log, "%s", log_path());
    if (client_send(v->client.fd, &f, sizeof f))
        done(v);
    else
        refuse(v, EXIT_INTERNAL, "this command does not take its answer");
}

/* Its free memory is that of the last completion. */
static void begin_info(struct visit *v)
{
    loop_timer(&v->patience, PATIENCE_MS, on_impatient, v);
    hypervisor_command(METRONOME_CONTROL_NOP, 0, NULL, on_memory_known, v);
}

/* ---- The hypervisor ---- */

static void begin_up(struct visit *v)
{
    if (lifetime_leaving()) {
        refuse(v, EXIT_NOT_UP, "the hypervisor is being ended: try again");
        return;
    }
    lifetime_stay();
    answer(v, EVENT_ENDED, EXIT_ENDED, hypervisor.machine);
}

static void refuse_down(struct visit *v)
{
    unsigned n = guests_count();
    char text[400];
    int at = snprintf(text, sizeof text, "%u guest%s running:", n, n > 1 ? "s are" : " is");

    for (struct guest *g = guest_after(0); g && at < (int)sizeof text; g = guest_after(guest_id(g))) {
        struct guest_facts f;

        guest_describe(g, &f);
        at += snprintf(text + at, sizeof text - (size_t)at, " %s", f.name);
    }
    refuse(v, EXIT_USAGE, text);
}

/* One guest after the other, until none is left. */
static void await_next(struct visit *v, const struct guest *gone)
{
    struct guest *next = guest_after(0);

    (void)gone;
    if (next)
        guest_watch(next, &v->watcher);
    else
        done(v);
}

static void begin_down(struct visit *v)
{
    if (guests_count() && !(v->errand.flags & ERRAND_FORCE)) {
        refuse_down(v);
        return;
    }
    lifetime_leave();
    guests_stop_all("the hypervisor was taken down");
    await_next(v, NULL);
}

/* ---- The table ---- */

static const struct kind kinds[ERRANDS] = {
    [ERRAND_SAVE] = {begin_save, .guest = RUNNING_GUEST, .file = true},
    [ERRAND_NMI] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_NMI},
    [ERRAND_POWER_BUTTON] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_POWER_BUTTON,
                             .gone = shut_down},
    [ERRAND_RESET] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_RESET, .effect = has_been_reset},
    [ERRAND_PAUSE] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_PAUSE, .effect = is_paused},
    [ERRAND_UNPAUSE] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_UNPAUSE, .effect = is_running},
    [ERRAND_DESTROY] = {begin_destroy, .guest = ANY_GUEST, .gone = destroyed},
    [ERRAND_ATTACH] = {begin_attach, .guest = ANY_GUEST},
    [ERRAND_LIST] = {begin_list},
    [ERRAND_LATENCY] = {begin_list, .guest = RUNNING_IF_NAMED, .file = true},
    [ERRAND_FORGET_LATE] = {begin_command, .guest = RUNNING_GUEST, .command = METRONOME_CONTROL_FORGET_LATE},
    [ERRAND_INFO] = {begin_info, .needs_hypervisor = true},
    [ERRAND_UP] = {begin_up, .needs_hypervisor = true},
    [ERRAND_DOWN] = {begin_down, .gone = await_next},
    [ERRAND_TRACE] = {begin_trace, .needs_hypervisor = true},
    [ERRAND_AWAIT] = {begin_await, .guest = RUNNING_GUEST, .gone = shut_down},
};

static void begin(struct visit *v)
{
    const struct kind *k = v->kind;
    const char *why = NULL;
    bool one = k->guest && (k->guest != RUNNING_IF_NAMED || *v->errand.guest);
    struct guest *g = one ? guest_find(v->errand.guest, k->guest >= RUNNING_GUEST, &why) : NULL;

    if (one && !g) {
        refuse(v, EXIT_USAGE, why);
        return;
    }
    if (g)
        guest_watch(g, &v->watcher);
    k->begin(v);
}

static void wait_for_hypervisor(struct visit *v)
{
    char text[200];

    v->waits_for_hypervisor = hypervisor.state == HYPERVISOR_STARTING;
    if (hypervisor.state == HYPERVISOR_READY) {
        begin(v);
    } else if (hypervisor.state == HYPERVISOR_FAILED) {
        refuse(v, hypervisor.status, hypervisor.error);
    } else {
        snprintf(text, sizeof text, "starting the hypervisor in %s", hypervisor.machine);
        client_tell(v->client.fd, EVENT_PROGRESS, 0, text);
    }
}

/* What was asked of a hypervisor that has failed since is not answered by it. */
void errands_hypervisor_changed(void)
{
    for (struct visit *v = visits; v; v = v->next) {
        if (hypervisor.state == HYPERVISOR_FAILED && !v->answered && !v->watcher.guest)
            refuse(v, hypervisor.status, hypervisor.error);
        else if (hypervisor.state == HYPERVISOR_READY && v->waits_for_hypervisor)
            wait_for_hypervisor(v);
    }
}

static void on_client(void *owner)
{
    char byte;
    struct visit *v = owner;

    if (recv(v->client.fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
        return;
    forget(v); /* it says nothing more, so it has left */
}

static unsigned waiting(void)
{
    unsigned n = 0;

    for (struct visit *v = visits; v; v = v->next)
        n += !v->answered;
    return n;
}

static bool is_known(const struct errand *e, unsigned fd_count)
{
    return e->version == PROTOCOL_VERSION && !e->guest[sizeof e->guest - 1] && e->type < ERRANDS &&
           fd_count == kinds[e->type].file;
}

void errand_begin(int client, const struct errand *e, const int *fds, unsigned fd_count)
{
    struct visit *v = calloc(1, sizeof *v);
    bool known = is_known(e, fd_count);

    for (unsigned i = 0; i < fd_count && (!v || !known); i++)
        close(fds[i]);
    if (!v) {
        close(client);
        return;
    }
    v->errand = *e;
    v->file = known && fd_count ? fds[0] : -1;
    v->watcher = (struct guest_watcher){.hear = on_news, .owner = v};
    v->next = visits;
    visits = v;
    loop_watch(&v->client, client, on_client, v);
    lifetime_hold();
    if (!known) {
        refuse(v, EXIT_INTERNAL, "the running daemon is of another version of Metronome");
        return;
    }
    v->kind = &kinds[e->type];
    if (waiting() > MOST_VISITS)
        refuse(v, EXIT_USAGE, "too many commands at once: try again");
    else if (v->kind->needs_hypervisor)
        wait_for_hypervisor(v);
    else
        begin(v);
}
