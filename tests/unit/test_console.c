/*
 * The console of a domain without device model, between its guest and a dom0 that reads late, or not at all: nothing is lost, and
 * nobody waits for ever. On fabric_machine.h's whole domains; here the rings are the test's to read and fill.
 */
#include "fabric_machine.h"

#include <setjmp.h>
#include <cmocka.h>

static void violated(const char *what, const char *condition)
{
    fail_msg("%s: %s", what, condition);
}

enum { THR = 0x3f8, RBR = 0x3f8, IER = 0x3f9, IIR = 0x3fa, FCR = 0x3fa, MCR = 0x3fc, LSR = 0x3fd, DEBUG_CONSOLE = 0xe9 };
enum { DATA_READY = 1, THR_EMPTY = 0x20 };

static struct slot *slot;
static uint32_t put, got; /* bytes that the guest has written, and those that dom0 has read */

static struct metronome_console *rings(void)
{
    return (void *)(slot->memory + METRONOME_DOMAIN_CONSOLE);
}

static struct vcpu *vcpu(void)
{
    return slot->domain->vcpu[0];
}

static uint8_t in(uint16_t port)
{
    const struct operation o = {PORT_ANY, 0x80, port, 0};

    turn(vcpu(), &o);
    return (uint8_t)*rax(vcpu());
}

/* False: its vCPU waits, and it is not done. */
static bool out(uint16_t port, uint8_t value)
{
    const struct operation o = {PORT_ANY, 0, port, value};
    uint64_t rip = vcpu()->emu.regs.rip;

    turn(vcpu(), &o);
    return vcpu()->emu.regs.rip == rip + 1;
}

/* Any 251 bytes in a row are found nowhere else near. */
static uint8_t byte_of(uint32_t number)
{
    return (uint8_t)(number % 251 + number / 251 % 5);
}

static bool write_next(uint16_t port)
{
    if (!out(port, byte_of(put)))
        return false;
    put++;
    return true;
}

/* dom0 reads up to so many bytes, and rings if that was waited for. True: it rang. */
static bool read_some(uint32_t most)
{
    struct metronome_console *c = rings();
    uint32_t n = c->out_ring.produced - c->out_ring.consumed;

    assert_true(n <= sizeof(c->out));
    for (n = n < most ? n : most; n; n--, got++)
        assert_int_equal(c->out[c->out_ring.consumed++ % sizeof(c->out)], byte_of(got));
    if (!__atomic_exchange_n(&c->out_waits, 0, __ATOMIC_SEQ_CST))
        return false;
    slot_rung(slot);
    settle();
    return true;
}

static void read_all(void)
{
    while (read_some(UINT32_MAX))
        ;
    assert_int_equal(got, put);
}

static void type(const char *text)
{
    struct metronome_console *c = rings();

    for (; *text; text++)
        c->in[c->in_ring.produced++ % sizeof(c->in)] = (uint8_t)*text;
    slot_rung(slot);
    settle();
}

static void expect_typed(const char *text)
{
    for (; *text; text++) {
        assert_true(in(LSR) & DATA_READY);
        assert_int_equal(in(RBR), *text);
    }
    assert_false(in(LSR) & DATA_READY);
}

static void command(uint32_t op)
{
    assert_int_equal(control_command(slot, op, 0, 0), 0);
    settle();
}

static int set_up(void **state)
{
    (void)state;
    boot_once();
    twin_now = &twins[0];
    slot = twins[0].slot;
    put = got = 0;
    fill_slot(slot, 1, false);
    command(METRONOME_CONTROL_CREATE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    destroy(slot);
    return is_idle(this_hvm()) ? 0 : -1;
}

/* Until the transmitter says that it is not empty. */
static void fill(void)
{
    while (in(LSR) & THR_EMPTY)
        assert_true(write_next(THR));
}

/* As much as there is room for on the way. */
static void stuff(void)
{
    while (write_next(THR))
        ;
    assert_int_equal(vcpu()->state, VCPU_IDLE);
}

/* What found no room in the ring was dropped. */
static void test_output_waits_for_a_late_reader(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 20; n++) {
        fill();
        assert_true(put - got > 16000);
        assert_true(read_some(1 + n * 997));
    }
    read_all();
    fill();
    read_all();
}

/* By a guest that does not ask, or that writes where there is nothing to ask: the OUT is not done, then it is. */
static void test_out_waits_for_a_late_reader(void **state)
{
    static const uint16_t ports[] = {THR, DEBUG_CONSOLE};

    (void)state;
    for (unsigned n = 0; n < 40; n++) {
        while (write_next(ports[n & 1]))
            ;
        assert_int_equal(vcpu()->state, VCPU_IDLE);
        assert_true(read_some(UART_SENT + 1 + n * 97));
        assert_int_equal(vcpu()->state, VCPU_RUNNABLE);
    }
    read_all();
}

/* Through the emulator, which had begun it. */
static void test_string_output_waits_for_a_late_reader(void **state)
{
    uint64_t *gpr = vcpu()->emu.regs.gpr;
    uint32_t total = 40000, waits = 0;

    (void)state;
    for (uint32_t i = 0; i < total; i++)
        slot->memory[METRONOME_DOMAIN_ARENA + DATA + i] = byte_of(i);
    at(vcpu(), AT_STRING + 6);
    gpr[EMU_RSI] = DATA;
    gpr[EMU_RDX] = DEBUG_CONSOLE;
    for (gpr[EMU_RCX] = total; gpr[EMU_RCX];) {
        if (exit_string_io(vcpu(), DEBUG_CONSOLE) == EXIT_RESUME)
            continue;
        assert_int_equal(vcpu()->state, VCPU_IDLE);
        assert_int_equal(vcpu()->emu.regs.rip, CODE + 16 * (AT_STRING + 6));
        assert_true(read_some(777));
        assert_int_equal(vcpu()->state, VCPU_RUNNABLE);
        waits++;
    }
    assert_true(waits > 20);
    put = total;
    read_all();
}

static void test_transmitter_interrupts_when_the_reader_has_come(void **state)
{
    const struct line *line = &slot->domain->chipset.uart.out.line[0];

    (void)state;
    out(MCR, 8);
    out(IER, 2);
    fill();
    assert_false(line->level);
    assert_true(read_some(UINT32_MAX));
    assert_true(line->level);
    assert_int_equal(in(IIR) & 15, 2);
    read_all();
}

/* It comes to the same OUT again behind its interrupt. */
static void test_interrupt_reaches_a_vcpu_that_waits_for_room(void **state)
{
    uint64_t nmis;

    (void)state;
    stuff();
    nmis = vcpu()->counts.injected[METRONOME_INJECT_NMI];
    command(METRONOME_CONTROL_NMI);
    assert_int_equal(vcpu()->state, VCPU_RUNNABLE);
    assert_false(write_next(THR));
    assert_int_equal(vcpu()->counts.injected[METRONOME_INJECT_NMI], nmis + 1);
    assert_int_equal(vcpu()->state, VCPU_IDLE);
    read_all();
    assert_true(write_next(THR));
    read_all();
}

/* Room that is made while the domain stands still is found when it goes on: nobody rings again. */
static void test_reader_comes_while_the_guest_is_paused(void **state)
{
    (void)state;
    stuff();
    command(METRONOME_CONTROL_PAUSE);
    assert_true(read_some(UINT32_MAX));
    assert_true(got < put);
    command(METRONOME_CONTROL_UNPAUSE);
    assert_int_equal(vcpu()->state, VCPU_RUNNABLE);
    assert_true(in(LSR) & THR_EMPTY);
    read_all();
}

static void test_waiting_guest_is_saved_and_restored(void **state)
{
    (void)state;
    stuff();
    save(&twins[0]);
    read_some(UINT32_MAX);
    destroy(slot);
    assert_int_equal(restore(&twins[0]), 0);
    settle();
    assert_true(write_next(THR));
    read_all();
}

/* What a guest has sent is sent, whatever becomes of it. */
static void test_last_words_of_a_guest_that_ends(void **state)
{
    const struct operation end = {PORT_ANY, 0, 0xf4, 0};

    (void)state;
    fill();
    while (slot->domain->chipset.uart.sent_count < UART_SENT)
        assert_true(write_next(THR));
    turn(vcpu(), &end);
    assert_true(domain_has_ended(slot->domain));
    read_all();
}

static void test_last_words_before_a_reset(void **state)
{
    (void)state;
    stuff();
    command(METRONOME_CONTROL_RESET);
    assert_int_equal(slot->domain->resets, 1);
    assert_false(in(LSR) & THR_EMPTY);
    read_all();
    assert_true(in(LSR) & THR_EMPTY);
}

static void test_waiting_guest_can_be_ended(void **state)
{
    (void)state;
    stuff();
    destroy(slot);
    assert_int_equal(set_up(NULL), 0);
}

/* Nobody read what was typed before the guest was there, until the next key. */
static void test_typed_before_the_guest_starts(void **state)
{
    (void)state;
    destroy(slot);
    fill_slot(slot, 1, false);
    type("before");
    command(METRONOME_CONTROL_CREATE);
    expect_typed("before");
}

/* And what was typed while it stood still. */
static void test_typed_while_the_guest_is_paused(void **state)
{
    (void)state;
    type("ab");
    command(METRONOME_CONTROL_PAUSE);
    type("cd");
    command(METRONOME_CONTROL_UNPAUSE);
    expect_typed("abcd");
    command(METRONOME_CONTROL_PAUSE);
    type("e");
    command(METRONOME_CONTROL_UNPAUSE);
    expect_typed("e");
}

static void test_a_whole_ring_typed_at_once(void **state)
{
    char text[sizeof(rings()->in) + 1] = "";

    (void)state;
    for (unsigned i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)('!' + i % 90);
    out(FCR, 1);
    for (unsigned n = 0; n < 3; n++) {
        type(text);
        expect_typed(text);
    }
}

/* Counts that cannot be right make the guest wait, and nothing worse. */
static void test_impossible_counts(void **state)
{
    (void)state;
    rings()->out_ring.consumed = 1;
    assert_false(out(DEBUG_CONSOLE, 'x'));
    assert_int_equal(vcpu()->state, VCPU_IDLE);
    rings()->out_ring.consumed = 0;
    slot_rung(slot);
    settle();
    assert_true(write_next(DEBUG_CONSOLE));
    read_all();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_output_waits_for_a_late_reader),
        TEST(test_out_waits_for_a_late_reader),
        TEST(test_string_output_waits_for_a_late_reader),
        TEST(test_transmitter_interrupts_when_the_reader_has_come),
        TEST(test_interrupt_reaches_a_vcpu_that_waits_for_room),
        TEST(test_reader_comes_while_the_guest_is_paused),
        TEST(test_waiting_guest_is_saved_and_restored),
        TEST(test_last_words_of_a_guest_that_ends),
        TEST(test_last_words_before_a_reset),
        TEST(test_waiting_guest_can_be_ended),
        TEST(test_typed_before_the_guest_starts),
        TEST(test_typed_while_the_guest_is_paused),
        TEST(test_a_whole_ring_typed_at_once),
        TEST(test_impossible_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
