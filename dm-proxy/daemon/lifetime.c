#include <stddef.h>

#include "daemon/lifetime.h"
#include "daemon/loop.h"

#define FIRST_PATIENCE_MS 10000

static bool stays, leaving;
static unsigned holds;
static struct timer first; /* set: it has not come */

static void look(void)
{
    if (!holds && !stays)
        loop_stop();
}

void lifetime_hold(void)
{
    holds++;
}

void lifetime_drop(void)
{
    holds--;
    look();
}

void lifetime_first_came(void)
{
    if (!first.listed)
        return;
    loop_cancel(&first);
    lifetime_drop();
}

static void on_none_came(void *owner)
{
    (void)owner;
    lifetime_drop();
}

void lifetime_begin(void)
{
    lifetime_hold();
    loop_timer(&first, FIRST_PATIENCE_MS, on_none_came, NULL);
}

void lifetime_stay(void)
{
    stays = !leaving;
}

void lifetime_leave(void)
{
    stays = false;
    leaving = true;
    look();
}

bool lifetime_stays(void)
{
    return stays;
}

bool lifetime_leaving(void)
{
    return leaving;
}
