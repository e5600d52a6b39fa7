#!/usr/bin/env python3
# SeaBIOS as a guest's firmware: what it says on its debug port, and its boot menu.
# usage: test_firmware.py [NAME...]
# limit: 240
import sys

from lib import *


def debug_port(path):
    words = ["-debugcon", "file:" + path, "-global", "isa-debugcon.iobase=0x402"]
    return [w for word in words for w in ("--qemu-arg", word)]


def said(path):
    with open(path, "rb") as f:
        return f.read().decode("latin-1")


def check_said(text, *patterns):
    for pattern in patterns:
        if not re.search(pattern, text, re.M):
            print("\n".join("    " + line for line in text.split("\n")))
            raise Failure("SeaBIOS does not say '%s'" % pattern)


def blank_disk(mib):
    path = scratch.name(".img")
    with open(path, "wb") as f:
        f.truncate(mib << 20)
    return path


def test_debug_port():
    log = scratch.name(".debug")
    with Guest("--disk", boot_sector("bios_guest.S"), "--disk", blank_disk(10), "--disk", blank_disk(20) + ",raw,sda",
               "--disk", blank_disk(30) + ",raw,vda", "--cdrom", blank_disk(2), "--memory", "200", "--vcpus", "2",
               *debug_port(log)) as guest:
        guest.expect("bios-guest: boot 1", 60)
    check_said(said(log), r"^SeaBIOS \(version 1\.", r"^Running on QEMU", r"^QEMU fw_cfg DMA interface supported",
               r"e820: addr 0x0+ len 0x0*c800000 \[RAM\]", r"^Found 2 cpu\(s\)", r"^PCI: init bdf=00:01.3 id=8086:7113",
               r"^Using pmtimer, ioport 0x[0-9a-f]*08$",
               r"^ata0-0: QEMU HARDDISK .* \(1 MiBytes\)", r"^ata0-1: .*\(10 MiBytes\)",
               r"^DVD/CD \[ata1-0: QEMU DVD-ROM", r"^AHCI/0: registering: .*\(20 MiBytes\)", r"^found virtio-blk at 00:10\.0", r"^drive .* s=61440$", r"^PS2 keyboard initialized",
               r"^e820 map has", r"- 000000000c800000 = 2 RESERVED", r"^Booting from 0000:7c00")
    if "WARNING" in said(log):
        raise Failure("SeaBIOS warns: " + re.search(".*WARNING.*", said(log))[0])


def test_large_memory():
    """Above 3 GiB the rest of RAM is above 4 GiB."""
    log = scratch.name(".debug")
    with Guest("--disk", boot_sector("bios_guest.S"), "--memory", "4G", *debug_port(log)) as guest:
        guest.expect("bios-guest: boot 1", 60)
    check_said(said(log), r"e820: addr 0x0+ len 0x0*c0000000 \[RAM\]",
               r"e820: addr 0x0*100000000 len 0x0*40000000 \[RAM\]",
               r"0000000100000000 - 0000000140000000 = 1 RAM")


def test_boot_menu():
    """ESC, then the digit: each an interrupt 1 through our 8259."""
    log = scratch.name(".debug")
    with Guest("--disk", blank_disk(10), "--disk", boot_sector("bios_guest.S"), "--memory", "64", *debug_port(log)) as guest:
        guest.expect_screen(r"Press ESC for boot menu", 60)
        guest.qmp.key("esc")
        guest.expect_screen(r"Select boot device:\n\n1\. ata0-0: .*\n2\. ata0-1: ")
        guest.qmp.key("2")
        guest.expect("bios-guest: boot 1")
    check_said(said(log), r"^Booting from 0000:7c00")


def test_boot_menu_not_wanted():
    """Without a key the first device boots: none of the two, whose sectors have no signature, does."""
    with Guest("--disk", blank_disk(10), "--disk", blank_disk(10), "--memory", "64") as guest:
        guest.expect_screen(r"Boot failed: not a bootable disk", 60)
        guest.expect_screen(r"No bootable device\.")


sys.exit(run_tests([test_debug_port, test_large_memory, test_boot_menu, test_boot_menu_not_wanted]))
