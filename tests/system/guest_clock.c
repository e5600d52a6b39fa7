/*
 * Runs in a Linux guest: its clock against the RTC's seconds, and the RTC's interrupts as /dev/rtc0 hands them on. One line
 * each, of what was seen; whoever started it judges.
 *
 *   guest_clock SECONDS
 *     time N LEAST MOST ASLEEP   N seconds of the RTC were between LEAST and MOST ns of CLOCK_MONOTONIC; of them it slept
 *                                all but 0.1 s, which took ASLEEP ns
 *     alarm FLAGS N              an alarm two seconds ahead came with these flags, N seconds after
 *     update COUNT NS            so many update interrupts in this time
 *     periodic COUNT NS          so many at 64 Hz
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int rtc;

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static time_t rtc_second(struct rtc_time *t)
{
    struct tm tm;
    must(ioctl(rtc, RTC_RD_TIME, t), "RTC_RD_TIME");
    memcpy(&tm, t, sizeof(*t)); /* the first nine fields are the same */
    return timegm(&tm);
}

/* Waits for a new second: it began between *before and *after. */
static time_t edge(int64_t *before, int64_t *after)
{
    static const struct timespec ms = {0, 1000000};
    struct rtc_time t;
    time_t old = rtc_second(&t), now;
    do {
        *before = monotonic_ns();
        nanosleep(&ms, NULL);
        now = rtc_second(&t);
        *after = monotonic_ns();
    } while (now == old);
    return now;
}

static void keep_time(long seconds)
{
    int64_t before[2], after[2], slept;
    struct timespec span = {seconds - 1, 900000000};
    time_t first = edge(&before[0], &after[0]), last;

    slept = monotonic_ns();
    while (nanosleep(&span, &span)) {
    }
    slept = monotonic_ns() - slept;
    do
        last = edge(&before[1], &after[1]);
    while (last < first + seconds);
    printf("time %ld %lld %lld %lld\n", (long)(last - first), (long long)(before[1] - after[0]),
           (long long)(after[1] - before[0]), (long long)slept);
}

/* What the device has to say within ten seconds: a count and the flags of register C. */
static unsigned long interrupt(const char *what)
{
    struct pollfd ready = {rtc, POLLIN, 0};
    unsigned long data = 0;

    if (poll(&ready, 1, 10000) != 1) {
        printf("%s: no interrupt\n", what);
        exit(1);
    }
    must((int)read(rtc, &data, sizeof(data)), what);
    return data;
}

static void alarm_ahead(void)
{
    struct rtc_wkalrm alarm = {.enabled = 1};
    struct rtc_time t;
    time_t now = rtc_second(&t), then = now + 2;
    struct tm *tm = gmtime(&then);
    unsigned long data;

    memcpy(&alarm.time, tm, sizeof(alarm.time));
    must(ioctl(rtc, RTC_WKALM_SET, &alarm), "RTC_WKALM_SET");
    data = interrupt("alarm");
    printf("alarm %#lx %ld\n", data & 0xff, (long)(rtc_second(&t) - now));
}

static void count(const char *what, unsigned long on, unsigned long off, unsigned long wanted)
{
    unsigned long came = 0;
    int64_t start;

    must(ioctl(rtc, on, 0), what);
    interrupt(what);
    start = monotonic_ns();
    while (came < wanted)
        came += interrupt(what) >> 8;
    printf("%s %lu %lld\n", what, came, (long long)(monotonic_ns() - start));
    must(ioctl(rtc, off, 0), what);
}

int main(int argc, char **argv)
{
    rtc = open("/dev/rtc0", O_RDONLY);
    must(rtc, "/dev/rtc0");
    keep_time(argc > 1 ? atol(argv[1]) : 10);
    alarm_ahead();
    count("update", RTC_UIE_ON, RTC_UIE_OFF, 3);
    must(ioctl(rtc, RTC_IRQP_SET, 64), "RTC_IRQP_SET");
    count("periodic", RTC_PIE_ON, RTC_PIE_OFF, 64);
    return 0;
}
