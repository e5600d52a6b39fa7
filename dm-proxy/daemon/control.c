#include <string.h>

#include "daemon/control.h"
#include "public/control.h"

struct pending {
    bool used;
    uint32_t sequence;
    void (*done)(void *owner, int status);
    void *owner;
};

static struct metronome_command_ring *commands;
static struct metronome_completion_ring *completions;
static struct pending pending[METRONOME_RING_ENTRIES];
static uint32_t next_sequence;

void control_init(uint8_t *memory)
{
    commands = (void *)(memory + METRONOME_CONTROL_COMMANDS);
    completions = (void *)(memory + METRONOME_CONTROL_COMPLETIONS);
}

/* One that takes long, as a DESTROY may, keeps its place while others come and go. */
static struct pending *free_place(void)
{
    for (unsigned i = 0; i < METRONOME_RING_ENTRIES; i++) {
        struct pending *p = &pending[++next_sequence % METRONOME_RING_ENTRIES];

        if (!p->used)
            return p;
    }
    return NULL;
}

bool control_send(uint32_t op, unsigned slot, const uint64_t arguments[2], void (*done)(void *owner, int status), void *owner)
{
    struct pending *p = free_place();
    uint32_t produced = commands->ring.produced, sequence = next_sequence;

    if (!p || produced - __atomic_load_n(&commands->ring.consumed, __ATOMIC_ACQUIRE) >= METRONOME_RING_ENTRIES)
        return false;
    *p = (struct pending){true, sequence, done, owner};
    commands->entry[produced % METRONOME_RING_ENTRIES] = (struct metronome_command){
        .op = op, .sequence = sequence, .flags = METRONOME_COMMAND_COMPLETE, .args = {slot, arguments ? arguments[0] : 0, arguments ? arguments[1] : 0}};
    __atomic_store_n(&commands->ring.produced, produced + 1, __ATOMIC_RELEASE);
    return true;
}

void control_forget(const void *owner)
{
    for (unsigned i = 0; i < METRONOME_RING_ENTRIES; i++)
        if (pending[i].owner == owner)
            pending[i].done = NULL;
}

void control_receive(void)
{
    uint32_t consumed = completions->ring.consumed;

    while (__atomic_load_n(&completions->ring.produced, __ATOMIC_ACQUIRE) != consumed) {
        struct metronome_completion c = completions->entry[consumed % METRONOME_RING_ENTRIES];
        struct pending *p = &pending[c.sequence % METRONOME_RING_ENTRIES];

        __atomic_store_n(&completions->ring.consumed, ++consumed, __ATOMIC_RELEASE);
        if (!p->used || p->sequence != c.sequence)
            continue;
        p->used = false;
        if (p->done)
            p->done(p->owner, c.status);
    }
}
