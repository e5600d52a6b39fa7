/* What a device model answers: single accesses, strings, writes that need no answer; and a disk's DMA until its interrupt. */
#include "bench.h"

#define NO_DEVICES 0x300 /* a port that no hypervisor keeps for itself, or passes through */
#define STRING_BYTES 512u
#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define HOST_BRIDGE 0x80000000u
#define NOBODYS 0xf1000000ul /* behind the PCI devices' memory */
#define VGA 0xa0000ul

static uint8_t buffer[STRING_BYTES] __attribute__((aligned(4096)));
static volatile uint32_t sink;

static void rep_insb(uint16_t port, void *to, size_t n)
{
    __asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

static void rep_outsb(uint16_t port, const void *from, size_t n)
{
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}

TIMED(take_in, inb(NO_DEVICES))
TIMED(take_out, outb(NO_DEVICES, 0))
TIMED(take_config, inl(CONFIG_DATA))
TIMED(take_insb, rep_insb(NO_DEVICES, buffer, STRING_BYTES))
TIMED(take_outsb, rep_outsb(NO_DEVICES, buffer, STRING_BYTES))
TIMED(take_mmio_read, sink = mmio_read(NOBODYS))
TIMED(take_mmio_write, mmio_write(NOBODYS, 0))
TIMED(take_movs, memcpy((void *)NOBODYS, buffer, 64))
TIMED(take_vga_write, mmio_write(VGA, 0))

static const struct operation requests[] = {
    {"device model: port read", take_in, NULL, NULL},
    {"device model: port write", take_out, NULL, NULL},
    {"device model: PCI configuration read", take_config, NULL, NULL},
    {"device model: REP INSB, 512 bytes", take_insb, NULL, NULL},
    {"device model: REP OUTSB, 512 bytes", take_outsb, NULL, NULL},
    {"device model: MMIO read", take_mmio_read, NULL, NULL},
    {"device model: MMIO write", take_mmio_write, NULL, NULL},
    {"device model: REP MOVSB to MMIO, 64 bytes", take_movs, NULL, NULL},
    {"device model: VGA window write", take_vga_write, NULL, NULL},
};

/* ---- The first IDE disk: a sector by bus master DMA (Programming Interface for Bus Master IDE Controller, rev. 1.0). ---- */

#define IDE 0x1f0
#define IDE_CONTROL 0x3f6
#define IDE_IRQ 14
#define SECTOR 512u
enum { PCI_ID_0 = 0, PCI_COMMAND = 4, PCI_CLASS = 8, PCI_BAR4 = 0x20, PCI_BUS_MASTER = 4, PCI_IO = 1, CLASS_IDE = 0x0101 };
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4, BM_START = 1, BM_TO_MEMORY = 8, BM_INTERRUPT = 4, BM_ERROR = 2 };
enum { IDE_COUNT = 2, IDE_DRIVE = 6, IDE_COMMAND = 7, IDE_LBA = 0xe0, READ_DMA = 0xc8 };

static uint16_t bus_master;
static struct {
    uint32_t address, bytes;
} region __attribute__((aligned(8)));

static uint32_t pci_address(unsigned function, unsigned reg)
{
    return 1u << 31 | function << 8 | reg;
}

static uint32_t pci_read(unsigned function, unsigned reg)
{
    outl(CONFIG_ADDRESS, pci_address(function, reg));
    return inl(CONFIG_DATA);
}

/* Of bus 0; 0 where there is none. */
static uint16_t find_bus_master(void)
{
    for (unsigned f = 0; f < 256; f++) {
        if (pci_read(f, PCI_ID_0) == UINT32_MAX || pci_read(f, PCI_CLASS) >> 16 != CLASS_IDE)
            continue;
        outl(CONFIG_ADDRESS, pci_address(f, PCI_COMMAND));
        outw(CONFIG_DATA, PCI_IO | PCI_BUS_MASTER);
        return pci_read(f, PCI_BAR4) & 0xfffc;
    }
    return 0;
}

static void ask_for_sector(void)
{
    region.address = (uint32_t)(uintptr_t)buffer;
    region.bytes = SECTOR | 1u << 31;
    outb((uint16_t)(bus_master + BM_COMMAND), 0);
    outl((uint16_t)(bus_master + BM_TABLE), (uint32_t)(uintptr_t)&region);
    outb((uint16_t)(bus_master + BM_STATUS), BM_INTERRUPT | BM_ERROR);
    outb(IDE_CONTROL, 0);
    outb(IDE + IDE_DRIVE, IDE_LBA);
    outb(IDE + IDE_COUNT, 1);
    for (unsigned i = IDE_COUNT + 1; i < IDE_DRIVE; i++)
        outb((uint16_t)(IDE + i), 0);
    outb(IDE + IDE_COMMAND, READ_DMA);
}

static void start_dma(void)
{
    outb((uint16_t)(bus_master + BM_COMMAND), BM_START | BM_TO_MEMORY);
}

static void end_dma(void)
{
    outb((uint16_t)(bus_master + BM_COMMAND), 0);
    outb((uint16_t)(bus_master + BM_STATUS), BM_INTERRUPT);
    inb(IDE + IDE_COMMAND);
    end_xapic();
}

static uint64_t until_interrupt(void)
{
    uint64_t from = rdtsc();

    start_dma();
    return await_computing() - from;
}

static bool disk_answers(void)
{
    uint64_t end = rdtsc() + us(500000);
    bool done = false;

    ask_for_sector();
    start_dma();
    while (!done && rdtsc() < end)
        done = inb((uint16_t)(bus_master + BM_STATUS)) & BM_INTERRUPT;
    end_dma();
    return done;
}

static const struct operation dma = {"disk: DMA of a sector, started to its interrupt", until_interrupt, ask_for_sector, end_dma};

static void disk(void)
{
    bus_master = find_bus_master();
    if (!bus_master || !disk_answers()) {
        skip(dma.name, "there is no IDE disk");
        return;
    }
    ioapic_set(IDE_IRQ, VECTOR);
    measure(&dma);
    ioapic_set(IDE_IRQ, IO_MASKED);
}

void bench_requests(void)
{
    outl(CONFIG_ADDRESS, HOST_BRIDGE);
    if (inl(CONFIG_DATA) == UINT32_MAX) {
        skip("device model", "nobody answers at the PCI configuration ports");
        return;
    }
    MEASURE(requests);
    disk();
}
