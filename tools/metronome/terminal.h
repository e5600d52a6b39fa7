/*
 * The user's terminal: raw while a guest has it, as it was at every kind of end.
 */
#ifndef METRONOME_TERMINAL_H
#define METRONOME_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

enum terminal_key { KEY_NONE, KEY_END, KEY_DETACH, KEY_MONITOR, KEY_HELP, KEY_POWER, KEY_RESET };

/* Raw mode, if standard input is a terminal and ours to use. With `as_xl` Ctrl-] is KEY_DETACH, as in `xl console`. */
void terminal_enter(bool as_xl);
void terminal_leave(void); /* also from a signal handler; more than once does no harm */
bool terminal_is_raw(void);

/*
 * What was typed: the bytes for the guest are written back to `bytes`, their number returned; a key after Ctrl-a ends
 * the look and is told in *key, with *used the bytes taken so far. Without a terminal bytes are what they are.
 */
size_t terminal_keys(char *bytes, size_t n, size_t *used, enum terminal_key *key);

/* All of it, however slowly the terminal takes it. False: nobody is there any more. */
bool terminal_write(const char *bytes, size_t n);

#endif
