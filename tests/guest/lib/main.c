#include "guest.h"

extern uint32_t boot_magic, boot_info;
void guest_start(void);

static const char *command_line(void)
{
    const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;
    return boot_magic == 0x2badb002 && (info[0] & 4) ? (const char *)(uintptr_t)info[4] : "";
}

/* What follows `name` where it stands as a word, or NULL. */
static const char *find_option(const char *name)
{
    const char *p = command_line();
    size_t n = strlen(name);
    for (const char *word = p; *p; p++) {
        if (p[0] == ' ') {
            word = p + 1;
            continue;
        }
        if (p == word && !memcmp(p, name, n) && (!p[n] || p[n] == ' ' || p[n] == '='))
            return p + n;
    }
    return NULL;
}

bool option(const char *name)
{
    return find_option(name) != NULL;
}

uint64_t option_number(const char *name, uint64_t otherwise)
{
    const char *p = find_option(name);
    uint64_t v = 0;
    if (!p || *p != '=')
        return otherwise;
    while (*++p >= '0' && *p <= '9')
        v = v * 10 + (uint64_t)(*p - '0');
    return v;
}

bool on_metronome(void)
{
    struct cpuid c = cpuid(1, 0), h;
    if (!(c.ecx >> 31))
        return false;
    h = cpuid(0x40000000, 0);
    return !(h.ebx == 0x54474354 /* "TCGT" */ || h.ebx == 0x4b4d564b /* "KVMK" */);
}

static uint8_t spare_page[4096] __attribute__((aligned(4096)));

bool test_page_is_emulated(void)
{
    volatile uint64_t *p = (volatile uint64_t *)TEST_PAGE;
    *p = 0x1122334455667788;
    return *p == 0x1122334455667788;
}

uint8_t *test_page(void)
{
    return test_page_is_emulated() ? (uint8_t *)TEST_PAGE : spare_page;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memset(void *to, int byte, size_t n)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

void sort(int64_t *values, unsigned n)
{
    for (unsigned gap = n / 2; gap; gap /= 2)
        for (unsigned i = gap; i < n; i++)
            for (unsigned j = i; j >= gap && values[j - gap] > values[j]; j -= gap) {
                int64_t t = values[j];
                values[j] = values[j - gap];
                values[j - gap] = t;
            }
}

int64_t permille(const int64_t *sorted, unsigned n, unsigned part)
{
    return sorted[(n * part + 999) / 1000 - 1];
}

uint64_t random64(void)
{
    static uint64_t s = 0x9e3779b97f4a7c15;
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return s;
}

uint32_t random32(void)
{
    return (uint32_t)(random64() >> 20);
}

void trap_init(void);

void guest_start(void)
{
    strict = option("strict");
    trap_init();
    acpi_init();
    pic_init();
    apic_enable();
    time_init();
    guest_main();
    guest_end();
}
