/* The MADT lists the processors and APICs that there are (ACPI 6.4, 5.2.12). */
#include "smp.h"

struct madt {
    uint8_t header[4];
    uint32_t length;
    uint8_t rest[28];
    uint32_t lapic, flags;
    uint8_t entries[];
} __attribute__((packed));

struct entry {
    uint8_t type, length;
    union {
        struct {
            uint8_t processor, id;
            uint32_t flags;
        } __attribute__((packed)) lapic;
        struct {
            uint8_t id, zero;
            uint32_t address, base;
        } __attribute__((packed)) ioapic;
        struct {
            uint8_t bus, irq;
            uint32_t gsi;
            uint16_t flags;
        } __attribute__((packed)) override;
        struct {
            uint8_t processor;
            uint16_t flags;
            uint8_t lint;
        } __attribute__((packed)) nmi;
    };
} __attribute__((packed));

enum { LOCAL_APIC = 0, IO_APIC = 1, OVERRIDE = 2, LOCAL_NMI = 4, TYPES };
#define ACTIVE_HIGH 1u
#define LEVEL_TRIGGERED 0xcu

static unsigned seen[TYPES], other_types, wrong_ids, wrong_ioapics, wrong_nmis;
static uint64_t ids;
static uint32_t gsi_of_pit, gsi_of_sci, sci_flags;

static void look_at(const struct entry *e)
{
    if (e->type >= TYPES)
        other_types++;
    else
        seen[e->type]++;
    switch (e->type) {
    case LOCAL_APIC:
        if (e->lapic.id < 64 && e->lapic.flags == 1 && !(ids >> e->lapic.id & 1))
            ids |= 1ull << e->lapic.id;
        else
            wrong_ids++;
        break;
    case IO_APIC:
        wrong_ioapics += e->ioapic.address != IOAPIC || e->ioapic.base || e->ioapic.id != (ioapic_read(0) >> 24 & 15);
        break;
    case OVERRIDE:
        if (e->override.irq == 0)
            gsi_of_pit = e->override.gsi;
        if (e->override.irq == pm.sci)
            gsi_of_sci = e->override.gsi, sci_flags = e->override.flags;
        break;
    case LOCAL_NMI:
        wrong_nmis += e->nmi.processor != 0xff || e->nmi.lint != 1;
        break;
    }
}

void test_madt(void)
{
    const struct madt *m = acpi_table("APIC");
    const struct entry *e;

    if (!check(m != NULL, "MADT: there is one", "none"))
        return;
    for (e = (const void *)m->entries; (const uint8_t *)e < (const uint8_t *)m + m->length; e = (const void *)((const uint8_t *)e + e->length))
        look_at(e);
    check(m->lapic == LAPIC && m->flags == 1 && !other_types, "MADT: what it says of all", "%x, %x, %u unknown entries", m->lapic,
          m->flags, other_types);
    check(ids == all_cpus() && seen[LOCAL_APIC] == cpu_count && !wrong_ids, "MADT: local APICs", "%u, ids %lx, %u wrong",
          seen[LOCAL_APIC], ids, wrong_ids);
    check(seen[IO_APIC] == 1 && !wrong_ioapics, "MADT: I/O APIC", "%u, %u wrong", seen[IO_APIC], wrong_ioapics);
    check(gsi_of_pit == 2, "MADT: the PIT's pin", "%u", gsi_of_pit);
    check(gsi_of_sci == pm.sci && sci_flags == (LEVEL_TRIGGERED | ACTIVE_HIGH), "MADT: the SCI", "%u, %x", gsi_of_sci, sci_flags);
    check(seen[LOCAL_NMI] == 1 && !wrong_nmis, "MADT: NMIs", "%u, %u wrong", seen[LOCAL_NMI], wrong_nmis);
}
