/*
 * CMOS RAM as PC firmware expects it (the RTC's own registers 0x00-0x0d are the clock's):
 *
 *   0x10 floppy types          0x14 equipment             0x15/16 KiB below 1 MiB     0x17/18, 0x30/31 KiB from 1 MiB
 *   0x2e/2f sum of 0x10-0x2d   0x34/35 64 KiB from 16 MiB 0x38, 0x3d boot order       0x39 disk translation
 *   0x5b-5d 64 KiB from 4 GiB  0x5f vCPUs - 1
 */
#include <string.h>

#include "platform.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

#define EQUIPMENT_FLOPPY 0x01u
#define EQUIPMENT_FPU 0x02u
#define EQUIPMENT_MOUSE 0x04u
#define EQUIPMENT_SECOND_FLOPPY 0x40u

static void put(uint8_t *cmos, unsigned index, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        cmos[index + i] = (uint8_t)(value >> 8 * i);
}

/* Memory above `from`, in units, as far as 16 bits show it. */
static uint64_t above(uint64_t ram, uint64_t from, uint64_t unit)
{
    uint64_t units = ram > from ? (ram - from) / unit : 0;

    return units > 0xffff ? 0xffff : units;
}

static void put_memory(uint8_t *cmos, const struct platform *p)
{
    uint64_t extended = above(p->ram_low, 1 * MIB, KIB);

    put(cmos, 0x15, 640, 2);
    put(cmos, 0x17, extended, 2);
    put(cmos, 0x30, extended, 2);
    put(cmos, 0x34, above(p->ram_low, 16 * MIB, 64 * KIB), 2);
    put(cmos, 0x5b, p->ram_high / (64 * KIB), 3);
}

static void put_floppies(uint8_t *cmos, const struct platform *p)
{
    unsigned equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE;

    cmos[0x10] = (uint8_t)(p->floppies[0] << 4 | p->floppies[1]);
    if (p->floppies[0] || p->floppies[1])
        equipment |= EQUIPMENT_FLOPPY;
    if (p->floppies[0] && p->floppies[1])
        equipment |= EQUIPMENT_SECOND_FLOPPY;
    cmos[0x14] = (uint8_t)equipment;
}

static unsigned boot_code(char device)
{
    return device == 'a' ? 1 : device == 'c' ? 2 : device == 'd' ? 3 : device == 'n' ? 4 : 0;
}

/* Three nibbles, first device lowest; bit 0 of 0x38 skips the check of a floppy's signature. */
static void put_boot_order(uint8_t *cmos, const struct platform *p)
{
    const char *order = p->boot_order ? p->boot_order : "cda";
    unsigned codes = 0;

    for (unsigned i = 0; i < 3 && order[i]; i++)
        codes |= boot_code(order[i]) << 4 * i;
    cmos[0x3d] = (uint8_t)codes;
    cmos[0x38] = (uint8_t)(codes >> 8 << 4 | 1);
}

/*
 * How INT 13h folds a disk's cylinders into 1,024: 0 not, 1 LBA, 2 large. Cylinders of 16 heads and 63 sectors, of
 * which IDE shows at most 16,383.
 */
static unsigned translation(uint64_t sectors)
{
    uint64_t cylinders = sectors / (16 * 63);

    if (cylinders > 16383)
        cylinders = 16383;
    return cylinders <= 1024 ? 0 : cylinders * 16 <= 131072 ? 2 : 1;
}

static void put_disks(uint8_t *cmos, const struct platform *p)
{
    for (unsigned i = 0; i < PLATFORM_MAX_IDE; i++)
        if (p->ide_sectors[i])
            cmos[0x39] |= (uint8_t)(translation(p->ide_sectors[i]) << 2 * i);
}

static void put_sum(uint8_t *cmos)
{
    unsigned sum = 0;

    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += cmos[i];
    cmos[0x2e] = (uint8_t)(sum >> 8);
    cmos[0x2f] = (uint8_t)sum;
}

void cmos_fill(uint8_t cmos[256], const struct platform *p)
{
    memset(cmos, 0, 256);
    put_memory(cmos, p);
    put_floppies(cmos, p);
    put_boot_order(cmos, p);
    put_disks(cmos, p);
    cmos[0x5f] = (uint8_t)(p->vcpus - 1);
    put_sum(cmos);
}
