#!/usr/bin/env python3
# Every way in which `metronome run` ends: its status, the line that says why, the terminal as it was, and nothing left:
# no process, no file. With small guests that need no device model, but where a QEMU is what ends.
# usage: test_ends.py [NAME...]
# limit: 300
# run: check
import struct

from lib import *

LINUX = ["--module", BUILD + "/images/vmlinuz", "--initrd", BUILD + "/images/initramfs.cpio.gz"]


def metronome(*arguments, **environment):
    command = [BUILD + "/metronome", "run", *arguments]
    return Console(command, scratch.name(".log"), None, dict(os.environ, **environment))


def errors(run):
    with open(run.log, "rb") as f:
        return f.read().decode("latin-1")


def says(run, text):
    if not re.search(text, errors(run), re.M):
        raise Failure("does not say '%s': %s" % (text, errors(run).strip()))


# name | arguments | status | what standard error says
TABLE = [
    ("exit code 0", SMALL + ["--append", "exit=0"], 0, "the guest ended with code 0"),
    ("exit code 7", SMALL + ["--append", "exit=7"], 4, "the guest ended with code 7"),
    ("triple fault", SMALL + ["--append", "triple"], 4, "the guest crashed: triple fault"),
    ("expectation", SMALL + ["--expect", "^ends: (here|there)$"], 0, "the expected output was seen"),
    ("no expectation of a part", SMALL + ["--expect", "^ends$", "--append", "exit=0"], 1,
     "ended without the expected output"),
    ("time-out", SMALL + ["--timeout", "3"], 3, "the time is up"),
    ("no image", ["--module", ENDS + ".64.o"], 2, "No such file"),
    ("image that cannot start", ["--module", BUILD + "/images/initramfs.cpio.gz"], 2,
     "initramfs.cpio.gz: not a bootable image"),
    ("device model's usage", ["--qemu-arg", "-nonsense"], 2, "device model did not start.*-nonsense: invalid option"),
]


def test_table():
    for name, arguments, status, text in TABLE:
        with metronome(*arguments) as run:
            try:
                run.ends(status)
                says(run, "^metronome: .*" + text)
                nothing_left()
            except Failure as e:
                raise Failure("%s: %s" % (name, e)) from None
    return "%d ends" % len(TABLE)


def test_power_off():
    with metronome(*LINUX, "--append", "console=ttyS0 mt.run='sleep 1' mt.test=poweroff") as run:
        run.ends(0, 60)
        says(run, "switched itself off")
        says(run, r"^  exits  +\d+  +longest off, TSC ticks$")
        says(run, r"^    HLT  +\d+  +\d+\.\d %  +\d+$")
        says(run, r"^    local APIC timer +\d+")
        says(run, r"^metronome: +\d+\.\d s  creating the guest$")
    nothing_left()


def test_quiet():
    with metronome(*SMALL, "--append", "exit=0", "--quiet") as run:
        run.ends(0)
        if errors(run):
            raise Failure("is not quiet: " + errors(run))
        if run.output != b"ends: here\n":
            raise Failure("the guest's output is %r" % run.output)


def test_no_amd_v():
    with metronome(*SMALL, METRONOME_OUTER_ARGS="-cpu qemu64,-svm") as run:
        run.ends(2)
        says(run, "^metronome: the hypervisor cannot run: this CPU has neither AMD-V nor VT-x$")
    nothing_left()


def signalled(number):
    with metronome(*SMALL) as run:
        run.expect("ends: here")
        run.process.send_signal(number)
        run.ends(128 + number)
        says(run, "ended by signal %d" % number)
    nothing_left()


def test_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signalled(number)


def killed(what, text, arguments=SMALL, but=()):
    with metronome(*arguments) as run:
        run.until("guest", lambda: "running" in errors(run))
        os.kill(process(what), signal.SIGKILL)
        run.ends(5)
        says(run, "^metronome: .*" + text)
    nothing_left(but)
    if but and os.path.exists(RUNTIME):
        for name in os.listdir(RUNTIME):
            os.unlink(RUNTIME + "/" + name)


def test_device_model_dies():
    qmp = scratch.name(".qmp")
    killed("xen-qemu", r"the device model is gone: its QEMU was killed by signal 9", ["--memory", "32", "--qmp", qmp])
    if os.path.exists(qmp):
        raise Failure("its control socket is left")


def test_hypervisor_dies():
    killed("^qemu-system", r"the hypervisor's QEMU was killed by signal 9", but=["hypervisor.log"])


def test_daemon_dies():
    """Its socket stays, and the next run is not disturbed by that."""
    killed("^metronome-daemon", "the daemon is gone", but=["hypervisor.log", "socket"])
    with metronome(*SMALL, "--append", "exit=0") as run:
        run.ends(0)
    nothing_left()


def test_stale_socket():
    os.makedirs(RUNTIME, mode=0o700, exist_ok=True)
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(RUNTIME + "/socket")
    stale.close()
    with metronome(*SMALL, "--append", "exit=0") as run:
        run.ends(0)
    nothing_left()


def test_client_dies():
    run = metronome(*SMALL)
    run.expect("ends: here")
    run.process.kill()
    run.close()
    nothing_left()


def test_two_guests():
    """They share one hypervisor, which the first one's end does not disturb."""
    with metronome(*SMALL, "--append", "echo") as first, metronome(*SMALL, "--append", "echo") as second:
        first.expect("ends: here")
        second.expect("ends: here")
        if len([p for p in processes().values() if p.startswith("qemu-system")]) != 1:
            raise Failure("not one hypervisor: %s" % processes())
        first.process.terminate()
        first.ends(143)
        second.answers("A")
        with metronome(*SMALL, "--append", "exit=0") as third:
            third.ends(0)
        second.answers("B")
        second.process.terminate()
        second.ends(143)
    nothing_left()


def test_many_runs():
    """One after the other as fast as they end: each start meets a daemon that is ending, or none."""
    for _ in range(5):
        with metronome(*SMALL, "--append", "exit=0") as run:
            run.ends(0)
    nothing_left()


def test_too_many_descriptors():
    """More than belong to a request are not taken, and what they come with harms nobody."""
    with metronome(*SMALL, "--append", "echo") as run:
        run.expect("ends: here")
        other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other.connect(RUNTIME + "/socket")
        errand = struct.pack("<4I16i", 0x44525245, 0, 0, 0, *range(3, 19))
        null = os.open("/dev/null", os.O_RDWR)
        other.sendmsg([errand], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("6i", *[null] * 6))])
        if b"another version" not in other.recv(4096):
            raise Failure("the daemon does not refuse it")
        other.close()
        os.close(null)
        run.answers("A")
        run.process.terminate()
        run.ends(143)
    nothing_left()


def trigger(*arguments):
    return subprocess.run([BUILD + "/metronome", "trigger", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_buttons():
    """The board's NMI reaches the guest unless port 0x70 masks it; reset and power do what they say."""
    with metronome(*SMALL, "--append", "nmi", "--name", "one") as run:
        run.expect("ends: here")
        for typed, nmi in ("", True), ("m", False), ("u", True):
            run.type(typed)
            run.expect("<%02x>" % ord(typed) if typed else "")
            if trigger("one", "nmi").returncode:
                raise Failure("trigger nmi failed")
            if nmi:
                run.expect("<NMI>")
        run.type("x")
        run.expect("<78>")
        if run.output.count(b"<NMI>") != 2:
            raise Failure("%d NMIs, not 2" % run.output.count(b"<NMI>"))
        if trigger("one", "reset").returncode:
            raise Failure("trigger reset failed")
        run.expect("ends: here")
        for arguments, text in (("two", "nmi"), b"no guest of this name"), (("one", "bell"), b"is no button"), (("one",), b"takes a guest"):
            done = trigger(*arguments)
            if done.returncode != 2 or text not in done.stdout:
                raise Failure("trigger %s: %d, %s" % (arguments, done.returncode, done.stdout))
        run.process.terminate()
        run.ends(143)
    nothing_left()


def test_terminal_keys():
    with Terminal("run", *SMALL, "--append", "echo") as run:
        run.expect("starting the hypervisor in QEMU [^\r]* s")
        run.expect("ends: here")
        if run.settings() == run.before:
            raise Failure("the terminal is not raw")
        for keys, answer in (("x", "<78>"), ("\x03", "<03>"), ("\x01\x01", "<01>"), ("\x01z", ""), ("\r", "<0d>"),
                             ("\x01h", "send Ctrl-a"), ("\x01c", "has no device model, so no monitor")):
            run.type(keys)
            run.expect(re.escape(answer))
        run.type("\x01x")
        run.expect("ended by Ctrl-a x")
        run.ends_restored(0)
        nothing_left()


def test_terminal_monitor():
    with Terminal("run", "--memory", "32") as run:
        run.expect("running after")
        run.type("\x01c")
        run.expect(r"\(qemu\)")
        run.type("info status\r")
        run.expect("VM status: running")
        run.type("\x01c")
        run.expect("keys go to the guest")
        run.type("\x01c")
        run.expect(r"\(qemu\)")
        run.type("quit\r")
        run.expect("ended from QEMU's monitor")
        run.ends_restored(0)
        nothing_left()


def test_terminal_restored():
    for arguments, number, status in ((["--append", "exit=3"], 0, 4), (["--timeout", "3"], 0, 3),
                                      ([], signal.SIGTERM, 143), ([], signal.SIGHUP, 129),
                                      ([], signal.SIGSEGV, -signal.SIGSEGV)):
        with Terminal("run", *SMALL, *arguments) as run:
            run.expect("ends: here")
            if number:
                os.kill(process("^metronome$"), number)
            run.ends_restored(status if status != -signal.SIGSEGV else run.process.wait())
            nothing_left()


if __name__ == "__main__":
    sys.exit(run_tests([test_table, test_power_off, test_quiet, test_no_amd_v, test_signals, test_device_model_dies,
                        test_hypervisor_dies, test_daemon_dies, test_stale_socket, test_client_dies, test_two_guests,
                        test_many_runs, test_too_many_descriptors, test_buttons, test_terminal_keys, test_terminal_monitor,
                        test_terminal_restored]))
