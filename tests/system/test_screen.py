#!/usr/bin/env python3
# What the screen shows in text and graphics modes, dot by dot as the same guest shows it under a plain QEMU.
# usage: test_screen.py [NAME...]
# limit: 240
import sys
import zlib

from lib import *

MODES = {"0": "text", "1": "mode-12h", "2": "mode-13h", "3": "vbe-window", "4": "vbe-linear"}


def disk(image):
    return ["-drive", "file=%s,format=raw,if=ide" % image]


def still(console, seconds=60):
    """The picture, once it no longer changes."""
    last = [None]

    def same():
        before, last[0] = last[0], console.qmp.picture()
        return before and before.colours() > 1 and before.dots == last[0].dots and last[0]

    return console.until("picture that stands still", same, seconds, 1)


def draw(console):
    """The pictures of every mode, {name: picture}."""
    pictures = {}
    console.expect("bios-guest: boot 1")
    for letter, name in MODES.items():
        console.type(letter)
        console.expect("bios-guest: done " + letter)
        pictures[name] = still(console)
    return pictures


def compare(reference, pictures, colours):
    for name, picture in pictures.items():
        if picture.colours() < colours.get(name, 2):
            raise Failure("%s: only %d colours" % (name, picture.colours()))
        wrong, where = picture.differences(reference[name])
        if wrong:
            os.makedirs(BUILD + "/test-logs", exist_ok=True)
            for kind, p in ("wanted", reference[name]), ("seen", picture):
                with open("%s/test-logs/screen-%s-%s.ppm" % (BUILD, name, kind), "wb") as f:
                    f.write(b"P6 %d %d 255\n" % (p.width, p.height) + p.dots)
            raise Failure("%s: %d of %d dots differ, %s" % (name, wrong, picture.width * picture.height, where))
    return "%d pictures, %d dots equal" % (len(pictures), sum(p.width * p.height for p in pictures.values()))


def modes(vga):
    image = boot_sector("bios_guest.S")
    with Reference("-vga", vga, *disk(image)) as console:
        reference = draw(console)
    with Guest("--vga", vga, "--disk", image, "--memory", "64") as guest:
        pictures = draw(guest)
    return compare(reference, pictures, {"text": 16, "mode-12h": 16, "mode-13h": 256, "vbe-window": 200})


def test_modes_std():
    return modes("std")


def background():
    """A PNG of 640x480 with a colour for nearly each dot."""
    rows = b"".join(b"\0" + bytes(c for x in range(640) for c in (x * 255 // 639, y * 255 // 479, (x ^ y) & 255))
                    for y in range(480))
    chunks = [(b"IHDR", b"\0\0\2\x80\0\0\1\xe0\x08\2\0\0\0"), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks)


GRUB_CONFIG = """
insmod all_video
insmod gfxterm
insmod png
loadfont /boot/grub/fonts/unicode.pf2
set gfxmode=640x480x32
set gfxpayload=keep
terminal_output gfxterm
background_image /background.png
set timeout=-1
menuentry "metronome: first entry" { true }
menuentry "metronome: second entry" { true }
"""


def grub_menu(console):
    """The menu over the image, before and after a key: the second shows what was drawn anew alone."""
    console.until("menu over the image", lambda: console.qmp.picture().colours() > 10000, 60)
    pictures = {"grub": still(console)}
    console.qmp.key("down")
    console.until("other picture", lambda: console.qmp.picture().dots != pictures["grub"].dots)
    pictures["grub-down"] = still(console)
    return pictures


def test_grub_background():
    iso = grub_iso(GRUB_CONFIG, {"/background.png": scratch_file(background())})
    with Reference("-cdrom", iso, "-boot", "d") as console:
        reference = grub_menu(console)
    with Guest("--cdrom", iso, "--boot", "d") as guest:
        pictures = grub_menu(guest)
    return compare(reference, pictures, {"grub": 10000})


sys.exit(run_tests([test_modes_std, test_grub_background]))
