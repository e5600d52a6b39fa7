/*
 * boot_info: filled by one of the loaders' parsers, read by everyone.
 */
#include "loader.h"
#include "string.h"

struct boot_info boot_info;
unsigned boot_dropped;

static void copy_text(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size);
    if (n == size) {
        boot_dropped++;
        n = size - 1;
    }
    memcpy(to, from, n);
    to[n] = '\0';
}

void boot_add_range(uint64_t base, uint64_t size, uint32_t type)
{
    if (!size)
        return;
    if (boot_info.ranges == BOOT_MAX_RANGES) {
        boot_dropped++;
        return;
    }
    boot_info.range[boot_info.ranges++] = (struct boot_range){base, size, type, 0};
}

void boot_add_module(uint64_t base, uint64_t size, const char *command_line)
{
    if (boot_info.modules == BOOT_MAX_MODULES) {
        boot_dropped++;
        return;
    }
    struct boot_module *m = &boot_info.module[boot_info.modules++];
    m->base = base;
    m->size = size;
    copy_text(m->command_line, sizeof m->command_line, command_line);
}

void boot_set_command_line(const char *command_line)
{
    copy_text(boot_info.command_line, sizeof boot_info.command_line, command_line);
}

const char *boot_skip_word(const char *s)
{
    while (*s && *s != ' ')
        s++;
    while (*s == ' ')
        s++;
    return s;
}
