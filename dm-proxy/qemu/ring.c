/*
 * Commands to the hypervisor. QEMU calls from several threads (they hold its big lock, but that is its affair), so the
 * producing side has a lock of its own.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "dm.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t next_sequence = 1;

static void write_doorbell(void)
{
    uint64_t one = 1;

    while (write(dm.options.ring_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/*
 * The doorbell costs a system call here and an exit there, so it is rung only when the hypervisor says that it waits.
 * The full fence orders our production before our look at its flag; the hypervisor sets the flag, fences and looks
 * again.
 */
void dm_ring(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&dm.notify->hypervisor_waits, __ATOMIC_RELAXED))
        write_doorbell();
}

static uint64_t patience_ends(void)
{
    return dm_now_ms() + 1000ull * dm.options.patience_s;
}

/* Sleeps until the hypervisor may have moved; false when patience ends. */
static bool wait_a_little(uint64_t deadline)
{
    struct pollfd p = {.fd = dm.options.wait_fd, .events = POLLIN};

    if (dm_now_ms() >= deadline)
        return false;
    if (poll(&p, 1, 1) > 0)
        dm_absorb_doorbell();
    return true;
}

static bool ring_is_full(void)
{
    uint32_t consumed = __atomic_load_n(&dm.commands->ring.consumed, __ATOMIC_ACQUIRE);

    return dm.commands->ring.produced - consumed >= METRONOME_RING_ENTRIES;
}

static void wait_for_room(void)
{
    uint64_t deadline;

    if (!ring_is_full())
        return;
    write_doorbell();
    for (deadline = patience_ends(); ring_is_full();)
        if (!wait_a_little(deadline))
            dm_fatal("the hypervisor has not taken a command for %u s: giving up", dm.options.patience_s);
    dm_return_doorbell();
}

static void produce(const struct metronome_command *command)
{
    uint32_t at = dm.commands->ring.produced;

    wait_for_room();
    dm.commands->entry[at % METRONOME_RING_ENTRIES] = *command;
    __atomic_store_n(&dm.commands->ring.produced, at + 1, __ATOMIC_RELEASE);
}

void dm_send(uint32_t op, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
    struct metronome_command command = {.op = op, .args = {a0, a1, a2, a3}};

    pthread_mutex_lock(&lock);
    command.sequence = next_sequence++;
    produce(&command);
    if (!dm.in_request)
        dm_ring();
    pthread_mutex_unlock(&lock);
}

/* Takes completions until the one of `sequence` comes; those of commands that nobody waits for are passed over. */
static bool take_completion(uint32_t sequence, struct metronome_completion *out)
{
    struct metronome_ring *ring = &dm.completions->ring;
    uint32_t produced = __atomic_load_n(&ring->produced, __ATOMIC_ACQUIRE);

    if (produced - ring->consumed > METRONOME_RING_ENTRIES)
        dm_fatal("the completion ring is corrupt");
    while (ring->consumed != produced) {
        *out = dm.completions->entry[ring->consumed % METRONOME_RING_ENTRIES];
        __atomic_store_n(&ring->consumed, ring->consumed + 1, __ATOMIC_RELEASE);
        if (out->sequence == sequence)
            return true;
    }
    return false;
}

int dm_ask(uint32_t op, uint64_t a0, uint64_t a1, uint64_t *value)
{
    struct metronome_command command = {.op = op, .flags = METRONOME_COMMAND_COMPLETE, .args = {a0, a1}};
    struct metronome_completion completion;
    uint64_t deadline = patience_ends();

    pthread_mutex_lock(&lock);
    command.sequence = next_sequence++;
    produce(&command);
    dm_ring();
    while (!take_completion(command.sequence, &completion))
        if (!wait_a_little(deadline))
            dm_fatal("the hypervisor has not answered command %u for %u s: giving up", op, dm.options.patience_s);
    dm_return_doorbell();
    pthread_mutex_unlock(&lock);
    if (value)
        *value = completion.value;
    return completion.status;
}
