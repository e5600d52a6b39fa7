#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "daemon/image.h"
#include "public/domain.h"
#include "public/state.h"

#define IMAGE_MAGIC   "Metronome guest\n"
#define CHUNK_BYTES   (1u << 20)
#define PAGE_BYTES    4096u
#define DEVICES_LIMIT (256u << 20) /* QEMU's state is some hundred KiB */

struct head {
    char magic[16];
    uint32_t version, zero;
};

struct section {
    uint32_t type, crc; /* crc: of this head with a crc of 0, then of the contents */
    uint64_t bytes;
};

struct image_end {
    uint64_t sections; /* before this one */
};

struct image_memory {
    uint64_t offset; /* in the arena */
};

/* Length of a section, at least and at most. */
static const struct {
    const char *name;
    uint64_t least, most;
    bool once;
} kinds[IMAGE_SECTIONS] = {
    [IMAGE_END] = {"end", sizeof(struct image_end), sizeof(struct image_end), true},
    [IMAGE_GUEST] = {"guest", sizeof(struct image_guest), sizeof(struct image_guest), true},
    [IMAGE_REQUEST] = {"description", 1, REQUEST_MAX_BYTES, true},
    [IMAGE_STATE] = {"state", sizeof(struct metronome_state_header), METRONOME_DOMAIN_STATE_BYTES, true},
    [IMAGE_KEPT] = {"device model's memory", METRONOME_DOMAIN_KEPT_BYTES, METRONOME_DOMAIN_KEPT_BYTES, true},
    [IMAGE_DEVICES] = {"devices", 1, DEVICES_LIMIT, true},
    [IMAGE_MEMORY] = {"memory", sizeof(struct image_memory) + 1, sizeof(struct image_memory) + CHUNK_BYTES, false},
};

static bool fail(char *error, size_t size, const char *what)
{
    snprintf(error, size, "%s", what);
    return false;
}

static uint32_t checksum(struct section s, const void *contents)
{
    uLong crc;

    s.crc = 0;
    crc = crc32(0, (const Bytef *)&s, sizeof s);
    return (uint32_t)crc32_z(crc, contents, s.bytes);
}

/* ---- Writing ---- */

struct writer {
    int file;
    uint64_t sections;
    uint8_t buffer[sizeof(struct image_memory) + CHUNK_BYTES];
    char *error;
    size_t error_size;
};

static bool put(struct writer *w, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n) {
        ssize_t done = write(w->file, at, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return fail(w->error, w->error_size, done ? strerror(errno) : "cannot be written");
        at += done;
        n -= (size_t)done;
    }
    return true;
}

static bool put_section(struct writer *w, enum image_section type, const void *contents, uint64_t bytes)
{
    struct section s = {.type = type, .bytes = bytes};

    s.crc = checksum(s, contents);
    w->sections++;
    return put(w, &s, sizeof s) && put(w, contents, bytes);
}

static bool read_at(struct writer *w, int file, void *to, size_t n, uint64_t offset)
{
    ssize_t got = pread(file, to, n, (off_t)offset);

    return got == (ssize_t)n || fail(w->error, w->error_size, "the guest's memory cannot be read");
}

/* A part of the slot's first pages, or of QEMU's file. */
static bool put_part(struct writer *w, enum image_section type, int file, uint64_t offset, uint64_t bytes)
{
    void *copy = malloc(bytes);
    bool done = copy && read_at(w, file, copy, bytes, offset) && put_section(w, type, copy, bytes);

    free(copy);
    return done;
}

static bool put_state(struct writer *w, const struct image_parts *p)
{
    struct metronome_state_header h;

    if (!read_at(w, p->memory, &h, sizeof h, METRONOME_DOMAIN_STATE))
        return false;
    if (h.magic != METRONOME_STATE_MAGIC || h.bytes < sizeof h || h.bytes > METRONOME_DOMAIN_STATE_BYTES)
        return fail(w->error, w->error_size, "the device model has damaged the state that was saved");
    return put_part(w, IMAGE_STATE, p->memory, METRONOME_DOMAIN_STATE, h.bytes);
}

static bool put_devices(struct writer *w, const struct image_parts *p)
{
    struct stat st;

    if (p->devices < 0)
        return true;
    if (fstat(p->devices, &st) || !st.st_size || st.st_size > DEVICES_LIMIT)
        return fail(w->error, w->error_size, "QEMU has saved nothing that could be its devices");
    return put_part(w, IMAGE_DEVICES, p->devices, 0, (uint64_t)st.st_size);
}

static bool all_zero(const uint8_t *bytes, size_t n)
{
    return !n || (!bytes[0] && !memcmp(bytes, bytes + 1, n - 1));
}

/* `bytes` of the arena are in the buffer: without the zero pages at both ends. */
static bool put_chunk(struct writer *w, uint64_t arena, size_t bytes)
{
    uint8_t *data = w->buffer + sizeof(struct image_memory);
    size_t start = 0;

    while (bytes > start && all_zero(data + bytes - PAGE_BYTES, PAGE_BYTES))
        bytes -= PAGE_BYTES;
    while (start < bytes && all_zero(data + start, PAGE_BYTES))
        start += PAGE_BYTES;
    if (start == bytes)
        return true;
    struct image_memory m = {arena + start};
    uint8_t *at = data + start - sizeof m;
    memcpy(at, &m, sizeof m);
    return put_section(w, IMAGE_MEMORY, at, bytes - start + sizeof m);
}

static bool put_memory(struct writer *w, const struct image_parts *p)
{
    off_t at = METRONOME_DOMAIN_ARENA, hole;

    while ((at = lseek(p->memory, at, SEEK_DATA)) >= 0 && (uint64_t)at < p->slot_bytes) {
        hole = lseek(p->memory, at, SEEK_HOLE);
        for (; at < hole; at += CHUNK_BYTES) {
            size_t n = hole - at < CHUNK_BYTES ? (size_t)(hole - at) : CHUNK_BYTES;

            if (!read_at(w, p->memory, w->buffer + sizeof(struct image_memory), n, (uint64_t)at) ||
                !put_chunk(w, (uint64_t)at - METRONOME_DOMAIN_ARENA, n))
                return false;
        }
        at = hole;
    }
    return true;
}

static bool put_all(struct writer *w, const struct image_parts *p)
{
    struct head h = {.magic = IMAGE_MAGIC, .version = IMAGE_VERSION};

    if (!put(w, &h, sizeof h) || !put_section(w, IMAGE_GUEST, &p->guest, sizeof p->guest) ||
        !put_section(w, IMAGE_REQUEST, p->request, p->request_bytes) || !put_state(w, p) ||
        !put_part(w, IMAGE_KEPT, p->memory, METRONOME_DOMAIN_KEPT, METRONOME_DOMAIN_KEPT_BYTES) || !put_devices(w, p) ||
        !put_memory(w, p))
        return false;
    struct image_end end = {w->sections};
    if (!put_section(w, IMAGE_END, &end, sizeof end))
        return false;
    return !fsync(w->file) || errno == EINVAL || errno == EROFS || fail(w->error, w->error_size, strerror(errno));
}

bool image_write(const struct image_parts *p, char *error, size_t error_size)
{
    struct writer *w = malloc(sizeof *w);
    bool done;

    if (!w)
        return fail(error, error_size, "no memory");
    w->file = p->file;
    w->sections = 0;
    w->error = error;
    w->error_size = error_size;
    done = put_all(w, p);
    free(w);
    return done;
}

/* ---- Reading ---- */

struct reader {
    int file;
    uint64_t at, bytes; /* in the file */
    unsigned seen[IMAGE_SECTIONS];
    uint64_t sections;
    struct section section;
    uint8_t *contents;  /* of it, `room` bytes */
    size_t room;
    char *error;
    size_t error_size;
};

__attribute__((format(printf, 2, 3))) static bool bad(struct reader *r, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(r->error, r->error_size, format, arguments);
    va_end(arguments);
    return false;
}

static bool get(struct reader *r, void *to, size_t n)
{
    if (n > r->bytes - r->at)
        return bad(r, "is truncated: it ends at byte %llu", (unsigned long long)r->bytes);
    if (pread(r->file, to, n, (off_t)r->at) != (ssize_t)n)
        return bad(r, "cannot be read");
    r->at += n;
    return true;
}

static bool make_room(struct reader *r, size_t n)
{
    uint8_t *more = n > r->room ? realloc(r->contents, n) : r->contents;

    if (!more)
        return bad(r, "is too large for this computer's memory");
    r->contents = more;
    r->room = n > r->room ? n : r->room;
    return true;
}

/* The next section with its contents, checked. */
static bool get_section(struct reader *r)
{
    uint64_t from = r->at;
    struct section *s = &r->section;

    if (!get(r, s, sizeof *s))
        return false;
    if (s->type >= IMAGE_SECTIONS || s->bytes < kinds[s->type].least || s->bytes > kinds[s->type].most)
        return bad(r, "is damaged: no section can begin as that at byte %llu", (unsigned long long)from);
    if (!make_room(r, s->bytes) || !get(r, r->contents, s->bytes))
        return false;
    if (checksum(*s, r->contents) != s->crc)
        return bad(r, "is damaged: the checksum of the section at byte %llu (%s) is wrong", (unsigned long long)from,
                   kinds[s->type].name);
    if (r->seen[s->type]++ && kinds[s->type].once)
        return bad(r, "is damaged: a second section of its kind (%s) at byte %llu", kinds[s->type].name,
                   (unsigned long long)from);
    r->sections++;
    return true;
}

static bool get_head(struct reader *r)
{
    struct head h;
    struct stat st;

    if (fstat(r->file, &st) || !S_ISREG(st.st_mode))
        return bad(r, "is not a file");
    r->bytes = (uint64_t)st.st_size;
    if (r->bytes < sizeof h || !get(r, &h, sizeof h) || memcmp(h.magic, IMAGE_MAGIC, sizeof h.magic))
        return bad(r, "is no saved guest");
    if (h.version != IMAGE_VERSION || h.zero)
        return bad(r, "was saved by another version of Metronome (format %u; this one reads %u)", h.version, IMAGE_VERSION);
    return true;
}

static bool is_complete(struct reader *r)
{
    const struct image_end *end = (const void *)r->contents;

    if (end->sections != r->sections - 1 || r->at != r->bytes)
        return bad(r, "is damaged: sections are missing, or something follows its end");
    for (unsigned i = IMAGE_GUEST; i <= IMAGE_KEPT; i++)
        if (!r->seen[i])
            return bad(r, "is damaged: it has no section of one kind (%s)", kinds[i].name);
    return true;
}

/* Calls `take` for every section but the end. */
static bool for_each_section(struct reader *r, bool (*take)(struct reader *r, void *argument), void *argument)
{
    if (!get_head(r))
        return false;
    for (;;) {
        if (!get_section(r))
            return false;
        if (r->section.type == IMAGE_END)
            return is_complete(r);
        if (!take(r, argument))
            return false;
    }
}

static bool take_description(struct reader *r, void *argument)
{
    struct image *out = argument;

    if (r->section.type == IMAGE_GUEST) {
        memcpy(&out->guest, r->contents, sizeof out->guest);
        out->guest.folder[PATH_MAX - 1] = 0;
    } else if (r->section.type == IMAGE_REQUEST) {
        memcpy(out->request, r->contents, r->section.bytes);
        out->request_bytes = r->section.bytes;
    } else if (r->section.type == IMAGE_DEVICES) {
        out->has_devices = true;
    }
    return true;
}

bool image_read(int file, struct image *out, char *error, size_t error_size)
{
    struct reader r = {.file = file, .error = error, .error_size = error_size};
    bool good;

    memset(out, 0, sizeof *out);
    good = for_each_section(&r, take_description, out);
    free(r.contents);
    return good;
}

struct loading {
    int memory, devices;
    uint64_t slot_bytes;
};

static bool put_at(struct reader *r, int to, const void *bytes, size_t n, uint64_t offset)
{
    return pwrite(to, bytes, n, (off_t)offset) == (ssize_t)n || bad(r, "cannot be loaded: the host has no more memory");
}

static bool load_memory(struct reader *r, const struct loading *l)
{
    struct image_memory m;
    uint64_t n = r->section.bytes - sizeof m, arena = l->slot_bytes - METRONOME_DOMAIN_ARENA;

    memcpy(&m, r->contents, sizeof m);
    if (m.offset > arena || n > arena - m.offset)
        return bad(r, "needs more memory than a guest can have here");
    return put_at(r, l->memory, r->contents + sizeof m, n, METRONOME_DOMAIN_ARENA + m.offset);
}

static bool load_section(struct reader *r, void *argument)
{
    const struct loading *l = argument;

    switch (r->section.type) {
    case IMAGE_STATE:
        return put_at(r, l->memory, r->contents, r->section.bytes, METRONOME_DOMAIN_STATE);
    case IMAGE_KEPT:
        return put_at(r, l->memory, r->contents, r->section.bytes, METRONOME_DOMAIN_KEPT);
    case IMAGE_DEVICES:
        return put_at(r, l->devices, r->contents, r->section.bytes, 0);
    case IMAGE_MEMORY:
        return load_memory(r, l);
    }
    return true;
}

bool image_load(int file, int memory, uint64_t slot_bytes, int devices, char *error, size_t error_size)
{
    struct reader r = {.file = file, .error = error, .error_size = error_size};
    struct loading l = {memory, devices, slot_bytes};
    bool good = for_each_section(&r, load_section, &l);

    free(r.contents);
    return good;
}
