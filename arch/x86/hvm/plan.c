/*
 * What takes long with a domain: it is made, restored, reset or taken apart by a plan, a list of steps. A step does a part of
 * its work at a time (work.c). Only one plan is carried out on a slot at a time, and nobody else changes the domain
 * meanwhile: it is not placed yet, its vCPUs have stopped, or they have left.
 */
#include "hvm.h"

#define FIRMWARE_SHADOW 0xc0000ull /* to 1 MiB: RAM with a copy of the firmware's end */
#define VGA_START 0xa0000ull
#define MIB1 0x100000ull
#define GIB4 (1ull << 32)
#define CMOS_FIRST 14u
#define CMOS_CENTURY 0x32u
#define CMOS_PART 8u

enum { NEXT = 0, MORE = 1 }; /* what a step says: the next one, this one again, or a negative METRONOME_E* */

struct plan {
    int (*const *step)(struct slot *s); /* to NULL */
    void (*end)(struct slot *s, int status); /* behind the last one, or one that failed */
};

static unsigned order_of(size_t bytes)
{
    unsigned order = 0;

    while (bytes > PAGE_SIZE << order)
        order++;
    return order;
}

/* ---- Memory: taken by a step, cleared before that is called again ---- */

static int take_area(struct slot *s, size_t bytes)
{
    struct progress *p = &s->progress;

    p->area_order = order_of(bytes);
    p->area = alloc_pages_uncleared(p->area_order);
    p->uncleared = p->area ? PAGE_SIZE << p->area_order : 0;
    return p->area ? MORE : -METRONOME_ENOMEM;
}

static bool clear_area(struct progress *p)
{
    if (!p->uncleared)
        return false;
    p->uncleared -= PAGE_SIZE;
    memset(p->area + p->uncleared, 0, PAGE_SIZE);
    return true;
}

/* The area, which is the step's now; NULL: it is to take one. */
static void *taken(struct slot *s)
{
    void *area = s->progress.area;

    s->progress.area = NULL;
    return area;
}

static int refuse(struct slot *s, int error, const char *why)
{
    format_line(s->progress.why, sizeof(s->progress.why), "%s", why);
    return error;
}

/* ---- Making ---- */

static unsigned promised; /* places on pCPUs for vCPUs of domains that are being made */

static int take_domain(struct slot *s)
{
    struct domain *d = taken(s);

    if (!d)
        return take_area(s, sizeof(struct domain));
    d->slot = s;
    memset(d->map.physical, 0xff, sizeof(d->map.physical));
    deadline_init(&d->chipset.deadline, chipset_expire);
    vtime_start(&d->time);
    vtime_stop(&d->time);
    s->domain = d;
    s->generation++;
    return NEXT;
}

static int promise_places(struct slot *s)
{
    if (!sched_room(s->domain->vcpus + promised))
        return refuse(s, -METRONOME_ENOMEM, "no room for so many virtual CPUs: a pCPU takes 64");
    promised += s->domain->vcpus;
    s->progress.promised = s->domain->vcpus;
    slot_set_waits(s, true);
    return NEXT;
}

static int take_description(struct slot *s)
{
    struct domain *d = s->domain;

    memcpy(&d->header, s->memory + METRONOME_DOMAIN_HEADER, sizeof(d->header));
    return domain_check_header(d);
}

/* What was saved brings its own description, which the device model then finds as well. */
static int take_saved_description(struct slot *s)
{
    struct domain *d = s->domain;
    const char *wrong = state_description(s, &d->header);
    int error = wrong ? -METRONOME_ENOEXEC : domain_check_header(d);

    if (error)
        return refuse(s, error, wrong ? wrong : "saved state, description: a domain that cannot be");
    memcpy(s->memory + METRONOME_DOMAIN_HEADER, &d->header, sizeof(d->header));
    return NEXT;
}

/* In the control device's memory, where the daemon reads it, or the domain's own. */
static int take_latency(struct slot *s)
{
    struct domain *d = s->domain;
    struct progress *p = &s->progress;

    if (!control_records()) {
        d->latency = taken(s);
        return d->latency ? NEXT : take_area(s, sizeof(*d->latency));
    }
    d->latency = control_latency(s);
    memset((uint8_t *)d->latency + p->at, 0, PAGE_SIZE);
    p->at += PAGE_SIZE;
    return p->at < sizeof(*d->latency) ? MORE : NEXT;
}
_Static_assert(sizeof(struct metronome_latency) % PAGE_SIZE == 0, "cleared by pages");

static int make_tables(struct slot *s)
{
    return p2m_init(&s->domain->p2m, s->domain->header.extra >> PAGE_SHIFT) ? NEXT : -METRONOME_ENOMEM;
}

/* RAM but for the VGA window, and the firmware below 4 GiB, whose writes vanish. */
static int map_memory(struct slot *s)
{
    struct domain *d = s->domain;
    const struct metronome_domain_header *h = &d->header;
    const struct {
        uint64_t gpa, offset, size;
        bool writable;
    } ranges[] = {
        {0, 0, VGA_START, true},
        {FIRMWARE_SHADOW, FIRMWARE_SHADOW, h->ram_low - FIRMWARE_SHADOW, true},
        {GIB4, h->ram_low, h->ram_high, true},
        {GIB4 - h->firmware_bytes, h->firmware, d->has_dm ? h->firmware_bytes : 0, false},
    };
    uint64_t at = s->progress.at;
    int64_t done;

    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); at -= ranges[i++].size) {
        if (at >= ranges[i].size)
            continue;
        done = domain_map(d, ranges[i].gpa + at, ranges[i].offset + at, ranges[i].size - at, ranges[i].writable);
        s->progress.at += done > 0 ? (uint64_t)done : 0;
        return done < 0 ? -METRONOME_ENOMEM : MORE;
    }
    return NEXT;
}

static int make_ports(struct slot *s)
{
    io_build_ports(s->domain);
    return NEXT;
}

static int make_test_page(struct slot *s)
{
    struct domain *d = s->domain;

    if (d->has_dm)
        return NEXT;
    d->test_page = taken(s);
    return d->test_page ? NEXT : take_area(s, PAGE_SIZE);
}

/* Each first its own memory, then its FPU's, then the vendor's part. */
static int make_vcpus(struct slot *s)
{
    struct domain *d = s->domain;
    unsigned n = (unsigned)s->progress.at;
    struct vcpu *v = d->vcpu[n];

    if (!s->progress.area && (!v || !v->fpu))
        return take_area(s, v ? vcpu_fpu_bytes() : sizeof(*v));
    if (!v) {
        d->vcpu[n] = taken(s);
        vcpu_init(d->vcpu[n], d, n);
        return MORE;
    }
    if (!v->fpu) {
        v->fpu = taken(s);
        return MORE;
    }
    if (!vendor->vcpu_init(v))
        return -METRONOME_ENOMEM;
    return ++s->progress.at < d->vcpus ? MORE : NEXT;
}

/* The chipset's deadline lives where vCPU 0 does. That comes last: with it the domain is known to pCPUs. */
static int place(struct slot *s)
{
    struct domain *d = s->domain;
    unsigned left = d->vcpus - ++d->placed;

    d->home = sched_place();
    promised--;
    s->progress.promised--;
    if (!left)
        control_publish(d, METRONOME_SLOT_STARTING);
    sched_add(d->vcpu[left], d->home);
    return left ? MORE : NEXT;
}

/* ---- A machine at its first instruction ---- */

/* The chipset first: what it still sends to vCPUs is gone with their own reset. */
static int power_on_chipset(struct slot *s)
{
    chipset_reset(s->domain, true);
    return NEXT;
}

static int reset_chipset(struct slot *s)
{
    chipset_reset(s->domain, false);
    return NEXT;
}

/* With what the firmware expects to find, but for the clock's own registers: time, A to D, and the century. */
static int fill_cmos(struct slot *s)
{
    struct domain *d = s->domain;

    for (unsigned i = 0; i < CMOS_PART; i++) {
        unsigned at = CMOS_FIRST + (unsigned)s->progress.at++;

        if (at == sizeof(d->header.cmos))
            return NEXT;
        if (at != CMOS_CENTURY)
            rtc_cmos_set(&d->chipset.rtc, at, d->header.cmos[at]);
    }
    return MORE;
}

static int reset_vcpus(struct slot *s)
{
    vcpu_reset(s->domain->vcpu[s->progress.at]);
    return ++s->progress.at < s->domain->vcpus ? MORE : NEXT;
}

static void *loader_at(void *ctx, uint64_t gpa, uint64_t size)
{
    struct domain *d = ctx;

    hvm_breathe();
    return gpa < d->header.ram_low && size <= d->header.ram_low - gpa ? domain_arena(d, gpa, size) : NULL;
}

static const char *look_at_module(struct domain *d)
{
    const struct metronome_domain_header *h = &d->header;
    const struct slot *s = d->slot;
    const struct loader_memory memory = {.ctx = d, .at = loader_at, .ram_low = h->ram_low, .ram_high = h->ram_high,
                                         .pause = hvm_breathe};
    const struct loader_input input = {
        .image = s->module ? s->module : domain_arena(d, h->module, h->module_bytes), .image_size = h->module_bytes,
        .initrd = !h->initrd_bytes ? NULL : s->initrd ? s->initrd : domain_arena(d, h->initrd, h->initrd_bytes),
        .initrd_size = h->initrd_bytes, .command_line = h->command_line, .vcpus = d->vcpus,
    };

    return loader_begin(&d->loader, &input, &memory);
}

/* Firmware leaves the boot CPU's APIC in virtual wire mode: on, the PIC's INT at LINT0, NMI at LINT1 (MP specification 3.6.2.2). */
static void virtual_wire(struct vcpu *v)
{
    uint64_t now = vtime_tsc(&v->domain->time);

    vlapic_write(&v->vlapic, now, 0x0f0, 4, 0x1ff);
    vlapic_write(&v->vlapic, now, 0x350, 4, 0x700);
    vlapic_write(&v->vlapic, now, 0x360, 4, 0x400);
}

static void enter_module(struct vcpu *v, const struct loader_entry *entry)
{
    uint64_t *gpr = v->emu.regs.gpr;

    virtual_wire(v);
    vendor->vcpu_start_flat(v, entry);
    gpr[EMU_RAX] = entry->eax;
    gpr[EMU_RBX] = entry->ebx;
    gpr[EMU_RSI] = entry->esi;
    gpr[EMU_RDI] = entry->edi;
    gpr[EMU_RSP] = entry->esp;
}

/* Without device model: puts the module into RAM and points vCPU 0 at it. */
static int load_module(struct slot *s)
{
    struct domain *d = s->domain;
    const char *error;

    if (d->has_dm)
        return NEXT;
    if (!s->progress.at++) {
        error = look_at_module(d);
        return error ? refuse(s, -METRONOME_ENOEXEC, error) : MORE;
    }
    if (loader_continue(&d->loader, &error))
        return MORE;
    if (error)
        return refuse(s, -METRONOME_ENOEXEC, error);
    enter_module(d->vcpu[0], &d->loader.entry);
    return NEXT;
}

/* Every reset copies the firmware's end below 1 MiB afresh: what the guest has made of its copy is gone. */
static int copy_firmware(struct slot *s)
{
    struct domain *d = s->domain;
    const struct metronome_domain_header *h = &d->header;
    uint64_t to = FIRMWARE_SHADOW + s->progress.at, from_end = MIB1 - to;

    if (!d->has_dm)
        return NEXT;
    if (from_end > h->firmware_bytes)
        memset(domain_arena(d, to, PAGE_SIZE), 0, PAGE_SIZE);
    else
        memcpy(domain_arena(d, to, PAGE_SIZE), domain_arena(d, h->firmware + h->firmware_bytes - from_end, PAGE_SIZE), PAGE_SIZE);
    s->progress.at += PAGE_SIZE;
    return from_end > PAGE_SIZE ? MORE : NEXT;
}

/* ---- A machine as it was saved: RAM is there already ---- */

/* A record at a time; each is copied into memory of our own first. */
static int restore_records(struct slot *s)
{
    struct progress *p = &s->progress;
    char why[160];
    int status;

    if (!s->reader.copy) {
        if (!p->area)
            return take_area(s, STATE_COPY_BYTES);
        s->reader.copy = taken(s);
    }
    status = state_restore(s->domain, (uint32_t)p->at++, why, sizeof(why));
    return status < 0 ? refuse(s, status, why) : status;
}

static int publish_apics(struct slot *s)
{
    struct vcpu *v = s->domain->vcpu[s->progress.at];

    v->lapic_generation = v->vlapic.map_generation - 1; /* so that it differs */
    fabric_publish_apic(v);
    return ++s->progress.at < s->domain->vcpus ? MORE : NEXT;
}

static int follow_clock(struct slot *s)
{
    chipset_restored(s->domain, s->restore.rtc_seconds);
    return NEXT;
}

/* ---- Taking apart ---- */

static int break_promise(struct slot *s)
{
    promised -= s->progress.promised;
    s->progress.promised = 0;
    return NEXT;
}

/* What was being made when it failed. */
static int free_area(struct slot *s)
{
    free_pages(taken(s), s->progress.area_order);
    free_pages(s->reader.copy, order_of(STATE_COPY_BYTES));
    s->reader.copy = NULL;
    return NEXT;
}

static int free_vcpus(struct slot *s)
{
    struct domain *d = s->domain;
    struct vcpu *v = d ? d->vcpu[s->progress.at] : NULL;

    if (!v)
        return NEXT;
    if (v->vendor) {
        vendor->vcpu_destroy(v);
        v->vendor = NULL;
        return MORE;
    }
    d->vcpu[s->progress.at++] = NULL;
    free_pages(v->fpu, order_of(vcpu_fpu_bytes()));
    free_pages(v->view, order_of(P2M_VIEW_TABLES * PAGE_SIZE));
    free_pages(v, order_of(sizeof(*v)));
    return s->progress.at < METRONOME_MAX_VCPUS ? MORE : NEXT;
}

static int free_tables(struct slot *s)
{
    return s->domain && p2m_destroy(&s->domain->p2m) ? MORE : NEXT;
}

static int free_domain(struct slot *s)
{
    struct domain *d = s->domain;

    if (!d)
        return NEXT;
    if (!control_records())
        free_pages(d->latency, order_of(sizeof(*d->latency)));
    free_pages(d->test_page, 0);
    s->domain = NULL;
    free_pages(d, order_of(sizeof(*d)));
    return NEXT;
}

/* ---- Saving ---- */

/* What the device model had said before is in the state. */
static int drain_commands(struct slot *s)
{
    return slot_drain_commands(s->domain) ? NEXT : MORE;
}

static int save_records(struct slot *s)
{
    return state_save(s->domain, (uint32_t)s->progress.at++);
}

/* ---- The plans ---- */

static int (*const making[])(struct slot *s) = {
    take_domain, take_description, promise_places, take_latency, make_tables, map_memory, make_ports, make_test_page, make_vcpus,
    power_on_chipset, fill_cmos, reset_vcpus, load_module, copy_firmware, place, NULL,
};
static int (*const restoring[])(struct slot *s) = {
    take_domain, take_saved_description, promise_places, take_latency, make_tables, map_memory, make_ports, make_test_page,
    make_vcpus, power_on_chipset, reset_vcpus, restore_records, publish_apics, follow_clock, free_area, place, NULL,
};
static int (*const resetting[])(struct slot *s) = {reset_chipset, reset_vcpus, load_module, copy_firmware, NULL};
static int (*const saving[])(struct slot *s) = {drain_commands, save_records, NULL};
static int (*const taking_apart[])(struct slot *s) = {break_promise, free_area, free_vcpus, free_tables, free_domain, NULL};

static void made(struct slot *s, int status);
static void reset(struct slot *s, int status)
{
    domain_was_reset(s->domain, status ? s->progress.why : NULL);
}
static void unmade(struct slot *s, int status)
{
    (void)status;
    control_finished(s, s->progress.failure);
}
static void taken_apart(struct slot *s, int status)
{
    (void)status;
    control_destroyed(s);
}
static const struct plan plan_make = {making, made}, plan_restore = {restoring, made}, plan_reset = {resetting, reset},
                         plan_save = {saving, control_finished}, plan_unmake = {taking_apart, unmade},
                         plan_take_apart = {taking_apart, taken_apart};

static void begin(struct slot *s, const struct plan *plan)
{
    struct progress *p = &s->progress;

    p->step = plan->step;
    p->at = 0;
    __atomic_store_n(&p->plan, plan, __ATOMIC_RELEASE);
    work_add(&p->work);
}

/* The plan's end may want the next one. */
static void end(struct slot *s, int status)
{
    struct progress *p = &s->progress;
    const struct plan *plan = p->plan;

    spin_lock(&p->lock);
    __atomic_store_n(&p->plan, NULL, __ATOMIC_RELEASE);
    if (p->wanted)
        begin(s, p->wanted);
    p->wanted = NULL;
    spin_unlock(&p->lock);
    plan->end(s, status);
    hvm_attention(0, ATTENTION_CONTROL);
}

/* The next part of a slot's plan; false: that was the last one. */
static bool go_on(struct work *w)
{
    struct slot *s = (struct slot *)((char *)w - offsetof(struct slot, progress.work));
    struct progress *p = &s->progress;
    int status = clear_area(p) ? MORE : (*p->step)(s);

    if (status == MORE)
        return true;
    p->at = 0;
    if (status == NEXT && *++p->step)
        return true;
    end(s, status);
    return false;
}

/* Behind the one that is under way: a reset may come while its domain is being saved. */
static void carry_out(struct slot *s, const struct plan *plan)
{
    struct progress *p = &s->progress;

    spin_lock(&p->lock);
    p->work.part = go_on;
    if (p->plan)
        p->wanted = plan;
    else
        begin(s, plan);
    spin_unlock(&p->lock);
}

/* What has begun is taken back. */
static void made(struct slot *s, int status)
{
    struct progress *p = &s->progress;

    if (!status) {
        s->domain->made = true;
        if (!s->domain->has_dm && control_present())
            domain_start(s->domain);
        control_finished(s, 0);
        return;
    }
    if (p->why[0])
        log_error("domain %u: %s\n", s->index, p->why);
    control_message(s, p->why);
    p->failure = status;
    carry_out(s, &plan_unmake);
}

void domain_make(struct slot *s)
{
    s->progress.why[0] = 0;
    carry_out(s, &plan_make);
}

void domain_restore(struct slot *s, const struct restore *r)
{
    s->restore = *r;
    s->progress.why[0] = 0;
    carry_out(s, &plan_restore);
}

void domain_reset(struct domain *d)
{
    carry_out(d->slot, &plan_reset);
}

void domain_save(struct domain *d)
{
    carry_out(d->slot, &plan_save);
}

void domain_take_apart(struct slot *s)
{
    s->domain->made = false;
    carry_out(s, &plan_take_apart);
}

bool domain_in_progress(const struct slot *s)
{
    return __atomic_load_n(&s->progress.plan, __ATOMIC_ACQUIRE) != NULL;
}
