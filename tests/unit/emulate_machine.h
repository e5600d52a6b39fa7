/*
 * A machine for tests of the instruction emulator: 256 KiB of linear memory, seen through page tables of any kind, of
 * which some pages are a "device" that keeps bytes like RAM. It can answer every device access with EMU_WAIT first and
 * checks then that a re-execution repeats its accesses and that nothing was committed.
 */
#ifndef METRONOME_TESTS_EMULATE_MACHINE_H
#define METRONOME_TESTS_EMULATE_MACHINE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulate/emulate.h"
#include "random.h"

enum { SPAN = 0x40000, DATA = 0x20000, DATA_BYTES = 0x4000, PAGE = 4096, TABLES = 0x200000, TABLE_PAGES = 8, RECORDS = 16 };

/* Data pages: RAM, device, RAM, device. Beyond the memory there are only devices that read as ones. */
#define IS_DEVICE_PAGE(linear) ((linear) >= DATA && (linear) < DATA + DATA_BYTES && ((linear) >> 12 & 1))

enum access_kind { MMIO_READ, MMIO_WRITE, PORT_READ, PORT_WRITE, REP_RUN };

struct access {
    enum access_kind kind;
    uint64_t address, value;
    unsigned size;
    struct emu_rep rep;
};

struct machine {
    struct emu e;
    struct emu_ops ops;
    uint8_t memory[SPAN] __attribute__((aligned(4096)));
    uint64_t tables[TABLE_PAGES][512];
    uint64_t xmm[16][2];
    uint64_t origin; /* gpa of linear address 0 */
    uint64_t port_reads, port_sum;
    bool refuse_ports;

    bool waits;
    struct access record[RECORDS], pending;
    unsigned recorded, replayed, errors, retired;
    uint64_t calls, runs, waited, crossings;
};

static inline uint64_t mask_of(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

static inline bool is_ram_at(const struct machine *m, uint64_t gpa)
{
    uint64_t at = gpa - m->origin;

    return (gpa >= TABLES && gpa < TABLES + sizeof m->tables) || (at < SPAN && !IS_DEVICE_PAGE(at));
}

static inline void *machine_ram_page(void *ctx, uint64_t gpa, bool write)
{
    struct machine *m = ctx;

    if (gpa & 0xfff)
        m->errors++;
    if (gpa >= TABLES && gpa < TABLES + sizeof m->tables)
        return (uint8_t *)m->tables + (gpa - TABLES);
    gpa -= m->origin;
    if (gpa >= SPAN || IS_DEVICE_PAGE(gpa))
        return NULL;
    return m->memory + gpa;
}

/* What a port gives depends on how many reads there were; what it gets is summed up, order included. */
static inline uint64_t machine_port_value(uint64_t index, uint16_t port, unsigned size)
{
    return ((index + port) * 0x9e3779b97f4a7c15 >> 13) & mask_of(size);
}

static inline void machine_do(struct machine *m, struct access *a)
{
    switch (a->kind) {
    case MMIO_READ:
        a->value = 0;
        if (a->address - m->origin >= SPAN)
            a->value = mask_of(a->size);
        else
            memcpy(&a->value, m->memory + (a->address - m->origin), a->size);
        break;
    case MMIO_WRITE:
        if (a->address - m->origin < SPAN)
            memcpy(m->memory + (a->address - m->origin), &a->value, a->size);
        break;
    case PORT_READ:
        a->value = machine_port_value(m->port_reads++, (uint16_t)a->address, a->size);
        break;
    case PORT_WRITE:
        m->port_sum = (m->port_sum ^ a->value ^ a->address << 40 ^ (uint64_t)a->size << 60) * 0x100000001b3;
        break;
    case REP_RUN:
        break;
    }
}

/* One element of a run, by the same accesses that the emulator would have made. */
static inline void machine_do_element(struct machine *m, const struct emu_rep *r, int64_t at)
{
    int64_t move = r->backwards ? -at * r->size : at * r->size;
    struct access a = { .address = r->is_port ? r->device : r->device + (uint64_t)move, .size = r->size };
    uint64_t gpa = r->ram_gpa + (uint64_t)move;
    uint8_t *ram = r->fill ? (uint8_t *)&r->value : (uint8_t *)m->ops.ram_page(m, gpa & ~0xfffull, !r->to_device) + (gpa & 0xfff);

    a.kind = r->is_port ? (r->to_device ? PORT_WRITE : PORT_READ) : r->to_device ? MMIO_WRITE : MMIO_READ;
    if (r->to_device)
        memcpy(&a.value, ram, r->size);
    machine_do(m, &a);
    if (!r->to_device)
        memcpy(ram, &a.value, r->size);
}

static inline void machine_do_run(struct machine *m, struct emu_rep *r)
{
    r->done = 1 + (uint32_t)below(r->count);
    for (uint32_t i = 0; i < r->done; i++)
        machine_do_element(m, r, i);
}

/* Completes what the emulator waits for, as a device model would. */
static inline void machine_complete(struct machine *m)
{
    if (m->pending.kind == REP_RUN)
        machine_do_run(m, &m->pending.rep);
    else
        machine_do(m, &m->pending);
    m->record[m->recorded++] = m->pending;
    m->replayed = 0;
    m->waited++;
}

static inline bool same_access(const struct access *a, const struct access *b)
{
    if (a->kind != b->kind || a->address != b->address || a->size != b->size)
        return false;
    return (a->kind != MMIO_WRITE && a->kind != PORT_WRITE) || a->value == b->value;
}

static inline enum emu_status machine_access(struct machine *m, struct access *a)
{
    m->calls++;
    if (m->waits && m->replayed < m->recorded) {
        struct access *known = &m->record[m->replayed++];

        if (!same_access(known, a))
            m->errors++;
        a->value = known->value;
        return EMU_OK;
    }
    if (m->waits && m->recorded < RECORDS) {
        m->pending = *a;
        return EMU_WAIT;
    }
    machine_do(m, a);
    return EMU_OK;
}

static inline void machine_check_mmio(struct machine *m, uint64_t gpa, unsigned size)
{
    if ((size & (size - 1)) || !size || size > 8 || (gpa & 0xfff) + size > PAGE || is_ram_at(m, gpa))
        m->errors++;
}

static inline enum emu_status machine_device_read(void *ctx, uint64_t gpa, unsigned size, uint64_t *value)
{
    struct machine *m = ctx;
    struct access a = { .kind = MMIO_READ, .address = gpa, .size = size };
    enum emu_status status;

    machine_check_mmio(m, gpa, size);
    status = machine_access(m, &a);
    *value = a.value | (status == EMU_OK ? ~mask_of(size) : 0); /* junk above must not matter */
    return status;
}

static inline enum emu_status machine_device_write(void *ctx, uint64_t gpa, unsigned size, uint64_t value)
{
    struct access a = { .kind = MMIO_WRITE, .address = gpa, .size = size, .value = value };

    machine_check_mmio(ctx, gpa, size);
    return machine_access(ctx, &a);
}

static inline enum emu_status machine_port_read(void *ctx, uint16_t port, unsigned size, uint64_t *value)
{
    struct access a = { .kind = PORT_READ, .address = port, .size = size };
    enum emu_status status = machine_access(ctx, &a);

    *value = a.value;
    return status;
}

static inline enum emu_status machine_port_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    struct access a = { .kind = PORT_WRITE, .address = port, .size = size, .value = value };

    return machine_access(ctx, &a);
}

static inline bool run_is_sound(const struct machine *m, const struct emu_rep *r)
{
    uint64_t span = (uint64_t)(r->count - 1) * r->size;
    uint64_t device = r->backwards ? r->device - span : r->device, ram = r->backwards ? r->ram_gpa - span : r->ram_gpa;

    if (!r->count)
        return false;
    if (!r->is_port && (is_ram_at(m, device) || (device & 0xfff) + span + r->size > PAGE))
        return false;
    return r->fill || (is_ram_at(m, ram) && (ram & 0xfff) + span + r->size <= PAGE);
}

static inline enum emu_status machine_rep(void *ctx, struct emu_rep *rep)
{
    struct machine *m = ctx;

    if (!run_is_sound(m, rep))
        m->errors++;
    m->runs++;
    if (m->waits && m->replayed < m->recorded) {
        struct access *known = &m->record[m->replayed++];

        if (known->kind != REP_RUN || known->rep.device != rep->device || known->rep.ram_gpa != rep->ram_gpa ||
            known->rep.count != rep->count)
            m->errors++;
        rep->done = known->rep.done;
        return EMU_OK;
    }
    if (m->waits) {
        m->pending = (struct access){ .kind = REP_RUN, .rep = *rep };
        return EMU_WAIT;
    }
    machine_do_run(m, rep);
    return EMU_OK;
}

static inline void machine_retire(void *ctx)
{
    struct machine *m = ctx;

    if (m->replayed != m->recorded)
        m->errors++;
    m->recorded = m->replayed = 0;
    m->retired++;
}

static inline void machine_xmm_read(void *ctx, unsigned reg, uint64_t value[2])
{
    memcpy(value, ((struct machine *)ctx)->xmm[reg], 16);
}

static inline void machine_xmm_write(void *ctx, unsigned reg, const uint64_t value[2])
{
    memcpy(((struct machine *)ctx)->xmm[reg], value, 16);
}

static inline bool machine_port_allowed(void *ctx, uint16_t port, unsigned size)
{
    return !((struct machine *)ctx)->refuse_ports;
}

static const struct emu_ops machine_ops = {
    .ram_page = machine_ram_page,
    .device_read = machine_device_read,
    .device_write = machine_device_write,
    .port_read = machine_port_read,
    .port_write = machine_port_write,
    .rep = machine_rep,
    .xmm_read = machine_xmm_read,
    .xmm_write = machine_xmm_write,
    .port_allowed = machine_port_allowed,
    .retire = machine_retire,
};

static inline void machine_init(struct machine *m)
{
    memset(m, 0, sizeof *m);
    m->ops = machine_ops;
    m->e.ops = &m->ops;
    m->e.ctx = m;
    m->e.budget = 1000;
    m->e.ram_generation = 1; /* walks are kept */
}

/* Page tables: linear [0, SPAN) to gpa [1 MiB, 1 MiB + SPAN), rights of every entry as given. */
enum paging_kind { UNPAGED, PAGED_32, PAGED_PAE, PAGED_4LEVEL, PAGED_5LEVEL };

static inline void machine_paging(struct machine *m, enum paging_kind kind, uint64_t rights)
{
    static const uint64_t cr4[] = { 0, 0, 0x20, 0x20, 0x1020 };
    unsigned level = 0;

    memset(m->tables, 0, sizeof m->tables);
    m->origin = kind == UNPAGED ? 0 : 0x100000;
    m->e.regs.cr0 = kind == UNPAGED ? 0x11 : 0x80010011;
    m->e.regs.cr4 = cr4[kind] | 0x200;
    m->e.regs.efer = kind >= PAGED_4LEVEL ? 0xd01 : kind == PAGED_PAE ? 0x800 : 0;
    m->e.regs.cr3 = TABLES;
    if (kind == PAGED_32) {
        ((uint32_t *)m->tables[0])[0] = (uint32_t)((TABLES + PAGE) | rights);
        for (unsigned i = 0; i < SPAN / PAGE; i++)
            ((uint32_t *)m->tables[1])[i] = (uint32_t)((m->origin + i * PAGE) | rights);
    } else if (kind != UNPAGED) {
        for (; level < (unsigned)kind; level++)
            m->tables[level][0] = (TABLES + (level + 1) * PAGE) | (kind == PAGED_PAE && !level ? 1 : rights);
        for (unsigned i = 0; i < SPAN / PAGE; i++)
            m->tables[level][i] = (m->origin + i * PAGE) | rights;
    }
}

static inline void machine_segment(struct machine *m, unsigned seg, uint16_t selector, uint64_t base, uint32_t limit, uint16_t attributes)
{
    m->e.regs.seg[seg] = (struct emu_segment){ selector, attributes, limit, base };
}

/* Runs until RIP has moved (or an instruction that stays where it is was tried 10000 times). */
static inline enum emu_status machine_run(struct machine *m)
{
    uint64_t rip = m->e.regs.rip;
    enum emu_status status = EMU_OK;

    for (unsigned i = 0; i < 10000 && status == EMU_OK && m->e.regs.rip == rip; i++)
        status = emu_run(&m->e);
    return status;
}

/* The same with EMU_WAIT at every access: checks that a wait changes nothing but what finished iterations did. */
static inline enum emu_status machine_run_waiting(struct machine *m)
{
    static uint8_t before[DATA_BYTES];
    uint64_t rip = m->e.regs.rip;
    enum emu_status status = EMU_OK;

    m->recorded = m->replayed = 0;
    for (unsigned i = 0; i < 100000 && m->e.regs.rip == rip; i++) {
        struct emu_regs regs = m->e.regs;
        unsigned retired = m->retired;

        memcpy(before, m->memory + DATA, DATA_BYTES);
        m->waits = true;
        m->replayed = 0;
        status = emu_run(&m->e);
        m->waits = false;
        if (status == EMU_WAIT) {
            bool iterated = m->e.insn.rep && regs.gpr[EMU_RCX] != m->e.regs.gpr[EMU_RCX];

            if (retired == m->retired && !iterated &&
                (memcmp(&regs, &m->e.regs, sizeof regs) || memcmp(before, m->memory + DATA, DATA_BYTES)))
                m->errors++;
            machine_complete(m);
            continue;
        }
        if (status != EMU_OK)
            break;
        m->recorded = m->replayed = 0;
    }
    return status;
}

#endif
