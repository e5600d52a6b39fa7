#!/usr/bin/env python3
"""The latency ledger against a guest that measures the same from inside (tests/guest/latency), and as users run it.

With exact time (a TSC tick is an instruction) a handler's reading of the TSC is a fixed number of instructions behind the entry
that injects: what the hypervisor shows lies that far below what the guest measures, at each percentile, within its 1 %. In real
time it is at most what the guest measures. The histograms of --latency are those that the table is made from.
"""
# limit: 300
# run: check
import json
import os
import re
import subprocess
import sys
import tempfile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
BUILD = os.environ.get("B", "build")
QEMU = ("qemu-system-x86_64 -accel tcg -cpu max -m 256 -nodefaults -display none -no-reboot -serial stdio "
        "-icount shift=0,sleep=off -device isa-debug-exit,iobase=0xf4,iosize=4").split()
SHOWN = {"lapic": ("local APIC timers", "due"), "ipi": ("IPI", "posted"), "hpet": ("HPET comparators", "due")}
TIMES = ("p50", "p99", "p99.9", "max")
# Instructions from the entry to the handler's reading. The HPET's due time is known to one read of its counter; an IPI's post
# lies behind the exit that sends it, or two, so that the guest measures more.
BEHIND = {"lapic": (50, 200), "hpet": (50, 6000), "ipi": (50, 12000)}


def output_of(command, **environment):
    try:
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=140,
                           env=dict(os.environ, **environment))
    except subprocess.TimeoutExpired:
        return ""
    return p.stdout.decode(errors="replace").replace("\r", "")


def standalone():
    return output_of(QEMU + ["-kernel", BUILD + "/metronome.elf", "-append", "exit=0xf4 mem=64",
                             "-initrd", BUILD + "/guest/latency.elf strict"])


def as_users_run_it():
    """What it prints, and the histograms."""
    with tempfile.TemporaryDirectory(prefix="metronome-test.") as folder:
        output = output_of([BUILD + "/metronome", "run", "--memory", "32M", "--timeout", "120", "--latency", folder + "/histograms",
                            "--module", BUILD + "/guest/latency.elf"], METRONOME_RUNTIME_DIR=folder + "/runtime")
        try:
            with open(folder + "/histograms") as f:
                return output, json.load(f)
        except (OSError, ValueError) as e:
            return output, {"error": str(e)}


def measured(output, source):
    m = re.search(r"^measured %s: n (\d+) p50 (\d+) p99 (\d+) p99\.9 (\d+) max (\d+)$" % source, output, re.M)
    return [int(x) for x in m.groups()] if m else None


def shown(output, source):
    m = re.search(r"^ *%s +%s((?: +\d+){5})$" % SHOWN[source], output, re.M)
    return [int(x) for x in m.group(1).split()] if m else None


def wrong(source, inside, outside, exact):
    """What is, or None."""
    if not inside or not outside:
        return "no figures"
    if inside[0] != outside[0]:
        return "%d are counted, %d came" % (outside[0], inside[0])
    for name, i, o in zip(TIMES, inside[1:], outside[1:]):
        least, most = BEHIND[source] if exact else (0, i)
        if not i - most - i / 100 <= o <= i - least + i / 100:
            return "%s is %d, measured %d" % (name, o, i)
    return "the percentiles are in no order" if outside[1:] != sorted(outside[1:]) else None


def check(name, output, exact):
    print("# " + name)
    print(output)
    ended = re.search(r"^guest: \d+ passed, 0 failed$", output, re.M)
    print("%s %s: the guest comes to its end" % ("ok" if ended else "not ok", name))
    for source in SHOWN:
        inside, outside = measured(output, source), shown(output, source)
        why = wrong(source, inside, outside, exact)
        print("%s %s, %s: %s" % ("not ok" if why else "ok", name, source, why or "measured %s, shown %s" % (inside, outside)))


def at(buckets, rank):
    """The middle of the bucket in which the rank-th shortest time is."""
    for first, width, count in buckets:
        rank -= count
        if rank <= 0:
            return first + width // 2
    return None


def check_file(histograms, output):
    for source in SHOWN:
        stages, outside = histograms.get("sources", {}).get(source, {}), shown(output, source)
        n = {stage: sum(b[2] for b in buckets) for stage, buckets in stages.items()}
        main = stages.get(SHOWN[source][1] + "-entered", [])
        ns = [int((at(main, rank) or 0) * 1e9 / histograms.get("tsc_hz", 1)) for rank in (500, 990, 999, 1000)]
        came = {"due-entered": 1000 if source != "ipi" else 0, "posted-entered": 1000, "entered-eoi": 1000}
        ok = outside and ns == outside[1:] and n.pop("entered-again", -1) >= 0 and 0 <= n.pop("exit-entered", -1) <= 1000 and n == came
        print("%s --latency FILE, %s: %s, %s" % ("ok" if ok else "not ok", source, n, ns))


check("exact time", standalone(), True)
output, histograms = as_users_run_it()
check("metronome run", output, False)
check_file(histograms, output)
