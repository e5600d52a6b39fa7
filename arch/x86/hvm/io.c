/*
 * Where ports and device memory lead. The hypervisor's own ranges win; everything else is the device model's, or nobody's
 * in a domain without one. Ports are looked up in a table of 65,536 bytes, O(1).
 */
#include "hvm.h"

#define DEBUG_CONSOLE_PORT 0xe9u
#define DEBUG_EXIT_PORT 0xf4u
#define PIIX4_PM 0x80000b00u /* configuration address of 00:01.3 */
#define RESET_KEYBOARD 0xfeu /* command 0xfe to port 0x64 pulses the reset line */

struct model_ports {
    uint64_t (*read)(struct chipset *c, uint64_t now, unsigned offset, unsigned size);
    void (*write)(struct chipset *c, uint64_t now, unsigned offset, unsigned size, uint64_t value);
    uint16_t base, length; /* of the ports; the PM block's base follows the chipset */
    uint8_t offset;        /* of the first port, in the model's numbering */
    uint8_t part;
    bool looks;            /* a read changes no output and no deadline */
};

#define MODEL(name) \
    static uint64_t name##_in(struct chipset *c, uint64_t now, unsigned offset, unsigned size) \
    { \
        return name##_read(&c->name, now, offset, size); \
    } \
    static void name##_out(struct chipset *c, uint64_t now, unsigned offset, unsigned size, uint64_t value) \
    { \
        name##_write(&c->name, now, offset, size, value); \
    }
MODEL(vpic)
MODEL(vpit)
MODEL(rtc)
MODEL(pmtimer)
MODEL(uart)
#undef MODEL

static const struct model_ports model_ports[OWNER_COUNT] = {
    [OWNER_PIC_MASTER] = {vpic_in, vpic_out, 0x20, 2, 0, PART_PIC, false},
    [OWNER_PIC_SLAVE] = {vpic_in, vpic_out, 0xa0, 2, 2, PART_PIC, false},
    [OWNER_ELCR] = {vpic_in, vpic_out, 0x4d0, 2, 4, PART_PIC, true}, [OWNER_PIT] = {vpit_in, vpit_out, 0x40, 4, 0, PART_PIT, true},
    [OWNER_PORT61] = {vpit_in, vpit_out, 0x61, 1, 4, PART_PIT, true},
    [OWNER_RTC] = {rtc_in, rtc_out, 0x70, 4, 0, PART_RTC, false},
    [OWNER_PM] = {pmtimer_in, pmtimer_out, 0, 12, 0, PART_PM, true},
    [OWNER_UART] = {uart_in, uart_out, 0x3f8, 8, 0, PART_UART, false},
};

/* Is there anything to follow from a read that has brought its model up to date? */
static bool read_tells(const struct chipset *c, const struct model_ports *m, uint64_t now)
{
    return !m->looks || chipset_part_due(c, m->part, now);
}

/* The other ports that do not move; the first that fits. */
static const struct {
    uint16_t base, length;
    uint8_t owner;
    bool without_dm;
} other_ports[] = {
    {0xcf9, 1, OWNER_RESET_WATCH, false}, {0x64, 1, OWNER_RESET_WATCH, false}, {0x92, 1, OWNER_RESET_WATCH, false},
    {0xcf8, 4, OWNER_PCI_ADDRESS, false}, {0xcfc, 4, OWNER_PCI_DATA, false},
    {DEBUG_CONSOLE_PORT, 1, OWNER_DEBUG_CONSOLE, true}, {DEBUG_EXIT_PORT, 4, OWNER_DEBUG_EXIT, true},
};

/* Whose a port is where the PM block is not. */
static uint8_t fixed_owner(const struct domain *d, unsigned port)
{
    for (unsigned o = 0; o < OWNER_COUNT; o++)
        if (model_ports[o].base && port - model_ports[o].base < model_ports[o].length && (o != OWNER_UART || !d->has_dm))
            return (uint8_t)o;
    for (unsigned i = 0; i < sizeof(other_ports) / sizeof(other_ports[0]); i++)
        if (port - other_ports[i].base < other_ports[i].length && !(other_ports[i].without_dm && d->has_dm))
            return other_ports[i].owner;
    return OWNER_DM;
}

static void give_back(struct domain *d, unsigned base, unsigned length)
{
    for (unsigned port = base; port < base + length; port++)
        d->port_owner[port] = fixed_owner(d, port);
}

/* Other vCPUs look ports up meanwhile: no other port changes hands, not even for a moment. */
void io_move_pm(struct domain *d, unsigned from, unsigned to)
{
    if (from)
        give_back(d, from, model_ports[OWNER_PM].length);
    for (unsigned i = 0; to && i < model_ports[OWNER_PM].length; i++)
        d->port_owner[to + i] = i == 4 || i == 5 ? OWNER_PM_CONTROL : OWNER_PM;
}

static void own(struct domain *d, unsigned base, unsigned length, uint8_t owner)
{
    memset(&d->port_owner[base], owner, length);
}

/* All are OWNER_DM. As fixed_owner() has it: a model's come first, then the first of the others. */
void io_build_ports(struct domain *d)
{
    for (unsigned i = sizeof(other_ports) / sizeof(other_ports[0]); i-- > 0;)
        if (!(other_ports[i].without_dm && d->has_dm))
            own(d, other_ports[i].base, other_ports[i].length, other_ports[i].owner);
    for (unsigned o = 0; o < OWNER_COUNT; o++)
        if (model_ports[o].base && (o != OWNER_UART || !d->has_dm))
            own(d, model_ports[o].base, model_ports[o].length, (uint8_t)o);
    io_move_pm(d, 0, d->chipset.pm_base);
}
_Static_assert(OWNER_DM == 0, "a new domain's ports are all zero");

static enum emu_status model_access(struct vcpu *v, enum port_owner owner, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    const struct model_ports *m = &model_ports[owner];
    struct domain *d = v->domain;
    enum emu_status status = EMU_OK;
    unsigned offset;
    uint64_t now;

    spin_lock(&d->chipset.lock);
    now = vtime_master(&d->time);
    offset = port - (owner == OWNER_PM ? d->chipset.pm_base : m->base);
    if (owner == OWNER_UART && write)
        status = domain_console_make_room(v, now, offset, size);
    if (offset >= m->length || size > m->length - offset) /* across the region's edge: reaches no device */
        *value = all_ones(size);
    else if (write && status == EMU_OK)
        m->write(&d->chipset, now, m->offset + offset, size, *value);
    else if (!write)
        *value = m->read(&d->chipset, now, m->offset + offset, size);
    if (write && trace_on(TRACE_EMUL_PIT_START))
        trace_chipset_timers(&d->chipset, now, m->part);
    if (owner == OWNER_UART)
        domain_console_exchange(d, now);
    if (write || read_tells(&d->chipset, m, now))
        chipset_update(d, now, m->part);
    spin_unlock(&d->chipset.lock);
    return status;
}

static enum emu_status to_device_model(struct vcpu *v, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    struct access a = {.address = port, .value = *value, .count = 1, .size = (uint8_t)size, .write = write, .port = true};

    count_exit(v, METRONOME_EXIT_PORT_DM);
    if (v->domain->has_dm)
        return ioreq_access(v, &a, 0, false);
    if (!write)
        *value = all_ones(size);
    return EMU_OK;
}

/* The PM block follows the PIIX4's registers 0x40 (PMBA) and 0x80 (PMREGMISC, bit 0: enabled). */
static void snoop_pci_config(struct domain *d, uint16_t port, unsigned size, uint64_t value)
{
    struct chipset *c = &d->chipset;
    unsigned shift = (port & 3) * 8;
    uint32_t mask = (uint32_t)all_ones(size) << shift;

    spin_lock(&c->lock);
    if ((c->pci_address & ~0xfcu) == PIIX4_PM && (c->pci_address & 0xfc) == 0x40)
        c->pm_base_register = (c->pm_base_register & ~mask) | ((uint32_t)value << shift & mask);
    else if ((c->pci_address & ~0xfcu) == PIIX4_PM && (c->pci_address & 0xfc) == 0x80 && shift == 0)
        c->pm_enabled = value & 1;
    chipset_set_pm_base(d);
    spin_unlock(&c->lock);
}

#define PM_CONTROL_BYTES 2u
#define PM_CONTROL_SLP_EN 0x2000u

/* PM1a_CNT without device model: SCI_EN is always set, and S5 ends the domain (ACPI 4.8.3.2; _S5 says SLP_TYP 0). */
static void pm_control(struct domain *d, unsigned offset, unsigned size, bool write, uint64_t *value)
{
    if (offset + size > PM_CONTROL_BYTES) /* across its edge: reaches no device */
        *value = all_ones(size);
    else if (!write)
        *value = 1ull >> 8 * offset & all_ones(size);
    else if (*value << 8 * offset & PM_CONTROL_SLP_EN)
        domain_end(d, METRONOME_END_POWEROFF, 0, "powered off");
}

static bool resets(uint16_t port, uint64_t value)
{
    return port == 0x64 ? value == RESET_KEYBOARD : port == 0x92 ? value & 1 : (value & 6) == 6;
}

static enum emu_status watched_write(struct vcpu *v, enum port_owner owner, uint16_t port, unsigned size, uint64_t *value)
{
    struct domain *d = v->domain;

    if (owner == OWNER_PCI_ADDRESS && size == 4 && port == 0xcf8)
        d->chipset.pci_address = (uint32_t)*value;
    if (owner == OWNER_PCI_DATA && d->has_dm)
        snoop_pci_config(d, port, size, *value);
    if ((owner == OWNER_RESET_WATCH || port == 0xcf9) && size == 1 && resets(port, *value)) {
        d->reset_cause = port;
        if (!d->has_dm) {
            domain_request(d, ACTION_RESET);
            return EMU_OK;
        }
    }
    return to_device_model(v, port, size, true, value);
}

enum emu_status io_port(struct vcpu *v, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    struct domain *d = v->domain;
    enum port_owner owner = d->port_owner[port];

    if (model_ports[owner].read) {
        count_exit(v, METRONOME_EXIT_PORT);
        return model_access(v, owner, port, size, write, value);
    }
    if (owner == OWNER_DEBUG_CONSOLE && write) {
        count_exit(v, METRONOME_EXIT_PORT);
        return domain_console_put(v, (uint8_t)*value);
    }
    if (owner == OWNER_DEBUG_CONSOLE) { /* reads as its own number where there is one (Bochs) */
        *value = DEBUG_CONSOLE_PORT;
        return EMU_OK;
    }
    if (owner == OWNER_DEBUG_EXIT && write) {
        domain_end(d, METRONOME_END_EXIT, (uint32_t)*value, "debug exit %u", (unsigned)*value);
        return EMU_OK;
    }
    if (owner == OWNER_PM_CONTROL && !d->has_dm) {
        count_exit(v, METRONOME_EXIT_PORT);
        pm_control(d, port - d->chipset.pm_base - 4u, size, write, value);
        return EMU_OK;
    }
    return owner != OWNER_DM && write ? watched_write(v, owner, port, size, value)
                                      : to_device_model(v, port, size, write, value);
}

/* ---- Device memory ---- */

static void lapic_access(struct vcpu *v, unsigned offset, unsigned size, bool write, uint64_t *value)
{
    uint64_t now = vtime_tsc(&v->domain->time);

    count_exit(v, METRONOME_EXIT_MMIO_LAPIC);
    if (!write) {
        *value = vlapic_read(&v->vlapic, now, offset, size);
        return;
    }
    if (size == 4)
        inject_ended(v, offset, now);
    vlapic_write(&v->vlapic, now, offset, size, *value);
    if (trace_on(TRACE_EMUL_LAPIC_START))
        trace_apic_timer(v, offset, now);
    inject_sent(v, offset, *value, now);
    hvm_breathe();
    fabric_take_apic_output(v);
    hvm_breathe();
}

static void ioapic_access(struct domain *d, unsigned offset, unsigned size, bool write, uint64_t *value)
{
    struct chipset *c = &d->chipset;
    uint64_t now;
    bool due;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    due = vioapic_deadline(&c->vioapic) <= now;
    if (write)
        vioapic_write(&c->vioapic, now, offset, size, *value);
    else
        *value = vioapic_read(&c->vioapic, now, offset, size);
    if (write || due)
        chipset_update(d, now, PART_IOAPIC);
    spin_unlock(&c->lock);
}

/* A read of the HPET has no side effects: its state is only locked against a write that tears it. */
static void hpet_access(struct domain *d, unsigned offset, unsigned size, bool write, uint64_t *value)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    if (write) {
        hpet_write(&c->hpet, now, offset, size, *value);
        if (trace_on(TRACE_EMUL_HPET_START))
            trace_hpet_timers(c, offset);
        chipset_update(d, now, PART_HPET | PART_PIT | PART_RTC); /* whose pins it may take over */
    } else {
        *value = hpet_read(&c->hpet, now, offset, size);
    }
    spin_unlock(&c->lock);
}

static void test_page_access(struct domain *d, unsigned offset, unsigned size, bool write, uint64_t *value)
{
    if (write)
        memcpy(d->test_page + offset, value, size);
    else
        memcpy(value, d->test_page + offset, size);
}

static bool lapic_page(const struct vcpu *v, uint64_t page)
{
    return page == vlapic_base(&v->vlapic) && vlapic_mmio_enabled(&v->vlapic);
}

bool io_is_ours(const struct vcpu *v, uint64_t gpa)
{
    uint64_t page = gpa & ~(PAGE_SIZE - 1);

    return lapic_page(v, page) || page == IOAPIC_BASE || page == HPET_BASE || (page == TEST_PAGE_BASE && v->domain->test_page);
}

enum emu_status io_mmio(struct vcpu *v, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    uint64_t page = gpa & ~(PAGE_SIZE - 1);
    unsigned offset = gpa & (PAGE_SIZE - 1);
    struct domain *d = v->domain;
    struct access a = {.address = gpa, .value = *value, .count = 1, .size = (uint8_t)size, .write = write};

    if (lapic_page(v, page)) {
        lapic_access(v, offset, size, write, value);
        return EMU_OK;
    }
    if (page == IOAPIC_BASE || page == HPET_BASE) {
        count_exit(v, page == HPET_BASE ? METRONOME_EXIT_MMIO_HPET : METRONOME_EXIT_MMIO_IOAPIC);
        (page == HPET_BASE ? hpet_access : ioapic_access)(d, offset, size, write, value);
        return EMU_OK;
    }
    if (page == TEST_PAGE_BASE && d->test_page) {
        test_page_access(d, offset, size, write, value);
        return EMU_OK;
    }
    if (!v->io.logged && !v->io.further)
        count_exit(v, METRONOME_EXIT_MMIO_DM);
    if (write && domain_ram(d, gpa, false)) /* read-only memory: the write vanishes */
        return EMU_OK;
    if (d->has_dm && !(write && ioreq_posted_write(d, gpa, size, *value)))
        return ioreq_access(v, &a, 0, false);
    if (!write)
        *value = all_ones(size);
    return EMU_OK;
}
