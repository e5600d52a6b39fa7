/*
 * common/format.c against the C library, over generated conversions; common/options.c by cases.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../../common/format.c"
#include "../../common/options.c"

struct boot_info boot_info;

#define RUNS 200000

static int from(int n)
{
    return rand() % n;
}

/* A conversion with random flags, width, precision and size; `kind` is one of d i u x X c s. */
static void make_format(char *to, char kind, const char *size)
{
    static const char *const flags[] = {"", "-", "0", "#", "-#", "0#"};
    int n = sprintf(to, "<%%%s",
                    kind == 'x' || kind == 'X'   ? flags[from(6)]
                    : kind == 's' || kind == 'c' ? flags[from(2)]
                                                 : flags[from(3)]);
    if (from(2))
        n += sprintf(to + n, "%d", from(30));
    if (from(2) && kind != 'c')
        n += sprintf(to + n, ".%d", from(25));
    sprintf(to + n, "%s%c>", size, kind);
}

static uint64_t value(void)
{
    uint64_t v = (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
    return from(10) ? v >> from(64) : 0;
}

static void same(const char *format, const char *ours, int n, const char *libc, int m)
{
    if (n != m || strcmp(ours, libc))
        fail_msg("'%s': '%s' (%d), the C library '%s' (%d)", format, ours, n, libc, m);
}

#define COMPARE(format, argument)                                                                                      \
    do {                                                                                                               \
        char a_[128], b_[128];                                                                                         \
        typeof(argument) v_ = (argument);                                                                              \
        size_t size_ = from(3) ? sizeof a_ : (size_t)from(20) + 1;                                                     \
        int n_ = format_line(a_, size_, format, v_), m_ = snprintf(b_, size_, format, v_);                             \
        same(format, a_, n_, b_, m_);                                                                                  \
    } while (0)

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-truncation"

static void test_generated(void **state)
{
    static const char *const sizes[] = {"", "l", "ll", "z", "h", "hh"};
    static const char *const texts[] = {"", "a", "text", "a longer text than most"};
    char format[64];
    (void)state;
    srand(1);
    for (int i = 0; i < RUNS; i++) {
        char kind = "diuxXcs"[from(7)];
        const char *size = kind == 'c' || kind == 's' ? "" : sizes[from(6)];
        make_format(format, kind, size);
        if (kind == 's')
            COMPARE(format, texts[from(4)]);
        else if (kind == 'c')
            COMPARE(format, 'a' + from(26));
        else if (size[0] == 'l' || size[0] == 'z')
            COMPARE(format, value());
        else
            COMPARE(format, (int)value());
    }
    print_message("%d conversions\n", RUNS);
}

static void test_cases(void **state)
{
    char text[64];
    (void)state;
    static const char wanted[] = "   ab|cd   |ef|%|0x1234|   7|8   |(null)";
    int n = format_line(text, sizeof text, "%5s|%-5s|%.2s|%%|%p|%*d|%*d|%s", "ab", "cd", "efg", (void *)0x1234, 4, 7,
                        -4, 8, (char *)NULL);
    assert_string_equal(text, wanted);
    assert_int_equal(n, sizeof wanted - 1);
    assert_int_equal(format_line(text, 0, "abc"), 3);
}

static void test_options(void **state)
{
    char value[8];
    uint64_t n = 7;
    (void)state;
    strcpy(boot_info.command_line,
           "  a=1 bare  long=123456789 hex=0xfF none= x=12z exit=244 big=18446744073709551616 a=2");
    assert_true(boot_option("a", value, sizeof value));
    assert_string_equal(value, "1");
    assert_true(boot_option("bare", value, sizeof value));
    assert_string_equal(value, "");
    assert_true(boot_option("long", value, sizeof value));
    assert_string_equal(value, "1234567");
    assert_false(boot_option("lon", value, sizeof value));
    assert_false(boot_option("longer", value, sizeof value));
    assert_true(boot_option("none", value, sizeof value));
    assert_string_equal(value, "");
    assert_true(boot_option_number("hex", &n) && n == 255);
    assert_true(boot_option_number("exit", &n) && n == 244);
    assert_false(boot_option_number("x", &n) || boot_option_number("none", &n) || boot_option_number("bare", &n));
    assert_false(boot_option_number("big", &n) || boot_option_number("absent", &n));
    assert_int_equal(n, 244);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generated),
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
