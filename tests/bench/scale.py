#!/usr/bin/env python3
"""
What operations cost as work grows: a guest with 1 to 64 vCPUs, and beside up to 7 other guests (there are 8 slots), all on one CPU, in instructions; the
hypervisor's memory for a guest; and how much trace an exit writes. What is not flat is marked.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import BUILD, Failure, metronome, progress, versions  # noqa: E402
from micro import figures, save  # noqa: E402
from profile import GUEST  # noqa: E402

STORM = BUILD + "/guest/storm.elf"
VCPUS, GUESTS, MEMORY_VCPUS = (1, 2, 4, 8, 16, 64), (1, 2, 4, 8), (1, 2, 4, 8, 16, 64)
WORDS = "exits ipis x2apic storms samples=5"
LIMIT = 600
FLAT = 1.05  # the most by the least
BROADCAST = "IPI to all others, halted: the last one's"
ROWS = ["CPUID", "ELCR read", "xAPIC EOI, nothing in service", "x2APIC self-IPI", "IPI to a halted vCPU", "IPI to a running vCPU", BROADCAST,
        "TSC deadline: taken from the guest", "local APIC timer: per tick", "PIT: per tick"]
EACH = BROADCAST + ", by receivers"


def measure(vcpus, guests, neighbour):
    """The first guest's figures, beside others that do what the words say."""
    modules = ["%s %s cpus=%d" % (GUEST, WORDS, vcpus)] + ["%s %s" % (STORM, neighbour)] * (guests - 1)
    options = "tsc_hz=1000000000 mem=32 vcpus=%d guests=%s until=0" % (vcpus, ",".join(map(str, range(guests))))
    log = "scale-%d-%d%s" % (vcpus, guests, "-" + neighbour if guests > 1 else "")
    output = metronome(modules, options, LIMIT, log, memory=256 + 40 * guests)
    found, _ = figures(re.sub(r"^0: ", "", output, flags=re.M))
    medians = {name: found[name]["p50"] for name in ROWS if name in found}
    if BROADCAST in medians:
        medians[EACH] = medians[BROADCAST] // (vcpus - 1)
    return medians


def table(title, counts, columns):
    """Ticks beside others that compute are left out: their slices would be in them."""
    print("\n%-66s" % title + "".join("%11d" % n for n in counts))
    for name in ROWS + [EACH]:
        values = [c[name] for c in columns if name in c]
        if not values or ("computing" in title and "per tick" in name):
            continue
        growth = max(values) / max(min(values), 1)
        print("%-66s" % name + "".join("%11s" % c.get(name, "-") for c in columns) + ("   flat" if growth <= FLAT else "   x %.2f" % growth))


def run_tool(*arguments):
    p = subprocess.run([BUILD + "/metronome", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    if p.returncode:
        raise Failure("metronome %s: %s" % (arguments[0], p.stdout.decode().strip()))
    return p.stdout.decode()


def free_kib():
    return int(re.search(r"^hypervisor_free_kib *: (\d+)", run_tool("info"), re.M).group(1))


def memory():
    """vCPUs -> KiB of the hypervisor's memory that a guest of so many takes."""
    with tempfile.TemporaryDirectory(prefix="metronome-bench.") as folder:
        os.environ["METRONOME_RUNTIME_DIR"] = folder
        run_tool("up")
        try:
            return {n: memory_of(n) for n in MEMORY_VCPUS}
        finally:
            run_tool("down")


def memory_of(vcpus):
    before = free_kib()
    run_tool("run", "--detach", "--name", "one", "--module", STORM, "--append", "halt", "--memory", "64", "--vcpus", str(vcpus))
    took = before - free_kib()
    run_tool("destroy", "one")
    end = time.monotonic() + 60
    while free_kib() != before:
        if time.monotonic() > end:
            raise Failure("a guest of %d vCPUs has not given its memory back" % vcpus)
    return took


def trace():
    """(bytes of trace, exits) of a run in which everything is traced."""
    with tempfile.TemporaryDirectory(prefix="metronome-bench.") as folder:
        output = run_tool("run", "--deterministic", "--module", GUEST, "--memory", "32", "--append", "samples=5", "--trace", folder + "/trace")
        size = os.path.getsize(folder + "/trace")
    return size, int(re.search(r"^  exits +(\d+)", output, re.M).group(1))


def main():
    results = {"versions": versions()}
    print("; ".join("%s %s" % v for v in results["versions"].items()))
    for title, counts, run in (("instructions, by vCPUs of the guest", VCPUS, lambda n: measure(n, 1, "halt")),
                               ("instructions, by guests, the others halted", GUESTS, lambda n: measure(1, n, "halt")),
                               ("instructions, by guests, the others computing", GUESTS, lambda n: measure(1, n, "compute"))):
        progress(title)
        results[title] = {n: run(n) for n in counts}
        table(title, counts, list(results[title].values()))
    progress("memory")
    results["memory"] = taken = memory()
    print("\nthe hypervisor's memory for a guest, KiB, by vCPUs: " + ", ".join("%d: %d" % v for v in taken.items()))
    print("that is %.0f and %.0f for each vCPU" % (2 * taken[1] - taken[2], (taken[64] - taken[1]) / 63))
    size, exits = trace()
    results["trace"] = {"bytes": size, "exits": exits}
    print("the trace, everything traced: %d bytes for %d exits, %.0f each" % (size, exits, size / exits))
    save("scale", results)
    print("\nbuild/bench/scale.json")


if __name__ == "__main__":
    try:
        main()
    except Failure as e:
        sys.exit("bench: %s" % e)
