/*
 * What backs a page. Two numberings meet here:
 *   QEMU's     "RAM addresses": guest RAM under its guest-physical address, and above it what QEMU populates for video
 *              memory and option ROMs, at addresses that the guest never sees ("home")
 *   the guest's  RAM, and the video memory where its BAR is ("alias", DM_MAP)
 * Both lead to offsets in the slot's memory.
 */
#include <errno.h>

#include "dm.h"

#define FOUR_GIB_GFN (1ull << (32 - PAGE_SHIFT))
#define LEGACY_VGA 0xa0000ull
#define LEGACY_VGA_END 0xc0000ull
#define LARGE_PAGES 512ull

static struct extent *extent_at(struct extent *table, unsigned count, uint64_t gfn)
{
    for (unsigned i = 0; i < count; i++)
        if (gfn - table[i].gfn < table[i].pages)
            return &table[i];
    return NULL;
}

static struct extent *extent_of(struct extent *table, unsigned count, uint64_t gfn)
{
    for (unsigned i = 0; i < count; i++)
        if (table[i].active && gfn - table[i].gfn < table[i].pages)
            return &table[i];
    return NULL;
}

static bool fits(const struct extent *e)
{
    uint64_t pages = (dm.bytes - METRONOME_DOMAIN_ARENA) >> PAGE_SHIFT, first = e->arena >> PAGE_SHIFT;

    return e->active <= 1 && !(e->arena & (PAGE_BYTES - 1)) && first <= pages && e->pages <= pages - first;
}

bool memory_kept_is_valid(void)
{
    const struct kept *k = dm.kept;
    bool valid = k->home_count <= KEPT_EXTENTS && k->alias_count <= KEPT_EXTENTS;

    for (unsigned i = 0; valid && i < k->home_count; i++)
        valid = fits(&k->homes[i]);
    for (unsigned i = 0; valid && i < k->alias_count; i++)
        valid = fits(&k->aliases[i]);
    return valid;
}

static bool ram_offset(uint64_t gfn, uint64_t *arena)
{
    const struct metronome_domain_header *h = &dm.header;

    if (gfn < h->ram_low >> PAGE_SHIFT)
        *arena = gfn << PAGE_SHIFT;
    else if (gfn >= FOUR_GIB_GFN && gfn - FOUR_GIB_GFN < h->ram_high >> PAGE_SHIFT)
        *arena = h->ram_low + ((gfn - FOUR_GIB_GFN) << PAGE_SHIFT);
    else
        return false;
    return true;
}

bool memory_of_qemu(uint64_t gfn, uint64_t *offset)
{
    struct extent *home;
    uint64_t arena;

    if (!ram_offset(gfn, &arena)) {
        home = extent_of(dm.kept->homes, dm.kept->home_count, gfn);
        if (!home) /* a restored QEMU asks for video memory where its BAR is: whether that shows it already or not */
            home = extent_at(dm.kept->aliases, dm.kept->alias_count, gfn);
        if (!home)
            return false;
        arena = home->arena + ((gfn - home->gfn) << PAGE_SHIFT);
    }
    *offset = METRONOME_DOMAIN_ARENA + arena;
    return true;
}

static bool guest_page(uint64_t gfn, uint64_t *arena)
{
    struct extent *alias = extent_of(dm.kept->aliases, dm.kept->alias_count, gfn);

    if (alias) {
        *arena = alias->arena + ((gfn - alias->gfn) << PAGE_SHIFT);
        return true;
    }
    if (gfn >= LEGACY_VGA >> PAGE_SHIFT && gfn < LEGACY_VGA_END >> PAGE_SHIFT)
        return false;
    return ram_offset(gfn, arena);
}

/* The run never crosses a page: what is copied through here is short, and pages need not be contiguous. */
void *memory_of_guest(void *unused, uint64_t address, uint64_t *bytes)
{
    uint64_t arena, in_page = address & (PAGE_BYTES - 1);

    (void)unused;
    if (!guest_page(address >> PAGE_SHIFT, &arena))
        return NULL;
    if (*bytes > PAGE_BYTES - in_page)
        *bytes = PAGE_BYTES - in_page;
    return dm.base + METRONOME_DOMAIN_ARENA + arena + in_page;
}

static bool overlaps(uint64_t start, uint64_t bytes, uint64_t taken, uint64_t taken_bytes)
{
    return taken_bytes && start < taken + taken_bytes && taken < start + bytes;
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* Offset in the arena of fresh pages in the extra area, past whatever the daemon put there; 0 when it is full. */
static uint64_t allocate(uint64_t pages)
{
    const struct metronome_domain_header *h = &dm.header;
    const uint64_t taken[][2] = {
        {h->firmware, h->firmware_bytes}, {h->module, h->module_bytes}, {h->initrd, h->initrd_bytes}};
    uint64_t bytes = pages << PAGE_SHIFT;
    uint64_t start = dm.kept->next_free ? dm.kept->next_free : h->extra;
    bool moved;

    do {
        /* Video memory is aligned so that nested page tables can use 2 MiB pages. */
        start = round_up(start, pages >= LARGE_PAGES ? LARGE_PAGES << PAGE_SHIFT : PAGE_BYTES);
        moved = false;
        for (unsigned i = 0; i < sizeof taken / sizeof taken[0]; i++)
            if (overlaps(start, bytes, taken[i][0], taken[i][1])) {
                start = taken[i][0] + taken[i][1];
                moved = true;
            }
    } while (moved);
    if (start + bytes > h->extra + h->extra_bytes)
        return 0;
    dm.kept->next_free = start + bytes;
    return start;
}

int memory_populate(uint64_t gfn, uint64_t pages)
{
    uint64_t arena;

    if (ram_offset(gfn, &arena) || ram_offset(gfn + pages - 1, &arena))
        dm_fatal("QEMU's memory size (-m) is not the domain's");
    if (dm.kept->home_count == KEPT_EXTENTS)
        dm_fatal("QEMU has more than %d video memories and option ROMs", KEPT_EXTENTS);
    arena = allocate(pages);
    if (!arena)
        dm_fatal("no room for %llu KiB of video memory or option ROM: the domain's extra area is %llu KiB",
                 (unsigned long long)pages * 4, (unsigned long long)dm.header.extra_bytes >> 10);
    dm.kept->homes[dm.kept->home_count++] = (struct extent){.gfn = gfn, .pages = pages, .arena = arena, .active = 1};
    return 0;
}

static void show(struct extent *alias)
{
    alias->active = 1;
    dm_send(METRONOME_DM_MAP, alias->gfn, alias->arena, alias->pages, 0);
}

static void hide(struct extent *alias)
{
    alias->active = 0;
    dm_send(METRONOME_DM_UNMAP, alias->gfn, alias->pages, 0, 0);
}

static struct extent *alias_at(uint64_t gfn, uint64_t pages)
{
    for (unsigned i = 0; i < dm.kept->alias_count; i++)
        if (dm.kept->aliases[i].gfn == gfn && dm.kept->aliases[i].pages == pages)
            return &dm.kept->aliases[i];
    return NULL;
}

/* Places are remembered as long as there is room, because QEMU remembers them for ever. */
static struct extent *alias_slot(uint64_t gfn, uint64_t pages)
{
    struct extent *alias = alias_at(gfn, pages);

    if (!alias && dm.kept->alias_count < KEPT_EXTENTS)
        alias = &dm.kept->aliases[dm.kept->alias_count++];
    for (unsigned i = 0; !alias && i < dm.kept->alias_count; i++)
        if (!dm.kept->aliases[i].active)
            alias = &dm.kept->aliases[i];
    return alias;
}

/*
 * QEMU moves the frame buffer: from its home to where the BAR is. It says so once per place and keeps quiet when the
 * BAR is switched off, or comes back to a place where it has been; memory_section_added and _removed see that.
 */
int memory_relocate(uint64_t from, uint64_t to, uint64_t pages)
{
    struct extent *home = extent_of(dm.kept->homes, dm.kept->home_count, from);
    struct extent *alias;

    if (extent_of(dm.kept->homes, dm.kept->home_count, to) && !home) { /* back home */
        alias = alias_at(from, pages);
        if (alias && alias->active)
            hide(alias);
        return 0;
    }
    if (!home || from - home->gfn + pages > home->pages || !(alias = alias_slot(to, pages))) {
        errno = EINVAL;
        return -1;
    }
    alias->gfn = to;
    alias->pages = pages;
    alias->arena = home->arena + ((from - home->gfn) << PAGE_SHIFT);
    show(alias);
    return 0;
}

static struct extent *alias_of_section(uint64_t start, uint64_t end)
{
    return alias_at(start >> PAGE_SHIFT, (end + 1 - start) >> PAGE_SHIFT);
}

void memory_section_added(uint64_t start, uint64_t end)
{
    struct extent *alias = alias_of_section(start, end);

    if (alias && !alias->active)
        show(alias);
}

void memory_section_removed(uint64_t start, uint64_t end)
{
    struct extent *alias = alias_of_section(start, end);

    if (alias && alias->active)
        hide(alias);
}
