#include "acpi/tables.h"
#include "device.h"
#include "string.h"

/* Where the platform has its parts; the same numbers as in module.asl. */
#define PM_BASE 0x600u
#define SCI_GSI 9u
#define IOAPIC_GPA 0xfec00000u
#define LAPIC_GPA 0xfee00000u
#define HPET_GPA 0xfed00000u
#define HPET_ID 0x8086a701u /* low half of its capabilities: vendor, legacy routes, 64-bit counter, 8 comparators, revision */

/* Every table is a run of naturally sized little-endian fields; ACPI lets them be unaligned, so the structs are packed. */
#define PACKED __attribute__((packed))

struct header {
    uint32_t signature, length;
    uint8_t revision, checksum, oem_id[6], oem_table_id[8];
    uint32_t oem_revision, creator_id, creator_revision;
} PACKED;
ct_assert(sizeof(struct header) == 36);

/* Generic address structure (ACPI 6.4, 5.2.3.2). */
struct gas {
    uint8_t space, bits, offset, access;
    uint64_t address;
} PACKED;
enum { SPACE_MEMORY, SPACE_IO };

/* Fixed ACPI description table, ACPI 4.0, 5.2.9. */
struct fadt {
    struct header h;
    uint32_t facs, dsdt;
    uint8_t model, profile;
    uint16_t sci;
    uint32_t smi_cmd;
    uint8_t enable, disable, s4bios, pstate;
    uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
    uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_flags;
    uint8_t zero;
    uint32_t flags;
    struct gas reset;
    uint8_t reset_value, zero2[3];
    uint64_t x_facs, x_dsdt;
    struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1;
} PACKED;
ct_assert(sizeof(struct fadt) == 244);
enum { BOOT_LEGACY_DEVICES = 1, BOOT_NO_VGA = 4 };
enum { FLAG_WBINVD = 1, FLAG_PROC_C1 = 4, FLAG_NO_SLEEP_BUTTON = 0x20 };

struct facs {
    uint32_t signature, length, hardware, waking, lock, flags;
    uint64_t x_waking;
    uint8_t version, zero[31];
} PACKED;
ct_assert(sizeof(struct facs) == 64);

struct madt {
    struct header h;
    uint32_t lapic, flags;
} PACKED;
enum { MADT_PCAT_COMPAT = 1 };
struct madt_lapic {
    uint8_t type, length, processor, apic_id;
    uint32_t flags;
} PACKED;
struct madt_x2apic {
    uint8_t type, length;
    uint16_t zero;
    uint32_t apic_id, flags, processor;
} PACKED;
struct madt_ioapic {
    uint8_t type, length, id, zero;
    uint32_t address, gsi_base;
} PACKED;
struct madt_override {
    uint8_t type, length, bus, irq;
    uint32_t gsi;
    uint16_t flags;
} PACKED;
struct madt_nmi {
    uint8_t type, length, processor;
    uint16_t flags;
    uint8_t lint;
} PACKED;
enum { POLARITY_HIGH = 1, TRIGGER_EDGE = 1 << 2, TRIGGER_LEVEL = 3 << 2 };

struct hpet_table {
    struct header h;
    uint32_t id;
    struct gas base;
    uint8_t number;
    uint16_t min_tick;
    uint8_t protection;
} PACKED;
ct_assert(sizeof(struct hpet_table) == 56);

struct rsdp {
    uint64_t signature;
    uint8_t checksum, oem_id[6], revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t checksum2, zero[3];
} PACKED;
ct_assert(sizeof(struct rsdp) == ACPI_RSDP_BYTES);

/* The area that is being filled. */
struct area {
    uint8_t *bytes;
    uint32_t size, used;
    uint64_t gpa;
    bool full;
    void (*pause)(void);
};

/* Appends bytes; where they went, or NULL. */
static uint8_t *append(struct area *a, const void *from, uint32_t n)
{
    uint8_t *to = a->bytes + a->used;
    if (a->pause)
        a->pause();
    if (a->full || n > a->size - a->used) {
        a->full = true;
        return NULL;
    }
    memcpy(to, from, n);
    a->used += n;
    return to;
}

static void align(struct area *a, uint32_t to)
{
    uint32_t used = (a->used + to - 1) & ~(to - 1);
    if (used > a->size)
        a->full = true;
    else
        a->used = used;
}

/* Eight bytes at a time, as four sums of 16 bits: tables are far shorter than what makes them overflow. */
static uint8_t checksum(const uint8_t *p, uint32_t n)
{
    const uint64_t even = 0x00ff00ff00ff00ff;
    uint64_t sums = 0, word;
    for (; n >= sizeof(word); p += sizeof(word), n -= (uint32_t)sizeof(word)) {
        __builtin_memcpy(&word, p, sizeof(word));
        sums += (word & even) + (word >> 8 & even);
    }
    for (; n; n--)
        sums += *p++;
    sums += sums >> 32;
    return (uint8_t)-(sums + (sums >> 16));
}

static struct header header(const char signature[4], uint8_t revision)
{
    struct header h = {.revision = revision, .oem_id = "METRO", .oem_table_id = "MODULE", .oem_revision = 1, .creator_revision = 1};
    memcpy(&h.signature, signature, 4);
    memcpy(&h.creator_id, "MTRN", 4);
    return h;
}

/* Finishes the table from offset `start` to the end of what is used: length and checksum; its gpa. */
static uint64_t seal(struct area *a, uint32_t start)
{
    struct header h;
    if (a->full)
        return 0;
    memcpy(&h, a->bytes + start, sizeof(h));
    h.length = a->used - start;
    h.checksum = 0;
    memcpy(a->bytes + start, &h, sizeof(h));
    a->bytes[start + offsetof(struct header, checksum)] = checksum(a->bytes + start, h.length);
    align(a, 64);
    return a->gpa + start;
}

static uint64_t put_facs(struct area *a)
{
    struct facs f = {.length = sizeof(f), .version = 2};
    uint64_t gpa = a->gpa + a->used;
    memcpy(&f.signature, "FACS", 4);
    append(a, &f, sizeof(f));
    return gpa;
}

static uint64_t put_dsdt(struct area *a)
{
    uint32_t start = a->used;
    append(a, acpi_module_dsdt, (uint32_t)(acpi_module_dsdt_end - acpi_module_dsdt));
    return seal(a, start);
}

static struct gas io_block(uint32_t port, uint8_t bytes)
{
    return (struct gas){SPACE_IO, (uint8_t)(8 * bytes), 0, bytes == 2 ? 2 : 3, port};
}

/* No SMI command port: the platform is in ACPI mode from the start. No reset register. */
static uint64_t put_fadt(struct area *a, uint64_t facs, uint64_t dsdt)
{
    uint32_t start = a->used;
    struct fadt f = {
        .h = header("FACP", 4), .facs = (uint32_t)facs, .dsdt = (uint32_t)dsdt, .x_facs = 0, .x_dsdt = dsdt,
        .profile = 1 /* desktop */, .sci = SCI_GSI,
        .pm1a_evt = PM_BASE, .pm1_evt_len = 4, .x_pm1a_evt = io_block(PM_BASE, 4),
        .pm1a_cnt = PM_BASE + 4, .pm1_cnt_len = 2, .x_pm1a_cnt = io_block(PM_BASE + 4, 2),
        .pm_tmr = PM_BASE + 8, .pm_tmr_len = 4, .x_pm_tmr = io_block(PM_BASE + 8, 4),
        .c2_latency = 0xfff, .c3_latency = 0xfff, /* neither C2 nor C3 */
        .day_alarm = 0x0d, .month_alarm = 0x7e, .century = 0x32,
        .boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
        .flags = FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_SLEEP_BUTTON,
    };
    append(a, &f, sizeof(f));
    return seal(a, start);
}

/* One local APIC per vCPU, its id the vCPU's number; id 0xff and above only exist in x2APIC form. */
static void put_processors(struct area *a, unsigned vcpus)
{
    for (unsigned i = 0; i < vcpus && !a->full; i++) {
        struct madt_lapic x = {0, sizeof(x), (uint8_t)i, (uint8_t)i, 1};
        struct madt_x2apic x2 = {9, sizeof(x2), 0, i, 1, i};
        if (i < 0xff)
            append(a, &x, sizeof(x));
        else
            append(a, &x2, sizeof(x2));
    }
}

static uint64_t put_madt(struct area *a, unsigned vcpus)
{
    uint32_t start = a->used;
    struct madt m = {header("APIC", 3), LAPIC_GPA, MADT_PCAT_COMPAT};
    struct madt_ioapic io = {1, sizeof(io), 0, 0, IOAPIC_GPA, 0};
    struct madt_override overrides[] = {
        {2, sizeof(overrides[0]), 0, 0, 2, 0}, /* the PIT, as the bus has it: edge, high */
        {2, sizeof(overrides[0]), 0, SCI_GSI, SCI_GSI, POLARITY_HIGH | TRIGGER_LEVEL},
    };
    struct madt_nmi nmi = {4, sizeof(nmi), 0xff /* all */, POLARITY_HIGH | TRIGGER_EDGE, 1};
    append(a, &m, sizeof(m));
    put_processors(a, vcpus);
    append(a, &io, sizeof(io));
    append(a, overrides, sizeof(overrides));
    append(a, &nmi, sizeof(nmi));
    return seal(a, start);
}

static uint64_t put_hpet(struct area *a)
{
    uint32_t start = a->used;
    struct hpet_table t = {.h = header("HPET", 1), .id = HPET_ID, .base = {SPACE_MEMORY, 64, 0, 0, HPET_GPA}, .min_tick = 128};
    append(a, &t, sizeof(t));
    return seal(a, start);
}

bool acpi_build(uint8_t *bytes, uint32_t size, uint64_t gpa, unsigned vcpus, uint8_t rsdp[ACPI_RSDP_BYTES], void (*pause)(void))
{
    struct area a = {bytes, size, 0, gpa, false, pause};
    struct rsdp r = {.oem_id = "METRO", .revision = 2, .length = sizeof(r)};
    struct header xsdt = header("XSDT", 1);
    uint64_t facs = put_facs(&a), dsdt = put_dsdt(&a);
    uint64_t tables[] = {put_fadt(&a, facs, dsdt), put_madt(&a, vcpus), put_hpet(&a)};
    uint32_t start = a.used;
    append(&a, &xsdt, sizeof(xsdt));
    append(&a, tables, sizeof(tables));
    r.xsdt = seal(&a, start);
    memcpy(&r.signature, "RSD PTR ", 8);
    memcpy(rsdp, &r, sizeof(r));
    rsdp[offsetof(struct rsdp, checksum)] = checksum(rsdp, 20);
    rsdp[offsetof(struct rsdp, checksum2)] = checksum(rsdp, sizeof(r));
    return !a.full;
}
