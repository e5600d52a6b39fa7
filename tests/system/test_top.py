#!/usr/bin/env python3
# `metronome top`: blocks for programs' pipes, and on a terminal, which is a pseudo terminal here.
# usage: test_top.py [NAME...]
# limit: 180
# run: check
import fcntl
import pty
import struct
import termios

from lib import *

LATE = BUILD + "/guest/late.elf"


def detached(name, does=""):
    command("run", "--detach", "--quiet", "--name", name, "--module", LATE, "--memory", "16", "--append", does)


def blocks(said):
    """[{guest: {"CPU": percent, "steal": percent, name of a rate: rate}}]"""
    found, rates = [], {}
    for line in said.splitlines():
        if line.startswith("metronome top "):
            found.append({})
        m = re.match(r"(\S+) \(\d+\)  (\w+), \d vCPUs?, CPU ([\d.]+) %, steal ([\d.]+) %$", line)
        if m:
            rates = found[-1][m[1]] = {"CPU": float(m[3]), "steal": float(m[4])}
        elif line.startswith("  "):
            rates.update({name: float(rate) for name, rate in re.findall(r"(\S.*?) {2,}([\d.]+)(?:  |$)", line)})
    return found


def test_blocks():
    """A guest that ticks and sleeps beside one that computes: a tick is an HLT, an injection, an EOI and two writes of MSRs."""
    with hypervisor():
        detached("ticks")
        detached("spins", "spin")
        seen = blocks(command("top", "--interval", "0.5", "--count", "3"))
        if len(seen) != 3 or any(set(block) != {"ticks", "spins"} for block in seen):
            raise Failure("not three blocks of two guests: %s" % seen)
        ticks, spins = seen[-1]["ticks"], seen[-1]["spins"]
        injected = ticks.get("local APIC timer", 0)
        if not 10 < injected <= 1100 or ticks["injected per second"] != injected or spins["injected per second"]:
            raise Failure("injected: %s, %s" % (ticks, spins))
        if not 0.8 * injected < ticks["HLT"] < 1.2 * injected or not 1.6 * injected < ticks["MSR"] < 2.4 * injected:
            raise Failure("exits: %s" % ticks)
        if not 50 < spins["CPU"] <= 105 or not 0 < ticks["CPU"] < spins["CPU"]:
            raise Failure("CPU: %s, %s" % (ticks, spins))
        command("destroy", "ticks")
        command("destroy", "spins")
        if len(blocks(command("top", "--interval", "0.1", "--count", "1"))) != 1:
            raise Failure("without guests")


class Terminal:
    """metronome on a terminal of its own."""

    def __init__(self, rows, columns, *arguments):
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([BUILD + "/metronome", *arguments], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.set_blocking(self.master, False)
        self.output = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, pattern, seconds=20):
        deadline = time.monotonic() + seconds * PATIENCE
        while not (m := re.search(pattern, self.output, re.S)):
            left = deadline - time.monotonic()
            if left <= 0 or (self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]):
                raise Failure("no %s: %r" % (pattern, self.output[-500:]))
            if select.select([self.master], [], [], min(left, 1))[0]:
                with contextlib.suppress(OSError):
                    self.output += os.read(self.master, 65536).decode()
        self.output = self.output[m.end():]
        return m

    def frame(self):
        """The lines of a whole redrawing."""
        drawn = self.expect(r"\033\[H(metronome top.*?)\033\[J")[1]
        return [line.removesuffix("\033[K") for line in drawn.split("\r\n")]

    def ends(self, status):
        if self.process.wait(20 * PATIENCE) != status:
            raise Failure("status %d" % self.process.returncode)
        if termios.tcgetattr(self.slave) != self.before:
            raise Failure("the terminal is not as it was")
        os.close(self.master)
        os.close(self.slave)


def test_terminal():
    """Redrawn, within the window; q and Ctrl-C end it and leave the terminal as it was."""
    with hypervisor():
        detached("ticks")
        t = Terminal(30, 100, "top", "--interval", "0.3")
        t.expect(r"\033\[\?1049h")
        until_rates = [t.frame() for _ in range(3)][-1]
        if not any(re.search(r"HLT +\d+ +local APIC timer|local APIC timer +\d+$", line) for line in until_rates):
            raise Failure("no rates: %s" % until_rates)
        t.resize(5, 40)
        for _ in range(3): # one may be on its way
            small = t.frame()
        if len(small) > 5 or max(map(len, small)) > 40 or not any(len(line) == 40 for line in small):
            raise Failure("not within 5 lines of 40: %s" % small)
        os.write(t.master, b"q")
        t.expect(r"\033\[\?1049l")
        t.ends(0)
        t = Terminal(30, 100, "top")
        t.frame()
        os.write(t.master, b"\3")
        t.ends(0)
        t = Terminal(30, 100, "top", "--interval", "0.1")
        t.frame()
        command("down", "-f")
        t.expect("no hypervisor is running")
        t.ends(6)
        command("up", "--quiet")


if __name__ == "__main__":
    sys.exit(run_tests([test_blocks, test_terminal]))
