#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loop.h"

static int epoll = -1;
static struct timer *timers;
static bool stopped;

void loop_init(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        abort();
}

uint64_t loop_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void loop_watch(struct watch *w, int fd, void (*ready)(void *owner), void *owner)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = w};

    *w = (struct watch){fd, ready, owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        abort();
}

void loop_pause(struct watch *w, bool paused)
{
    struct epoll_event event = {.events = paused ? 0 : EPOLLIN, .data.ptr = w};

    if (w->fd >= 0)
        epoll_ctl(epoll, EPOLL_CTL_MOD, w->fd, &event);
}

void loop_close(struct watch *w)
{
    if (w->fd < 0)
        return;
    epoll_ctl(epoll, EPOLL_CTL_DEL, w->fd, NULL);
    close(w->fd);
    w->fd = -1;
}

void loop_timer(struct timer *t, uint64_t after_ms, void (*expired)(void *owner), void *owner)
{
    t->at_ms = loop_now_ms() + after_ms;
    t->expired = expired;
    t->owner = owner;
    if (t->listed)
        return;
    t->listed = true;
    t->next = timers;
    timers = t;
}

void loop_cancel(struct timer *t)
{
    struct timer **link = &timers;

    if (!t->listed)
        return;
    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    t->listed = false;
}

static struct timer *first_timer(void)
{
    struct timer *first = timers;

    for (struct timer *t = timers; t; t = t->next)
        if (t->at_ms < first->at_ms)
            first = t;
    return first;
}

/* Runs one expired timer, else waits. One event at a time, so that what it removes cannot be among those still to come.
 */
static void step(void)
{
    struct timer *t = first_timer();
    uint64_t now = loop_now_ms();
    struct epoll_event event;
    int n;

    n = epoll_wait(epoll, &event, 1, !t ? -1 : t->at_ms <= now ? 0 : (int)(t->at_ms - now));
    if (n == 1) {
        struct watch *w = event.data.ptr;
        w->ready(w->owner);
    }
    if (n < 0 && errno != EINTR)
        abort();
    t = first_timer();
    if (t && t->at_ms <= loop_now_ms()) {
        loop_cancel(t);
        t->expired(t->owner);
    }
}

void loop_run(void)
{
    while (!stopped)
        step();
}

void loop_stop(void)
{
    stopped = true;
}
