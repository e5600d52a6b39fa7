/* Where the power management ports are: the FADT says it (ACPI 6.4, 5.2.9). Without tables they are where Metronome and
 * QEMU have them. */
#include "guest.h"

struct pm_ports pm = {.event = 0x600, .control = 0x604, .timer = 0x608, .sci = 9};

struct rsdp {
    char signature[8];
    uint8_t checksum, oem[6], revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
} __attribute__((packed));

struct sdt {
    char signature[4];
    uint32_t length;
    uint8_t rest[28];
    uint8_t entries[];
} __attribute__((packed));

struct fadt {
    uint8_t header[46];
    uint16_t sci;
    uint32_t smi_command;
    uint8_t acpi_enable, rest1[3];
    uint32_t event, event_b, control, control_b, control2, timer, gpe[2];
    uint8_t rest2[24];
    uint32_t flags;
} __attribute__((packed));
_Static_assert(offsetof(struct fadt, timer) == 76 && offsetof(struct fadt, flags) == 112, "FADT");

#define TMR_VAL_EXT (1u << 8)

static bool sums_to_zero(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    while (n--)
        sum = (uint8_t)(sum + *p++);
    return !sum;
}

/* In the first KiB of the EBDA or in the BIOS ROM (5.2.5.1), or NULL. */
static const struct rsdp *find_rsdp(uintptr_t start, uintptr_t end)
{
    for (uintptr_t a = start; a < end; a += 16) {
        const uint8_t *p = at(a);
        if (!memcmp(p, "RSD PTR ", 8) && sums_to_zero(p, 20))
            return at(a);
    }
    return NULL;
}

const void *acpi_table(const char signature[4])
{
    uintptr_t ebda = (uintptr_t)(*(const uint16_t *)at(0x40e)) << 4;
    const struct rsdp *rsdp = ebda ? find_rsdp(ebda, ebda + 1024) : NULL;
    const struct sdt *root;
    unsigned bytes;

    if (!rsdp)
        rsdp = find_rsdp(0xe0000, 0x100000);
    if (!rsdp)
        return NULL;
    bytes = rsdp->revision >= 2 && rsdp->xsdt ? 8 : 4;
    root = at(bytes == 8 ? rsdp->xsdt : rsdp->rsdt);
    for (unsigned i = 0; i < (root->length - sizeof(*root)) / bytes; i++) {
        uintptr_t address = 0;

        memcpy(&address, root->entries + i * bytes, bytes);
        if (!memcmp(at(address), signature, 4))
            return at(address);
    }
    return NULL;
}

static void take(const struct fadt *f)
{
    pm = (struct pm_ports){
        .event = (uint16_t)f->event, .control = (uint16_t)f->control, .timer = (uint16_t)f->timer, .sci = f->sci & 0xf,
        .timer_32bit = f->flags & TMR_VAL_EXT,
    };
    if (!f->smi_command || !f->acpi_enable || (inw(pm.control) & 1))
        return;
    outb((uint16_t)f->smi_command, f->acpi_enable);
    for (unsigned i = 0; i < 100000 && !(inw(pm.control) & 1); i++)
        pause();
}

void acpi_init(void)
{
    const struct fadt *f = acpi_table("FACP");

    if (f)
        take(f);
}
