/*
 * Checks at boot, and deliberate failures.
 */
#include "selftest.h"
#include "boot.h"
#include "console.h"
#include "setup.h"
#include "string.h"

static void test_panic(void)
{
    panic("a deliberate panic, %s", "test=panic");
}

/* Not a tail call: each level keeps a frame. Until the count wraps, which no stack holds. */
static unsigned __attribute__((noinline)) overflow(volatile unsigned depth)
{
    volatile char frame[256];
    frame[0] = (char)depth;
    return depth ? overflow(depth + 1) + (unsigned)frame[0] : 0;
}

static void test_overflow(void)
{
    overflow(1);
}

static void test_null(void)
{
    volatile unsigned *null = NULL;
    __asm__("" : "+r"(null));
    *null = 1;
}

void selftest_run(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"panic", test_panic}, {"stack-overflow", test_overflow}, {"null", test_null}};
    char name[32];

    mm_check_wx();
    if (!boot_option("test", name, sizeof name))
        return;
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(name, tests[i].name))
            tests[i].run();
}
