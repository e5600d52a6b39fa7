/*
 * Requests to the device model. The state machine is private; the shared page carries data. An instruction under
 * emulation that needs several accesses runs again after each answer, and finds those it has made in the vCPU's log.
 */
#include "hvm.h"

static struct metronome_ioreq *shared_request(const struct vcpu *v)
{
    struct metronome_ioreq_page *page = (void *)(v->domain->slot->memory + METRONOME_DOMAIN_IOREQ);

    return &page->vcpu[v->id];
}

static struct metronome_notify *notify_of(const struct domain *d)
{
    return (void *)(d->slot->memory + METRONOME_DOMAIN_NOTIFY);
}

static void send(struct vcpu *v, const struct access *a, uint64_t data, uint8_t flags)
{
    struct metronome_ioreq *r = shared_request(v);

    r->addr = a->address;
    r->data = data;
    r->count = a->count;
    r->size = a->size;
    r->type = a->port ? METRONOME_IOREQ_PIO : METRONOME_IOREQ_COPY;
    __atomic_store_n(&r->state_dir_df, (uint8_t)(flags | METRONOME_IOREQ_READY), __ATOMIC_RELEASE);
    __atomic_fetch_or(&notify_of(v->domain)->vcpu_pending, 1ull << v->id, __ATOMIC_RELEASE);
    slot_ring(v->domain->slot);
}

/* The log's answer for this access, if the instruction has made it in an earlier run. */
static bool replay(struct vcpu *v, const struct access *a, uint64_t *value, uint32_t *done)
{
    struct io_state *io = &v->io;
    const struct access *l = &io->log[io->replayed];

    if (io->replayed == io->logged)
        return false;
    if (l->address != a->address || l->size != a->size || l->write != a->write || l->port != a->port) {
        io->logged = io->replayed; /* the guest changed the code under us: what was answered is no answer to this */
        return false;
    }
    io->replayed++;
    *value = l->value;
    if (done)
        *done = l->count;
    return true;
}

static void record(struct vcpu *v, const struct access *a)
{
    struct io_state *io = &v->io;

    if (io->logged < ACCESS_LOG) {
        io->log[io->logged++] = *a;
        io->replayed = io->logged;
    }
}

enum emu_status ioreq_access(struct vcpu *v, const struct access *a, uint64_t ram_gpa, bool df)
{
    uint8_t flags = (uint8_t)((a->write ? 0 : METRONOME_IOREQ_READ) | (df ? METRONOME_IOREQ_DF : 0));
    uint32_t action = v->domain->action;

    if (action && (action != ACTION_PAUSE || v->domain->resetting))
        return EMU_WAIT; /* for good: nothing new goes out. A pause only puts the answer off. */
    v->io.request = *a;
    v->io.waiting = true;
    if (ram_gpa)
        send(v, a, ram_gpa, flags | METRONOME_IOREQ_DATA_IS_PTR);
    else
        send(v, a, a->write ? a->value : 0, flags);
    trace_put(TRACE_REQUEST, trace_id(v), TRACE_LONG(a->address), a->size | a->write << 8 | a->port << 9);
    if (a->write && trace_on(TRACE_HVM_IOPORT_WRITE)) /* as Xen does: xenalyze forgets an exit that blocks */
        trace_io(a->port, true, a->address, a->value);
    sched_block(v, VCPU_WAIT_IOREQ);
    return EMU_WAIT;
}

static bool post_write(struct domain *d, uint64_t gpa, unsigned size, uint64_t value)
{
    struct metronome_bufioreq_page *b = (void *)(d->slot->memory + METRONOME_DOMAIN_BUFIOREQ);
    uint32_t write = d->posted_writes;
    uint32_t outstanding = write - __atomic_load_n(&b->read_pointer, __ATOMIC_ACQUIRE);
    unsigned code = (unsigned)__builtin_ctz(size);
    unsigned slots = size == 8 ? 2 : 1;

    if (outstanding > METRONOME_BUFIOREQ_SLOTS - slots)
        return false; /* full: this write goes as a request, which QEMU handles after the ring */
    if (write + slots < write && outstanding)
        return false; /* the count wraps, and 2^32 is no multiple of the ring: only empty does it fit */
    for (unsigned i = 0; i < slots; i++)
        b->slot[(write + i) % METRONOME_BUFIOREQ_SLOTS] =
            METRONOME_IOREQ_COPY | code << 10 | (uint64_t)gpa << 12 | (value >> (32 * i)) << 32;
    d->posted_writes = write + slots;
    __atomic_store_n(&b->write_pointer, d->posted_writes, __ATOMIC_RELEASE);
    if (!__atomic_exchange_n(&notify_of(d)->buffered_pending, 1, __ATOMIC_ACQ_REL))
        slot_ring(d->slot);
    return true;
}

/* Posted writes: the VGA window, whose device never answers a write (the ring's addresses have 20 bits). */
bool ioreq_posted_write(struct domain *d, uint64_t gpa, unsigned size, uint64_t value)
{
    bool posted;

    if (gpa < 0xa0000 || gpa + size > 0xc0000)
        return false;
    spin_lock(&d->posted_lock);
    posted = post_write(d, gpa, size, value);
    spin_unlock(&d->posted_lock);
    return posted;
}

bool ioreq_poll(struct vcpu *v)
{
    uint8_t state = __atomic_load_n(&shared_request(v)->state_dir_df, __ATOMIC_ACQUIRE) & METRONOME_IOREQ_STATE_MASK;

    return state == METRONOME_IOREQ_RESPONSE;
}

void ioreq_cancel(struct vcpu *v)
{
    v->io.waiting = v->io.port_in = v->io.again = false;
    v->io.logged = v->io.replayed = 0;
}

uint64_t ioreq_answer(const struct vcpu *v)
{
    return __atomic_load_n(&shared_request(v)->data, __ATOMIC_RELAXED) & all_ones(v->io.request.size);
}

void ioreq_answered(struct vcpu *v, uint64_t value)
{
    struct metronome_ioreq *r = shared_request(v);

    r->data = value;
    __atomic_store_n(&r->state_dir_df, METRONOME_IOREQ_RESPONSE, __ATOMIC_RELEASE);
}

bool ioreq_posted_taken(const struct domain *d)
{
    const struct metronome_bufioreq_page *b = (const void *)(d->slot->memory + METRONOME_DOMAIN_BUFIOREQ);

    return __atomic_load_n(&b->read_pointer, __ATOMIC_ACQUIRE) == d->posted_writes;
}

void ioreq_press_reset(struct vcpu *v)
{
    const struct access a = {.address = 0xcf9, .count = 1, .size = 1, .write = true, .port = true};

    send(v, &a, 6, 0);
}

static void finish_port_in(struct vcpu *v, uint64_t value, unsigned size)
{
    uint64_t *rax = &v->emu.regs.gpr[EMU_RAX];
    uint64_t mask = all_ones(size);

    *rax = size == 4 ? value : (*rax & ~mask) | value;
    v->io.port_in = false;
}

bool ioreq_complete(struct vcpu *v)
{
    struct metronome_ioreq *r = shared_request(v);
    struct access *a = &v->io.request;

    if (!slot_drain_commands(v->domain))
        return false; /* what was queued before the answer takes effect before the vCPU resumes */
    a->value = ioreq_answer(v);
    __atomic_store_n(&r->state_dir_df, METRONOME_IOREQ_NONE, __ATOMIC_RELEASE);
    v->io.waiting = false;
    trace_put(TRACE_ANSWER, trace_id(v));
    if (!a->write && trace_on(TRACE_HVM_IOPORT_READ))
        trace_io(a->port, false, a->address, a->value);
    if (v->io.port_in)
        finish_port_in(v, a->value, a->size);
    else if (v->io.emulating)
        v->io.again = true;
    if (v->io.again)
        record(v, a);
    return true;
}

/* ---- The emulator's view of memory and ports ---- */

static void *ram_page(void *ctx, uint64_t gpa, bool write)
{
    struct vcpu *v = ctx;
    struct ram_entry *r = &v->ram[(gpa >> PAGE_SHIFT) % RAM_CACHE];
    void *memory;

    hvm_breathe();
    if (r->page == (gpa | write) && r->generation == v->emu.ram_generation && r->generation)
        return r->memory;
    memory = io_is_ours(v, gpa) ? NULL : domain_ram(v->domain, gpa, write);
    if (memory)
        *r = (struct ram_entry){gpa | write, v->emu.ram_generation, memory};
    return memory;
}

static enum emu_status logged_access(struct vcpu *v, struct access a, uint64_t *value)
{
    enum emu_status status;

    if (replay(v, &a, value, NULL))
        return EMU_OK;
    hvm_breathe();
    status = a.port ? io_port(v, (uint16_t)a.address, a.size, a.write, value) : io_mmio(v, a.address, a.size, a.write, value);
    if (status == EMU_OK) {
        if (trace_on(TRACE_HVM_IOPORT_READ))
            trace_io(a.port, a.write, a.address, *value);
        a.value = *value;
        record(v, &a);
    }
    return status;
}

static enum emu_status device_read(void *ctx, uint64_t gpa, unsigned size, uint64_t *value)
{
    *value = 0;
    return logged_access(ctx, (struct access){.address = gpa, .size = (uint8_t)size, .count = 1}, value);
}

static enum emu_status device_write(void *ctx, uint64_t gpa, unsigned size, uint64_t value)
{
    return logged_access(ctx, (struct access){.address = gpa, .size = (uint8_t)size, .count = 1, .write = true}, &value);
}

static enum emu_status port_read(void *ctx, uint16_t port, unsigned size, uint64_t *value)
{
    *value = 0;
    return logged_access(ctx, (struct access){.address = port, .size = (uint8_t)size, .count = 1, .port = true}, value);
}

static enum emu_status port_write(void *ctx, uint16_t port, unsigned size, uint64_t value)
{
    return logged_access(ctx, (struct access){.address = port, .size = (uint8_t)size, .count = 1, .port = true, .write = true},
                         &value);
}

/* A run of equal accesses goes to the device model as one request; the hypervisor's own devices take them singly. */
static enum emu_status rep(void *ctx, struct emu_rep *r)
{
    struct vcpu *v = ctx;
    struct access a = {.address = r->device, .count = r->count, .size = r->size, .write = r->to_device, .port = r->is_port};
    uint64_t value = 0;

    hvm_breathe();
    if (!v->domain->has_dm || !r->ram_gpa || r->count < 2)
        return EMU_UNHANDLED;
    if (r->is_port ? v->domain->port_owner[r->device & 0xffff] != OWNER_DM : io_is_ours(v, r->device))
        return EMU_UNHANDLED;
    if (!r->is_port && r->to_device && domain_ram(v->domain, r->device, false))
        return EMU_UNHANDLED; /* read-only memory */
    if (replay(v, &a, &value, &r->done))
        return EMU_OK;
    if (!v->io.further)
        count_exit(v, r->is_port ? METRONOME_EXIT_PORT_DM : METRONOME_EXIT_MMIO_DM);
    return ioreq_access(v, &a, r->ram_gpa, r->backwards);
}

#define XMM(n) \
    case n: \
        if (write) \
            __asm__ volatile("movdqu %0, %%xmm" #n : : "m"(*(const uint64_t (*)[2])value)); \
        else \
            __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(*(uint64_t (*)[2])value)); \
        break;

/* The guest's XMM registers are live in the CPU: the hypervisor is compiled without SSE. */
static void xmm_access(unsigned reg, uint64_t *value, bool write)
{
    switch (reg) {
        XMM(0) XMM(1) XMM(2) XMM(3) XMM(4) XMM(5) XMM(6) XMM(7)
        XMM(8) XMM(9) XMM(10) XMM(11) XMM(12) XMM(13) XMM(14) XMM(15)
    }
}

static void xmm_read(void *ctx, unsigned reg, uint64_t value[2])
{
    (void)ctx;
    xmm_access(reg, value, false);
}

static void xmm_write(void *ctx, unsigned reg, const uint64_t value[2])
{
    uint64_t copy[2] = {value[0], value[1]};

    (void)ctx;
    xmm_access(reg, copy, true);
}

/* The hardware has checked IOPL and the TSS's bitmap before it gave the exit (APM 2 15.10.1). */
static bool port_allowed(void *ctx, uint16_t port, unsigned size)
{
    (void)ctx;
    (void)port;
    (void)size;
    return true;
}

/* An iteration is committed: the next one's accesses are new. */
static void retire(void *ctx)
{
    struct vcpu *v = ctx;

    v->io.logged = v->io.replayed = 0;
    v->io.further = true;
}

/* What waits for this vCPU or its pCPU does not wait for a whole REP. */
static bool enough(void *ctx)
{
    struct vcpu *v = ctx;

    if (!vendor->let_in) /* then nothing can have come since the exit */
        return false;
    hvm_breathe();
    return hvm_called(this_hvm()) || __atomic_load_n(&v->posted.on, __ATOMIC_RELAXED);
}

const struct emu_ops emulator_ops = {
    .ram_page = ram_page, .device_read = device_read, .device_write = device_write, .port_read = port_read,
    .port_write = port_write, .rep = rep, .retire = retire, .enough = enough, .xmm_read = xmm_read, .xmm_write = xmm_write, .port_allowed = port_allowed,
};
