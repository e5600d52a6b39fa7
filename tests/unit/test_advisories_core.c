/*
 * Security advisories of other hypervisors, as far as they concern the HVM core: ports and memory, requests to the
 * device model, the command ring, messages. Each test has the advisory's name, does what brought that hypervisor down,
 * and fails on a core that does what it did. Linked with the real fabric, message, post, inject, vtime, io, ioreq,
 * slot, exit and sched; a thread is a CPU. What concerns the models alone is in test_advisories.c.
 */
#include "deadlines.h"
#include "hvm.h"
#include "random.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

unsigned alarm(unsigned seconds); /* <unistd.h> has a pause() that is not asm.h's */

#define CPUS       2u
#define VGA        0xa0000u
#define RAM_PAGES  64u
#define SLOT_BYTES (4ull << 20)
#define RACE_MS    300u

__thread struct pcpu *test_cpu;
struct pcpu *pcpus[MAX_PCPUS];
unsigned pcpu_count = CPUS;
uint64_t tsc_hz = 1000000000;
struct cpu_features cpu_features;
struct hvm_pcpu *hvm_pcpus[MAX_PCPUS];
static struct pcpu cpus[CPUS];
static struct hvm_pcpu hvm_cpus[CPUS];
static const struct domain *homed; /* whose deadlines must only be touched at home */
static volatile unsigned strays, attentions, ends;
static uint8_t *ram[RAM_PAGES];

/* ---- What the core needs of the rest of the hypervisor ---- */

static void no_regs(struct vcpu *v)
{
    (void)v;
}
static const struct vendor_ops no_vendor = {.name = "none", .load_regs = no_regs};
const struct vendor_ops *vendor = &no_vendor;

void hvm_kick(unsigned cpu)
{
    (void)cpu;
}

void hvm_attention(unsigned cpu, uint32_t what)
{
    if (homed && what == ATTENTION_DEADLINES && cpu != homed->home)
        strays++;
    attentions++;
}

void deadline_arm(struct deadline *d, uint64_t host_tsc)
{
    if (homed && d == &homed->chipset.deadline && test_cpu->id != homed->home)
        strays++;
    deadline_set(&this_hvm()->deadlines, d, host_tsc);
}

void vcpu_arm_timer(struct vcpu *v)
{
    (void)v;
}

void log_at(enum log_level level, const char *format, ...)
{
    (void)level;
    (void)format;
}

void panic(const char *format, ...)
{
    printf("panic: %s\n", format);
    abort();
}

/* Called, and of no matter here, whatever they look like: they do nothing and return 0. */
#define NOTHING(name) __asm__(".weak " #name "\n" #name ": xor %eax, %eax\nret")
NOTHING(domain_request);
NOTHING(domain_await_reset);
NOTHING(hvm_take_breath);
NOTHING(domain_start);
NOTHING(domain_translations_changed);

void domain_end(struct domain *d, enum metronome_end_reason reason, uint32_t code, const char *format, ...)
{
    (void)d, (void)reason, (void)code, (void)format;
    ends++;
}

int vformat_line(char *to, size_t size, const char *format, va_list args)
{
    return vsnprintf(to, size, format, args);
}

void *domain_ram(const struct domain *d, uint64_t gpa, bool write)
{
    (void)d, (void)write;
    return gpa / PAGE_SIZE < RAM_PAGES ? ram[gpa / PAGE_SIZE] : NULL;
}

/* ---- A domain ---- */

static void *zeroed(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 4096, bytes), 0);
    return memset(p, 0, bytes);
}

static void new_cpus(void)
{
    memset(cpus, 0, sizeof(cpus));
    memset(hvm_cpus, 0, sizeof(hvm_cpus));
    for (unsigned i = 0; i < CPUS; i++) {
        cpus[i].id = hvm_cpus[i].id = i;
        cpus[i].hvm = hvm_pcpus[i] = &hvm_cpus[i];
        deadline_init(&hvm_cpus[i].slice, NULL);
        pcpus[i] = &cpus[i];
    }
    test_cpu = &cpus[0];
    homed = NULL;
    strays = attentions = ends = 0;
}

static void new_vcpu(struct domain *d, unsigned i)
{
    struct vcpu *v = d->vcpu[i] = zeroed(sizeof(*v));

    v->domain = d;
    v->id = v->place.local = i;
    v->state = VCPU_RUNNABLE;
    v->emu.ops = &emulator_ops;
    v->emu.ctx = v;
    vlapic_reset(&v->vlapic, 0, i, i == 0);
    vlapic_write(&v->vlapic, 0, 0xf0, 4, 0x1ff);
    hvm_pcpus[0]->local[i] = v;
    fabric_publish_apic(v);
}

static struct domain *new_domain(unsigned vcpus, bool has_dm)
{
    struct domain *d = zeroed(sizeof(*d));

    d->slot = zeroed(sizeof(*d->slot));
    d->slot->memory = zeroed(SLOT_BYTES);
    d->has_dm = has_dm;
    d->vcpus = vcpus;
    memset(d->map.physical, 0xff, sizeof(d->map.physical));
    for (unsigned i = 0; i < vcpus; i++)
        new_vcpu(d, i);
    vtime_start(&d->time);
    deadline_init(&d->chipset.deadline, chipset_expire);
    chipset_reset(d, true);
    io_build_ports(d);
    return d;
}

static void end_domain(struct domain *d)
{
    for (unsigned i = 0; i < d->vcpus; i++)
        free(d->vcpu[i]);
    free(d->slot->memory);
    free(d->slot);
    free(d);
    for (unsigned i = 0; i < RAM_PAGES; i++) {
        free(ram[i]);
        ram[i] = NULL;
    }
}

static uint64_t in(struct vcpu *v, unsigned port, unsigned size)
{
    uint64_t value = 0x1122334455667788;

    assert_int_equal(io_port(v, (uint16_t)port, size, false, &value), EMU_OK);
    return value;
}

static void out(struct vcpu *v, unsigned port, unsigned size, uint64_t value)
{
    assert_int_equal(io_port(v, (uint16_t)port, size, true, &value), EMU_OK);
}

static uint64_t load(struct vcpu *v, uint64_t gpa, unsigned size)
{
    uint64_t value = 0x1122334455667788;

    assert_int_equal(io_mmio(v, gpa, size, false, &value), EMU_OK);
    return value;
}

static void store(struct vcpu *v, uint64_t gpa, unsigned size, uint64_t value)
{
    assert_int_equal(io_mmio(v, gpa, size, true, &value), EMU_OK);
}

static struct metronome_ioreq *request_of(const struct vcpu *v)
{
    return &((struct metronome_ioreq_page *)(v->domain->slot->memory + METRONOME_DOMAIN_IOREQ))->vcpu[v->id];
}

/* A second CPU that runs `body` until it is told to stop. */
static volatile bool stop;
struct racer {
    pthread_t thread;
    struct pcpu *cpu;
    void (*body)(struct domain *d, uint64_t n);
    struct domain *domain;
    volatile uint64_t rounds;
};

static void *race(void *argument)
{
    struct racer *r = argument;

    test_cpu = r->cpu;
    for (r->rounds = 0; !stop; r->rounds++)
        r->body(r->domain, r->rounds);
    return NULL;
}

static void start_racer(struct racer *r, struct domain *d, void (*body)(struct domain *d, uint64_t n))
{
    *r = (struct racer){.cpu = &cpus[1], .body = body, .domain = d};
    stop = false;
    assert_int_equal(pthread_create(&r->thread, NULL, race, r), 0);
    while (!r->rounds)
        sched_yield();
}

static void stop_racer(struct racer *r)
{
    stop = true;
    pthread_join(r->thread, NULL);
}

static uint64_t deadline_ms(unsigned ms)
{
    return rdtsc() + ms * (tsc_hz / 1000);
}

/* ---- Masks of vCPUs, and the map from APIC ids to them ---- */

/* Who was posted to; forgets it. */
static uint64_t take_receivers(struct domain *d)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < d->vcpus; i++) {
        struct posted *p = &d->vcpu[i]->posted;

        if (p->on)
            mask |= 1ull << i;
        p->on = p->work = 0;
        memset(p->pir, 0, sizeof(p->pir));
        memset(p->tmr, 0, sizeof(p->tmr));
    }
    return mask;
}

static uint64_t expected_receivers(const struct domain *d, const struct bus_message *m)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < d->vcpus; i++)
        if (vlapic_matches(&d->vcpu[i]->vlapic, m->dest, m->flags))
            mask |= 1ull << i;
    return mask;
}

/* Half of the vCPUs in the flat, half in the cluster model; or all in x2APIC mode. */
static void give_logical_ids(struct domain *d, bool x2apic)
{
    for (unsigned i = 0; i < d->vcpus; i++) {
        struct vlapic *a = &d->vcpu[i]->vlapic;

        if (i & 1)
            vlapic_write(a, 0, 0xe0, 4, 0x0fffffff);
        vlapic_write(a, 0, 0xd0, 4, (i & 1 ? (i / 4 % 15) << 4 | 1u << i % 4 : 1u << i % 8) << 24);
        if (x2apic)
            assert_true(vlapic_msr_write(a, 0, MSR_APIC_BASE, a->apic_base | APIC_BASE_EXTD));
        fabric_publish_apic(d->vcpu[i]);
    }
}

static void check_destination(struct domain *d, uint32_t dest, bool x2apic)
{
    struct bus_message m = {.kind = BUS_INTERRUPT, .vector = 0x40, .dest = dest, .flags = BUS_ASSERT};

    m.flags |= (below(2) ? BUS_LOGICAL : 0) | (x2apic ? BUS_X2APIC : 0);
    fabric_message(d, m, (struct cause){.way = METRONOME_INJECT_IPI});
    assert_true(take_receivers(d) == expected_receivers(d, &m));
    m.delivery = (uint8_t)below(8);
    m.shorthand = (uint8_t)below(4);
    d->vcpu[d->vcpus - 1]->vlapic.out.message = m;
    fabric_take_apic_output(d->vcpu[d->vcpus - 1]);
    take_receivers(d);
}

/*
 * XSA-475: a mask of vCPUs from the guest had bits and banks for more vCPUs than there were, and the walk over it left
 * the array of vCPUs. Here every kind of destination, for domains of 1 to 64 vCPUs: exactly those are reached whose own
 * APIC says that it is addressed. A core that takes a bit or an id without a bound calls on a vCPU that is not there (a
 * null pointer), shifts by 64, or reaches another.
 */
static void test_xsa_475_vcpu_mask_bounds(void **state)
{
    static const unsigned sizes[] = {1, 2, 33, 63, 64};

    (void)state;
    for (unsigned n = 0; n < 2 * sizeof(sizes) / sizeof(sizes[0]); n++) {
        bool x2apic = n & 1;
        struct domain *d;

        new_cpus();
        d = new_domain(sizes[n / 2], false);
        give_logical_ids(d, x2apic);
        take_receivers(d);
        for (unsigned dest = 0; dest < (x2apic ? 0x200 : 0x100); dest++)
            check_destination(d, dest, x2apic);
        for (unsigned i = 0; i < 2000 && x2apic; i++)
            check_destination(d, (uint32_t)below(6) << 16 | (uint32_t)below(0x10000), x2apic);
        for (unsigned i = 0; i < 2000 && x2apic; i++)
            check_destination(d, UINT32_MAX - (uint32_t)below(i & 1 ? 4 : UINT32_MAX), x2apic);
        end_domain(d);
    }
}

/* vCPU 1 changes its logical id and nothing else; its physical one is 1 all the time. */
static void change_logical_id(struct domain *d, uint64_t n)
{
    vlapic_write(&d->vcpu[1]->vlapic, 0, 0xd0, 4, (n & 0xff) << 24);
    fabric_publish_apic(d->vcpu[1]);
}

/*
 * KVM, several: the map from APIC ids to vCPUs was rebuilt while other CPUs sent by it, which found freed, half-built
 * or no entries. Here one vCPU changes its logical id without end while another sends to its physical id: each
 * interrupt arrives, and none at anybody else. A map that is emptied and filled in place loses some; one without bounds
 * crashes.
 */
static void test_kvm_apic_map_races(void **state)
{
    struct bus_message m = {.kind = BUS_INTERRUPT, .vector = 0x40, .dest = 1, .flags = BUS_ASSERT};
    uint64_t end, sent = 0, arrived = 0;
    struct domain *d;
    struct racer r;

    (void)state;
    new_cpus();
    d = new_domain(3, false);
    take_receivers(d);
    start_racer(&r, d, change_logical_id);
    for (end = deadline_ms(RACE_MS); rdtsc() < end; sent++) {
        uint64_t receivers;

        fabric_message(d, m, (struct cause){.way = METRONOME_INJECT_IPI});
        receivers = take_receivers(d);
        assert_int_equal(receivers & ~2ull, 0);
        arrived += receivers == 2;
    }
    stop_racer(&r);
    printf("  %llu of %llu arrived\n", (unsigned long long)arrived, (unsigned long long)sent);
    assert_int_equal(arrived, sent);
    end_domain(d);
}

/* ---- Pages of the guest ---- */

static void segment(struct vcpu *v, unsigned seg, uint64_t base, uint16_t attributes)
{
    v->emu.regs.seg[seg] = (struct emu_segment){(uint16_t)(base >> 4), attributes, 0xffff, base};
}

/* Real mode: code at 0x1000, DS the VGA window, ES a page of RAM at 0x3000. */
static void start_instruction(struct vcpu *v, const uint8_t *bytes, unsigned n)
{
    memset(&v->emu.regs, 0, sizeof(v->emu.regs));
    v->emu.regs.cr0 = 0x10;
    v->emu.regs.rflags = 2;
    segment(v, EMU_CS, 0x1000, 0x9b);
    segment(v, EMU_DS, VGA, 0x93);
    segment(v, EMU_ES, 0x3000, 0x93);
    segment(v, EMU_SS, 0x5000, 0x93);
    v->emu.regs.gpr[EMU_RCX] = 64;
    v->emu.regs.gpr[EMU_RSP] = 0x100;
    v->emu.budget = 4096;
    for (unsigned i = 0; i < RAM_PAGES; i++)
        if (!ram[i])
            ram[i] = zeroed(PAGE_SIZE);
    memcpy(ram[1], bytes, n);
}

/* The device model's answer, with the pages that it, or another vCPU, has taken away meanwhile. */
static void answer(struct vcpu *v)
{
    struct metronome_ioreq *r = request_of(v);

    if (!(r->state_dir_df & METRONOME_IOREQ_DATA_IS_PTR))
        r->data = below(UINT64_MAX);
    r->count = (uint32_t)below(80);
    r->state_dir_df = (uint8_t)((r->state_dir_df & 0xf0) | METRONOME_IOREQ_RESPONSE);
    for (unsigned i = 1; i < 6; i++)
        if (below(4) == 0) {
            free(ram[i]);
            ram[i] = NULL;
        }
    assert_true(ioreq_poll(v));
    (void)ioreq_complete(v);
}

/*
 * XSA-472: a page that the guest had named was used without a look at whether it was there (null pointer), or after it
 * had gone (use after free). Here instructions under emulation wait for the device model, and before the answer the
 * pages of their code, source, target and stack are freed: they run on against what is there then. A core that keeps a
 * page's pointer over the wait touches freed memory (the address sanitizer sees it), one that does not look crashes.
 */
static void test_xsa_472_guest_page_gone(void **state)
{
    static const uint8_t code[][4] = {
        {0xf3, 0xa4},       /* rep movsb: VGA to RAM */
        {0xf3, 0x66, 0xa5}, /* rep movsd */
        {0xa0, 0x10, 0},    /* mov al, [0x10] */
        {0xff, 0x36, 0x10}, /* push word [0x10] */
        {0x8f, 0x06, 0x10}, /* pop word [0x10] */
        {0xf3, 0x6c},       /* rep insb */
        {0xf3, 0x6f},       /* rep outsw */
        {0x00, 0x07},       /* add [bx], al */
        {0xf3, 0xa6},       /* rep cmpsb */
    };
    struct domain *d;
    struct vcpu *v;
    unsigned waits = 0;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    v = d->vcpu[0];
    alarm(60);
    for (unsigned n = 0; n < 20000; n++) {
        const uint8_t *bytes = code[below(sizeof(code) / sizeof(code[0]))];

        start_instruction(v, bytes, 4);
        v->emu.regs.gpr[EMU_RDX] = 0x1f0;
        for (unsigned i = 0; i < 100 && v->emu.regs.rip == 0; i++) {
            if (exit_emulate(v) != EXIT_LEAVE)
                break;
            answer(v);
            waits++;
        }
        ioreq_cancel(v);
        v->event_pending = false;
        v->state = VCPU_RUNNABLE;
    }
    alarm(0);
    assert_true(waits > 20000);
    end_domain(d);
}

/* ---- Regions ---- */

/*
 * XSA-412: while a vCPU's APIC was off, its page was plain memory, one page that all guests shared. Here the page of a
 * disabled, an x2APIC and a moved APIC is nothing at all: reads are ones, and what is written is to be found in no APIC
 * of this or the other domain. An enabled one is each vCPU's own.
 */
static void test_xsa_412_shared_apic_page(void **state)
{
    static const uint64_t bases[] = {0xfee00100, 0xfee00d00, 0xfed90900}; /* disabled, x2APIC, moved */
    struct domain *a, *b;

    (void)state;
    new_cpus();
    a = new_domain(2, false);
    b = new_domain(1, false);
    store(a->vcpu[0], 0xfee00080, 4, 0x50);
    assert_int_equal(load(a->vcpu[0], 0xfee00080, 4), 0x50);
    assert_int_equal(load(a->vcpu[1], 0xfee00080, 4), 0);
    assert_int_equal(load(b->vcpu[0], 0xfee00080, 4), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct vlapic before;

        vlapic_reset(&a->vcpu[0]->vlapic, 0, 0, true);
        assert_true(vlapic_msr_write(&a->vcpu[0]->vlapic, 0, MSR_APIC_BASE, bases[i]));
        before = a->vcpu[0]->vlapic;
        for (unsigned offset = 0; offset < 0x400; offset += 0x10) {
            store(a->vcpu[0], 0xfee00000 + offset, 4, 0x12345678);
            assert_true(load(a->vcpu[0], 0xfee00000 + offset, 4) == 0xffffffff);
        }
        assert_memory_equal(&before, &a->vcpu[0]->vlapic, sizeof(before));
        assert_int_equal(io_is_ours(a->vcpu[0], 0xfee00000), false);
        assert_int_equal(load(a->vcpu[1], 0xfee00080, 4), 0);
        assert_int_equal(load(b->vcpu[0], 0xfee00080, 4), 0);
    }
    /* The moved one is where it was moved to, for its own vCPU alone. */
    store(a->vcpu[0], 0xfed90080, 4, 0x70);
    assert_int_equal(load(a->vcpu[0], 0xfed90080, 4), 0x70);
    assert_true(load(a->vcpu[1], 0xfed90080, 4) == 0xffffffff);
    end_domain(a);
    end_domain(b);
}

/*
 * XSA-112: an access across the edge of a region went to the region's handler, which wrote past its data. Here every
 * port and size around the hypervisor's own ranges: one that crosses an edge reads as ones, and leaves the devices as
 * they were (time stands still, so that they do). Both io.c and the models refuse such an access; without both, this
 * fails.
 */
static void test_xsa_112_access_across_two_regions(void **state)
{
    static const struct {
        unsigned first, last;
    } ranges[] = {{0x20, 0x21}, {0x40, 0x43},   {0x61, 0x61},   {0x70, 0x73},
                  {0xa0, 0xa1}, {0x4d0, 0x4d1}, {0x600, 0x603}, {0x604, 0x605}, {0x608, 0x60b}};
    struct domain *d;
    struct chipset before;

    (void)state;
    new_cpus();
    d = new_domain(1, false);
    vtime_stop(&d->time);
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        in(d->vcpu[0], ranges[i].first, 1); /* what it touches is brought up to date */
    before = d->chipset;
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        for (unsigned port = ranges[i].first - 3; port <= ranges[i].last; port++)
            for (unsigned size = 2; size <= 4; size *= 2) {
                bool below = port < ranges[i].first && port + size > ranges[i].first;
                bool above = port <= ranges[i].last && port + size > ranges[i].last + 1;

                if (!below && (!above || port < ranges[i].first))
                    continue;
                assert_true(in(d->vcpu[0], port, size) == all_ones(size));
                out(d->vcpu[0], port, size, 0xa5a5a5a5);
                before.lock = d->chipset.lock;
                assert_memory_equal(&before, &d->chipset, sizeof(before));
            }
    assert_int_equal(ends, 0);
    end_domain(d);
}

/*
 * PM1a control is only there without device model, and is no model's: an access that begins in it and crosses its end reads
 * as ones, and a write with SLP_EN in it does not switch the machine off. One that fits does.
 */
static void test_pm1a_control_ends_at_its_edge(void **state)
{
    static const struct {
        unsigned port, size;
        uint64_t value;
        bool fits;
    } accesses[] = {{0x604, 4, 1, false}, {0x605, 2, 1, false}, {0x605, 4, 1, false}, {0x604, 1, 1, true},
                    {0x604, 2, 1, true},  {0x605, 1, 0, true}};
    struct domain *d;

    (void)state;
    new_cpus();
    d = new_domain(1, false);
    for (unsigned i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
        unsigned port = accesses[i].port, size = accesses[i].size;
        uint64_t sleep = 0x2000 >> 8 * (port - 0x604);

        assert_true(in(d->vcpu[0], port, size) == (accesses[i].fits ? accesses[i].value : all_ones(size)));
        ends = 0;
        out(d->vcpu[0], port, size, sleep & all_ones(size));
        assert_int_equal(ends, accesses[i].fits && (sleep & all_ones(size)) != 0);
    }
    end_domain(d);
}

/* ---- Results ---- */

/*
 * XSA-121 and XSA-239: reads that no device answered, or that one answered in part, left the rest of the result as it
 * was on the hypervisor's stack. Here every port and a page of each device, in every size: the caller's leftovers never
 * show, and nothing is above the size.
 */
static void check_all_filled(struct vcpu *v, unsigned size, uint64_t leftovers)
{
    static const uint64_t pages[] = {0xfee00000, IOAPIC_BASE, HPET_BASE, TEST_PAGE_BASE, 0xd0000000, 0xc0000};
    uint64_t value;

    for (unsigned port = 0; port < 0x10000; port++) {
        if (port >= 0x3f8 && port < 0x400)
            continue; /* the UART's reads have effects: test_uart.c */
        value = leftovers;
        assert_int_equal(io_port(v, (uint16_t)port, size, false, &value), EMU_OK);
        assert_true((value & ~all_ones(size)) == 0);
        assert_true((value & all_ones(size)) != (leftovers & all_ones(size)));
    }
    for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        for (unsigned offset = 0; offset + size <= PAGE_SIZE; offset++) {
            value = leftovers;
            assert_int_equal(io_mmio(v, pages[i] + offset, size, false, &value), EMU_OK);
            assert_true((value & ~all_ones(size)) == 0);
        }
}

static void test_xsa_121_partially_filled_results(void **state)
{
    struct domain *d;

    (void)state;
    new_cpus();
    d = new_domain(1, false);
    vtime_stop(&d->time);
    for (unsigned size = 1; size <= 4; size *= 2)
        check_all_filled(d->vcpu[0], size, 0x5a5a5a5a5a5a5a5a);
    end_domain(d);
}

/* The same for what the device model answers: more bits than were asked for never reach the guest. */
static void test_xsa_239_partially_filled_results(void **state)
{
    struct domain *d;
    struct vcpu *v;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    v = d->vcpu[0];
    for (unsigned size = 1; size <= 4; size *= 2) {
        uint64_t before = 0x1122334455667788, kept = size == 4 ? 0 : before & ~all_ones(size);

        v->emu.regs.gpr[EMU_RAX] = before;
        assert_int_equal(exit_port(v, 0x1f0, size, true, v->emu.regs.rip), EXIT_LEAVE);
        assert_int_equal(request_of(v)->data, 0); /* nothing of ours goes out with a read */
        request_of(v)->data = UINT64_MAX;
        request_of(v)->state_dir_df = METRONOME_IOREQ_RESPONSE;
        assert_true(ioreq_poll(v));
        (void)ioreq_complete(v);
        assert_true(v->emu.regs.gpr[EMU_RAX] == (kept | all_ones(size)));
        v->emu.regs.gpr[EMU_RAX] = before;
        assert_int_equal(exit_port(v, 0x1f0, size, false, v->emu.regs.rip), EXIT_LEAVE);
        assert_true(request_of(v)->data == (before & all_ones(size))); /* nor more than the port is wide with a write */
        request_of(v)->state_dir_df = METRONOME_IOREQ_RESPONSE;
        (void)ioreq_complete(v);
        assert_true(v->emu.regs.gpr[EMU_RAX] == before);
    }
    end_domain(d);
}

/* ---- Requests ---- */

/*
 * XSA-348: waiting for the device model was a call that could come to wait again inside, until the stack was used up.
 * Here a vCPU waits, and everything that can happen to it happens meanwhile: each call comes back at once, nothing new
 * goes out, and after the answer the next wait begins with the stack where it was. A core that waits inside an exit
 * never returns (the alarm ends the test); one that asks again from within overwrites its request.
 */
static void happen(struct domain *d, struct vcpu *v, unsigned what)
{
    switch (what) {
    case 0:
        vcpu_post(v, 0x50, false, METRONOME_INJECT_MSI);
        break;
    case 1:
        vcpu_post_work(v, WORK_NMI | WORK_LINT0);
        break;
    case 2:
        vcpu_drain(v);
        break;
    case 3:
        slot_drain_commands(d);
        break;
    case 4:
        chipset_expire(&d->chipset.deadline);
        break;
    default:
        assert_false(ioreq_poll(v));
    }
}

static void test_xsa_348_wait_recursion(void **state)
{
    struct metronome_ioreq before;
    struct domain *d;
    struct vcpu *v;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    v = d->vcpu[0];
    alarm(30);
    for (unsigned n = 0; n < 100000; n++) {
        hvm_pcpus[0]->runnable = 1;
        v->emu.regs.gpr[EMU_RAX] = n;
        assert_int_equal(exit_port(v, 0x1f0, 1, n & 1, v->emu.regs.rip), EXIT_LEAVE);
        assert_int_equal(v->state, VCPU_WAIT_IOREQ);
        assert_true(v->io.waiting);
        assert_int_equal(hvm_pcpus[0]->runnable, 0);
        before = *request_of(v);
        for (unsigned i = 0; i < 4; i++)
            happen(d, v, (unsigned)below(6));
        assert_memory_equal(&before, request_of(v), sizeof(before));
        request_of(v)->state_dir_df = METRONOME_IOREQ_RESPONSE;
        (void)ioreq_complete(v);
        assert_false(v->io.waiting);
    }
    alarm(0);
    end_domain(d);
}

/* Writes nonsense over everything that the device model can write. */
static void scribble(struct domain *d, uint64_t n)
{
    struct metronome_ioreq *r = request_of(d->vcpu[0]);
    struct metronome_bufioreq_page *b = (void *)(d->slot->memory + METRONOME_DOMAIN_BUFIOREQ);

    *(volatile uint64_t *)&r->addr = n * 0x9e3779b97f4a7c15;
    *(volatile uint64_t *)&r->data = n * 0xd1342543de82ef95;
    *(volatile uint32_t *)&r->size = (uint32_t)(n * 0x2545f491);
    *(volatile uint32_t *)&r->count = (uint32_t)(n * 0x4f6cdd1d);
    *(volatile uint8_t *)&r->type = (uint8_t)n;
    *(volatile uint8_t *)&r->state_dir_df = (uint8_t)(n >> 3);
    *(volatile uint32_t *)&b->read_pointer = (uint32_t)(n * 0x85ebca6b);
    *(volatile uint32_t *)&b->write_pointer = (uint32_t)(n * 0xc2b2ae35);
}

/*
 * XSA-166: the request in the shared page was read twice, for its check and for its use. Here the other side changes
 * every field of it all the time, while this side sends and completes: what comes back has the size that was asked for,
 * goes to the register that asked, and nothing else moves. A core that takes size, direction or address from the page
 * again changes more of RAX than a byte, or another's.
 */
static void test_xsa_166_trusting_shared_ioreq_state(void **state)
{
    struct domain *d;
    struct vcpu *v;
    struct racer r;
    uint64_t end;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    v = d->vcpu[0];
    start_racer(&r, d, scribble);
    for (end = deadline_ms(RACE_MS); rdtsc() < end;) {
        struct emu_regs regs;

        v->emu.regs.gpr[EMU_RAX] = 0x1122334455667788;
        regs = v->emu.regs;
        assert_int_equal(exit_port(v, 0x1f0, 1, true, v->emu.regs.rip), EXIT_LEAVE);
        assert_true(v->io.request.size == 1 && v->io.request.address == 0x1f0 && !v->io.request.write);
        ioreq_poll(v);
        (void)ioreq_complete(v);
        regs.gpr[EMU_RAX] = (regs.gpr[EMU_RAX] & ~0xffull) | (v->emu.regs.gpr[EMU_RAX] & 0xff);
        assert_memory_equal(&regs, &v->emu.regs, sizeof(regs));
        ioreq_posted_write(d, VGA + (end & 0xff8), 8, UINT64_MAX);
    }
    stop_racer(&r);
    end_domain(d);
}

/*
 * XSA-262: a request's state went backwards in the shared page, and the hypervisor looped or crashed over it. Here
 * every state that the byte can hold, at every moment: only an answer counts as one, looking comes back at once, a
 * wrong state just leaves the vCPU waiting, and the ring's pointers may say what they like.
 */
static void test_xsa_262_trusting_shared_ioreq_state(void **state)
{
    struct domain *d;
    struct vcpu *v;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    v = d->vcpu[0];
    alarm(30);
    for (unsigned byte = 0; byte < 256; byte++) {
        assert_int_equal(exit_port(v, 0x1f0, 1, true, v->emu.regs.rip), EXIT_LEAVE);
        request_of(v)->state_dir_df = (uint8_t)byte;
        assert_int_equal(ioreq_poll(v), (byte & 15) == METRONOME_IOREQ_RESPONSE);
        assert_true(v->io.waiting && v->state == VCPU_WAIT_IOREQ);
        request_of(v)->state_dir_df = METRONOME_IOREQ_RESPONSE;
        (void)ioreq_complete(v);
        assert_int_equal(request_of(v)->state_dir_df & 15, METRONOME_IOREQ_NONE);
    }
    for (unsigned n = 0; n < 100000; n++) {
        struct metronome_bufioreq_page *b = (void *)(d->slot->memory + METRONOME_DOMAIN_BUFIOREQ);
        uint8_t *after = d->slot->memory + METRONOME_DOMAIN_BUFIOREQ + sizeof(*b), kept = *after;

        b->read_pointer = (uint32_t)below(UINT32_MAX);
        if (below(2))
            b->read_pointer = d->posted_writes - (uint32_t)below(600);
        if (ioreq_posted_write(d, VGA + below(0x1fff8), 1u << below(4), below(UINT64_MAX)))
            assert_true(d->posted_writes - b->read_pointer <= METRONOME_BUFIOREQ_SLOTS);
        assert_int_equal(*after, kept);
    }
    alarm(0);
    end_domain(d);
}

/* ---- The command ring ---- */

static struct metronome_command_ring *ring_of(struct domain *d)
{
    return (void *)(d->slot->memory + METRONOME_DOMAIN_COMMANDS);
}

static void command(struct domain *d, uint32_t op, uint64_t a0, uint64_t a1, uint64_t a2)
{
    struct metronome_command_ring *r = ring_of(d);
    struct metronome_command *c = &r->entry[r->ring.produced % METRONOME_RING_ENTRIES];

    *c = (struct metronome_command){.op = op, .args = {a0, a1, a2}};
    __atomic_store_n(&r->ring.produced, r->ring.produced + 1, __ATOMIC_RELEASE);
}

static void drain(struct domain *d)
{
    for (unsigned n = 0; n < 1000 && ring_of(d)->ring.consumed != ring_of(d)->ring.produced; n++)
        slot_drain_commands(d);
    assert_int_equal(ring_of(d)->ring.consumed, ring_of(d)->ring.produced);
}

/*
 * XSA-261: the device model raised ISA lines by numbers above 15, which were taken as indices. Here all numbers of
 * lines, devices, pins and links: what is not there is refused, and changes nothing. A core that takes them indexes
 * beyond its arrays (the sanitizers see it).
 */
static void test_xsa_261_gsi_above_15(void **state)
{
    static const uint64_t numbers[] = {4, 16, 24, 32, 47, 48, 64, 255, 256, 1ull << 32, 1ull << 63, UINT64_MAX};
    static struct chipset before;
    struct domain *d;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    vtime_stop(&d->time);
    chipset_expire(&d->chipset.deadline);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        for (unsigned op = METRONOME_DM_SET_ISA_IRQ; op <= METRONOME_DM_SET_PCI_LINK; op++)
            for (unsigned where = 0; where < 3; where++) {
                uint64_t a[3] = {1, 1, op == METRONOME_DM_SET_PCI_INTX};

                if (where == 2 && op != METRONOME_DM_SET_PCI_INTX)
                    continue;
                a[where] = numbers[i];
                if (numbers[i] == 4 && (where == 0 ? op != METRONOME_DM_SET_PCI_LINK : op == METRONOME_DM_SET_PCI_LINK))
                    continue; /* a line, a device, or a link's IRQ: there is a 4th */
                if (op == METRONOME_DM_SET_PCI_INTX && where == 0 && numbers[i] < 32)
                    continue;
                before = d->chipset;
                command(d, op, a[0], a[1], a[2]);
                drain(d);
                before.lock = d->chipset.lock;
                assert_memory_equal(&before, &d->chipset, sizeof(before));
            }
    for (unsigned irq = 0; irq < 16; irq++) {
        command(d, METRONOME_DM_SET_ISA_IRQ, irq, 1, 0);
        drain(d);
        assert_true(d->chipset.gsi_sources[irq] & 1u << SOURCE_DM_ISA);
    }
    end_domain(d);
}

/* Turns the line's number and the level between what is valid and what is not. */
static void turn_command(struct domain *d, uint64_t n)
{
    struct metronome_command_ring *r = ring_of(d);

    for (unsigned i = 0; i < METRONOME_RING_ENTRIES; i++) {
        *(volatile uint64_t *)&r->entry[i].args[0] = n & 1 ? 3 : 0x7ffffff;
        *(volatile uint32_t *)&r->entry[i].op = n & 2 ? METRONOME_DM_SET_ISA_IRQ : 0x10000000;
    }
}

/*
 * XSA-166 once more, for the command ring: a command is copied before it is looked at. Here its number and operation
 * change under the hypervisor: one that looks twice indexes with what it has not checked (the sanitizers see it, or it
 * crashes).
 */
static void test_xsa_166_commands_are_read_once(void **state)
{
    struct domain *d;
    struct racer r;
    uint64_t end;

    (void)state;
    new_cpus();
    d = new_domain(1, true);
    start_racer(&r, d, turn_command);
    for (end = deadline_ms(RACE_MS); rdtsc() < end;) {
        for (unsigned i = 0; i < METRONOME_RING_ENTRIES; i++)
            command(d, METRONOME_DM_SET_ISA_IRQ, 3, i & 1, 0);
        drain(d);
    }
    stop_racer(&r);
    for (unsigned gsi = 0; gsi < 16; gsi++)
        assert_true(gsi == 3 || !(d->chipset.gsi_sources[gsi] & 1u << SOURCE_DM_ISA));
    end_domain(d);
}

/* ---- Two CPUs in one device ---- */

/* vCPU 1 writes words to 0x70: its own byte, 0x41, and always the same value. */
static void write_cmos(struct domain *d, uint64_t n)
{
    (void)n;
    out(d->vcpu[1], 0x70, 2, 0x4141);
    out(d->vcpu[1], 0x72, 2, 0x4141);
}

/*
 * XSA-503: an access to the RTC's data used an index that another CPU changed under it. Here two CPUs write index and
 * data as one word each: each value lands at its own index, however often they meet. A core that lets go of the lock
 * between the two bytes, or takes none, puts one CPU's value at the other's index.
 */
static void test_xsa_503_index_race(void **state)
{
    struct domain *d;
    struct racer r;
    uint64_t end;

    (void)state;
    new_cpus();
    d = new_domain(2, false);
    start_racer(&r, d, write_cmos); /* it has written once when this returns */
    for (end = deadline_ms(RACE_MS); rdtsc() < end;) {
        out(d->vcpu[0], 0x70, 2, 0x4240);
        out(d->vcpu[0], 0x72, 2, 0x4240);
        for (unsigned bank = 0; bank < 256; bank += 128) {
            assert_int_equal(*(volatile uint8_t *)&d->chipset.rtc.cmos[bank + 0x40], 0x42);
            assert_int_equal(*(volatile uint8_t *)&d->chipset.rtc.cmos[bank + 0x41], 0x41);
        }
    }
    stop_racer(&r);
    assert_true(rtc_check(&d->chipset.rtc));
    end_domain(d);
}

/* vCPU 1 moves the gate and reads the counter back. */
static void move_gate(struct domain *d, uint64_t n)
{
    out(d->vcpu[1], 0x61, 1, n & 1);
    in(d->vcpu[1], 0x42, 1);
}

/*
 * KVM, CVE-2014-3611: two CPUs came to the PIT's gate and counter at the same time, and its timer was left as no PIT
 * can be. Here one CPU moves the gate of channel 2 while the other programs it and runs the chipset's deadline:
 * whenever the lock is free the state is one of hardware's, and the ledger has seen every edge. A core that takes no
 * lock here fails so.
 */
static void test_kvm_pit_gate_races(void **state)
{
    struct domain *d;
    struct racer r;
    uint64_t end;

    (void)state;
    new_cpus();
    d = new_domain(2, false);
    start_racer(&r, d, move_gate);
    for (end = deadline_ms(RACE_MS); rdtsc() < end;) {
        out(d->vcpu[0], 0x43, 1, 0x80 | below(0x40));
        out(d->vcpu[0], 0x42, 1, below(256));
        out(d->vcpu[0], 0x42, 1, below(4));
        chipset_expire(&d->chipset.deadline);
        spin_lock(&d->chipset.lock);
        assert_true(vpit_check(&d->chipset.vpit));
        assert_true(vpic_check(&d->chipset.vpic) && vioapic_check(&d->chipset.vioapic));
        spin_unlock(&d->chipset.lock);
    }
    stop_racer(&r);
    assert_int_equal(d->chipset.ledger[SOURCE_PIT].n.due, d->chipset.vpit.out.line[0].rises);
    end_domain(d);
}

/* A vCPU on CPU 1 programs timers of a chipset whose home is CPU 0. */
static void program_timers(struct domain *d, uint64_t n)
{
    out(d->vcpu[1], 0x43, 1, 0x30);
    out(d->vcpu[1], 0x40, 1, n);
    out(d->vcpu[1], 0x40, 1, n >> 8);
    out(d->vcpu[1], 0x70, 2, 0x260a);
    out(d->vcpu[1], 0x70, 2, (n & 0x70) << 8 | 0x0b);
}

/*
 * XSA-336: a timer moved from one CPU's list to another's, under the lock of the wrong one. Here nothing moves:
 * whichever CPU's guest programs the timers, only the chipset's home touches its deadline, and the others tell it to
 * look. A core that arms where it happens to be is seen at once.
 */
static void test_xsa_336_timer_migration_lock(void **state)
{
    struct domain *d;
    struct racer r;
    uint64_t end;

    (void)state;
    new_cpus();
    d = new_domain(2, false);
    homed = d;
    start_racer(&r, d, program_timers);
    for (end = deadline_ms(RACE_MS); rdtsc() < end;) {
        out(d->vcpu[0], 0x43, 1, 0x34);
        out(d->vcpu[0], 0x40, 1, below(256));
        out(d->vcpu[0], 0x40, 1, below(256));
        chipset_rearm(d);
        expire_due(&this_hvm()->deadlines, rdtsc());
    }
    stop_racer(&r);
    assert_int_equal(strays, 0);
    assert_true(attentions > 0);
    assert_int_equal(hvm_pcpus[1]->deadlines.count, 0);
    end_domain(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xsa_503_index_race),
        cmocka_unit_test(test_xsa_475_vcpu_mask_bounds),
        cmocka_unit_test(test_xsa_472_guest_page_gone),
        cmocka_unit_test(test_xsa_412_shared_apic_page),
        cmocka_unit_test(test_xsa_348_wait_recursion),
        cmocka_unit_test(test_xsa_336_timer_migration_lock),
        cmocka_unit_test(test_xsa_262_trusting_shared_ioreq_state),
        cmocka_unit_test(test_xsa_166_trusting_shared_ioreq_state),
        cmocka_unit_test(test_xsa_166_commands_are_read_once),
        cmocka_unit_test(test_xsa_261_gsi_above_15),
        cmocka_unit_test(test_xsa_239_partially_filled_results),
        cmocka_unit_test(test_xsa_121_partially_filled_results),
        cmocka_unit_test(test_xsa_112_access_across_two_regions),
        cmocka_unit_test(test_pm1a_control_ends_at_its_edge),
        cmocka_unit_test(test_kvm_pit_gate_races),
        cmocka_unit_test(test_kvm_apic_map_races),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
