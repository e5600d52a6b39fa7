/* The RTC's interrupts, each at its tick since the divider chain was released (MC146818A: divider control, rates). */
#include "ticks.h"

#define RTC_HZ 32768u
#define AT_RELEASE (RTC_HZ / 2 + 8) /* the update begins, 8 ticks after UIP went up, half a second after the release */
#define UPDATE_ENDS 73u             /* UIP 8 ticks before the update, which takes 65 (1,984 us) */
enum { A = 10, B = 11, C = 12, D = 13, A_RESET = 0x70, A_RUN = 0x20, B_SET = 0x80, B_24H = 2, C_IRQF = 0x80 };

static unsigned flags_seen, flags_wanted, flags_wrong;

static void read_c(void)
{
    flags_seen = cmos_read(C);
    flags_wrong += (flags_seen & flags_wanted) != flags_wanted;
}

struct train rtc_train(const char *name, uint64_t at, uint64_t period)
{
    while (at <= AT_RELEASE)
        at += period;
    return (struct train){.name = name, .hz_num = RTC_HZ, .hz_den = 1, .first = at - AT_RELEASE, .period = period, .early = 1,
                          .acknowledge = read_c};
}

void rtc_start(struct train *t, uint8_t rate, uint8_t enables)
{
    cmos_write(A, A_RESET | rate);
    cmos_read(C); /* first: a flag that is up would raise IRQ 8 with its enable */
    cmos_write(B, B_24H | enables);
    flags_wanted = C_IRQF | enables;
    flags_wrong = 0;
    t->begin = rdtsc();
    cmos_write(A, A_RUN | rate);
    t->end = rdtsc();
}

/* `count` interrupts, each with its flag in register C. */
static void run(struct train t, enum path path, uint8_t rate, uint8_t enables, uint64_t count)
{
    train_on_isa(&t, 8, path);
    rtc_start(&t, rate, enables);
    trains_run(&t, 1, train_after(&t, count));
    check(flags_wrong == 0, t.name, "register C without the flag %u times, at last 0x%x", flags_wrong, flags_seen);
}

/* The rate select bits with their periods in ticks of 1/32768 s: 1 and 2 are the slow ends of a higher time base. */
static void test_periodic(enum path path)
{
    static const struct {
        const char *name;
        unsigned period;
    } rates[16] = {
        [1] = {"rtc: rate 1, 256 Hz", 128},    [2] = {"rtc: rate 2, 128 Hz", 256},    [3] = {"rtc: rate 3, 8192 Hz", 4},
        [4] = {"rtc: rate 4, 4096 Hz", 8},     [5] = {"rtc: rate 5, 2048 Hz", 16},    [6] = {"rtc: rate 6, 1024 Hz", 32},
        [7] = {"rtc: rate 7, 512 Hz", 64},     [8] = {"rtc: rate 8, 256 Hz", 128},    [9] = {"rtc: rate 9, 128 Hz", 256},
        [10] = {"rtc: rate 10, 64 Hz", 512},   [11] = {"rtc: rate 11, 32 Hz", 1024},  [12] = {"rtc: rate 12, 16 Hz", 2048},
        [13] = {"rtc: rate 13, 8 Hz", 4096},   [14] = {"rtc: rate 14, 4 Hz", 8192},   [15] = {"rtc: rate 15, 2 Hz", 16384},
    };
    for (uint8_t rate = 1; rate < 16; rate++) {
        unsigned period = rates[rate].period;
        run(rtc_train(rates[rate].name, period / 2, period), path, rate, RTC_PIE, RTC_HZ / period);
    }
}

/* Register C not read, IRQF stays up and no further edge comes; read, the next one does. */
static void test_unacknowledged(enum path path)
{
    struct train t = rtc_train("rtc: one until register C is read", 16, 32);
    t.acknowledge = NULL;
    train_on_isa(&t, 8, path);
    rtc_start(&t, 6, RTC_PIE);
    run_us(20000);
    check(t.came == 1, t.name, "%lu interrupts", t.came);
    cmos_read(C);
    run_us(20000);
    check(t.came == 2, "rtc: register C read, the next one comes", "%lu interrupts", t.came);
    quiet();
}

/* The clock at 23:59:57 on 28 February 2024, and an alarm; 0xff is any. */
static void set_alarm(uint8_t hour, uint8_t minute, uint8_t second, uint8_t day)
{
    const uint8_t values[][2] = {{0, 0x57}, {2, 0x59}, {4, 0x23}, {6, 4}, {7, 0x28}, {8, 2}, {9, 0x24}, {0x32, 0x20}, {1, second},
                                 {3, minute}, {5, hour}, {D, day}};
    cmos_write(B, B_SET | B_24H);
    for (unsigned i = 0; i < sizeof(values) / 2; i++)
        cmos_write(values[i][0], values[i][1]);
}

/* Each update counts a second on: the third one reaches midnight. */
static void test_alarm(enum path path)
{
    static const struct {
        const char *name;
        uint8_t hour, minute, second, day;
        uint64_t first_update, period_s, count;
    } alarms[] = {
        {"rtc: alarm in each second", 0xff, 0xff, 0xff, 0, 1, 1, 5},
        {"rtc: alarm in each minute", 0xff, 0xff, 0, 0, 3, 60, 3},
        {"rtc: alarm in each hour", 0xff, 0, 0, 0, 3, 3600, 2},
        {"rtc: alarm at midnight", 0, 0, 0, 0, 3, 3600, 1}, /* and not an hour later */
        {"rtc: alarm in each second of the 29th", 0xff, 0xff, 0xff, 0x29, 3, 1, 5},
    };
    for (unsigned i = 0; i < sizeof(alarms) / sizeof(alarms[0]); i++) {
        if (alarms[i].period_s > 1 && !strict)
            continue; /* only exact time runs ahead while we wait */
        set_alarm(alarms[i].hour, alarms[i].minute, alarms[i].second, alarms[i].day);
        uint64_t first = UPDATE_ENDS + alarms[i].first_update * RTC_HZ, period = alarms[i].period_s * RTC_HZ;
        run(rtc_train(alarms[i].name, first, period), path, 0, RTC_AIE, alarms[i].count);
    }
}

void test_rtc(enum path path)
{
    test_periodic(path);
    test_unacknowledged(path);
    run(rtc_train("rtc: update ended", UPDATE_ENDS, RTC_HZ), path, 0, RTC_UIE, 5);
    test_alarm(path);
}
