#!/usr/bin/env python3
# Debian's Linux from disk, by each kind of disk and network card: a shell that answers, the whole disk read by DMA, 10 MiB
# each way over the network, the devices it finds, nothing to complain of, and its power-off.
# usage: test_linux.py [NAME...]
# limit: 360
import hashlib
import re
import socket
import sys
import threading

from lib import *
from linux_guest import *

TRANSFER = 10 << 20


def need(text, pattern, what):
    if not re.search(pattern, text, re.M):
        raise Failure("%s: no '%s' in: %s" % (what, pattern, text.strip()[-300:]))


def sha256_of_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def interrupts_since(guest, before, pattern):
    return sum(n[0] - before.get(name, (0,))[0] for name, n in interrupts(guest).items() if re.search(pattern, name))


def check_disk(guest, image, name, interrupt):
    """The guest reads all that the host wrote, by DMA: an interrupt for many sectors, not one for each few."""
    guest.run("until [ -b /dev/%s ]; do sleep 0.1; done" % name)
    before = interrupts(guest)
    read = guest.run("sha256sum /dev/" + name, 60).split()[0]
    used = interrupts_since(guest, before, interrupt)
    if read != sha256_of_file(image):
        raise Failure("the guest reads other bytes from %s than the host" % name)
    if not 1 <= used <= 2000:
        raise Failure("%d interrupts for 131072 sectors" % used)
    return used


class Host:
    """What the guest finds at its gateway: a web server with 10 MiB, and a port that takes what it is given."""

    def __init__(self):
        self.data = os.urandom(TRANSFER)
        self.received = None
        self.web, self.sink = self.listen(self.give), self.listen(self.take)

    def listen(self, serve):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def loop():
            while True:
                connection = listener.accept()[0]
                with connection:
                    connection.settimeout(60 * PATIENCE)
                    serve(connection)

        threading.Thread(target=loop, daemon=True).start()
        return listener.getsockname()[1]

    def give(self, connection):
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.data) + self.data)

    def take(self, connection):
        digest = hashlib.sha256()
        for block in iter(lambda: connection.recv(1 << 16), b""):
            digest.update(block)
        self.received = digest.hexdigest()


def check_network(guest, interrupt):
    """Ping, 10 MiB in, 10 MiB out; returns the MiB/s of each way, by the host's clock."""
    host = Host()
    before = interrupts(guest)
    guest.run("udhcpc -qn -i eth0", 20)
    need(guest.run("ping -c 3 -i 0.2 10.0.2.2", 20), "3 packets received, 0% packet loss", "ping")
    start = time.monotonic()
    guest.run("wget -qO /tmp/in http://10.0.2.2:%d/" % host.web, 60)
    there = time.monotonic()
    if guest.run("sha256sum /tmp/in").split()[0] != hashlib.sha256(host.data).hexdigest():
        raise Failure("what the guest received is not what was sent")
    sent = guest.run("head -c %d /dev/urandom >/tmp/out; sha256sum /tmp/out" % TRANSFER).split()[0]
    back = time.monotonic()
    guest.run("nc 10.0.2.2 %d </tmp/out" % host.sink, 60)
    back = time.monotonic() - back
    if host.received != sent:
        raise Failure("what the host received is not what the guest sent")
    used = interrupts_since(guest, before, interrupt)
    if used < 20:
        raise Failure("%d interrupts of the network card" % used)
    return "%.1f MiB/s in, %.1f out" % (10 / (there - start), 10 / back)


def check_platform(guest):
    """The hypervisor's devices are found and used."""
    messages = check_messages(guest)
    for pattern in (r"IOAPIC\[0\]: apic_id \d+, version 32, address 0xfec00000, GSI 0-23", r"PM-Timer IO Port",
                    r"hpet0: at MMIO 0xfed00000", r"TSC deadline timer available", r"rtc_cmos .*: setting system clock to"):
        need(messages, pattern, "dmesg")
    sources = guest.run("cat /sys/devices/system/clocksource/clocksource0/available_clocksource")
    for source in ("tsc", "hpet", "acpi_pm"):
        need(sources, r"\b%s\b" % source, "clock sources")
    events = guest.run("grep '^Clock Event Device' /proc/timer_list")
    need(events, "hpet", "event devices")
    need(events, "lapic", "event devices")
    used = interrupts(guest)
    for name, controller in (("timer", "IO-APIC"), ("ttyS0", "IO-APIC"), ("acpi", "IO-APIC.*fasteoi"), ("LOC", "Local timer")):
        need(used[name][1], controller, "/proc/interrupts, " + name)
    if used["timer"][0] < 1 or used["LOC"][0] < 20 or used["ERR"][0] or used["MIS"][0] or used["SPU"][0]:
        raise Failure("timer %d, LOC %d, ERR %d, MIS %d, SPU %d interrupts" %
                      tuple(used[n][0] for n in ("timer", "LOC", "ERR", "MIS", "SPU")))


def linux(place, device, disk_interrupt, nic, nic_interrupt, more):
    image = disk_with("quiet")
    with boot_linux("", "--nic", nic, image=image, place=place) as guest:
        shell = time.monotonic() - guest.started
        if guest.run("echo $((6 * 7))").strip() != "42":
            raise Failure("the shell does not answer")
        used = check_disk(guest, image, device, disk_interrupt)
        rates = check_network(guest, nic_interrupt)
        check_platform(guest)
        more(guest)
        guest.power_off()
    return "shell after %.1f s, disk read with %d interrupts, %s" % (shell, used, rates)


def test_linux_ide_e1000():
    def more(guest):
        need(guest.run("cat /sys/class/ata_device/*/dma_mode"), "DMA", "transfer mode")
        need(interrupts(guest)["eth0"][1], "IO-APIC.*fasteoi", "e1000")

    return linux("hda", "sda", "^14$", "e1000", "^eth0$", more)


def test_linux_ahci_rtl8139():
    def more(guest):
        need(guest.run("dmesg"), r"ahci .*AHCI", "dmesg")
        need(guest.run("cat /sys/class/ata_device/*/dma_mode"), "UDMA", "transfer mode")
        need(interrupts(guest)["eth0"][1], "IO-APIC.*fasteoi", "rtl8139")

    return linux("sda", "sda", "^ahci", "rtl8139", "^eth0$", more)


def test_linux_virtio():
    def more(guest):
        used = interrupts(guest)
        names = [n for n in used if re.match(r"virtio\d-(input\.0|output\.0|req\.0)$", n)]
        if len(names) != 3 or any("PCI-MSI" not in used[n][1] for n in names):
            raise Failure("MSI-X interrupts: " + repr(names))

    return linux("vda", "vda", "^virtio.-req", "virtio-net", "^virtio.-input", more)


def test_typed_line_longer_than_fifo(guest):
    """What does not fit into the UART's 16 bytes follows, without another key."""
    text = "0123456789" * 50
    if guest.run("echo " + text).strip() != text:
        raise Failure("a line of 500 bytes is not what was typed")


def test_linux_alone():
    """Without device model: what is typed goes through the built-in serial port."""
    with LinuxAlone("quiet").wait_for_shell() as guest:
        shell = time.monotonic() - guest.started
        if guest.run("echo $((6 * 7))").strip() != "42":
            raise Failure("the shell does not answer")
        test_typed_line_longer_than_fifo(guest)
        check_platform(guest)
        guest.power_off()
    return "shell after %.1f s" % shell


def test_linux_alone_repeats():
    """Instructions as time: two boots with power-off are the same to the last byte, times and counts included."""
    images = BUILD + "/images/"
    command = ["timeout", str(int(60 * PATIENCE)), "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nodefaults",
               "-display", "none", "-no-reboot", "-serial", "stdio", "-icount", "shift=0,sleep=off", "-seed", "1",
               "-rtc", "clock=vm,base=2026-01-01", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
               "-kernel", BUILD + "/metronome.elf", "-append", "exit=0xf4", "-initrd",
               images + "vmlinuz console=ttyS0 nokaslr mt.test=poweroff," + images + "initramfs.cpio.gz"]
    runs = [subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    for run in runs:
        need(run.stdout.decode("latin-1"), r"^domain 0 \(module\): powered off", "the machine's end, status %d" % run.returncode)
    if runs[0].stdout != runs[1].stdout:
        pairs = zip(*(run.stdout.split(b"\n") for run in runs))
        raise Failure("the runs differ: %r, %r" % next(pair for pair in pairs if pair[0] != pair[1]))
    return "%d lines twice the same" % runs[0].stdout.count(b"\n")


sys.exit(run_tests([test_linux_ide_e1000, test_linux_ahci_rtl8139, test_linux_virtio, test_linux_alone,
                    test_linux_alone_repeats]))
