#!/usr/bin/env python3
"""`metronome run --deterministic`: the same inputs give the same console, trace, histograms and closing table, to the byte, and
other inputs do not. The trace is read by xenalyze, whose counts must be those of the closing table; and what the trace costs is
read from it, as its TSC counts instructions.
"""
# limit: 600
# run: check
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
BUILD = os.environ.get("B", "build")
LONG = os.environ.get("METRONOME_TESTS", "test") != "check"
LINUX = ["--module", BUILD + "/images/vmlinuz", "--initrd", BUILD + "/images/initramfs.cpio.gz", "--memory", "256",
         "--append", "console=ttyS0 mt.test=poweroff"]
TSC_HZ = 10 ** 9
VMENTRY, VMEXIT, VMEXIT64, CPUID, CPU_CHANGE, LOST = 0x81001, 0x81002, 0x81102, 0x8200e, 0x1f003, 0x1f001
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
        """(pCPU, event, TSC or None, words) of each record."""
        at, data, cpu = 0, self.left["trace"], None
        while at < len(data):
            first, = struct.unpack_from("<I", data, at)
            n = first >> 28 & 7
            tsc = struct.unpack_from("<Q", data, at + 4)[0] if first >> 31 else None
            at += 4 + (8 if first >> 31 else 0)
            words = struct.unpack_from("<%dI" % n, data, at)
            at += 4 * n
            if first & 0xfffffff == CPU_CHANGE:
                cpu = words[0]
            else:
                yield cpu, first & 0xfffffff, tsc, words

    def counted(self, title):
        """{name: number} of a part of the closing table."""
        part = re.search(r"^  %s +\d+\b.*\n((?:    .*\n)*)" % title, self.table, re.M)
        return {m[0]: int(m[1]) for m in re.findall(r"^    (.*?)  +(\d+)", part.group(1) if part else "", re.M)}


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


def xenalyze(run):
    with tempfile.NamedTemporaryFile() as f:
        f.write(run.left["trace"])
        f.flush()
        p = subprocess.run(["xenalyze", "--svm-mode", "--cpu-hz=1G", "--summary", f.name], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=100)
    return p.stdout.decode(), p.stderr.decode(), p.returncode


# Which of xenalyze's exits are which of the closing table's; one that ends the run has no entry behind it, and is not shown.
EXITS = [(("VMEXIT_INTR",), ("host interrupt",)), (("VMEXIT_VINTR",), ("interrupt window",)), (("VMEXIT_HLT",), ("HLT",)),
         (("VMEXIT_CPUID",), ("CPUID",)), (("VMEXIT_MSR",), ("MSR", "MSR, x2APIC")),
         (("VMEXIT_CR4_WRITE", "VMEXIT_CR8_WRITE"), ("control register",)),
         (("VMEXIT_NPF",), ("MMIO, local APIC", "MMIO, I/O APIC", "MMIO, HPET", "MMIO, device model", "nested page fault, other")),
         (("VMEXIT_IOIO",), ("port, in-hypervisor device", "port, device model"))]


def check_xenalyze(name, run):
    summary, errors, status = xenalyze(run)
    print("\n".join("# " + line for line in summary.split("\n")[:60]))
    complaints = [e for e in sorted(set(errors.split("\n"))) if re.search(r"Strange|FATAL|error|lost|beyond|not ", e, re.I) and
                  not re.search(r"First schedule|LOST$", e)]
    report(status == 0 and not [e for e in complaints if "FATAL" in e], name + ": xenalyze reads it", "; ".join(complaints))
    shown = {m[0]: int(m[1]) for m in re.findall(r"^ (VMEXIT_\w+) +(\d+) ", summary, re.M)}
    counted, ours = run.counted("exits"), run.counted("interrupts injected")
    for theirs, names in EXITS:
        n, m = sum(shown.get(t, 0) for t in theirs), sum(counted.get(x, 0) for x in names)
        if n or m:
            report(m - 2 <= n <= m + 2 if theirs == ("VMEXIT_IOIO",) else n == m, "%s: %s" % (name, theirs[0]), "%d, counted %d" % (n, m))
    vectors = sum(int(n) for n in re.findall(r"^  \[ *\d+\] (\d+)$", summary, re.M))
    report(vectors == sum(n for what, n in ours.items() if what not in ("exception", "NMI")), name + ": interrupts", vectors)


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
check_same("two vCPUs", "--module", BUILD + "/guest/share.elf", "--memory", "64", "--vcpus", "2")
check_cost_on()
check_cost_off()
if LONG:
    linux = check_same("Linux", *LINUX, end=rb"reboot: Power down")
    check_records("Linux", linux)
    check_xenalyze("Linux", linux)
