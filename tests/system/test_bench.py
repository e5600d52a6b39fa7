#!/usr/bin/env python3
"""
The micro-benchmark (tests/bench/micro.py) measures what it says: each operation has figures, none is absurd, the same build gives the
same ones, and what the guest measures is what the hypervisor is seen to execute. How fast anything is, is no part of it.
"""
# limit: 600
# run: check
import os
import re
import sys
import tempfile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
sys.path.insert(0, "tests/bench")
from machine import BUILD, Failure  # noqa: E402
from micro import GOALS, TIMER, TIMER_OF, WAITERS, costs, figures, judge, ours, plot  # noqa: E402
from profile import Image  # noqa: E402

ABSURD = 10 ** 6  # instructions: no operation without a device model takes a millisecond
AROUND = 60  # the guest's own instructions in an operation
TICKED = 3  # operations in whose only profiled run a clock came to its next tick or second


def result(name, wrong):
    print("%s %s%s" % ("not ok" if wrong else "ok", name, ": " + wrong if wrong else ""))


def sources():
    """The operations that the guest's sources name."""
    text = ""
    for name in ("exits", "interrupts", "storms", "cpus"):
        with open("tests/guest/bench/%s.c" % name) as f:
            text += f.read()
    return re.findall(r'\{"([^"]+)", \w+, \w+, \w+\}', text)


def check_figures(title, found, named):
    result(title + ": every operation has figures", ", ".join(n for n in named if n not in found))
    for name, f in found.items():
        sane = 0 <= f["min"] <= f["p50"] <= f["p99"] <= f["max"] < ABSURD
        result("%s: %s" % (title, name), "" if sane else str(f))


def check_profile(found, counted):
    """Of an operation that always takes the same: the guest's ticks are the hypervisor's instructions and a few of its own."""
    same = [n for n, f in found.items() if f["min"] == f["max"] and n in counted and counted[n]["exits"]
            and "taken" not in n and "late" not in n and "per tick" not in n]
    result("operations are profiled", "" if len(same) > 30 else "only %s" % same)
    apart = {n: found[n]["p50"] - sum(counted[n]["exits"]) for n in same}
    apart = {n: beside for n, beside in apart.items() if abs(beside) > AROUND}
    result("measured is what is executed", "" if len(apart) <= TICKED else "%d of %d are apart: %s" % (len(apart), len(same), apart))


def check_judging():
    result("a goal that is met", "" if all(met for _, _, met in judge("CPUID", {"p50": 180})) else "is not seen")
    result("a goal that is missed", "is not seen" if all(met for _, _, met in judge("CPUID", {"p50": 181})) else "")
    early = dict.fromkeys(("p50", "p99", "max"), 0) | {"min": -1}
    result("an interrupt that is early", "" if ("min", 0, False) in judge("TSC deadline: lateness", early) else "is not seen")
    try:
        figures("bench CPUID: n 2 min 1 p50 1 p99 1 max 1\nnot ok x: y\nguest: 0 passed, 1 failed\n")
        result("a guest that fails", "is not seen")
    except Failure:
        result("a guest that fails", "")


def check_plot(found):
    """Also of operations that only one has."""
    with tempfile.TemporaryDirectory(prefix="metronome-test.") as folder:
        plot("it's a title", "instructions", {"one": found, "two": {"CPUID": found["CPUID"]}}, folder + "/plot.png")
        with open(folder + "/plot.png", "rb") as f:
            image = f.read()
    result("the plot is an image", "" if image[:4] == b"\x89PNG" and len(image) > 10000 else "%d bytes" % len(image))


def main():
    check_judging()
    named = sources()
    found, skipped = ours(20, "cpus=3", "vcpus=3")
    check_figures("figures", found, named)
    result("without a device model that is said", "" if any(s.startswith("device model:") for s in skipped) else str(skipped))
    again, _ = ours(20, "cpus=3", "vcpus=3", "micro-again")
    result("the same figures again", ", ".join(n for n in found if found[n] != again.get(n)))
    one, _ = ours(20)
    image = Image(os.path.join(BUILD, "metronome.elf64"))
    result("who waits for a due moment is known by its name", "" if any(n.startswith(WAITERS) for _, n in image.functions) else "nobody is")
    counted = costs(image)
    check_profile(one, counted)
    check_plot(found)
    result("every goal has an operation", ", ".join(n for n in GOALS if n != TIMER and n not in one))
    result("a timer's interrupt is profiled", "" if sum(counted[TIMER_OF]["exits"]) else "it is not")


try:
    main()
except Failure as e:
    result("the benchmark runs", str(e).split("\n")[0])
