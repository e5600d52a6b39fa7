/* MC146818: time, update cycle, periodic, update and alarm interrupts on IRQ 8, CMOS RAM. */
#include "devices.h"

#define V8 (PIC_BASE + 8)
enum { A = 10, B = 11, C = 12, D = 13 };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 4, B_24H = 2 };

static void begin(void)
{
    quiet();
    apic_write(APIC_LVT_LINT0, 0x700);
    count_vector(V8, EOI_PIC);
    cmos_write(B, B_24H);
    cmos_read(C);
    pic_mask(0xfefb);
}

static uint8_t bcd(uint8_t v)
{
    return (uint8_t)(v / 10 << 4 | v % 10);
}

/* A second, with no update in progress. */
static uint8_t second(void)
{
    uint8_t a, b;
    do {
        a = cmos_read(0);
        b = cmos_read(0);
    } while (a != b);
    return a;
}

static void test_registers(void)
{
    begin();
    equal("rtc: the battery is good", cmos_read(D), 0x80);
    for (unsigned i = 0x40; i < 0x44; i++)
        cmos_write((uint8_t)i, (uint8_t)(i * 3));
    bool same = true;
    for (unsigned i = 0x40; i < 0x44; i++)
        same &= cmos_read((uint8_t)i) == (uint8_t)(i * 3);
    check(same, "rtc: CMOS RAM keeps its bytes", "it does not");
    cmos_write(A, 0x26);
    equal("rtc: register A reads back", cmos_read(A) & 0x7f, 0x26);
    uint8_t s = second();
    check((s & 15) < 10 && s < 0x60, "rtc: seconds in BCD", "0x%x", s);
    cmos_write(B, B_24H | B_BINARY);
    s = second();
    check(s < 60, "rtc: seconds in binary", "%u", s);
    cmos_write(B, B_24H);
}

static void test_set(void)
{
    static const uint8_t time[] = {0, 0x59, 2, 0x59, 4, 0x23, 7, 0x28, 8, 0x02, 9, 0x24};
    begin();
    cmos_write(B, B_SET | B_24H);
    for (unsigned i = 0; i < sizeof(time); i += 2)
        cmos_write(time[i], time[i + 1]);
    delay_us(1000);
    equal("rtc: SET stops the clock", cmos_read(0), 0x59);
    cmos_write(B, B_24H | B_UIE);
    cmos_read(C);
    check(wait_hits(V8, 1, 3000), "rtc: the update ends", "no interrupt");
    equal("rtc: update-ended flag", cmos_read(C) & 0x90, 0x90);
    if (second() == 0) {
        equal("rtc: midnight: hours", cmos_read(4), 0);
        equal("rtc: into 29 February of a leap year", cmos_read(7), 0x29);
        equal("rtc: the month stays", cmos_read(8), 2);
    } else {
        check(false, "rtc: midnight", "second 0x%x", cmos_read(0));
    }
    cmos_write(B, B_24H);
    cmos_read(C);
}

static void test_12_hours(void)
{
    begin();
    cmos_write(B, B_SET);
    cmos_write(4, 0x81); /* 1 pm */
    cmos_write(B, 0);
    equal("rtc: 12-hour mode keeps the PM bit", cmos_read(4), 0x81);
    cmos_write(B, B_24H);
}

static void test_periodic(void)
{
    uint64_t start;
    begin();
    cmos_write(A, 0x26); /* 1024 Hz */
    cmos_write(B, B_24H | B_PIE);
    cmos_read(C);
    if (check(wait_hits(V8, 1, 500), "rtc: the periodic interrupt comes", "no interrupt")) {
        equal("rtc: periodic flag", cmos_read(C) & 0xc0, 0xc0);
        cmos_write(A, 0x2f); /* 2 Hz: the next one is far */
        cmos_read(C);
        equal("rtc: reading C clears it", cmos_read(C) & 0xf0, 0);
        cmos_write(A, 0x26);
        cmos_read(C);
        hits[V8] = 0;
        wait_hits(V8, 1, 500);
        cmos_read(C);
        start = hit_tsc[V8];
        unsigned n = 1;
        while (n < 65 && rdtsc() - start < us(2000000)) {
            wait_hits(V8, n + 1, 100);
            n = hits[V8];
            cmos_read(C);
        }
        between("rtc: 64 periods at 1024 Hz", hit_tsc[V8] - start, 62500);
    }
    hits[V8] = 0;
    run_us(5000);
    check(hits[V8] <= 1, "rtc: no more until C is read", "%u interrupts", hits[V8]);
    cmos_write(B, B_24H);
    cmos_read(C);
}

static void test_update(void)
{
    uint64_t start;
    begin();
    cmos_write(B, B_24H | B_UIE);
    cmos_read(C);
    check(wait_hits(V8, 1, 2500), "rtc: the update interrupt comes", "no interrupt");
    start = hit_tsc[V8];
    cmos_read(C);
    check(wait_hits(V8, 2, 2500), "rtc: and again", "no interrupt");
    between("rtc: a second is a second", hit_tsc[V8] - start, 1000000);
    /* UIP shows for 2 ms in each second; a busy host may have us miss some of them. */
    bool seen = false;
    start = rdtsc();
    while (rdtsc() - start < us(8000000) && !(seen = cmos_read(A) & 0x80))
        delay_us(200);
    if (differs_on_qemu("rtc: UIP", "not always shown"))
        return;
    check(seen, "rtc: UIP shows the update", "never set");
    uint64_t up = rdtsc();
    while (rdtsc() - up < us(100000) && (cmos_read(A) & 0x80))
        delay_us(200);
    check(!(cmos_read(A) & 0x80) || rdtsc() - up > us(10000), "rtc: UIP ends", "still set");
    cmos_write(B, B_24H);
    cmos_read(C);
}

static void test_alarm(void)
{
    begin();
    uint8_t s = second();
    uint8_t next = (uint8_t)(((s >> 4) * 10 + (s & 15) + 2) % 60);
    cmos_write(1, bcd(next));
    cmos_write(3, 0xff);
    cmos_write(5, 0xff);
    cmos_write(B, B_24H | B_AIE);
    cmos_read(C);
    check(wait_hits(V8, 1, 4000), "rtc: the alarm comes, wildcards match", "no interrupt");
    equal("rtc: alarm flag", cmos_read(C) & 0xa0, 0xa0);
    equal("rtc: at its second", second(), bcd(next));
    cmos_write(B, B_24H);
    cmos_read(C);
}

void test_rtc(void)
{
    test_registers();
    test_set();
    test_12_hours();
    test_periodic();
    test_update();
    test_alarm();
}
