#!/usr/bin/env python3
# Guests come and go on a hypervisor that another guest keeps running, and leave no trace: its free memory is the same to the
# byte, and so are the pages of the slots' shared memory and the daemon's descriptors; the daemon does not grow.
# usage: test_cycles.py [NAME...]
# limit: 240
# run: check
import glob
import signal
import struct

from lib import *

RUNTIME = os.environ["METRONOME_RUNTIME_DIR"]
LENGTH = os.environ.get("METRONOME_TESTS", "test")
CYCLES = {"check": 10, "test": 30, "long": 1000}[LENGTH]
CYCLES_WITH_QEMU = {"check": 1, "test": 4, "long": 40}[LENGTH]
GROWTH_KIB = 512  # that the daemon's heap may settle by; 1,000 times a page would be eight times as much
FREE_BYTES, TOTAL_BYTES = 40, 48  # in struct metronome_control_header (include/public/control.h)


def of_this_test(program):
    """The processes of that program which have our daemon's folder."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            with open(path + "/environ", "rb") as f:
                ours = ("METRONOME_RUNTIME_DIR=%s\0" % RUNTIME).encode() in f.read()
            if ours and program in os.path.basename(os.readlink(path + "/exe")):
                found.append(int(path[6:]))
    return found


class Daemon:
    """Its descriptors come and go while they are looked at, but for those of the shared memory."""

    def __init__(self):
        self.proc = "/proc/%d" % of_this_test("metronome-daemon")[0]
        names = dict(self.open_files())
        self.control = next(fd for fd in names if "memfd:metronome-control" in names[fd])
        self.slots = sorted(fd for fd in names if "memfd:metronome-slot" in names[fd])

    def open_files(self):
        for fd in glob.glob(self.proc + "/fd/*"):
            with contextlib.suppress(OSError):
                yield fd, re.sub(r"\[\d+\]", "", os.readlink(fd))

    def descriptors(self):
        """{what: number}"""
        found = {}
        for fd, what in self.open_files():
            found[what] = found.get(what, 0) + 1
        return found

    def header(self):
        with open(self.control, "rb", buffering=0) as f:
            return struct.unpack_from("<QQ", f.read(TOTAL_BYTES + 8), FREE_BYTES)

    def resident_kib(self):
        with open(self.proc + "/status") as f:
            return int(re.search(r"^RssAnon:\s+(\d+)", f.read(), re.M)[1])

    def traces(self):
        """All that must be after a guest what it was before."""
        blocks = [os.stat(fd).st_blocks for fd in self.slots]
        return {"free bytes": self.header()[0], "shared memory": blocks, "descriptors": self.descriptors()}

    def settled(self):
        """What the guests so far have left for good: the allocator's halves, the daemon's buffers."""
        deadline = time.monotonic() + 10 * PATIENCE
        traces = None
        while traces != (traces := self.traces()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return traces

    def expect(self, before, what):
        """A guest's end is told before the last of it is gone."""
        deadline = time.monotonic() + 10 * PATIENCE
        while (after := self.traces()) != before:
            if time.monotonic() > deadline:
                raise Failure("%s: %s" % (what, "; ".join(
                    "%s were %s and are %s" % (key, before[key], after[key]) for key in before if before[key] != after[key])))
            time.sleep(0.02)


def keeper():
    """The guest that stays, and whom nothing of this concerns."""
    return Console([BUILD + "/metronome", "run", *SMALL, "--name", "keeper", "--append", "echo"], scratch.name(".log"))


def still_there(guest):
    guest.type("x")
    guest.expect("<78>")


def run(*arguments, environment=None):
    return Console([BUILD + "/metronome", "run", *arguments], scratch.name(".log"), None, environment)


def ends_itself():
    with run(*SMALL, "--append", "exit=0") as guest:
        guest.ends(0)


def crashes():
    with run(*SMALL, "--append", "triple") as guest:
        guest.ends(4)


def is_stopped():
    with run(*SMALL) as guest:
        guest.expect("ends: here")
        guest.process.send_signal(signal.SIGTERM)
        guest.ends(128 + signal.SIGTERM)


def is_killed():
    """Its terminal's process is, wherever that is just now."""
    with run(*SMALL) as guest:
        time.sleep(0.02)
        guest.process.kill()
        guest.process.wait()


def cannot_start():
    with run("--module", BUILD + "/images/initramfs.cpio.gz") as guest:
        guest.ends(2)


def cycles(ends, number, warm_up):
    with keeper() as kept:
        kept.expect("ends: here")
        daemon = Daemon()
        for end in ends[:warm_up]:
            end()
        before, resident, started = daemon.settled(), daemon.resident_kib(), time.monotonic()
        for n in range(number):
            end = ends[n % len(ends)]
            end()
            daemon.expect(before, "cycle %d, %s" % (n, end.__name__))
        seconds = time.monotonic() - started
        grown = daemon.resident_kib() - resident
        if grown > GROWTH_KIB:
            raise Failure("the daemon has grown by %d KiB" % grown)
        still_there(kept)
        free, total = daemon.header()
        return "%d guests, %.2f s each; %d of %d MiB free before and after; the daemon %+d KiB" % (
            number, seconds / number, free >> 20, total >> 20, grown)


def test_modules():
    return cycles([ends_itself, crashes, is_stopped, is_killed, cannot_start], CYCLES, 5)


def with_qemu(*arguments):
    return run("--disk", boot_sector("bios_guest.S"), "--memory", "32", *arguments)


def firmware_is_stopped():
    with with_qemu() as guest:
        guest.expect("boot")
        guest.process.send_signal(signal.SIGTERM)
        guest.ends(128 + signal.SIGTERM)


def qemu_is_killed():
    with with_qemu() as guest:
        guest.expect("boot")
        os.kill(of_this_test("xen-qemu-system")[0], signal.SIGKILL)
        guest.ends(5)


def starting_is_killed():
    """While its device model starts."""
    with with_qemu() as guest:
        guest.until("QEMU", lambda: of_this_test("xen-qemu-system"), every=0.01)
        guest.process.kill()
        guest.process.wait()


def test_device_models():
    return cycles([firmware_is_stopped, qemu_is_killed, starting_is_killed], CYCLES_WITH_QEMU, 1)


def test_all_slots():
    """As many as there are slots, at once; one more is refused; they go all together."""
    with keeper() as kept, contextlib.ExitStack() as stack:
        kept.expect("ends: here")
        daemon = Daemon()
        ends_itself()
        before = daemon.settled()
        guests = [stack.enter_context(run(*SMALL)) for _ in range(len(before["shared memory"]) - 1)]
        for guest in guests:
            guest.expect("ends: here", 60)
        with run(*SMALL) as refused:
            refused.ends(2)
        for guest in guests:
            guest.process.terminate()
        for guest in guests:
            guest.ends(128 + signal.SIGTERM)
        daemon.expect(before, "%d guests at once" % len(guests))
        still_there(kept)
        return "%d guests beside the one that stays" % len(guests)


if __name__ == "__main__":
    sys.exit(run_tests([test_modules, test_all_slots, test_device_models]))
