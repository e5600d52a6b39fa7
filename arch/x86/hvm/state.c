/*
 * A domain's state to and from records in its slot's memory (include/public/state.h). Saving is done in parts, the
 * domain stopped and its time with it. What is restored comes from a file, and through memory that a device model can
 * write: each record is copied once, and nothing of the copy is used that has not been checked.
 */
#include "hvm.h"

#define RECORD_ROUND 8u
#define TSC_TOLERANCE_PPM 100u /* what two calibrations of one clock may differ by */
#define TSC_HZ_MIN 16000000u /* above the crystal's: no TSC is so late that its count does not fit */
#define TSC_HZ_MAX 100000000000ull
#define XSAVE_HEADER 512u /* in an XSAVE area: XSTATE_BV, XCOMP_BV, zeros */
#define XSAVE_HEADER_END 576u
#define MXCSR 24u
#define MXCSR_MASK 28u
#define SEGMENT_L 0x200u
#define SEGMENT_DB 0x400u
#define RFLAGS_DEFINED 0x3f7fd5u /* but for bit 1, which is always set */

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* A record's value to restore from: a private copy. */
struct value {
    const uint8_t *at;
    uint32_t bytes;
};

/* ---- Values that are lists of fields ---- */

/* `count` integers of `size` bytes, each at most `max`. */
struct field {
    uint32_t offset, size, count;
    uint64_t max;
};
#define FIELD_AT(type, member, element, max) {offsetof(type, member), sizeof(element), sizeof(((type *)0)->member) / (sizeof(element)), max}

static uint64_t load_integer(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, at, size);
    return value;
}

static uint32_t save_fields(const void *object, const struct field *f, unsigned n, uint8_t *to)
{
    uint32_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        memcpy(to + bytes, (const uint8_t *)object + f[i].offset, f[i].size * f[i].count);
        bytes += f[i].size * f[i].count;
    }
    return bytes;
}

static bool restore_fields(void *object, const struct field *f, unsigned n, struct value v)
{
    uint32_t done = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t bytes = f[i].size * f[i].count;

        if (bytes > v.bytes - done)
            return false;
        for (uint32_t at = done; at < done + bytes; at += f[i].size)
            if (load_integer(v.at + at, f[i].size) > f[i].max)
                return false;
        memcpy((uint8_t *)object + f[i].offset, v.at + done, bytes);
        done += bytes;
    }
    return done == v.bytes;
}

/* ---- The domain's records ---- */

static uint32_t save_header(struct domain *d, struct vcpu *v, uint8_t *to)
{
    (void)v;
    memcpy(to, &d->header, sizeof(d->header));
    return sizeof(d->header);
}

/* It has been taken before the domain was made. */
static const char *restore_header(struct domain *d, struct vcpu *v, struct value from)
{
    (void)d;
    (void)v;
    return from.bytes == sizeof(d->header) ? NULL : "wrong length";
}

static uint32_t save_cpu(struct domain *d, struct vcpu *v, uint8_t *to)
{
    uint32_t words[CPUID_WORDS] = {0};

    (void)d;
    (void)v;
    cpuid_save(words);
    memcpy(to, words, sizeof(words));
    return sizeof(words);
}

static const char *restore_cpu(struct domain *d, struct vcpu *v, struct value from)
{
    uint32_t words[CPUID_WORDS];

    (void)d;
    (void)v;
    if (from.bytes != sizeof(words))
        return "wrong length";
    memcpy(words, from.at, sizeof(words));
    return cpuid_covers(words) ? NULL : "the guest was saved on a CPU with features that this one lacks";
}

struct saved_time {
    uint64_t tsc, tsc_hz;
    uint32_t resets, reset_cause;
};

static uint32_t save_time(struct domain *d, struct vcpu *v, uint8_t *to)
{
    const struct saved_time t = {d->time.stopped_at, d->time.tsc_hz, d->resets, d->reset_cause};

    (void)v;
    memcpy(to, &t, sizeof(t));
    return sizeof(t);
}

static bool same_clock(uint64_t hz)
{
    uint64_t difference = hz > tsc_hz ? hz - tsc_hz : tsc_hz - hz;

    return difference <= tsc_hz / 1000000 * TSC_TOLERANCE_PPM;
}

/* Whether the frequency fits is for state_restore() to say: here it must only be one. */
static const char *restore_time(struct domain *d, struct vcpu *v, struct value from)
{
    struct saved_time t;

    (void)v;
    if (from.bytes != sizeof(t))
        return "wrong length";
    memcpy(&t, from.at, sizeof(t));
    if (t.tsc_hz < TSC_HZ_MIN || t.tsc_hz > TSC_HZ_MAX || t.reset_cause > 0xffff)
        return "no such value";
    d->time.stopped_at = t.tsc;
    d->time.tsc_hz = t.tsc_hz;
    d->resets = t.resets;
    d->reset_cause = t.reset_cause;
    return NULL;
}

/* Is an APIC of the vCPU, and of the CPU, that the other one was made for? */
static bool same_apic(const struct vlapic *a, const struct vlapic *b)
{
    return a->apic_id == b->apic_id && !((a->apic_base ^ b->apic_base) & APIC_BASE_BSP) && a->phys_bits == b->phys_bits &&
           a->features == b->features;
}

/* A model: its struct is what is saved. `fits` may compare it with `made`, the one that this domain was made with. */
#define MODEL(name, model, fits) \
    static uint32_t save_##name(struct domain *d, struct vcpu *v, uint8_t *to) \
    { \
        (void)d; \
        (void)v; \
        memcpy(to, &(model), sizeof(model)); \
        return sizeof(model); \
    } \
    static const char *restore_##name(struct domain *d, struct vcpu *v, struct value from) \
    { \
        const __typeof__(model) made = model; \
        (void)d; \
        (void)v; \
        (void)made; \
        if (from.bytes != sizeof(model)) \
            return "wrong length"; \
        memcpy(&(model), from.at, sizeof(model)); \
        return name##_check(&(model)) && (fits) ? NULL : "a state that the device cannot be in"; \
    }
MODEL(vpic, d->chipset.vpic, true)
MODEL(vioapic, d->chipset.vioapic, d->chipset.vioapic.pins == made.pins)
MODEL(vpit, d->chipset.vpit, true)
MODEL(hpet, d->chipset.hpet, true)
MODEL(rtc, d->chipset.rtc, true)
MODEL(pmtimer, d->chipset.pmtimer, true)
MODEL(uart, d->chipset.uart, true)
MODEL(vlapic, v->vlapic, same_apic(&v->vlapic, &made))

#define LINES(member, element, max) FIELD_AT(struct chipset, member, element, max)
static const struct field line_fields[] = {
    LINES(gsi_sources, uint32_t, (1u << SOURCE_COUNT) - 1), LINES(rises_seen, uint64_t, UINT64_MAX),
    LINES(hpet_gsi, uint32_t, UINT32_MAX),                  LINES(int_rises, uint64_t, UINT64_MAX),
    LINES(int_level, uint32_t, 1),                          LINES(link_devices, uint32_t, UINT32_MAX),
    LINES(link_irq, uint8_t, 15),                           LINES(ledger, uint64_t, UINT64_MAX),
    LINES(pci_address, uint32_t, UINT32_MAX),               LINES(pm_base_register, uint32_t, UINT32_MAX),
    LINES(pm_enabled, bool, 1),                             LINES(ticks_seen, uint64_t, UINT64_MAX),
    LINES(expiries_put_off, uint64_t, UINT64_MAX),         LINES(ticks_deadline, uint64_t, UINT64_MAX),
};

static uint32_t save_lines(struct domain *d, struct vcpu *v, uint8_t *to)
{
    (void)v;
    return save_fields(&d->chipset, line_fields, COUNT(line_fields), to);
}

static const char *restore_lines(struct domain *d, struct vcpu *v, struct value from)
{
    (void)v;
    if (!restore_fields(&d->chipset, line_fields, COUNT(line_fields), from) ||
        !chipset_check(&d->chipset))
        return "a state that the lines cannot be in";
    return NULL;
}

/* The byte that has been taken from the console and waits for room in the UART, if there is one. */
static uint32_t save_console(struct domain *d, struct vcpu *v, uint8_t *to)
{
    (void)v;
    if (!d->console_holds)
        return 0;
    *to = (uint8_t)d->console_held;
    return 1;
}

static const char *restore_console(struct domain *d, struct vcpu *v, struct value from)
{
    (void)v;
    if (from.bytes > (d->has_dm ? 0 : 1))
        return "wrong length";
    d->console_holds = from.bytes != 0;
    if (d->console_holds)
        d->console_held = *from.at;
    return NULL;
}

static uint32_t save_test_page(struct domain *d, struct vcpu *v, uint8_t *to)
{
    (void)v;
    if (!d->test_page)
        return 0;
    memcpy(to, d->test_page, PAGE_SIZE);
    return PAGE_SIZE;
}

static const char *restore_test_page(struct domain *d, struct vcpu *v, struct value from)
{
    (void)v;
    if (from.bytes != (d->test_page ? PAGE_SIZE : 0))
        return "wrong length";
    if (d->test_page)
        memcpy(d->test_page, from.at, PAGE_SIZE);
    return NULL;
}

/* ---- A vCPU's records ---- */

static uint32_t save_registers(struct domain *d, struct vcpu *v, uint8_t *to)
{
    struct metronome_state_registers r = {.xcr0 = v->xcr0};

    (void)d;
    vendor->get_registers(v, &r);
    memcpy(r.gpr, v->emu.regs.gpr, sizeof(r.gpr));
    memcpy(r.dr, v->dr, sizeof(r.dr));
    memcpy(to, &r, sizeof(r));
    return sizeof(r);
}

static bool canonical(uint64_t address)
{
    return (int64_t)(address << 16) >> 16 == (int64_t)address;
}

static bool valid_control(const struct metronome_state_registers *r)
{
    bool pg = r->cr0 & CR0_PG, lma = r->efer & EFER_LMA;

    if (r->cr0 >> 32 || (pg && !(r->cr0 & CR0_PE)) || ((r->cr0 & CR0_NW) && !(r->cr0 & CR0_CD)))
        return false;
    if (r->cr3 >> cpu_features.phys_bits || (r->cr4 & ~cr4_allowed()) || (r->efer & ~EFER_ALLOWED))
        return false;
    return lma == (pg && (r->efer & EFER_LME)) && (!lma || (r->cr4 & CR4_PAE)) && (lma || !(r->cr4 & CR4_PCIDE));
}

/* Virtual 8086 mode is neither real mode nor long mode, and code is not of 64 and of 32 bits at once. */
static bool valid_mode(const struct metronome_state_registers *r)
{
    bool lma = r->efer & EFER_LMA;

    if ((r->rflags & RFLAGS_VM) && (lma || !(r->cr0 & CR0_PE)))
        return false;
    return !lma || (r->cs.attributes & (SEGMENT_L | SEGMENT_DB)) != (SEGMENT_L | SEGMENT_DB);
}

/* Descriptors hold 32 bits of a base, but for what MSRs and system descriptors extend; tables are at most 64 KiB long. */
static bool valid_segments(const struct metronome_state_registers *r)
{
    const struct metronome_state_segment segments[] = {r->es, r->cs, r->ss, r->ds, r->fs, r->gs, r->ldtr, r->tr};

    for (unsigned i = 0; i < COUNT(segments); i++)
        if (segments[i].attributes >> 12 || (i < 4 ? segments[i].base >> 32 != 0 : !canonical(segments[i].base)))
            return false;
    return r->gdtr.limit <= 0xffff && r->idtr.limit <= 0xffff && canonical(r->gdtr.base) && canonical(r->idtr.base);
}

/* XCR0 bit 0 is always set, AVX needs SSE. */
static bool valid_xcr0(uint64_t xcr0)
{
    return (xcr0 & 1) && !(xcr0 & ~(cpu_features.xsave ? xcr0_allowed() : 1)) && (!(xcr0 & 4) || (xcr0 & 2));
}

static bool valid_registers(const struct metronome_state_registers *r)
{
    const uint64_t addresses[] = {r->rip, r->lstar, r->cstar, r->kernel_gs_base, r->sysenter_esp, r->sysenter_eip};

    for (unsigned i = 0; i < COUNT(addresses); i++)
        if (!canonical(addresses[i]))
            return false;
    return valid_control(r) && valid_mode(r) && valid_segments(r) && valid_xcr0(r->xcr0) && !(r->dr6 >> 32) &&
           !(r->dr7 >> 32) && r->cpl <= 3 && r->interrupt_shadow <= 1 && (r->rflags & ~RFLAGS_DEFINED) == 2;
}

static const char *restore_registers(struct domain *d, struct vcpu *v, struct value from)
{
    struct metronome_state_registers r;

    (void)d;
    if (from.bytes != sizeof(r))
        return "wrong length";
    memcpy(&r, from.at, sizeof(r));
    if (!valid_registers(&r))
        return "values that no CPU can have";
    memcpy(v->emu.regs.gpr, r.gpr, sizeof(r.gpr));
    memcpy(v->dr, r.dr, sizeof(r.dr));
    v->xcr0 = r.xcr0;
    vendor->set_registers(v, &r);
    return NULL;
}

static uint32_t save_msrs(struct domain *d, struct vcpu *v, uint8_t *to)
{
    struct metronome_state_msr list[MSRS_SAVED];
    uint32_t bytes = msr_save(v, list) * (uint32_t)sizeof(list[0]);

    (void)d;
    memcpy(to, list, bytes);
    return bytes;
}

static const char *restore_msrs(struct domain *d, struct vcpu *v, struct value from)
{
    (void)d;
    if (from.bytes % sizeof(struct metronome_state_msr))
        return "wrong length";
    for (uint32_t at = 0; at < from.bytes; at += sizeof(struct metronome_state_msr)) {
        struct metronome_state_msr m;

        memcpy(&m, from.at + at, sizeof(m));
        if (!msr_restore(v, m.index, m.value))
            return "an MSR or a value that this hypervisor does not know";
    }
    return NULL;
}

#define EVENTS(member, element, max) FIELD_AT(struct vcpu, member, element, max)
static const struct field event_fields[] = {
    EVENTS(nmi_pending, unsigned, 2),          EVENTS(nmi_blocked, bool, 1),         EVENTS(extint_pending, bool, 1),
    EVENTS(event_pending, bool, 1),            EVENTS(event_vector, uint8_t, 255),   EVENTS(event_type, uint8_t, EVENT_SOFTWARE),
    EVENTS(event_has_error, bool, 1),          EVENTS(event_error, uint32_t, UINT32_MAX), EVENTS(lint0_rises, uint64_t, UINT64_MAX),
    EVENTS(halted, bool, 1),                   EVENTS(ticks_seen, uint64_t, UINT64_MAX), EVENTS(posted.pir, uint64_t, UINT64_MAX),
    EVENTS(posted.tmr, uint64_t, UINT64_MAX),  EVENTS(posted.work, uint32_t, WORK_ALL),    EVENTS(posted.sipi_vector, uint8_t, 255),
    EVENTS(posted.source, uint8_t, METRONOME_INJECT_COUNT - 1), EVENTS(ticks, uint64_t, UINT64_MAX),
    EVENTS(emu.budget, uint32_t, BUDGET_REQUEST),
};

static uint32_t save_events(struct domain *d, struct vcpu *v, uint8_t *to)
{
    (void)d;
    return save_fields(v, event_fields, COUNT(event_fields), to);
}

/* What AMD-V takes (APM 2 15.20), but for INT n, which is never kept: an exception has a vector that a CPU raises. */
static bool valid_event(const struct vcpu *v)
{
    if (v->event_type == EVENT_EXCEPTION)
        return v->event_vector < 32 && v->event_vector != 2;
    return v->event_type == EVENT_INTR || v->event_type == EVENT_NMI;
}

/* What was posted and not yet drained is drained at the first entry. */
static const char *restore_events(struct domain *d, struct vcpu *v, struct value from)
{
    (void)d;
    if (!restore_fields(v, event_fields, COUNT(event_fields), from) || !ticks_check(&v->ticks) ||
        (v->event_pending && !valid_event(v)))
        return "a state that a vCPU cannot be in";
    v->posted.on = 1;
    return NULL;
}

#define REQUEST(member, element, max) FIELD_AT(struct io_state, member, element, max)
static const struct field request_fields[] = {
    REQUEST(waiting, bool, 1), REQUEST(port_in, bool, 1),           REQUEST(emulating, bool, 1),
    REQUEST(again, bool, 1),   REQUEST(logged, unsigned, ACCESS_LOG), REQUEST(replayed, unsigned, ACCESS_LOG),
};
#define REQUEST_BYTES 12u

#define ACCESS(member, element, max) FIELD_AT(struct access, member, element, max)
static const struct field access_fields[] = {
    ACCESS(address, uint64_t, UINT64_MAX), ACCESS(value, uint64_t, UINT64_MAX), ACCESS(count, uint32_t, UINT32_MAX),
    ACCESS(size, uint8_t, 8),              ACCESS(write, bool, 1),              ACCESS(port, bool, 1),
};
#define ACCESS_BYTES 23u

static uint32_t save_request(struct domain *d, struct vcpu *v, uint8_t *to)
{
    const struct io_state *io = &v->io;
    struct access request = io->request;
    uint32_t bytes = save_fields(io, request_fields, COUNT(request_fields), to);

    (void)d;
    if (io->waiting)
        request.value = ioreq_answer(v);
    bytes += save_fields(&request, access_fields, COUNT(access_fields), to + bytes);
    for (unsigned i = 0; i < io->logged; i++)
        bytes += save_fields(&io->log[i], access_fields, COUNT(access_fields), to + bytes);
    return bytes;
}

static bool restore_access(struct access *a, const uint8_t *at)
{
    const struct value from = {at, ACCESS_BYTES};

    return restore_fields(a, access_fields, COUNT(access_fields), from) && (a->size & (a->size - 1)) == 0;
}

static bool restore_io(struct io_state *io, struct value from)
{
    const struct value first = {from.at, REQUEST_BYTES};
    const uint8_t *at = from.at + REQUEST_BYTES;

    if (from.bytes < REQUEST_BYTES + ACCESS_BYTES || !restore_fields(io, request_fields, COUNT(request_fields), first))
        return false;
    if (from.bytes != REQUEST_BYTES + (1 + io->logged) * ACCESS_BYTES || io->replayed > io->logged ||
        !restore_access(&io->request, at) || (io->waiting && !io->request.size))
        return false;
    for (unsigned i = 0; i < io->logged; i++)
        if (!restore_access(&io->log[i], at += ACCESS_BYTES))
            return false;
    return true;
}

/* A request whose answer had come is answered again. */
static const char *restore_request(struct domain *d, struct vcpu *v, struct value from)
{
    if (!restore_io(&v->io, from) || (v->io.waiting && !d->has_dm))
        return "no request that can have been made";
    if (v->io.waiting)
        ioreq_answered(v, v->io.request.value);
    return NULL;
}

static uint32_t save_fpu(struct domain *d, struct vcpu *v, uint8_t *to)
{
    uint32_t bytes = vcpu_fpu_bytes();

    (void)d;
    memcpy(to, v->fpu, bytes);
    return bytes;
}

/* The bits of MXCSR that this CPU has (SDM 1 11.6.6). */
static uint32_t mxcsr_bits(void)
{
    uint8_t area[512] __attribute__((aligned(16)));
    uint32_t mask;

    fxsave(area);
    mask = (uint32_t)load_integer(area + MXCSR_MASK, 4);
    return mask ? mask : 0xffbf;
}

/* XRSTOR faults on an area that XSAVE cannot have made, and MXCSR on reserved bits. */
static bool valid_fpu(const uint8_t *area, uint32_t bytes)
{
    uint64_t components;

    if (load_integer(area + MXCSR, 4) & ~mxcsr_bits())
        return false;
    if (bytes == XSAVE_HEADER)
        return true;
    components = load_integer(area + XSAVE_HEADER, 8);
    for (unsigned i = XSAVE_HEADER + 8; i < XSAVE_HEADER_END; i++)
        if (area[i])
            return false;
    return !(components & ~xcr0_allowed());
}

static const char *restore_fpu(struct domain *d, struct vcpu *v, struct value from)
{
    (void)d;
    if (from.bytes != vcpu_fpu_bytes())
        return "wrong length";
    if (!valid_fpu(from.at, from.bytes))
        return "values that no FPU can have";
    memcpy(v->fpu, from.at, from.bytes);
    v->fpu_fresh = true;
    return NULL;
}

/* ---- All records ---- */

static const struct kind {
    uint16_t version;
    const char *text;
    uint32_t (*save)(struct domain *d, struct vcpu *v, uint8_t *to);
    const char *(*restore)(struct domain *d, struct vcpu *v, struct value from);
} kinds[METRONOME_STATE_TYPES] = {
#define X(NAME, name, version, text) [METRONOME_STATE_##NAME] = {version, text, save_##name, restore_##name},
    METRONOME_STATE_DOMAIN_RECORDS(X) METRONOME_STATE_VCPU_RECORDS(X)
#undef X
};

/* Number `n` of a domain's records; false: there are no more. */
static bool record_at(uint32_t n, unsigned vcpus, uint16_t *type, uint32_t *vcpu)
{
    const uint32_t each = METRONOME_STATE_TYPES - METRONOME_STATE_OF_VCPU;

    *type = (uint16_t)(n < METRONOME_STATE_OF_VCPU ? n : METRONOME_STATE_OF_VCPU + (n - METRONOME_STATE_OF_VCPU) % each);
    *vcpu = n < METRONOME_STATE_OF_VCPU ? 0 : (n - METRONOME_STATE_OF_VCPU) / each;
    return *vcpu < vcpus;
}

static uint8_t *area(const struct slot *s)
{
    return s->memory + METRONOME_DOMAIN_STATE;
}

static uint32_t rounded(uint32_t bytes)
{
    return (bytes + RECORD_ROUND - 1) & ~(RECORD_ROUND - 1);
}

/* The records of all vCPUs fit by far: a vCPU's take less than 28 KiB even with the largest XSAVE area there is. */
static void save_record(struct domain *d, uint16_t type, uint32_t vcpu)
{
    uint8_t *to = area(d->slot) + d->saved_bytes;
    struct metronome_state_record r = {.type = type, .version = kinds[type].version, .vcpu = vcpu};

    spin_lock(&d->chipset.lock);
    r.bytes = kinds[type].save(d, d->vcpu[vcpu], to + sizeof(r));
    spin_unlock(&d->chipset.lock);
    memset(to + sizeof(r) + r.bytes, 0, rounded(r.bytes) - r.bytes);
    memcpy(to, &r, sizeof(r));
    d->saved_bytes += (uint32_t)sizeof(r) + rounded(r.bytes);
}

static void finish(struct domain *d)
{
    const struct metronome_state_header h = {METRONOME_STATE_MAGIC, METRONOME_ABI_VERSION, d->saved_bytes};

    memcpy(area(d->slot), &h, sizeof(h));
}

int state_save(struct domain *d, uint32_t n)
{
    uint16_t type;
    uint32_t vcpu;

    if (!domain_stands_still(d))
        return domain_has_ended(d) ? -METRONOME_ENOENT : -METRONOME_EBUSY;
    if (n == 0)
        d->saved_bytes = sizeof(struct metronome_state_header);
    if (!record_at(n, d->vcpus, &type, &vcpu)) {
        finish(d);
        return 0;
    }
    save_record(d, type, vcpu);
    return 1;
}

/* ---- Restoring ---- */

static bool open_reader(const struct slot *s, struct state_reader *r)
{
    struct metronome_state_header h;

    memcpy(&h, area(s), sizeof(h));
    r->at = area(s) + sizeof(h);
    r->left = h.bytes - (uint32_t)sizeof(h);
    return h.magic == METRONOME_STATE_MAGIC && h.version == METRONOME_ABI_VERSION && h.bytes >= sizeof(h) &&
           h.bytes <= METRONOME_DOMAIN_STATE_BYTES;
}

/* Copies the next record, which must be of this kind. NULL, or what is wrong with it. */
static const char *take_record(struct state_reader *r, uint16_t type, uint32_t vcpu, struct value *v)
{
    struct metronome_state_record h;

    if (r->left < sizeof(h))
        return "missing";
    memcpy(&h, r->at, sizeof(h));
    if (h.type != type || h.vcpu != vcpu)
        return "missing";
    if (h.version != kinds[type].version)
        return "of another version";
    if (h.bytes > r->room || rounded(h.bytes) > r->left - sizeof(h))
        return "too long";
    memcpy(r->copy, r->at + sizeof(h), h.bytes);
    *v = (struct value){r->copy, h.bytes};
    r->at += sizeof(h) + rounded(h.bytes);
    r->left -= (uint32_t)sizeof(h) + rounded(h.bytes);
    return NULL;
}

const char *state_description(const struct slot *s, struct metronome_domain_header *h)
{
    struct state_reader r = {.copy = (uint8_t *)h, .room = sizeof(*h)};
    struct value v;

    if (!open_reader(s, &r))
        return "no saved state of this version of Metronome";
    if (take_record(&r, METRONOME_STATE_HEADER, 0, &v) || v.bytes != sizeof(*h))
        return "the saved state does not begin with its description";
    return NULL;
}

static const char *restore_next(struct domain *d, struct state_reader *r, uint16_t type, uint32_t vcpu)
{
    struct value v;
    const char *wrong = take_record(r, type, vcpu, &v);

    return wrong ? wrong : kinds[type].restore(d, d->vcpu[vcpu], v);
}

static bool restore_record(struct domain *d, uint16_t type, uint32_t vcpu, char *why, size_t size)
{
    const char *wrong = restore_next(d, &d->slot->reader, type, vcpu);

    if (wrong && type < METRONOME_STATE_OF_VCPU)
        format_line(why, size, "saved state, %s: %s", kinds[type].text, wrong);
    else if (wrong)
        format_line(why, size, "saved state, %s of vCPU %u: %s", kinds[type].text, vcpu, wrong);
    return !wrong;
}

/* Behind the last record. */
static bool restore_end(const struct domain *d, char *why, size_t size)
{
    bool clock_fits = d->slot->restore.any_tsc || same_clock(d->time.tsc_hz);

    if (d->slot->reader.left)
        format_line(why, size, "saved state: more than is known");
    else if (!clock_fits)
        format_line(why, size, "saved where the TSC runs at %llu Hz; here it runs at %llu Hz, and cannot be scaled",
                    (unsigned long long)d->time.tsc_hz, (unsigned long long)tsc_hz);
    return !d->slot->reader.left && clock_fits;
}

int state_restore(struct domain *d, uint32_t n, char *why, size_t size)
{
    struct state_reader *r = &d->slot->reader;
    uint16_t type;
    uint32_t vcpu;

    r->room = STATE_COPY_BYTES;
    if (n == 0 && !open_reader(d->slot, r)) {
        format_line(why, size, "no saved state of this version of Metronome");
        return -METRONOME_ENOEXEC;
    }
    if (!record_at(n, d->vcpus, &type, &vcpu))
        return restore_end(d, why, size) ? 0 : -METRONOME_ENOEXEC;
    return restore_record(d, type, vcpu, why, size) ? 1 : -METRONOME_ENOEXEC;
}
