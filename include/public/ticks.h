/*
 * Missed ticks: the periodic sources, what can become of the ticks that a guest has missed, and the account of them. The
 * lists make the enumerations and the names that commands and tables use.
 */
#ifndef METRONOME_PUBLIC_TICKS_H
#define METRONOME_PUBLIC_TICKS_H

#include "abi.h"

/* X(NAME, key, text) */
#define METRONOME_TICK_SOURCES(X) \
    X(PIT, "pit", "PIT, channel 0") \
    X(RTC, "rtc", "RTC, periodic") \
    X(HPET, "hpet", "HPET comparators") \
    X(LAPIC, "lapic", "local APIC timers")

/* X(NAME, key): a tick is missed that comes due while the one before it has not been taken. */
#define METRONOME_TICK_POLICIES(X) \
    X(DEFAULT, "default")          /* PIT and local APIC timers burst, RTC and HPET drop */ \
    X(CATCH_UP, "catch-up")        /* missed ticks follow, at up to METRONOME_CATCH_UP_RATE times the programmed rate */ \
    X(BURST, "burst")              /* missed ticks follow, each as soon as the one before it has been taken */ \
    X(ONE_PENDING, "one-pending")  /* one follows for all that were missed */ \
    X(DROP, "drop")                /* missed ticks vanish, as they do in the chips */

#define X(name, key, text) METRONOME_TICKS_OF_##name,
enum metronome_tick_source { METRONOME_TICK_SOURCES(X) METRONOME_TICK_SOURCE_COUNT };
#undef X
#define X(name, key) METRONOME_TICKS_##name,
enum metronome_tick_policy { METRONOME_TICK_POLICIES(X) METRONOME_TICK_POLICY_COUNT };
#undef X

#define METRONOME_CATCH_UP_RATE 4u

/* A domain's choice: 4 bits per source, enum metronome_tick_policy, from bit 4 * enum metronome_tick_source. */
#define METRONOME_TICKS_SHIFT(source) (4 * (source))

/*
 * due = delivered + collapsed + dropped + owed + pending, at any time.
 */
struct metronome_ledger {
    uint64_t due;       /* ticks whose time has come while the source's interrupt was enabled */
    uint64_t delivered; /* taken by the guest: the CPU acknowledged the interrupt; RTC and level HPET: the flag was cleared */
    uint64_t collapsed; /* missed, and merged into one that follows (one-pending) */
    uint64_t dropped;   /* vanished: missed and not to follow, or lost on the way to a CPU that was not there to take it */
    uint64_t owed;      /* missed, and to follow */
    uint64_t pending;   /* signalled and not taken yet: 0 or 1 for one timer */
};
METRONOME_ABI_SIZE(struct metronome_ledger, 48);

static inline int metronome_ticks_valid(uint32_t ticks)
{
    for (unsigned i = 0; i < METRONOME_TICK_SOURCE_COUNT; i++)
        if ((ticks >> METRONOME_TICKS_SHIFT(i) & 15) >= METRONOME_TICK_POLICY_COUNT)
            return 0;
    return ticks >> METRONOME_TICKS_SHIFT(METRONOME_TICK_SOURCE_COUNT) == 0;
}

/* The index of the name that text begins with, up to the character `end` or the text's own end; -1: there is none. */
static inline int metronome_ticks_name(const char *const *names, int count, const char *text, char end)
{
    for (int i = 0; i < count; i++) {
        int n = 0;

        while (names[i][n] && names[i][n] == text[n])
            n++;
        if (!names[i][n] && (!text[n] || text[n] == end))
            return i;
    }
    return -1;
}

static const char *const metronome_tick_source_keys[] = {
#define X(name, key, text) key,
    METRONOME_TICK_SOURCES(X)
#undef X
};
static const char *const metronome_tick_policy_keys[] = {
#define X(name, key) key,
    METRONOME_TICK_POLICIES(X)
#undef X
};

/* Takes one word SOURCE=POLICY, or several with commas between them, into *ticks. Returns where it goes wrong, or NULL. */
static inline const char *metronome_ticks_parse(const char *text, uint32_t *ticks)
{
    for (;;) {
        const char *word = text;
        int source = metronome_ticks_name(metronome_tick_source_keys, METRONOME_TICK_SOURCE_COUNT, text, '='), policy;

        while (*text && *text != '=' && *text != ',')
            text++;
        if (source < 0 || *text != '=')
            return word;
        policy = metronome_ticks_name(metronome_tick_policy_keys, METRONOME_TICK_POLICY_COUNT, ++text, ',');
        if (policy < 0)
            return text;
        *ticks &= ~(15u << METRONOME_TICKS_SHIFT(source));
        *ticks |= (uint32_t)policy << METRONOME_TICKS_SHIFT(source);
        while (*text && *text != ',')
            text++;
        if (!*text++)
            return 0;
    }
}

#endif
