#!/usr/bin/env python3
# Debian's Linux with each device as its only tick and clock source: what it is told to do without is not there, the device
# that is meant ticks and keeps the time, no other interrupts, and its clock agrees with the RTC's seconds; the RTC's alarm and
# update interrupts come through the kernel's device. Without device model and with exact time (icount), so that a busy host
# changes nothing and waiting costs nothing.
# usage: test_linux_matrix.py [WORDS...]
# limit: 600
import os
import re
import sys

from lib import *
from linux_guest import complaints

SECONDS = 60
HZ = 250  # Debian's CONFIG_HZ
TOLERANCE = 1e-4  # of Linux's own calibration and, where it counts ticks, of the whole ticks a period is made of

# Words; clock source; tick device, how it ticks and by which interrupt; the interrupt controller. A star: also in make test.
# PIT: Linux does not set it up, not even as the last timer there is, where the CPU has a TSC-deadline timer and a known rate.
# Jiffies and the TSC-deadline timer are no pair: it has no period, so Linux sets each tick behind the last one's handler.
MATRIX = """
  -                                                            ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  lapic=notscdeadline                                          ; tsc     ; lapic          one-shot LOC   ; IO-APIC
* lapic=notscdeadline highres=off nohz=off                     ; tsc     ; lapic          periodic LOC   ; IO-APIC
  highres=off                                                  ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  nohz=off                                                     ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  highres=off nohz=off                                         ; tsc     ; lapic-deadline periodic LOC   ; IO-APIC
  nox2apic                                                     ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  hpet=disable                                                 ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  hpet=force                                                   ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  clocksource=tsc                                              ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  clocksource=hpet                                             ; hpet    ; lapic-deadline one-shot LOC   ; IO-APIC
  clocksource=acpi_pm                                          ; acpi_pm ; lapic-deadline one-shot LOC   ; IO-APIC
  clocksource=jiffies lapic=notscdeadline                      ; jiffies ; lapic          periodic LOC   ; IO-APIC
  clocksource=acpi_pm notsc hpet=disable lapic=notscdeadline   ; acpi_pm ; lapic          one-shot LOC   ; IO-APIC
  clocksource=hpet notsc lapic=notscdeadline                   ; hpet    ; lapic          one-shot LOC   ; IO-APIC
  noapic                                                       ; tsc     ; lapic-deadline one-shot LOC   ; XT-PIC
  noapic highres=off nohz=off lapic=notscdeadline              ; tsc     ; lapic          periodic LOC   ; XT-PIC
  nolapic_timer                                                ; tsc     ; hpet           one-shot timer ; IO-APIC
  noapictimer                                                  ; tsc     ; hpet           one-shot timer ; IO-APIC
* nolapic_timer clocksource=hpet notsc                         ; hpet    ; hpet           one-shot timer ; IO-APIC
  nolapic_timer clocksource=hpet notsc highres=off nohz=off    ; hpet    ; hpet           periodic timer ; IO-APIC
  nolapic clocksource=hpet notsc                               ; hpet    ; hpet           one-shot timer ; XT-PIC
* PIT clocksource=acpi_pm notsc                                ; acpi_pm ; pit            one-shot timer ; IO-APIC
  PIT clocksource=acpi_pm notsc nohz=off highres=off           ; acpi_pm ; pit            periodic timer ; IO-APIC
  PIT clocksource=jiffies notsc                                ; jiffies ; pit            periodic timer ; IO-APIC
  PIT                                                          ; tsc     ; pit            one-shot timer ; IO-APIC
  PIT noapic                                                   ; tsc     ; pit            one-shot timer ; XT-PIC
* nolapic clocksource=jiffies notsc hpet=disable acpi=off      ; jiffies ; pit            periodic timer ; XT-PIC
  nolapic                                                      ; tsc     ; hpet           one-shot timer ; XT-PIC
  nolapic hpet=disable                                         ; tsc     ; pit            one-shot timer ; XT-PIC
  acpi=off                                                     ; tsc     ; pit            one-shot timer ; XT-PIC
  acpi=off noapic nolapic                                      ; tsc     ; pit            one-shot timer ; XT-PIC
* rtc_cmos.use_acpi_alarm=1 hpet=disable                       ; tsc     ; lapic-deadline one-shot LOC   ; IO-APIC
  noapic nolapic_timer                                         ; tsc     ; hpet           one-shot timer ; XT-PIC
"""

PIT = "nolapic_timer hpet=disable lapic=notscdeadline"

# A word, and what is then no clock source, event device or feature of the CPU.
ABSENT = {"nox2apic": "x2apic", "notsc": "tsc", "hpet=disable": "hpet", "acpi=off": "acpi_pm", "nolapic": "lapic",
          "nolapic_timer": "lapic", "noapictimer": "lapic", "lapic=notscdeadline": "lapic-deadline"}

ROW = """
s=/sys/devices/system/clocksource/clocksource0
echo "words $(cat /proc/cmdline)"
echo "source $(cat $s/current_clocksource)"
echo "sources $(cat $s/available_clocksource)"
sed -n 's/^flags\\s*: /flags /p' /proc/cpuinfo
sed -n -e 's/^Tick Device: mode: */mode /p' -e 's/^Clock Event Device: /device /p' /proc/timer_list
look() { echo "$1 $(cut -d' ' -f1 /proc/uptime)"; cat /proc/interrupts; }
look before
guest_clock %d
look after
echo messages
dmesg
""" % SECONDS


def initramfs():
    """The guest's, with our script and program behind it: Linux unpacks one archive after the other."""
    root = scratch.name(".root")
    os.makedirs(root + "/bin")
    subprocess.run(["gcc", "-Os", "-static", "-Wall", "-Wextra", "-Werror", ROOT + "/tests/system/guest_clock.c", "-o",
                    root + "/bin/guest_clock"], check=True)
    with open(root + "/row", "w") as f:
        f.write(ROW)
    more = subprocess.run("find . | cpio --quiet -o -H newc | gzip -1", shell=True, cwd=root, stdout=subprocess.PIPE, check=True)
    with open(BUILD + "/images/initramfs.cpio.gz", "rb") as f:
        return scratch_file(f.read() + more.stdout, ".cpio.gz")


def boot(words):
    """All that Linux prints with these words until its script is done."""
    kernel = 'vmlinuz console=ttyS0 quiet mt.quiet %s "mt.run=sh /row"' % words
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nodefaults", "-display", "none",
               "-no-reboot", "-serial", "stdio", "-icount", "shift=0,sleep=off", "-rtc", "clock=vm,base=2026-01-01",
               "-kernel", BUILD + "/metronome.elf", "-initrd", "%s/images/%s,%s" % (BUILD, kernel, boot.initramfs)]
    with Console(command, scratch.name(".log")) as guest:
        guest.expect("metronome-guest: run status 0", 60)
        return guest.output.decode("latin-1").replace("\r", "")


def need(condition, text):
    if not condition:
        raise Failure(text)


def counts(text):
    """{name: (count, controller)} of /proc/interrupts."""
    found = {}
    for number, count, rest in re.findall(r"^ *(\w+): +(\d+) +(.*)$", text, re.M):
        found[number if not number.isdigit() else rest.split()[-1]] = (int(count), rest)
    return found


class Seen:
    """What a boot printed."""

    def __init__(self, text):
        def line(name):
            return re.search("^%s (.*)$" % name, text, re.M)[1].split()

        self.words, self.sources, self.flags = line("words"), line("sources"), line("flags")
        self.source = line("source")[0]
        self.mode = ["periodic", "one-shot"][int(re.findall(r"^mode (\d)", text, re.M)[-1])]
        self.devices = re.findall(r"^device (\S+)", text, re.M)
        before, after = re.search(r"^before ([\d.]+)$", text, re.M), re.search(r"^after ([\d.]+)$", text, re.M)
        self.seconds = float(after[1]) - float(before[1])
        self.before, self.after = counts(text[before.end():after.start()]), counts(text[after.end():])
        self.time, self.update, self.periodic = ([int(n) for n in line(name)] for name in ("time", "update", "periodic"))
        self.alarm = line("alarm")
        self.messages = text[text.index("\nmessages\n"):]

    def used(self, name):
        return self.after.get(name, (0,))[0] - self.before.get(name, (0,))[0]


def check_devices(seen, words, source, device, mode, interrupt, controller):
    need(not set(words) - set(seen.words), "the command line is %s" % seen.words)
    for word in words:
        need(ABSENT.get(word) not in seen.sources + seen.devices + (seen.flags if word == "nox2apic" else []),
             "%s is there: %s, %s" % (ABSENT.get(word), seen.sources, seen.devices))
    need(seen.source == source, "the clock source is " + seen.source)
    need((seen.devices[-1], seen.mode) == (device, mode), "the tick comes from %s, %s" % (seen.devices[-1], seen.mode))
    least = HZ * seen.seconds * 0.99 if mode == "periodic" else 2 * seen.seconds
    most = HZ * seen.seconds * (1.01 if mode == "periodic" else 2)
    need(least <= seen.used(interrupt) <= most, "%d ticks in %.2f s" % (seen.used(interrupt), seen.seconds))
    other = "timer" if interrupt == "LOC" else "LOC"
    need(seen.used(other) == 0, "%d interrupts of %s" % (seen.used(other), other))
    for name in ("ttyS0", "rtc0"):
        need(controller in seen.after[name][1], "%s is %s" % (name, seen.after[name][1]))


def check_time(seen):
    n, least, most, asleep = seen.time
    need(n == SECONDS and least <= n * 1e9 * (1 + TOLERANCE) and most >= n * 1e9 * (1 - TOLERANCE) and most - least < 2.5e7,
         "%d s of the RTC are %.6f to %.6f s" % (n, least / 1e9, most / 1e9))
    longer = asleep - (SECONDS * 1000 - 100) * 10**6
    need(0 <= longer < 2e7, "a sleep took %d ns longer" % longer)


def check_rtc(seen):
    need(seen.alarm == ["0xa0", "2"], "the alarm: flags and seconds %s" % seen.alarm)
    need(seen.update[0] == 3 and abs(seen.update[1] / 1e9 - 3) < 0.01, "%d updates in %d ns" % tuple(seen.update))
    need(seen.periodic[0] == 64 and abs(seen.periodic[1] / 1e9 - 1) < 0.01, "%d at 64 Hz in %d ns" % tuple(seen.periodic))
    for name in ["rtc0"] + ["acpi"] * ("rtc_cmos.use_acpi_alarm=1" in seen.words):
        need(seen.used(name) >= 4, "%d interrupts of %s" % (seen.used(name), name))


def row(words, source, tick, controller):
    def test():
        seen = Seen(boot(words))
        device, mode, interrupt = tick.split()
        check_devices(seen, words.split(), source, device, mode, interrupt, controller)
        check_time(seen)
        check_rtc(seen)
        found = complaints(seen.messages)
        need(not found, "dmesg: " + "; ".join(found))
        return "%s %s, %d %s interrupts in %.1f s, %s; %d s of the RTC are %.4f to %.4f s; rtc0 %d" % (
            device, mode, seen.used(interrupt), interrupt, seen.seconds, source, SECONDS, seen.time[1] / 1e9, seen.time[2] / 1e9,
            seen.used("rtc0"))

    test.__name__ = words or "default"
    return test


def rows():
    for line in MATRIX.strip("\n").split("\n"):
        words, source, tick, controller = (field.strip() for field in line[2:].split(";"))
        if line[0] == "*" or os.environ.get("METRONOME_TESTS") == "long" or sys.argv[1:]:
            yield row(re.sub("^-$", "", words.replace("PIT", PIT)), source, tick, controller)


boot.initramfs = initramfs()
sys.exit(run_tests(rows()))
