#!/usr/bin/env python3
"""
How late timers' interrupts are, in instructions: tests/guest/jitter alone, beside tests/guest/storm on the same CPU, and under KVM
in the same outer QEMU; then cyclictest in a Linux guest on both; then, in time, beside a storm on another CPU. Prints tables;
build/bench/jitter.json has all of it, with every sample, build/bench/jitter.svg the percentiles as curves.

usage: jitter.py [--samples N] [--no-peer] [--no-cyclictest] [--no-neighbour]
"""
import argparse
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import BUILD, Failure, INNER, VMLINUZ, archive, kvm, metronome, progress, timed, versions  # noqa: E402

GUEST, STORM = BUILD + "/guest/jitter.elf", BUILD + "/guest/storm.elf"
FIGURES = ("p50", "p99", "p99.9", "max")
GOAL = {"p50": 60, "p99": 300, "max": 1000}  # of TSC deadlines
ALL = "all of it"
STORMS = {ALL: "", "compute": "compute", "ipi": "ipi", "exits": "exits", "timers": "timers compute"}
LIMIT = 1500
CYCLES, CYCLE_US = 1000, 1000
MEASURE = """#!/bin/sh
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
cyclictest -q -m -N -p 99 -i %d -l %d -h 200000 --histfile=/dev/null --json=/tmp/json
cat /tmp/json
""" % (CYCLE_US, CYCLES)
LINUX = "console=ttyS0 quiet clocksource=tsc tsc=reliable mt.run=measure mt.test=poweroff"


def figures(output, who="", whole=True):
    """source -> its figures and its curve: pairs of lateness and how many samples had it. Of a part of a run those that are in it."""
    found = {}
    for name, text in re.findall(r"^%sjitter (.+?): (.*)$" % who, output, re.M):
        words = text.split()
        found[name] = dict(zip(words[::2], map(int, words[1::2])), curve=[])
    for name, text in re.findall(r"^%scurve (.+?): (.*)$" % who, output, re.M):
        if name in found:
            found[name]["curve"] += [list(map(int, pair.split("x"))) for pair in text.split()]
    if not found or (whole and not re.search(r"^%sguest: \d+ passed" % who, output, re.M)):
        raise Failure("the guest did not come to its end:\n" + output[-2000:])
    return found


def alone(samples, words="", limit=LIMIT):
    return figures(metronome(["%s %s samples=%d" % (GUEST, words, samples)], "mem=32", limit, "jitter"))


def beside(storm, samples, words="", limit=LIMIT):
    modules = ["%s %s samples=%d" % (GUEST, words, samples), "%s %s" % (STORM, STORMS[storm])]
    return figures(metronome(modules, "mem=32 guests=0,1 until=0", limit, "jitter-" + storm.replace(" ", "-")), "0: ")


def on_kvm(samples, words="", storm=None):
    guest = INNER + " -m 64 -debugcon stdio -kernel /guest/jitter.elf -append 'hz=1000000000 samples=%d %s'\n" % (samples, words)
    neighbour = INNER + " -m 64 -debugcon file:/tmp/storm -kernel /guest/storm.elf -append '%s' </dev/null &\n"
    script = guest if storm is None else neighbour % STORMS[storm] + guest + "kill $!\n"
    log = "jitter-kvm" + ("-" + storm.replace(" ", "-") if storm else "")
    return figures(kvm(script, {"guest/jitter.elf": GUEST, "guest/storm.elf": STORM}, LIMIT, log, "jitter "), whole=False)


def neighbour_of_ours(samples, storms):
    """TSC deadlines on one CPU, alone or with a storm on the other, in TSC ticks."""
    modules = ["%s tsc samples=%d" % (GUEST, samples)] + [STORM] * storms
    output = metronome(modules, "mem=32 until=0 guests=" + ",".join(str(i) for i in range(len(modules))), LIMIT,
                       "neighbour-%d" % storms, outer=timed(2))
    return figures(output, "0: " if storms else "")


def neighbour_of_kvm(samples, storms):
    guest = INNER + " -m 64 -debugcon stdio -kernel /guest/jitter.elf -append 'samples=%d tsc'\n" % samples
    storm = "taskset 2 " + INNER + " -m 64 -debugcon file:/tmp/storm -kernel /guest/storm.elf </dev/null &\n"
    script = storm * storms + "taskset 1 " + guest + "kill $!\n" * storms
    output = kvm(script, {"guest/jitter.elf": GUEST, "guest/storm.elf": STORM}, LIMIT, "neighbour-kvm-%d" % storms, "jitter ",
                 outer=timed(2))
    return figures(output, whole=False)


def neighbours(samples, peer):
    """What is in the table is the machine below as well: only what the storm makes of it, by ratio, says something."""
    results = {}
    for who, run in [("Metronome", neighbour_of_ours)] + ([("KVM", neighbour_of_kvm)] if peer else []):
        progress("%s, a storm on the other CPU, in time" % who)
        quiet, stormy = run(samples, 0), run(samples, 1)
        results[who] = {"alone": quiet, "beside": stormy}
        table(who + ", in time, TSC ticks", {"%s, %s" % (name[len("TSC deadline, "):], at): f[name]
                                             for name in quiet for at, f in [("alone", quiet), ("beside", stormy)]})
        ratios("%s: beside a storm on the other CPU, by alone" % who, quiet, stormy)
    return results


def cyclictest_files():
    """cyclictest with its libraries, behind the test guest's initramfs."""
    program = "/usr/bin/cyclictest"
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True).stdout.decode()
    paths = [program] + re.findall(r"(/\S+) \(", text)
    path = BUILD + "/bench/cyclictest.gz"
    with open(BUILD + "/images/initramfs.cpio.gz", "rb") as f:
        content = f.read() + archive(dict({("bin/cyclictest" if p == program else p[1:]): p for p in paths}, **{"bin/measure": MEASURE}))
    with open(path, "wb") as f:
        f.write(content)
    return path


def cyclictest_figures(output):
    m = re.search(r"^\{$.*?^\}$", output, re.M | re.S)
    if not m:
        raise Failure("no figures of cyclictest:\n" + output[-2000:])
    thread = json.loads(m.group(0))["thread"]["0"]
    curve = sorted((int(ns), n) for ns, n in thread["histogram"].items())
    counted, at = sum(n for _, n in curve), {}
    for name, part in zip(FIGURES, (0.5, 0.99, 0.999)):
        left = part * thread["cycles"]
        for ns, n in curve:
            left -= n
            if left <= 0:
                at[name] = ns
                break
        else:
            at[name] = thread["max"]
    return dict(at, max=thread["max"], n=thread["cycles"], over=thread["cycles"] - counted, earliest=thread["min"],
                curve=[list(c) for c in curve])


def cyclictest(peer):
    initrd = cyclictest_files()
    progress("cyclictest in Linux on Metronome")
    ours = cyclictest_figures(metronome(["%s %s" % (VMLINUZ, LINUX), initrd], "mem=256", LIMIT, "cyclictest", memory=1024))
    if not peer:
        return ours, None
    progress("cyclictest in Linux on KVM")
    inner = "%s -m 256 -serial stdio -kernel /guest/vmlinuz -initrd /guest/initrd -append '%s'" % (INNER, LINUX)
    output = kvm(inner, {"guest/vmlinuz": VMLINUZ, "guest/initrd": initrd}, LIMIT, "cyclictest-kvm")
    return ours, cyclictest_figures(output)


def row(name, *columns):
    print("%-28s" % name + " ".join("%10s" % c for c in columns))


def table(title, results):
    print("\n" + title)
    row("", *FIGURES, "earliest", "doubt")
    for name, f in results.items():
        row(name, *[f[k] for k in FIGURES], f["earliest"], f.get("doubt", 0))


def ratios(title, ours, theirs):
    """Of what is counted from the same moment: the peer's periodic timers are counted from their own earliest tick."""
    print("\n" + title)
    row("", *FIGURES)
    for name in [n for n in ours if n in theirs and n.startswith(("TSC", "HPET", "cyclictest"))]:
        row(name, *["%.2f" % (theirs[name][k] / max(ours[name][k], 1)) for k in FIGURES])


def spreads(title, ours, theirs):
    """How far above its median each one's tail is: that needs no moment to count from."""
    print("\n" + title)
    row("", *["%s %s" % (who, k) for k in FIGURES[1:] for who in ("ours", "KVM")])
    for name in [n for n in ours if n in theirs]:
        row(name, *[f[k] - f["p50"] for k in FIGURES[1:] for f in (ours[name], theirs[name])])


def goals(results):
    """What is aimed at for TSC deadlines, and whether it holds."""
    print("\nGoals, TSC deadlines")
    quiet, stormy = results["metronome"]["alone"], results["metronome"]["beside"]
    met = {}
    for name in [n for n in quiet if n.startswith("TSC")]:
        for k, most in GOAL.items():
            met["%s: %s at most %d" % (name, k, most)] = (quiet[name][k], quiet[name][k] <= most)
        met[name + ": never early"] = (quiet[name]["earliest"], quiet[name]["earliest"] >= 0)
        for storm, f in stormy.items():
            met["%s: p99 beside %s no worse than alone" % (name, storm)] = (f[name]["p99"], f[name]["p99"] <= quiet[name]["p99"])
    for text, (value, held) in met.items():
        print("  %-72s %10d  %s" % (text, value, "met" if held else "MISSED"))
    return {text: {"value": v, "met": m} for text, (v, m) in met.items()}


def plot(results, path):
    """Lateness over the part of the samples that are later, both logarithmic."""
    lines = []
    for label, sources in [("Metronome", results["metronome"]["alone"]),
                           ("beside a storm", results["metronome"]["beside"].get(ALL, {})),
                           ("KVM", results.get("kvm", {}).get("alone", {}))]:
        lines += [(label + ", " + name, f) for name, f in sources.items() if name.startswith(("TSC deadline, comp", "PIT, I/O", "HPET, I/O"))]
    script = ["set terminal svg size 1100,700 font 'sans,12' background 'white'", "set output '%s'" % path, "set logscale xy",
              "set xlabel 'part of the samples that are later'", "set ylabel 'lateness, instructions'", "set xrange [1:0.0005] reverse",
              "set key outside right", "set grid", "set xrange [1:0.0005]"]
    script.append("plot " + ", ".join("'-' with steps lw 2 title '%s'" % label for label, f in lines))
    for _, f in lines:
        left = n = sum(c for _, c in f["curve"])
        for late, count in f["curve"]:
            script.append("%g %d" % (left / n, max(late, 1)))
            left -= count
        script.append("e")
    subprocess.run(["gnuplot"], input="\n".join(script).encode(), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--no-cyclictest", action="store_true")
    parser.add_argument("--no-neighbour", action="store_true")
    options = parser.parse_args()
    os.makedirs(BUILD + "/bench", exist_ok=True)
    results = {"versions": versions(), "samples": options.samples, "metronome": {"beside": {}}}
    print("; ".join("%s %s" % v for v in results["versions"].items()))
    print("lateness in instructions, %d samples each" % options.samples)
    progress("Metronome, alone")
    results["metronome"]["alone"] = alone(options.samples)
    table("Metronome, alone", results["metronome"]["alone"])
    for name in STORMS:
        progress("Metronome, beside a storm: " + name)
        results["metronome"]["beside"][name] = beside(name, options.samples, "" if name == ALL else "tsc")
        table("Metronome, beside a storm: " + name, results["metronome"]["beside"][name])
    if not options.no_peer:
        progress("KVM, alone")
        quiet = on_kvm(options.samples)
        progress("KVM, beside a storm: " + ALL)
        stormy = on_kvm(options.samples, "tsc", ALL)
        results["kvm"] = {"alone": quiet, "beside": {ALL: stormy}}
        table("KVM, alone (at least, where there is doubt)", quiet)
        table("KVM, beside a storm: " + ALL, stormy)
        ratios("KVM by Metronome, alone", results["metronome"]["alone"], quiet)
        spreads("Above the median, alone", results["metronome"]["alone"], quiet)
        ratios("KVM by Metronome, beside a storm", results["metronome"]["beside"][ALL], stormy)
    if not options.no_cyclictest:
        ours, theirs = cyclictest(not options.no_peer)
        results["cyclictest"] = {"metronome": ours, "kvm": theirs}
        table("cyclictest in Linux, ns", {k: v for k, v in [("Metronome", ours), ("KVM", theirs)] if v})
        if theirs:
            ratios("KVM by Metronome", {"cyclictest": ours}, {"cyclictest": theirs})
    if not options.no_neighbour:
        results["neighbour"] = neighbours(options.samples, not options.no_peer)
    results["goals"] = goals(results)
    with open(BUILD + "/bench/jitter.json", "w") as f:
        json.dump(results, f, indent=1)
    plot(results, BUILD + "/bench/jitter.svg")
    print("\nbuild/bench/jitter.json, build/bench/jitter.svg")


if __name__ == "__main__":
    try:
        main()
    except Failure as e:
        sys.exit("bench: %s" % e)
