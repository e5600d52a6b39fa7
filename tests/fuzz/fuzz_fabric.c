/*
 * Fuzzes the whole interrupt fabric: two twin domains under the real HVM core, driven by the input, of which one is saved
 * and restored wherever the input says so. tests/unit/fabric_machine.h has the machine, the operations and the
 * properties; the first operation makes the domains, each further eight bytes are a step.
 */
#include "../unit/fabric_machine.h"

static void violated(const char *what, const char *condition)
{
    fprintf(stderr, "PROPERTY: %s: %s\n", what, condition);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct operation o;

    if (size < sizeof(o))
        return 0;
    memcpy(&o, data, sizeof(o));
    fabric_begin(&o);
    for (size_t at = sizeof(o); at + sizeof(o) <= size; at += sizeof(o)) {
        memcpy(&o, data + at, sizeof(o));
        if (!fabric_step(&o))
            break;
    }
    fabric_end();
    return 0;
}
