#!/usr/bin/env python3
# How long interrupts take, as users see it: `metronome latency`, of guests that run and of a file; its drawings.
# usage: test_latency_commands.py [NAME...]
# limit: 240
# run: check
import signal

from lib import *

LATE = BUILD + "/guest/late.elf"
PERCENTILES = [("p50_ns", 500), ("p90_ns", 900), ("p99_ns", 990), ("p99_9_ns", 999), ("max_ns", 1000)]
UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


def late(*arguments, does=""):
    return ["--module", LATE, "--memory", "16", "--append", does, *arguments]


def detached(name, does=""):
    command("run", "--detach", "--quiet", "--name", name, *late(does=does))


def until(what, condition, seconds=20):
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("no %s within %d s" % (what, seconds * PATIENCE))
        time.sleep(0.05)


def latency(*arguments):
    return ast.literal_eval(command("latency", "--json", *arguments))


def ticks(*arguments):
    """Of the first guest's timer, from due to injected."""
    return latency(*arguments)[0]["sources"]["lapic"]["due-entered"]


def ns(text):
    value, unit = text.split()
    return float(value) * UNITS[unit]


def rows(table):
    """{(guest, stage, source): [n, times...]} of what is for people."""
    found, guest, stage = {}, None, None
    for line in table.splitlines():
        m = re.match(r"    (\S.*?)\s+(\d+)((?:\s+[\d.]+ [num]?s){5})$", line)
        if m:
            found[guest, stage, m[1]] = [int(m[2])] + [ns(t) for t in re.findall(r"[\d.]+ [num]?s", m[3])]
        elif line.startswith("  "):
            stage = line.strip()
        else:
            guest = line.split()[0]
    return found


def test_tables():
    """Of one guest and of all, for people and for programs; they go on while it runs."""
    with hypervisor():
        if "no guest is running" not in command("latency"):
            raise Failure("without guests: " + command("latency"))
        detached("one")
        detached("two", "spin")
        until("tick", lambda: ticks("one")["n"] > 20)
        before, table, after = ticks("one"), rows(command("latency", "one")), ticks("one")
        row = table["one", "due to injected", "local APIC timers"]
        if not before["n"] <= row[0] <= after["n"] or row[1:] != sorted(row[1:]):
            raise Failure("%s, not between %s and %s" % (row, before, after))
        until("more ticks", lambda: ticks("1")["n"] > after["n"])
        for stage in "posted to injected", "injected to EOI":
            if ("one", stage, "local APIC timers") not in table:
                raise Failure("no %s: %s" % (stage, table))
        both = command("latency")
        if not re.search(r"^one \(1\)", both, re.M) or not re.search(r"^two \(2\).*\n  no interrupts$", both, re.M):
            raise Failure("of all: " + both)
        if [g["name"] for g in latency()] != ["one", "two"]:
            raise Failure("of all: %s" % latency())
        said = command("latency", "three", status=2)
        if "three: no guest of this name" not in said:
            raise Failure(said)
        command("destroy", "one")
        command("destroy", "two")


def at(buckets, rank):
    """The middle of the bucket in which the rank-th shortest time is."""
    for first, width, count in buckets:
        rank -= count
        if rank <= 0:
            return first + width // 2


def percentiles(buckets, tsc_hz):
    n = sum(count for _, _, count in buckets)
    found = {"n": n}
    for name, permille in PERCENTILES if n else ():
        found[name] = int(at(buckets, -(-n * permille // 1000)) * 1e9 / tsc_hz)
    return found


def test_of_a_file():
    """Each percentile is that of the histogram in the file, found by counting."""
    path = scratch.name(".json")
    command("run", "--quiet", "--timeout", "60", "--latency", path, *late(does="ticks=300 cpuid=40"))
    with open(path) as f:
        written = ast.literal_eval(f.read())
    shown = latency("-i", path)[0]["sources"]
    expected = {source: {stage: percentiles(buckets, written["tsc_hz"]) for stage, buckets in stages.items()}
                for source, stages in written["sources"].items()}
    if shown != expected or shown["lapic"]["due-entered"]["n"] != 300:
        raise Failure("shown %s, it is %s" % (shown, expected))
    with open(path) as f:
        broken = f.read()[:-100]
    if "is no file of" not in command("latency", "-i", scratch_file(broken), status=2):
        raise Failure("a file that is cut off is not refused")


def test_watch():
    """Only what comes in that time; Ctrl-C ends it early."""
    with hypervisor():
        detached("one")
        until("tick", lambda: ticks()["n"] > 1000)
        watched, whole = ticks("one", "--watch", "0.5"), ticks("one")
        if not 0 < watched["n"] <= whole["n"] - 1000:
            raise Failure("in half a second: %s of %s" % (watched, whole))
        start = time.monotonic()
        p = subprocess.Popen([BUILD + "/metronome", "latency", "one", "--watch", "1000"], stdout=subprocess.PIPE)
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=60 * PATIENCE)[0].decode()
        if p.returncode or ("one", "due to injected", "local APIC timers") not in rows(said):
            raise Failure("interrupted: status %s: %s" % (p.returncode, said))
        command("destroy", "one")


def texts(svg):
    """[(x, y, text)] of a drawing of gnuplot's."""
    return [(float(x), float(y), re.sub(r"<[^>]*>", "", text).strip()) for x, y, text in
            re.findall(r'<g transform="translate\(([\d.]+),([\d.]+)\)[^>]*>\s*<text>(.*?)</text>', svg, re.S)]


def test_plot():
    """Curves, and what came when; the legend is beside the data."""
    with hypervisor():
        detached("a\"b")
        until("tick", lambda: ticks()["n"] > 100)
        path = scratch.name(".svg")
        command("latency", "--watch", "2", "--plot", path, "1")
        with open(path) as f:
            svg = f.read()
        found = texts(svg)
        names = {text for _, _, text in found}
        wanted = {"local APIC timers", "local APIC timers: what came when", "50 %", "90 %", "99 %", "seconds", "interrupts", "time"}
        if not svg.rstrip().endswith("</svg>") or wanted - names:
            raise Failure("the drawing has no %s: %s" % (wanted - names, names))
        if not any(re.search(r"injected: a\?b, [\d.]+ s$", text) for text in names):
            raise Failure("no title: %s" % names)
        curve = max((re.findall(r"([\d.]+),[\d.]+", d) for d in re.findall(r" d='(M[^']*)'", svg)), key=len)
        legend = min(x for x, _, text in found if text == "local APIC timers")
        if len(curve) < 40 or legend <= max(map(float, curve)):
            raise Failure("the legend is at %s, the curve has %d points up to %s" % (legend, len(curve), curve[-1]))
        detached("two", "spin")
        if "a drawing is of one guest" not in command("latency", "--plot", path, status=2):
            raise Failure("of two guests")
        command("destroy", "1")
        command("destroy", "two")


if __name__ == "__main__":
    sys.exit(run_tests([test_tables, test_of_a_file, test_watch, test_plot]))
