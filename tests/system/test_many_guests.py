#!/usr/bin/env python3
# Four Linux guests side by side, each with its own QEMU, memory and console: one that is destroyed, and one whose QEMU is
# killed, take nothing from the others, which count on.
# usage: test_many_guests.py [NAME...]
# limit: 600
from lib import *
from linux_guest import *

NAMES = ["linux-%d" % i for i in range(4)]
MEMORY_MIB = 192


class LinuxConsole(LinuxGuest):
    """`metronome console NAME` of a Linux that was started detached."""

    def __init__(self, name):
        words = [BUILD + "/metronome", "console", "--quiet", "--timeout", str(int(360 * PATIENCE)), name]
        Console.__init__(self, words, scratch.name(".log"))
        self.name = name
        self.looked_at = 0 # the counts before this one


def facts(name):
    """What `metronome list -l` says of it: {key: value}."""
    return dict(re.findall(r"^(\w+) +: (.*)$", command("list", "-l", name), re.M))


def slots_free():
    return int(re.search(r"^free_slots +: (\d+)$", command("info"), re.M)[1])


def check_counts_on(guests, numbers=20):
    """Every number comes, in time. Returns the longest time of theirs between two since the last call."""
    longest = 0
    for guest in guests:
        guest.seen = len(guest.output)
        guest.expect(r"^count \d+ .*\n")
        first = counts(guest)[-1][0]
        guest.expect(r"^count %d .*\n" % (first + numbers))
    for guest in guests:
        seen = counts(guest)
        if [n for n, _, _ in seen] != list(range(seen[0][0], seen[0][0] + len(seen))):
            raise Failure("%s: numbers are missing: %s" % (guest.name, [n for n, _, _ in seen]))
        longest = max([longest] + [b[1] - a[1] for a, b in zip(seen[guest.looked_at:], seen[guest.looked_at + 1:])])
        guest.looked_at = len(seen) - 1
    if longest > 2 * PATIENCE:
        raise Failure("%.1f s without a number" % longest)
    return longest


def test_four_linux_guests():
    began = time.monotonic()
    command("up", "--quiet")
    # Linux wants four ticks within 40 ms of true time at boot, which four that share a CPU cannot be promised.
    image = disk_with("quiet no_timer_check")
    for name in NAMES:
        command("run", "-d", "--quiet", "--name", name, "--memory", str(MEMORY_MIB), "--disk", scratch_copy(image) + ",raw,sda")
    guests = [LinuxConsole(name) for name in NAMES]
    with contextlib.ExitStack() as stack:
        for guest in guests:
            stack.enter_context(guest)
        for guest in guests:
            guest.wait_for_shell(120)
        booted = time.monotonic() - began
        said = {guest.name: complaints(guest.run("dmesg")) for guest in guests}
        for guest in guests:
            count_in(guest)
        rows = [line.split() for line in command("list").splitlines()[1:]]
        if [r[0] for r in rows] != NAMES or any(r[2] != str(MEMORY_MIB) or float(r[5]) <= 0 for r in rows):
            raise Failure("list says: %s" % rows)
        before = check_counts_on(guests)
        destroyed, killed, *rest = guests

        qemu = int(facts(destroyed.name)["device_model_pid"])
        command("destroy", destroyed.name)
        destroyed.ends(0)
        if os.path.exists("/proc/%d" % qemu) or slots_free() != 8 - 3:
            raise Failure("the guest that was destroyed is not gone")
        after_destroy = check_counts_on([killed] + rest)

        os.kill(int(facts(killed.name)["device_model_pid"]), signal.SIGKILL)
        killed.ends(5)
        if "its QEMU was killed by signal 9" not in open(killed.log).read():
            raise Failure("the console does not say that its QEMU was killed")
        after_kill = check_counts_on(rest)
        if slots_free() != 8 - 2:
            raise Failure("the slot of the guest whose QEMU was killed is not free")
        log = open(RUNTIME + "/hypervisor.log").read()
        for name, end in (destroyed.name, "the guest was destroyed"), (killed.name, "the device model is gone"):
            if not re.search(r"\(%s\): %s" % (name, end), log):
                raise Failure("the log does not say how %s ended: %s" % (name, log))

        for guest in rest:
            stop_counting(guest)
            new = set(complaints(guest.run("dmesg"))) - set(said[guest.name])
            if new:
                raise Failure("%s: new complaints in dmesg: %s" % (guest.name, new))
        rest[0].type("poweroff\r")
        rest[0].ends(0)
        command("shutdown", rest[1].name)
        command("destroy", rest[1].name)
        rest[1].ends(0)
    if slots_free() != 8:
        raise Failure("a slot is left")
    command("down")
    nothing_left()
    return "four at their shells after %.0f s; longest time between two numbers %.2f s, %.2f s over a destroy, %.2f s over a " \
           "killed QEMU" % (booted, before, after_destroy, after_kill)


sys.exit(run_tests([test_four_linux_guests]))
