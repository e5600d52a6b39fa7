/* Places in guest memory: found before anything is accessed, then read, written or updated in RAM or on a device. */
#include <stddef.h>

#include "internal.h"

uint64_t emu_effective_address(const struct emu *e)
{
    const struct emu_insn *i = &e->insn;
    uint64_t address = (uint64_t)i->displacement;

    if (i->base < EMU_NO_REGISTER)
        address += e->regs.gpr[i->base];
    else if (i->base == EMU_BASE_RIP)
        address += e->regs.rip + i->length;
    if (i->index < EMU_NO_REGISTER)
        address += e->regs.gpr[i->index] << i->scale;
    return address & size_mask(i->address_size);
}

static enum emu_status translate(struct emu *e, uint64_t linear, unsigned access, uint64_t *gpa)
{
    return emu_translate(e, linear, access | (e->regs.cpl == 3 ? EMU_USER : 0), gpa);
}

enum emu_status emu_linear_place(struct emu *e, uint64_t linear, unsigned size, unsigned access, struct place *p)
{
    uint64_t room;

    TRY(translate(e, linear, access, &p->gpa[0]));
    p->reg = -1;
    p->size[0] = (uint8_t)size;
    p->size[1] = 0;
    room = PAGE_BYTES - (linear & PAGE_OFFSET);
    if (__builtin_expect(size <= room, true))
        return EMU_OK;
    p->size[0] = (uint8_t)room;
    p->size[1] = (uint8_t)(size - room);
    linear += room;
    return translate(e, in_64bit_mode(&e->regs) ? linear : (uint32_t)linear, access, &p->gpa[1]);
}

enum emu_status emu_memory_place(struct emu *e, unsigned seg, uint64_t offset, unsigned size, unsigned access, struct place *p)
{
    uint64_t linear;

    TRY(emu_linearize(e, seg, offset, size, access, &linear));
    return emu_linear_place(e, linear, size, access, p);
}

/* The place of the ModRM operand. */
enum emu_status emu_rm_place(struct emu *e, unsigned size, unsigned access, struct place *p)
{
    const struct emu_insn *i = &e->insn;

    if (modrm_mod(i) != 3)
        return emu_memory_place(e, i->memory_segment, emu_effective_address(e), size, access, p);
    *p = (struct place){ .size = { (uint8_t)size, 0 }, .reg = (int8_t)modrm_rm(i) };
    return EMU_OK;
}

static uint8_t *ram(struct emu *e, uint64_t gpa, bool write)
{
    uint8_t *page = e->ops->ram_page(e->ctx, gpa & ~(uint64_t)PAGE_OFFSET, write);

    return page ? page + (gpa & PAGE_OFFSET) : NULL;
}

bool emu_is_ram(struct emu *e, uint64_t gpa, bool write)
{
    return ram(e, gpa, write) != NULL;
}

/* One access each, so that another vCPU never sees a torn value where hardware would not show one. */
static uint64_t load(const uint8_t *from, unsigned size)
{
    uint64_t value = 0;

    switch (size) {
    case 1: __builtin_memcpy(&value, from, 1); break;
    case 2: __builtin_memcpy(&value, from, 2); break;
    case 4: __builtin_memcpy(&value, from, 4); break;
    default: __builtin_memcpy(&value, from, 8); break;
    }
    return value;
}

static void store(uint8_t *to, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: __builtin_memcpy(to, &value, 1); break;
    case 2: __builtin_memcpy(to, &value, 2); break;
    case 4: __builtin_memcpy(to, &value, 4); break;
    default: __builtin_memcpy(to, &value, 8); break;
    }
}

static enum emu_status device_read(struct emu *e, uint64_t gpa, unsigned size, uint64_t *value)
{
    enum emu_status status;

    e->accesses++;
    status = e->ops->device_read(e->ctx, gpa, size, value);
    *value &= size_mask(size);
    return status;
}

static enum emu_status device_write(struct emu *e, uint64_t gpa, unsigned size, uint64_t value)
{
    e->accesses++;
    return e->ops->device_write(e->ctx, gpa, size, value & size_mask(size));
}

/* The largest naturally aligned power of two that is left of a part at a page edge. */
static unsigned chunk(uint64_t gpa, unsigned left)
{
    unsigned size = 8;

    while (size > left || (gpa & (size - 1)))
        size /= 2;
    return size;
}

/* A part of an access that crosses pages. */
static enum emu_status read_part(struct emu *e, uint64_t gpa, unsigned size, uint8_t *to)
{
    const uint8_t *host = ram(e, gpa, false);

    for (unsigned at = 0, n; at < size; at += n) {
        uint64_t value;

        n = chunk(gpa + at, size - at);
        if (host)
            value = load(host + at, n);
        else
            TRY(device_read(e, gpa + at, n, &value));
        store(to + at, n, value);
    }
    return EMU_OK;
}

static enum emu_status write_part(struct emu *e, uint64_t gpa, unsigned size, uint8_t *host, const uint8_t *from)
{
    for (unsigned at = 0, n; at < size; at += n) {
        n = chunk(gpa + at, size - at);
        if (host)
            store(host + at, n, load(from + at, n));
        else
            TRY(device_write(e, gpa + at, n, load(from + at, n)));
    }
    return EMU_OK;
}

static enum emu_status read_crossing(struct emu *e, const struct place *p, uint8_t *to)
{
    TRY(read_part(e, p->gpa[0], p->size[0], to));
    return read_part(e, p->gpa[1], p->size[1], to + p->size[0]);
}

/* Devices first: they may ask to wait, and then RAM must be unchanged. */
static enum emu_status write_crossing(struct emu *e, const struct place *p, const uint8_t *from)
{
    uint8_t *host[2] = { ram(e, p->gpa[0], true), ram(e, p->gpa[1], true) };
    unsigned first = host[0] && !host[1] ? 1 : 0, second = !first;

    TRY(write_part(e, p->gpa[first], p->size[first], host[first], from + (first ? p->size[0] : 0)));
    return write_part(e, p->gpa[second], p->size[second], host[second], from + (second ? p->size[0] : 0));
}

enum emu_status emu_place_read(struct emu *e, const struct place *p, uint64_t *value)
{
    const uint8_t *host;

    if (p->reg >= 0) {
        *value = emu_reg_read(e, (unsigned)p->reg, p->size[0]);
        return EMU_OK;
    }
    if (__builtin_expect(p->size[1], 0)) {
        *value = 0;
        return read_crossing(e, p, (uint8_t *)value);
    }
    host = ram(e, p->gpa[0], false);
    if (!host)
        return device_read(e, p->gpa[0], p->size[0], value);
    *value = load(host, p->size[0]);
    return EMU_OK;
}

enum emu_status emu_place_write(struct emu *e, const struct place *p, uint64_t value)
{
    uint8_t *host;

    if (p->reg >= 0) {
        emu_reg_write(e, (unsigned)p->reg, p->size[0], value);
        return EMU_OK;
    }
    if (__builtin_expect(p->size[1], 0))
        return write_crossing(e, p, (const uint8_t *)&value);
    host = ram(e, p->gpa[0], true);
    if (!host)
        return device_write(e, p->gpa[0], p->size[0], value);
    store(host, p->size[0], value);
    return EMU_OK;
}

/* `lock cmpxchg` of any alignment; the compiler's own builtins take aligned objects only. */
static bool exchange(uint8_t *at, unsigned size, uint64_t old, uint64_t new)
{
    bool done;

#define EXCHANGE(type) \
    __asm__ volatile("lock cmpxchg %3, %1" : "=@ccz"(done), "+m"(*(type *)at), "+a"(old) : "r"((type)new) : "memory")
    switch (size) {
    case 1: EXCHANGE(uint8_t); break;
    case 2: EXCHANGE(uint16_t); break;
    case 4: EXCHANGE(uint32_t); break;
    default: EXCHANGE(uint64_t); break;
    }
#undef EXCHANGE
    return done;
}

/* Writes the result of a read-modify-write whose old value emu_place_read() gave. */
enum emu_status emu_place_update(struct emu *e, const struct place *p, uint64_t old, uint64_t value)
{
    uint8_t *host;

    if (p->reg >= 0 || p->size[1])
        return emu_place_write(e, p, value);
    host = ram(e, p->gpa[0], true);
    if (!host)
        return device_write(e, p->gpa[0], p->size[0], value);
    return exchange(host, p->size[0], old, value) ? EMU_OK : EMU_AGAIN;
}

enum emu_status emu_place_read16(struct emu *e, const struct place *p, uint64_t value[2])
{
    const uint8_t *host;

    if (p->size[1])
        return read_crossing(e, p, (uint8_t *)value);
    host = ram(e, p->gpa[0], false);
    if (host) {
        __builtin_memcpy(value, host, 16);
        return EMU_OK;
    }
    TRY(device_read(e, p->gpa[0], 8, &value[0]));
    return device_read(e, p->gpa[0] + 8, 8, &value[1]);
}

enum emu_status emu_place_write16(struct emu *e, const struct place *p, const uint64_t value[2])
{
    uint8_t *host;

    if (p->size[1])
        return write_crossing(e, p, (const uint8_t *)value);
    host = ram(e, p->gpa[0], true);
    if (host) {
        __builtin_memcpy(host, value, 16);
        return EMU_OK;
    }
    TRY(device_write(e, p->gpa[0], 8, value[0]));
    return device_write(e, p->gpa[0] + 8, 8, value[1]);
}

/* CMPXCHG16B's: the place is aligned, so it never crosses a page. */
enum emu_status emu_place_update16(struct emu *e, const struct place *p, const uint64_t old[2], const uint64_t value[2])
{
    uint8_t *host = ram(e, p->gpa[0], true);
    uint64_t low = old[0], high = old[1];
    bool done;

    if (!host)
        return emu_place_write16(e, p, value);
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*(uint64_t(*)[2])host), "+a"(low), "+d"(high)
                     : "b"(value[0]), "c"(value[1]) : "memory");
    return done ? EMU_OK : EMU_AGAIN;
}
