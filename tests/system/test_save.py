#!/usr/bin/env python3
# A guest saved to a file and restored in a new process tree: it goes on where it was, with its disk, network, screen and
# clocks; what cannot be saved or restored is refused, with the reason, and harms nobody.
# usage: test_save.py [NAME...]
# limit: 420
import hashlib
import struct
import sys
import zlib

from lib import *
from linux_guest import *

LONG = os.environ.get("METRONOME_TESTS") == "long"
AWAY_S = 4  # between saving and restoring
ECHO = [*SMALL, "--append", "echo"]


class LinuxRestored(Guest):
    """`metronome restore FILE` of a Linux that is at its shell or prints something."""

    def __init__(self, path, *arguments, seconds=90):
        super().__init__(*arguments, path, command="restore", seconds=seconds)

    run = LinuxGuest.run
    program = LinuxGuest.program
    power_off = LinuxGuest.power_off


def restored_alone(path, *arguments):
    """A guest without device model has no QEMU with a control socket."""
    guest = LinuxRestored.__new__(LinuxRestored)
    words = [BUILD + "/metronome", "restore", "--timeout", str(int(60 * PATIENCE)), *arguments, path]
    Console.__init__(guest, words, scratch.name(".log"))
    return guest


def check_goes_on(before, after):
    """The number after the last one, and no time between them but what a number takes. Lines may be lost with the console
    that they were on their way to."""
    last, first = counts(before)[-1], counts(after)[0]
    if not last[0] < first[0] <= last[0] + 20:
        raise Failure("count %d, and %d after it was restored" % (last[0], first[0]))
    passed = first[1] - last[1]
    if not 0 < passed < 0.3 * (first[0] - last[0]) + 1:
        raise Failure("%.2f s of uptime between number %d and %d" % (passed, last[0], first[0]))
    return passed


def wait_away():
    time.sleep(AWAY_S)


def linux_goes_on(place, device, nic, vcpus):
    """Saved while it counts and while another process reads the disk by DMA."""
    image = disk_with("quiet")
    with boot_linux("", "--nic", nic, "--vcpus", str(vcpus), image=image, place=place) as guest:
        guest.run("udhcpc -qn -i eth0", 20)
        digest = guest.run("sha256sum /dev/" + device, 60).split()[0]
        guest.run("{ (for i in 1 2 3; do echo 1 >/proc/sys/vm/drop_caches; sha256sum /dev/%s; done >/tmp/sums; echo >/tmp/summed) & }"
                  % device)
        complained = complaints(guest.run("dmesg"))
        count_in(guest)
        path, _ = save(guest)
        if "saved" not in guest.errors():
            raise Failure("the run does not say that it was saved: " + guest.errors()[-200:])
    wait_away()
    with LinuxRestored(path) as after:
        after.expect(r"^count .*\n")
        passed = check_goes_on(guest, after)
        stop_counting(after)
        after.run("until [ -e /tmp/summed ]; do sleep 0.2; done", 60)
        if [line.split()[0] for line in after.run("cat /tmp/sums").strip().split("\n")] != 3 * [digest]:
            raise Failure("the disk read before, over and after the saving: " + after.run("cat /tmp/sums"))
        save(after, "-c") # its interrupts have to come as before, here too
        after.run("ping -c 3 -i 0.2 10.0.2.2", 20)
        after.run("echo 1 >/proc/sys/vm/drop_caches; sha256sum /dev/%s >/dev/null" % device, 60)
        if int(after.run("grep -c ^processor /proc/cpuinfo")) != vcpus:
            raise Failure("CPUs are missing")
        said = complaints(after.run("dmesg"))
        if said != complained:
            raise Failure("new complaints in dmesg: %s" % said[-1])
        after.power_off()
    return "%d MiB, %.2f s of its time from number to number, %d s away" % (os.path.getsize(path) >> 20, passed, AWAY_S)


def test_linux_ahci_e1000():
    return linux_goes_on("sda", "sda", "e1000", 2)


def test_linux_virtio():
    return linux_goes_on("vda", "vda", "virtio-net", 1)


def test_linux_ide_rtl8139():
    return linux_goes_on("hda", "sda", "rtl8139", 1)


def test_clocks():
    """Without device model; the guest goes on here, and twice from the file: its RTC as saved, and the host's."""
    with LinuxAlone("quiet").wait_for_shell() as guest:
        count_in(guest)
        path, _ = save(guest, "--continue")
        number = counts(guest)[-1][0]
        guest.expect(r"^count %d .*\n" % (number + 10))
        wait_away()
        saved_at = [c for c in counts(guest) if c[0] <= number][-1]
        said = []
        for policy, least, most in ("saved", 0, 2), ("host", AWAY_S - 1, 3600):
            with restored_alone(path, "--rtc", policy) as after:
                after.expect(r"^count .*\n")
                first = counts(after)[0]
                if not 0 < first[1] - saved_at[1] < 3:
                    raise Failure("%s: %.2f s of uptime passed meanwhile" % (policy, first[1] - saved_at[1]))
                away = first[2] - saved_at[2] - (first[1] - saved_at[1])
                if not least - 1 <= away <= most:
                    raise Failure("%s: the RTC shows %.1f s more" % (policy, away))
                if policy == "host" and abs(first[2] - time.time()) > 3 * PATIENCE:
                    raise Failure("host: the RTC shows %d, the host %d" % (first[2], time.time()))
                said.append("%s: RTC %+.1f s" % (policy, away))
                stop_counting(after)
                check_messages(after)
        stop_counting(guest)
        check_messages(guest)
        guest.power_off()
    return ", ".join(said)


def test_screen_and_reset():
    """What the screen shows is saved; the firmware's reset works after it, and a restored guest can be saved again."""
    image = boot_sector("bios_guest.S")
    with Guest("--disk", image, "--memory", "64", "--vga", "std") as guest:
        guest.expect("bios-guest: boot 1")
        guest.type("4")
        guest.expect("bios-guest: done 4")
        picture = guest.until("picture", lambda: guest.qmp.picture().colours() > 100 and guest.qmp.picture())
        path, _ = save(guest)
    for _ in range(2):
        with Guest(path, command="restore") as after:
            shown = after.until("picture", lambda: after.qmp.picture().colours() > 100 and after.qmp.picture())
            wrong, where = shown.differences(picture)
            if wrong:
                raise Failure("%d dots differ, %s" % (wrong, where))
            path, _ = save(after)
    with Guest(path, command="restore") as after:
        after.type("0")
        after.expect("bios-guest: done 0")
        after.qmp.command("system_reset")
        after.expect("bios-guest: boot ")
        after.type("4")
        after.expect("bios-guest: done 4")
        again = after.until("picture", lambda: after.qmp.picture().colours() > 100 and after.qmp.picture())
        if again.differences(picture)[0]:
            raise Failure("after a reset the screen shows something else")
    return "%d dots equal, three times restored" % (picture.width * picture.height)


def refused(path, pattern):
    done = subprocess.run([BUILD + "/metronome", "restore", "--quiet", "--timeout", "60", path], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90 * PATIENCE)
    said = done.stdout.decode("latin-1").strip()
    if done.returncode != 2 or "\n" in said or not re.search(pattern, said):
        raise Failure("status %d, not 2 with '%s': %s" % (done.returncode, pattern, said[-300:]))


def sections(data):
    """[[type, contents]] of a saved guest's file, docs/save.md."""
    found, at = [], 24
    while at < len(data):
        kind, _, length = struct.unpack_from("<IIQ", data, at)
        found.append([kind, data[at + 16:at + 16 + length]])
        at += 16 + length
    return found


def file_of(good, parts):
    """A file of these sections, its checksums right."""
    out = good[:24]
    parts[-1][1] = struct.pack("<Q", len(parts) - 1)
    for kind, contents in parts:
        crc = zlib.crc32(contents, zlib.crc32(struct.pack("<IIQ", kind, 0, len(contents))))
        out += struct.pack("<IIQ", kind, crc, len(contents)) + contents
    return scratch_file(out)


def saved_small():
    """A small guest's file, and what is in it."""
    with Guest(*ECHO) as guest:
        guest.expect("ends: here")
        path, _ = save(guest)
    with open(path, "rb") as f:
        return path, f.read()


def test_forged_files():
    """Checksums say nothing about what a file was made for."""
    _, good = saved_small()
    parts = sections(good)
    if file_of(good, parts) and open(file_of(good, parts), "rb").read() != good:
        raise Failure("this test does not know the file's format")
    description = dict(parts)[2]

    def forged(change, kind=2):
        return file_of(good, [[k, change(c) if k == kind else c] for k, c in parts])

    refused(file_of(good, parts[:3] + [[5, b"devices"]] + parts[3:]), "not those of the guest")
    refused(forged(lambda c: c.replace(b"module=", b"append=", 1)), "not those of the guest")
    refused(forged(lambda c: c + b"vnc=x\0"), "vnc.*'x'")
    refused(forged(lambda c: c + b"nonsense=x\0"), "another version")
    refused(forged(lambda c: c[:-1]), "another version")

    def other_clock(state):
        """The frequency in the record of time, the third: it follows the header's and the CPU's."""
        at = 16
        for _ in range(2):
            at += 16 + (struct.unpack_from("<I", state, at + 8)[0] + 7) // 8 * 8
        hz = struct.unpack_from("<Q", state, at + 16 + 8)[0]
        return state[:at + 24] + struct.pack("<Q", hz * 2) + state[at + 32:]

    parts = sections(open(forged(other_clock, 3), "rb").read())
    refused(file_of(good, parts), "^metronome: saved where the TSC runs at .* cannot be scaled$")
    with restored_alone(file_of(good, parts), "--any-tsc") as after:
        after.answers("A")
        again, _ = save(after)
    refused(again, "cannot be scaled") # what was once agreed to is not agreed to for ever
    return "%d bytes of description" % len(description)


def test_damaged_files():
    """Cut anywhere, or with any byte changed, a file is refused before anything starts."""
    path, good = saved_small()
    cuts = sorted({0, 1, 15, 16, 23, 24, len(good) - 1} | {len(good) * i // 12 for i in range(1, 12)})
    for at in cuts:
        refused(scratch_file(good[:at]), "truncated|no saved guest")
    places = sorted({0, 16, 20, 24, 28, 32, 40, len(good) - 1} | {len(good) * i // 24 for i in range(1, 24)})
    for at in places:
        changed = bytearray(good)
        changed[at] ^= 0x40
        refused(scratch_file(bytes(changed)), "damaged|no saved guest|another version|truncated")
    refused(scratch_file(good + b"x"), "damaged")
    refused("/nowhere/at/all", "No such file")
    refused("/tmp", "is not a file|Is a directory")
    with restored_alone(path) as after:
        after.answers("A")
    return "%d bytes: cut at %d places, changed at %d" % (len(good), len(cuts), len(places))


def begin_saving(name, path):
    saving = subprocess.Popen([BUILD + "/metronome", "save", name, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 5 * PATIENCE
    while not partial_files(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return saving


def given_up(name, number):
    """By a signal, while the device model does not answer: nothing is left."""
    path = scratch.name(".saved")
    saving = begin_saving(name, path)
    saving.send_signal(number)
    said = saving.communicate(timeout=10 * PATIENCE)[0]
    if saving.returncode != 128 + number or b"given up" not in said:
        raise Failure("signal %d: status %d, %s" % (number, saving.returncode, said))
    if partial_files(path):
        raise Failure("signal %d leaves %s" % (number, partial_files(path)))


def test_kept_whatever_happens_to_the_name():
    """A guest that ends is in a file: whoever else wants to write one of that name, and whatever becomes of the name."""
    with Guest(*ECHO) as guest:
        guest.expect("ends: here")
        folder = scratch.name(".folder")
        os.mkdir(folder)
        for path in folder, folder + "/", "/dev/null":
            done = subprocess.run([BUILD + "/metronome", "save", "guest", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 2 or b"is no plain file" not in done.stdout:
                raise Failure("save to %s: status %d, %s" % (path, done.returncode, done.stdout))
        guest.answers("A")
    with Guest("--disk", boot_sector("bios_guest.S"), "--memory", "64") as guest:
        guest.expect("bios-guest: boot 1")
        path = scratch.name(".saved")
        qemu = process_of(guest)
        os.kill(qemu, signal.SIGSTOP)
        saving = begin_saving("guest", path)
        second = subprocess.run([BUILD + "/metronome", "save", "guest", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.mkdir(path)
        os.kill(qemu, signal.SIGCONT)
        said = saving.communicate(timeout=20 * PATIENCE)[0].decode()
        if second.returncode != 2 or b"saved already" not in second.stdout:
            raise Failure("a second save: status %d, %s" % (second.returncode, second.stdout))
        kept = re.search(r"it is in (\S+)", said)
        if saving.returncode != 5 or not kept:
            raise Failure("the name was taken meanwhile: status %d, %s" % (saving.returncode, said))
        guest.ends(0)
    with Guest(kept[1], command="restore") as after:
        after.type("0")
        after.expect("bios-guest: done 0")


def test_names():
    """Of two guests with one name none is chosen; a restored one can be given another."""
    arguments = [*ECHO, "--name", "one"]
    with Guest(*arguments) as first:
        first.expect("ends: here")
        path, _ = save(first, "-c", name="one")
        with restored_alone(path) as second:
            second.answers("A")
            said = save(None, name="one", status=2)[1]
            if "several guests of this name" not in said:
                raise Failure("two guests of one name: " + said)
        with restored_alone(path, "--name", "two") as second:
            second.answers("A")
            save(second, name="two")
        first.answers("B")


def process_of(guest):
    """Its device model's QEMU, which no other has the control socket of."""
    found = subprocess.run(["pgrep", "-f", "xen-qemu-system.*" + guest.qmp_path], stdout=subprocess.PIPE).stdout.decode()
    return int(found.split()[0])


def ask_to_save(name, fd):
    """What `metronome save` asks the daemon for, with a descriptor that it would not open: the connection."""
    errand = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    errand.settimeout(60 * PATIENCE)
    errand.connect(os.environ["METRONOME_RUNTIME_DIR"] + "/socket")
    with open(ROOT + "/dm-proxy/daemon/protocol.h") as f:
        version = int(re.search(r"PROTOCOL_VERSION +(\d+)", f.read())[1])
    errand.sendmsg([struct.pack("<4I64s", 0x44525245, version, 0, 0, name.encode())],
                   [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))])
    return errand


def test_slow_file():
    """A file that takes no more bytes holds up neither other guests nor their ends, and its guest can be had back."""
    arguments = [*ECHO, "--name"]
    with Guest(*arguments, "one") as first, Guest(*arguments, "two") as second:
        first.expect("ends: here")
        second.expect("ends: here")
        reading, writing = os.pipe()
        errand = ask_to_save("one", writing)
        os.close(writing)
        if os.read(reading, 16) != b"Metronome guest\n":
            raise Failure("nothing is written")
        second.answers("A")
        began = time.monotonic()
        second.process.terminate()
        second.ends(143)
        took = time.monotonic() - began
        if took > 4 * PATIENCE:
            raise Failure("another guest's end took %.1f s" % took)
        errand.close()
        while os.read(reading, 65536):
            pass
        first.answers("B")
    return "another guest ended in %.1f s" % took


def test_not_saved():
    """What prevents a saving is said, and the guest goes on."""
    said = save(None, status=6)[1]
    if "no hypervisor is running" not in said:
        raise Failure("without a guest: " + said)
    image = boot_sector("bios_guest.S")
    with Guest("--disk", image, "--memory", "64", "--name", "one") as guest:
        guest.expect("bios-guest: boot 1")

        def fails(pattern, status=2, **how):
            said = save(guest, status=status, **how)[1]
            if not re.search(pattern, said) or said.count("\n") != 1:
                raise Failure("no '%s' in: %s" % (pattern, said))

        fails("no guest of this name", name="two")
        refused(save(guest, "-c", name="one")[0], re.escape(guest.qmp_path) + ": is in use already")
        with open("/dev/full", "wb") as full:
            answer = ask_to_save("one", full.fileno()).recv(4096)
        if b"No space left" not in answer:
            raise Failure("a full disk: %r" % answer[:100])
        qemu = process_of(guest)
        os.kill(qemu, signal.SIGSTOP)
        fails("does not come to rest", name="one", status=5)
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            given_up("one", number)
        os.kill(qemu, signal.SIGCONT)
        for letter in "04":
            guest.type(letter)
            guest.expect("bios-guest: done " + letter)


TESTS = [test_linux_ahci_e1000, test_clocks, test_screen_and_reset, test_damaged_files, test_forged_files, test_not_saved,
         test_kept_whatever_happens_to_the_name, test_names, test_slow_file]
if LONG or sys.argv[1:]:
    TESTS += [test_linux_virtio, test_linux_ide_rtl8139]
sys.exit(run_tests(TESTS))
