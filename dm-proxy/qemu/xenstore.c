/*
 * libxenstore: a tree in this process's memory. QEMU writes its state there and watches for backends that never come.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "dm.h"

#define PATH_BYTES 512
#define DOMAIN0 "/local/domain/0"
#define FULL_BYTES (PATH_BYTES + sizeof DOMAIN0)

struct node {
    struct node *next;
    char path[FULL_BYTES];
    unsigned length;
    char *value; /* with a NUL that `length` does not count */
};

struct watch {
    struct watch *next;
    char path[PATH_BYTES]; /* as given: events are named the same way */
    char token[128];
};

struct event {
    struct event *next;
    char path[PATH_BYTES];
    char token[128];
};

struct xs_handle {
    struct xs_handle *next;
    struct watch *watches;
    struct event *events, **last_event;
    int fd; /* readable while there are events */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *nodes;
static struct xs_handle *handles;

static void absolute(char out[FULL_BYTES], const char *path)
{
    snprintf(out, FULL_BYTES, "%s%s%s", path[0] == '/' ? "" : DOMAIN0, path[0] == '/' || !path[0] ? "" : "/", path);
}

/* Length of `parent` if `path` is it or below it, else 0. */
static size_t below(const char *parent, const char *path)
{
    size_t n = strlen(parent);

    return !strncmp(parent, path, n) && (path[n] == 0 || path[n] == '/') ? n : 0;
}

static struct node *find(const char *path)
{
    struct node *n;

    for (n = nodes; n && strcmp(n->path, path); n = n->next)
        ;
    return n;
}

static bool set(const char *path, const void *data, unsigned length)
{
    struct node *n = find(path);
    char *value = malloc(length + 1);

    if (!n && (n = calloc(1, sizeof *n))) {
        snprintf(n->path, sizeof n->path, "%s", path);
        n->next = nodes;
        nodes = n;
    }
    if (!n || !value) {
        free(value);
        return false;
    }
    memcpy(value, data, length);
    value[length] = 0;
    free(n->value);
    n->value = value;
    n->length = length;
    return true;
}

/* QEMU's map of its video memory: what it reads again when it is started to load a saved state. */

#define PHYSMAP "/physmap/"

static void keep_node(struct kept *k, const struct node *n)
{
    size_t path = strlen(n->path) + 1;

    if (path + n->length + 1 > sizeof k->tree - k->tree_bytes)
        return; /* then the restored QEMU says what it misses */
    memcpy(k->tree + k->tree_bytes, n->path, path);
    memcpy(k->tree + k->tree_bytes + path, n->value, n->length + 1);
    k->tree_bytes += (uint32_t)path + n->length + 1;
}

static void keep(void)
{
    if (!dm.kept)
        return;
    dm.kept->tree_bytes = 0;
    for (const struct node *n = nodes; n; n = n->next)
        if (strstr(n->path, PHYSMAP))
            keep_node(dm.kept, n);
}

static size_t word_bytes(const char *at, const char *end)
{
    const char *nul = memchr(at, 0, (size_t)(end - at));

    return nul ? (size_t)(nul - at) + 1 : 0;
}

void xenstore_restore(void)
{
    const char *at = dm.kept->tree, *end = at + dm.kept->tree_bytes;

    while (at < end) {
        const char *value = at + word_bytes(at, end);
        size_t bytes = value > at && value < end ? word_bytes(value, end) : 0;

        if (!bytes || value - at > PATH_BYTES)
            dm_fatal("the saved state of the device model's memory is damaged");
        set(at, value, (unsigned)bytes - 1);
        at = value + bytes;
    }
}

/* Events. */

static void add_event(struct xs_handle *h, const char *path, const char *token)
{
    struct event *e = calloc(1, sizeof *e);
    uint64_t one = 1;

    if (!e)
        return;
    snprintf(e->path, sizeof e->path, "%s", path);
    snprintf(e->token, sizeof e->token, "%s", token);
    *h->last_event = e;
    h->last_event = &e->next;
    if (write(h->fd, &one, sizeof one) < 0)
        return; /* the counter is full: readable anyway */
}

static void fire(const char *path)
{
    char watched[FULL_BYTES], named[PATH_BYTES];

    for (struct xs_handle *h = handles; h; h = h->next)
        for (struct watch *w = h->watches; w; w = w->next) {
            absolute(watched, w->path);
            size_t n = below(watched, path);
            if (!n)
                continue;
            if (snprintf(named, sizeof named, "%s%s", w->path, path + n) < (int)sizeof named)
                add_event(h, named, w->token);
        }
}

static char **take_event(struct xs_handle *h)
{
    struct event *e = h->events;
    size_t path_bytes, token_bytes;
    char **out;
    uint64_t count;

    if (!e)
        return NULL;
    h->events = e->next;
    if (!h->events) {
        h->last_event = &h->events;
        while (read(h->fd, &count, sizeof count) < 0 && errno == EINTR)
            ;
    }
    path_bytes = strlen(e->path) + 1;
    token_bytes = strlen(e->token) + 1;
    out = malloc(2 * sizeof *out + path_bytes + token_bytes);
    if (out) {
        out[XS_WATCH_PATH] = (char *)(out + 2);
        out[XS_WATCH_TOKEN] = out[XS_WATCH_PATH] + path_bytes;
        memcpy(out[XS_WATCH_PATH], e->path, path_bytes);
        memcpy(out[XS_WATCH_TOKEN], e->token, token_bytes);
    }
    free(e);
    return out;
}

/* Connections. */

struct xs_handle *xs_open(unsigned long flags)
{
    struct xs_handle *h = calloc(1, sizeof *h);

    (void)flags;
    if (!h)
        return NULL;
    h->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h->last_event = &h->events;
    pthread_mutex_lock(&lock);
    h->next = handles;
    handles = h;
    pthread_mutex_unlock(&lock);
    return h;
}

struct xs_handle *xs_daemon_open(void)
{
    return xs_open(0);
}

static void drop_watches(struct xs_handle *h)
{
    struct watch *w;
    struct event *e;

    while ((w = h->watches)) {
        h->watches = w->next;
        free(w);
    }
    while ((e = h->events)) {
        h->events = e->next;
        free(e);
    }
}

void xs_close(struct xs_handle *h)
{
    struct xs_handle **at;

    if (!h)
        return;
    pthread_mutex_lock(&lock);
    for (at = &handles; *at && *at != h; at = &(*at)->next)
        ;
    if (*at)
        *at = h->next;
    drop_watches(h);
    pthread_mutex_unlock(&lock);
    close(h->fd);
    free(h);
}

void xs_daemon_close(struct xs_handle *h)
{
    xs_close(h);
}

int xs_fileno(struct xs_handle *h)
{
    return h->fd;
}

/* Nodes. */

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *length)
{
    char full[FULL_BYTES];
    struct node *n;
    char *copy = NULL;

    (void)h, (void)t;
    absolute(full, path);
    pthread_mutex_lock(&lock);
    n = find(full);
    if (n && (copy = malloc(n->length + 1))) {
        memcpy(copy, n->value, n->length + 1);
        if (length)
            *length = n->length;
    }
    pthread_mutex_unlock(&lock);
    if (!n)
        errno = ENOENT;
    return copy;
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data, unsigned int length)
{
    char full[FULL_BYTES];
    bool done;

    (void)h, (void)t;
    absolute(full, path);
    pthread_mutex_lock(&lock);
    done = set(full, data, length);
    if (strstr(full, PHYSMAP))
        keep();
    fire(full);
    pthread_mutex_unlock(&lock);
    if (!done)
        errno = ENOMEM;
    return done;
}

bool xs_mkdir(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    char full[FULL_BYTES];
    bool present;

    absolute(full, path);
    pthread_mutex_lock(&lock);
    present = find(full) != NULL;
    pthread_mutex_unlock(&lock);
    return present || xs_write(h, t, path, "", 0);
}

bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    char full[FULL_BYTES];

    (void)h, (void)t;
    absolute(full, path);
    pthread_mutex_lock(&lock);
    for (struct node **at = &nodes; *at;) {
        struct node *n = *at;
        if (!below(full, n->path)) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        free(n->value);
        free(n);
    }
    fire(full);
    pthread_mutex_unlock(&lock);
    return true;
}

/* Is `name` (of `bytes`) among the first `count` names packed at `names`? */
static bool listed(const char *names, unsigned count, const char *name, size_t bytes)
{
    for (unsigned i = 0; i < count; i++, names += strlen(names) + 1)
        if (strlen(names) == bytes && !memcmp(names, name, bytes))
            return true;
    return false;
}

/* Packs the distinct names just below `full` into `names` (big enough for all paths); returns how many. */
static unsigned children(const char *full, char *names)
{
    unsigned count = 0;
    char *end = names;

    for (struct node *n = nodes; n; n = n->next) {
        size_t skip = below(full, n->path);
        if (!skip || n->path[skip] != '/')
            continue;
        const char *name = n->path + skip + 1;
        size_t bytes = strcspn(name, "/");
        if (listed(names, count, name, bytes))
            continue;
        memcpy(end, name, bytes);
        end[bytes] = 0;
        end += bytes + 1;
        count++;
    }
    return count;
}

/* One block: the array, then the strings. */
char **xs_directory(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *count)
{
    char full[FULL_BYTES], *names;
    size_t total = 0;
    char **out = NULL;

    (void)h, (void)t;
    absolute(full, path);
    pthread_mutex_lock(&lock);
    for (struct node *n = nodes; n; n = n->next)
        total++;
    names = malloc(total * FULL_BYTES + 1);
    *count = names ? children(full, names) : 0;
    if (*count || (names && find(full)))
        out = malloc((*count + 1) * sizeof *out + total * FULL_BYTES);
    if (out) {
        char *at = memcpy(out + *count + 1, names, total * FULL_BYTES);
        for (unsigned i = 0; i < *count; i++, at += strlen(at) + 1)
            out[i] = at;
    }
    pthread_mutex_unlock(&lock);
    free(names);
    if (!out)
        errno = ENOENT;
    return out;
}

bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path, struct xs_permissions *permissions,
                        unsigned int count)
{
    (void)h, (void)t, (void)path, (void)permissions, (void)count;
    return true;
}

char *xs_get_domain_path(struct xs_handle *h, unsigned int domain)
{
    char path[64];

    (void)h;
    snprintf(path, sizeof path, "/local/domain/%u", domain);
    return strdup(path);
}

/* There is one writer, so a transaction has nothing to keep apart. */
xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    (void)h;
    return 1;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool abort)
{
    (void)h, (void)t, (void)abort;
    return true;
}

/* Watches: the protocol says that a new one fires at once. */

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    struct watch *w = calloc(1, sizeof *w);

    if (!w)
        return false;
    snprintf(w->path, sizeof w->path, "%s", path);
    snprintf(w->token, sizeof w->token, "%s", token);
    pthread_mutex_lock(&lock);
    w->next = h->watches;
    h->watches = w;
    add_event(h, path, token);
    pthread_mutex_unlock(&lock);
    return true;
}

bool xs_unwatch(struct xs_handle *h, const char *path, const char *token)
{
    bool found = false;

    pthread_mutex_lock(&lock);
    for (struct watch **at = &h->watches; *at && !found; at = found ? at : &(*at)->next) {
        struct watch *w = *at;
        found = !strcmp(w->path, path) && !strcmp(w->token, token);
        if (found) {
            *at = w->next;
            free(w);
        }
    }
    pthread_mutex_unlock(&lock);
    if (!found)
        errno = ENOENT;
    return found;
}

char **xs_check_watch(struct xs_handle *h)
{
    char **event;

    pthread_mutex_lock(&lock);
    event = take_event(h);
    pthread_mutex_unlock(&lock);
    if (!event)
        errno = EAGAIN;
    return event;
}

char **xs_read_watch(struct xs_handle *h, unsigned int *count)
{
    char **event = xs_check_watch(h);

    if (event && count)
        *count = 2;
    return event;
}
