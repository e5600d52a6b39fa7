#!/usr/bin/env python3
# `metronome trace` beside guests that run: what it writes, as xenalyze reads it and as the guest's closing table counts; who may
# read; and that a reader that is slow, killed, or has nowhere to write costs records, which are counted, and no guest anything.
# usage: test_tracing.py [NAME...]
# limit: 600
# run: check
import ast
import struct

from lib import *
from xen_trace import *

CONTROL_TRACE, MASK_OFFSET, RINGS_OFFSET, RING_BYTES = 0x2000000, 12, 64, 128


class Trace:
    """`metronome trace ARGUMENTS` in the background, from when it traces."""

    def __init__(self, *arguments, **popen):
        self.errors = scratch.name(".errors")
        self.process = subprocess.Popen([BUILD + "/metronome", "trace", *arguments], stdin=subprocess.DEVNULL,
                                        stderr=open(self.errors, "wb"), **popen)
        until("trace", lambda: traced_mask() or self.process.poll() is not None)

    def said(self):
        with open(self.errors, "rb") as f:
            return f.read().decode()

    def ends(self, status=0, number=signal.SIGINT):
        """(records, lost, bytes) as it says them; where it fails, what it says."""
        if number:
            self.process.send_signal(number)
        if self.process.wait(60 * PATIENCE) != status:
            raise Failure("trace ended with status %d, not %d: %s" % (self.process.returncode, status, self.said()))
        found = re.search(r"(\d+) records, (\d+) lost, (\d+) bytes\n$", self.said())
        return tuple(int(n) for n in found.groups()) if found else self.said()


def until(what, condition, seconds=10):
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("no %s within %d s" % (what, seconds * PATIENCE))
        time.sleep(0.02)


def control_memory():
    """The control device's memory, as the daemon has it open."""
    for path in glob.glob("/proc/%d/fd/*" % process("^metronome-daemon")):
        with contextlib.suppress(OSError):
            if "memfd:metronome-control" in os.readlink(path):
                return path
    raise Failure("the daemon has no control device")


def traced_mask():
    with open(control_memory(), "rb") as f:
        f.seek(CONTROL_TRACE + MASK_OFFSET)
        return struct.unpack("<I", f.read(4))[0]


def tsc_hz():
    return ast.literal_eval(command("info", "--json"))["tsc_hz"]


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def events_of(data):
    found = {}
    for _, event, _, words in records(data):
        found.setdefault(event, []).append(words)
    return found


def lost_in(data):
    return sum(words[0] for words in events_of(data).get(LOST, []))


def running(name, *arguments):
    """A small guest that never stops reading its serial port."""
    guest = Guest("--name", name, *small(*arguments))
    guest.expect("ends: here")
    return guest


def fails(pattern, *arguments, status=2):
    said = command("trace", *arguments, status=status)
    if not re.search(pattern, said) or said.count("\n") != 1 or not said.startswith("metronome: "):
        raise Failure("trace %s: not one line with '%s': %s" % (" ".join(arguments), pattern, said))


def test_file():
    """Ctrl-c leaves a whole file, which has what there was: the clock, entries in turns with exits, who runs."""
    path = scratch.name(".trace")
    with hypervisor(), running("one") as guest:
        trace = Trace("-o", path)
        guest.answers("A")
        count, lost, size = trace.ends()
        until("end of tracing", lambda: not traced_mask())
        hz = tsc_hz()
        guest.answers("B")
        guest.process.terminate()
        guest.ends(143)
    data = read_file(path)
    events = events_of(data)
    clock = events.pop(CLOCK, [])
    if len(data) != size or sum(len(of) for of in events.values()) != count or lost or lost_in(data):
        raise Failure("%d bytes, %d records and %d lost, not what was said: %s" %
                      (len(data), sum(len(of) for of in events.values()), lost_in(data), trace.said()))
    if [low | high << 32 for low, high in clock] != [hz]:
        raise Failure("the clock is %s, not %d Hz" % (clock, hz))
    inside, last = None, {}
    for cpu, event, tsc, words in records(data):
        if event in (VMENTRY, VMEXIT, VMEXIT64):
            if inside == (event == VMENTRY):
                raise Failure("two entries or exits without the other in between")
            inside = event == VMENTRY
        if tsc is not None and tsc < last.get(cpu, 0):
            raise Failure("time goes back")
        last[cpu] = tsc or last.get(cpu, 0)
    if len(events.get(VMENTRY, [])) < 10 or not events.get(RUNSTATE | 1 << 8 | 0 << 4):
        raise Failure("%d entries, and of who runs %s" % (len(events.get(VMENTRY, [])), sorted(hex(e) for e in events)))
    return "%d records" % count


def test_events():
    """Only those that were chosen."""
    path = scratch.name(".trace")
    with hypervisor(), running("one") as guest:
        for words, classes in (("hvm", {0x8}), ("sched,hw", {0x2, 0x80}), ("0x81000", {0x8})):
            trace = Trace("-e", words, "-o", path, "--seconds", "0.3")
            trace.ends(number=None)
            found = {event for event in events_of(read_file(path)) if event not in (CLOCK, LOST)}
            if not found or not {event >> 16 for event in found} <= classes:
                raise Failure("-e %s: events %s" % (words, sorted(hex(e) for e in found)))
        if found - {VMENTRY, VMEXIT, VMEXIT64}:
            raise Failure("-e 0x81000: events %s" % sorted(hex(e) for e in found))
        guest.process.terminate()
        guest.ends(143)


def test_guests():
    """Of the guests that are named, until they have ended; their number is their slot's."""
    path, all_path = scratch.name(".trace"), scratch.name(".trace")
    with hypervisor(), running("one") as one, running("two") as two:
        fails("three: no guest", "-o", path, "three")
        if os.path.exists(path):
            raise Failure("a file for a guest that there is not")
        Trace("-e", "sched,hvm", "-o", all_path, "--seconds", "0.5").ends(number=None)
        trace = Trace("-e", "sched,hvm", "-o", path, "two")
        one.answers("A")
        two.answers("B")
        two.process.terminate()
        two.ends(143)
        trace.ends(number=None)
        one.answers("A")
        one.process.terminate()
        one.ends(143)
    for data, wanted in (read_file(all_path), {0, 1}), (read_file(path), {1}):
        events = events_of(data)
        found = {words[0] >> 16 for event, of in events.items() if event & ~0xff0 == RUNSTATE for words in of} - {IDLE_DOMAIN}
        if found != wanted or len(events.get(VMENTRY, [])) < 10:
            raise Failure("of domains %s, not %s; %d entries" % (found, wanted, len(events.get(VMENTRY, []))))


def test_one_reader():
    path = scratch.name(".trace")
    with hypervisor(), running("one") as guest:
        trace = Trace("-o", path)
        other = scratch.name(".trace")
        fails("the trace is being read by process %d" % trace.process.pid, "-o", other)
        if os.path.exists(other):
            raise Failure("a file for a trace that was refused")
        trace.ends()
        Trace("-o", other, "--seconds", "0.2").ends(number=None)
        guest.process.terminate()
        guest.ends(143)


def test_killed():
    """Nothing is traced for longer than its reader lives, and the next one gets nothing of what was left or lost then."""
    path = scratch.name(".trace")
    with hypervisor(), running("one") as guest:
        trace = Trace("-o", scratch.name(".trace"))
        trace.process.send_signal(signal.SIGSTOP)
        guest.answers("A")
        trace.process.kill()
        trace.process.wait()
        until("end of tracing", lambda: not traced_mask())
        began = time.monotonic()
        again = Trace("-o", path)
        guest.answers("B")
        again.ends()
        times = [tsc for _, _, tsc, _ in records(read_file(path)) if tsc]
        if lost_in(read_file(path)) or max(times) - min(times) > (time.monotonic() - began) * tsc_hz():
            raise Failure("%d lost, a time of %d ticks" % (lost_in(read_file(path)), max(times) - min(times)))
        guest.process.terminate()
        guest.ends(143)


def test_slow_reader():
    """Its pipe is full: the guest runs on, and what found no room is counted, in the file and by the command."""
    command("up", "--quiet", "--cpus", "8") # whose rings are small
    with running("one") as guest:
        trace = Trace(stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60 * PATIENCE
        while not ring_lost() and time.monotonic() < deadline:
            guest.answers("A")
        data = b""
        trace.process.send_signal(signal.SIGINT)
        while more := os.read(trace.process.stdout.fileno(), 1 << 20):
            data += more
        count, lost, size = trace.ends(number=None)
        guest.answers("B")
        guest.process.terminate()
        guest.ends(143)
    command("down")
    nothing_left()
    found = lost_in(data)
    if not found or found != lost or len(data) != size:
        raise Failure("%d bytes with %d lost, not what was said: %s" % (len(data), found, trace.said()))
    return "%d records, %d lost" % (count, lost)


def ring_lost():
    """Records that no record tells of yet."""
    with open(control_memory(), "rb") as f:
        f.seek(CONTROL_TRACE + RINGS_OFFSET)
        return sum(struct.unpack_from("<Q", f.read(RING_BYTES), 8)[0] for _ in range(8))


def test_nowhere_to_write():
    """A full disk, a pipe that nobody reads, a file that cannot be: one line, and the guest does not notice."""
    with hypervisor(), running("one") as guest:
        trace = Trace("-o", "/dev/full")
        if not re.fullmatch("metronome: /dev/full: No space left on device\n", said := trace.ends(5, None)):
            raise Failure("a full disk: " + said)
        ours, theirs = os.pipe()
        os.close(ours)
        trace = Trace(stdout=theirs)
        os.close(theirs)
        if not re.fullmatch("metronome: standard output: Broken pipe\n", said := trace.ends(5, None)):
            raise Failure("a closed pipe: " + said)
        fails("No such file", "-o", RUNTIME + "/none/x")
        until("end of tracing", lambda: not traced_mask())
        guest.answers("A")
        guest.process.terminate()
        guest.ends(143)


def test_end_of_hypervisor():
    """It ends with its last guest, whoever reads: the file is whole."""
    path = scratch.name(".trace")
    with running("one") as guest:
        trace = Trace("-o", path)
        guest.process.terminate()
        guest.ends(143)
        count, lost, size = trace.ends(number=None)
    nothing_left()
    if len(list(records(read_file(path)))) < 100 or "the hypervisor has ended" not in trace.said():
        raise Failure("%d records, and it says: %s" % (len(list(records(read_file(path)))), trace.said()))


TESTS = [test_file, test_events, test_guests, test_one_reader, test_killed, test_slow_reader, test_nowhere_to_write,
         test_end_of_hypervisor]
sys.exit(run_tests(TESTS))
