/*
 * A domain's slot as seen from the hypervisor: its doorbell and its command ring. What the ring carries comes from an
 * untrusted process: each command is copied once, then checked; a ring that cannot be right ends its domain.
 */
#include "hvm.h"

#define DOORBELL 3u /* BAR0 register, in words: peer in the high half, vector in the low */

struct slot slots[METRONOME_MAX_SLOTS];
unsigned slot_count;

static struct metronome_notify *notify_of(const struct slot *s)
{
    return (void *)(s->memory + METRONOME_DOMAIN_NOTIFY);
}

void slot_ring(struct slot *s)
{
    if (s->registers)
        s->registers[DOORBELL] = METRONOME_PEER_DOM0 << 16;
}

void slot_set_waits(struct slot *s, bool waits)
{
    if (s->registers)
        __atomic_store_n(&notify_of(s)->hypervisor_waits, waits, __ATOMIC_SEQ_CST);
}

static int op_isa_irq(struct domain *d, const uint64_t *a)
{
    if (a[0] > 15 || a[1] > 1)
        return -METRONOME_EINVAL;
    chipset_set_isa(d, (unsigned)a[0], a[1]);
    return 0;
}

static int op_pci_intx(struct domain *d, const uint64_t *a)
{
    if (a[0] > 31 || a[1] > 3 || a[2] > 1)
        return -METRONOME_EINVAL;
    chipset_set_intx(d, (unsigned)a[0], (unsigned)a[1], a[2]);
    return 0;
}

static int op_pci_link(struct domain *d, const uint64_t *a)
{
    if (a[0] >= PCI_LINKS || a[1] > 15)
        return -METRONOME_EINVAL;
    chipset_set_link(d, (unsigned)a[0], (unsigned)a[1]);
    return 0;
}

static int op_msi(struct domain *d, const uint64_t *a)
{
    if ((a[0] >> 20 && a[0] >> 20 != 0xfee) || a[1] >> 32)
        return -METRONOME_EINVAL;
    fabric_message(d, bus_message_from_msi(a[0], (uint32_t)a[1]), METRONOME_INJECT_MSI);
    return 0;
}

/* The hypervisor's own ranges win over anything a device model maps. */
static bool covers_ours(uint64_t first, uint64_t pages)
{
    uint64_t end = first + pages;

    return first < (0xfef00000 >> PAGE_SHIFT) && end > (IOAPIC_BASE >> PAGE_SHIFT);
}

static int op_map(struct domain *d, const uint64_t *a)
{
    uint64_t gfn = a[0], offset = a[1], pages = a[2];

    if (gfn >> 36 || pages == 0 || pages >> 24 || offset & (PAGE_SIZE - 1) || covers_ours(gfn, pages))
        return -METRONOME_EINVAL;
    if (!domain_map(d, gfn << PAGE_SHIFT, offset, pages << PAGE_SHIFT, !(a[3] & METRONOME_MAP_READONLY)))
        return -METRONOME_EINVAL;
    return 0;
}

static int op_unmap(struct domain *d, const uint64_t *a)
{
    if (a[0] >> 36 || a[1] == 0 || a[1] >> 24)
        return -METRONOME_EINVAL;
    return domain_unmap(d, a[0] << PAGE_SHIFT, a[1] << PAGE_SHIFT) ? 0 : -METRONOME_ENOMEM;
}

static int op_dirty(struct domain *d, const uint64_t *a)
{
    uint64_t *bitmap = (void *)(d->slot->memory + METRONOME_DOMAIN_DIRTY);

    if (a[0] >> 36 || a[1] == 0 || a[1] > METRONOME_DOMAIN_DIRTY_BYTES * 8)
        return -METRONOME_EINVAL;
    domain_take_dirty(d, a[0] << PAGE_SHIFT, a[1], bitmap);
    return 0;
}

static int op_ready(struct domain *d, const uint64_t *a)
{
    (void)a;
    if (d->ready)
        return 0;
    d->ready = true;
    domain_start(d);
    return 0;
}

static int op_reset_done(struct domain *d, const uint64_t *a)
{
    (void)a;
    if (!d->resetting)
        return -METRONOME_EINVAL;
    domain_request(d, ACTION_RESET);
    return 0;
}

static int op_shutdown(struct domain *d, const uint64_t *a)
{
    if (a[0] == METRONOME_SHUTDOWN_REBOOT)
        domain_await_reset(d);
    else if (a[0] == METRONOME_SHUTDOWN_POWEROFF || a[0] == METRONOME_SHUTDOWN_SUSPEND)
        domain_end(d, METRONOME_END_POWEROFF, 0, "powered off");
    else
        domain_end(d, METRONOME_END_CRASH, 0, "its device model reports a crash");
    return 0;
}

static int op_sci(struct domain *d, const uint64_t *a)
{
    if (a[0] > 1)
        return -METRONOME_EINVAL;
    chipset_set_sci(d, a[0]);
    return 0;
}

static int op_nothing(struct domain *d, const uint64_t *a)
{
    (void)d;
    (void)a;
    return 0;
}

static const struct {
    int (*run)(struct domain *d, const uint64_t *args);
    bool chipset; /* under its lock, its lines brought up to date after */
} ops[] = {
    [METRONOME_DM_NOP] = {op_nothing, false},         [METRONOME_DM_SET_ISA_IRQ] = {op_isa_irq, true},
    [METRONOME_DM_SET_PCI_INTX] = {op_pci_intx, true}, [METRONOME_DM_SET_PCI_LINK] = {op_pci_link, true},
    [METRONOME_DM_MSI] = {op_msi, false},             [METRONOME_DM_MAP] = {op_map, false},
    [METRONOME_DM_UNMAP] = {op_unmap, false},         [METRONOME_DM_DIRTY] = {op_dirty, false},
    [METRONOME_DM_READY] = {op_ready, false},         [METRONOME_DM_SHUTDOWN] = {op_shutdown, false},
    [METRONOME_DM_SLEEP] = {op_nothing, false},       [METRONOME_DM_RESET_DONE] = {op_reset_done, false},
    [METRONOME_DM_SCI] = {op_sci, true},
};

static int run_command(struct domain *d, const struct metronome_command *c)
{
    int status;

    if (c->op >= sizeof(ops) / sizeof(ops[0]) || !ops[c->op].run)
        return -METRONOME_ENOSYS;
    if (!ops[c->op].chipset)
        return ops[c->op].run(d, c->args);
    spin_lock(&d->chipset.lock);
    status = ops[c->op].run(d, c->args);
    chipset_update(d, vtime_master(&d->time));
    spin_unlock(&d->chipset.lock);
    return status;
}

static void complete(struct domain *d, const struct metronome_command *c, int status)
{
    struct metronome_completion_ring *r = (void *)(d->slot->memory + METRONOME_DOMAIN_COMPLETIONS);
    struct metronome_completion *e = &r->entry[d->completions % METRONOME_RING_ENTRIES];

    e->sequence = c->sequence;
    e->status = status;
    e->value = 0;
    __atomic_store_n(&r->ring.produced, ++d->completions, __ATOMIC_RELEASE);
    slot_ring(d->slot);
}

void slot_drain_commands(struct domain *d)
{
    struct metronome_command_ring *r = (void *)(d->slot->memory + METRONOME_DOMAIN_COMMANDS);
    uint32_t produced;

    spin_lock(&d->command_lock);
    while ((produced = __atomic_load_n(&r->ring.produced, __ATOMIC_ACQUIRE)) != d->commands_consumed) {
        struct metronome_command c;
        int status;

        if (produced - d->commands_consumed > METRONOME_RING_ENTRIES) {
            domain_end(d, METRONOME_END_DM, 0, "its device model overran the command ring");
            break;
        }
        memcpy(&c, &r->entry[d->commands_consumed % METRONOME_RING_ENTRIES], sizeof(c));
        __atomic_store_n(&r->ring.consumed, ++d->commands_consumed, __ATOMIC_RELEASE);
        status = run_command(d, &c);
        if (status)
            log_warning("domain %u: command %u refused (%d)\n", d->slot->index, c.op, status);
        if (c.flags & METRONOME_COMMAND_COMPLETE)
            complete(d, &c, status);
    }
    spin_unlock(&d->command_lock);
}

void slot_service(struct domain *d)
{
    if (d->ended)
        return;
    if (d->has_dm)
        slot_drain_commands(d);
    else
        domain_console_poll(d);
}
