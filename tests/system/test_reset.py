#!/usr/bin/env python3
# Every way a guest resets itself leads through SeaBIOS to its boot loader again, and CPUs start by INIT and SIPI.
# usage: test_reset.py [NAME...]
# limit: 600
import sys

from lib import *

BIOS_RESETS = {"k": "keyboard controller", "f": "port 92h", "9": "port CF9h", "t": "triple fault",
               "w": "the BIOS's warm start"}
LONG = os.environ.get("METRONOME_TESTS") == "long"


def test_bios_guest_resets():
    """Each kind twice; CMOS RAM counts the boots, so it outlives them, and the picture is a boot's own."""
    boots = 1
    with Guest("--disk", boot_sector("bios_guest.S"), "--memory", "64", "--vcpus", "2") as guest:
        guest.expect("bios-guest: boot 1", 60)
        for letter, name in BIOS_RESETS.items():
            guest.type("2")  # what a reset has to undo: a graphics mode
            guest.expect("bios-guest: done 2")
            guest.type(letter)
            boots += 1
            try:
                guest.expect("bios-guest: boot %d" % boots, 20)
            except Failure as e:
                raise Failure("%s: %s" % (name, e))
            guest.expect_screen("Booting from Hard Disk")
    return "%d boots" % boots


def test_reset_by_monitor():
    """QEMU resets its own devices then; the rest of the machine has to follow."""
    with Guest("--disk", boot_sector("bios_guest.S"), "--memory", "64") as guest:
        guest.expect("bios-guest: boot 1", 60)
        for boots in (2, 3):
            guest.qmp.command("system_reset")
            guest.expect("bios-guest: boot %d" % boots, 20)
            guest.type("2")
            guest.expect("bios-guest: done 2")


def linux_reboots(vcpus, kinds):
    """`reboot -f` in its default way or another; after the last one it still powers off."""
    with Guest("--disk", scratch_copy("linux.img"), "--memory", "256", "--vcpus", str(vcpus), seconds=300) as guest:
        for kind in kinds:
            guest.expect("guest: ready after .* %d CPU" % vcpus, 60)
            guest.expect("guest# ")
            if kind:
                guest.type("echo %s > /sys/kernel/reboot/type; echo 1 > /sys/kernel/reboot/force\r" % kind)
            guest.type("reboot -f\r")
            guest.expect("reboot: machine restart")
        guest.expect("guest: ready", 60)
        guest.expect("guest# ")
        guest.type("poweroff -f\r")
        guest.ends(0)
    return "%d reboots" % len(kinds)


def test_linux_reboots():
    return linux_reboots(1, ["", "kbd", "pci", "bios", "triple"] if LONG else [""])


def test_linux_reboots_two_cpus():
    return linux_reboots(2, ["", "triple"] if LONG else ["triple"])


def startup(pcpus):
    environment = dict(os.environ, METRONOME_PCPUS=str(pcpus))
    command = [BUILD + "/metronome", "run", "--module", BUILD + "/guest/startup.elf", "--vcpus", "2", "--memory", "64"]
    done = subprocess.run(command + ["--timeout", "100"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment)
    said = done.stdout.decode()
    print("".join("    " + line + "\n" for line in said.split("\n") if line.startswith("not ok")), end="")
    if done.returncode or not re.search(r"guest: 15 passed, 0 failed", said):
        raise Failure("status %d, %s" % (done.returncode, said.strip().split("\n")[-1]))
    return "15 checks"


def test_startup_on_one_pcpu():
    return startup(1)


def test_startup_on_two_pcpus():
    return startup(2)


sys.exit(run_tests([test_bios_guest_resets, test_reset_by_monitor, test_linux_reboots, test_linux_reboots_two_cpus,
                    test_startup_on_one_pcpu, test_startup_on_two_pcpus]))
