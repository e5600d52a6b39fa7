/*
 * Checks at boot, and deliberate failures for tests/system/test_boot.sh.
 */
#ifndef METRONOME_SELFTEST_H
#define METRONOME_SELFTEST_H

/* Panics where a page is both writable and executable or the code can be written through another mapping. */
void mm_check_wx(void);

/* A mapping that mm_check_wx() must find. */
void mm_map_writable_code(void);

/* The first of the above, then what the command line's `test=NAME` asks for (arch/x86/cpu/selftest.c). */
void selftest_run(void);

#endif
