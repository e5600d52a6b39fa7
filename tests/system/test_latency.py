#!/usr/bin/env python3
"""The latency ledger against a guest that measures the same from inside (tests/guest/latency), and as users run it.

With exact time (a TSC tick is an instruction) a handler's reading of the TSC is a fixed number of instructions behind the entry
that injects: what the hypervisor shows lies that far below what the guest measures, at each percentile, within its 1 %.
"""
# limit: 300
# run: check
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
    with tempfile.TemporaryDirectory(prefix="metronome-test.") as folder:
        return output_of([BUILD + "/metronome", "run", "--memory", "32M", "--timeout", "120", "--module", BUILD + "/guest/latency.elf"],
                         METRONOME_RUNTIME_DIR=folder + "/runtime")


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
    for name, i, o in list(zip(TIMES, inside[1:], outside[1:]))[:None if exact else 0]:
        least, most = BEHIND[source]
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


check("exact time", standalone(), True)
check("metronome run", as_users_run_it(), False)
