/*
 * ELF executables, 32 and 64 bits, little-endian x86. Both classes are read into one form, field by field from a table.
 */
#include "internal.h"

#define PT_LOAD 1u
#define PT_NOTE 4u
#define MAX_SEGMENTS 64u
#define NOTE_PHYS32_ENTRY 18u /* Xen's elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY */
#define NOTES_BYTES 0x10000u  /* notes behind this much of a segment are not looked at */

struct elf {
    uint64_t entry, phoff;
    unsigned phentsize, phnum;
    bool is64;
};

struct segment {
    uint64_t type, offset, vaddr, paddr, filesz, memsz, align;
};

/* Offset and size of a field in the 32-bit and in the 64-bit form. */
struct field {
    uint8_t at32, size32, at64, size64;
};
static const struct field F_ENTRY = {24, 4, 24, 8}, F_PHOFF = {28, 4, 32, 8}, F_PHENTSIZE = {42, 2, 54, 2}, F_PHNUM = {44, 2, 56, 2};
static const struct field P_TYPE = {0, 4, 0, 4}, P_OFFSET = {4, 4, 8, 8}, P_VADDR = {8, 4, 16, 8}, P_PADDR = {12, 4, 24, 8},
                          P_FILESZ = {16, 4, 32, 8}, P_MEMSZ = {20, 4, 40, 8}, P_ALIGN = {28, 4, 48, 8};

static uint64_t get(const uint8_t *from, struct field f, bool is64)
{
    unsigned at = is64 ? f.at64 : f.at32, size = is64 ? f.size64 : f.size32;
    uint64_t v = 0;
    while (size--)
        v = v << 8 | from[at + size];
    return v;
}

/* e_ident, e_type EXEC or DYN, and a machine that fits the class. */
static bool elf_header(const struct loader *l, struct elf *e)
{
    uint8_t h[64] = {0};
    if (!image_read(l, 0, h, 52) || h[0] != 0x7f || h[1] != 'E' || h[2] != 'L' || h[3] != 'F' || h[5] != 1)
        return false;
    e->is64 = h[4] == 2;
    if ((h[4] != 1 && h[4] != 2) || (e->is64 && !image_read(l, 0, h, 64)))
        return false;
    if ((h[16] != 2 && h[16] != 3) || h[17] || (h[18] != 3 && h[18] != 62) || h[19])
        return false;
    e->entry = get(h, F_ENTRY, e->is64);
    e->phoff = get(h, F_PHOFF, e->is64);
    e->phentsize = (unsigned)get(h, F_PHENTSIZE, e->is64);
    e->phnum = (unsigned)get(h, F_PHNUM, e->is64);
    return true;
}

static bool elf_segment(const struct loader *l, const struct elf *e, unsigned i, struct segment *s)
{
    uint8_t p[56];
    if (e->phoff > l->in.image_size || !image_read(l, e->phoff + (uint64_t)i * e->phentsize, p, e->is64 ? 56 : 32))
        return false;
    *s = (struct segment){get(p, P_TYPE, e->is64),  get(p, P_OFFSET, e->is64), get(p, P_VADDR, e->is64), get(p, P_PADDR, e->is64),
                          get(p, P_FILESZ, e->is64), get(p, P_MEMSZ, e->is64), get(p, P_ALIGN, e->is64)};
    return true;
}

static const char *check_headers(const struct elf *e)
{
    if (e->phentsize != (e->is64 ? 56 : 32))
        return "the ELF image is damaged: its program headers have an odd size";
    if (!e->phnum || e->phnum > MAX_SEGMENTS)
        return "the ELF image has no program headers, or more than 64";
    return NULL;
}

bool elf_recognise(const struct loader *l)
{
    struct elf e;
    return elf_header(l, &e);
}

const char *elf_load(struct loader *l, uint64_t *entry)
{
    struct elf e;
    struct segment s;
    uint64_t total = 0;
    const char *error;
    bool found = false;
    if (!elf_header(l, &e))
        return "the image is no x86 ELF executable";
    if ((error = check_headers(&e)))
        return error;
    *entry = e.entry;
    for (unsigned i = 0; i < e.phnum; i++) {
        if (!elf_segment(l, &e, i, &s))
            return "the image is truncated: its program headers lie behind its end";
        if (l->memory.pause)
            l->memory.pause();
        if (s.type != PT_LOAD || !s.memsz)
            continue;
        /* Segments that overlap would make the work exceed the size of memory. */
        if (s.memsz > l->memory.ram_low - total)
            return "the image does not fit: it is larger than the guest's memory";
        total += s.memsz;
        if ((error = load_part(l, s.offset, s.filesz, s.paddr, s.memsz)))
            return error;
        if (e.entry >= s.vaddr && e.entry - s.vaddr < s.memsz) {
            *entry = e.entry - s.vaddr + s.paddr;
            found = true;
        }
    }
    return found ? NULL : "the ELF image's entry point lies in none of its segments";
}

/* Looks through the notes of one segment; each is name size, desc size, type, then both padded to 4 bytes. */
static bool find_note(const struct loader *l, const struct segment *s, uint64_t *entry)
{
    uint64_t size = s->filesz < NOTES_BYTES ? s->filesz : NOTES_BYTES, at = 0;
    while (at <= size && size - at >= 12) {
        uint32_t h[3];
        uint8_t name[4], desc[8] = {0};
        uint64_t name_size, desc_size;
        if (s->offset > l->in.image_size || !image_read(l, s->offset + at, h, sizeof(h)))
            return false;
        name_size = ((uint64_t)h[0] + 3) & ~3ull;
        desc_size = ((uint64_t)h[1] + 3) & ~3ull;
        if (name_size + desc_size > size - at - 12)
            return false;
        if (h[2] == NOTE_PHYS32_ENTRY && h[0] == 4 && (h[1] == 4 || h[1] == 8) && image_read(l, s->offset + at + 12, name, 4) &&
            name[0] == 'X' && name[1] == 'e' && name[2] == 'n' && !name[3]) {
            *entry = image_read(l, s->offset + at + 16, desc, h[1]) ? get(desc, (struct field){0, 8, 0, 8}, true) : 0;
            return true;
        }
        at += 12 + name_size + desc_size;
    }
    return false;
}

bool elf_pvh_entry(const struct loader *l, uint64_t *entry)
{
    struct elf e;
    struct segment s;
    if (!elf_header(l, &e) || check_headers(&e))
        return false;
    for (unsigned i = 0; i < e.phnum; i++)
        if (elf_segment(l, &e, i, &s) && s.type == PT_NOTE && find_note(l, &s, entry))
            return true;
    return false;
}
