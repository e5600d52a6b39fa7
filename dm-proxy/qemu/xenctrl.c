/*
 * libxenctrl: memory for video and option ROMs, ACPI sleep; PCI pass-through is refused.
 */
#include <errno.h>
#include <xenctrl.h>
#include <xen/hvm/params.h>
#include <xendevicemodel.h>
#include <xentoolcore.h>

#include "dm.h"

struct xc_interface_core {
    int unused;
};

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger, unsigned flags)
{
    static struct xc_interface_core handle;

    (void)logger, (void)dombuild_logger, (void)flags;
    dm_attach();
    return &handle;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

/* QEMU names every page; they are always one run. */
int xc_domain_populate_physmap_exact(xc_interface *xch, uint32_t domain, unsigned long extents, unsigned int order,
                                     unsigned int flags, xen_pfn_t *gfns)
{
    (void)xch, (void)domain, (void)flags;
    if (!extents || order || gfns[extents - 1] - gfns[0] != extents - 1) {
        errno = EINVAL;
        return -1;
    }
    return memory_populate(gfns[0], extents);
}

int xc_domain_shutdown(xc_interface *xch, uint32_t domain, int reason)
{
    (void)xch;
    return xendevicemodel_shutdown(NULL, (domid_t)domain, (unsigned)reason);
}

int xc_set_hvm_param(xc_interface *xch, uint32_t domain, int param, unsigned long value)
{
    (void)xch, (void)domain;
    if (param == HVM_PARAM_ACPI_S_STATE)
        dm_send(METRONOME_DM_SLEEP, value, 0, 0, 0);
    return 0;
}

int xc_get_hvm_param(xc_interface *xch, uint32_t domain, int param, unsigned long *value)
{
    (void)xch, (void)domain, (void)param, (void)value;
    errno = ENOSYS;
    return -1;
}

/* No PCI pass-through: nothing here has such a device, and QEMU reports the error. */
#define REFUSED(name, ...) \
    int name(__VA_ARGS__) \
    { \
        errno = ENOSYS; \
        return -1; \
    }

#pragma GCC diagnostic ignored "-Wunused-parameter"
REFUSED(xc_domain_bind_pt_pci_irq, xc_interface *x, uint32_t d, uint8_t irq, uint8_t bus, uint8_t device, uint8_t intx)
REFUSED(xc_domain_unbind_pt_irq, xc_interface *x, uint32_t d, uint8_t irq, uint8_t type, uint8_t bus, uint8_t device,
        uint8_t intx, uint8_t isa)
REFUSED(xc_domain_update_msi_irq, xc_interface *x, uint32_t d, uint32_t vector, uint32_t pirq, uint32_t flags,
        uint64_t table)
REFUSED(xc_domain_unbind_msi_irq, xc_interface *x, uint32_t d, uint32_t vector, uint32_t pirq, uint32_t flags)
REFUSED(xc_domain_iomem_permission, xc_interface *x, uint32_t d, unsigned long first, unsigned long count,
        uint8_t allow)
REFUSED(xc_domain_memory_mapping, xc_interface *x, uint32_t d, unsigned long gfn, unsigned long mfn,
        unsigned long count, uint32_t add)
REFUSED(xc_domain_ioport_mapping, xc_interface *x, uint32_t d, uint32_t gport, uint32_t mport, uint32_t count,
        uint32_t add)
REFUSED(xc_physdev_map_pirq, xc_interface *x, uint32_t d, int index, int *pirq)
REFUSED(xc_physdev_map_pirq_msi, xc_interface *x, uint32_t d, int index, int *pirq, int devfn, int bus, int entry,
        uint64_t table)
REFUSED(xc_physdev_unmap_pirq, xc_interface *x, uint32_t d, int pirq)
REFUSED(xentoolcore_restrict_all, domid_t d)
