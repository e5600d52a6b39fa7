#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/device_model.h"
#include "daemon/protocol.h"
#include "daemon/slot.h"
#include "qemu/launch.h"

void device_model_init(struct device_model *d)
{
    memset(d, 0, sizeof *d);
    d->qmp.fd = d->process.gone.fd = -1;
}

bool device_model_ask(struct device_model *d, const char *command, void (*answered)(void *owner, const char *error),
                      void *owner)
{
    size_t n = strlen(command);

    if (d->qmp.fd < 0 || d->questions == DEVICE_MODEL_QUESTIONS)
        return false;
    d->question[d->questions++] = (struct question){answered, owner};
    /* A QEMU that does not read its socket loses the command, not our loop. */
    if (send(d->qmp.fd, command, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n)
        return true;
    loop_close(&d->qmp);
    return false;
}

void device_model_forget(struct device_model *d, const void *owner)
{
    for (unsigned i = 0; d && i < d->questions; i++)
        if (d->question[i].owner == owner)
            d->question[i].answered = NULL;
}

/* {"return": ...} or {"error": {"class": ..., "desc": "..."}}: answers come in the order of the commands. */
static void on_answer(struct device_model *d, bool refused)
{
    struct question q = d->question[0];
    char *words = strstr(d->line, "\"desc\": \"");

    if (!d->questions)
        return;
    memmove(d->question, d->question + 1, --d->questions * sizeof d->question[0]);
    words = words ? words + 9 : d->line;
    if (refused)
        words[strcspn(words, "\"\r")] = 0;
    if (q.answered)
        q.answered(q.owner, refused ? words : NULL);
}

/* QMP sends one JSON object per line, and only a few of them mean anything here. */
static void on_line(struct device_model *d)
{
    d->line[d->line_bytes] = 0;
    d->line_bytes = 0;
    if (strstr(d->line, "\"QMP\""))
        device_model_ask(d, "{\"execute\":\"qmp_capabilities\"}\n", NULL, NULL);
    else if (!strncmp(d->line, "{\"return\"", 9) || !strncmp(d->line, "{\"error\"", 8))
        on_answer(d, d->line[2] == 'e');
    else if (strstr(d->line, "\"event\": \"POWERDOWN\""))
        d->power_button(d->owner);
    else if (strstr(d->line, "\"event\": \"RESET\"") && strstr(d->line, "\"guest\": false"))
        d->reset(d->owner);
}

static void on_qmp(void *owner)
{
    struct device_model *d = owner;
    char bytes[1024];
    ssize_t n = recv(d->qmp.fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n <= 0) {
        if (!n || errno != EAGAIN)
            loop_close(&d->qmp);
        return;
    }
    for (ssize_t i = 0; i < n && d->qmp.fd >= 0; i++)
        if (bytes[i] == '\n')
            on_line(d);
        else if (d->line_bytes < sizeof d->line - 1)
            d->line[d->line_bytes++] = bytes[i];
}

static void on_ended(void *owner)
{
    struct device_model *d = owner;

    loop_close(&d->qmp);
    d->ended(d->owner);
}

static const char *given(const char *text)
{
    return *text ? text : NULL;
}

static void describe_disks(struct dm_launch *l, const struct request *r)
{
    static const enum dm_bus buses[] = {
        [DISK_IDE] = DM_BUS_IDE, [DISK_AHCI] = DM_BUS_AHCI, [DISK_VIRTIO] = DM_BUS_VIRTIO};

    for (unsigned i = 0; i < r->disks; i++)
        l->disks[l->disk_count++] = (struct dm_disk){.path = given(r->disk[i].path),
                                                     .format = r->disk[i].format,
                                                     .bus = buses[r->disk[i].bus],
                                                     .cdrom = r->disk[i].cdrom,
                                                     .read_only = r->disk[i].readonly};
}

static void describe_nics(struct dm_launch *l, const struct request *r)
{
    for (unsigned i = 0; i < r->nics; i++)
        l->nics[l->nic_count++] = (struct dm_nic){.model = r->nic[i].model,
                                                  .netdev = strcmp(r->nic[i].net, "none") ? r->nic[i].net : NULL,
                                                  .mac = given(r->nic[i].mac)};
}

/* What QEMU is told beyond devices: the user's monitor, and whatever the user has asked for in QEMU's own words. */
struct extra {
    const char *word[REQUEST_MAX_QEMU_ARGS + 18];
    unsigned count;
    char monitor[64], incoming[32];
};

static void add_pair(struct extra *e, const char *option, const char *value)
{
    e->word[e->count++] = option;
    e->word[e->count++] = value;
}

static void describe_extra(struct extra *e, struct dm_launch *l, const struct request *r, const struct device_model_place *p)
{
    snprintf(e->monitor, sizeof e->monitor, "socket,id=monitor0,fd=%d", p->streams[STREAM_MONITOR]);
    l->fds[l->fd_count++] = p->streams[STREAM_MONITOR];
    add_pair(e, "-chardev", e->monitor);
    add_pair(e, "-mon", "chardev=monitor0,mode=readline");
    if (*r->serial)
        add_pair(e, "-serial", r->serial);
    else
        l->serial.fd = p->streams[STREAM_SERIAL];
    if (*r->qmp)
        add_pair(e, "-qmp", r->qmp);
    if (p->saved >= 0) {
        snprintf(e->incoming, sizeof e->incoming, "fd:%d", p->saved);
        l->fds[l->fd_count++] = p->saved;
        add_pair(e, "-incoming", e->incoming);
    }
    for (unsigned i = 0; i < r->qemu_args; i++)
        e->word[e->count++] = r->qemu_arg[i];
    l->extra = e->word;
}

bool device_model_start(struct device_model *d, const struct device_model_place *p, const struct request *r,
                        const struct ivshmem *slot, char *error, size_t error_size)
{
    struct dm_launch l = {.mem_fd = slot->memory,
                          .wait_fd = slot->to_dom0,
                          .ring_fd = slot->to_hypervisor,
                          .vcpus = (unsigned)r->vcpus,
                          .name = given(r->name),
                          .vga = given(r->vga),
                          .vnc = given(r->vnc),
                          .boot_order = given(r->boot),
                          .log_fd = p->streams[STREAM_MESSAGES]};
    struct extra extra = {.count = 0};
    int qmp[2];
    pid_t pid;

    l.memory = slot_memory(r->memory);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp)) {
        snprintf(error, error_size, "cannot make a socket: %s", strerror(errno));
        return false;
    }
    l.qmp.fd = qmp[1];
    describe_disks(&l, r);
    describe_nics(&l, r);
    describe_extra(&extra, &l, r, p);
    /* Relative paths are the client's. */
    snprintf(error, error_size, "the guest's working directory cannot be entered");
    pid = fchdir(p->cwd) ? -1 : dm_launch(&l, error, error_size);
    close(qmp[1]);
    if (chdir("/") || pid < 0) {
        close(qmp[0]);
        return false;
    }
    loop_watch(&d->qmp, qmp[0], on_qmp, d);
    process_adopt(&d->process, pid, on_ended, d);
    return true;
}
