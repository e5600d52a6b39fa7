/*
 * The control device: finds the shared-memory devices, takes the daemon's commands, publishes what domains do.
 */
#include "hvm.h"
#include "pci.h"

#define IVSHMEM_VENDOR 0x1af4u
#define IVSHMEM_DEVICE 0x1110u

static uint8_t *control;
static volatile uint32_t *control_registers; /* NULL: a recorder's, or none */
static uint32_t commands_consumed, completions;
/* Commands that are not completed yet: for what is under way with a slot (plan.c), and for the end of its domain. */
static struct metronome_command plan_pending[METRONOME_MAX_SLOTS], destroy_pending[METRONOME_MAX_SLOTS];

bool control_present(void)
{
    return control_registers != NULL;
}

bool control_records(void)
{
    return control != NULL;
}

static struct metronome_control_header *header(void)
{
    return (void *)(control + METRONOME_CONTROL_HEADER);
}

static struct metronome_slot_status *status_of(const struct slot *s)
{
    return (void *)(control + METRONOME_CONTROL_SLOTS + s->index * sizeof(struct metronome_slot_status));
}

struct metronome_latency *control_latency(struct slot *s)
{
    return (struct metronome_latency *)(void *)(control + METRONOME_CONTROL_LATENCY) + s->index;
}

static void ring_daemon(void)
{
    if (control_registers)
        control_registers[3] = METRONOME_PEER_DOM0 << 16;
}

static void copy_text(char *to, size_t size, const char *text)
{
    size_t n = strnlen(text, size - 1);

    memcpy(to, text, n);
    to[n] = 0;
}

void control_message(struct slot *s, const char *text)
{
    if (control)
        copy_text(status_of(s)->message, sizeof(status_of(s)->message), text);
}

static void publish_stats(struct domain *d, struct metronome_slot_status *s)
{
    struct metronome_stats stats;

    domain_stats(d, &stats);
    s->stats = stats;
    s->vcpus_running = domain_vcpus_running(d);
}

void control_publish(struct domain *d, enum metronome_slot_state state)
{
    struct metronome_slot_status *s;

    if (!control)
        return;
    s = status_of(d->slot);
    publish_stats(d, s);
    if (d->end != METRONOME_END_NONE) {
        s->reason = d->end;
        s->code = d->end_code;
        copy_text(s->message, sizeof(s->message), d->end_message);
    }
    s->generation = d->slot->generation;
    s->resets = d->resets;
    __atomic_store_n(&s->state, state, __ATOMIC_RELEASE);
    ring_daemon();
}

static void publish_memory(void)
{
    header()->free_bytes = free_page_count() * PAGE_SIZE;
}

static void complete(const struct metronome_command *c, int status)
{
    struct metronome_completion_ring *r = (void *)(control + METRONOME_CONTROL_COMPLETIONS);
    struct metronome_completion *e = &r->entry[completions % METRONOME_RING_ENTRIES];

    e->sequence = c->sequence;
    e->status = status;
    e->value = 0;
    publish_memory();
    __atomic_store_n(&r->ring.produced, ++completions, __ATOMIC_RELEASE);
    ring_daemon();
}

static void complete_pending(struct metronome_command *pending, int status)
{
    if (pending->op && (pending->flags & METRONOME_COMMAND_COMPLETE))
        complete(pending, status);
    pending->op = METRONOME_CONTROL_NOP;
}

void control_finished(struct slot *s, int status)
{
    if (!control_present())
        standalone_made(status);
    else
        complete_pending(&plan_pending[s->index], status);
}

void control_destroyed(struct slot *s)
{
    __atomic_store_n(&status_of(s)->state, METRONOME_SLOT_FREE, __ATOMIC_RELEASE);
    complete_pending(&destroy_pending[s->index], 0);
}

void control_ended(struct domain *d)
{
    if (!control_present())
        standalone_ended(d);
    else
        hvm_attention(0, ATTENTION_CONTROL); /* a DESTROY may wait for it */
}

/* Of a slot with a DESTROY: what is under way comes to its end, then the domain does, then its last vCPU leaves. */
static void go_on_destroying(struct slot *s)
{
    struct domain *d = s->domain;

    if (domain_in_progress(s))
        return;
    if (!d) /* it could not be made */
        control_destroyed(s);
    else if (domain_has_ended(d))
        domain_take_apart(s);
    else
        domain_end(d, METRONOME_END_POWEROFF, 0, "destroyed");
}

#define LATER 1 /* a command's status: it is completed by control_finished() or control_destroyed() */

static bool is_idle(const struct slot *s)
{
    return !plan_pending[s->index].op && !destroy_pending[s->index].op && !domain_in_progress(s);
}

static int make(struct slot *s, const struct metronome_command *c, const struct restore *r)
{
    if (s->domain || !is_idle(s))
        return -METRONOME_EBUSY;
    memset(status_of(s), 0, sizeof(struct metronome_slot_status));
    plan_pending[s->index] = *c;
    if (r)
        domain_restore(s, r);
    else
        domain_make(s);
    return LATER;
}

static int op_create(struct slot *s, const struct metronome_command *c)
{
    return make(s, c, NULL);
}

static int op_restore(struct slot *s, const struct metronome_command *c)
{
    const struct restore r = {.rtc_seconds = c->args[1], .any_tsc = c->args[2] & METRONOME_RESTORE_ANY_TSC};

    return make(s, c, &r);
}

static int op_save(struct slot *s, const struct metronome_command *c)
{
    struct domain *d = s->domain;

    if (!domain_stands_still(d) || !is_idle(s))
        return -METRONOME_EBUSY;
    if (d->has_dm && !ioreq_posted_taken(d))
        return -METRONOME_EAGAIN;
    plan_pending[s->index] = *c;
    domain_save(d);
    return LATER;
}

static int op_destroy(struct slot *s, const struct metronome_command *c)
{
    if (!s->domain && !domain_in_progress(s))
        return -METRONOME_ENOENT;
    if (destroy_pending[s->index].op)
        return -METRONOME_EBUSY;
    destroy_pending[s->index] = *c;
    go_on_destroying(s);
    return LATER;
}

static int op_pause(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    if (s->domain->has_dm && !s->domain->ready)
        return 0; /* it stands still anyway */
    return domain_request(s->domain, ACTION_PAUSE) ? 0 : -METRONOME_EBUSY;
}

static int op_unpause(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    domain_unpause(s->domain);
    return 0;
}

static int op_power_button(struct slot *s, const struct metronome_command *c)
{
    struct domain *d = s->domain;
    uint64_t now;

    (void)c;
    spin_lock(&d->chipset.lock);
    now = vtime_master(&d->time);
    pmtimer_set_line(&d->chipset.pmtimer, now, PMTIMER_POWER_BUTTON, true);
    pmtimer_set_line(&d->chipset.pmtimer, now, PMTIMER_POWER_BUTTON, false);
    chipset_update(d, now, PART_PM);
    spin_unlock(&d->chipset.lock);
    return 0;
}

static int op_reset(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    if (s->domain->has_dm)
        domain_request_reset(s->domain);
    else
        domain_request(s->domain, ACTION_RESET);
    return 0;
}

static int op_nmi(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    chipset_nmi(s->domain);
    return 0;
}

static int op_forget_late(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    flight_forget(s->domain);
    return 0;
}

static int op_set_trace(struct slot *s, const struct metronome_command *c)
{
    (void)s;
    return trace_set((uint32_t)c->args[1]) ? 0 : -METRONOME_ENOMEM;
}

static int op_nop(struct slot *s, const struct metronome_command *c)
{
    (void)c;
    if (s->domain && s->domain->made)
        publish_stats(s->domain, status_of(s));
    return 0;
}

static const struct {
    int (*run)(struct slot *s, const struct metronome_command *c);
    bool needs_domain;
} ops[] = {
    [METRONOME_CONTROL_NOP] = {op_nop, false},         [METRONOME_CONTROL_CREATE] = {op_create, false},
    [METRONOME_CONTROL_DESTROY] = {op_destroy, false},  [METRONOME_CONTROL_PAUSE] = {op_pause, true},
    [METRONOME_CONTROL_UNPAUSE] = {op_unpause, true},  [METRONOME_CONTROL_POWER_BUTTON] = {op_power_button, true},
    [METRONOME_CONTROL_RESET] = {op_reset, true},      [METRONOME_CONTROL_NMI] = {op_nmi, true},
    [METRONOME_CONTROL_SAVE] = {op_save, true},        [METRONOME_CONTROL_RESTORE] = {op_restore, false},
    [METRONOME_CONTROL_FORGET_LATE] = {op_forget_late, true},
    [METRONOME_CONTROL_SET_TRACE] = {op_set_trace, false},
};

static int run_command(const struct metronome_command *c)
{
    struct slot *s;

    if (c->op >= sizeof(ops) / sizeof(ops[0]))
        return -METRONOME_ENOSYS;
    if (c->args[0] >= slot_count)
        return -METRONOME_ENOENT;
    s = &slots[c->args[0]];
    if (ops[c->op].needs_domain && (!s->domain || !s->domain->made))
        return domain_in_progress(s) ? -METRONOME_EBUSY : -METRONOME_ENOENT;
    return ops[c->op].run(s, c);
}

/* On CPU 0. */
void control_service(void)
{
    struct metronome_command_ring *r = (void *)(control + METRONOME_CONTROL_COMMANDS);

    if (!control_present())
        return;
    for (unsigned i = 0; i < slot_count; i++)
        if (destroy_pending[i].op)
            go_on_destroying(&slots[i]);
    while (__atomic_load_n(&r->ring.produced, __ATOMIC_ACQUIRE) != commands_consumed) {
        struct metronome_command c;
        int status;

        memcpy(&c, &r->entry[commands_consumed % METRONOME_RING_ENTRIES], sizeof(c));
        __atomic_store_n(&r->ring.consumed, ++commands_consumed, __ATOMIC_RELEASE);
        status = run_command(&c);
        if ((c.flags & METRONOME_COMMAND_COMPLETE) && status <= 0)
            complete(&c, status);
    }
}

static void control_rung(void *argument)
{
    (void)argument;
    this_hvm()->attention |= ATTENTION_CONTROL;
}

struct found {
    struct pci_address address;
    uint64_t registers, memory, size;
};

static bool look(struct pci_address a, struct found *f)
{
    uint64_t size;

    f->address = a;
    return pci_bar(a, 0, &f->registers, &size) && pci_bar(a, 2, &f->memory, &f->size);
}

static bool connect(const struct found *f)
{
    int vector = irq_alloc(control_rung, NULL);

    control_registers = map_physical(f->registers, PAGE_SIZE, MAP_DEVICE);
    return vector >= 0 && control_registers && pci_msix_enable(f->address, 0, (uint8_t)vector, pcpus[0]->apic_id);
}

static bool take_control(const struct found *f)
{
    struct metronome_control_header *h = f->size < METRONOME_CONTROL_BYTES ? NULL : map_physical(f->memory, f->size, MAP_MEMORY);

    if (!h || (h->magic != METRONOME_CONTROL_MAGIC && h->magic != METRONOME_RECORDER_MAGIC))
        return false;
    control = (uint8_t *)h;
    trace_init(control + METRONOME_CONTROL_TRACE, f->size - METRONOME_CONTROL_TRACE, pcpu_count);
    return h->magic == METRONOME_RECORDER_MAGIC || connect(f);
}

static bool take_slot(const struct found *f)
{
    struct slot *s = &slots[slot_count];
    int vector = irq_alloc(slot_rung, s);

    if (slot_count == METRONOME_MAX_SLOTS || vector < 0)
        return false;
    s->index = slot_count;
    s->physical = f->memory;
    s->size = f->size;
    s->memory = map_physical(f->memory, f->size, MAP_MEMORY);
    s->registers = map_physical(f->registers, PAGE_SIZE, MAP_DEVICE);
    if (!s->memory || !s->registers || !pci_msix_enable(f->address, 0, (uint8_t)vector, pcpus[0]->apic_id))
        return false;
    slot_count++;
    return true;
}

static void found_device(struct pci_address a, void *argument)
{
    struct found f;

    (void)argument;
    if (!look(a, &f))
        log_warning("ivshmem device %02x:%02x.%u has no usable BARs\n", a.bus, a.device, a.function);
    else if (!control ? !take_control(&f) : !take_slot(&f))
        log_warning("ivshmem device %02x:%02x.%u cannot be used\n", a.bus, a.device, a.function);
}

void control_failed(const char *why)
{
    if (!control)
        return;
    copy_text(header()->error, sizeof(header()->error), why);
    __atomic_store_n(&header()->ready, 2, __ATOMIC_RELEASE);
    ring_daemon();
}

static void describe(void)
{
    header()->pcpus = pcpu_count;
    header()->tsc_hz = tsc_hz;
    header()->total_bytes = total_page_count() * PAGE_SIZE;
    publish_memory();
}

/* trace=MASK */
static void set_trace_option(void)
{
    uint64_t mask;

    if (boot_option_number("trace", &mask) && !trace_set_mask((uint32_t)mask))
        log_warning("trace=%#llx: there is no memory for a trace\n", (unsigned long long)mask);
}

void control_init(void)
{
    pci_for_each(IVSHMEM_VENDOR, IVSHMEM_DEVICE, found_device, NULL);
    if (control_present())
        log_info("control device and %u domain slots\n", slot_count);
    else if (control)
        describe();
    set_trace_option();
}

void control_ready(void)
{
    if (header()->version != METRONOME_ABI_VERSION || header()->slots != slot_count) {
        control_failed("the daemon speaks another ABI version, or not every slot was found");
        return;
    }
    describe();
    __atomic_store_n(&header()->ready, 1, __ATOMIC_RELEASE);
    ring_daemon();
}
