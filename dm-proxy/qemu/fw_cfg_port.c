/*
 * fw_cfg inside QEMU's process: stock QEMU has none in this mode, so its ports are answered before QEMU sees them. The
 * items come from the domain's header, the options, METRONOME_BOOT_ORDER ("bootorder"), and the files below a folder
 * (files=DIR): a file there is served under its name relative to the folder, e.g. DIR/etc/acpi/tables as
 * "etc/acpi/tables".
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dm.h"
#include "../../firmware/fw_cfg.h"
#include "../../firmware/platform.h"

#define MAX_FILE_BYTES (64u << 20)

static struct fw_cfg fw_cfg;
static struct e820_entry e820[E820_MAX];

static uint8_t *read_whole(const char *path, uint32_t bytes)
{
    uint8_t *data = malloc(bytes ? bytes : 1);
    FILE *f = fopen(path, "rb");

    if (!data || !f || fread(data, 1, bytes, f) != bytes)
        dm_fatal("cannot read %s", path);
    fclose(f);
    return data;
}

static int add_file(const char *path, const struct stat *st, int type, struct FTW *where)
{
    const char *name = path + strlen(dm.options.files);

    (void)where;
    if (type != FTW_F)
        return 0;
    while (*name == '/')
        name++;
    if (st->st_size > MAX_FILE_BYTES)
        dm_fatal("%s is larger than %u MiB", path, MAX_FILE_BYTES >> 20);
    if (!fw_cfg_add_file(&fw_cfg, name, read_whole(path, (uint32_t)st->st_size), (uint32_t)st->st_size))
        dm_fatal("fw_cfg has no room for %s, or its name is longer than %u characters", path, FW_CFG_NAME_BYTES - 1);
    return 0;
}

void fw_cfg_port_init(void)
{
    const char *order = getenv("METRONOME_BOOT_ORDER");
    struct platform p = {
        .ram_low = dm.header.ram_low,
        .ram_high = dm.header.ram_high,
        .vcpus = dm.header.vcpus,
        .no_boot_menu = dm.options.no_boot_menu,
        .boot_menu_wait_ms = dm.options.boot_menu_wait_ms,
    };

    fw_cfg_init(&fw_cfg, memory_of_guest, NULL);
    if (!platform_items(&fw_cfg, &p, e820))
        dm_fatal("fw_cfg has no room");
    if (order && !fw_cfg_add_file(&fw_cfg, "bootorder", order, (uint32_t)strlen(order) + 1))
        dm_fatal("fw_cfg has no room");
    if (dm.options.files[0] && nftw(dm.options.files, add_file, 16, FTW_PHYS))
        dm_fatal("cannot read the folder %s", dm.options.files);
    fw_cfg.key = dm.kept->fw_cfg_key;
    fw_cfg.offset = dm.kept->fw_cfg_offset;
    fw_cfg.descriptor_high = dm.kept->fw_cfg_descriptor_high;
}

static void keep(void)
{
    dm.kept->fw_cfg_key = fw_cfg.key;
    dm.kept->fw_cfg_offset = fw_cfg.offset;
    dm.kept->fw_cfg_descriptor_high = fw_cfg.descriptor_high;
}

/* One element between the port and guest memory; a part without backing is lost, as on a bus. */
static void transfer(struct metronome_ioreq *r, unsigned offset, uint64_t address)
{
    uint8_t bytes[4] = {0};
    bool in = r->state_dir_df & METRONOME_IOREQ_READ;
    uint32_t value;

    if (in) {
        value = fw_cfg_read(&fw_cfg, offset, r->size);
        memcpy(bytes, &value, sizeof bytes);
    }
    for (unsigned i = 0; i < r->size; i++) {
        uint64_t one = 1;
        uint8_t *guest = memory_of_guest(NULL, address + i, &one);
        if (guest && in)
            *guest = bytes[i];
        else if (guest)
            bytes[i] = *guest;
    }
    if (!in) {
        memcpy(&value, bytes, sizeof value);
        fw_cfg_write(&fw_cfg, offset, r->size, value);
    }
}

static void repeat(struct metronome_ioreq *r, unsigned offset)
{
    uint64_t step = r->state_dir_df & METRONOME_IOREQ_DF ? -(uint64_t)r->size : r->size;

    for (uint32_t i = 0; i < r->count; i++)
        transfer(r, offset, r->data + i * step);
}

/* True: the request was for fw_cfg and is answered. The caller has checked its type and size. */
bool fw_cfg_port_answers(struct metronome_ioreq *r)
{
    unsigned offset = (unsigned)r->addr - FW_CFG_PORT;
    uint32_t value = 0;

    if (r->type != METRONOME_IOREQ_PIO || r->addr < FW_CFG_PORT || offset >= FW_CFG_PORTS)
        return false;
    if (r->state_dir_df & METRONOME_IOREQ_DATA_IS_PTR)
        repeat(r, offset);
    else if (r->state_dir_df & METRONOME_IOREQ_READ)
        value = fw_cfg_read(&fw_cfg, offset, r->size);
    else
        fw_cfg_write(&fw_cfg, offset, r->size, (uint32_t)r->data);
    keep();
    request_answer(r, value);
    return true;
}
