/*
 * Checks at boot, and deliberate failures for tests/system/test_boot.sh.
 */
#ifndef METRONOME_SELFTEST_H
#define METRONOME_SELFTEST_H

/* Panics where a page is both writable and executable or the code can be written through another mapping. */
void mm_check_wx(void);

/* The above, then what the command line's `test=` asks for: panic, stack-overflow, null. */
void selftest_run(void);

#endif
