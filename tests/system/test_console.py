#!/usr/bin/env python3
# The console of a guest without device model: every byte arrives, in order, however late its reader comes, and however much is
# typed at once.
# usage: test_console.py [NAME...]
# limit: 240
import hashlib
import string
import sys
import threading

from lib import *
from linux_guest import *

LINES = 20000  # of 16 bytes: more than the ring and the socket hold


def without_reader(guest):
    """Stops the process that reads what it says, until the guest waits for it."""
    guest.expect("flood 000000010\n")
    guest.process.send_signal(signal.SIGSTOP)
    guest.until("end of the flood", at_rest)
    guest.process.send_signal(signal.SIGCONT)


def expect_all(guest, lines):
    """To the last one, and the guest's end."""
    guest.ends(0, 60)
    said = guest.output.decode().split("\n")
    if said != ["ends: here"] + ["flood %09d" % n for n in range(lines)] + [""]:
        numbers = [int(line[6:]) for line in said[1:-1] if re.fullmatch(r"flood \d{9}", line)]
        missing = sorted(set(range(lines)) - set(numbers))
        raise Failure("%d lines and %d other ones; %d are missing, the first of them is %s" %
                      (len(numbers), len(said) - 2 - len(numbers), len(missing), missing[:1]))


def flood(how):
    """What found no room on the way was dropped."""
    with hypervisor(), Guest(*small(does="flood=%d exit=0 %s" % (LINES, how))) as guest:
        without_reader(guest)
        expect_all(guest, LINES)


def test_late_reader_of_the_debug_port():
    flood("")


def test_late_reader_of_the_serial_port():
    flood("com1")


def test_late_reader_of_a_guest_that_does_not_ask():
    flood("rude")


def test_last_words_wait_for_the_reader():
    """The guest has ended, and what it said last is in the ring yet: the socket was full."""
    with hypervisor():
        for lines in range(250, 1001, 250):
            with Guest(*small(does="flood=%d exit=0" % lines)) as guest:
                without_reader(guest)
                expect_all(guest, lines)


def fnv(data):
    h = 0x811c9dc5
    for byte in data:
        h = (h ^ byte) * 0x01000193 & 0xffffffff
    return h


def some_text(n):
    letters = string.ascii_letters + string.digits
    return "".join(letters[(i * 7 + i // 62 * 5 + i // 997) % len(letters)] for i in range(n))


def expect_sum(guest, text):
    guest.expect("sum %d %08x\n" % (len(text), fnv(text.encode())))


def test_typed_at_once():
    text = some_text(4096)
    with Guest(*small(does="sum=%d" % len(text))) as guest:
        guest.expect("ends: here")
        guest.type(text)
        expect_sum(guest, text)


def test_typed_before_the_start():
    """Nobody told the hypervisor of it when the guest had started."""
    text = some_text(600)
    with Guest(*small(does="sum=%d" % len(text))) as guest:
        guest.type(text)
        expect_sum(guest, text)


def test_typed_while_paused():
    """Nor when it went on."""
    text = some_text(100)
    with hypervisor(), Guest(*small(does="sum=%d" % len(text))) as guest:
        guest.expect("ends: here")
        command("pause", "guest")
        guest.type(text)
        time.sleep(0.3) # it is on its way
        command("unpause", "guest")
        expect_sum(guest, text)
        command("destroy", "guest")
        guest.ends(0)


def test_much_typed_and_answered():
    """Both directions at once, and both full: nobody waits for the other."""
    text = some_text(30000)
    with Guest(*small(does="echo")) as guest:
        guest.expect("ends: here")
        typing = threading.Thread(target=lambda: guest.type(text), daemon=True)
        typing.start()
        guest.until("answer to the last byte", lambda: guest.output.endswith(b"<%02x>" % ord(text[-1])) and
                    guest.output.count(b"<") >= len(text), 60, 0.1)
        typing.join(10)
        if guest.output.decode().split("\n", 1)[1] != "".join("<%02x>" % ord(c) for c in text):
            raise Failure("the answers are not those to what was typed")


def test_typed_at_linux():
    text = some_text(4000)
    with LinuxAlone("quiet").wait_for_shell() as guest:
        for _ in range(3):
            guest.type("stty -icanon; echo g''o; head -c %d | md5sum; stty icanon\r" % len(text))
            guest.expect(r"go\r*\n")
            guest.type(text)
            guest.expect(hashlib.md5(text.encode()).hexdigest())
        guest.power_off()


def test_linux_with_a_late_reader():
    """Its driver sends 16 bytes on each interrupt of the transmitter; and the kernel's own messages."""
    with LinuxAlone("quiet").wait_for_shell() as guest:
        guest.type("dmesg -n 8; echo; seq 30000; for i in $(seq 100); do echo message $i >/dev/kmsg; done; echo all''done\r")
        guest.expect(r"^1000\r*\n")
        guest.process.send_signal(signal.SIGSTOP)
        guest.until("end of its output", at_rest)
        guest.process.send_signal(signal.SIGCONT)
        guest.expect(r"^alldone\r*\n", 60)
        numbers = [int(n) for n in re.findall(rb"^(\d+)\r*$", guest.output, re.M)]
        messages = [int(n) for n in re.findall(rb"message (\d+)\r*$", guest.output, re.M)]
        if numbers != list(range(1, 30001)) or messages != list(range(1, 101)):
            raise Failure("%d lines and %d messages arrive" % (len(numbers), len(messages)))
        guest.power_off()


sys.exit(run_tests([test_late_reader_of_the_debug_port, test_late_reader_of_the_serial_port, test_late_reader_of_a_guest_that_does_not_ask,
                    test_last_words_wait_for_the_reader, test_typed_at_once, test_typed_before_the_start, test_typed_while_paused,
                    test_much_typed_and_answered, test_typed_at_linux, test_linux_with_a_late_reader]))
