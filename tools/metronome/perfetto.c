/*
 * From a trace to a timeline. The file's windows are read pCPU by pCPU, and their records taken in the order of their times; what is
 * written is written at once, so that only the tracks' states are kept.
 *
 *   a process for each domain   its vCPUs: in the guest, at an exit, waiting; their requests to the device model; its devices
 *   a process for the pCPUs     whose vCPU each one runs
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "perfetto.h"
#include "public/stats.h"
#include "public/trace_events.h"

#define MOST_PCPUS 1024u
#define NO_WINDOW  SIZE_MAX
#define WINDOW_WORDS 3u /* of the record that begins one */
#define THREADS 100000u /* that a process may have: no number is that of two */

/* ---- Tracks ---- */

/* One line of the timeline: what is on it comes in the order of time, and one thing at a time. */
struct track {
    uint32_t process, thread;
    uint64_t last_ns;
    bool known, open;
};

enum { PROCESS_OF_PCPUS = 1, PROCESS_OF_DOMAINS = 2 }; /* and the domain's number */
enum { THREAD_OF_VCPUS = 1, THREAD_OF_REQUESTS = 10001, THREAD_OF_TIMERS = 20001, THREAD_OF_DEVICES = 30001 };

/* Beside its local APICs' timers. */
#define DEVICES(X) X(PIC, "PIC") X(PIT, "PIT") X(RTC, "RTC") X(HPET, "HPET") X(LINES, "interrupt lines")
#define X(name, text) DEVICE_##name,
enum device { DEVICES(X) DEVICE_COUNT };
#undef X

struct domain {
    uint32_t id;
    struct track device[DEVICE_COUNT];
    struct domain *next;
};

struct vcpu {
    uint32_t domain, id;
    struct track track, requests, timer;
    struct vcpu *next;
};

/* A pCPU's windows, and how far they have been read. */
struct cursor {
    size_t window;
    const uint32_t *record, *end; /* NULL: no more */
    uint64_t tsc;                 /* of the record, or of the last one that has it */
    struct track track;
    struct vcpu *runs;
    uint32_t domain; /* that the last record which names one was about */
};

struct window {
    const uint32_t *words;
    uint32_t count;
    size_t next; /* of the same pCPU */
};

struct timeline {
    FILE *to;
    const char *error;
    uint64_t tsc_hz, first_tsc;
    struct window *windows;
    size_t window_count;
    struct cursor cursor[MOST_PCPUS];
    unsigned pcpus; /* up to the last that there is */
    struct vcpu *vcpus;
    struct domain *domains;
    bool begun; /* something has been written */
};

static void *must_have(void *memory)
{
    if (!memory) {
        fputs("metronome: no memory\n", stderr);
        exit(5);
    }
    return memory;
}

/* ---- What is written ---- */

static void begin_event(struct timeline *t)
{
    fputs(t->begun ? ",\n" : "\n", t->to);
    t->begun = true;
}

static void name_it(struct timeline *t, const char *what, const struct track *k, const char *name)
{
    begin_event(t);
    fprintf(t->to, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"%s\"}}", what, k->process, k->thread, name);
}

static void make_track(struct timeline *t, struct track *k, uint32_t process, uint32_t thread, const char *name)
{
    *k = (struct track){.process = process, .thread = process * THREADS + thread, .known = true};
    name_it(t, "thread_name", k, name);
    begin_event(t);
    fprintf(t->to, "{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":%u,\"tid\":%u,\"args\":{\"sort_index\":%u}}", process, k->thread, thread);
}

static uint64_t ns_of(const struct timeline *t, uint64_t tsc)
{
    return tsc < t->first_tsc ? 0 : (uint64_t)((unsigned __int128)(tsc - t->first_tsc) * 1000000000 / t->tsc_hz);
}

/* Up to where its members of its own follow. Time does not go back on a track: what was lost is said to have begun before. */
static void begin_on(struct timeline *t, struct track *k, char phase, uint64_t tsc)
{
    uint64_t ns = ns_of(t, tsc);

    ns = ns < k->last_ns ? k->last_ns : ns;
    k->last_ns = ns;
    begin_event(t);
    fprintf(t->to, "{\"ph\":\"%c\",\"pid\":%u,\"tid\":%u,\"ts\":%" PRIu64 ".%03u", phase, k->process, k->thread, ns / 1000, (unsigned)(ns % 1000));
}

static void close_slice(struct timeline *t, struct track *k, uint64_t tsc)
{
    if (!k->open)
        return;
    begin_on(t, k, 'E', tsc);
    fputc('}', t->to);
    k->open = false;
}

/* What was there ends. The caller may add members, and closes the brace. */
static void open_slice(struct timeline *t, struct track *k, const char *name, uint64_t tsc)
{
    close_slice(t, k, tsc);
    begin_on(t, k, 'B', tsc);
    fprintf(t->to, ",\"name\":\"%s\"", name);
    k->open = true;
}

static void slice(struct timeline *t, struct track *k, const char *name, uint64_t tsc)
{
    open_slice(t, k, name, tsc);
    fputc('}', t->to);
}

/* The same, of a moment. */
static void instant(struct timeline *t, struct track *k, const char *name, uint64_t tsc)
{
    begin_on(t, k, 'i', tsc);
    fprintf(t->to, ",\"s\":\"t\",\"name\":\"%s\"", name);
}

/* ---- Domains and vCPUs, as the trace names them ---- */

static struct domain *domain_of(struct timeline *t, uint32_t id)
{
    struct domain *d = t->domains;
    struct track process = {.process = PROCESS_OF_DOMAINS + id};
    char name[32];

    while (d && d->id != id)
        d = d->next;
    if (d)
        return d;
    d = must_have(calloc(1, sizeof *d));
    d->id = id;
    d->next = t->domains;
    t->domains = d;
    snprintf(name, sizeof name, "domain %u", id);
    name_it(t, "process_name", &process, name);
    return d;
}

static struct vcpu *make_vcpu(struct timeline *t, uint32_t domain, uint32_t id)
{
    struct vcpu *v = must_have(calloc(1, sizeof *v));
    char name[48];

    domain_of(t, domain);
    *v = (struct vcpu){.domain = domain, .id = id, .next = t->vcpus};
    t->vcpus = v;
    snprintf(name, sizeof name, "vCPU %u", id);
    make_track(t, &v->track, PROCESS_OF_DOMAINS + domain, THREAD_OF_VCPUS + id, name);
    return v;
}

/* {vCPU | domain << 16}; NULL: an idle pCPU's. */
static struct vcpu *vcpu_of(struct timeline *t, uint32_t word)
{
    uint32_t domain = word >> 16, id = word & 0xffff;
    struct vcpu *v = t->vcpus;

    if (domain == TRACE_IDLE_DOMAIN)
        return NULL;
    while (v && (v->domain != domain || v->id != id))
        v = v->next;
    return v ? v : make_vcpu(t, domain, id);
}

static struct track *device_track(struct timeline *t, uint32_t domain, enum device device)
{
#define X(name, text) text,
    static const char *const names[] = {DEVICES(X)};
#undef X
    struct track *k = &domain_of(t, domain)->device[device];

    if (!k->known)
        make_track(t, k, PROCESS_OF_DOMAINS + domain, THREAD_OF_DEVICES + device, names[device]);
    return k;
}

static struct track *vcpu_track(struct timeline *t, struct vcpu *v, struct track *k, uint32_t first_thread, const char *what)
{
    char name[64];

    snprintf(name, sizeof name, "vCPU %u, %s", v->id, what);
    if (!k->known)
        make_track(t, k, v->track.process, first_thread + v->id, name);
    return k;
}

static struct track *timer_track(struct timeline *t, struct vcpu *v)
{
    return vcpu_track(t, v, &v->timer, THREAD_OF_TIMERS, "local APIC timer");
}

/* ---- Exits ---- */

/* AMD's codes (APM 2 appendix C). */
static const struct {
    uint32_t first, last;
    const char *name; /* with the number from the first on, where there are several */
} exit_names[] = {
    {0x00, 0x0f, "CR%u read"}, {0x10, 0x1f, "CR%u write"}, {0x20, 0x2f, "DR%u read"}, {0x30, 0x3f, "DR%u write"}, {0x40, 0x5f, "exception %u"},
    {0x60, 0x60, "host interrupt"}, {0x61, 0x61, "NMI"}, {0x62, 0x62, "SMI"}, {0x63, 0x63, "INIT"}, {0x64, 0x64, "interrupt window"},
    {0x6f, 0x6f, "RDPMC"}, {0x72, 0x72, "CPUID"}, {0x74, 0x74, "IRET"}, {0x76, 0x76, "INVD"}, {0x77, 0x77, "PAUSE"}, {0x78, 0x78, "HLT"},
    {0x79, 0x79, "INVLPG"}, {0x7b, 0x7b, "port"}, {0x7c, 0x7c, "MSR"}, {0x7f, 0x7f, "shutdown"}, {0x81, 0x81, "VMMCALL"},
    {0x89, 0x89, "WBINVD"}, {0x8d, 0x8d, "XSETBV"}, {0x400, 0x400, "nested page fault"},
};

static const char *exit_name(uint32_t code)
{
    static char name[32];
    const char *format = "exit %#x";
    uint32_t number = code;

    for (unsigned i = 0; i < sizeof exit_names / sizeof exit_names[0]; i++)
        if (code >= exit_names[i].first && code <= exit_names[i].last) {
            format = exit_names[i].name;
            number = code - exit_names[i].first;
        }
    snprintf(name, sizeof name, format, number);
    return name;
}

static uint64_t long_word(const uint32_t *words)
{
    return words[0] | (uint64_t)words[1] << 32;
}

/* What handlers note of an exit, as a moment in it. `words`: of the address or number. */
static const struct {
    uint32_t event;
    const char *name;
    unsigned words;
} notes[] = {
    {TRACE_HVM_IOPORT_READ, "port read", 1}, {TRACE_HVM_IOPORT_WRITE, "port write", 1},
    {TRACE_HVM_IOMEM_READ, "MMIO read", 1}, {TRACE_HVM_IOMEM_WRITE, "MMIO write", 1},
    {TRACE_HVM_IOMEM_READ | TRACE_64, "MMIO read", 2}, {TRACE_HVM_IOMEM_WRITE | TRACE_64, "MMIO write", 2},
    {TRACE_HVM_MSR_READ, "MSR read", 1}, {TRACE_HVM_MSR_WRITE, "MSR write", 1}, {TRACE_HVM_CPUID, "CPUID", 1},
    {TRACE_HVM_INJ_VIRQ, "interrupt", 1}, {TRACE_HVM_REINJ_VIRQ, "interrupt again", 1}, {TRACE_HVM_INJ_EXC, "exception", 1},
};

static void put_note(struct timeline *t, struct cursor *c, uint32_t event, const uint32_t *words)
{
    for (unsigned i = 0; c->runs && i < sizeof notes / sizeof notes[0]; i++)
        if (notes[i].event == event) {
            instant(t, &c->runs->track, notes[i].name, c->tsc);
            fprintf(t->to, ",\"args\":{\"of\":\"%#" PRIx64 "\"}}", notes[i].words == 2 ? long_word(words) : words[0]);
        }
}

/* ---- One record ---- */

static void runstate(struct timeline *t, struct cursor *c, uint32_t event, uint32_t who)
{
    static const char *const names[] = {[RUNSTATE_RUNNING] = "hypervisor", [RUNSTATE_RUNNABLE] = "waits for a CPU", [RUNSTATE_BLOCKED] = "waits"};
    uint32_t state = trace_new_runstate(event);
    struct vcpu *v = vcpu_of(t, who);
    char name[48] = "idle";

    if (v && state < sizeof names / sizeof names[0])
        slice(t, &v->track, names[state], c->tsc);
    else if (v)
        close_slice(t, &v->track, c->tsc);
    if (v)
        c->domain = v->domain;
    if (v)
        snprintf(name, sizeof name, "domain %u, vCPU %u", v->domain, v->id);
    if (state == RUNSTATE_RUNNING) {
        c->runs = v;
        slice(t, &c->track, name, c->tsc);
    } else if ((event >> 8 & 15) == RUNSTATE_RUNNING) {
        c->runs = NULL;
        close_slice(t, &c->track, c->tsc);
    }
}

static void exit_from(struct timeline *t, struct cursor *c, const uint32_t *words, bool is_long)
{
    if (!c->runs)
        return;
    open_slice(t, &c->runs->track, exit_name(words[0]), c->tsc);
    fprintf(t->to, ",\"args\":{\"rip\":\"%#" PRIx64 "\"}}", is_long ? long_word(words + 1) : words[1]);
}

static void tick(struct timeline *t, struct cursor *c, const uint32_t *words)
{
    static const enum device devices[METRONOME_TICK_SOURCE_COUNT] = {
        [METRONOME_TICKS_OF_PIT] = DEVICE_PIT, [METRONOME_TICKS_OF_RTC] = DEVICE_RTC, [METRONOME_TICKS_OF_HPET] = DEVICE_HPET};
    uint32_t domain = words[1] >> 16, number = words[1] & 0xffff;
    struct vcpu *v = words[0] == METRONOME_TICKS_OF_LAPIC ? vcpu_of(t, words[1]) : NULL;

    if (words[0] >= METRONOME_TICK_SOURCE_COUNT)
        return;
    c->domain = domain;
    instant(t, v ? timer_track(t, v) : device_track(t, domain, devices[words[0]]), "tick", c->tsc);
    fprintf(t->to, ",\"args\":{\"number\":%u,\"due\":%u,\"owed\":%u}}", number, words[2], words[3]);
}

static void request(struct timeline *t, struct cursor *c, const uint32_t *words)
{
    struct vcpu *v = vcpu_of(t, words[0]);
    bool port = words[3] >> 9 & 1, write = words[3] >> 8 & 1;
    char name[64];

    if (!v)
        return;
    snprintf(name, sizeof name, "%s %s %#" PRIx64, port ? "port" : "memory", write ? "write" : "read", long_word(words + 1));
    open_slice(t, vcpu_track(t, v, &v->requests, THREAD_OF_REQUESTS, "requests to the device model"), name, c->tsc);
    fprintf(t->to, ",\"args\":{\"bytes\":%u}}", words[3] & 0xff);
}

static void answer(struct timeline *t, struct cursor *c, const uint32_t *words)
{
    struct vcpu *v = vcpu_of(t, words[0]);

    if (v)
        close_slice(t, &v->requests, c->tsc);
}

/* Of a PIC or a line, whose records do not name their domain. */
static void device(struct timeline *t, struct cursor *c, enum device which, const char *name, const uint32_t *words)
{
    if (c->domain == TRACE_IDLE_DOMAIN)
        return;
    instant(t, device_track(t, c->domain, which), name, c->tsc);
    fprintf(t->to, ",\"args\":{\"of\":%u}}", words[0]);
}

/* A timer that the vCPU which runs has started or stopped. */
static bool timer(struct timeline *t, struct cursor *c, uint32_t event)
{
    static const struct {
        uint32_t start, stop;
        enum device device; /* DEVICE_COUNT: its local APIC's */
    } timers[] = {
        {TRACE_EMUL_PIT_START, TRACE_EMUL_PIT_STOP, DEVICE_PIT},
        {TRACE_EMUL_RTC_START, TRACE_EMUL_RTC_STOP, DEVICE_RTC},
        {TRACE_EMUL_HPET_START, TRACE_EMUL_HPET_STOP, DEVICE_HPET},
        {TRACE_EMUL_LAPIC_START, TRACE_EMUL_LAPIC_STOP, DEVICE_COUNT},
    };

    for (unsigned i = 0; c->runs && i < sizeof timers / sizeof timers[0]; i++) {
        bool apic = timers[i].device == DEVICE_COUNT;

        if (event != timers[i].start && event != timers[i].stop)
            continue;
        instant(t, apic ? timer_track(t, c->runs) : device_track(t, c->runs->domain, timers[i].device),
                event == timers[i].start ? "starts" : "stops", c->tsc);
        fputc('}', t->to);
        return true;
    }
    return false;
}

/* From there on nothing is known of what ran there. */
static void lost(struct timeline *t, struct cursor *c, const uint32_t *words)
{
    uint64_t since = long_word(words + 2);

    if (c->runs)
        close_slice(t, &c->runs->track, since);
    close_slice(t, &c->track, since);
    c->runs = vcpu_of(t, words[1] << 16 | words[1] >> 16);
    instant(t, &c->track, "records lost", c->tsc);
    fprintf(t->to, ",\"args\":{\"records\":%u}}", words[0]);
}

static void take(struct timeline *t, struct cursor *c, uint32_t event, const uint32_t *words)
{
    if (trace_is_runstate(event)) {
        runstate(t, c, event, words[0]);
        return;
    }
    switch (event) {
    case TRACE_HVM_VMENTRY:
        if (c->runs)
            slice(t, &c->runs->track, "guest", c->tsc);
        break;
    case TRACE_HVM_VMEXIT:
    case TRACE_HVM_VMEXIT64:
        exit_from(t, c, words, event == TRACE_HVM_VMEXIT64);
        break;
    case TRACE_TICKS: tick(t, c, words); break;
    case TRACE_REQUEST: request(t, c, words); break;
    case TRACE_ANSWER: answer(t, c, words); break;
    case TRACE_EMUL_PIC_RISE: device(t, c, DEVICE_PIC, "IRQ rises", words); break;
    case TRACE_EMUL_PIC_FALL: device(t, c, DEVICE_PIC, "IRQ falls", words); break;
    case TRACE_EMUL_PIC_OUTPUT: device(t, c, DEVICE_PIC, "INT", words); break;
    case TRACE_EMUL_PIC_INTACK: device(t, c, DEVICE_PIC, "INTACK", words); break;
    case TRACE_LINE: device(t, c, DEVICE_LINES, words[1] ? "rises" : "falls", words); break;
    case METRONOME_TRACE_LOST: lost(t, c, words); break;
    default:
        if (!timer(t, c, event))
            put_note(t, c, event, words);
    }
}

/* ---- The file, pCPU by pCPU ---- */

static uint64_t tsc_of(const uint32_t *record)
{
    return long_word(record + 1);
}

/* Goes to the next record that there is, with its time. */
static void settle(const struct timeline *t, struct cursor *c)
{
    while (c->record && c->record == c->end) {
        c->window = t->windows[c->window].next;
        c->record = c->window == NO_WINDOW ? NULL : t->windows[c->window].words;
        c->end = c->record ? c->record + t->windows[c->window].count : NULL;
    }
    if (c->record && (*c->record & METRONOME_TRACE_TSC) && tsc_of(c->record) > c->tsc)
        c->tsc = tsc_of(c->record);
}

static void advance(const struct timeline *t, struct cursor *c)
{
    c->record += metronome_trace_words(*c->record);
    settle(t, c);
}

/* Every record of a window lies in it, and has its own words. */
static bool is_whole(const uint32_t *words, uint64_t count)
{
    uint64_t at = 0;

    while (at < count)
        at += metronome_trace_words(words[at]);
    return at == count;
}

static bool add_window(struct timeline *t, uint32_t cpu, const uint32_t *words, uint32_t count)
{
    static size_t last[MOST_PCPUS];
    struct window *w;

    if (!(t->window_count & (t->window_count + 1)))
        t->windows = must_have(realloc(t->windows, (t->window_count + 1) * 2 * sizeof *t->windows));
    w = &t->windows[t->window_count];
    *w = (struct window){words, count, NO_WINDOW};
    if (!t->cursor[cpu].record)
        t->cursor[cpu] = (struct cursor){.window = t->window_count, .record = words, .end = words + count, .domain = TRACE_IDLE_DOMAIN};
    else
        t->windows[last[cpu]].next = t->window_count;
    last[cpu] = t->window_count++;
    t->pcpus = cpu < t->pcpus ? t->pcpus : cpu + 1;
    return is_whole(words, count);
}

static bool find_windows(struct timeline *t, const uint32_t *words, uint64_t count)
{
    const uint32_t begin = METRONOME_TRACE_CPU_CHANGE | METRONOME_TRACE_EXTRA(2);

    for (uint64_t at = 0; at < count; ) {
        const uint32_t *w = words + at;

        if (count - at < WINDOW_WORDS || w[0] != begin || w[1] >= MOST_PCPUS || w[2] % 4 || w[2] / 4 > count - at - WINDOW_WORDS)
            return false;
        at += WINDOW_WORDS + w[2] / 4;
        if (w[2] && !add_window(t, w[1], w + WINDOW_WORDS, w[2] / 4))
            return false;
    }
    return t->window_count;
}

/* The earliest record's pCPU; NULL: there is none. */
static struct cursor *earliest(struct timeline *t)
{
    struct cursor *first = NULL;

    for (unsigned i = 0; i < t->pcpus; i++)
        if (t->cursor[i].record && (!first || t->cursor[i].tsc < first->tsc))
            first = &t->cursor[i];
    return first;
}

/* The first time of each pCPU is that of what comes before it without; and the clock, where the file has it. */
static bool find_times(struct timeline *t)
{
    t->first_tsc = UINT64_MAX;
    for (unsigned i = 0; i < t->pcpus; i++) {
        struct cursor scan = t->cursor[i];

        for (settle(t, &scan); scan.record && !scan.tsc; )
            advance(t, &scan);
        t->cursor[i].tsc = scan.tsc;
        if (scan.record && scan.tsc < t->first_tsc)
            t->first_tsc = scan.tsc;
        if (scan.record && trace_event_of(*scan.record) == TRACE_CLOCK && !t->tsc_hz)
            t->tsc_hz = long_word(scan.record + 3);
    }
    return t->tsc_hz;
}

/* Words that a record lacks are none. */
static void take_record(struct timeline *t, struct cursor *c)
{
    uint32_t words[8] = {0}, first = *c->record;

    memcpy(words, c->record + 1 + (first & METRONOME_TRACE_TSC ? 2 : 0), (first >> 28 & 7) * sizeof *words);
    take(t, c, trace_event_of(first), words);
}

static void write_tracks(struct timeline *t)
{
    const struct track pcpus = {.process = PROCESS_OF_PCPUS};
    struct cursor *c;
    uint64_t last = t->first_tsc;

    name_it(t, "process_name", &pcpus, "pCPUs");
    for (unsigned i = 0; i < t->pcpus; i++) {
        char name[24];

        snprintf(name, sizeof name, "pCPU %u", i);
        if (t->cursor[i].record)
            make_track(t, &t->cursor[i].track, PROCESS_OF_PCPUS, i + 1, name);
        settle(t, &t->cursor[i]);
    }
    while ((c = earliest(t)) && !ferror(t->to)) {
        last = c->tsc;
        take_record(t, c);
        advance(t, c);
    }
    for (unsigned i = 0; i < t->pcpus; i++)
        close_slice(t, &t->cursor[i].track, last);
    for (struct vcpu *v = t->vcpus; v; v = v->next) {
        close_slice(t, &v->track, last);
        close_slice(t, &v->requests, last);
    }
}

static void free_all(struct timeline *t)
{
    for (struct vcpu *v = t->vcpus, *next; v; v = next) {
        next = v->next;
        free(v);
    }
    for (struct domain *d = t->domains, *next; d; d = next) {
        next = d->next;
        free(d);
    }
    free(t->windows);
}

bool perfetto_write(int file, uint64_t tsc_hz, FILE *to, const char **error)
{
    static struct timeline t;
    struct stat st;
    const uint32_t *words = MAP_FAILED;

    t.to = to;
    t.tsc_hz = tsc_hz;
    *error = NULL;
    if (!fstat(file, &st) && S_ISREG(st.st_mode) && st.st_size > 0)
        words = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (words == MAP_FAILED || st.st_size % 4 || !find_windows(&t, words, (uint64_t)st.st_size / 4))
        *error = "is no trace, or damaged";
    else if (!find_times(&t))
        *error = "does not say what its clock is: --cpu-hz does";
    if (!*error) {
        fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", to);
        write_tracks(&t);
        fputs("\n]}\n", to);
    }
    free_all(&t);
    return !*error;
}
