/*
 * libxenforeignmemory: QEMU's view of guest memory, as mappings of the slot's memory. Each is one contiguous range of
 * addresses that QEMU may unmap as a whole; a page that has no backing stays inaccessible and is reported in err[].
 */
#include <errno.h>
#include <sys/mman.h>
#include <xenforeignmemory.h>
#include <xen/memory.h>

#include "dm.h"

struct xenforeignmemory_handle {
    int unused;
};

struct xenforeignmemory_resource_handle {
    void *address;
    size_t bytes;
};

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger, unsigned flags)
{
    static xenforeignmemory_handle handle;

    (void)logger, (void)flags;
    dm_attach();
    return &handle;
}

int xenforeignmemory_close(xenforeignmemory_handle *fmem)
{
    (void)fmem;
    return 0;
}

static bool map_run(uint8_t *at, size_t pages, int prot, uint64_t offset)
{
    return mmap(at, pages * PAGE_BYTES, prot, MAP_SHARED | MAP_FIXED, dm.options.mem_fd, (off_t)offset) != MAP_FAILED;
}

/* Length of the run of backed, contiguous pages that begins at gfns[0]; 0: not backed. */
static size_t run_length(const xen_pfn_t *gfns, size_t pages, uint64_t *offset)
{
    uint64_t next;
    size_t n;

    if (!memory_of_qemu(gfns[0], offset))
        return 0;
    for (n = 1; n < pages && memory_of_qemu(gfns[n], &next) && next == *offset + n * PAGE_BYTES; n++)
        ;
    return n;
}

/* Fills the reserved range; number of pages that could not be mapped. */
static size_t map_pages(uint8_t *at, int prot, size_t pages, const xen_pfn_t *gfns, int *err)
{
    size_t missing = 0, run;
    uint64_t offset;

    for (size_t i = 0; i < pages; i += run) {
        bool mapped = false;
        run = run_length(gfns + i, pages - i, &offset);
        if (run)
            mapped = map_run(at + i * PAGE_BYTES, run, prot, offset);
        else
            run = 1;
        for (size_t j = 0; j < run; j++)
            if (err)
                err[i + j] = mapped ? 0 : -EINVAL;
        if (!mapped)
            missing += run;
    }
    return missing;
}

void *xenforeignmemory_map2(xenforeignmemory_handle *fmem, uint32_t domain, void *address, int prot, int flags,
                            size_t pages, const xen_pfn_t gfns[], int err[])
{
    int fixed = flags & MAP_FIXED;
    uint8_t *at;

    (void)fmem, (void)domain;
    at = mmap(address, pages * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (map_pages(at, prot, pages, gfns, err) && !err) {
        munmap(at, pages * PAGE_BYTES);
        errno = EINVAL;
        return NULL;
    }
    return at;
}

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t domain, int prot, size_t pages,
                           const xen_pfn_t gfns[], int err[])
{
    return xenforeignmemory_map2(fmem, domain, NULL, prot, 0, pages, gfns, err);
}

int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *address, size_t pages)
{
    (void)fmem;
    return munmap(address, pages * PAGE_BYTES);
}

/* The request pages: QEMU wants the one of posted writes first. */
xenforeignmemory_resource_handle *xenforeignmemory_map_resource(xenforeignmemory_handle *fmem, domid_t domain,
                                                                unsigned int type, unsigned int id, unsigned long frame,
                                                                unsigned long frames, void **address, int prot,
                                                                int flags)
{
    static const uint64_t offsets[] = {METRONOME_DOMAIN_BUFIOREQ, METRONOME_DOMAIN_IOREQ};
    static struct xenforeignmemory_resource_handle handle;
    uint8_t *at;

    (void)fmem, (void)domain, (void)id, (void)flags;
    if (type != XENMEM_resource_ioreq_server || frame != 0 || frames != 2) {
        errno = EINVAL;
        return NULL;
    }
    at = mmap(*address, 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || !map_run(at, 1, prot, offsets[0]) || !map_run(at + PAGE_BYTES, 1, prot, offsets[1]))
        return NULL;
    handle.address = *address = at;
    handle.bytes = 2 * PAGE_BYTES;
    return &handle;
}

int xenforeignmemory_unmap_resource(xenforeignmemory_handle *fmem, xenforeignmemory_resource_handle *resource)
{
    (void)fmem;
    return munmap(resource->address, resource->bytes);
}
