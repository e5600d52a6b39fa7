"""
Debian Linux from build/images as a guest: booted with words of the test's own on its command line, and commands typed at
its shell.

    with boot_linux("quiet hpet=disable", "--nic", "e1000") as guest:
        text = guest.run("cat /proc/interrupts")
        guest.power_off()
"""
import base64
import os
import re

from lib import BUILD, PATIENCE, Console, Failure, Guest, put_into_disk, scratch, scratch_copy

# What Linux says when something is wrong with interrupts, timers or ACPI; in upper or lower case.
COMPLAINTS = [
    r"MP-BIOS bug", r"8254 timer not connected", r"nobody cared", r"spurious", r"ACPI.*(error|exception|warning|BIOS)",
    r"firmware (bug|warn)", r"irq.*(lost|disabl|fail)", r"lost.*interrupt", r"clocksource.*(unstable|skew)",
    r"hpet.*(lost|disabl|fail)", r"NMI watchdog", r"soft lockup", r"rcu.*stall", r"hung task", r"blocked for more than",
    r"WARNING:", r"BUG:", r"Call Trace", r"Oops", r"APIC.*(error|fail|bug|broken)", r"timer.*(fail|broken|not (working|connected))",
    r"TSC.*(unstable|fail|warp|inconsistent|disabled)", r"8259.*(broken|not)", r"ata.*(timeout|failed|exception|SError)",
    r"i8042.*(fail|error)", r"NETDEV WATCHDOG", r"calibration.*(fail|not)", r"rtc.*(fail|lost|error|broken)",
]
# Lines that match and are no fault of ours, and why.
ALLOWED = [
    (r"NMI watchdog: Perf NMI watchdog permanently disabled", "it needs performance counters, which a guest has none of"),
    (r"tsc: Fast TSC calibration failed", "Linux reads the PIT some 1,000 times in 20 ms for it; each read is an exit, and under an "
     "emulated AMD-V it does not get enough of them. It then takes the HPET as reference"),
    (r"tsc: HPET/PMTIMER calibration failed", "where there is no HPET: Linux takes a time from three readings of the PM timer, three exits, only "
     "if they are within 50,000 TSC ticks; under an emulated AMD-V on a CPU of 2.6 GHz they take 112,000. It goes by the PIT then"),
    (r"clocksource: (timekeeping watchdog|wd-tsc(-early)?-wd).*read-back delay", "two readings of the HPET or the PM timer are some 100 us "
     "apart when the machine is busy: the host runs something else in between, and Linux skips one comparison of clocks"),
    (r"tsc: Marking TSC unstable due to could not calculate TSC khz", "as above, where acpi=off leaves no other reference than the "
     "PIT: it counts its timer interrupts instead"),
    (r"TSC unstable due to boot parameter", "our own words: notsc"),
    (r"[Cc]ommand line: ", "our own words"),
]


# Prints a number, the uptime and the RTC's second, ten times a second, until /tmp/stop is there.
COUNT = r"""
i=0
until [ -e /tmp/stop ]; do
    read u x </proc/uptime; read r </sys/class/rtc/rtc0/since_epoch
    i=$((i + 1)); echo count $i $u $r; usleep 100000
done
echo counted
exec sleep 100000
"""


def disk_with(words):
    """A copy of linux.img that boots at once with these words."""
    disk = scratch_copy("linux.img")
    put_into_disk(disk, {"/boot/test.cfg": """
set timeout=0
set default=test
menuentry "test" --id test {
    linux /boot/vmlinuz console=ttyS0,115200 %s
    initrd /boot/initramfs.cpio.gz
}
""" % words})
    return disk


class LinuxGuest(Guest):
    def wait_for_shell(self, seconds=40):
        self.expect("guest: ready", seconds)
        self.expect("guest# ")
        self.run("dmesg -n 1; stty -echo")
        return self

    def run(self, command, seconds=30, status=0):
        """What a command typed at the shell prints; a Failure if it ends with another status."""
        self.type("echo beg''in-of-output; %s; echo end''-of-output $?\r" % command)
        self.expect(r"begin-of-output\r*\n", seconds)
        start = self.seen
        found = self.expect(r"end-of-output (\d+)", seconds)
        text = self.output[start:found.start()].decode("latin-1").replace("\r", "")
        if int(found[1]) != status:
            raise Failure("'%s' ended with %d: %s" % (command, int(found[1]), text.strip()[-200:]))
        return text

    def program(self, name, text):
        """Makes a shell script in the guest: of at most some 700 bytes, as the shell's lines have an end."""
        self.run("echo %s | base64 -d >%s" % (base64.b64encode(text.encode()).decode(), name))

    def power_off(self):
        self.type("poweroff\r")
        self.ends(0)
        if "the guest switched itself off" not in self.errors():
            raise Failure("it does not say that the guest switched itself off: " + self.errors().strip()[-200:])


class LinuxAlone(LinuxGuest):
    """Without device model: the kernel is a boot module, the console is the built-in serial port."""

    def __init__(self, words, *arguments, seconds=90, **environment):
        images = BUILD + "/images/"
        command = [BUILD + "/metronome", "run", "--timeout", str(int(seconds * PATIENCE)), "--module", images + "vmlinuz",
                   "--initrd", images + "initramfs.cpio.gz", "--append", "console=ttyS0,115200 " + words]
        Console.__init__(self, command + list(arguments), scratch.name(".log"), None, dict(os.environ, **environment))


def boot_linux(words, *arguments, place="hda", image=None, seconds=150):
    """Linux from disk, at its shell."""
    disk = "%s,raw,%s" % (image or disk_with(words), place)
    return LinuxGuest("--disk", disk, *arguments, seconds=seconds).wait_for_shell()


def complaints(messages):
    """The lines of dmesg that Linux complains in."""
    wrong = re.compile("|".join(COMPLAINTS), re.I)
    allowed = [re.compile(pattern) for pattern, _ in ALLOWED]
    return [line for line in messages.split("\n") if wrong.search(line) and not any(a.search(line) for a in allowed)]


def check_messages(guest):
    messages = guest.run("dmesg")
    found = complaints(messages)
    if found:
        raise Failure("%d complaints in dmesg, the first: %s" % (len(found), found[0]))
    return messages


def interrupts(guest):
    """{name in the last column, and in the first: (count, controller)} of /proc/interrupts, for one CPU."""
    found = {}
    for line in guest.run("cat /proc/interrupts").split("\n"):
        m = re.match(r"\s*(\w+):\s+(\d+)\s*(.*)", line)
        if m:
            found[m[1]] = found[m[3].split()[-1] if m[3] else m[1]] = (int(m[2]), m[3])
    return found


def counts(console):
    """[(number, uptime, RTC)] of the whole lines seen."""
    return [(int(n), float(u), int(r)) for n, u, r in
            re.findall(rb"^count (\d+) ([\d.]+) (\d+)\r*$", console.output, re.M)]


def count_in(guest):
    guest.program("/tmp/count", COUNT)
    guest.type("sh /tmp/count &\r")
    guest.expect(r"^count 10 .*\n")


def stop_counting(guest):
    guest.type("touch /tmp/stop\r")
    guest.expect("counted")
