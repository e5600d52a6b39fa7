/*
 * INIT and SIPI (SDM 3A 9.4, 11.4.7.3; APM 2 14.1.3) at a second CPU that waits, halts, runs, or is in the middle of
 * device accesses: each time it stops, and starts again in the state of a reset, at the vector's page.
 */
#include "guest.h"

#define NOTES   0x600u  /* where the CPU writes what it finds */
#define MARK    0x500u  /* read through FS: which base has it? */
#define OLD_FS  0x2000u

extern const char ap_start[], ap_end[];

__asm__(".pushsection .text\n"
        ".code16\n"
        "ap_start:\n\t"
        "mov %cs, %ax\n\t"
        "mov %ax, 0x608\n\t"
        "mov %fs:0x500, %eax\n\t"
        "mov %eax, 0x604\n\t"
        "mov %cr0, %eax\n\t"
        "mov %eax, 0x60c\n\t"
        "mov $0x2000, %ax\n\t"
        "mov %ax, %fs\n\t"
        "mov 0x610, %bl\n\t" /* what it is to do then */
        "incl 0x600\n\t"
        "cmp $1, %bl\n\t"
        "je 2f\n\t"
        "cmp $2, %bl\n\t"
        "je 3f\n"
        "1: incl 0x600\n\t"
        "jmp 1b\n"
        "2: cli\n\t"
        "hlt\n\t"
        "jmp 2b\n"
        "3: in $0x71, %al\n\t"
        "incl 0x600\n\t"
        "jmp 3b\n"
        "ap_end:\n"
        ".code64\n"
        ".popsection\n");

static bool moves(void)
{
    uint32_t before = *word(NOTES);

    for (unsigned i = 0; i < 200; i++) {
        delay_us(1000);
        if (*word(NOTES) != before)
            return true;
    }
    return false;
}

static bool started(void)
{
    for (unsigned i = 0; i < 200 && !*word(NOTES); i++)
        delay_us(1000);
    return *word(NOTES);
}

static bool stands(void)
{
    uint32_t before;

    delay_us(20000);
    before = *word(NOTES);
    delay_us(50000);
    return *word(NOTES) == before;
}

static void init_other(void)
{
    apic_icr(1, ICR_INIT);
    delay_us(10000);
}

static void start_other(uint8_t then)
{
    *word(NOTES) = *word(NOTES + 4) = *word(NOTES + 8) = 0;
    *word(0x610) = then;
    apic_icr(1, ICR_SIPI);
}

static void from(const char *name, uint8_t then)
{
    char stops[64], starts[64], state[64];
    unsigned n = (unsigned)strlen(name);

    memcpy(stops, name, n + 1), memcpy(starts, name, n + 1), memcpy(state, name, n + 1);
    memcpy(stops + n, "_is_stopped_by_init", 20);
    memcpy(starts + n, "_starts_by_sipi", 16);
    memcpy(state + n, "_state_is_reset", 16);
    init_other();
    check(stands(), stops, "it goes on");
    start_other(then);
    check(started(), starts, "it does not start");
    check(*word(NOTES + 4) == 0x11111111 && (uint16_t)*word(NOTES + 8) == START >> 4 && !(*word(NOTES + 12) & 1), state,
          "FS finds %x, CS %x, CR0 %x", *word(NOTES + 4), *word(NOTES + 8), *word(NOTES + 12));
}

void guest_main(void)
{
    apic_enable();
    place_start(ap_start, ap_end);
    *word(MARK) = 0x11111111;
    *word(OLD_FS * 16 + MARK) = 0x22222222;
    from("waiting", 0);
    from("running", 1);
    from("halted", 2);
    from("port", 0);
    start_other(0);
    check(moves(), "sipi_while_running_is_ignored", "it stopped");
    check(*word(NOTES + 4) == 0, "sipi_while_running_starts_nothing", "it started again");
    init_other();
    check(stands(), "stopped_at_the_end", "it goes on");
}
