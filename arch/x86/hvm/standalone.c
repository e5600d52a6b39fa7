/*
 * Without a control device: the first boot module is a guest without device model, in the hypervisor's own memory and on
 * its console. Bochs, deterministic runs and small test guests need nothing else.
 */
#include "hvm.h"

#define ORDER_MAX 18u /* 1 GiB */
#define ORDER_MIN 13u /* 32 MiB */

static struct slot own_slot;

static unsigned long option_number(const char *name, unsigned long otherwise)
{
    char text[24];
    unsigned long n = 0;

    if (!boot_option(name, text, sizeof(text)))
        return otherwise;
    for (const char *c = text; *c >= '0' && *c <= '9'; c++)
        n = n * 10 + (unsigned long)(*c - '0');
    return n;
}

/* The largest block there is, or what mem=MIB asks for. */
static bool take_memory(struct slot *s)
{
    unsigned long mib = option_number("mem", 0);

    for (unsigned order = ORDER_MAX; order >= ORDER_MIN; order--) {
        if (mib && (PAGE_SIZE << order) / 2 >= (mib << 20) + METRONOME_DOMAIN_ARENA)
            continue;
        s->memory = alloc_pages(order);
        if (!s->memory)
            continue;
        s->size = PAGE_SIZE << order;
        s->physical = virt_to_phys(s->memory);
        return true;
    }
    return false;
}

static void stop(int code, const char *why)
{
    log_error("%s\n", why);
    machine_stop(code);
}

/* ticks=SOURCE=POLICY,... */
static uint32_t option_ticks(void)
{
    char text[96];
    uint32_t ticks = 0;
    const char *wrong = boot_option("ticks", text, sizeof(text)) ? metronome_ticks_parse(text, &ticks) : NULL;

    if (wrong) {
        log_error("ticks=%s: '%s' is no SOURCE=POLICY\n", text, wrong);
        machine_stop(2);
    }
    return ticks;
}

static void fill_header(struct slot *s, const struct boot_module *image, const struct boot_module *initrd)
{
    struct metronome_domain_header *h = (void *)(s->memory + METRONOME_DOMAIN_HEADER);
    unsigned long mib = option_number("mem", 0);
    uint64_t room = (s->size - METRONOME_DOMAIN_ARENA) & ~(LARGE_PAGE_SIZE - 1);

    h->magic = METRONOME_DOMAIN_MAGIC;
    h->version = METRONOME_ABI_VERSION;
    h->vcpus = (uint32_t)option_number("vcpus", 1);
    h->ram_low = mib && mib << 20 < room ? mib << 20 & ~(LARGE_PAGE_SIZE - 1) : room;
    h->extra = h->ram_low;
    h->wallclock = (int64_t)option_number("wallclock", 1767225600); /* 2026-01-01 */
    h->module_bytes = image->size;
    h->initrd_bytes = initrd ? initrd->size : 0;
    h->ticks = option_ticks();
    memcpy(h->name, "module", 7);
    memcpy(h->command_line, image->command_line, sizeof(image->command_line));
}

void standalone_init(void)
{
    const struct boot_module *initrd = boot_info.modules > 1 ? &boot_info.module[1] : NULL;
    void *image, *ramdisk = NULL;
    int error;

    if (boot_info.modules == 0)
        stop(2, "nothing to run: no control device and no boot module");
    if (!take_memory(&own_slot))
        stop(2, "too little memory for a guest");
    fill_header(&own_slot, &boot_info.module[0], initrd);
    image = map_physical(boot_info.module[0].base, boot_info.module[0].size, MAP_READONLY);
    if (initrd)
        ramdisk = map_physical(initrd->base, initrd->size, MAP_READONLY);
    if (!image || (initrd && !ramdisk))
        stop(2, "the boot module cannot be mapped");
    error = domain_create(&own_slot, image, ramdisk);
    if (error) {
        log_error("the guest cannot be made (%d)\n", error);
        machine_stop(2);
    }
    domain_start(own_slot.domain);
}

/* The console has no interrupt here: looked at on each round of the pCPU's loop. */
void standalone_poll(void)
{
    if (own_slot.domain && !own_slot.domain->ended)
        domain_console_poll(own_slot.domain);
}

static void print_counts(const char *title, const uint64_t *counts, const char *const *names, unsigned n)
{
    log_info("%s\n", title);
    for (unsigned i = 0; i < n; i++)
        if (counts[i])
            log_info("  %-32s %12llu\n", names[i], (unsigned long long)counts[i]);
}

static void print_exits(const struct vcpu *v, const char *const *names)
{
    log_info("exits by reason                                longest off, TSC ticks\n");
    for (unsigned i = 0; i < METRONOME_EXIT_COUNT; i++)
        if (v->counts.exits[i])
            log_info("  %-32s %12lu %22lu\n", names[i], v->counts.exits[i], v->counts.longest_off[i]);
    log_info("  %-32s %35lu\n", "none: the CPU's loop", hvm_pcpus[v->cpu]->longest_off);
}

static void print_ticks(struct domain *d)
{
#define X(name, key, text) text,
    static const char *const sources[] = {METRONOME_TICK_SOURCES(X)};
#undef X
    struct metronome_stats s;

    domain_stats(d, &s);
    log_info("ticks                                     due    delivered    collapsed      dropped  owed  pending\n");
    for (unsigned i = 0; i < METRONOME_TICK_SOURCE_COUNT; i++) {
        const struct metronome_ledger *l = &s.ticks[i];
        unsigned policy = s.policies >> METRONOME_TICKS_SHIFT(i) & 15;

        if (l->due)
            log_info("  %-20s %-11s %12lu %12lu %12lu %12lu %5lu %8lu\n", sources[i], metronome_tick_policy_keys[policy],
                     l->due, l->delivered, l->collapsed, l->dropped, l->owed, l->pending);
    }
    for (unsigned pin = 0; pin < METRONOME_STATS_PINS; pin++)
        if (s.storms[pin])
            log_info("storm on I/O APIC pin %u: held off %lu times\n", pin, s.storms[pin]);
    if (s.expiries_put_off)
        log_info("timer expiries put off by the budget: %lu\n", s.expiries_put_off);
    if (s.held_ticks)
        log_info("entries held until a timer was due: %lu TSC ticks\n", s.held_ticks);
}

static uint64_t ns_of(const struct domain *d, uint64_t ticks)
{
    return muldiv_u64(ticks, 1000000000, d->time.tsc_hz);
}

/* Until the entry that injects: from when it was due where that is known, else from its post. */
static void print_latency(const struct domain *d)
{
#define X(name, key, text) text,
    static const char *const sources[] = {METRONOME_LATENCY_SOURCES(X)};
#undef X
    log_info("latency, ns                                 n          p50          p99        p99.9          max\n");
    for (unsigned i = 0; i < METRONOME_LATENCY_SOURCE_COUNT; i++) {
        enum metronome_latency_stage stage = metronome_latency_headline(i);
        struct metronome_latency_summary s = metronome_latency_summary(&d->latency->of[i][stage]);

        if (s.n)
            log_info("  %-22s %-7s %12lu %12lu %12lu %12lu %12lu\n", sources[i], stage == METRONOME_LATENCY_DUE ? "due" : "posted",
                     s.n, ns_of(d, s.p50), ns_of(d, s.p99), ns_of(d, s.p999), ns_of(d, s.max));
    }
}

static void print_stats(struct domain *d)
{
#define X(name, text) text,
    static const char *const exits[] = {METRONOME_EXIT_REASONS(X)};
    static const char *const sources[] = {METRONOME_INJECT_SOURCES(X)};
#undef X
    for (unsigned i = 0; i < d->vcpus; i++) {
        print_exits(d->vcpu[i], exits);
        print_counts("interrupts injected by source", d->vcpu[i]->counts.injected, sources, METRONOME_INJECT_COUNT);
    }
    print_ticks(d);
    print_latency(d);
}

/* The guest's end is the machine's. */
void standalone_ended(struct domain *d)
{
    print_stats(d);
    machine_stop(d->end == METRONOME_END_EXIT ? (int)d->end_code : d->end == METRONOME_END_POWEROFF ? 0 : 1);
}
