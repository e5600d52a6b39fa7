#include <regex.h>
#include <string.h>

#include "expect.h"

static regex_t regex;
static bool active, met;
static char line[8192];
static size_t line_bytes;

void expect_init(const char *pattern)
{
    active = pattern && !regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB);
}

static void look(bool complete)
{
    line[line_bytes] = 0;
    if (!regexec(&regex, line, 0, NULL, complete ? 0 : REG_NOTEOL))
        met = true;
}

/* A carriage return begins the line anew on a screen, but the text before a line feed counts, so it is left out. */
bool expect_feed(const char *bytes, size_t n)
{
    if (!active || met)
        return met;
    for (size_t i = 0; i < n && !met; i++) {
        if (bytes[i] == '\n') {
            look(true);
            line_bytes = 0;
        } else if (bytes[i] && bytes[i] != '\r') {
            if (line_bytes == sizeof line - 1)
                line_bytes = 0;
            line[line_bytes++] = bytes[i];
        }
    }
    if (!met && line_bytes)
        look(false);
    return met;
}
