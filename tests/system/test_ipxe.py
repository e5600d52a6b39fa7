#!/usr/bin/env python3
# iPXE as a guest's boot loader: from a card's option ROM, from its ISO, and what it boots over the network.
# usage: test_ipxe.py [NAME...]
# limit: 240
import sys

from lib import *

PROMPT = r"^iPXE>$"


def command_line(guest):
    guest.expect_screen(r"Press Ctrl-B for the iPXE command line", 60)
    guest.qmp.key("ctrl", "b")
    guest.expect_screen(PROMPT)


def type_line(guest, line):
    """Letter by letter, as each is seen: a keyboard holds few, and a BIOS 15."""
    names = {" ": "spc", ".": "dot", "/": "slash", "-": "minus"}
    for n, letter in enumerate(line, 1):
        guest.qmp.key(names.get(letter, letter))
        guest.expect_screen("^iPXE> " + re.escape(line[:n].rstrip()))
    guest.qmp.key("ret")


def test_option_rom_prompt():
    """The card's ROM, run because it is the only device; its command line answers."""
    with Guest("--nic", "e1000", "--memory", "64") as guest:
        guest.expect_screen(r"^iPXE .*Open Source Network Boot Firmware", 60)
        command_line(guest)
        type_line(guest, "ifstat")
        guest.expect_screen(r"^net0: 52:54:00:12:34:56 using 82540em on 0000:00:04.0 \((open|closed)\)")


def test_iso_prompt():
    with Guest("--cdrom", package("ipxe") + "/usr/lib/ipxe/ipxe.iso", "--boot", "d", "--memory", "64") as guest:
        guest.expect_screen(r"^ISOLINUX", 60)
        command_line(guest)
        type_line(guest, "echo metronome-ipxe")
        guest.expect_screen(r"^metronome-ipxe$")


def tftp_folder(files):
    folder = scratch.name(".tftp")
    os.mkdir(folder)
    for name, content in files.items():
        with open(folder + "/" + name, "wb") as f:
            f.write(content)
    return folder


def autoboot(model):
    """DHCP, a script by TFTP, and what the script fetches: a second file, of which iPXE tells the size."""
    size = 123457
    script = b"""#!ipxe
echo metronome-ipxe: ${net0/ip} from ${next-server}
imgfetch --name second second.bin
imgstat
shell
"""
    folder = tftp_folder({"boot.ipxe": script, "second.bin": bytes(i * i >> 8 & 255 for i in range(size))})
    nic = "%s,net=user,tftp=%s,bootfile=boot.ipxe" % (model, folder)
    with Guest("--nic", nic, "--boot", "n", "--memory", "64") as guest:
        guest.expect_screen(r"^tftp://10\.0\.2\.2/boot\.ipxe\.* ok", 60)
        guest.expect_screen(r"^metronome-ipxe: 10\.0\.2\.15 from 10\.0\.2\.2$")
        guest.expect_screen(r"^second : %d bytes" % size)
        guest.expect_screen(PROMPT)


def test_autoboot_e1000():
    autoboot("e1000")


def test_autoboot_rtl8139():
    autoboot("rtl8139")


def test_autoboot_virtio():
    autoboot("virtio-net")


sys.exit(run_tests([test_option_rom_prompt, test_iso_prompt, test_autoboot_e1000, test_autoboot_rtl8139,
                    test_autoboot_virtio]))
