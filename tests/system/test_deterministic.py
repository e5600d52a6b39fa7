#!/usr/bin/env python3
"""`metronome run --deterministic`: the same inputs give the same console, trace, histograms and closing table, to the byte, and
other inputs do not. The trace is read by xenalyze, whose counts must be those of the closing table; and what the trace costs is
read from it, as its TSC counts instructions.
"""
# limit: 600
# run: check
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import xen_trace
from xen_trace import CPUID, LOST, VMENTRY, VMEXIT, VMEXIT64

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
BUILD = os.environ.get("B", "build")
LONG = os.environ.get("METRONOME_TESTS", "test") != "check"
LINUX = ["--module", BUILD + "/images/vmlinuz", "--initrd", BUILD + "/images/initramfs.cpio.gz", "--memory", "256",
         "--append", "console=ttyS0 mt.test=poweroff"]
TSC_HZ = 10 ** 9
EXIT_OF_CPUID = 0x72


def report(good, name, what=""):
    print("%s %s%s" % ("ok" if good else "not ok", name, ": " + str(what) if what else ""))
    return good


class Run:
    """One run: its exit status, and what it left."""

    def __init__(self, *arguments, **environment):
        with tempfile.TemporaryDirectory(prefix="metronome-test.") as folder:
            p = subprocess.run([BUILD + "/metronome", "run", "--deterministic", "--trace", folder + "/trace", "--latency", folder + "/latency",
                                *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               timeout=380, env=dict(os.environ, METRONOME_RUNTIME_DIR=folder, **environment))
            self.status = p.returncode
            self.left = {"console": p.stdout, "table": p.stderr}
            for name in ("trace", "latency"):
                with open(folder + "/" + name, "rb") as f:
                    self.left[name] = f.read()
        self.table = p.stderr.decode()

    def records(self):
        return xen_trace.records(self.left["trace"])


def check_same(name, *arguments, end=rb"guest: \d+ passed, 0 failed"):
    """Two runs at once, so that each disturbs the other; returns one of them."""
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda _: Run(*arguments), range(2))
    report(a.status == 0 and re.search(end, a.left["console"]), name + ": to its end", a.status)
    for what in a.left:
        report(len(a.left[what]) > 100 and a.left[what] == b.left[what], "%s: the same %s" % (name, what), "%d bytes" % len(a.left[what]))
    return a


def check_others(name, a, *arguments):
    """What another input changes."""
    b = Run(*arguments)
    same = [what for what in a.left if a.left[what] == b.left[what]]
    report(b.status == 0 and "trace" not in same, name + ": another run", "the same are " + str(same))


def check_xenalyze(name, run):
    with tempfile.NamedTemporaryFile() as f:
        f.write(run.left["trace"])
        f.flush()
        summary = xen_trace.Summary(f.name, TSC_HZ)
    print("\n".join("# " + line for line in summary.text.split("\n")[:60]))
    report(summary.status == 0 and not summary.complaints, name + ": xenalyze reads it", "; ".join(summary.complaints))
    for what, theirs, ours, agree in summary.against(run.table):
        report(agree, "%s: %s" % (name, what), "%d, counted %d" % (theirs, ours))


def check_records(name, run):
    """Every exit of a vCPU lies between two entries, time never goes back, and nothing is lost."""
    last, inside, wrong, events = 0, False, 0, Counter()
    for _, event, tsc, _ in run.records():
        events[event] += 1
        wrong += tsc is not None and tsc < last
        last = tsc or last
        if event in (VMENTRY, VMEXIT, VMEXIT64):
            wrong += inside == (event == VMENTRY)
            inside = event == VMENTRY
    report(not wrong and events[VMENTRY] > 100 and not events[LOST], name + ": its records", "%d, %d wrong" % (sum(events.values()), wrong))


def check_timers(name, run):
    """Each timer that a guest starts ticks when its start says, unless it is started or stopped again before."""
    for timer, (start, at, words, stop, source) in xen_trace.TIMERS.items():
        due, checked, starts, wrong = {}, 0, 0, []
        for _, event, tsc, own in run.records():
            number = 0 if timer != "HPET" else own[1] & 0xffff if event == xen_trace.TICKS else own[0] if event in (start, stop) else None
            if event == start:
                starts += 1
                due[number] = tsc + sum(w << 32 * i for i, w in enumerate(own[at:at + words]))
            elif event == stop:
                due.pop(number, None)
            elif event == xen_trace.TICKS and own[0] == source and number in due:
                checked += 1
                late = tsc - due.pop(number)
                if not -8000 <= late <= 40000:
                    wrong.append(late)
        report(checked and not wrong, "%s: %s starts" % (name, timer), "%d, %d checked, wrong: %s" % (starts, checked, wrong[:5]))


def least_cpuid(run):
    """Instructions from the exit to the entry of the shortest CPUID."""
    since, least = None, None
    for _, event, tsc, words in run.records():
        if event in (VMEXIT, VMEXIT64):
            since = tsc if words[0] == EXIT_OF_CPUID else None
        elif event == VMENTRY and since:
            least = min(least or tsc - since, tsc - since)
            since = None
    return least


def check_cost_on():
    """Of the record with the most words, which CPUID makes: against the same run without it."""
    guest = ["--module", BUILD + "/guest/cpuid.elf", "--memory", "32"]
    without, with_it = (least_cpuid(Run(*guest, METRONOME_APPEND="trace=" + mask)) for mask in ("0x81000", "0x83000"))
    report(without and with_it and 0 < with_it - without <= 60, "an event that is on costs at most 60 instructions",
           "CPUID %s without, %s with" % (without, with_it))


def check_cost_off():
    """In the code: the look at what is on is one instruction that tests memory, or a load and a test, and a branch. Others may
    stand between these."""
    p = subprocess.run("objdump -d --no-show-raw-insn %s/metronome.elf64; nm %s/metronome.elf64" % (BUILD, BUILD), shell=True,
                       stdout=subprocess.PIPE, check=True)
    text = p.stdout.decode()
    address = int(re.search(r"^([0-9a-f]+) \w trace_groups$", text, re.M).group(1), 16)
    code = re.findall(r"^ *[0-9a-f]+:\t(\S+)(.*)$", text, re.M)
    places, wrong = 0, []
    for i, (name, operands) in enumerate(code):
        if not re.search(r"0x%x\b|<trace_groups>" % address, operands):
            continue
        if name == "mov" and operands.lstrip().startswith("%"):
            continue  # it is set there
        until = next((k for k in range(i + 1, i + 8) if code[k][0].startswith("j")), i + 8)
        if code[until][0] == "jmp":
            continue  # back from where a record has been written
        places += 1
        tests = [n for n, _ in code[i:until] if re.match("test|and|cmp|shr|bt", n)]
        if until == i + 8 or len(tests) != 1:
            wrong.append(code[i:until + 1])
    report(places > 30 and not wrong, "an event that is off costs at most 3 instructions", "%d places, not: %s" % (places, wrong))


REFUSED = [["--disk", "x"], ["--cdrom", BUILD + "/metronome.elf"], ["--nic", "e1000"], ["--vnc", ":9"], ["--qmp", "/tmp/x"], ["--vga", "std"],
           ["--serial", "none"], ["--qemu-arg", "-S"], ["--timeout", "5"], ["--expect", "x"], ["--detach"], ["--memory", "2G"],
           ["--append", "x" * 1500]]


def check_refusals():
    module = ["--module", BUILD + "/guest/cpuid.elf"]
    cases = [module + refused for refused in REFUSED] + [["--disk", BUILD + "/images/linux.img"], []]
    for words in cases:
        p = subprocess.run([BUILD + "/metronome", "run", "--deterministic"] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
        said = p.stderr.decode()
        report(p.returncode == 2 and re.fullmatch(r"metronome: .+\n", said), "refused: " + " ".join(w[:30] for w in words[2:] or words),
               said.strip()[:150])


def check_ends():
    run = Run("--module", BUILD + "/guest/triplefault.elf", "--memory", "32")
    report(run.status == 4 and "triple fault" in run.table, "a crash ends with status 4", run.status)
    p = subprocess.run([BUILD + "/metronome", "run", "--deterministic", "--quiet", "--module", "packages"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=100)
    report(p.returncode == 2 and p.stderr.count(b"\n") == 1, "a module that is none ends with status 2", (p.stdout + p.stderr).decode().strip())


check_refusals()
check_ends()
latency = ["--module", BUILD + "/guest/latency.elf", "--memory", "32"]
first = check_same("bare metal", *latency)
check_records("bare metal", first)
check_xenalyze("bare metal", first)
check_others("bare metal, other words", first, *latency, "--append", "strict")
check_others("bare metal, other memory", first, *latency, "--memory", "40")
check_timers("timers", Run("--module", BUILD + "/guest/devices.elf", "--memory", "64"))
check_same("two vCPUs", "--module", BUILD + "/guest/share.elf", "--memory", "64", "--vcpus", "2")
check_cost_on()
check_cost_off()
if LONG:
    linux = check_same("Linux", *LINUX, end=rb"reboot: Power down")
    check_records("Linux", linux)
    check_xenalyze("Linux", linux)
