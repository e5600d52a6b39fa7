/*
 * A domain's slot as seen from the hypervisor: its doorbell and its command ring. What the ring carries comes from an
 * untrusted process: each command is copied once, then checked; a ring that cannot be right ends its domain.
 */
#include "hvm.h"

#define DOORBELL 3u /* BAR0 register, in words: peer in the high half, vector in the low */

#define DRAIN_COMMANDS 16u /* that one call does before interrupts are let in, or a part of one that changes many pages */
#define REFUSALS_LOGGED 8u
#define NOT_DONE 1 /* a command's status: the rest of its pages at the next call */

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
    fabric_message(d, bus_message_from_msi(a[0], (uint32_t)a[1]),
                   (struct cause){.way = METRONOME_INJECT_MSI, .source = METRONOME_LATENCY_OF_MSI});
    return 0;
}

static bool valid_pages(uint64_t gfn, uint64_t pages)
{
    return pages && pages <= 1ull << 24 && gfn <= (1ull << 36) - pages;
}

/* The hypervisor's own ranges win over anything a device model maps. */
static bool covers_ours(uint64_t first, uint64_t pages)
{
    uint64_t end = first + pages;

    return first < (0xfef00000 >> PAGE_SHIFT) && end > (IOAPIC_BASE >> PAGE_SHIFT);
}

/* Behind a command's last page, tables that are out of use are freed, as far as that is possible now. */
static int all_done(struct domain *d)
{
    return domain_translations_changed(d) ? NOT_DONE : 0;
}

/* The status behind so many more bytes of a command's pages; negative: memory is used up. */
static int went_on(struct domain *d, int64_t bytes, uint64_t pages)
{
    if (bytes < 0) {
        domain_translations_changed(d);
        return -METRONOME_ENOMEM;
    }
    d->command_pages += (uint64_t)bytes >> PAGE_SHIFT;
    return d->command_pages < pages ? NOT_DONE : all_done(d);
}

static int op_map(struct domain *d, const uint64_t *a)
{
    uint64_t done = d->command_pages;

    if (!valid_pages(a[0], a[2]) || a[1] & (PAGE_SIZE - 1) || covers_ours(a[0], a[2]) ||
        !domain_arena(d, a[1], a[2] << PAGE_SHIFT))
        return -METRONOME_EINVAL;
    if (done == a[2])
        return all_done(d);
    return went_on(d, domain_map(d, (a[0] + done) << PAGE_SHIFT, a[1] + (done << PAGE_SHIFT), (a[2] - done) << PAGE_SHIFT,
                                 !(a[3] & METRONOME_MAP_READONLY)), a[2]);
}

static int op_unmap(struct domain *d, const uint64_t *a)
{
    uint64_t done = d->command_pages;

    if (!valid_pages(a[0], a[1]))
        return -METRONOME_EINVAL;
    if (done == a[1])
        return all_done(d);
    return went_on(d, domain_unmap(d, (a[0] + done) << PAGE_SHIFT, (a[1] - done) << PAGE_SHIFT), a[1]);
}

/* A part stays in one word of the bitmap. */
static int op_dirty(struct domain *d, const uint64_t *a)
{
    uint64_t *bitmap = (void *)(d->slot->memory + METRONOME_DOMAIN_DIRTY), done = d->command_pages, written;
    unsigned first = done % 64, n;

    if (!valid_pages(a[0], a[1]) || a[1] > METRONOME_DOMAIN_DIRTY_BYTES * 8)
        return -METRONOME_EINVAL;
    if (done == a[1])
        return all_done(d);
    n = a[1] - done < 64 - first ? (unsigned)(a[1] - done) : 64 - first;
    n = p2m_take_dirty(&d->p2m, (a[0] + done) << PAGE_SHIFT, n, &written);
    if (n)
        bitmap[done / 64] = (first ? bitmap[done / 64] : 0) | written << first;
    return went_on(d, (int64_t)n << PAGE_SHIFT, a[1]);
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
    if (d->resetting)
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
    chipset_update(d, vtime_master(&d->time), 0);
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

static struct metronome_command_ring *ring_of(const struct domain *d)
{
    return (void *)(d->slot->memory + METRONOME_DOMAIN_COMMANDS);
}

/* Copies the next command out of the ring; false: there is none. */
static bool take_command(struct domain *d)
{
    struct metronome_command_ring *r = ring_of(d);
    uint32_t produced = __atomic_load_n(&r->ring.produced, __ATOMIC_ACQUIRE);

    if (produced == d->commands_consumed)
        return false;
    if (produced - d->commands_consumed > METRONOME_RING_ENTRIES) {
        domain_end(d, METRONOME_END_DM, 0, "its device model overran the command ring");
        return false;
    }
    memcpy(&d->command, &r->entry[d->commands_consumed % METRONOME_RING_ENTRIES], sizeof(d->command));
    __atomic_store_n(&r->ring.consumed, d->commands_consumed + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&d->commands_consumed, d->commands_consumed + 1, __ATOMIC_RELAXED);
    d->command_open = true;
    d->command_pages = 0;
    return true;
}

/* Runs the command that is open, or a part of it. */
static void go_on(struct domain *d)
{
    const struct metronome_command *c = &d->command;
    int status = run_command(d, c);

    if (status == NOT_DONE)
        return;
    d->command_open = false;
    if (status && d->refused++ < REFUSALS_LOGGED)
        log_warning("domain %u: command %u refused (%d)\n", d->slot->index, c->op, status);
    if (c->flags & METRONOME_COMMAND_COMPLETE)
        complete(d, c, status);
}

bool slot_drain_commands(struct domain *d)
{
    bool more = true;

    spin_lock(&d->command_lock);
    for (unsigned n = 0; n < DRAIN_COMMANDS && (more = d->command_open || take_command(d)); n++) {
        go_on(d);
        if (d->command_open)
            break; /* its next part comes when interrupts have been let in */
    }
    spin_unlock(&d->command_lock);
    return !more;
}

/* Who moves the home looks at `rung` behind that: either it sees this, or the new home is seen here. */
void slot_ask(struct domain *d)
{
    __atomic_store_n(&d->slot->rung, true, __ATOMIC_SEQ_CST);
    hvm_attention(__atomic_load_n(&d->home, __ATOMIC_SEQ_CST), ATTENTION_SLOTS);
}

/* It rings on CPU 0 and is served on the domain's home pCPU; answers, where vCPUs wait for them. */
void slot_rung(void *slot)
{
    struct slot *s = slot;
    struct domain *d = s->domain;

    if (!d)
        return;
    slot_ask(d);
    for (unsigned i = 0; i < pcpu_count; i++)
        if (hvm_pcpus[i]->io_waiting)
            hvm_attention(i, ATTENTION_SLOTS);
}

/* The home drains the ring; a vCPU whose answer is in is looked at where it lives. */
void slot_look(struct domain *d)
{
    if (__atomic_load_n(&ring_of(d)->ring.produced, __ATOMIC_ACQUIRE) != __atomic_load_n(&d->commands_consumed, __ATOMIC_RELAXED)) {
        slot_ask(d);
    }
    for (unsigned i = 0; i < d->vcpus; i++) {
        struct vcpu *v = d->vcpu[i];

        if (v->state == VCPU_WAIT_IOREQ && vcpu_place(v).cpu != this_cpu()->id && ioreq_poll(v))
            vcpu_look(v);
        hvm_breathe();
    }
}

void slot_service(struct domain *d)
{
    if (domain_has_ended(d))
        return;
    if (!d->has_dm) {
        domain_console_poll(d);
    } else if (!slot_drain_commands(d)) {
        slot_ask(d);
    }
}
