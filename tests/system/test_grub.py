#!/usr/bin/env python3
# GRUB's menu, from a disk and from an ISO, by serial console and by keyboard; memtest86+ started from it.
# usage: test_grub.py [NAME...]
# limit: 600
import os
import sys

from lib import *

MENU = """
set timeout=-1
menuentry "metronome: first" --id first {
    echo "metronome-grub: first chosen"
    sleep 1
}
menuentry "metronome: second" --id second {
    echo "metronome-grub: second chosen"
    sleep 1
    halt
}
set default=first
"""


def plain(console):
    """What was written to the serial console, without the escape sequences that place it."""
    return re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b" ", console.output).decode("latin-1")


def test_disk_menu_by_serial():
    """The second entry switches the guest off, by what GRUB finds in the ACPI tables."""
    disk = scratch_copy("linux.img")
    put_into_disk(disk, {"/boot/test.cfg": MENU})
    with Guest("--disk", disk, "--memory", "64") as guest:
        guest.until("menu", lambda: re.search(r"GNU GRUB +version 2\.[^*]*\*.*metronome: second", plain(guest), re.S), 60)
        guest.type("\x1b[B")
        guest.until("second entry selected", lambda: re.search(r"\*metronome: second", plain(guest)))
        guest.type("\r")
        guest.expect("metronome-grub: second chosen")
        guest.ends(0)


def test_disk_menu_by_keyboard():
    disk = scratch_copy("linux.img")
    put_into_disk(disk, {"/boot/test.cfg": MENU})
    with Guest("--disk", disk, "--memory", "64") as guest:
        guest.expect_screen(r"^ +GNU GRUB  version 2\.", 60)
        guest.expect_screen(r"Linux *\n(.*\n)*.*\*metronome: first *\n.*metronome: second")
        guest.qmp.key("down")
        guest.expect_screen(r"\*metronome: second")
        guest.qmp.key("up")
        guest.expect_screen(r"\*metronome: first")
        guest.qmp.key("ret")
        guest.expect_screen(r"metronome-grub: first chosen")
        guest.expect_screen(r"GNU GRUB  version 2\.")


def test_iso_menu():
    iso = grub_iso("terminal_input console\nterminal_output console\n" + MENU)
    with Guest("--cdrom", iso, "--boot", "d", "--memory", "64") as guest:
        guest.expect_screen(r"\*metronome: first", 60)
        guest.qmp.key("down")
        guest.expect_screen(r"\*metronome: second")
        guest.qmp.key("ret")
        guest.expect_screen(r"metronome-grub: second chosen")
        guest.ends(0)


def test_command_line():
    """Its shell by `c`: memory and disks as the BIOS tells of them."""
    disk = scratch_copy("linux.img")
    put_into_disk(disk, {"/boot/test.cfg": MENU})
    with Guest("--disk", disk, "--memory", "100") as guest:
        guest.until("menu", lambda: "metronome: second" in plain(guest), 60)
        guest.type("c")
        guest.expect("grub> ")
        guest.type("ls\r")
        guest.expect(r"\(hd0\).*\(hd0,msdos1\)")
        guest.type("ls (hd0,msdos1)/boot\r")
        guest.expect("initramfs")
        guest.type("halt\r")
        guest.ends(0)


def memtest(vcpus, using):
    """To its last test, which only waits, without an error in the ten before."""
    disk = scratch_copy("linux.img")
    with open(package("memtest86+") + "/boot/memtest86+x64.bin", "rb") as f:
        program = f.read()
    put_into_disk(disk, {"/boot/memtest": program, "/boot/test.cfg": """
set timeout=0
set default=memtest
menuentry "memtest86+" --id memtest {
    linux /boot/memtest console=ttyS0,115200
}
"""})
    with Guest("--disk", disk, "--memory", "16", "--vcpus", str(vcpus)) as guest:
        guest.until("banner", lambda: "Memtest86+" in plain(guest), 60)
        guest.until("last test", lambda: "#10 [Bit fade" in plain(guest), 90)
        said = plain(guest)
        screen = guest.qmp.text()
    tests = set(re.findall(r"#(\d+) +\[", said))
    if len(tests) < 4:  # it writes what it does twice a second, and some are done in less
        raise Failure("only tests " + " ".join(sorted(tests)))
    if not re.search(using, screen):
        raise Failure("not '%s' but: %s" % (using, screen))
    errors = set(re.findall(r"Errors: +(\d+)", said + screen))
    if errors != {"0"}:
        raise Failure("errors: " + " ".join(sorted(errors)))
    return "tests named: " + " ".join(sorted(tests, key=int))


def test_memtest86():
    return memtest(1, r"CPU: 1 Cores 1 Threads")


def test_init_wakes_a_halted_cpu():
    """SeaBIOS leaves the second CPU in HLT; memtest86+ starts it by INIT and SIPI."""
    return memtest(2, r"CPU: 2 Cores 2 Threads +SMP: 2T \(PAR\)")


def test_memtest86_starts_all_cpus():
    cpus = 8 if os.environ.get("METRONOME_TESTS") == "long" else 4
    return memtest(cpus, r"CPU: %d Cores %d Threads +SMP: %dT \(PAR\)" % (cpus, cpus, cpus))


sys.exit(run_tests([test_disk_menu_by_serial, test_disk_menu_by_keyboard, test_iso_menu, test_command_line, test_memtest86,
                    test_init_wakes_a_halted_cpu, test_memtest86_starts_all_cpus]))
