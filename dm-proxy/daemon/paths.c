#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/paths.h"

static bool refuse(char *error, size_t size, const char *path, const char *why)
{
    snprintf(error, size, "%s: %s", path, why);
    return false;
}

bool runtime_folder(char path[PATH_MAX], char *error, size_t error_size)
{
    const char *own = getenv("METRONOME_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    struct stat st;

    if (own && *own)
        snprintf(path, PATH_MAX, "%s", own);
    else if (xdg && *xdg && !access(xdg, W_OK))
        snprintf(path, PATH_MAX, "%s/metronome", xdg);
    else
        snprintf(path, PATH_MAX, "/tmp/metronome-%u", (unsigned)getuid());
    if (mkdir(path, 0700) && errno != EEXIST)
        return refuse(error, error_size, path, strerror(errno));
    /* In /tmp somebody else may have been here first. */
    if (lstat(path, &st))
        return refuse(error, error_size, path, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077))
        return refuse(error, error_size, path, "is not a folder that only you can enter");
    return true;
}

void beside_program(char path[PATH_MAX], const char *name, const char *variable)
{
    const char *given = getenv(variable);
    ssize_t n;
    char *slash;

    if (given && *given) {
        snprintf(path, PATH_MAX, "%s", given);
        return;
    }
    n = readlink("/proc/self/exe", path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    slash = strrchr(path, '/');
    slash = slash ? slash + 1 : path;
    snprintf(slash, PATH_MAX - (slash - path), "%s", name);
}

static bool is_program(const char *path)
{
    struct stat st;

    return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

bool find_program(char path[PATH_MAX], const char *name)
{
    const char *folders = getenv("PATH");

    if (strchr(name, '/')) {
        snprintf(path, PATH_MAX, "%s", name);
        return is_program(path);
    }
    while (folders && *folders) {
        int n = (int)strcspn(folders, ":");

        if (snprintf(path, PATH_MAX, "%.*s/%s", n, folders, name) < PATH_MAX && is_program(path))
            return true;
        folders += n + (folders[n] == ':');
    }
    return false;
}

bool find_outer_qemu(char path[PATH_MAX])
{
    const char *given = getenv("METRONOME_OUTER_QEMU");

    return find_program(path, given && *given ? given : "qemu-system-x86_64");
}

void remove_socket(int folder, const char *address)
{
    char path[PATH_MAX];
    struct stat st;

    if (strncmp(address, "unix:", 5))
        return;
    snprintf(path, sizeof path, "%.*s", (int)strcspn(address + 5, ","), address + 5);
    if (!fstatat(folder, path, &st, AT_SYMLINK_NOFOLLOW) && S_ISSOCK(st.st_mode))
        unlinkat(folder, path, 0);
}
