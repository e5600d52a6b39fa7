/*
 * libxendevicemodel: interrupts, routes, video memory and the life of the domain, as commands in the slot's ring.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xendevicemodel.h>
#include <xen/sched.h>

#include "dm.h"
#include "evtchn.h"

#define SCI_IRQ 9
/* PIT, cascade and RTC are the hypervisor's: QEMU's own RTC must not be heard. */
#define HYPERVISOR_IRQS (1u << 0 | 1u << 2 | 1u << 8)
#define PCI_LINKS 4u

struct xendevicemodel_handle {
    int unused;
};

static bool ready_sent;

static int fail(int error)
{
    errno = error;
    return -1;
}

xendevicemodel_handle *xendevicemodel_open(struct xentoollog_logger *logger, unsigned int flags)
{
    static xendevicemodel_handle handle;

    (void)logger, (void)flags;
    dm_attach();
    return &handle;
}

int xendevicemodel_close(xendevicemodel_handle *dmod)
{
    (void)dmod;
    return 0;
}

/* Interrupts. */

static void send_isa_irq(unsigned irq, unsigned level)
{
    if (irq == SCI_IRQ)
        dm_send(METRONOME_DM_SCI, level, 0, 0, 0);
    else
        dm_send(METRONOME_DM_SET_ISA_IRQ, irq, level, 0, 0);
}

/* QEMU reports levels over and over: only changes go to the hypervisor. */
int xendevicemodel_set_isa_irq_level(xendevicemodel_handle *dmod, domid_t domain, uint8_t irq, unsigned int level)
{
    uint16_t bit = (uint16_t)(1u << (irq & 15));

    (void)dmod, (void)domain;
    if (irq > 15)
        return fail(EINVAL);
    if ((bit & HYPERVISOR_IRQS) || !(dm.kept->isa_levels & bit) == !level)
        return 0;
    dm.kept->isa_levels ^= bit;
    send_isa_irq(irq, level != 0);
    return 0;
}

int xendevicemodel_set_pci_intx_level(xendevicemodel_handle *dmod, domid_t domain, uint16_t segment, uint8_t bus,
                                      uint8_t device, uint8_t pin, unsigned int level)
{
    uint8_t bit = (uint8_t)(1u << (pin & 3));

    (void)dmod, (void)domain;
    if (segment || bus || device > 31 || pin > 3)
        return fail(EINVAL);
    if (!(dm.kept->intx_levels[device] & bit) == !level)
        return 0;
    dm.kept->intx_levels[device] ^= bit;
    dm_send(METRONOME_DM_SET_PCI_INTX, device, pin, level != 0, 0);
    return 0;
}

int xendevicemodel_set_pci_link_route(xendevicemodel_handle *dmod, domid_t domain, uint8_t link, uint8_t irq)
{
    (void)dmod, (void)domain;
    if (link >= PCI_LINKS || irq > 15)
        return fail(EINVAL);
    dm_send(METRONOME_DM_SET_PCI_LINK, link, irq, 0, 0);
    return 0;
}

int xendevicemodel_inject_msi(xendevicemodel_handle *dmod, domid_t domain, uint64_t address, uint32_t data)
{
    (void)dmod, (void)domain;
    dm_send(METRONOME_DM_MSI, address, data, 0, 0);
    return 0;
}

/* The request server: there is one, and it is sent whatever the hypervisor does not emulate. */

int xendevicemodel_create_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, int buffered, ioservid_t *id)
{
    (void)dmod, (void)domain, (void)buffered;
    for (unsigned vcpu = 0; vcpu < METRONOME_MAX_VCPUS; vcpu++)
        dm.ioreq->vcpu[vcpu].vp_eport = VCPU_PORT(vcpu); /* QEMU reads here which port to bind */
    *id = 0;
    return 0;
}

int xendevicemodel_get_ioreq_server_info(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id,
                                         xen_pfn_t *ioreq_gfn, xen_pfn_t *bufioreq_gfn, evtchn_port_t *port)
{
    (void)dmod, (void)domain, (void)id;
    if (ioreq_gfn || bufioreq_gfn) /* they have no guest page: QEMU maps them as a resource */
        return fail(EOPNOTSUPP);
    if (port)
        *port = BUFFERED_PORT;
    return 0;
}

int xendevicemodel_map_io_range_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id, int is_mmio,
                                                uint64_t start, uint64_t end)
{
    (void)dmod, (void)domain, (void)id;
    if (is_mmio)
        memory_section_added(start, end);
    return 0;
}

int xendevicemodel_unmap_io_range_from_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id,
                                                    int is_mmio, uint64_t start, uint64_t end)
{
    (void)dmod, (void)domain, (void)id;
    if (is_mmio)
        memory_section_removed(start, end);
    return 0;
}

int xendevicemodel_map_pcidev_to_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id,
                                              uint16_t segment, uint8_t bus, uint8_t device, uint8_t function)
{
    (void)dmod, (void)domain, (void)id, (void)segment, (void)bus, (void)device, (void)function;
    return 0;
}

int xendevicemodel_unmap_pcidev_from_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id,
                                                  uint16_t segment, uint8_t bus, uint8_t device, uint8_t function)
{
    return xendevicemodel_map_pcidev_to_ioreq_server(dmod, domain, id, segment, bus, device, function);
}

int xendevicemodel_destroy_ioreq_server(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id)
{
    (void)dmod, (void)domain, (void)id;
    return 0;
}

/*
 * QEMU enables its server twice: early, before it has devices or listens, and when the machine runs. Only the second
 * means ready. Later ones come from "cont": the daemon says so that a reset of its own is over; where there was none, the
 * hypervisor ignores it.
 */
int xendevicemodel_set_ioreq_server_state(xendevicemodel_handle *dmod, domid_t domain, ioservid_t id, int enabled)
{
    (void)dmod, (void)domain, (void)id;
    if (!enabled || !dm_ports_bound())
        return 0;
    dm_send(ready_sent ? METRONOME_DM_RESET_DONE : METRONOME_DM_READY, 0, 0, 0, 0);
    ready_sent = true;
    return 0;
}

/* Memory. */

int xendevicemodel_relocate_memory(xendevicemodel_handle *dmod, domid_t domain, uint32_t pages, uint64_t from,
                                   uint64_t to)
{
    (void)dmod, (void)domain;
    return memory_relocate(from, to, pages);
}

/* ENODATA tells QEMU to redraw everything. */
int xendevicemodel_track_dirty_vram(xendevicemodel_handle *dmod, domid_t domain, uint64_t gfn, uint32_t pages,
                                    unsigned long *bitmap)
{
    (void)dmod, (void)domain;
    if (!pages)
        return 0;
    if (pages > METRONOME_DOMAIN_DIRTY_BYTES * 8 || dm_ask(METRONOME_DM_DIRTY, gfn, pages, NULL))
        return fail(ENODATA);
    memcpy(bitmap, dm.base + METRONOME_DOMAIN_DIRTY, (pages + 63) / 64 * sizeof *bitmap);
    return 0;
}

int xendevicemodel_modified_memory(xendevicemodel_handle *dmod, domid_t domain, uint64_t gfn, uint32_t pages)
{
    (void)dmod, (void)domain, (void)gfn, (void)pages;
    return 0;
}

int xendevicemodel_set_mem_type(xendevicemodel_handle *dmod, domid_t domain, hvmmem_type_t type, uint64_t gfn,
                                uint32_t pages)
{
    (void)dmod, (void)domain, (void)type, (void)gfn, (void)pages;
    return 0;
}

int xendevicemodel_pin_memory_cacheattr(xendevicemodel_handle *dmod, domid_t domain, uint64_t start, uint64_t end,
                                        uint32_t type)
{
    (void)dmod, (void)domain, (void)start, (void)end, (void)type;
    return 0;
}

/* The end. */

static const uint32_t reasons[] = {
    [SHUTDOWN_poweroff] = METRONOME_SHUTDOWN_POWEROFF,
    [SHUTDOWN_reboot] = METRONOME_SHUTDOWN_REBOOT,
    [SHUTDOWN_suspend] = METRONOME_SHUTDOWN_SUSPEND,
    [SHUTDOWN_crash] = METRONOME_SHUTDOWN_CRASH,
};

/* QEMU resets its devices, calls this, and only then answers the request that caused it: the end of it is in evtchn.c.
 */
int xendevicemodel_shutdown(xendevicemodel_handle *dmod, domid_t domain, unsigned int reason)
{
    (void)dmod, (void)domain;
    if (reason >= sizeof reasons / sizeof reasons[0])
        return fail(EINVAL);
    dm_send(METRONOME_DM_SHUTDOWN, reasons[reason], 0, 0, 0);
    if (reason == SHUTDOWN_reboot)
        dm_reset_follows();
    return 0;
}
