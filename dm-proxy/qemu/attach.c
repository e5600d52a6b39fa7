/*
 * From the environment to the slot's memory. METRONOME_DM names what the launcher handed over:
 *   mem=FD,wait=FD,ring=FD[,menu=0][,menu_wait=MS][,patience=S][,files=DIR]
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dm.h"

struct dm dm;

void dm_fatal(const char *format, ...)
{
    va_list arguments;

    fputs("metronome: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    /* Not exit(): QEMU's exit handlers would call back into a library that has just given up. */
    _exit(1);
}

uint64_t dm_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void set_option(struct dm_options *o, const char *key, const char *value)
{
    if (!strcmp(key, "mem"))
        o->mem_fd = atoi(value);
    else if (!strcmp(key, "wait"))
        o->wait_fd = atoi(value);
    else if (!strcmp(key, "ring"))
        o->ring_fd = atoi(value);
    else if (!strcmp(key, "menu"))
        o->no_boot_menu = atoi(value) == 0;
    else if (!strcmp(key, "menu_wait"))
        o->boot_menu_wait_ms = (uint32_t)atoi(value);
    else if (!strcmp(key, "patience"))
        o->patience_s = (uint32_t)atoi(value);
    else if (!strcmp(key, "files"))
        snprintf(o->files, sizeof o->files, "%s", value);
    else
        dm_fatal("METRONOME_DM: unknown word '%s'", key);
}

static void parse_options(struct dm_options *o)
{
    const char *text = getenv("METRONOME_DM");
    char copy[2048], *rest, *word;

    if (!text || strlen(text) >= sizeof copy)
        dm_fatal("METRONOME_DM is not set: this QEMU must be started by Metronome");
    o->patience_s = DM_PATIENCE_S;
    o->mem_fd = o->wait_fd = o->ring_fd = -1;
    strcpy(copy, text);
    for (word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(word, '=');
        if (!value)
            dm_fatal("METRONOME_DM: '%s' is not of the form word=value", word);
        *value++ = 0;
        set_option(o, word, value);
    }
    if (o->mem_fd < 0 || o->wait_fd < 0 || o->ring_fd < 0)
        dm_fatal("METRONOME_DM must name mem, wait and ring");
}

static bool fits(uint64_t offset, uint64_t bytes, uint64_t whole)
{
    return offset <= whole && bytes <= whole - offset;
}

static void check_header(const struct metronome_domain_header *h, uint64_t bytes)
{
    uint64_t arena = bytes - METRONOME_DOMAIN_ARENA;

    if (h->magic != METRONOME_DOMAIN_MAGIC)
        dm_fatal("the slot's memory holds no domain");
    if (h->version != METRONOME_ABI_VERSION)
        dm_fatal("the domain is of ABI version %u, this library of %u", h->version, METRONOME_ABI_VERSION);
    if (!(h->flags & METRONOME_DOMAIN_HAS_DM))
        dm_fatal("the domain wants no device model");
    if (h->vcpus < 1 || h->vcpus > METRONOME_MAX_VCPUS)
        dm_fatal("the domain has %u vCPUs, of at most %u", h->vcpus, METRONOME_MAX_VCPUS);
    if (h->ram_low > METRONOME_RAM_LOW_MAX || h->extra != h->ram_low + h->ram_high ||
        !fits(h->extra, h->extra_bytes, arena) || !fits(h->firmware, h->firmware_bytes, arena))
        dm_fatal("the domain's memory (%llu + %llu MiB) does not fit into its slot of %llu MiB",
                 (unsigned long long)h->ram_low >> 20, (unsigned long long)h->ram_high >> 20,
                 (unsigned long long)bytes >> 20);
}

static void map_slot(void)
{
    struct stat st;

    if (fstat(dm.options.mem_fd, &st))
        dm_fatal("the slot's memory: %s", strerror(errno));
    dm.bytes = (uint64_t)st.st_size;
    if (dm.bytes <= METRONOME_DOMAIN_ARENA)
        dm_fatal("the slot's memory is %llu bytes: too small", (unsigned long long)dm.bytes);
    dm.base = mmap(NULL, dm.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, dm.options.mem_fd, 0);
    if (dm.base == MAP_FAILED)
        dm_fatal("cannot map the slot's memory: %s", strerror(errno));
    memcpy(&dm.header, dm.base + METRONOME_DOMAIN_HEADER, sizeof dm.header);
    check_header(&dm.header, dm.bytes);
    dm.ioreq = (void *)(dm.base + METRONOME_DOMAIN_IOREQ);
    dm.buffered = (void *)(dm.base + METRONOME_DOMAIN_BUFIOREQ);
    dm.notify = (void *)(dm.base + METRONOME_DOMAIN_NOTIFY);
    dm.commands = (void *)(dm.base + METRONOME_DOMAIN_COMMANDS);
    dm.completions = (void *)(dm.base + METRONOME_DOMAIN_COMPLETIONS);
}

/* A new domain's is all zero. Where BARs show memory is for QEMU to say again, when it loads its devices' state. */
static void find_kept(void)
{
    struct kept *k = dm.kept = (void *)(dm.base + METRONOME_DOMAIN_KEPT);

    dm.restored = k->magic == KEPT_MAGIC;
    k->magic = KEPT_MAGIC;
    if (!dm.restored)
        return;
    if (!memory_kept_is_valid() || k->tree_bytes > sizeof k->tree)
        dm_fatal("the saved state of the device model's memory is damaged");
    for (unsigned i = 0; i < k->alias_count; i++)
        k->aliases[i].active = 0;
    xenstore_restore();
}

/* Called by every libxen "open": the first one attaches. */
void dm_attach(void)
{
    if (dm.base)
        return;
    parse_options(&dm.options);
    map_slot();
    find_kept();
    fw_cfg_port_init();
}
