/*
 * Fuzzes the loader with any image. ASan sees every read outside the image (libFuzzer hands over a block of its exact
 * size) and every write outside the 2 MiB pages of guest RAM, each a block of its own.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "expect.h"
#include "loader/loader.h"

#define EXPECT(condition, what) EXPECT_AT(condition, what, "")

#define PAGE  0x200000u
#define PAGES 4u

struct header {
    uint8_t pages;        /* of RAM */
    uint8_t hole;         /* a page that is missing, if there is one of this number */
    uint16_t initrd;      /* size in bytes, times 64; 0: none */
    uint8_t command_line; /* its length, times 16; 0: none */
    uint8_t vcpus;
    uint8_t above; /* RAM above 4 GiB */
    uint8_t zero;
};

static uint8_t *page[PAGES];
static struct header h;

static void *at(void *ctx, uint64_t gpa, uint64_t size)
{
    uint64_t n = gpa / PAGE;

    EXPECT(size && gpa + size > gpa && n == (gpa + size - 1) / PAGE, "a range lies in one page");
    if (n >= 1 + h.pages % PAGES || n == h.hole)
        return NULL;
    if (!page[n])
        page[n] = calloc(1, PAGE);
    return page[n] + gpa % PAGE;
}

static const char *load(const uint8_t *image, size_t size, struct loader_entry *entry)
{
    static const uint8_t initrd[64 * 0xffff];
    static char line[256 * 16 + 1];
    static struct loader l;
    const char *error;
    struct loader_memory m = {NULL, at, (1 + h.pages % PAGES) * (uint64_t)PAGE, (uint64_t)h.above << 21, NULL};
    struct loader_input in = {.image = image, .image_size = size, .vcpus = h.vcpus};

    memset(line, 'x', sizeof(line));
    line[h.command_line * 16] = 0;
    in.command_line = h.command_line ? line : NULL;
    in.initrd = h.initrd ? initrd : NULL;
    in.initrd_size = h.initrd * 64u;
    error = loader_begin(&l, &in, &m);
    while (!error && loader_continue(&l, &error))
        ;
    *entry = l.entry;
    return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loader_entry entry[2];
    const char *error;
    uint8_t *image;

    if (size < sizeof(h))
        return 0;
    memcpy(&h, data, sizeof(h));
    size -= sizeof(h);
    image = memcpy(malloc(size ? size : 1), data + sizeof(h), size);
    memset(entry, 0, sizeof(entry));
    error = load(image, size, &entry[0]);
    EXPECT(!error || (*error && !strchr(error, '\n')), "a refusal is one line");
    if (!error) {
        EXPECT(entry[0].gdt >= 0x80000 && entry[0].gdt + entry[0].gdt_limit < 0xa0000,
               "the descriptor table has its place");
        EXPECT(!load(image, size, &entry[1]) && memcmp(&entry[0], &entry[1], sizeof(entry[0])) == 0,
               "loading twice is the same");
    }
    free(image);
    return 0;
}
