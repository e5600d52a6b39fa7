#!/usr/bin/env python3
"""
The seven devices against other machines': one guest (tests/guest/conformance) drives every register and event on Metronome,
QEMU and Bochs, and prints a line per step. Each step that differs from Metronome must be in the tables of
docs/conformance.md, and each of their rows must be true.

    test_conformance.py                 compares, as make test does
    test_conformance.py --rows          prints the rows that the tables lack
    test_conformance.py --log FILE      compares the output of another machine (a real board's serial log), as rows
"""
# limit: 300
# run: test
import argparse
import fnmatch
import os
import re
import subprocess
import sys

from lib import BUILD, ROOT, Scratch

GUEST = BUILD + "/guest/conformance.elf"
PAGE = ROOT + "/docs/conformance.md"
END = "conformance: done"
PATIENCE = 200  # seconds for one machine
MACHINES = ["qemu-pc", "qemu-q35", "bochs"]
RIGHT = {"Metronome", "the other", "both"}
QEMU = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-icount", "shift=0,sleep=off",
        "-rtc", "base=2026-01-01,clock=vm", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
BOCHSRC = """
display_library: rfb, options="timeout=0"
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/seabios/vgabios-stdvga.bin
megs: 256
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none, time0=1767225600
boot: cdrom
ata0: enabled=1
ata0-master: type=cdrom, path=%(iso)s, status=inserted
com1: enabled=1, mode=file, dev=%(com1)s
panic: action=fatal, pic=report, ioapic=report, hpet=report, cmos=report
log: %(log)s
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, iodebug=1
"""
scratch = Scratch()


def run(command, **more):
    done = subprocess.run(["timeout", str(PATIENCE)] + command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **more)
    return done.stdout.decode(errors="replace")


def metronome():
    return run(QEMU + ["-kernel", BUILD + "/metronome.elf", "-initrd", GUEST, "-append", "exit=0xf4"])


def qemu(machine):
    return run(QEMU + ["-machine", machine, "-kernel", GUEST])


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def bochs():
    """Through GRUB. Its panics about what it does not model go on; "c" and "q" are for its debugger."""
    iso, com1, log, config, commands = (scratch.name(s) for s in (".iso", ".com1", ".log", ".bochsrc", ".rc"))
    subprocess.run([ROOT + "/arch/x86/boot/make-iso", iso, GUEST, "-k", "multiboot"], check=True)
    write(config, BOCHSRC % {"iso": iso, "com1": com1, "log": log})
    write(commands, "c\nq\n")
    run(["bochs", "-q", "-f", config, "-rc", commands], cwd=scratch.path)
    with open(com1, errors="replace") as f:
        return f.read()


RUNS = {"qemu-pc": lambda: qemu("pc"), "qemu-q35": lambda: qemu("q35"), "bochs": bochs}


def steps(output):
    """Step to value, in their order. A line of a serial log may begin with whatever a terminal has left there."""
    found = {}
    for line in output.replace("\r", "").splitlines():
        m = re.search(r"([a-z0-9]+[-\w]*(?:\.[-\w]+)+): (\S.*)$", line)
        if m:
            found[m.group(1)] = m.group(2)
    return found if END in output else {}


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


class Row:
    """A row of the tables: `STEP` `STEP` | `MACHINE` ... | `there` | `Metronome` | who is right | why. Names are patterns."""

    def __init__(self, line):
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        self.line = line.strip()
        self.steps, self.machines = (re.findall(r"`([^`]+)`", c) for c in cells[:2])
        self.there, self.ours = (c.strip("`?") for c in cells[2:4])
        self.sometimes = cells[2].endswith("?") # what the machine did before decides, not the script
        self.right, self.why = cells[4:6]

    def names(self, step, machine):
        return matches(step, self.steps) and matches(machine, self.machines)

    def explains(self, there, ours):
        return self.there in ("*", there) and self.ours in ("*", ours)

    def faults(self, ours, theirs):
        """Why the row is not true: every step and machine that it names must differ as it says."""
        bad = [] if self.right in RIGHT else ["%r is not one of %s" % (self.right, sorted(RIGHT))]
        bad += ["no reason"] if len(self.why) < 10 else []
        for pattern in self.steps:
            bad += ["no step is named " + pattern] if not fnmatch.filter(ours, pattern) else []
        for pattern in self.machines:
            bad += ["no machine is named " + pattern] if not fnmatch.filter(theirs, pattern) else []
        for machine, values in theirs.items():
            for step in ours:
                if not self.names(step, machine) or (self.sometimes and values[step] == ours[step]):
                    continue
                if values[step] == ours[step] or not self.explains(values[step], ours[step]):
                    bad.append("%s on %s is %s, here %s" % (step, machine, values[step], ours[step]))
        return bad


def rows():
    with open(PAGE) as f:
        return [Row(line) for line in f if line.startswith("| `")]


def difference_rows(ours, theirs, known):
    """What the tables lack, as their rows."""
    found = {}
    for machine, values in theirs.items():
        for step in ours:
            there = values.get(step, "missing")
            if there != ours[step] and not any(r.names(step, machine) and r.explains(there, ours[step]) for r in known):
                found.setdefault((step, there, ours[step]), []).append("`%s`" % machine)
    return ["| `%s` | %s | `%s` | `%s` | ? | ? |" % (s, " ".join(m), t, o) for (s, t, o), m in found.items()]


def result(ok, name, why):
    result.failed = result.failed or not ok
    print("ok " + name if ok else "not ok %s: %s" % (name, "; ".join(why) if isinstance(why, list) else why))
    sys.stdout.flush()
    return ok


result.failed = False


def compare(ours, theirs, known):
    """A result per machine and per row that is not true."""
    for machine, values in theirs.items():
        missing = [s for s in ours if s not in values] + [s for s in values if s not in ours]
        result(not missing, "%s: every step" % machine, "%d steps are not on both, first %s" % (len(missing), missing[:3]))
        lacking = difference_rows(ours, {machine: values}, known)
        result(not lacking, "%s: every difference is explained" % machine, lacking)
    complete = {m: v for m, v in theirs.items() if set(v) == set(ours)}
    for row in known if len(complete) == len(theirs) else []:
        faults = row.faults(ours, theirs)
        if faults:
            result(False, "docs/conformance.md: %s" % row.line, faults)


def summary(ours, theirs, known):
    pairs = [(values.get(s), ours[s]) for values in theirs.values() for s in ours]
    equal, absent = sum(there == here for there, here in pairs), sum(there == "absent" for there, _ in pairs)
    return ("conformance: %d steps, %d machines beside Metronome: %d equal, %d absent there, %d differ, explained in %d rows" %
            (len(ours), len(theirs), equal, absent, len(pairs) - equal - absent, len(known)))


def test():
    first, second = metronome(), metronome()
    ours, known = steps(first), rows()
    if not result(ours, "metronome: to the end", first[-500:]):
        return
    result(first == second, "metronome: two runs are the same to the last byte", "they differ")
    theirs = {m: steps(RUNS[m]()) for m in MACHINES}
    compare(ours, theirs, known)
    result(known, "docs/conformance.md: %d rows are read" % len(known), "no row")
    print(summary(ours, theirs, known))


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--rows", action="store_true", help="print the rows that the tables lack")
    parser.add_argument("--log", metavar="FILE", help="compare another machine's output, as rows")
    args = parser.parse_args()
    if args.log:
        with open(args.log, errors="replace") as f:
            theirs = {"board": steps(f.read())}
        if not theirs["board"]:
            sys.exit("%s: no line '%s'" % (args.log, END))
        print("\n".join(difference_rows(steps(metronome()), theirs, [])))
    elif args.rows:
        print("\n".join(difference_rows(steps(metronome()), {m: steps(RUNS[m]()) for m in MACHINES}, rows())))
    else:
        test()
    sys.exit(result.failed)


main()
