/*
 * The daemon's one loop: descriptors and timers, each with a function and its owner. A function may add and remove
 * watches and timers freely, its own as well.
 */
#ifndef METRONOME_LOOP_H
#define METRONOME_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
    int fd; /* -1: not watched */
    void (*ready)(void *owner);
    void *owner;
};

struct timer {
    uint64_t at_ms; /* on loop_now_ms(); 0: not set */
    void (*expired)(void *owner);
    void *owner;
    struct timer *next;
    bool listed;
};

void loop_init(void);
uint64_t loop_now_ms(void);

/* Readable (or closed by the other side) calls `ready`. */
void loop_watch(struct watch *w, int fd, void (*ready)(void *owner), void *owner);
/* While paused only a hang-up calls `ready`. */
void loop_pause(struct watch *w, bool paused);
/* Stops watching and closes the descriptor. */
void loop_close(struct watch *w);

void loop_timer(struct timer *t, uint64_t after_ms, void (*expired)(void *owner), void *owner);
void loop_cancel(struct timer *t);

/* Runs until loop_stop(). */
void loop_run(void);
void loop_stop(void);

#endif
