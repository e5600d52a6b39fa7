#!/usr/bin/env python3
"""
The hypervisor without a control device: boot modules as guests, several at once, and what its options refuse.
"""
# limit: 400
# run: check
import os
import re
import subprocess
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
BUILD = os.environ.get("B", "build")
QEMU = ("qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -display none -no-reboot -serial stdio "
        "-icount shift=0,sleep=off -device isa-debug-exit,iobase=0xf4,iosize=4").split()
STORM = BUILD + "/guest/storm.elf exits ipi rounds=1"
FOREVER = BUILD + "/guest/storm.elf compute"

# name | options | modules | the machine's status, which is code * 2 + 1 | what is printed (!: what is not)
CASES = [
    ("one guest, its console as it is", "", [STORM], 1, [r"^guest: 0 passed", r"^domain 0 \(module\): debug exit 0$"]),
    ("two guests, each line with its number", "guests=0,1", [STORM, STORM], 1,
     [r"^0: guest: 0 passed", r"^1: guest: 0 passed", r"^guest 0$", r"^guest 1$", "!^guest: "]),
    ("the console of one is shown", "guests=0,1 show=1", [STORM, STORM], 1, [r"^1: guest: 0 passed", "!^0: "]),
    ("the run ends with the one that is waited for", "guests=0,1 until=1", [FOREVER, STORM], 1,
     [r"^1: guest: 0 passed", r"^domain 1 \(module\): debug exit 0$", r"!^domain 0 \(module\)"]),
    ("modules in any order", "guests=2,0 until=0", [FOREVER, FOREVER, STORM], 1, [r"^0: guest: 0 passed"]),
    ("a number for each guest, the last for all that follow", "guests=0,1,2 mem=64,32 vcpus=1", [STORM] * 3, 1,
     [r"^2: guest: 0 passed"]),
    ("no module", "", [], 5, ["^error: nothing to run: no control device and no boot module"]),
    ("a module that is not there", "guests=0,1", [STORM], 5, ["^error: guests=0,1: at '1': 0 is the most"]),
    ("a module twice", "guests=0,0", [STORM], 5, ["^error: guests=0,0: boot module 0 is named twice"]),
    ("no number", "guests=all", [STORM], 5, ["^error: guests=all: a number is missing at 'all'"]),
    ("words behind", "guests=0;1", [STORM, STORM], 5, ["^error: guests=0;1: what is ';1'?"]),
    ("more numbers than guests", "vcpus=1,1", [STORM], 5, ["^error: vcpus=1,1: what is '1'?"]),
    ("too many vCPUs", "vcpus=65", [STORM], 5, ["^error: vcpus=65: at '65': 64 is the most"]),
    ("waiting for a guest that is not there", "until=1", [STORM], 5, ["^error: until=1: at '1': 0 is the most"]),
    ("less memory than they ask for", "guests=0,1 mem=400", [STORM, STORM], 1, [r"^1: guest: 0 passed"]),
]


def run(options, modules):
    command = QEMU + ["-kernel", BUILD + "/metronome.elf", "-append", "exit=0xf4 " + options]
    command += ["-initrd", ",".join(modules)] if modules else []
    try:
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
    except subprocess.TimeoutExpired as e:
        return "time", (e.stdout or b"").decode(errors="replace").replace("\r", "")
    return p.returncode, p.stdout.decode(errors="replace").replace("\r", "")


for name, options, modules, status, wanted in CASES:
    got, output = run(options, modules)
    wrong = ["ended with %s, not %s" % (got, status)] if got != status else []
    for text in wanted:
        if bool(re.search(text.lstrip("!"), output, re.M)) == text.startswith("!"):
            wrong.append(text)
    print("%s %s%s" % ("not ok" if wrong else "ok", name, ": " + "; ".join(wrong) if wrong else ""))
    if wrong:
        print("    " + output.replace("\n", "\n    "))
