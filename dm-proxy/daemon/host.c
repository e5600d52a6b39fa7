#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/host.h"

static uint64_t meminfo(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    unsigned long long kib = 0;
    char line[128];

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), ": %llu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib << 10;
}

uint64_t host_memory_bytes(void)
{
    return meminfo("MemTotal");
}

uint64_t host_available_bytes(void)
{
    return meminfo("MemAvailable");
}

unsigned host_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static bool kvm_amd_nests(void)
{
    FILE *f = fopen("/sys/module/kvm_amd/parameters/nested", "re");
    int c = f ? fgetc(f) : EOF;

    if (f)
        fclose(f);
    return c == '1' || c == 'Y' || c == 'y';
}

/* CPUID 0x80000001 ECX bit 2. The module parameter says what KVM would do, this what the machine below it allows. */
static bool kvm_shows_svm(int kvm)
{
    enum { ENTRIES = 256 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + ENTRIES * sizeof cpuid->entries[0]);
    bool shown = false;

    if (!cpuid)
        return false;
    cpuid->nent = ENTRIES;
    if (!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
        for (unsigned i = 0; i < cpuid->nent; i++)
            if (cpuid->entries[i].function == 0x80000001)
                shown = cpuid->entries[i].ecx & 4;
    free(cpuid);
    return shown;
}

bool host_nested_svm(void)
{
    int kvm = kvm_amd_nests() ? open("/dev/kvm", O_RDWR | O_CLOEXEC) : -1;
    bool works = kvm >= 0 && ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION && kvm_shows_svm(kvm);

    if (kvm >= 0)
        close(kvm);
    return works;
}

uint64_t slot_bytes(void)
{
    const char *given = getenv("METRONOME_SLOT_MIB");
    uint64_t wanted = given && *given ? strtoull(given, NULL, 0) << 20
                                      : host_memory_bytes() + SLOT_EXTRA_BYTES + METRONOME_DOMAIN_ARENA;
    uint64_t bytes = 512ull << 20;

    while (bytes < wanted && bytes < 1ull << 36)
        bytes <<= 1;
    return bytes;
}

uint64_t slot_largest_guest(void)
{
    return slot_bytes() - SLOT_EXTRA_BYTES - METRONOME_DOMAIN_ARENA;
}
