#!/usr/bin/env python3
# `metronome trace` beside guests that run: what it writes, as xenalyze reads it and as the guest's closing table counts; who may
# read; and that a reader that is slow, killed, or has nowhere to write costs records, which are counted, and no guest anything.
# usage: test_tracing.py [NAME...]
# limit: 600
# run: check
import ast
import random
import struct

from lib import *
from linux_guest import LinuxGuest, disk_with
from xen_trace import *

CONTROL_TRACE, MASK_OFFSET, RINGS_OFFSET, RING_BYTES = 0x2200000, 12, 64, 128
LENGTH = os.environ.get("METRONOME_TESTS", "test")


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


# ---- The timeline ----

STRING, NUMBER = r'"[^"\\\x00-\x1f]*"', r"-?(?:0|[1-9]\d*)(?:\.\d+)?"
OBJECT = r"\{%s:(?:%%s)(?:,%s:(?:%%s))*\}" % (STRING, STRING)
FLAT = OBJECT % (("%s|%s" % (STRING, NUMBER),) * 2)
EVENT = re.compile(OBJECT % (("%s|%s|%s" % (STRING, NUMBER, FLAT),) * 2))


class Timeline:
    """A file of JSON trace events, as strictly as it is read elsewhere: {(process, thread): events} by the names of both."""

    def __init__(self, path):
        lines = read_file(path).decode().split("\n")
        if lines[0] != '{"displayTimeUnit":"ns","traceEvents":[' or lines[-2:] != ["]}", ""]:
            raise Failure("no object with trace events: %s ... %s" % (lines[0][:50], lines[-3:]))
        lines = lines[1:-2]
        for i, line in enumerate(lines):
            if not EVENT.fullmatch(line[:-1] if i < len(lines) - 1 else line) or line.endswith(",") != (i < len(lines) - 1):
                raise Failure("line %d is no event: %s" % (i + 2, line[:200]))
        self.processes, self.threads, self.tracks = {}, {}, {}
        for line in lines:
            self.take(ast.literal_eval(line.rstrip(",")))
        for key, events in self.tracks.items():
            check_track(self.threads.get(key), events)

    def take(self, event):
        key = event["pid"], event["tid"]
        if event["ph"] != "M":
            self.tracks.setdefault(key, []).append(event)
        elif event["name"] == "process_name":
            self.processes[event["pid"]] = event["args"]["name"]
        elif event["name"] == "thread_name":
            if key in self.threads or key[1] in [tid for _, tid in self.threads]:
                raise Failure("two tracks %s" % (key,))
            self.threads[key] = event["args"]["name"]

    def track(self, process, thread):
        found = [events for key, events in self.tracks.items()
                 if (self.processes.get(key[0]), self.threads[key]) == (process, thread)]
        if len(found) != 1:
            raise Failure("%d tracks %s, %s of %s" % (len(found), process, thread, self.threads))
        return found[0]

    def slices(self, process, thread):
        """{name: [(begin, end)], in us}"""
        found, begin = {}, None
        for event in self.track(process, thread):
            if event["ph"] == "B":
                begin = event
            elif event["ph"] == "E":
                found.setdefault(begin["name"], []).append((begin["ts"], event["ts"]))
        return found


def check_track(name, events):
    """Named; time does not go back; what begins ends, one after the other."""
    depth, last = 0, 0
    for event in events:
        depth += {"B": 1, "E": -1, "i": 0}[event["ph"]]
        if event["ts"] < last or depth not in (0, 1):
            raise Failure("track %s: depth %d, from %s to %s" % (name, depth, last, event))
        last = event["ts"]
    if depth or not name:
        raise Failure("track %s ends at depth %d" % (name, depth))


def test_perfetto():
    """Of what runs, and of a file; as many stays in the guest as there are entries."""
    path, of_file, of_guest = (scratch.name(suffix) for suffix in (".trace", ".json", ".json"))
    with hypervisor(), running("one") as guest:
        Trace("-o", path, "--seconds", "0.3").ends(number=None)
        Trace("--perfetto", "-o", of_guest, "--seconds", "0.3").ends(number=None)
        guest.process.terminate()
        guest.ends(143)
    command("trace", "--perfetto", "-i", path, "-o", of_file)
    for timeline in Timeline(of_file), Timeline(of_guest):
        slices = timeline.slices("domain 0", "vCPU 0")
        if len(slices["port"]) < 10 or len(slices["guest"]) < 10 or "domain 0, vCPU 0" not in timeline.slices("pCPUs", "pCPU 0"):
            raise Failure("no timeline of a guest: %s" % {name: len(of) for name, of in slices.items()})
    entries = len(events_of(read_file(path))[VMENTRY])
    stays = len(Timeline(of_file).slices("domain 0", "vCPU 0")["guest"])
    if entries != stays:
        raise Failure("%d entries, %d stays in the guest" % (entries, stays))
    if [name for name in os.listdir(scratch.path) if re.search(r"\.json\.", name)]:
        raise Failure("the trace behind a timeline is left: %s" % os.listdir(scratch.path))


def record(event, tsc, *words):
    first = event | len(words) << 28 | (tsc is not None) << 31
    return struct.pack("<I", first) + (struct.pack("<Q", tsc) if tsc is not None else b"") + struct.pack("<%dI" % len(words), *words)


def window(cpu, *of):
    return struct.pack("<3I", CPU_CHANGE | 2 << 28, cpu, sum(map(len, of))) + b"".join(of)


RUNS, STOPS = RUNSTATE | 1 << 8 | 0 << 4, RUNSTATE | 0 << 8 | 1 << 4
WHO = 1 << 16 | 3  # vCPU 3 of domain 1
MOVED = [window(0, record(RUNS, 5000, WHO), record(VMENTRY, 5100), record(VMEXIT, 5200, 0x72, 0x1234), record(CPUID, None, 1, 0, 0, 0, 0, 0)),
         window(1, record(CLOCK, 1000, 10 ** 6, 0), record(RUNS, 1000, WHO), record(VMENTRY, 1100), record(VMEXIT64, 1300, 0x7b, 0x10, 1)),
         window(1, record(REQUEST, 1400, WHO, 0x3f6, 0, 1 | 1 << 9), record(STOPS, 1500, WHO), record(TICKS, 1600, 0, 1 << 16, 2, 1)),
         window(0, record(ANSWER, 5300, WHO), record(LOST, 9000, 7, 1 | 3 << 16, 6000, 0), record(VMENTRY, 9100))]


def converted(data, *arguments, status=0):
    path, to = scratch_file(data, ".trace"), scratch.name(".json")
    said = command("trace", "--perfetto", "-i", path, "-o", to, *arguments, status=status)
    return Timeline(to) if not status else said


def test_perfetto_of_a_move():
    """A vCPU goes from one pCPU to another whose records come first in the file: times are those of all pCPUs. What was lost ends
    what was there."""
    timeline = converted(b"".join(MOVED))
    wanted = {"hypervisor": [(0, 100), (4000, 4100)], "guest": [(100, 300), (4100, 4200), (8100, 8100)], "port": [(300, 500)],
              "waits for a CPU": [(500, 4000)], "CPUID": [(4200, 5000)]}
    found = timeline.slices("domain 1", "vCPU 3")
    for name, slices in wanted.items():
        if found.get(name) != slices:
            raise Failure("%s: %s, not %s us" % (name, found.get(name), slices))
    requests = timeline.slices("domain 1", "vCPU 3, requests to the device model")
    if requests != {"port read 0x3f6": [(400, 4300)]}:
        raise Failure("requests: %s" % requests)
    ticks = timeline.track("domain 1", "PIT")
    if [(e["name"], e["ts"], e["args"]) for e in ticks] != [("tick", 600, {"number": 0, "due": 2, "owed": 1})]:
        raise Failure("ticks: %s" % ticks)


def test_perfetto_of_no_trace():
    """What is none, or is cut, or has no clock, is refused by one line; what is damaged elsewhere is no harm."""
    whole = b"".join(MOVED)
    for data, pattern in ((b"", "is no trace"), (b"x" * 1000, "is no trace"), (whole[:-4], "is no trace"), (whole[:-3], "is no trace"),
                          (MOVED[0], "--cpu-hz")):
        said = converted(data, status=2)
        if not re.fullmatch("metronome: .*%s.*\n" % pattern, said):
            raise Failure("of %d bytes: %s" % (len(data), said))
    converted(MOVED[0], "--cpu-hz", "1e9")
    for seed in range(300 if LENGTH == "long" else 30):
        choose = random.Random(seed)
        data = bytearray(whole)
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        path, to = scratch_file(bytes(data), ".trace"), scratch.name(".json")
        done = subprocess.run([BUILD + "/metronome", "trace", "--perfetto", "-i", path, "-o", to], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=60 * PATIENCE)
        if done.returncode not in (0, 2):
            raise Failure("seed %d: status %d" % (seed, done.returncode))
        if not done.returncode:
            Timeline(to)


def whole_windows(data, most_bytes):
    """The beginning of a trace."""
    at = 0
    while at < min(len(data), most_bytes):
        at += 12 + struct.unpack_from("<I", data, at + 8)[0]
    return data[:at]


def check_timeline(path):
    """Of its beginning, up to Linux: each request to the device model is there, and its timers' ticks."""
    data = whole_windows(read_file(path), 3 << 20)
    timeline, events = converted(data), events_of(data)
    requests = sum(len(slices) for name in timeline.threads.values() if name.endswith("requests to the device model")
                   for slices in timeline.slices("domain 0", name).values())
    if requests != len(events[REQUEST]):
        raise Failure("%d requests, %d in the timeline" % (len(events[REQUEST]), requests))
    for name in "PIT", "PIC":
        timeline.track("domain 0", name)


def linux(vcpus):
    """From before the firmware's first instruction to the power-off: xenalyze's counts are those of the closing table."""
    path = scratch.name(".trace")
    command("up", "--quiet", "--cpus", str(vcpus))
    hz = tsc_hz()
    trace = Trace("-o", path)
    with LinuxGuest("--disk", disk_with("mt.test=poweroff") + ",raw,hda", "--vcpus", str(vcpus), seconds=300) as guest:
        guest.ends(0, 300)
        table = guest.errors()
    count, lost, size = trace.ends()
    command("down")
    nothing_left()
    summary = Summary(path, hz)
    print("\n".join("# " + line for line in table.split("\n") + summary.text.split("\n")[:80]))
    if lost or lost_in(read_file(path)):
        raise Failure("%d records are lost" % lost)
    if summary.status or summary.complaints:
        raise Failure("xenalyze ended with status %d: %s" % (summary.status, "; ".join(summary.complaints[:3])))
    check_timeline(path)
    wrong = [row for row in summary.against(table, vcpus) if not row[-1]]
    if wrong or len(list(summary.against(table))) < 6:
        raise Failure("counted otherwise: %s" % wrong)
    return "%d records, %d bytes" % (count, size)


def test_linux():
    return linux(1)


def test_linux_of_two_cpus():
    return linux(2)


TESTS = [test_file, test_events, test_guests, test_one_reader, test_killed, test_slow_reader, test_nowhere_to_write,
         test_end_of_hypervisor, test_perfetto, test_perfetto_of_a_move, test_perfetto_of_no_trace]
TESTS += [test_linux] if LENGTH != "check" else []
TESTS += [test_linux_of_two_cpus] if LENGTH == "long" else []
sys.exit(run_tests(TESTS))
