/* libxengnttab: there are no grants; QEMU goes on without. */
#include <errno.h>
#include <stddef.h>
#include <xengnttab.h>

static int refuse(void)
{
    errno = ENOSYS;
    return -1;
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    refuse();
    return NULL;
}

int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t domain, uint32_t *refs, int prot)
{
    (void)xgt, (void)count, (void)domain, (void)refs, (void)prot;
    refuse();
    return NULL;
}

int xengnttab_unmap(xengnttab_handle *xgt, void *address, uint32_t count)
{
    (void)xgt, (void)address, (void)count;
    return refuse();
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
    (void)xgt, (void)count;
    return refuse();
}

int xengnttab_grant_copy(xengnttab_handle *xgt, uint32_t count, xengnttab_grant_copy_segment_t *segments)
{
    (void)xgt, (void)count, (void)segments;
    return refuse();
}
