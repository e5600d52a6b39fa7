#!/usr/bin/env python3
# Linux with 1, 2, 4 and 8 CPUs on two: all of them online and at work, with their own ticks and each other's interrupts, as
# ACPI's and the MP tables list them, and nothing to complain of; in packages of one and of more cores; by the MP tables
# alone; CPUs that go offline and come back, in a loop.
# usage: test_linux_smp.py [NAME...]
# limit: 600
import base64
import os
import re
import struct
import sys

from lib import *
from linux_guest import *

LONG = os.environ.get("METRONOME_TESTS") == "long"
os.environ.setdefault("METRONOME_PCPUS", "2")

# Each CPU counts, and says which one it is: the 39th field of its stat.
WORK = r"""
for c in $(seq 0 $(($1 - 1))); do
    taskset -c $c sh -c 'i=0
        while [ $i -lt 20000 ]; do i=$((i + 1)); done
        read -r stat </proc/self/stat; set -- ${stat##*) }; shift 36; echo worked on $1' &
done
wait
"""

# Offline and back, one after the other, then all at once. A static key that changes interrupts all CPUs.
HOTPLUG = r"""
cd /sys/devices/system/cpu
others="$(ls -d cpu[1-9]*)"
put() { echo $2 >$1/online || echo cannot put $1 to $2; }
for round in $(seq $1); do
    for c in $others; do put $c 0; put $c 1; done
    for c in $others; do put $c 0; done
    [ "$(cat online)" = 0 ] || echo left: $(cat online)
    for c in $others; do put $c 1; done
    echo $((round % 2)) >/proc/sys/kernel/sched_schedstats
    sh /tmp/work $2 | sort | tr '\n' ' '
    echo round $round of $1
done
"""


class SmpGuest(LinuxGuest):
    """With that many CPUs; their boot takes its time where they outnumber the real ones."""

    def __init__(self, cpus, words="quiet", sockets=1, place="hda", arguments=()):
        self.cpus, self.cores = cpus, cpus // sockets
        vcpus = "%d,sockets=%d" % (cpus, sockets) if sockets > 1 else str(cpus)
        super().__init__("--disk", disk_with(words) + ",raw," + place, "--vcpus", vcpus, *arguments, seconds=400)
        self.wait_for_cpus()
        self.ready = time.monotonic() - self.started

    def wait_for_cpus(self):
        self.wait_for_shell(60 + 20 * self.cpus)
        self.program("/tmp/work", WORK)

    def counts(self, name, rest=""):
        """A row of /proc/interrupts: a number for each CPU."""
        found = re.search(r"^ *%s:((?: +\d+){%d})%s" % (name, self.cpus, rest), self.run("cat /proc/interrupts"), re.M)
        if not found:
            raise Failure("no %d numbers of %s interrupts" % (self.cpus, name + rest))
        return [int(n) for n in found[1].split()]

    def memory(self, address, count):
        text = self.run("dd if=/dev/mem bs=1 skip=%d count=%d 2>/dev/null | base64" % (address, count))
        return base64.b64decode(text)


def check_online(guest):
    last = guest.cpus - 1
    online = guest.run("cat /sys/devices/system/cpu/online").strip()
    if online != ("0-%d" % last if last else "0"):
        raise Failure("online: " + online)
    running = guest.run("grep -c ^processor /proc/cpuinfo").strip()
    if int(running) != guest.cpus:
        raise Failure("%s processors in /proc/cpuinfo" % running)


def check_topology(guest):
    """What Linux makes of CPUID: no threads, that many cores in a package, and the packages numbered from 0."""
    for c in range(guest.cpus):
        first = c - c % guest.cores
        package = "%d-%d" % (first, first + guest.cores - 1) if guest.cores > 1 else str(c)
        said = guest.run("cd /sys/devices/system/cpu/cpu%d/topology; cat physical_package_id core_id thread_siblings_list "
                         "core_siblings_list; cd" % c).split()
        if said != [str(c // guest.cores), str(c - first), str(c), package]:
            raise Failure("CPU %d: package, core, its threads, its package's: %s" % (c, said))


def check_worked(text, cpus):
    worked = sorted(int(n) for n in re.findall(r"worked on (\d+)", text))
    if worked != list(range(cpus)):
        raise Failure("work was done on CPUs %s" % worked)


def ticks_of(guest):
    """By the local APIC, or by the PIT where Linux does not trust it."""
    return [sum(n) for n in zip(guest.counts("LOC"), guest.counts("0"))]


def check_work(guest):
    """Each CPU works, has ticks, and takes interrupts from others."""
    ticks, calls = ticks_of(guest), guest.counts("CAL")
    check_worked(guest.run("sh /tmp/work %d" % guest.cpus, 60), guest.cpus)
    guest.run("for i in 1 0 1 0; do echo $i >/proc/sys/kernel/sched_schedstats; done")
    ticked = [b - a for a, b in zip(ticks, ticks_of(guest))]
    called = [b - a for a, b in zip(calls, guest.counts("CAL"))]
    if min(ticked) < 2:
        raise Failure("ticks while they worked: %s" % ticked)
    if guest.cpus > 1 and sum(n > 0 for n in called) < guest.cpus - 1:
        raise Failure("function calls while a static key changed: %s" % called)
    return "ticks %s, calls %s" % (ticked, called)


def check_nmis(guest):
    """Backtraces of all CPUs are asked for by NMI. stty waits for the terminal's output: the kernel's line would get into it."""
    before = guest.counts("NMI")
    guest.run("stty -echo; echo l >/proc/sysrq-trigger")
    took = [b - a for a, b in zip(before, guest.counts("NMI"))]
    if sum(n == 1 for n in took) < guest.cpus - 1 or max(took) > 1:
        raise Failure("NMIs: %s" % took)


# ---- What the firmware's tables list. ----

def acpi_processors(table):
    """(processor, APIC id) of those that are enabled; there must be one I/O APIC, the PIT's override, and LINT1 for NMIs."""
    if table[:4] != b"APIC" or sum(table) & 0xff or struct.unpack_from("<I", table, 4)[0] != len(table):
        raise Failure("no MADT: %r" % table[:44])
    processors, at, others = [], 44, {}
    while at < len(table):
        kind, length = table[at], table[at + 1]
        entry = table[at + 2:at + length]
        if kind == 0 and entry[2] & 1:
            processors.append((entry[0], entry[1]))
        elif kind:
            others.setdefault(kind, []).append(entry)
        at += length
    io_apic = [struct.unpack("<BxII", entry) for entry in others.pop(1, [])]
    overrides = {e[1]: struct.unpack("<IH", e[2:]) for e in others.pop(2, [])}
    nmi = [struct.unpack("<BHB", e) for e in others.pop(4, [])]
    if [(address, base) for _, address, base in io_apic] != [(0xfec00000, 0)] or others:
        raise Failure("MADT: I/O APICs %s, other entries %s" % (io_apic, others))
    if overrides.get(0, (0,))[0] != 2 or overrides.get(9) != (9, 0xd) or [(p, pin) for p, _, pin in nmi] != [(0xff, 1)]:
        raise Failure("MADT: overrides %s, NMI %s" % (overrides, nmi))
    return processors


def mp_processors(guest, messages):
    """APIC ids of those that are enabled, the boot CPU first; there must be one I/O APIC (MP specification 1.4, 4)."""
    found = re.search(r"found SMP MP-table at \[mem (0x[0-9a-f]+)", messages)
    if not found:
        raise Failure("no MP table")
    pointer = guest.memory(int(found[1], 16), 16)
    address = struct.unpack_from("<I", pointer, 4)[0]
    table = guest.memory(address, struct.unpack_from("<H", guest.memory(address, 8), 4)[0])
    if pointer[:4] != b"_MP_" or table[:4] != b"PCMP" or sum(table) & 0xff or sum(pointer) & 0xff:
        raise Failure("no MP table: %r" % table[:44])
    processors, io_apics, at = [], [], 44
    for _ in range(struct.unpack_from("<H", table, 34)[0]):
        if table[at] == 0 and table[at + 3] & 1:
            processors.append((not table[at + 3] & 2, table[at + 1]))
        elif table[at] == 2:
            io_apics.append(struct.unpack_from("<I", table, at + 4)[0])
        at += 20 if table[at] == 0 else 8
    if at != len(table) or io_apics != [0xfec00000]:
        raise Failure("MP table: I/O APICs %s, %d of %d bytes" % (io_apics, at, len(table)))
    return [apic_id for _, apic_id in sorted(processors)]


def check_tables(guest, messages):
    acpi = acpi_processors(base64.b64decode(guest.run("base64 </sys/firmware/acpi/tables/APIC")))
    if acpi != [(i, i) for i in range(guest.cpus)]:
        raise Failure("MADT: (processor, APIC id) %s" % acpi)
    check_mp_table(guest, messages)


def check_mp_table(guest, messages):
    """SeaBIOS puts the first core of each package into it."""
    mp = mp_processors(guest, messages)
    if mp != list(range(0, guest.cpus, guest.cores)):
        raise Failure("MP table: APIC ids %s" % mp)


def smp(cpus):
    with SmpGuest(cpus) as guest:
        messages = check_messages(guest)
        check_online(guest)
        check_tables(guest, messages)
        check_topology(guest)
        said = check_work(guest)
        check_messages(guest)
        check_nmis(guest)
        guest.power_off()
    return "shell after %.1f s, %s" % (guest.ready, said)


def test_1_cpu():
    return smp(1)


def test_2_cpus():
    return smp(2)


def test_4_cpus():
    return smp(4)


def test_8_cpus():
    return smp(8)


def packages(cpus, sockets):
    """Linux would measure its delay loop anew in each package, and be wrong where the CPUs have not a real one each. It is told
    instead: of a TSC of 5 GHz, so that no delay is too short."""
    with SmpGuest(cpus, "quiet lpj=20000000", sockets) as guest:
        messages = guest.run("dmesg")
        if "calibrate_delay_direct" in messages:
            raise Failure("it measures its delay loop although it was told")
        check_online(guest)
        check_tables(guest, messages)
        check_topology(guest)
        check_worked(guest.run("sh /tmp/work %d" % guest.cpus, 60), guest.cpus)
        guest.power_off()
    return "shell after %.1f s" % guest.ready


def test_2_packages():
    return packages(4, 2)


def test_4_packages():
    """Only so do both tables list the same."""
    return packages(4, 4)


# ---- Without ACPI. ----

def check_routed(guest, device, use):
    """A PCI device's line, as the MP table has it, goes to each CPU that it is sent to."""
    row = re.search(r"^ *(\d+):.* IO-APIC +\1-fasteoi .*\b%s$" % device, guest.run("cat /proc/interrupts"), re.M)
    if not row:
        raise Failure("%s has no line at the I/O APIC" % device)
    for c in range(guest.cpus):
        guest.run("echo %x >/proc/irq/%s/smp_affinity" % (1 << c, row[1]))
        guest.run(use, 30)
        before = guest.counts(row[1])
        guest.run(use, 30)
        came = [b - a for a, b in zip(before, guest.counts(row[1]))]
        if not came[c] or sum(came) != came[c]:
            raise Failure("%s's interrupts for CPU %d came to: %s" % (device, c, came))
    return "%s on line %s" % (device, row[1])


def check_messages_without_acpi(guest):
    """Without PM timer and HPET Linux has nothing but the PIT's ticks to measure the local APIC's timer by, and does without that
    one where they are not those of the test of it: on a machine that is busy at one of the two moments."""
    found = [line for line in complaints(guest.run("dmesg")) if "APIC timer disabled due to verification failure" not in line]
    if found:
        raise Failure("%d complaints in dmesg, the first: %s" % (len(found), found[0]))


def test_acpi_off():
    """All CPUs and all lines by the MP table. Without ACPI a machine can be reset, but not switched off."""
    with SmpGuest(4, "quiet acpi=off pci=nomsi", 4, "sda", arguments=("--nic", "e1000")) as guest:
        check_online(guest)
        check_mp_table(guest, guest.run("dmesg"))
        check_topology(guest)
        said = [check_work(guest)]
        guest.run("udhcpc -qn -i eth0", 30)
        said.append(check_routed(guest, "eth0", "ping -c 1 10.0.2.2"))
        said.append(check_routed(guest, "ahci.*", "echo 1 >/proc/sys/vm/drop_caches; dd if=/dev/sda of=/dev/null bs=1M count=4"))
        check_messages_without_acpi(guest)
        check_nmis(guest)
        guest.type("reboot\r")
        guest.expect("reboot: Restarting system")
        guest.wait_for_cpus()
        check_online(guest)
        check_work(guest)
        check_messages_without_acpi(guest)
        guest.type("poweroff\r")
        guest.expect("System halted")
        guest.process.terminate()
        guest.ends(143)
    return "shell after %.1f s, %s" % (guest.ready, ", ".join(said))


def hotplug(cpus, rounds):
    with SmpGuest(cpus) as guest:
        guest.program("/tmp/hotplug", HOTPLUG)
        guest.type("sh /tmp/hotplug %d %d\r" % (rounds, cpus))
        for i in range(rounds):
            found = guest.expect(r"^(.*)round %d of %d\r*$" % (i + 1, rounds), 30 + 10 * cpus)
            check_worked(found[1].decode(), cpus)
        guest.expect("guest# ")
        if b"cannot put" in guest.output or b"left:" in guest.output:
            raise Failure("a CPU did not go or come")
        check_online(guest)
        said = check_work(guest)
        check_messages(guest)
        guest.power_off()
    return "%d rounds, then %s" % (rounds, said)


def test_cpus_go_and_come():
    return hotplug(4, 100 if LONG else 2)


def test_cpus_go_and_come_eight():
    return hotplug(8, 30 if LONG else 1)


sys.exit(run_tests([test_1_cpu, test_2_cpus, test_4_cpus, test_8_cpus, test_2_packages, test_acpi_off,
                    test_cpus_go_and_come] + ([test_4_packages, test_cpus_go_and_come_eight] if LONG else [])))
