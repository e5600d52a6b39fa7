/*
 * Fuzzes one device model. An input is a program: records of eight bytes, each one operation (step.h). libFuzzer writes
 * the input of a failure to a file: `build/fuzz/fuzz_NAME FILE` runs it again and prints each step with FUZZ_TRACE=1.
 */
#include <string.h>
#include "step.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct operation o = {0};
    struct run r = {0};

    if (size < sizeof(o))
        return 0;
    memcpy(&o, data, sizeof(o));
    r.now = r.latest = real_time(value_of(&o, 0));
    r.state = memset(malloc(model.size), 0xa5, model.size);
    model.reset(r.state, r.now, o.argument, o.size & 1 ? value_of(&o, r.now) : o.value >> 16);
    EXPECT(model.check(r.state), "check holds after reset");
    for (size_t at = sizeof(o); at + sizeof(o) <= size; at += sizeof(o)) {
        memcpy(&o, data + at, sizeof(o));
        step(&r, &o);
    }
    free(r.restored);
    free(r.state);
    return 0;
}
