#!/usr/bin/env python3
"""
Where an exit's instructions go: the guest `bench` does one thing after the other on the hypervisor alone, in an outer QEMU
with exact time, and every instruction between its marks is counted by the function it belongs to. Those that cost far more than
others on silicon are counted apart.

    tests/bench/profile.py                  one line each: spans from exit to entry, with their instructions and handlers
    tests/bench/profile.py ELCR 'TSC dead'  those whose name contains a word, function by function
    tests/bench/profile.py -a               all of them, function by function

A span goes from the first instruction behind VMRUN to VMRUN itself, the world switch included. The functions are those of
build/metronome.elf64; what is inlined counts for the function it is in. QEMU's gdb stub stops at the guest's marks, and its
monitor switches the trace of single instructions on and off there, so that the rest of the run costs nothing.
"""
import bisect
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.path.join(ROOT, os.environ.get("B", "build")))
TRACE = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")
HYPERVISOR = 0xFFFFFFFF80000000
LIMIT = 240
GUEST = os.path.join(BUILD, "guest/bench.elf")


def symbols(elf):
    """[(address, name)] of the functions, sorted."""
    lines = subprocess.run(["nm", "-n", elf], stdout=subprocess.PIPE, check=True, text=True).stdout.split("\n")
    return [(int(a, 16), name) for a, kind, name in (line.split() for line in lines if line.count(" ") == 2) if kind in "tT"]


class Stub:
    """QEMU's gdb stub: just enough of the protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        while True: # the path is there before somebody listens
            try:
                self.socket.connect(path)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        self.buffer = b""

    def packet(self):
        while not (m := re.search(rb"\$([^#]*)#..", self.buffer)):
            more = self.socket.recv(65536)
            if not more:
                return None
            self.buffer += more
        self.buffer = self.buffer[m.end():]
        self.socket.send(b"+")
        return m.group(1)

    def ask(self, text):
        data = text.encode()
        self.socket.send(b"$%s#%02x" % (data, sum(data) & 255))
        return self.packet()

    def monitor(self, command):
        answer = self.ask("qRcmd," + command.encode().hex())
        while answer not in (b"OK", b"", None):
            answer = self.packet()

    def register(self, number):
        return int.from_bytes(bytes.fromhex(self.ask("g").decode())[8 * number:8 * number + 8], "little")


RDI, RIP = 5, 16 # in the order of the stub


def names_at(elf):
    """Reads a string out of the guest's image, which lies where it is linked."""
    with open(elf, "rb") as f:
        image = f.read()
    offset, entry, count = int.from_bytes(image[32:40], "little"), 56, int.from_bytes(image[56:58], "little")
    headers = [image[offset + i * entry:offset + (i + 1) * entry] for i in range(count)]
    places = [[int.from_bytes(h[i:i + 8], "little") for i in (16, 8, 32)] for h in headers]

    def name(address):
        for start, file, size in places:
            if start <= address < start + size:
                text = image[file + address - start:]
                return text[:text.index(b"\0")].decode()
        return "?"
    return name


def run(folder, guest):
    """Yields (name, [addresses]) of each thing that the guest does."""
    path, log = os.path.join(folder, "gdb"), os.path.join(folder, "trace")
    marks = {name: address for address, name in symbols(guest + ".64") if name in ("profile_begin", "profile_end")}
    name_at = names_at(guest + ".64")
    qemu = subprocess.Popen(
        ["timeout", str(LIMIT), "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none",
         "-no-reboot", "-icount", "shift=0,sleep=off", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-S",
         "-chardev", "socket,id=gdb,path=%s,server=on,wait=off" % path, "-gdb", "chardev:gdb", "-D", log,
         "-kernel", os.path.join(BUILD, "metronome.elf"), "-initrd", guest + " samples=2", "-append", "exit=0xf4 tsc_hz=1000000000"],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            if qemu.poll() is not None:
                sys.exit("the outer QEMU did not start")
        stub = Stub(path)
        for address in marks.values():
            stub.ask("Z1,%x,1" % address)
        name, start = None, 0
        while (stop := stub.ask("c")) is not None and stop[:1] == b"T":
            if stub.register(RIP) == marks["profile_begin"]:
                name = name_at(stub.register(RDI))
                start = os.path.getsize(log) if os.path.exists(log) else 0
                stub.monitor("singlestep on")
                stub.monitor("log exec,nochain")
            else:
                stub.monitor("log none")
                stub.monitor("singlestep off")
                with open(log, "rb") as f:
                    f.seek(start)
                    yield name, [int(m.group(1), 16) for m in map(TRACE.match, f) if m]
            # Over the mark: the stub would stop at it again.
            where = stub.register(RIP)
            stub.ask("z1,%x,1" % where)
            stub.ask("s")
            stub.ask("Z1,%x,1" % where)
    finally:
        qemu.kill()
        qemu.wait()


def spans(addresses, first, last):
    """The hypervisor's instructions, exit by exit: from behind VMRUN, at `first`, up to it at `last`."""
    span, found = [], []
    for a in addresses:
        if a == first:
            span = []
        if a >= HYPERVISOR:
            span.append(a)
        if a == last:
            found.append(span)
            span = []
    return found


def by_function(span, table):
    starts = [a for a, _ in table]
    counts = {}
    for a in span:
        name = table[bisect.bisect_right(starts, a) - 1][1]
        counts[name] = counts.get(name, 0) + 1
    return counts


# What costs far more than one cycle: column -> how its instructions look.
COSTLY = {"vmload/save": r"vm(load|save)\b", "locked": r"lock |xchg .*\(", "divisions": r"i?div", "MSRs": r"(rd|wr)msr"}


class Image:
    """The hypervisor's instructions."""

    def __init__(self, elf):
        self.functions = symbols(elf)
        text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", elf], stdout=subprocess.PIPE, check=True, text=True).stdout
        lines = [(int(m[0], 16), m[1]) for m in re.findall(r"^ *([0-9a-f]+):\t(.*)$", text, re.M)]
        self.costly = {a: name for a, code in lines for name, look in COSTLY.items() if re.match(look, code)}
        at = next(i for i, (_, code) in enumerate(lines) if code.startswith("vmrun"))
        self.before_vmrun, self.behind_vmrun = lines[at][0], lines[at + 1][0]

    def spans(self, addresses):
        return spans(addresses, self.behind_vmrun, self.before_vmrun)

    def count_costly(self, span):
        found = dict.fromkeys(COSTLY, 0)
        for a in span:
            if a in self.costly:
                found[self.costly[a]] += 1
        return found


def profiles(image):
    """Yields (name, spans) of each operation of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="metronome-profile.") as folder:
        for name, addresses in run(folder, GUEST):
            yield name, image.spans(addresses)


HANDLERS = re.compile(r"^(exit_(?!skip)|on_|chipset_(expire|acknowledged)|timer_interrupt|idle)")


def show(name, found, image, whole):
    print("%-32s %s" % (name, " + ".join(str(len(s)) for s in found)))
    for span in found:
        counts = by_function(span, image.functions)
        costly = ", ".join("%d %s" % (n, what) for what, n in image.count_costly(span).items() if n)
        print("    %5d  %s; %s" % (len(span), ", ".join(sorted(n for n in counts if HANDLERS.match(n))), costly or "none costly"))
        for function, n in sorted(counts.items(), key=lambda c: -c[1]) if whole else ():
            print("        %5d  %s" % (n, function))


def main():
    words = [w for w in sys.argv[1:] if w != "-a"]
    image = Image(os.path.join(BUILD, "metronome.elf64"))
    for name, found in profiles(image):
        if not words or any(w in name for w in words):
            show(name, found, image, words or "-a" in sys.argv)


if __name__ == "__main__":
    main()
