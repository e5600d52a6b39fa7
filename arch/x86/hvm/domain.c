/*
 * A domain: its description checked, its memory mapped, started, stopped for a reset, a pause or its end. How it is made,
 * reset and taken apart is in plan.c.
 *
 * Stopping: `action` is set and every vCPU looked at; each stops on its own pCPU; the last one to stop does the action.
 * For the end each also leaves its pCPU; behind the last one nobody holds the domain but the control device's commands.
 */
#include "hvm.h"

#define VGA_START 0xa0000ull
#define VGA_END 0xc0000ull
#define GIB4 (1ull << 32)

void *domain_arena(const struct domain *d, uint64_t offset, uint64_t size)
{
    uint64_t bytes = d->slot->size - METRONOME_DOMAIN_ARENA;

    if (offset > bytes || size > bytes - offset)
        return NULL;
    return d->slot->memory + METRONOME_DOMAIN_ARENA + offset;
}

void *domain_ram(const struct domain *d, uint64_t gpa, bool write)
{
    uint64_t entry = p2m_lookup(&d->p2m, gpa);

    if (!(entry & P2M_PRESENT) || (write && !(entry & P2M_WRITABLE)))
        return NULL;
    return d->slot->memory + ((entry & P2M_ADDRESS) - d->slot->physical);
}

static int64_t map_arena(struct domain *d, uint64_t gpa, uint64_t offset, uint64_t size, bool writable)
{
    return p2m_map(&d->p2m, gpa, d->slot->physical + METRONOME_DOMAIN_ARENA + offset, size, writable);
}

static bool aligned(uint64_t value, uint64_t to)
{
    return (value & (to - 1)) == 0;
}

static bool valid_range(const struct domain *d, uint64_t offset, uint64_t size)
{
    return domain_arena(d, offset, size) != NULL;
}

/* All of them in one package, or in packages whose cores are all that the low bits of an APIC id can tell apart. */
static bool valid_cores(const struct metronome_domain_header *h)
{
    return h->cores && (h->cores == h->vcpus || (h->vcpus % h->cores == 0 && (h->cores & (h->cores - 1)) == 0));
}

/* Every field of our copy. */
int domain_check_header(struct domain *d)
{
    struct metronome_domain_header *h = &d->header;

    h->name[sizeof(h->name) - 1] = 0;
    h->command_line[sizeof(h->command_line) - 1] = 0;
    if (h->magic != METRONOME_DOMAIN_MAGIC)
        return -METRONOME_EINVAL;
    if (h->version != METRONOME_ABI_VERSION)
        return -METRONOME_EVERSION;
    if (h->vcpus < 1 || h->vcpus > METRONOME_MAX_VCPUS || h->ram_low < LARGE_PAGE_SIZE || h->ram_low > METRONOME_RAM_LOW_MAX)
        return -METRONOME_EINVAL;
    if (!aligned(h->ram_low | h->ram_high, LARGE_PAGE_SIZE) || h->ram_high > d->slot->size)
        return -METRONOME_EINVAL;
    if (h->extra != h->ram_low + h->ram_high || !valid_range(d, 0, h->extra) || !valid_range(d, h->extra, h->extra_bytes))
        return -METRONOME_EINVAL;
    if (!metronome_ticks_valid(h->ticks) || !valid_cores(h) || h->zero)
        return -METRONOME_EINVAL;
    d->has_dm = h->flags & METRONOME_DOMAIN_HAS_DM;
    if (d->has_dm && (!h->firmware_bytes || h->firmware_bytes > 1 << 20 || !aligned(h->firmware_bytes, 65536) ||
                      !aligned(h->firmware, PAGE_SIZE) || !valid_range(d, h->firmware, h->firmware_bytes)))
        return -METRONOME_EINVAL;
    if (!d->has_dm && (!valid_range(d, h->module, h->module_bytes) || !valid_range(d, h->initrd, h->initrd_bytes)))
        return -METRONOME_EINVAL;
    d->vcpus = h->vcpus;
    return 0;
}

/* Makes every vCPU leave the guest, and flush on its way back in; frees tables that none can be walking any more. The fence
 * is the other half of svm_run()'s: either we see it in the guest, or it sees the new generation and tables. */
bool domain_translations_changed(struct domain *d)
{
    bool all = true;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < d->vcpus; i++) {
        struct vcpu *v = d->vcpu[i];

        if (__atomic_load_n(&v->state, __ATOMIC_SEQ_CST) != VCPU_IN_GUEST ||
            __atomic_load_n(&v->p2m_generation, __ATOMIC_SEQ_CST) == d->p2m.generation)
            continue;
        all = false;
        vcpu_look(v);
        hvm_breathe();
    }
    return all && p2m_reclaim(&d->p2m);
}

int64_t domain_map(struct domain *d, uint64_t gpa, uint64_t offset, uint64_t size, bool writable)
{
    return valid_range(d, offset, size) ? map_arena(d, gpa, offset, size, writable) : -1;
}

/* What lies at gpa when no alias covers it: RAM, or nothing. */
int64_t domain_unmap(struct domain *d, uint64_t gpa, uint64_t size)
{
    const struct metronome_domain_header *h = &d->header;
    const uint64_t ends[] = {VGA_START, VGA_END, h->ram_low, GIB4, GIB4 + h->ram_high, UINT64_MAX}; /* RAM, nothing, RAM, ... */
    unsigned i = 0;

    while (gpa >= ends[i])
        i++;
    if (size > ends[i] - gpa)
        size = ends[i] - gpa;
    return i % 2 ? p2m_unmap(&d->p2m, gpa, size)
                 : map_arena(d, gpa, gpa < GIB4 ? gpa : gpa - GIB4 + h->ram_low, size, true);
}

/* Sends every vCPU to its pCPU's loop; the boot CPU runs, the others wait for SIPI. Under the lock. */
static void start(struct domain *d)
{
    vtime_resume(&d->time);
    d->running = d->vcpus;
    d->paused = d->resetting = d->unpause_wanted = false;
    control_publish(d, METRONOME_SLOT_RUNNING);
    __atomic_store_n(&d->action, ACTION_NONE, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < d->vcpus; i++) {
        __atomic_store_n(&d->vcpu[i]->state, VCPU_STARTING, __ATOMIC_SEQ_CST);
        vcpu_look(d->vcpu[i]);
        hvm_breathe();
    }
    if (d->slot->registers)
        slot_ask(d); /* what has come meanwhile: nobody rings for it again */
}

void domain_start(struct domain *d)
{
    spin_lock(&d->lock);
    if (d->action == ACTION_NONE || d->action == ACTION_PAUSE)
        start(d);
    spin_unlock(&d->lock);
}

bool domain_stands_still(const struct domain *d)
{
    return d->paused && d->action == ACTION_PAUSE && !d->resetting;
}

/* A pause that is under way ends as soon as it is one. */
void domain_unpause(struct domain *d)
{
    spin_lock(&d->lock);
    if (domain_stands_still(d))
        start(d);
    else if (d->action == ACTION_PAUSE)
        d->unpause_wanted = true;
    spin_unlock(&d->lock);
}

static void set_action(struct domain *d, enum domain_action action)
{
    __atomic_store_n(&d->action, action, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < d->vcpus; i++) {
        vcpu_look(d->vcpu[i]);
        hvm_breathe();
    }
}

static void end(struct domain *d, enum metronome_end_reason reason, uint32_t code, const char *format, va_list args)
{
    if (d->end != METRONOME_END_NONE)
        return;
    vformat_line(d->end_message, sizeof(d->end_message), format, args);
    d->end = reason;
    d->end_code = code;
    log_info("domain %u (%s): ", d->slot->index, d->header.name);
    log_info("%s\n", d->end_message);
    set_action(d, ACTION_END);
}

static void crash(struct domain *d, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    end(d, METRONOME_END_CRASH, 0, format, args);
    va_end(args);
}

/* From then on until domain_was_reset() it stands still, whatever else is wanted, but for its end. */
static void begin_reset(struct domain *d)
{
    d->resets++;
    log_info("domain %u (%s): reset %u, by port %#x\n", d->slot->index, d->header.name, d->resets, d->reset_cause);
    d->reset_cause = 0;
    domain_reset(d);
}

void domain_was_reset(struct domain *d, const char *why)
{
    spin_lock(&d->lock);
    if (why)
        crash(d, "reset: %s", why);
    else if (d->action == ACTION_RESET)
        start(d);
    spin_unlock(&d->lock);
}

static void pause_here(struct domain *d)
{
    vtime_stop(&d->time);
    d->paused = true;
    if (d->reset_wanted)
        ioreq_press_reset(d->vcpu[0]);
    d->reset_wanted = false;
    control_publish(d, d->resetting ? METRONOME_SLOT_RESETTING : METRONOME_SLOT_PAUSED);
    if (d->unpause_wanted && !d->resetting)
        start(d);
}

/* All vCPUs have stopped. Under the lock. */
static void act(struct domain *d)
{
    if (d->action == ACTION_RESET)
        begin_reset(d);
    else if (d->action == ACTION_PAUSE)
        pause_here(d);
}

void domain_vcpu_stopped(struct domain *d)
{
    spin_lock(&d->lock);
    if (--d->running == 0)
        act(d);
    spin_unlock(&d->lock);
}

/* Behind the last one the domain may be gone as soon as `ended` says so. */
void domain_vcpu_left(struct domain *d)
{
    bool last;

    spin_lock(&d->lock);
    last = --d->placed == 0;
    spin_unlock(&d->lock);
    if (!last)
        return;
    domain_console_end(d);
    control_publish(d, METRONOME_SLOT_SHUTDOWN);
    __atomic_store_n(&d->ended, true, __ATOMIC_RELEASE);
    control_ended(d);
}

/* Under the lock. Nothing but the end takes the place of a reset that has begun. */
static bool request(struct domain *d, enum domain_action action)
{
    if (d->action == ACTION_END || d->action == ACTION_RESET)
        return d->action == action;
    d->unpause_wanted = false;
    set_action(d, action);
    if (d->running == 0)
        act(d);
    return true;
}

bool domain_request(struct domain *d, enum domain_action action)
{
    bool taken;

    spin_lock(&d->lock);
    taken = request(d, action);
    spin_unlock(&d->lock);
    return taken;
}

void domain_await_reset(struct domain *d)
{
    spin_lock(&d->lock);
    d->resetting = true;
    request(d, ACTION_PAUSE);
    spin_unlock(&d->lock);
}

void domain_request_reset(struct domain *d)
{
    spin_lock(&d->lock);
    if (!d->resetting) {
        d->resetting = d->reset_wanted = true;
        request(d, ACTION_PAUSE);
    }
    spin_unlock(&d->lock);
}

void domain_end(struct domain *d, enum metronome_end_reason reason, uint32_t code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    spin_lock(&d->lock);
    end(d, reason, code, format, args);
    spin_unlock(&d->lock);
    va_end(args);
}

/* Others move between these states meanwhile: it is a figure for people. */
unsigned domain_vcpus_running(const struct domain *d)
{
    unsigned n = 0;

    for (unsigned i = 0; i < d->vcpus; i++) {
        enum vcpu_state state = d->vcpu[i] ? __atomic_load_n(&d->vcpu[i]->state, __ATOMIC_RELAXED) : VCPU_OFF;

        n += state == VCPU_RUNNABLE || state == VCPU_IN_GUEST || state == VCPU_STARTING || state == VCPU_ARRIVING;
    }
    return n;
}

static void add_ledger(struct metronome_stats *s, enum metronome_tick_source source, const struct ledger *l)
{
    struct metronome_ledger *sum = &s->ticks[source];

    sum->due += l->n.due;
    sum->delivered += l->n.delivered;
    sum->collapsed += l->n.collapsed;
    sum->dropped += l->n.dropped;
    sum->owed += l->n.owed;
    sum->pending += l->n.pending;
    s->policies |= l->policy << METRONOME_TICKS_SHIFT(source);
}

static void add_chipset(struct metronome_stats *s, struct chipset *c)
{
    spin_lock(&c->lock);
    for (unsigned i = 0; i < TICK_SOURCES; i++)
        add_ledger(s, chipset_tick_source(i), &c->ledger[i]);
    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++)
        s->storms[pin] = c->vioapic.storms[pin];
    s->expiries_put_off = c->expiries_put_off;
    spin_unlock(&c->lock);
}

static void at_least(uint64_t *longest, uint64_t span)
{
    *longest = span > *longest ? span : *longest;
}

static void add_vcpu(struct metronome_stats *s, const struct vcpu *v)
{
    for (unsigned i = 0; i < METRONOME_EXIT_COUNT; i++) {
        s->exits[i] += v->counts.exits[i];
        at_least(&s->longest_off[i], v->counts.longest_off[i]);
    }
    for (unsigned i = 0; i < METRONOME_INJECT_COUNT; i++)
        s->injected[i] += v->counts.injected[i];
    s->held_ticks += v->counts.held_ticks;
    s->run_ticks += v->counts.run_ticks;
    s->steal_ticks += v->counts.steal_ticks;
    at_least(&s->longest_off_loop, hvm_pcpus[v->place.cpu]->longest_off);
    add_ledger(s, METRONOME_TICKS_OF_LAPIC, &v->ticks);
}

void domain_stats(struct domain *d, struct metronome_stats *s)
{
    memset(s, 0, sizeof(*s));
    for (unsigned v = 0; v < d->vcpus; v++) {
        add_vcpu(s, d->vcpu[v]);
        hvm_breathe();
    }
    add_chipset(s, &d->chipset);
}
