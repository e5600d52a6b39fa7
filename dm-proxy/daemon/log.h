/*
 * What the daemon has to say when nobody listens: lines in the hypervisor's log.
 */
#ifndef METRONOME_LOG_H
#define METRONOME_LOG_H

#include <limits.h>

/* From here on standard error is the file. Returns its descriptor; -1: errno says why not. */
int log_open(const char *path);
/* Removes it, unless the user has named it. */
void log_remove(void);
const char *log_path(void);

/* One line, with the time before it. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
