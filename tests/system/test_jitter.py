#!/usr/bin/env python3
"""
A sample of the jitter benchmark (tests/bench/jitter.py): every timer source has its figures, none is ever early, alone and beside a
storm on the same CPU; and TSC deadlines are as near as they are meant to be. Time is instructions, so that the same
build always gives the same figures.
"""
# limit: 300
# run: check
import os
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
sys.path.insert(0, "tests/bench")
from jitter import GOAL, alone, beside, table  # noqa: E402
from machine import Failure  # noqa: E402

SOURCES = ["TSC deadline, computing", "TSC deadline, halted", "local APIC timer, one-shot", "local APIC timer, periodic",
           "PIT, I/O APIC", "PIT, PIC", "HPET, I/O APIC", "HPET, FSB", "RTC, I/O APIC"]
KNOWN = {"PIT, I/O APIC": 838, "PIT, PIC": 838, "HPET, I/O APIC": 70, "HPET, FSB": 70}  # how long one of the clock's ticks is
TIME = 90  # seconds for each run; a quiet machine takes two


def result(name, wrong):
    print("%s %s%s" % ("not ok" if wrong else "ok", name, ": " + wrong if wrong else ""))


def sample(title, run, sources):
    try:
        found = run()
    except Failure as e:
        result(title, str(e).split("\n")[0])
        return {}
    table(title, found)
    result(title + ": every source has figures", "" if sorted(found) == sorted(sources) else "there are %s" % sorted(found))
    for name, f in found.items():
        n = sum(count for _, count in f["curve"])
        result("%s: %s: never early" % (title, name), "" if f["earliest"] >= 0 and n == f["n"] else "earliest %d of %d, in the curve %d"
               % (f["earliest"], f["n"], n))
        if name in KNOWN:
            result("%s: %s: its phase is known to a tick" % (title, name), "" if f["doubt"] <= KNOWN[name] else "to %d" % f["doubt"])
    return found


sample("alone", lambda: alone(50, "lapic pit hpet rtc", TIME), SOURCES[2:])
for name, f in sample("TSC deadlines alone", lambda: alone(1000, "tsc", TIME), SOURCES[:2]).items():
    for k, most in GOAL.items():
        result("%s: %s at most %d" % (name, k, most), "" if f[k] <= most else "it is %d" % f[k])
sample("TSC deadlines beside exits", lambda: beside("exits", 50, "tsc", TIME), SOURCES[:2])
