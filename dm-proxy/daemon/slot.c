#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/host.h"
#include "daemon/paths.h"
#include "daemon/slot.h"
#include "firmware/platform.h"
#include "public/domain.h"

#define ALIGNMENT      (2ull << 20)
#define BYTES_PER_READ (1u << 20)

struct filling {
    const struct ivshmem *slot;
    struct metronome_domain_header header;
    uint64_t
        free_end; /* files are placed from the end of the extra area downwards: QEMU's memory grows from its start */
    int cwd;
    char *error;
    size_t error_size;
};

uint64_t slot_memory(uint64_t wanted)
{
    return (wanted + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

static bool refuse(struct filling *f, const char *path, const char *why)
{
    snprintf(f->error, f->error_size, "%s: %s", path, why);
    return false;
}

static bool copy_file(struct filling *f, int file, uint64_t arena, uint64_t bytes)
{
    static char buffer[BYTES_PER_READ];
    uint64_t done = 0;

    while (done < bytes) {
        ssize_t n = pread(file, buffer, sizeof buffer, (off_t)done);

        if (n <= 0)
            return false;
        if (pwrite(f->slot->memory, buffer, (size_t)n, (off_t)(METRONOME_DOMAIN_ARENA + arena + done)) != n)
            return false;
        done += (uint64_t)n;
    }
    return true;
}

static bool place_file(struct filling *f, const char *path, uint64_t *offset, uint64_t *bytes)
{
    int file = openat(f->cwd, path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool placed;

    if (file < 0)
        return refuse(f, path, strerror(errno));
    if (fstat(file, &st) || !S_ISREG(st.st_mode) || !st.st_size ||
        (uint64_t)st.st_size > f->free_end - f->header.extra) {
        close(file);
        return refuse(f, path, "empty, too large or no plain file");
    }
    *bytes = (uint64_t)st.st_size;
    *offset = (f->free_end - *bytes) & ~(ALIGNMENT - 1);
    placed = copy_file(f, file, *offset, *bytes);
    close(file);
    f->free_end = *offset;
    return placed || refuse(f, path, "cannot be copied into the guest's memory");
}

static bool fill_without_device_model(struct filling *f, const struct request *r)
{
    struct metronome_domain_header *h = &f->header;

    snprintf(h->command_line, sizeof h->command_line, "%s", r->append);
    if (!place_file(f, r->module, &h->module, &h->module_bytes))
        return false;
    return !*r->initrd || place_file(f, r->initrd, &h->initrd, &h->initrd_bytes);
}

static bool fill_with_device_model(struct filling *f, const struct request *r)
{
    struct metronome_domain_header *h = &f->header;

    h->flags = METRONOME_DOMAIN_HAS_DM;
    return place_file(f, *r->firmware ? r->firmware : SEABIOS_IMAGE, &h->firmware, &h->firmware_bytes);
}

/* Until the hypervisor says otherwise it has to be rung. */
bool slot_begin(const struct ivshmem *slot)
{
    struct metronome_notify n = {.hypervisor_waits = 1};

    return pwrite(slot->memory, &n, sizeof n, METRONOME_DOMAIN_NOTIFY) == sizeof n;
}

bool slot_fill(const struct ivshmem *slot, const struct request *r, int cwd, char *error, size_t error_size)
{
    struct filling f = {.slot = slot, .cwd = cwd, .error = error, .error_size = error_size};
    struct metronome_domain_header *h = &f.header;
    uint64_t memory = slot_memory(r->memory);
    struct platform board;

    h->magic = METRONOME_DOMAIN_MAGIC;
    h->version = METRONOME_ABI_VERSION;
    h->vcpus = (uint32_t)r->vcpus;
    h->cores = r->sockets ? (uint32_t)(r->vcpus / r->sockets) : 0; /* which is refused */
    h->ticks = r->ticks;
    h->ram_low = memory < METRONOME_RAM_LOW_MAX ? memory : METRONOME_RAM_LOW_MAX;
    h->ram_high = memory - h->ram_low;
    h->extra = memory;
    h->extra_bytes = SLOT_EXTRA_BYTES;
    h->wallclock = (int64_t)time(NULL);
    snprintf(h->name, sizeof h->name, "%.63s", r->name);
    board = (struct platform){
        .ram_low = h->ram_low, .ram_high = h->ram_high, .vcpus = h->vcpus, .boot_order = *r->boot ? r->boot : NULL};
    f.free_end = h->extra + h->extra_bytes;
    if (METRONOME_DOMAIN_ARENA + f.free_end > slot->bytes)
        return refuse(&f, "memory", "more than a slot can hold");
    if (!(*r->module ? fill_without_device_model(&f, r) : fill_with_device_model(&f, r)))
        return false;
    cmos_fill(h->cmos, &board);
    return (slot_begin(slot) && pwrite(slot->memory, h, sizeof *h, METRONOME_DOMAIN_HEADER) == sizeof *h) ||
           refuse(&f, "memory", "the host has no more of it");
}

void slot_empty(const struct ivshmem *slot)
{
    if (fallocate(slot->memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)slot->bytes))
        perror("metronome-daemon: cannot give a slot's memory back");
}
