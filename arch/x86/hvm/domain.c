/*
 * A domain's life: made from its slot's header, started, stopped for a reset, a pause or its end, taken apart.
 *
 * Stopping: `action` is set and every vCPU looked at; each stops on its own pCPU; the last one to stop does the action.
 * For the end each also leaves its pCPU; behind the last one nobody holds the domain but the control device's commands.
 */
#include "hvm.h"
#include "loader/loader.h"

#define FIRMWARE_SHADOW 0xc0000ull /* to 1 MiB: RAM with a copy of the firmware's end */
#define VGA_START 0xa0000ull
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

static bool map_arena(struct domain *d, uint64_t gpa, uint64_t offset, uint64_t size, bool writable)
{
    return size == 0 || p2m_map(&d->p2m, gpa, d->slot->physical + METRONOME_DOMAIN_ARENA + offset, size, writable);
}

static bool aligned(uint64_t value, uint64_t to)
{
    return (value & (to - 1)) == 0;
}

static bool valid_range(const struct domain *d, uint64_t offset, uint64_t size)
{
    return domain_arena(d, offset, size) != NULL;
}

/* Checks every field of our copy. */
static int check_header(struct domain *d)
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
    if (!metronome_ticks_valid(h->ticks))
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

/* RAM but for the VGA window, and the firmware below 4 GiB, whose writes vanish. */
static bool map_memory(struct domain *d)
{
    const struct metronome_domain_header *h = &d->header;

    return map_arena(d, 0, 0, VGA_START, true) &&
           map_arena(d, FIRMWARE_SHADOW, FIRMWARE_SHADOW, h->ram_low - FIRMWARE_SHADOW, true) &&
           map_arena(d, GIB4, h->ram_low, h->ram_high, true) &&
           (!d->has_dm || map_arena(d, GIB4 - h->firmware_bytes, h->firmware, h->firmware_bytes, false));
}

/* Makes every vCPU leave the guest, and flush on its way back in; frees tables that none can be walking any more. The fence
 * is the other half of svm_run()'s: either we see it in the guest, or it sees the new generation and tables. */
void domain_translations_changed(struct domain *d)
{
    bool all = true;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < d->vcpus; i++) {
        struct vcpu *v = d->vcpu[i];

        if (__atomic_load_n(&v->state, __ATOMIC_SEQ_CST) != VCPU_IN_GUEST)
            continue;
        all = all && __atomic_load_n(&v->p2m_generation, __ATOMIC_SEQ_CST) == d->p2m.generation;
        vcpu_look(v);
    }
    if (all)
        p2m_reclaim(&d->p2m);
}

bool domain_map(struct domain *d, uint64_t gpa, uint64_t offset, uint64_t size, bool writable)
{
    return valid_range(d, offset, size) && map_arena(d, gpa, offset, size, writable);
}

/* What lies at gpa when no alias covers it: RAM, or nothing. */
bool domain_unmap(struct domain *d, uint64_t gpa, uint64_t size)
{
    const struct metronome_domain_header *h = &d->header;

    for (; size; gpa += PAGE_SIZE, size -= PAGE_SIZE) {
        bool low = gpa < h->ram_low && (gpa < VGA_START || gpa >= FIRMWARE_SHADOW);
        bool high = gpa >= GIB4 && gpa - GIB4 < h->ram_high;
        bool ok = low ? map_arena(d, gpa, gpa, PAGE_SIZE, true)
                : high ? map_arena(d, gpa, gpa - GIB4 + h->ram_low, PAGE_SIZE, true)
                       : p2m_unmap(&d->p2m, gpa, PAGE_SIZE);

        if (!ok)
            return false;
    }
    return true;
}

uint64_t domain_take_dirty(struct domain *d, uint64_t gpa, unsigned pages)
{
    uint64_t written = 0;

    for (unsigned i = 0; i < pages; i++)
        if (p2m_test_and_clear_dirty(&d->p2m, gpa + ((uint64_t)i << PAGE_SHIFT)))
            written |= 1ull << i;
    d->p2m.generation++; /* a cached translation would not set D again */
    return written;
}

/* Every reset copies the firmware's end below 1 MiB afresh: what the guest has made of its copy is gone. */
static void copy_firmware(struct domain *d)
{
    const struct metronome_domain_header *h = &d->header;
    uint64_t bytes = 0x100000 - FIRMWARE_SHADOW;

    if (h->firmware_bytes < bytes)
        bytes = h->firmware_bytes;
    memset(domain_arena(d, FIRMWARE_SHADOW, 0x100000 - FIRMWARE_SHADOW), 0, 0x100000 - FIRMWARE_SHADOW);
    memcpy(domain_arena(d, 0x100000 - bytes, bytes), domain_arena(d, h->firmware + h->firmware_bytes - bytes, bytes), bytes);
}

static void *loader_at(void *ctx, uint64_t gpa, uint64_t size)
{
    struct domain *d = ctx;

    return gpa < d->header.ram_low && size <= d->header.ram_low - gpa ? domain_arena(d, gpa, size) : NULL;
}

/* Firmware leaves the boot CPU's APIC in virtual wire mode: on, the PIC's INT at LINT0, NMI at LINT1 (MP specification 3.6.2.2). */
static void virtual_wire(struct vcpu *v)
{
    uint64_t now = vtime_tsc(&v->domain->time);

    vlapic_write(&v->vlapic, now, 0x0f0, 4, 0x1ff);
    vlapic_write(&v->vlapic, now, 0x350, 4, 0x700);
    vlapic_write(&v->vlapic, now, 0x360, 4, 0x400);
}

/* Loads the module into RAM and points vCPU 0 at it. Returns NULL, or what is wrong with the image. */
static const char *load_module(struct domain *d)
{
    const struct metronome_domain_header *h = &d->header;
    const struct loader_memory memory = {.ctx = d, .at = loader_at, .ram_low = h->ram_low, .ram_high = h->ram_high};
    const struct loader_input input = {
        .image = d->module ? d->module : domain_arena(d, h->module, h->module_bytes), .image_size = h->module_bytes,
        .initrd = !h->initrd_bytes ? NULL : d->initrd ? d->initrd : domain_arena(d, h->initrd, h->initrd_bytes),
        .initrd_size = h->initrd_bytes, .command_line = h->command_line, .vcpus = d->vcpus,
    };
    struct loader_entry entry;
    uint64_t *gpr = d->vcpu[0]->emu.regs.gpr;
    const char *error = loader_load(&input, &memory, &entry);

    if (error)
        return error;
    virtual_wire(d->vcpu[0]);
    vendor->vcpu_start_flat(d->vcpu[0], &entry);
    gpr[EMU_RAX] = entry.eax;
    gpr[EMU_RBX] = entry.ebx;
    gpr[EMU_RSI] = entry.esi;
    gpr[EMU_RDI] = entry.edi;
    gpr[EMU_RSP] = entry.esp;
    return NULL;
}

static const char *reset_machine(struct domain *d, bool power_on)
{
    for (unsigned i = 0; i < d->vcpus; i++)
        vcpu_reset(d->vcpu[i]);
    chipset_reset(d, power_on);
    if (!d->has_dm)
        return load_module(d);
    copy_firmware(d);
    return NULL;
}

/* The machine as it was saved: RAM is there already. */
static bool restore_machine(struct domain *d, const struct restore *r, char *why, size_t size)
{
    for (unsigned i = 0; i < d->vcpus; i++)
        vcpu_reset(d->vcpu[i]);
    chipset_reset(d, true);
    if (!state_restore(d, r->any_tsc, why, size))
        return false;
    for (unsigned i = 0; i < d->vcpus; i++) {
        d->vcpu[i]->lapic_generation = d->vcpu[i]->vlapic.map_generation - 1; /* so that it differs */
        fabric_publish_apic(d->vcpu[i]);
    }
    chipset_restored(d, r->rtc_seconds);
    return true;
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
    }
}

void domain_start(struct domain *d)
{
    spin_lock(&d->lock);
    if (d->action != ACTION_END)
        start(d);
    spin_unlock(&d->lock);
}

/* A pause that is under way ends as soon as it is one. */
void domain_unpause(struct domain *d)
{
    spin_lock(&d->lock);
    if (d->paused && !d->resetting && d->action != ACTION_END)
        start(d);
    else if (d->action == ACTION_PAUSE)
        d->unpause_wanted = true;
    spin_unlock(&d->lock);
}

void domain_console_write(struct domain *d, const uint8_t *bytes, unsigned n)
{
    struct metronome_console *c = (void *)(d->slot->memory + METRONOME_DOMAIN_CONSOLE);
    uint32_t consumed;

    if (!d->slot->registers) {
        standalone_console(d, bytes, n);
        return;
    }
    consumed = __atomic_load_n(&c->out_ring.consumed, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < n; i++) {
        if (d->console_produced - consumed >= sizeof(c->out)) {
            c->dropped++;
            continue;
        }
        c->out[d->console_produced++ % sizeof(c->out)] = bytes[i];
    }
    __atomic_store_n(&c->out_ring.produced, d->console_produced, __ATOMIC_RELEASE);
    slot_ring(d->slot);
}

/* The next byte typed for the guest, or -1. */
static int console_byte(struct domain *d)
{
    struct metronome_console *c = (void *)(d->slot->memory + METRONOME_DOMAIN_CONSOLE);
    uint8_t byte;

    if (!d->slot->registers)
        return console_read();
    if (d->console_consumed == __atomic_load_n(&c->in_ring.produced, __ATOMIC_ACQUIRE))
        return -1;
    byte = c->in[d->console_consumed++ % sizeof(c->in)];
    __atomic_store_n(&c->in_ring.consumed, d->console_consumed, __ATOMIC_RELEASE);
    return byte;
}

void domain_console_poll(struct domain *d)
{
    struct chipset *c = &d->chipset;
    uint64_t now;

    if (d->has_dm || d->action)
        return;
    if (!d->console_holds)
        d->console_held = console_byte(d);
    if (d->console_held < 0)
        return;
    spin_lock(&c->lock);
    now = vtime_master(&d->time);
    while (d->console_held >= 0 && uart_put(&c->uart, (uint8_t)d->console_held))
        d->console_held = console_byte(d);
    d->console_holds = d->console_held >= 0;
    uart_advance(&c->uart, now);
    chipset_update(d, now);
    spin_unlock(&c->lock);
}

static unsigned order_of(size_t bytes)
{
    unsigned order = 0;

    while (bytes > PAGE_SIZE << order)
        order++;
    return order;
}

static unsigned domain_order(void)
{
    return order_of(sizeof(struct domain));
}

static unsigned latency_order(void)
{
    return order_of(sizeof(struct metronome_latency));
}

/* Where the daemon reads it, or the domain's own. */
static bool take_latency(struct domain *d)
{
    d->latency = control_present() ? control_latency(d->slot) : alloc_pages(latency_order());
    return d->latency != NULL;
}

void domain_destroy(struct domain *d)
{
    if (d->latency && !control_present())
        free_pages(d->latency, latency_order());
    for (unsigned i = 0; i < d->vcpus; i++)
        if (d->vcpu[i])
            vcpu_destroy(d->vcpu[i]);
    p2m_destroy(&d->p2m);
    if (d->test_page)
        free_pages(d->test_page, 0);
    d->slot->domain = NULL;
    free_pages(d, domain_order());
}

static int build(struct domain *d)
{
    if (!take_latency(d) || !p2m_init(&d->p2m, d->header.extra >> PAGE_SHIFT) || !map_memory(d))
        return -METRONOME_ENOMEM;
    io_build_ports(d);
    if (!d->has_dm && !(d->test_page = alloc_pages(0)))
        return -METRONOME_ENOMEM;
    for (unsigned i = 0; i < d->vcpus; i++) {
        d->vcpu[i] = vcpu_create(d, i);
        if (!d->vcpu[i])
            return -METRONOME_ENOMEM;
    }
    return 0;
}

/* Gives each vCPU a pCPU; the chipset's deadline lives where vCPU 0 does. */
static void place(struct domain *d)
{
    d->home = sched_place();
    d->placed = d->vcpus;
    for (unsigned i = 0; i < d->vcpus; i++)
        sched_add(d->vcpu[i], i ? sched_place() : d->home);
}

static bool start_machine(struct domain *d, char *why, size_t size)
{
    const char *wrong = reset_machine(d, true);

    if (wrong)
        format_line(why, size, "%s", wrong);
    return !wrong;
}

/* From a checked header to a machine at its first instruction, or where it was saved. */
static int make(struct domain *d, const struct restore *r)
{
    char why[160];
    int error = build(d);

    if (error)
        return error;
    if (!(r ? restore_machine(d, r, why, sizeof(why)) : start_machine(d, why, sizeof(why)))) {
        log_error("domain %u (%s): %s\n", d->slot->index, d->header.name, why);
        control_message(d->slot, why);
        return -METRONOME_ENOEXEC;
    }
    control_publish(d, METRONOME_SLOT_STARTING);
    place(d);
    return 0;
}

/* The description of what is to be made; what was saved brings its own, which the device model then finds as well. */
static int take_header(struct domain *d, const struct restore *r)
{
    void *shared = d->slot->memory + METRONOME_DOMAIN_HEADER;
    const char *wrong;
    int error;

    if (!r) {
        memcpy(&d->header, shared, sizeof(d->header));
        return check_header(d);
    }
    wrong = state_description(d->slot, &d->header);
    error = wrong ? -METRONOME_ENOEXEC : check_header(d);
    if (!error)
        memcpy(shared, &d->header, sizeof(d->header));
    else
        control_message(d->slot, wrong ? wrong : "saved state, description: a domain that cannot be");
    return error;
}

static struct domain *allocate(struct slot *s)
{
    struct domain *d = alloc_pages(domain_order());

    if (!d)
        return NULL;
    d->slot = s;
    memset(d->map.physical, 0xff, sizeof(d->map.physical));
    deadline_init(&d->chipset.deadline, chipset_expire);
    vtime_start(&d->time);
    vtime_stop(&d->time);
    return d;
}

static int create(struct slot *s, const void *module, const void *initrd, const struct restore *r)
{
    struct domain *d = s->domain ? NULL : allocate(s);
    int error;

    if (!d)
        return s->domain ? -METRONOME_EBUSY : -METRONOME_ENOMEM;
    d->module = module;
    d->initrd = initrd;
    error = take_header(d, r);
    if (!error && !sched_room(d->vcpus)) {
        control_message(s, "no room for so many virtual CPUs: a pCPU takes 64");
        error = -METRONOME_ENOMEM;
    }
    if (!error) {
        s->domain = d;
        s->generation++;
        slot_set_waits(s, true);
        error = make(d, r);
    }
    if (error)
        domain_destroy(d);
    return error;
}

int domain_create(struct slot *s, const void *module, const void *initrd)
{
    return create(s, module, initrd, NULL);
}

int domain_restore(struct slot *s, const struct restore *r)
{
    return create(s, NULL, NULL, r);
}

static void set_action(struct domain *d, enum domain_action action)
{
    __atomic_store_n(&d->action, action, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < d->vcpus; i++)
        vcpu_look(d->vcpu[i]);
}

static void end(struct domain *d, enum metronome_end_reason reason, uint32_t code, const char *format, va_list args)
{
    if (d->end != METRONOME_END_NONE)
        return;
    vformat_line(d->end_message, sizeof(d->end_message), format, args);
    d->end = reason;
    d->end_code = code;
    log_info("domain %u (%s): %s\n", d->slot->index, d->header.name, d->end_message);
    set_action(d, ACTION_END);
}

static void crash(struct domain *d, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    end(d, METRONOME_END_CRASH, 0, format, args);
    va_end(args);
}

static void reset(struct domain *d)
{
    const char *why;

    d->resets++;
    log_info("domain %u (%s): reset %u, by port %#x\n", d->slot->index, d->header.name, d->resets, d->reset_cause);
    d->reset_cause = 0;
    why = reset_machine(d, false);
    if (why)
        crash(d, "reset: %s", why);
    else
        start(d);
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
        reset(d);
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
    control_publish(d, METRONOME_SLOT_SHUTDOWN);
    __atomic_store_n(&d->ended, true, __ATOMIC_RELEASE);
    control_ended(d);
}

/* Under the lock. A pause does not take the place of a reset that has begun. */
static bool request(struct domain *d, enum domain_action action)
{
    if (d->action == ACTION_END || (d->action == ACTION_RESET && action == ACTION_PAUSE))
        return false;
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
    for (unsigned v = 0; v < d->vcpus; v++)
        add_vcpu(s, d->vcpu[v]);
    add_chipset(s, &d->chipset);
}
