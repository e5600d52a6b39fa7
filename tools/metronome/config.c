/*
 * A configuration file in the syntax of xl.cfg(5), read by libxlutil. That library can only be asked for keys by name,
 * so a scanner of our own finds the keys that are there, to name those nobody would ask for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libxlutil.h>

#include "run.h"

#define MAX_CONFIG_BYTES (1 << 20)

static char *read_whole(const char *path)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    char *text;
    size_t n;

    if (!f || fstat(fileno(f), &st))
        bad_input("%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        bad_input("%s: not a file", path);
    if (st.st_size > MAX_CONFIG_BYTES)
        bad_input("%s: too large for a configuration file", path);
    text = malloc((size_t)st.st_size + 1);
    n = text ? fread(text, 1, (size_t)st.st_size, f) : 0;
    if (!text || ferror(f))
        bad_input("%s: cannot be read", path);
    text[n] = 0;
    fclose(f);
    if (strlen(text) != n)
        bad_input("%s: not a text file", path);
    return text;
}

/* Past a quoted string, a comment or one character. */
static const char *skip(const char *p)
{
    char quote = *p;

    if (*p == '#')
        return p + strcspn(p, "\n");
    if (*p != '"' && *p != '\'')
        return p + 1;
    for (p++; *p && *p != quote; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

/* The next key outside of brackets: its name in `key`, the text after it returned; NULL at the end. */
static const char *next_key(const char *p, int *depth, char *key, size_t size)
{
    while (*p) {
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

        if (n) {
            const char *after = p + n + strspn(p + n, " \t");

            if (!*depth && (*after == '=' || (*after == '+' && after[1] == '='))) {
                snprintf(key, size, "%.*s", (int)n, p);
                return after;
            }
            p += n;
            continue;
        }
        *depth += (*p == '[' || *p == '(') - (*p == ']' || *p == ')');
        p = skip(p);
    }
    return NULL;
}

static void apply_list(struct run *r, const char *key, XLU_ConfigList *list, int entries, const char *where)
{
    for (int i = 0; i < entries; i++) {
        const char *item = xlu_cfg_get_listitem(list, i);

        if (!item)
            bad_input("%s: entry %d is no text", where, i + 1);
        settings_apply(r, key, strdup(item), where);
    }
}

static bool is_list_key(const char *key)
{
    return !strcmp(key, "disk") || !strcmp(key, "vif") || !strcmp(key, "ticks");
}

/* Values that xl writes otherwise than our options. */
static const char *translate(const char *key, const char *value)
{
    if (!strcmp(key, "vnc") && !strcmp(value, "1"))
        return "127.0.0.1:0,to=99";
    if (!strcmp(key, "serial") && !strcmp(value, "pty"))
        return "stdio"; /* xl's console is the terminal here */
    return value;
}

static void apply_key(struct run *r, XLU_Config *config, const char *key, const char *where)
{
    XLU_ConfigList *list;
    const char *value;
    int entries;

    if (is_list_key(key)) {
        if (xlu_cfg_get_list(config, key, &list, &entries, 1))
            bad_input("%s: must be a list: %s = [ '...' ]", where, key);
        apply_list(r, key, list, entries, where);
        return;
    }
    if (xlu_cfg_get_string(config, key, &value, 1))
        bad_input("%s: must be one value", where);
    if (!strcmp(key, "vnc") && !strcmp(value, "0"))
        return;
    settings_apply(r, key, strdup(translate(key, value)), where);
}

/* A key that stands there twice has one value, the last: libxlutil's rule. */
static bool seen_before(const char *text, const char *key, unsigned nth)
{
    char other[64];
    const char *p = text;
    int depth = 0;

    for (unsigned i = 0; i < nth && (p = next_key(p, &depth, other, sizeof other)); i++)
        if (!strcmp(other, key))
            return true;
    return false;
}

static void apply_all(struct run *r, XLU_Config *config, const char *text, const char *path)
{
    char key[64], where[512];
    const char *p = text;
    int depth = 0;

    for (unsigned n = 0; (p = next_key(p, &depth, key, sizeof key)); n++) {
        snprintf(where, sizeof where, "%s: %s", path, key);
        if (!seen_before(text, key, n))
            apply_key(r, config, key, where);
    }
}

static void find_unknown(const char *text, const char *path)
{
    char key[64];
    const char *p = text;
    int depth = 0;

    while ((p = next_key(p, &depth, key, sizeof key)))
        if (!settings_is_key(key))
            bad_input("%s: unknown key '%s'", path, key);
}

void config_read(struct run *r, const char *path)
{
    char *text = read_whole(path), *messages = NULL;
    size_t bytes;
    FILE *report = open_memstream(&messages, &bytes);
    XLU_Config *config = xlu_cfg_init(report, path);

    if (!config || xlu_cfg_readdata(config, text, (int)strlen(text))) {
        fclose(report);
        messages[strcspn(messages, "\n")] = 0;
        bad_input("%s", *messages ? messages : "cannot read the configuration");
    }
    find_unknown(text, path);
    apply_all(r, config, text, path);
    xlu_cfg_destroy(config);
    fclose(report);
    free(messages);
    free(text);
}
