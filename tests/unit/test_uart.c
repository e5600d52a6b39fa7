#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "uart/uart.h"

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct uart u;
static uint64_t now;

static uint8_t in(unsigned offset)
{
    uint8_t v = (uint8_t)uart_read(&u, ++now, offset, 1);
    assert_true(uart_check(&u));
    return v;
}

static void out(unsigned offset, uint8_t v)
{
    uart_write(&u, ++now, offset, 1, v);
    assert_true(uart_check(&u));
}

static bool irq(void)
{
    uart_advance(&u, ++now);
    return u.out.line[0].level;
}

static int setup(void **state)
{
    memset(&u, 0, sizeof(u));
    uart_reset(&u, now = 0);
    return uart_check(&u) ? 0 : -1;
}

static void test_reset(void **state)
{
    static const uint8_t value[8] = {0, 0, 1, 0, 0, 0x60, 0xb0, 0};
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(in(i), value[i]);
    assert_false(irq());
    assert_int_equal(uart_deadline(&u), NEVER);
}

/* What Linux's 8250 driver does to find out what it has. */
static void test_linux_autoconfigures_a_16550a(void **state)
{
    out(IER, 0);
    assert_int_equal(in(IER) & 0x0f, 0);
    out(IER, 0x0f);
    assert_int_equal(in(IER) & 0x0f, 0x0f);
    out(IER, 0);
    out(MCR, 0x10 | 0x0a);
    assert_int_equal(in(MSR) & 0xf0, 0x90);
    out(MCR, 0);
    out(LCR, 0xbf);
    out(IIR, 0);
    out(LCR, 0);
    out(IIR, 1);
    assert_int_equal(in(IIR) >> 6, 3);
    out(LCR, 0x80); /* no EFR of a 16650: offset 2 is still IIR */
    assert_int_not_equal(in(IIR), 0);
    out(LCR, 0xbf);
    assert_int_not_equal(in(IIR), 0);
    out(LCR, 0);
    out(IIR, 0x21); /* no 64-byte FIFO of a 16750 */
    assert_int_equal(in(IIR) >> 5, 6);
    out(LCR, 0x80);
    out(IIR, 0x21);
    assert_int_equal(in(IIR) >> 5, 6);
    out(LCR, 0);
    out(IER, 0x40); /* no UUE of an XScale */
    assert_int_equal(in(IER), 0);
}

/* Linux's transmitter test: enabling the interrupt with an empty transmitter raises it, again and again. */
static void test_thre_rises_each_time_it_is_enabled(void **state)
{
    out(MCR, 8);
    for (int i = 0; i < 3; i++) {
        out(IER, 2);
        assert_true(irq());
        assert_int_equal(in(IIR), 2);
        assert_false(irq()); /* reading IIR took it */
        assert_int_equal(in(IIR), 1);
        out(IER, 0);
    }
    assert_int_equal(u.out.line[0].rises, 3);
}

static void test_transmit(void **state)
{
    uint8_t got[4];
    out(RBR, 'a');
    out(RBR, 'b');
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(uart_take(&u, got, 4), 2);
    assert_memory_equal(got, "ab", 2);
    assert_int_equal(uart_take(&u, got, 4), 0);
    out(MCR, 8);
    out(IER, 2);
    in(IIR);
    out(RBR, 'c');
    assert_true(irq());
    assert_int_equal(in(IIR), 2);
}

static void test_transmit_stalls_when_full(void **state)
{
    uint8_t got[UART_SENT];
    out(MCR, 8);
    out(IER, 2);
    for (unsigned i = 0; i < UART_SENT; i++) {
        assert_int_equal(in(LSR), i <= UART_SENT - UART_FIFO ? 0x60 : 0);
        out(RBR, (uint8_t)i);
    }
    assert_int_equal(in(LSR), 0);
    assert_false(irq());
    out(RBR, 0xee); /* lost */
    assert_int_equal(uart_take(&u, got, UART_FIFO - 1), UART_FIFO - 1);
    assert_false(irq());
    assert_int_equal(in(LSR), 0);
    assert_int_equal(uart_take(&u, got, 1), 1);
    assert_true(irq());
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(uart_take(&u, got, sizeof(got)), UART_SENT - UART_FIFO);
    for (unsigned i = UART_FIFO; i < UART_SENT; i++)
        assert_int_equal(got[i - UART_FIFO], i);
}

/* Linux writes 16 bytes on one transmitter interrupt, without a look at LSR: of those that followed a byte taken from a full
 * transmitter 15 were lost. */
static void test_empty_transmitter_takes_a_whole_fifo(void **state)
{
    uint8_t got[UART_SENT];
    for (unsigned n = 0; n < 3; n++) {
        while (in(LSR) & 0x20)
            for (unsigned i = 0; i < UART_FIFO; i++) {
                assert_true(uart_takes(&u, RBR, 1));
                out(RBR, (uint8_t)i);
            }
        while (!(in(LSR) & 0x20))
            uart_take(&u, got, 1);
    }
}

static void test_takes(void **state)
{
    for (unsigned i = 0; i < UART_SENT; i++) {
        assert_true(uart_takes(&u, RBR, 1));
        out(RBR, (uint8_t)i);
    }
    assert_false(uart_takes(&u, RBR, 1));
    assert_true(uart_takes(&u, RBR, 2)); /* no access that does anything */
    assert_true(uart_takes(&u, IER, 1));
    out(LCR, 0x80);
    assert_true(uart_takes(&u, RBR, 1));
}

/* Found by fuzzing: loopback said that a stalled transmitter was empty again, and what was sent next got lost. */
static void test_stalled_transmitter_stays_so_in_loopback(void **state)
{
    uint8_t got;
    for (unsigned i = 0; i < UART_SENT; i++)
        out(RBR, (uint8_t)i);
    out(MCR, 0x10);
    out(RBR, 0xee); /* lost */
    assert_int_equal(in(LSR), 0);
    out(MCR, 0);
    for (unsigned i = 0; i < UART_FIFO; i++) {
        assert_int_equal(in(LSR), 0);
        assert_int_equal(uart_take(&u, &got, 1), 1);
        assert_int_equal(got, i);
    }
    assert_int_equal(in(LSR), 0x60);
}

static void test_receive(void **state)
{
    out(MCR, 8);
    out(IER, 1);
    assert_true(uart_put(&u, 'x'));
    assert_true(irq());
    assert_int_equal(in(IIR), 4);
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 'x');
    assert_false(irq());
    assert_int_equal(in(LSR), 0x60);
    out(IER, 0);
    assert_true(uart_put(&u, 'y'));
    assert_false(irq());
    out(IER, 1);
    assert_true(irq());
}

static void test_put_refuses_when_full(void **state)
{
    assert_true(uart_put(&u, 1));
    assert_false(uart_put(&u, 2)); /* no FIFO: one byte */
    out(IIR, 1);
    for (unsigned i = 0; i < UART_FIFO; i++)
        assert_true(uart_put(&u, (uint8_t)i));
    assert_false(uart_put(&u, 99));
    assert_int_equal(in(LSR), 0x61);
    for (unsigned i = 0; i < UART_FIFO; i++)
        assert_int_equal(in(RBR), i);
    assert_true(uart_put(&u, 3));
    out(IIR, 3); /* clear the receiver */
    assert_int_equal(in(LSR), 0x60);
}

static void test_timeout_is_immediate(void **state)
{
    static const struct { uint8_t fcr, level; } triggers[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};
    out(IER, 1);
    for (unsigned t = 0; t < 4; t++) {
        out(IIR, triggers[t].fcr | 2);
        for (unsigned i = 1; i <= UART_FIFO; i++) {
            assert_true(uart_put(&u, 0));
            assert_int_equal(in(IIR), i >= triggers[t].level ? 0xc4 : 0xcc);
        }
    }
}

static void test_loopback(void **state)
{
    uint8_t got;
    in(MSR);
    out(IIR, 1);
    out(MCR, 0x10);
    for (unsigned m = 0; m < 16; m++) {
        out(MCR, (uint8_t)(0x10 | m));
        assert_int_equal(in(MSR) >> 4, (m & 2) >> 1 | (m & 1) << 1 | (m & 4) | (m & 8));
    }
    out(IER, 1);
    out(MCR, 0x18);
    out(RBR, 'q');
    assert_int_equal(uart_take(&u, &got, 1), 0);
    assert_false(uart_put(&u, 'z'));
    assert_int_equal(in(IIR), 0xc4);
    assert_false(irq()); /* OUT2 is off its pin */
    assert_int_equal(in(RBR), 'q');
    for (unsigned i = 0; i < UART_FIFO; i++)
        out(RBR, 'r');
    assert_int_equal(in(LSR), 0x61);
    out(RBR, 's');
    assert_int_equal(in(LSR), 0x63);
    assert_int_equal(in(LSR), 0x61); /* reading cleared it */
}

static void test_modem_status_interrupt(void **state)
{
    out(IER, 8);
    out(MCR, 0x10);
    in(MSR);
    out(MCR, 0x10 | 4); /* RI comes: no event */
    assert_int_equal(in(IIR), 1);
    out(MCR, 0x10); /* RI goes: trailing edge */
    assert_int_equal(in(IIR), 0);
    assert_int_equal(in(MSR), 4);
    assert_int_equal(in(IIR), 1);
    out(MCR, 8); /* the terminal's lines come back, and the gate opens */
    assert_true(irq());
    assert_int_equal(in(MSR), 0xbb);
    assert_false(irq());
}

static void test_priorities(void **state)
{
    out(IER, 15);
    out(MCR, 0x10);
    out(RBR, 'a');
    out(RBR, 'b'); /* overrun: no FIFO */
    assert_int_equal(in(IIR), 6);
    in(LSR);
    assert_int_equal(in(IIR), 4);
    in(RBR);
    assert_int_equal(in(IIR), 2);
    assert_int_equal(in(IIR), 0);
    in(MSR);
    assert_int_equal(in(IIR), 1);
}

static void test_divisor_and_scratch(void **state)
{
    out(LCR, 0x83);
    out(0, 0x12);
    out(1, 0x34);
    out(SCR, 0x56);
    assert_int_equal(in(0), 0x12);
    assert_int_equal(in(1), 0x34);
    out(LCR, 3);
    assert_int_equal(in(IER), 0);
    assert_int_equal(in(SCR), 0x56);
    assert_int_equal(in(LCR), 3);
}

static void test_out2_gates(void **state)
{
    out(IER, 2);
    assert_false(irq());
    out(MCR, 8);
    assert_true(irq());
    out(MCR, 0);
    assert_false(irq());
}

static void test_undefined_accesses(void **state)
{
    struct uart before;
    static const unsigned sizes[] = {0, 2, 3, 4, 8, 16};
    uart_put(&u, 'k');
    before = u;
    for (unsigned s = 0; s < 6; s++)
        for (unsigned o = 0; o < 16; o++) {
            assert_int_equal(uart_read(&u, 1, o, sizes[s]), all_ones(sizes[s]));
            uart_write(&u, 1, o, sizes[s], 0);
        }
    assert_int_equal(uart_read(&u, 1, 8, 1), 0xff);
    uart_write(&u, 1, 8, 1, 0);
    assert_memory_equal(&u, &before, sizeof(u));
}

/* Any accesses in any order leave a possible state, and what is sent comes out or is refused by LSR. */
static void test_random(void **state)
{
    uint8_t got[UART_SENT + 1];
    srand(1);
    for (int i = 0; i < 500000; i++) {
        int r = rand();
        switch (r & 7) {
        case 0: case 1: case 2: out((unsigned)r >> 3 & 7, (uint8_t)(r >> 8)); break;
        case 3: case 4: in((unsigned)r >> 3 & 7); break;
        case 5: uart_put(&u, (uint8_t)(r >> 8)); break;
        case 6: assert_true(uart_take(&u, got, (unsigned)r >> 8 & 63) <= UART_SENT); break;
        case 7: irq(); break;
        }
        assert_true(uart_check(&u));
    }
}

static void test_check_refuses(void **state)
{
#define BAD(statement) do { struct uart keep = u; statement; assert_false(uart_check(&u)); u = keep; } while (0)
    BAD(u.ier = 16);
    BAD(u.mcr = 32);
    BAD(u.fcr = 8);
    BAD(u.rx_count = 2);
    BAD(u.rx_first = UART_FIFO);
    BAD(u.sent_first = UART_SENT);
    BAD(u.sent_count = UART_SENT + 1);
    BAD(u.sent_count = UART_SENT - UART_FIFO + 1);
    BAD(u.lsr = 0);
    BAD(u.lsr = 0xff);
    BAD(u.thr_empty_pending = 2);
    BAD(u.zero[1] = 1);
    BAD(u.out.line[0].zero = 1);
    BAD(u.out.line[0].level = 2);
    assert_true(uart_check(&u));
}

#define TEST(t) cmocka_unit_test_setup(t, setup)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset),
        TEST(test_linux_autoconfigures_a_16550a),
        TEST(test_thre_rises_each_time_it_is_enabled),
        TEST(test_transmit),
        TEST(test_transmit_stalls_when_full),
        TEST(test_empty_transmitter_takes_a_whole_fifo),
        TEST(test_takes),
        TEST(test_stalled_transmitter_stays_so_in_loopback),
        TEST(test_receive),
        TEST(test_put_refuses_when_full),
        TEST(test_timeout_is_immediate),
        TEST(test_loopback),
        TEST(test_modem_status_interrupt),
        TEST(test_priorities),
        TEST(test_divisor_and_scratch),
        TEST(test_out2_gates),
        TEST(test_undefined_accesses),
        TEST(test_random),
        TEST(test_check_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
