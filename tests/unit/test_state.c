/*
 * A domain's state: run, save, check, restore, run is the run without interruption, byte for byte; and whatever lies in
 * a saved state, the hypervisor refuses it and keeps nothing of it, or has a domain like any other. On fabric_machine.h's
 * whole domains; tests/fuzz/fuzz_fabric.c looks for programs that this one's chance does not find.
 */
#include "fabric_machine.h"
#include "random.h"

#include <setjmp.h>
#include <cmocka.h>

char *strstr(const char *text, const char *part); /* string.h is the hypervisor's */

static void violated(const char *what, const char *condition)
{
    fail_msg("%s: %s", what, condition);
}

/* ---- Programs by chance ---- */

/* How often each operation comes; the others do not. */
static const uint8_t weights[KINDS] = {
    [PORT_IN] = 6, [PORT_OUT] = 6, [PORT_ANY] = 1, [STRING] = 3, [MMIO] = 8, [READ_MSR] = 4, [WRITE_MSR] = 3, [RECIPE] = 25,
    [END_PIC] = 4, [END_APIC] = 6, [HALT] = 4, [FLAGS] = 4, [CR8] = 2, [FPU] = 2, [COUNT] = 2, [DM_ISA] = 5, [DM_INTX] = 4,
    [DM_LINK] = 3, [DM_MSI] = 3, [DM_SCI] = 2, [DM_ANSWER] = 10, [DM_RESET_DONE] = 1, [BUTTON] = 2, [TYPE] = 1, [FORWARD] = 10,
    [DEADLINE_] = 10, [AROUND_DEADLINE] = 4, [SAVE] = 3, [SAVE_LATER] = 1, [RUN] = 10,
};

static uint8_t random_kind(void)
{
    unsigned sum = 0, n;

    for (unsigned i = 0; i < KINDS; i++)
        sum += weights[i];
    n = (unsigned)below(sum);
    for (uint8_t i = 0;; n -= weights[i++])
        if (n < weights[i])
            return i;
}

static struct operation random_operation(void)
{
    static const uint32_t times[] = {100, 5000, 20000, 1000000, 1u << 28}, messages[] = {0x41, 0x4041, 0xc055, 0x400, 0x341};
    struct operation o = {random_kind(), (uint8_t)below(256), (uint16_t)below(65536),
                          (uint32_t)below(below(2) ? 256 : 1ull << 32)};

    if (o.kind == FORWARD) {
        o.argument = 2 * (uint16_t)below(4);
        o.value = times[below(5)];
    } else if (o.kind == DM_MSI) {
        o.value = messages[below(5)];
    }
    return o;
}

static struct operation jump(void)
{
    return (struct operation){JUMP, 0, (uint16_t)(0x8000 * below(2) + below(24)), (uint32_t)below(1ull << 32)};
}

static void begin(unsigned vcpus, bool has_dm)
{
    const struct operation first = {has_dm, (uint8_t)(vcpus - 1), (uint16_t)below(8), (uint32_t)below(1ull << 32)};

    fabric_begin(&first);
}

static void run(unsigned operations, bool jumps)
{
    for (unsigned n = 0; n < operations; n++) {
        struct operation o = jumps && below(30) == 0 ? jump() : random_operation();

        if (!fabric_step(&o))
            return;
    }
}

static void follow(unsigned vcpu, unsigned recipe, uint32_t value)
{
    const struct operation o = {RECIPE, (uint8_t)vcpu, (uint16_t)recipe, value};

    (void)fabric_step(&o);
}

/* As systems do at their start: the PIC, the other vCPUs, their local APICs, and mostly each of the other devices. */
static void set_up(unsigned vcpus)
{
    for (unsigned recipe = 0; recipe < 5; recipe++)
        follow(0, recipe, (uint32_t)below(1ull << 24));
    for (unsigned v = 1; v < vcpus; v++) {
        follow(0, 10, v << 24);
        follow(v, 4, v << 24);
    }
    for (unsigned v = 0; v < vcpus; v++)
        follow(v, 5 + (unsigned)below(4), (uint32_t)below(1ull << 24));
    for (unsigned recipe = 11; recipe < RECIPES; recipe++)
        if (below(3))
            follow((unsigned)below(vcpus), recipe, (uint32_t)below(1ull << 24));
}

static bool in_full(void)
{
    const char *length = getenv("METRONOME_TESTS");

    return length && !strcmp(length, "long");
}

static unsigned programs(unsigned n)
{
    return in_full() ? 20 * n : n;
}

/* ---- Run, save, check, restore, run ---- */

static uint64_t injected[METRONOME_INJECT_COUNT], waiting_saved, saves;

static void count_what_was_injected(void)
{
    const struct domain *d = domain_of(&twins[0]);

    for (unsigned v = 0; d && v < d->vcpus; v++)
        for (unsigned i = 0; i < METRONOME_INJECT_COUNT; i++)
            injected[i] += d->vcpu[v]->counts.injected[i];
}

static void count_what_is_saved(void)
{
    const struct domain *d = domain_of(&twins[0]);

    saves++;
    for (unsigned v = 0; v < d->vcpus; v++)
        waiting_saved += d->vcpu[v]->io.waiting;
}

/* Every kind of interrupt came, and requests were outstanding, or it would have shown little. */
static void test_run_save_restore_run(void **state)
{
    (void)state;
    for (unsigned n = 0; n < programs(400); n++) {
        begin(1 + n % 4, n / 4 % 4);
        if (n % 5)
            set_up(1 + n % 4);
        for (unsigned part = 0; part < 10; part++) {
            run(20, false);
            if (over(domain_of(&twins[0])))
                break;
            if (!can_be_saved(domain_of(&twins[0])))
                continue;
            count_what_is_saved();
            interrupt(&(struct operation){.kind = SAVE});
        }
        count_what_was_injected();
        fabric_end();
    }
    print_message("%llu saves, %llu requests outstanding; injected:", (unsigned long long)saves, (unsigned long long)waiting_saved);
    for (unsigned i = 0; i < METRONOME_INJECT_COUNT; i++) {
        print_message(" %llu", (unsigned long long)injected[i]);
        assert_true(injected[i] > 0);
    }
    print_message("\n");
    assert_true(saves > programs(1000) && waiting_saved > programs(100));
}

static void test_run_save_restore_run_while_time_jumps(void **state)
{
    (void)state;
    for (unsigned n = 0; n < programs(200); n++) {
        begin(1 + n % 4, n / 4 % 4);
        if (n % 5)
            set_up(1 + n % 4);
        run(150, true);
        fabric_end();
    }
}

static void step(uint8_t kind, uint8_t vcpu, uint16_t argument, uint32_t value)
{
    const struct operation o = {kind, vcpu, argument, value};

    assert_true(fabric_step(&o));
}

/* Found by the twins: a REP INS whose request was out came back one iteration long, and asked for the rest again. */
static void test_string_request_goes_on_whole(void **state)
{
    (void)state;
    begin(1, true);
    step(STRING, 8 * 4, 30, 99); /* REP INSB from port 0x1f0, a hundred times */
    assert_true(domain_of(&twins[1])->vcpu[0]->io.waiting);
    step(SAVE, 0, 0, 0);
    step(RUN, 0, 0, 0);
    for (unsigned i = 0; i < TWINS; i++) {
        assert_false(domain_of(&twins[i])->vcpu[0]->io.waiting);
        assert_int_equal(domain_of(&twins[i])->vcpu[0]->emu.regs.gpr[EMU_RCX], 0);
    }
    fabric_end();
}

/* Found by the twins: a read had brought the APIC's timer up to date before the host's timer came, whose deadline was then
 * gone after a write or a restore: nobody booked its tick until it was taken. */
static void test_tick_that_a_read_has_seen_is_booked(void **state)
{
    (void)state;
    begin(1, true);
    step(RECIPE, 0, 4, 0);
    step(FLAGS, 0, 0, 0);      /* CLI */
    step(RECIPE, 0, 6, 0x100); /* one-shot */
    step(FORWARD, 0, 0, 300);
    step(MMIO, 0, 2 | 0x39 << 3, 0); /* reads the current count */
    assert_int_equal(domain_of(&twins[1])->vcpu[0]->vlapic.timer_due, 1);
    assert_int_equal(domain_of(&twins[1])->vcpu[0]->ticks_seen, 1);
    step(SAVE, 0, 0, 0);
    step(RUN, 0, 0, 0);
    fabric_end();
}

/* A byte that was taken from the console and found the UART full comes after the restoring. */
static void test_typed_byte_that_the_uart_holds_up_is_saved(void **state)
{
    (void)state;
    begin(1, false);
    step(TYPE, 0, 0, 'a');
    step(TYPE, 0, 0, 'b');
    assert_true(domain_of(&twins[1])->console_holds);
    step(SAVE, 0, 0, 0);
    for (unsigned i = 0; i < TWINS; i++) {
        assert_true(domain_of(&twins[i])->console_holds);
        assert_int_equal(domain_of(&twins[i])->console_held, 'b');
    }
    step(PORT_ANY, 0x80, 0x3f8, 0);
    for (unsigned i = 0; i < TWINS; i++)
        assert_false(domain_of(&twins[i])->console_holds);
    step(PORT_ANY, 0x80, 0x3f8, 0);
    fabric_end();
}

/* Time that stood still while it was saved has not gone by, but for the RTC, if it is told to. */
static void test_rtc_goes_on_with_the_world(void **state)
{
    struct slot *s = &slots[1];

    (void)state;
    begin(1, true);
    save(&twins[1]);
    destroy(s);
    clean_slot(s);
    assert_int_equal(control_command(s, METRONOME_CONTROL_RESTORE, 3600, 0), 0);
    assert_int_equal(rtc_cmos_get(&s->domain->chipset.rtc, 4), (rtc_cmos_get(&domain_of(&twins[0])->chipset.rtc, 4) + 1) % 0x24);
    assert_int_equal(rtc_cmos_get(&s->domain->chipset.rtc, 2), rtc_cmos_get(&domain_of(&twins[0])->chipset.rtc, 2));
    alone = true;
    start_with_dm(&twins[1]);
    fabric_end();
}

/* ---- Timers across a pause ---- */

enum { UNDISTURBED, PAUSED, SAVED_AND_RESTORED };
#define LOOKS 12u

struct look {
    uint64_t injected, due, tsc; /* and the domain's time at which that came to be so */
};

#define COOK(recipe, value) {RECIPE, 0, recipe, value}
#define HPET_WRITE(offset, value) {MMIO, 8, 1 | (offset) / 4 << 3 | 0x400, value}

static const struct armed {
    const char *name;
    struct operation program[4];
    unsigned ticks; /* at least so many come */
} armed[] = {
    {"PIT, periodic", {COOK(1, 0)}, LOOKS / 2},
    {"PIT, one-shot", {COOK(2, 0)}, 1},
    {"local APIC, periodic", {COOK(5, 0x2003)}, LOOKS / 2},
    {"local APIC, one-shot", {COOK(6, 0x80000)}, 1},
    {"local APIC, TSC deadline", {COOK(7, 0x10000)}, 1},
    {"HPET, periodic", {HPET_WRITE(0x100, 0x294c), HPET_WRITE(0x108, 0x14000), HPET_WRITE(0x10, 1)}, LOOKS / 2},
    {"HPET, one-shot, level", {HPET_WRITE(0x120, 0x2b06), HPET_WRITE(0x128, 0x14000), HPET_WRITE(0x10, 1)}, 1},
    {"HPET, message", {COOK(16, 0x808), HPET_WRITE(0x140, 0x414c), HPET_WRITE(0x148, 0x808)}, LOOKS / 2},
    {"RTC, periodic", {COOK(17, 0x46)}, LOOKS / 2},
    {"RTC, alarm", {COOK(18, 0), COOK(17, 0x20)}, 1},
    {"RTC, update", {COOK(17, 0x10)}, LOOKS / 2},
    {"PM timer", {COOK(19, 1)}, LOOKS / 2},
};

static void stand_still(unsigned how)
{
    if (how == SAVED_AND_RESTORED)
        step(SAVE_LATER, 0, 23, 1000000);
    if (how != PAUSED)
        return;
    for (unsigned i = 0; i < TWINS; i++)
        pause_domain(&twins[i]);
    tsc += 3600 * tsc_hz;
    settle();
    for (unsigned i = 0; i < TWINS; i++)
        unpause(&twins[i]);
}

static void end_all_interrupts(void)
{
    step(END_APIC, 0, 0, 0);
    step(PORT_ANY, 0, 0x70, 0xc);
    step(PORT_ANY, 0x80, 0x71, 0);
    step(MMIO, 8, 1 | 8 << 3 | 0x400, 7); /* HPET: status */
    step(RECIPE, 0, 20, 0);               /* PM1: status */
}

/* The restored one counts anew, but the twins have taken the same interrupts. */
static struct look look(void)
{
    const struct domain *d = domain_of(&twins[1]), *uninterrupted = domain_of(&twins[0]);
    struct look l = {.tsc = vtime_tsc(&d->time), .due = d->vcpu[0]->ticks.n.due};

    for (unsigned i = 0; i < METRONOME_INJECT_COUNT; i++)
        l.injected += uninterrupted->vcpu[0]->counts.injected[i];
    for (unsigned i = 0; i < TICK_SOURCES; i++)
        l.due += d->chipset.ledger[i].n.due;
    return l;
}

/* Arms the timer and looks behind each deadline; before the look `at` the domain stands still: between two of its deadlines, or,
 * where it is `due`, when the timer's time has come and its interrupt is on its way. */
static void watch(const struct armed *a, unsigned how, unsigned at, bool due, struct look log[LOOKS])
{
    static const uint8_t local_apic_and_pins[][2] = {{4, 0}, {11, 0}, {12, 0}, {13, 0}, {13, 2}};

    seed = 88172645463325252ull;
    begin(1, false);
    for (unsigned i = 0; i < sizeof(local_apic_and_pins) / 2; i++)
        follow(0, local_apic_and_pins[i][0], local_apic_and_pins[i][1]);
    for (unsigned i = 0; i < 4 && a->program[i].kind; i++)
        assert_true(fabric_step(&a->program[i]));
    for (unsigned n = 0; n < LOOKS; n++) {
        step(FORWARD, 0, 0, 2 * (uint32_t)GAP);
        if (n == at && !due)
            stand_still(how);
        deadline_set(&this_hvm()->deadlines, &this_hvm()->slice, DEADLINE_UNSET); /* that is the pCPU's own */
        step(DEADLINE_, 0, 0, 0);
        let_timers_run();
        if (n == at && due)
            stand_still(how);
        step(RUN, 0, 0, 0);
        end_all_interrupts();
        log[n] = look();
        if (n && log[n].injected == log[n - 1].injected && log[n].due == log[n - 1].due)
            log[n].tsc = log[n - 1].tsc;
    }
    fabric_end();
}

/* Whatever a timer counts stands still with its domain: after a pause of an hour, or saved and restored hours later, each tick
 * comes at its moment by the guest's clock, and none is lost, doubled or missed. */
static void test_timers_stand_still_with_their_domain(void **state)
{
    struct look expected[LOOKS], log[LOOKS];

    (void)state;
    for (const struct armed *a = armed; a < armed + sizeof(armed) / sizeof(armed[0]); a++) {
        watch(a, UNDISTURBED, 0, false, expected);
        print_message("%s: %llu\n", a->name, (unsigned long long)expected[LOOKS - 1].injected);
        assert_true(expected[LOOKS - 1].injected >= a->ticks);
        for (unsigned n = 0; n < 4 * LOOKS; n++) {
            watch(a, n & 1 ? PAUSED : SAVED_AND_RESTORED, n / 4, n & 2, log);
            for (unsigned i = 0; i < LOOKS; i++)
                if (memcmp(&log[i], &expected[i], sizeof(log[i])))
                    fail_msg("%s: %u, look %u: at %lld, %lld and %lld", a->name, n, i, (long long)(log[i].tsc - expected[i].tsc),
                             (long long)(log[i].injected - expected[i].injected), (long long)(log[i].due - expected[i].due));
        }
    }
}

/* ---- Refusals ---- */

static uint8_t image[METRONOME_DOMAIN_STATE_BYTES];
static uint32_t image_bytes;

/* Saves a domain of two vCPUs behind some traffic, spoilt by `spoil`; both twins are gone. */
static void make_image(void (*spoil)(struct domain *d, unsigned n), unsigned n)
{
    begin(2, true);
    run(30, false);
    while (over(domain_of(&twins[1])) || !can_be_saved(domain_of(&twins[1]))) {
        fabric_end();
        begin(2, true);
        run(30, false);
    }
    for (unsigned i = 0; i < TWINS; i++)
        answer_all(&twins[i]);
    pause_domain(&twins[1]);
    if (spoil)
        spoil(domain_of(&twins[1]), n);
    assert_int_equal(control_command(twins[1].slot, METRONOME_CONTROL_SAVE, 0, 0), 0);
    image_bytes = state_bytes(twins[1].slot);
    memcpy(image, state_area(twins[1].slot), image_bytes);
    for (unsigned i = 0; i < TWINS; i++)
        destroy(twins[i].slot);
}

/* The status of restoring `bytes` of it; nothing is left. */
static int restore_image(const uint8_t *from, uint32_t bytes, uint64_t flags)
{
    struct slot *s = &slots[1];
    int status;

    clean_slot(s);
    memset(state_area(s), 0xcc, METRONOME_DOMAIN_STATE_BYTES);
    memcpy(state_area(s), from, bytes);
    ((struct metronome_state_header *)state_area(s))->bytes = bytes;
    status = control_command(s, METRONOME_CONTROL_RESTORE, 0, flags);
    if (!status)
        destroy(s);
    assert_null(s->domain);
    assert_int_equal(status_of_slot(s)->state, METRONOME_SLOT_FREE);
    assert_true(is_idle(this_hvm()));
    return status;
}

static void expect_refused(const uint8_t *from, uint32_t bytes, const char *reason)
{
    const char *message = status_of_slot(&slots[1])->message;
    int status = restore_image(from, bytes, 0);

    if (status != -METRONOME_ENOEXEC || !strstr(message, reason))
        fail_msg("%d \"%s\" where it should be \"%s\"", status, message, reason);
}

static uint32_t length_of(const struct metronome_state_record *r)
{
    return (uint32_t)sizeof(*r) + ((r->bytes + 7) & ~7u);
}

/* Record `n` of the image; the next one follows it. NULL: there is none. */
static struct metronome_state_record *record(unsigned n)
{
    uint8_t *at = image + sizeof(struct metronome_state_header);

    for (; at < image + image_bytes; at += length_of((void *)at))
        if (n-- == 0)
            return (void *)at;
    return NULL;
}

static uint8_t changed[METRONOME_DOMAIN_STATE_BYTES];

/* The image with `put` instead of the `taken` bytes at `at`. */
static uint32_t splice(const void *at, uint32_t taken, const void *put, uint32_t bytes)
{
    uint32_t before = (uint32_t)((const uint8_t *)at - image), after = image_bytes - before - taken;

    memcpy(changed, image, before);
    memcpy(changed + before, put, bytes);
    memcpy(changed + before + bytes, image + before + taken, after);
    return before + bytes + after;
}

static const char *const texts[] = {
#define X(NAME, name, version, text) [METRONOME_STATE_##NAME] = text,
    METRONOME_STATE_DOMAIN_RECORDS(X) METRONOME_STATE_VCPU_RECORDS(X)
#undef X
};

static void try_record(struct metronome_state_record *r)
{
    const char *text = r->type == METRONOME_STATE_HEADER ? "description" : texts[r->type];
    struct metronome_state_record was = *r;
    uint32_t bytes = length_of(r);
    uint8_t copy[40000];

    expect_refused(changed, splice(r, bytes, "", 0), text);
    memcpy(copy, r, bytes);
    memcpy(copy + bytes, r, bytes);
    expect_refused(changed, splice(r, bytes, copy, 2 * bytes), "saved state");
    r->version++;
    expect_refused(image, image_bytes, r->type == METRONOME_STATE_HEADER ? text : "of another version");
    *r = was;
    r->vcpu++;
    expect_refused(image, image_bytes, r->type == METRONOME_STATE_HEADER ? text : "missing");
    *r = was;
    for (uint32_t too_long = 1; too_long < 1u << 31; too_long *= 2) {
        r->bytes = was.bytes + too_long;
        expect_refused(image, image_bytes, "saved state");
    }
    r->bytes = UINT32_MAX;
    expect_refused(image, image_bytes, "saved state");
    for (uint32_t less = 1; less <= was.bytes && less < 32; less++) {
        memcpy(copy, &was, sizeof(was));
        ((struct metronome_state_record *)copy)->bytes = was.bytes - less;
        memcpy(copy + sizeof(was), r + 1, bytes - sizeof(was));
        if (r->type != METRONOME_STATE_MSRS || less % sizeof(struct metronome_state_msr))
            expect_refused(changed, splice(r, bytes, copy, length_of((void *)copy)), text);
    }
    *r = was;
}

/* A list of fewer MSRs is one: the others are as after a reset. */
static void test_every_record_is_there_once(void **state)
{
    struct metronome_state_record *r;
    unsigned n = 0;

    (void)state;
    make_image(NULL, 0);
    assert_int_equal(restore_image(image, image_bytes, 0), 0);
    for (; (r = record(n)); n++)
        try_record(r);
    assert_int_equal(n, METRONOME_STATE_OF_VCPU + 2 * (METRONOME_STATE_TYPES - METRONOME_STATE_OF_VCPU));
    assert_int_equal(restore_image(image, image_bytes, 0), 0);
}

/* Cut off anywhere, or with more behind it. */
static void test_every_length_but_one_is_refused(void **state)
{
    (void)state;
    make_image(NULL, 0);
    for (uint32_t bytes = 0; bytes < image_bytes; bytes += bytes < 64 ? 1 : 41)
        expect_refused(image, bytes, "state");
    expect_refused(image, image_bytes + 8, "more than is known");
    expect_refused(image, METRONOME_DOMAIN_STATE_BYTES, "more than is known");
    for (uint32_t i = 0; i < 12; i++) { /* magic and version */
        image[i] ^= 1;
        expect_refused(image, image_bytes, "no saved state of this version");
        image[i] ^= 1;
    }
}

#define DEVICE "a state that the device cannot be in"
#define CPU_STATE "values that no CPU can have"
#define FPU_STATE "values that no FPU can have"
#define LINE_STATE "a state that the lines cannot be in"
#define VCPU_STATE "a state that a vCPU cannot be in"
#define REQUEST_STATE "no request that can have been made"
#define NO_MSR "an MSR or a value"

/* X(name, what the refusal says, what is wrong): of a domain d with vCPU v, its registers r and its chipset c. */
#define IMPOSSIBLE(X) \
    X(pic, DEVICE, c->vpic.zero[0] = 1) \
    X(pic_int, DEVICE, c->vpic.out.line[0].level ^= 1) \
    X(ioapic_id, DEVICE, c->vioapic.id = 16) \
    X(ioapic_pins, DEVICE, c->vioapic.pins = VIOAPIC_MAX_PINS) \
    X(ioapic_no_pins, DEVICE, c->vioapic.pins = 0) \
    X(ioapic_message, DEVICE, c->vioapic.out.message.delivery = 8) \
    X(pit, DEVICE, c->vpit.tick = UINT64_MAX) \
    X(hpet, DEVICE, c->hpet.config |= 4) \
    X(hpet_message, DEVICE, c->hpet.out.message.flags = 16) \
    X(rtc, DEVICE, c->rtc.index = 0x80) \
    X(rtc_phase, DEVICE, c->rtc.phase = 32768) \
    X(pmtimer, DEVICE, c->pmtimer.inputs = 8) \
    X(uart, DEVICE, c->uart.rx_first = UART_FIFO) \
    X(uart_sent, DEVICE, c->uart.sent_count = UART_SENT + 1) \
    X(apic_id, DEVICE, v->vlapic.apic_id = 0) \
    X(apic_id_high, DEVICE, v->vlapic.apic_id = UINT32_MAX) \
    X(apic_bsp, DEVICE, v->vlapic.apic_base |= APIC_BASE_BSP) \
    X(apic_phys_bits, DEVICE, v->vlapic.phys_bits = 52) \
    X(apic_phys_bits_shift, DEVICE, v->vlapic.phys_bits = 64) \
    X(apic_features, DEVICE, v->vlapic.features = VLAPIC_FEATURES) \
    X(apic_maps, DEVICE, v->vlapic.irr.summary ^= 2) \
    X(apic_activity, DEVICE, v->vlapic.activity = 2) \
    X(line_source, LINE_STATE, c->gsi_sources[3] = 1u << SOURCE_COUNT) \
    X(line_link, LINE_STATE, c->link_irq[0] = 16) \
    X(line_hpet, LINE_STATE, c->hpet_gsi[0] = VIOAPIC_MAX_PINS) \
    X(line_level, LINE_STATE, c->int_level = 2) \
    X(line_ledger, LINE_STATE, c->ledger[SOURCE_PIT].n.due++) \
    X(line_policy, LINE_STATE, c->ledger[SOURCE_RTC].policy = METRONOME_TICK_POLICY_COUNT) \
    X(no_pe, CPU_STATE, r->cr0 = CR0_PG | CR0_ET) \
    X(cr0_high, CPU_STATE, r->cr0 |= 1ull << 32) \
    X(nw, CPU_STATE, r->cr0 |= CR0_NW) \
    X(cr3, CPU_STATE, r->cr3 = 1ull << 40) \
    X(cr4_vmxe, CPU_STATE, r->cr4 |= CR4_VMXE) \
    X(cr4_smap, CPU_STATE, r->cr4 |= CR4_SMAP) \
    X(cr4_high, CPU_STATE, r->cr4 |= 1ull << 32) \
    X(efer_svme, CPU_STATE, r->efer |= EFER_SVME) \
    X(efer_reserved, CPU_STATE, r->efer |= 2) \
    X(efer_lma, CPU_STATE, r->efer |= EFER_LMA) \
    X(efer_no_lma, CPU_STATE, (r->efer |= EFER_LME, r->cr4 |= CR4_PAE, r->cr0 |= CR0_PG)) \
    X(long_mode_no_pae, CPU_STATE, (r->efer |= EFER_LME | EFER_LMA, r->cr0 |= CR0_PG)) \
    X(code_of_64_and_32_bits, CPU_STATE, \
      (r->efer |= EFER_LME | EFER_LMA, r->cr4 |= CR4_PAE, r->cr0 |= CR0_PG, r->cs.attributes |= 0x600)) \
    X(vm86_in_long_mode, CPU_STATE, \
      (r->efer |= EFER_LME | EFER_LMA, r->cr4 |= CR4_PAE, r->cr0 |= CR0_PG, r->cs.attributes = 0x29b, v->emu.regs.rflags |= RFLAGS_VM)) \
    X(vm86_in_real_mode, CPU_STATE, (r->cr0 &= ~CR0_PE, v->emu.regs.rflags |= RFLAGS_VM)) \
    X(xcr0_no_x87, CPU_STATE, v->xcr0 = 2) \
    X(xcr0_avx_alone, CPU_STATE, v->xcr0 = 5) \
    X(xcr0_unknown, CPU_STATE, v->xcr0 = 0x207) \
    X(dr6, CPU_STATE, r->dr6 |= 1ull << 32) \
    X(dr7, CPU_STATE, r->dr7 |= 1ull << 63) \
    X(rflags_one, CPU_STATE, v->emu.regs.rflags &= ~2ull) \
    X(rflags_reserved, CPU_STATE, v->emu.regs.rflags |= 8) \
    X(rip, CPU_STATE, v->emu.regs.rip = 1ull << 47) \
    X(lstar, CPU_STATE, r->lstar = 1ull << 63) \
    X(cstar, CPU_STATE, r->cstar = 1ull << 47) \
    X(kernel_gs, CPU_STATE, r->kernel_gs_base = 1ull << 47) \
    X(sysenter_esp, CPU_STATE, r->sysenter_esp = 1ull << 47) \
    X(sysenter_eip, CPU_STATE, r->sysenter_eip = 1ull << 47) \
    X(fs, CPU_STATE, r->fs.base = 1ull << 47) \
    X(gs, CPU_STATE, r->gs.base = 1ull << 47) \
    X(ldtr, CPU_STATE, r->ldtr.base = 1ull << 47) \
    X(tr, CPU_STATE, r->tr.base = 1ull << 47) \
    X(gdtr, CPU_STATE, r->gdtr.base = 1ull << 47) \
    X(idtr, CPU_STATE, r->idtr.base = 1ull << 47) \
    X(idtr_limit, CPU_STATE, r->idtr.limit = 0x10000) \
    X(ds_base, CPU_STATE, r->ds.base = 1ull << 32) \
    X(ss_attributes, CPU_STATE, r->ss.attributes |= 0x1000) \
    X(cpl, CPU_STATE, r->cpl = 4) \
    X(shadow, CPU_STATE, r->interrupt_shadow = 2) \
    X(fpu_components, FPU_STATE, fpu_area[512] |= 8) \
    X(fpu_components_high, FPU_STATE, fpu_area[519] |= 0x80) \
    X(fpu_compacted, FPU_STATE, fpu_area[527] |= 0x80) \
    X(fpu_header, FPU_STATE, fpu_area[575] = 1) \
    X(mxcsr, FPU_STATE, fpu_area[27] = 1) \
    X(mxcsr_16, FPU_STATE, fpu_area[26] |= 1) \
    X(pat, NO_MSR, v->pat = 2) \
    X(mtrr_type, NO_MSR, v->mtrr_fixed[3] = 7) \
    X(mtrr_default, NO_MSR, v->mtrr_def = 0x1000) \
    X(tsc_aux, NO_MSR, v->tsc_aux = 1ull << 32) \
    X(event_type, VCPU_STATE, (v->event_pending = true, v->event_type = 1)) \
    X(event_software, VCPU_STATE, (v->event_pending = true, v->event_type = EVENT_SOFTWARE)) \
    X(event_exception, VCPU_STATE, (v->event_pending = true, v->event_type = EVENT_EXCEPTION, v->event_vector = 32)) \
    X(event_exception_2, VCPU_STATE, (v->event_pending = true, v->event_type = EVENT_EXCEPTION, v->event_vector = 2)) \
    X(event_work, VCPU_STATE, v->posted.work = WORK_ALL + 1) \
    X(event_source, VCPU_STATE, v->posted.source[200] = METRONOME_INJECT_COUNT) \
    X(event_nmis, VCPU_STATE, v->nmi_pending = 3) \
    X(event_ledger, VCPU_STATE, v->ticks.n.owed = 5000) \
    X(event_policy, VCPU_STATE, v->ticks.policy = UINT64_MAX) \
    X(event_budget, VCPU_STATE, v->emu.budget = BUDGET_REQUEST + 1) \
    X(request_size, REQUEST_STATE, v->io.request.size = 3) \
    X(request_size_16, REQUEST_STATE, v->io.request.size = 16) \
    X(request_none, REQUEST_STATE, (v->io.waiting = true, v->io.request.size = 0)) \
    X(request_replayed, REQUEST_STATE, v->io.replayed = v->io.logged + 1) \
    X(time_slow, "no such value", d->time.tsc_hz = 15000000) \
    X(time_none, "no such value", d->time.tsc_hz = 0) \
    X(time_fast, "no such value", d->time.tsc_hz = UINT64_MAX) \
    X(reset_cause, "no such value", d->reset_cause = 0x10000)

enum {
#define X(name, reason, wrong) SPOILT_##name,
    IMPOSSIBLE(X) SPOILT_COUNT
#undef X
};

static void spoil(struct domain *d, unsigned n)
{
    struct chipset *c = &d->chipset;
    struct vcpu *v = d->vcpu[1];
    struct metronome_state_registers *r = &v->vendor->r;
    uint8_t *fpu_area = v->fpu;

    switch (n) {
#define X(name, reason, wrong) \
    case SPOILT_##name: \
        wrong; \
        break;
        IMPOSSIBLE(X)
#undef X
    }
}

static void test_impossible_states_are_refused(void **state)
{
    static const char *const reasons[] = {
#define X(name, reason, wrong) reason,
        IMPOSSIBLE(X)
#undef X
    };

    (void)state;
    for (unsigned n = 0; n < SPOILT_COUNT; n++) {
        make_image(spoil, n);
        expect_refused(image, image_bytes, reasons[n]);
    }
}

static struct metronome_state_record *record_of(unsigned type, unsigned vcpu)
{
    struct metronome_state_record *r;

    for (unsigned n = 0; (r = record(n)); n++)
        if (r->type == type && r->vcpu == vcpu)
            return r;
    return NULL;
}

static void test_unknown_msrs_are_refused(void **state)
{
    static const uint32_t unknown[] = {0, MSR_EFER, MSR_TSC, MSR_APIC_BASE, 0xc0000101, 0x20f + 1, UINT32_MAX, 0x40f + 1, 0x26f + 1};
    struct metronome_state_msr *m;
    uint32_t was;

    (void)state;
    make_image(NULL, 0);
    m = (void *)(record_of(METRONOME_STATE_MSRS, 0) + 1);
    was = m[3].index;
    for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        m[3].index = unknown[i];
        expect_refused(image, image_bytes, NO_MSR);
    }
    m[3].index = was;
    assert_int_equal(restore_image(image, image_bytes, 0), 0);
}

/* A log longer than there is room for. */
static void test_request_log_is_bounded(void **state)
{
    uint8_t *logged;

    (void)state;
    make_image(NULL, 0);
    logged = (uint8_t *)(record_of(METRONOME_STATE_REQUEST, 1) + 1) + 4;
    for (unsigned n = ACCESS_LOG + 1; n < 256; n++) {
        memcpy(logged, &n, sizeof(n));
        expect_refused(image, image_bytes, REQUEST_STATE);
    }
    memset(logged, 0xff, 4);
    expect_refused(image, image_bytes, REQUEST_STATE);
}

/* AMD's CPUs have MXCSR.MM, which other makers' reserve. */
static void set_mxcsr_mm(struct domain *d, unsigned n)
{
    (void)n;
    ((uint8_t *)d->vcpu[0]->fpu)[26] |= 2;
}

static void test_mxcsr_is_what_this_cpu_has(void **state)
{
    (void)state;
    make_image(set_mxcsr_mm, 0);
    assert_int_equal(restore_image(image, image_bytes, 0), 0);
}

static void set_frequency(struct domain *d, unsigned khz)
{
    d->time.tsc_hz = (uint64_t)khz * 1000;
}

/* Two calibrations of one clock differ by a little; another clock's guest would run at a wrong rate. */
static void test_another_tsc_is_refused_unless_asked_for(void **state)
{
    static const struct {
        unsigned khz;
        bool same;
    } clocks[] = {{1000000, true}, {1000099, true}, {999901, true}, {1000101, false}, {999899, false}, {16000, false}, {3000000, false}};

    (void)state;
    for (unsigned i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
        make_image(set_frequency, clocks[i].khz);
        if (clocks[i].same)
            assert_int_equal(restore_image(image, image_bytes, 0), 0);
        else
            expect_refused(image, image_bytes, "saved where the TSC runs at");
        assert_int_equal(restore_image(image, image_bytes, METRONOME_RESTORE_ANY_TSC), 0);
    }
}

/* A CPU with a feature less than the guest has seen. */
static void test_missing_features_are_refused(void **state)
{
    uint32_t *words;

    (void)state;
    make_image(NULL, 0);
    words = (uint32_t *)(record_of(METRONOME_STATE_CPU, 0) + 1);
    for (unsigned i = 0; i < 13; i++) {
        uint32_t was = words[i];

        words[i] = UINT32_MAX;
        expect_refused(image, image_bytes, "a CPU with features that this one lacks");
        words[i] = was;
    }
}

/* Its description is the daemon's to check, and ours. */
static void test_impossible_descriptions_are_refused(void **state)
{
    struct metronome_domain_header *h;
    uint8_t was[sizeof(*h)];

    (void)state;
    make_image(NULL, 0);
    h = (void *)(record_of(METRONOME_STATE_HEADER, 0) + 1);
    memcpy(was, h, sizeof(was));
#define WITH(field, value) \
    h->field = value; \
    assert_true(restore_image(image, image_bytes, 0) < 0); \
    assert_true(status_of_slot(&slots[1])->message[0]); \
    memcpy(h, was, sizeof(was));
    WITH(magic, 1)
    WITH(version, METRONOME_ABI_VERSION + 1)
    WITH(vcpus, 0)
    WITH(vcpus, 1)
    WITH(vcpus, 3)
    WITH(vcpus, METRONOME_MAX_VCPUS + 1)
    WITH(ram_low, 0)
    WITH(ram_low, 1ull << 63)
    WITH(ram_high, LARGE_PAGE_SIZE)
    WITH(extra, UINT64_MAX)
    WITH(extra_bytes, UINT64_MAX)
    WITH(firmware, UINT64_MAX)
    WITH(firmware_bytes, 1ull << 32)
    WITH(ticks, UINT32_MAX)
#undef WITH
    assert_int_equal(restore_image(image, image_bytes, 0), 0);
}

/* Whichever page there is no more of. */
static void test_memory_may_be_used_up(void **state)
{
    unsigned n = 1;

    (void)state;
    make_image(NULL, 0);
    for (; allocation_fails = n, restore_image(image, image_bytes, 0) != 0; n++)
        assert_true(n < 100);
    assert_true(n > 5);
    allocation_fails = 0;
}

/* Bytes that are wrong by chance: refused, or a domain that runs on. */
static void test_spoilt_states_do_no_harm(void **state)
{
    unsigned refused = 0, ran = 0;

    (void)state;
    for (unsigned n = 0; n < programs(1500); n++) {
        begin(1 + n % 4, n / 4 % 2);
        set_up(1 + n % 4);
        run(10, false);
        for (unsigned bits = (unsigned)below(3); !over(domain_of(&twins[1])); bits--) {
            const struct operation o = {CORRUPT, 0, (uint16_t)(1u << below(8)), (uint32_t)below(1u << 30)};

            fabric_step(&o);
            refused += status_of_slot(&slots[1])->message[0] != 0;
            if (!bits)
                break;
        }
        if (!over(domain_of(&twins[1]))) {
            run(60, true);
            ran++;
        }
        fabric_end();
    }
    print_message("%u refused, %u ran on\n", refused, ran);
    assert_true(ran > programs(100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_save_restore_run),
        cmocka_unit_test(test_run_save_restore_run_while_time_jumps),
        cmocka_unit_test(test_string_request_goes_on_whole),
        cmocka_unit_test(test_tick_that_a_read_has_seen_is_booked),
        cmocka_unit_test(test_typed_byte_that_the_uart_holds_up_is_saved),
        cmocka_unit_test(test_rtc_goes_on_with_the_world),
        cmocka_unit_test(test_timers_stand_still_with_their_domain),
        cmocka_unit_test(test_every_record_is_there_once),
        cmocka_unit_test(test_every_length_but_one_is_refused),
        cmocka_unit_test(test_impossible_states_are_refused),
        cmocka_unit_test(test_unknown_msrs_are_refused),
        cmocka_unit_test(test_request_log_is_bounded),
        cmocka_unit_test(test_mxcsr_is_what_this_cpu_has),
        cmocka_unit_test(test_another_tsc_is_refused_unless_asked_for),
        cmocka_unit_test(test_missing_features_are_refused),
        cmocka_unit_test(test_impossible_descriptions_are_refused),
        cmocka_unit_test(test_memory_may_be_used_up),
        cmocka_unit_test(test_spoilt_states_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
