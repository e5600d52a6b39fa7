#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"

static char path[PATH_MAX];

int log_open(const char *at)
{
    int fd;

    snprintf(path, sizeof path, "%s", at);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0)
        dup3(fd, STDERR_FILENO, 0);
    return fd;
}

void log_remove(void)
{
    if (!getenv("METRONOME_LOG"))
        unlink(path);
}

const char *log_path(void)
{
    return path;
}

void log_line(const char *format, ...)
{
    char text[800], when[32];
    time_t now = time(NULL);
    va_list arguments;
    struct tm t;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &t));
    dprintf(STDERR_FILENO, "metronome-daemon: %s %s\n", when, text);
}
