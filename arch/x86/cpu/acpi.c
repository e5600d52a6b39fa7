/*
 * Finding ACPI tables (ACPI 6.4, 5.2.5 RSDP, 5.2.7 RSDT, 5.2.8 XSDT, 5.2.9 FADT, 5.2.12 MADT; IA-PC HPET 1.0a, 3.2.4).
 */
#include "acpi.h"
#include "boot.h"
#include "console.h"
#include "cpu.h"
#include "mm.h"
#include "string.h"

#define MAX_TABLE  (1u << 20)
#define MAX_CACHED 8

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint32_t checksum2;
} __attribute__((packed));
#define RSDP_V1_SIZE 20

struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[6], rest[20];
} __attribute__((packed));

static const struct header *root; /* RSDT or XSDT */
static struct {
    char signature[4];
    const struct header *table;
} cache[MAX_CACHED];
static unsigned cached;

static bool sums_to_zero(const void *p, uint32_t n)
{
    const uint8_t *b = p;
    uint8_t sum = 0;
    while (n--)
        sum = (uint8_t)(sum + *b++);
    return !sum;
}

/* A whole table with a right length and checksum, mapped for good. */
static const struct header *map_table(uint64_t physical)
{
    const struct header *h = map_physical(physical, sizeof *h, MAP_READONLY);
    if (!h)
        return NULL;
    uint32_t length = h->length;
    unmap_physical((void *)h, sizeof *h);
    if (length < sizeof *h || length > MAX_TABLE)
        return NULL;
    h = map_physical(physical, length, MAP_READONLY);
    if (h && !sums_to_zero(h, length)) {
        unmap_physical((void *)h, length);
        return NULL;
    }
    return h;
}

static bool rsdp_valid(const struct rsdp *r)
{
    return !memcmp(r->signature, "RSD PTR ", 8) && sums_to_zero(r, RSDP_V1_SIZE);
}

/* On a 16-byte boundary in the EBDA's first KiB or the BIOS area; copied, so that low memory need not stay mapped. */
static bool search_rsdp(struct rsdp *found)
{
    const char *low = map_physical(0, 0x100000, MAP_READONLY);
    bool ok = false;
    if (!low)
        return false;
    uint16_t ebda_segment;
    memcpy(&ebda_segment, low + 0x40e, sizeof ebda_segment);
    uint32_t ebda = (uint32_t)ebda_segment << 4;
    bool has_ebda = ebda >= 0x80000 && ebda < 0xa0000;
    const struct {
        uint32_t from, to;
    } areas[] = {{ebda, has_ebda ? ebda + 1024 : 0}, {0xe0000, 0x100000}};
    for (unsigned i = 0; i < 2 && !ok; i++)
        for (uint32_t at = areas[i].from; at + sizeof *found <= areas[i].to && !ok; at += 16) {
            ok = rsdp_valid((const void *)(low + at));
            if (ok)
                memcpy(found, low + at, sizeof *found);
        }
    unmap_physical((void *)low, 0x100000);
    return ok;
}

static bool loaders_rsdp(struct rsdp *found)
{
    const struct rsdp *r = boot_info.rsdp ? map_physical(boot_info.rsdp, sizeof *r, MAP_READONLY) : NULL;
    if (!r)
        return false;
    memcpy(found, r, sizeof *found);
    unmap_physical((void *)r, sizeof *r);
    return rsdp_valid(found);
}

void acpi_init(void)
{
    struct rsdp r;
    if (!loaders_rsdp(&r) && !search_rsdp(&r)) {
        log_warning("no ACPI tables: one CPU\n");
        return;
    }
    if (r.revision >= 2 && r.xsdt)
        root = map_table(r.xsdt);
    if (!root)
        root = map_table(r.rsdt);
    if (!root || (memcmp(root->signature, "XSDT", 4) && memcmp(root->signature, "RSDT", 4))) {
        log_warning("the ACPI root table is damaged: one CPU\n");
        root = NULL;
    }
}

bool acpi_oem_is(const char oem[6])
{
    return root && !memcmp(root->oem, oem, 6);
}

static uint64_t entry(unsigned i, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, (const char *)(root + 1) + i * size, size);
    return v;
}

static const struct header *find(const char signature[4])
{
    unsigned size = root->signature[0] == 'X' ? 8 : 4, count = (unsigned)(root->length - sizeof *root) / size;
    for (unsigned i = 0; i < count; i++) {
        const struct header *h = map_physical(entry(i, size), sizeof *h, MAP_READONLY);
        bool match = h && !memcmp(h->signature, signature, 4);
        if (h)
            unmap_physical((void *)h, sizeof *h);
        if (match)
            return map_table(entry(i, size));
    }
    return NULL;
}

const void *acpi_table(const char signature[4])
{
    if (!root)
        return NULL;
    for (unsigned i = 0; i < cached; i++)
        if (!memcmp(cache[i].signature, signature, 4))
            return cache[i].table;
    const struct header *h = find(signature);
    if (cached < MAX_CACHED) {
        memcpy(cache[cached].signature, signature, 4);
        cache[cached++].table = h;
    }
    return h;
}

/* A field of `size` bytes, 0 where the table is too short for it. */
static uint64_t field(const struct header *h, unsigned offset, unsigned size)
{
    uint64_t v = 0;
    if (h && offset + size <= h->length)
        memcpy(&v, (const char *)h + offset, size);
    return v;
}

enum { MADT_ENTRIES = 44, MADT_LAPIC = 0, MADT_X2APIC = 9, MADT_ENABLED = 1 };

unsigned acpi_cpus(uint32_t *apic_ids, unsigned max)
{
    const struct header *madt = acpi_table("APIC");
    unsigned n = 0;
    for (uint32_t at = MADT_ENTRIES; madt && at + 2 <= madt->length;) {
        unsigned type = (unsigned)field(madt, at, 1), length = (unsigned)field(madt, at + 1, 1);
        if (length < 2 || at + length > madt->length)
            break;
        bool lapic = type == MADT_LAPIC && length >= 8, x2apic = type == MADT_X2APIC && length >= 16;
        if ((lapic || x2apic) && field(madt, at + (lapic ? 4 : 8), 4) & MADT_ENABLED) {
            if (n < max)
                apic_ids[n] = (uint32_t)(lapic ? field(madt, at + 3, 1) : field(madt, at + 4, 4));
            n++;
        }
        at += length;
    }
    return n;
}

/* Generic address structure: space id at 0 (0 memory, 1 ports), address at 4. */
uint64_t acpi_hpet(void)
{
    const struct header *h = acpi_table("HPET");
    return field(h, 40, 1) == 0 ? field(h, 44, 8) : 0;
}

uint16_t acpi_pm_timer(void)
{
    const struct header *fadt = acpi_table("FACP");
    uint64_t port = field(fadt, 76, 4);
    if (!port && field(fadt, 208, 1) == 1)
        port = field(fadt, 212, 8);
    return port <= UINT16_MAX - 3 ? (uint16_t)port : 0;
}
