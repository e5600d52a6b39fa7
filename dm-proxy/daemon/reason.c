#include <stdbool.h>
#include <stdio.h>

#include "daemon/protocol.h"
#include "daemon/reason.h"

static const struct {
    int status;
    const char *text;
    bool tells; /* the hypervisor's message is said, too */
} reasons[] = {
    [METRONOME_END_NONE] = {EXIT_INTERNAL, "the guest ended without a reason", true},
    [METRONOME_END_POWEROFF] = {EXIT_ENDED, "the guest switched itself off", false},
    [METRONOME_END_REBOOT] = {EXIT_ENDED, "the guest restarted, which it cannot without a device model", false},
    [METRONOME_END_TRIPLE_FAULT] = {EXIT_CRASH, "the guest crashed: triple fault", true},
    [METRONOME_END_CRASH] = {EXIT_CRASH, "the guest crashed", true},
    [METRONOME_END_DM] = {EXIT_INTERNAL, "the device model broke the protocol", true},
};

int reason_text(const struct metronome_slot_status *s, char *text, size_t size)
{
    unsigned reason = s->reason < sizeof reasons / sizeof reasons[0] ? s->reason : METRONOME_END_NONE;
    bool tells = reasons[reason].tells && s->message[0];

    if (s->reason == METRONOME_END_EXIT) {
        snprintf(text, size, "the guest ended with code %u", s->code);
        return s->code ? EXIT_CRASH : EXIT_ENDED;
    }
    snprintf(text, size, "%s%s%.190s", reasons[reason].text, tells ? ": " : "", tells ? s->message : "");
    return reasons[reason].status;
}
