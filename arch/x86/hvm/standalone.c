/*
 * Without a control device: boot modules are guests without device model, in the hypervisor's own memory and on its console.
 * Bochs, deterministic runs, benchmarks and small test guests need nothing else. The options are in docs/boot.md.
 */
#include "hvm.h"

#define ORDER_MAX 18u /* 1 GiB */
#define ORDER_MIN 13u /* 32 MiB */
#define GUESTS_MAX BOOT_MAX_MODULES
#define NO_MODULE BOOT_MAX_MODULES
#define LINE_BYTES 160u

static struct guest {
    struct slot slot;
    unsigned image, initrd; /* modules; NO_MODULE: no RAM disk */
    struct spinlock lock;   /* of the two below */
    char line[LINE_BYTES];  /* of its console, not printed yet */
    unsigned line_length;
} guests[GUESTS_MAX];
static unsigned guest_count;
static unsigned long mem_mib[GUESTS_MAX], vcpus[GUESTS_MAX];
static bool shown[GUESTS_MAX];   /* whose console is printed */
static bool awaited[GUESTS_MAX]; /* for whose end the run waits */
static struct spinlock end_lock;

static void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *format, ...)
{
    char why[160];
    va_list args;

    va_start(args, format);
    vformat_line(why, sizeof(why), format, args);
    va_end(args);
    log_error("%s\n", why);
    machine_stop(2);
}

/* An option's value: numbers with separators between them. */
struct list {
    const char *name, *at;
    char text[80];
};

static bool list_open(struct list *l, const char *name)
{
    l->name = name;
    l->at = l->text;
    return boot_option(name, l->text, sizeof(l->text));
}

static bool list_skip(struct list *l, char separator)
{
    bool there = *l->at == separator;

    l->at += there;
    return there;
}

static unsigned long list_number(struct list *l, unsigned long most)
{
    const char *start = l->at;
    unsigned long n = 0;

    for (; *l->at >= '0' && *l->at <= '9' && n <= most; l->at++)
        n = n * 10 + (unsigned long)(*l->at - '0');
    if (l->at == start)
        refuse("%s=%s: a number is missing at '%s'", l->name, l->text, start);
    if (n > most)
        refuse("%s=%s: at '%s': %lu is the most", l->name, l->text, start, most);
    return n;
}

static void list_close(const struct list *l)
{
    if (*l->at)
        refuse("%s=%s: what is '%s'?", l->name, l->text, l->at);
}

static unsigned take_module(struct list *l)
{
    static bool taken[BOOT_MAX_MODULES];
    unsigned module = (unsigned)list_number(l, boot_info.modules - 1);

    if (taken[module])
        refuse("%s=%s: boot module %u is named twice", l->name, l->text, module);
    taken[module] = true;
    return module;
}

/* guests=IMAGE[+INITRD],... */
static void option_guests(void)
{
    struct list l;

    if (!list_open(&l, "guests")) {
        guest_count = 1;
        guests[0].initrd = boot_info.modules > 1 ? 1 : NO_MODULE;
        return;
    }
    do {
        struct guest *g = &guests[guest_count++];

        g->image = take_module(&l);
        g->initrd = list_skip(&l, '+') ? take_module(&l) : NO_MODULE;
    } while (list_skip(&l, ','));
    list_close(&l);
}

/* One number for each guest; the last one is for all that follow, too. */
static void option_each(const char *name, unsigned long most, unsigned long otherwise, unsigned long *value)
{
    struct list l;
    bool more = list_open(&l, name);

    if (!more)
        l.text[0] = '\0';
    for (unsigned i = 0; i < guest_count; i++) {
        if (more)
            otherwise = list_number(&l, most);
        more = more && list_skip(&l, ',');
        value[i] = otherwise;
    }
    list_close(&l);
}

/* Numbers of guests; without the option all of them. */
static void option_some(const char *name, bool *value)
{
    struct list l;
    bool some = list_open(&l, name);

    for (unsigned i = 0; i < guest_count; i++)
        value[i] = !some;
    if (!some)
        return;
    do
        value[list_number(&l, guest_count - 1)] = true;
    while (list_skip(&l, ','));
    list_close(&l);
}

/* ticks=SOURCE=POLICY,... */
static uint32_t option_ticks(void)
{
    char text[96];
    uint32_t ticks = 0;
    const char *wrong = boot_option("ticks", text, sizeof(text)) ? metronome_ticks_parse(text, &ticks) : NULL;

    if (wrong)
        refuse("ticks=%s: '%s' is no SOURCE=POLICY", text, wrong);
    return ticks;
}

/* The smallest block that holds what mem= asks for. */
static unsigned wanted_order(unsigned guest)
{
    unsigned order = ORDER_MAX;

    while (mem_mib[guest] && order > ORDER_MIN && (PAGE_SIZE << order) / 2 >= (mem_mib[guest] << 20) + METRONOME_DOMAIN_ARENA)
        order--;
    return order;
}

/* A block for each guest, of this order at most; or none at all. */
static bool take_blocks(unsigned most)
{
    for (unsigned i = 0; i < guest_count; i++) {
        unsigned order = wanted_order(i) < most ? wanted_order(i) : most;
        struct slot *s = &guests[i].slot;

        s->memory = alloc_pages(order);
        s->size = PAGE_SIZE << order;
        if (s->memory)
            continue;
        while (i--)
            free_pages(guests[i].slot.memory, (unsigned)__builtin_ctzll(guests[i].slot.size / PAGE_SIZE));
        return false;
    }
    return true;
}

static void take_memory(void)
{
    unsigned order = ORDER_MAX;

    while (!take_blocks(order))
        if (order-- == ORDER_MIN)
            refuse("too little memory for %s", guest_count == 1 ? "a guest" : "so many guests");
}

static void fill_header(unsigned guest)
{
    const struct guest *g = &guests[guest];
    const struct boot_module *image = &boot_info.module[g->image];
    struct metronome_domain_header *h = (void *)(g->slot.memory + METRONOME_DOMAIN_HEADER);
    uint64_t room = (g->slot.size - METRONOME_DOMAIN_ARENA) & ~(LARGE_PAGE_SIZE - 1), bytes = mem_mib[guest] << 20;
    uint64_t wallclock;

    h->magic = METRONOME_DOMAIN_MAGIC;
    h->version = METRONOME_ABI_VERSION;
    h->vcpus = h->cores = (uint32_t)vcpus[guest];
    h->ram_low = bytes && bytes < room ? bytes & ~(LARGE_PAGE_SIZE - 1) : room;
    h->extra = h->ram_low;
    h->wallclock = boot_option_number("wallclock", &wallclock) ? (int64_t)wallclock : 1767225600; /* 2026-01-01 */
    h->module_bytes = image->size;
    h->initrd_bytes = g->initrd == NO_MODULE ? 0 : boot_info.module[g->initrd].size;
    h->ticks = option_ticks();
    memcpy(h->name, "module", 7);
    memcpy(h->command_line, image->command_line, sizeof(image->command_line));
}

static const void *map_module(unsigned module)
{
    const void *mapped;

    if (module == NO_MODULE)
        return NULL;
    mapped = map_physical(boot_info.module[module].base, boot_info.module[module].size, MAP_READONLY);
    if (!mapped)
        refuse("boot module %u cannot be mapped", module);
    return mapped;
}

static unsigned made;

static void make_next_guest(void)
{
    struct guest *g = &guests[made];

    g->slot.index = made;
    g->slot.physical = virt_to_phys(g->slot.memory);
    g->slot.module = map_module(g->image);
    g->slot.initrd = map_module(g->initrd);
    fill_header(made);
    domain_make(&g->slot);
}

/* They start together. */
void standalone_made(int status)
{
    if (status)
        refuse("guest %u cannot be made (%d)", made, status);
    if (++made < guest_count)
        make_next_guest();
    else
        for (unsigned i = 0; i < guest_count; i++)
            domain_start(guests[i].slot.domain);
}

void standalone_init(void)
{
    if (boot_info.modules == 0)
        refuse("nothing to run: no control device and no boot module");
    option_guests();
    option_each("mem", METRONOME_RAM_LOW_MAX >> 20, 0, mem_mib);
    option_each("vcpus", METRONOME_MAX_VCPUS, 1, vcpus);
    option_some("show", shown);
    option_some("until", awaited);
    take_memory();
    make_next_guest();
}

/* The console has no interrupt here: looked at on each round of the pCPU's loop. What is typed is the first shown guest's. */
void standalone_poll(void)
{
    unsigned i = 0;

    while (i < guest_count && !shown[i])
        i++;
    if (i < guest_count && made == guest_count && !domain_has_ended(guests[i].slot.domain))
        domain_console_poll(guests[i].slot.domain);
}

static void print_line(struct guest *g)
{
    console_print("%u: %.*s\n", g->slot.index, (int)g->line_length, g->line);
    g->line_length = 0;
}

/* A guest alone has the console as it is; several have whole lines of it, with their numbers. */
void standalone_console(struct domain *d, const uint8_t *bytes, unsigned n)
{
    struct guest *g = &guests[d->slot->index];

    if (!shown[d->slot->index])
        return;
    if (guest_count == 1) {
        console_write((const char *)bytes, n);
        return;
    }
    spin_lock(&g->lock);
    for (unsigned i = 0; i < n; i++) {
        if (bytes[i] == '\n' || g->line_length == LINE_BYTES)
            print_line(g);
        if (bytes[i] != '\n' && bytes[i] != '\r')
            g->line[g->line_length++] = (char)bytes[i];
    }
    spin_unlock(&g->lock);
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
    log_info("  %-32s %35lu\n", "none: the CPU's loop", hvm_pcpus[v->place.cpu]->longest_off);
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
    if (guest_count > 1)
        log_info("guest %u\n", d->slot->index);
    for (unsigned i = 0; i < d->vcpus; i++) {
        log_info("CPU %u ran for %lu us, and waited for a pCPU for %lu us\n", i, ns_of(d, d->vcpu[i]->counts.run_ticks) / 1000,
                 ns_of(d, d->vcpu[i]->counts.steal_ticks) / 1000);
        print_exits(d->vcpu[i], exits);
        print_counts("interrupts injected by source", d->vcpu[i]->counts.injected, sources, METRONOME_INJECT_COUNT);
    }
    print_ticks(d);
    print_latency(d);
}

static int end_code(const struct domain *d)
{
    return d->end == METRONOME_END_EXIT ? (int)d->end_code : d->end == METRONOME_END_POWEROFF ? 0 : 1;
}

/* The end of the last one that the run waits for is the machine's; its code is the first one's that is not 0. */
void standalone_ended(struct domain *d)
{
    static int code;
    bool more = false;

    spin_lock(&end_lock);
    if (guests[d->slot->index].line_length)
        print_line(&guests[d->slot->index]);
    if (awaited[d->slot->index] && !code)
        code = end_code(d);
    awaited[d->slot->index] = false;
    for (unsigned i = 0; i < guest_count; i++)
        more = more || awaited[i];
    if (!more)
        console_set_pause(NULL); /* what is printed is what was until now */
    for (unsigned i = 0; i < guest_count && !more; i++)
        print_stats(guests[i].slot.domain);
    spin_unlock(&end_lock);
    if (!more)
        machine_stop(code);
}
