/*
 * What is happening while things start: one line that is rewritten on a terminal, a line for each step elsewhere.
 */
#ifndef METRONOME_PROGRESS_H
#define METRONOME_PROGRESS_H

#include <stdbool.h>

void progress_init(bool quiet);
void progress_step(const char *what);
/* Shows how much time has passed; to be called some times a second. */
void progress_tick(void);
/* The guest runs: the line goes, or says for good how long it took. */
void progress_done(const char *what);
double progress_seconds(void);

#endif
