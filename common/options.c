/*
 * The command line's options, `name=value` words separated by spaces.
 */
#include "boot.h"
#include "string.h"

bool boot_option(const char *name, char *value, unsigned size)
{
    size_t length = strlen(name);
    const char *word = boot_info.command_line;

    while (*word) {
        const char *end = word;
        while (*end && *end != ' ')
            end++;
        size_t n = (size_t)(end - word);
        if (n >= length && !strncmp(word, name, length) && (n == length || word[length] == '=')) {
            size_t from = n == length ? n : length + 1, copy = n - from;
            if (copy >= size)
                copy = size ? size - 1 : 0;
            memcpy(value, word + from, copy);
            if (size)
                value[copy] = '\0';
            return true;
        }
        word = end;
        while (*word == ' ')
            word++;
    }
    return false;
}

bool boot_option_number(const char *name, uint64_t *value)
{
    char text[24];
    uint64_t v = 0;
    if (!boot_option(name, text, sizeof text) || !text[0])
        return false;
    const char *s = text;
    unsigned base = 10;
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        base = 16;
        s += 2;
    }
    for (; *s; s++) {
        unsigned lower = (unsigned char)*s | 0x20, digit = *s >= '0' && *s <= '9' ? (unsigned)(*s - '0') : 99;
        if (lower >= 'a' && lower <= 'f')
            digit = lower - 'a' + 10;
        if (digit >= base || v > (UINT64_MAX - digit) / base)
            return false;
        v = v * base + digit;
    }
    *value = v;
    return true;
}
