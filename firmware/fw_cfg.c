#include <string.h>

#include "fw_cfg.h"

#define ALL_ONES UINT32_MAX
#define DESCRIPTOR_BYTES 16u

/* Control word of a descriptor. */
#define DMA_ERROR 1u
#define DMA_READ 2u
#define DMA_SKIP 4u
#define DMA_SELECT 8u
#define DMA_WRITE 16u

static void store_be(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static uint64_t load_be(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

/* The table. */

static struct fw_cfg_item *item_of_key(struct fw_cfg *s, uint16_t key)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->items[i].key == key)
            return &s->items[i];
    return NULL;
}

static struct fw_cfg_item *item_of_name(struct fw_cfg *s, const char *name)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (!strcmp(s->items[i].name, name))
            return &s->items[i];
    return NULL;
}

/* { be32 count; { be32 size; be16 key; be16 0; char name[56]; } ... } */
static void rebuild_directory(struct fw_cfg *s)
{
    uint32_t files = 0;

    for (uint32_t i = 0; i < s->count; i++) {
        const struct fw_cfg_item *item = &s->items[i];
        uint8_t *entry = s->directory + 4 + 64 * files;
        if (!item->name[0])
            continue;
        store_be(entry, item->bytes, 4);
        store_be(entry + 4, item->key, 2);
        store_be(entry + 6, 0, 2);
        memcpy(entry + 8, item->name, FW_CFG_NAME_BYTES);
        files++;
    }
    store_be(s->directory, files, 4);
    item_of_key(s, FW_CFG_FILE_DIR)->bytes = 4 + 64 * files;
}

static struct fw_cfg_item *new_item(struct fw_cfg *s, uint16_t key)
{
    struct fw_cfg_item *item;

    if (s->count == FW_CFG_MAX_ITEMS)
        return NULL;
    item = &s->items[s->count++];
    memset(item, 0, sizeof *item);
    item->key = key;
    return item;
}

static bool fill_item(struct fw_cfg *s, struct fw_cfg_item *item, const void *data, uint32_t bytes)
{
    if (!item)
        return false;
    item->data = data;
    item->bytes = bytes;
    rebuild_directory(s);
    return true;
}

void fw_cfg_init(struct fw_cfg *s, fw_cfg_memory *memory, void *context)
{
    memset(s, 0, sizeof *s);
    s->memory = memory;
    s->context = context;
    s->key = FW_CFG_NONE;
    fill_item(s, new_item(s, FW_CFG_FILE_DIR), s->directory, 4);
}

bool fw_cfg_add(struct fw_cfg *s, uint16_t key, const void *data, uint32_t bytes)
{
    struct fw_cfg_item *item = item_of_key(s, key);

    return fill_item(s, item ? item : new_item(s, key), data, bytes);
}

bool fw_cfg_add_file(struct fw_cfg *s, const char *name, const void *data, uint32_t bytes)
{
    struct fw_cfg_item *item = item_of_name(s, name);
    uint16_t key = FW_CFG_FILE_FIRST;

    if (!name[0] || strlen(name) >= FW_CFG_NAME_BYTES)
        return false;
    while (!item && item_of_key(s, key))
        key++;
    if (!item && (item = new_item(s, key)))
        memcpy(item->name, name, strlen(name));
    return fill_item(s, item, data, bytes);
}

/* Numbers are little-endian, as this machine is. */
static const void *keep(struct fw_cfg *s, uint64_t value, uint32_t bytes)
{
    uint8_t *at = s->pool + s->pool_used;

    if (bytes > sizeof value || bytes > FW_CFG_POOL_BYTES - s->pool_used)
        return NULL;
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
    s->pool_used += bytes;
    return at;
}

bool fw_cfg_add_number(struct fw_cfg *s, uint16_t key, uint64_t value, uint32_t bytes)
{
    const void *kept = keep(s, value, bytes);

    return kept && fw_cfg_add(s, key, kept, bytes);
}

bool fw_cfg_add_file_number(struct fw_cfg *s, const char *name, uint64_t value, uint32_t bytes)
{
    const void *kept = keep(s, value, bytes);

    return kept && fw_cfg_add_file(s, name, kept, bytes);
}

/* The registers. */

static void select_item(struct fw_cfg *s, uint16_t key)
{
    s->key = key;
    s->offset = 0;
}

/* What is left of the chosen item; nothing if there is none. */
static uint32_t remaining(struct fw_cfg *s, const uint8_t **data)
{
    const struct fw_cfg_item *item = item_of_key(s, s->key);

    if (!item || s->offset >= item->bytes)
        return 0;
    *data = item->data + s->offset;
    return item->bytes - s->offset;
}

static uint8_t next_byte(struct fw_cfg *s)
{
    const uint8_t *data;

    if (!remaining(s, &data))
        return 0;
    s->offset++;
    return *data;
}

/* Copies between `local` and guest memory piece by piece; with local == NULL fills guest memory with zeros. */
static bool copy(struct fw_cfg *s, uint64_t address, const uint8_t *local, uint32_t bytes)
{
    while (bytes) {
        uint64_t run = bytes;
        uint8_t *guest = address + bytes < address ? NULL : s->memory(s->context, address, &run);
        if (!guest || !run)
            return false;
        if (local)
            memmove(guest, local, run);
        else
            memset(guest, 0, run);
        local = local ? local + run : NULL;
        address += run;
        bytes -= (uint32_t)run;
    }
    return true;
}

static bool fetch(struct fw_cfg *s, uint64_t address, uint8_t *out, uint32_t bytes)
{
    while (bytes) {
        uint64_t run = bytes;
        const uint8_t *guest = address + bytes < address ? NULL : s->memory(s->context, address, &run);
        if (!guest || !run)
            return false;
        memcpy(out, guest, run);
        out += run;
        address += run;
        bytes -= (uint32_t)run;
    }
    return true;
}

static bool dma_read(struct fw_cfg *s, uint64_t address, uint32_t length)
{
    const uint8_t *data = NULL;
    uint32_t have = remaining(s, &data);

    if (have > length)
        have = length;
    if (length - have > FW_CFG_MAX_FILL)
        return false;
    if (have && !copy(s, address, data, have))
        return false;
    s->offset += have;
    return copy(s, address + have, NULL, length - have);
}

static void dma_skip(struct fw_cfg *s, uint32_t length)
{
    const uint8_t *unused;
    uint32_t have = remaining(s, &unused);

    s->offset += length < have ? length : have;
}

/* The control word is written back: 0 when done, or the error bit. */
static void run_descriptor(struct fw_cfg *s, uint64_t at)
{
    uint8_t descriptor[DESCRIPTOR_BYTES], status[4];
    uint32_t control, length;
    bool good = true;

    if (!fetch(s, at, descriptor, sizeof descriptor))
        return; /* nowhere to report it */
    control = (uint32_t)load_be(descriptor, 4);
    length = (uint32_t)load_be(descriptor + 4, 4);
    if (control & DMA_SELECT)
        select_item(s, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        good = dma_read(s, load_be(descriptor + 8, 8), length);
    else if (control & DMA_WRITE)
        good = false;
    else if (control & DMA_SKIP)
        dma_skip(s, length);
    store_be(status, good ? 0 : DMA_ERROR, sizeof status);
    copy(s, at, status, sizeof status);
}

static uint32_t swap32(uint32_t value)
{
    return __builtin_bswap32(value);
}

uint32_t fw_cfg_read(struct fw_cfg *s, unsigned offset, unsigned size)
{
    static const char signature[9] = "QEMU CFG";
    uint32_t value = 0;

    if (offset < 2 && size == 1)
        return next_byte(s);
    if (offset < 4 || offset >= FW_CFG_PORTS || size > 4 || size == 0 || offset % size || size == 3)
        return ALL_ONES;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)(uint8_t)signature[offset - 4 + i] << 8 * i;
    return value;
}

void fw_cfg_write(struct fw_cfg *s, unsigned offset, unsigned size, uint32_t value)
{
    if (offset == 0 && size == 2) {
        select_item(s, (uint16_t)value);
    } else if (offset == 4 && size == 4) {
        s->descriptor_high = swap32(value);
    } else if (offset == 8 && size == 4) {
        uint64_t at = (uint64_t)s->descriptor_high << 32 | swap32(value);
        s->descriptor_high = 0;
        run_descriptor(s, at);
    }
}
