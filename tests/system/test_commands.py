#!/usr/bin/env python3
# Every command but run, save and restore: what it does, that it waits until that is done, what it says when it cannot, and that
# nobody else suffers. With small guests, most of them without device model.
# usage: test_commands.py [NAME...]
# limit: 300
# run: check
import ast
import struct

from lib import *


def up(*arguments, **environment):
    return command("up", *arguments, **environment)


def fails(pattern, *arguments, status=2):
    """One line that says why."""
    said = command(*arguments, status=status)
    if not re.search(pattern, said) or said.count("\n") != 1 or not said.startswith("metronome: "):
        raise Failure("metronome %s: not one line with '%s': %s" % (" ".join(arguments), pattern, said))


def guest(name):
    found = guests(name)
    if len(found) != 1:
        raise Failure("%d guests of the name %s" % (len(found), name))
    return found[0]


def console(name, *arguments):
    return Console([BUILD + "/metronome", "console", *arguments, name], scratch.name(".log"))


def detached(name, *arguments):
    command("run", "--detach", "--quiet", "--name", name, *(arguments or small()))


def until(what, condition, seconds=10):
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("no %s within %d s" % (what, seconds * PATIENCE))
        time.sleep(0.05)


# ---- up, down, info ----


def test_none_running():
    """A status of its own."""
    for arguments in ("info",), ("list",), ("down",), ("pause", "x"), ("console", "x"), ("destroy", "1"), ("save", "x", "y"), ("trace",):
        fails("no hypervisor is running", *arguments, status=6)
    nothing_left()


def test_up_and_down():
    said = up("--cpus", "1", "--memory", "200")
    if not re.search("^metronome: up: QEMU", said, re.M):
        raise Failure("up says: " + said)
    facts = ast.literal_eval(command("info", "--json"))
    if facts["nr_cpus"] != 1 or not 150 << 10 < facts["hypervisor_memory_kib"] <= 200 << 10 or facts["free_slots"] != 8:
        raise Failure("info says: %s" % facts)
    if not 1e8 < facts["tsc_hz"] < 1e11 or facts["ends"] != "by metronome down" or facts["guests"]:
        raise Failure("info says: %s" % facts)
    if not re.search(r"^machine +: QEMU", command("info"), re.M):
        raise Failure("info for people has no machine: " + command("info"))
    if "up already" not in up():
        raise Failure("a second up does not say that it is one")
    fails("is running already", "up", "--cpus", "1")
    fails("no number", "up", "--cpus", "none")
    fails("no number", "up", "--memory", "0")
    command("down")
    nothing_left()
    fails("no hypervisor is running", "down", status=6)


def test_down_refuses():
    with hypervisor():
        detached("one")
        detached("two")
        fails("2 guests are running: one two", "down")
        if [g["name"] for g in guests()] != ["one", "two"]:
            raise Failure("a refused down has ended guests: %s" % guests())
        command("down", "-f")
        nothing_left()
        up("--quiet")


def test_run_attaches():
    """To the one that is up, which outlives it; one that a run has started ends with its last guest, or stays from `up` on."""
    with hypervisor():
        with Guest(*small()) as run:
            run.expect("ends: here")
            run.answers("A")
            run.process.terminate()
            run.ends(143)
        if guests():
            raise Failure("the guest is left: %s" % guests())
    with Guest(*small()) as run:
        run.expect("ends: here")
        run.answers("A")
        if ast.literal_eval(command("info", "--json"))["ends"] != "with its last guest":
            raise Failure("info says: " + command("info"))
        if "up already" not in up():
            raise Failure("up beside a run")
        run.process.terminate()
        run.ends(143)
    command("down")
    nothing_left()
    detached("one")
    command("destroy", "one")
    nothing_left()


def test_up_that_fails():
    """Says why, and leaves nothing."""
    said = up(status=2, METRONOME_OUTER_ARGS="-cpu qemu64,-svm")
    if "this CPU has neither AMD-V nor VT-x" not in said:
        raise Failure("up says: " + said)
    nothing_left()
    up("--quiet")
    detached("one")
    os.kill(process("^qemu-system"), signal.SIGKILL)
    nothing_left(["hypervisor.log"])
    with open(RUNTIME + "/hypervisor.log") as f:
        if "(one): the hypervisor's QEMU was killed by signal 9" not in f.read():
            raise Failure("the log does not say how the guest ended")
    fails("no hypervisor is running", "list", status=6)
    up("--quiet")
    os.kill(process("^metronome-daemon"), signal.SIGKILL)
    nothing_left(["hypervisor.log", "socket"])
    fails("no hypervisor is running", "list", status=6)
    with hypervisor():
        pass


# ---- list ----


def test_list():
    with hypervisor():
        if command("list").split() != ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"]:
            raise Failure("without guests: " + command("list"))
        detached("one", *small("--vcpus", "2"))
        detached("two", "--module", ENDS, "--memory", "32")
        until("halted guest", lambda: guest("two")["state"] == "blocked")
        rows = [line.split() for line in command("list").splitlines()[1:]]
        if [r[:4] for r in rows] != [["one", "1", "16", "2"], ["two", "2", "32", "1"]]:
            raise Failure("list says: " + command("list"))
        if rows[0][4] != "r-----" or rows[1][4] != "-b----":
            raise Failure("one that polls and one that halts: " + command("list"))
        if [g["name"] for g in guests("2", "one")] != ["one", "two"] or [g["name"] for g in guests("two")] != ["two"]:
            raise Failure("chosen by name and number: %s" % guests("2", "one"))
        said = command("list", "three", status=2)
        if "metronome: three: no guest of this name or number is running" not in said:
            raise Failure("list three: " + said)
        if not re.search(r"^state +: running$", command("list", "-l", "one"), re.M):
            raise Failure("list -l: " + command("list", "-l", "one"))
        command("destroy", "1")
        detached("three")
        if [g["id"] for g in guests()] != [2, 3]:
            raise Failure("a number comes twice: %s" % guests())
        command("destroy", "two")
        command("destroy", "3")


def test_several_of_one_name():
    with hypervisor():
        detached("one")
        detached("one")
        fails("several guests of this name", "pause", "one")
        command("destroy", "1")
        command("pause", "one")
        command("destroy", "one")
        fails("would be taken for the number", "run", "--name", "12", *small())
        fails("control character", "run", "--name", "a\tb", *small())


# ---- console ----


def test_detach_and_attach():
    """What a guest says while nobody is there is shown to who comes next; its end is told to who is there."""
    with hypervisor():
        with Terminal("run", *small("--name", "one")) as run:
            run.expect("ends: here")
            run.answers("A")
            run.type("\x01d")
            run.expect(r"guest 1 \(one\) goes on")
            run.ends_restored(0)
        with Terminal("console", "one") as run:
            for keys, answer in ("B", "<42>"), ("\x01\x1d", "<1d>"), ("\x01\x01", "<01>"), ("\x01h", "send Ctrl-]"):
                run.type(keys)
                run.expect(re.escape(answer))
            if b"ends: here" in run.output:
                raise Failure("what had been seen is shown again")
            run.type("\x1d")
            run.expect("goes on")
            run.ends_restored(0)
        with console("1") as run:
            run.answers("C")
            fails("its console is in use by process %d" % run.process.pid, "console", "one")
            command("reset", "one")
            run.expect("ends: here")
            run.process.kill()
        until("end of a console whose client was killed", lambda: "console_pid" not in guest("one"))
        command("reset", "one")
        with console("one") as run:
            run.expect("ends: here")
            run.process.terminate()
            run.ends(143)
        with console("one", "--expect", "<44>") as run:
            run.type("D")
            run.ends(0)
        with console("one", "--timeout", "1") as run:
            run.ends(3)
        with console("one") as run:
            run.answers("E")
            command("destroy", "one")
            run.ends(0)
            with open(run.log) as f:
                if "the guest was destroyed" not in f.read():
                    raise Failure("the console does not say why it ended")
        fails("no guest of this name", "console", "one")


def test_past_is_bounded():
    """Of much output the last 64 KiB are kept, and how much is not is said."""
    lines = 10000
    with hypervisor():
        detached("one", *small(does="flood=%d" % lines))
        until("end of the flood", at_rest, 30)
        with console("one") as run:
            run.expect("flood %09d\n" % (lines - 1))
            with open(run.log) as f:
                lost = int(re.search(r"^metronome: (\d+) bytes before this are not kept$", f.read(), re.M)[1])
            total = len("ends: here\n") + 16 * lines
            if lost + len(run.output) != total or len(run.output) != 64 << 10:
                raise Failure("%d bytes are kept and %d lost of %d" % (len(run.output), lost, total))
            numbers = [int(n) for n in re.findall(rb"^flood (\d{9})$", run.output, re.M)]
            if numbers != list(range(lines - len(numbers), lines)) or len(numbers) < (64 << 10) // 16 - 1:
                raise Failure("what is kept is not the end")
        command("destroy", "one")
    return "%d bytes lost, and told so" % lost


def test_client_that_does_not_read():
    """Its guest's output waits, other guests and commands do not."""
    with hypervisor():
        with console_of_stopped("one") as stuck:
            detached("two")
            with console("two") as run:
                run.expect("ends: here")
                run.answers("A")
                for words in ("list",), ("pause", "one"), ("unpause", "one"), ("reset", "one"):
                    command(*words)
                run.answers("B")
                fails("in use by process %d" % stuck.process.pid, "console", "one")
            command("destroy", "one")
            command("destroy", "two")
            stuck.process.send_signal(signal.SIGCONT)
            stuck.ends(0)


def console_of_stopped(name):
    """A run whose process has been stopped while its guest floods its console."""
    run = Console([BUILD + "/metronome", "run", "--name", name, *small(does="flood=100000")], scratch.name(".log"))
    run.expect("flood 000000010")
    run.process.send_signal(signal.SIGSTOP)
    return run


# ---- pause, unpause, reset, shutdown, destroy ----


def counted(run):
    """The last whole line of a guest that counts: its number and its TSC."""
    return [(int(n), int(t)) for n, t in re.findall(rb"^count (\d+) (\d+)$", run.output, re.M)][-1]


def quiet(run):
    """What was on its way is here: nothing more comes."""
    while True:
        before = len(run.output)
        run.read(0.5)
        if len(run.output) == before:
            return


def test_pause():
    """The guest's output, CPU time and clocks stand still, and go on where they were."""
    pause_s = 2
    with hypervisor():
        hz = ast.literal_eval(command("info", "--json"))["tsc_hz"]
        with Guest(*small("--name", "one", does="count")) as run:
            run.expect("^count 5 ")
            command("pause", "one")
            quiet(run)
            before, facts = counted(run), guest("one")
            if facts["state"] != "paused" or "--p---" not in command("list"):
                raise Failure("list says: " + command("list"))
            time.sleep(pause_s)
            quiet(run)
            if counted(run) != before or guest("one")["cpu_s"] != facts["cpu_s"]:
                raise Failure("it goes on: %s, then %s" % (before, counted(run)))
            command("pause", "one")
            command("unpause", "one")
            run.expect("^count %d " % (before[0] + 1))
            run.expect("\n")
            after = counted(run)
            passed = (after[1] - before[1]) / hz
            if passed >= pause_s:
                raise Failure("%.2f s of its time passed while it was paused for %d s" % (passed, pause_s))
            command("unpause", "one")
            command("pause", "one")
            with Guest(*small()) as other:
                other.expect("ends: here")
                other.answers("A")
                command("destroy", "guest")
                other.ends(0)
            command("reset", "one")
            run.expect("ends: here")
            if guest("one")["resets"] != 1 or guest("one")["state"] == "paused":
                raise Failure("a reset of a paused guest: %s" % guest("one"))
            command("destroy", "one")
            run.ends(0)
    return "%.3f s of its time from line to line over %d s" % (passed, pause_s)


def test_save_of_a_paused_guest():
    """Leaves it paused, and restores one that runs."""
    with hypervisor():
        detached("one")
        command("pause", "one")
        path = scratch.name(".saved")
        command("save", "-c", "one", path)
        if guest("one")["state"] != "paused":
            raise Failure("it runs: %s" % guest("one"))
        command("restore", "-d", "--quiet", "--name", "two", path)
        with console("two") as run:
            run.answers("A")
        command("destroy", "two")
        command("destroy", "one")


def test_shutdown():
    """Presses the button; what that does is up to the guest."""
    with hypervisor():
        detached("deaf", *small(does="button deaf"))
        detached("one", *small(does="button"))
        command("shutdown", "-w", "one")
        if [g["name"] for g in guests()] != ["deaf"]:
            raise Failure("still there: %s" % guests())
        with console("deaf") as run:
            command("shutdown", "deaf")
            run.expect("<power>")
            waiting = subprocess.Popen([BUILD + "/metronome", "shutdown", "-w", "deaf"])
            run.expect("<power>")
            command("pause", "deaf")
            if waiting.poll() is not None:
                raise Failure("does not wait for the end")
            command("destroy", "deaf")
            run.ends(0)
        if waiting.wait(10 * PATIENCE):
            raise Failure("shutdown -w ended with status %d" % waiting.returncode)
        with open(RUNTIME + "/hypervisor.log") as f:
            log = f.read()
        if not re.search(r"guest 2 \(one\): the guest ended with code 0$", log, re.M):
            raise Failure("the log does not say how it ended: " + log)


def test_device_model():
    """The same for a guest with a QEMU of its own, which leaves no socket; one that does not answer is told, and can be
    destroyed."""
    qmp = scratch.name(".qmp")
    with hypervisor():
        command("run", "-d", "--quiet", "--name", "one", "--disk", boot_sector("bios_guest.S"), "--memory", "64", "--qmp", qmp)
        with console("one") as run:
            run.expect("bios-guest: boot 1")
            command("pause", "one")
            command("unpause", "one")
            command("reset", "one")
            run.expect("bios-guest: boot ")
            run.type("4")
            run.expect("bios-guest: done 4")
            command("reset", "one")
        qemu = process("xen-qemu")
        if guest("one")["device_model_pid"] != qemu or guest("one")["resets"] != 2:
            raise Failure("list says: %s" % guest("one"))
        os.kill(qemu, signal.SIGSTOP)
        fails("nothing happens: its device model", "reset", "one", status=5)
        command("destroy", "one")
        if os.path.exists(qmp) or process("^metronome-daemon") is None or [p for p in processes().values() if "xen" in p]:
            raise Failure("left: %s %s" % (qmp, processes()))
        if ast.literal_eval(command("info", "--json"))["free_slots"] != 8:
            raise Failure("a slot is left: " + command("info"))


def test_hypervisor_does_not_answer():
    """Every command ends, and says so; a slot that was not given back is not used again."""
    with hypervisor():
        detached("one")
        detached("other")
        outer = process("^qemu-system")
        os.kill(outer, signal.SIGSTOP)
        ends = {"list": "^metronome: the hypervisor does not answer", "pause other": "other: nothing happens",
                "destroy one": "one: the hypervisor did not stop"}
        running = [subprocess.Popen([BUILD + "/metronome", *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for words in ends]
        for p, pattern in zip(running, ends.values()):
            said = p.communicate(timeout=30 * PATIENCE)[1].decode()
            if p.returncode != 5 or not re.search(pattern, said):
                raise Failure("%s: status %d, %s" % (p.args, p.returncode, said))
        os.kill(outer, signal.SIGCONT)
        facts = ast.literal_eval(command("info", "--json"))
        if facts["lost_slots"] != 1 or facts["free_slots"] != 6:
            raise Failure("info says: %s" % facts)
        detached("two")
        with console("two") as run:
            run.expect("ends: here")
        if guest("two")["slot"] == 0:
            raise Failure("the lost slot is in use")
        command("destroy", "two")
        command("destroy", "other")


def test_daemon_is_told_to_end():
    """By SIGTERM: guests end, and their sockets go."""
    qmp = scratch.name(".qmp")
    up("--quiet")
    command("run", "-d", "--quiet", "--name", "one", "--memory", "32", "--qmp", qmp)
    said = command("run", "-d", "--quiet", "--memory", "32", "--qemu-arg", "-nonsense", status=2)
    if "-nonsense: invalid option" not in said or said.count("\n") != 1:
        raise Failure("a device model that does not start: " + said)
    with console("one") as run:
        until("console that is attached", lambda: "console_pid" in guest("one"))
        os.kill(process("^metronome-daemon"), signal.SIGTERM)
        run.ends(0)
    nothing_left()
    if os.path.exists(qmp):
        raise Failure("a guest's socket is left")


def test_races():
    """Commands and the guest's end at once: each ends with a status of its own and one line."""
    words = ["pause", "unpause", "reset", "destroy", "shutdown", "list", "console"]
    with hypervisor():
        for i in range(4):
            detached("one", *small(does="exit=0 " if i % 2 else "echo"))
            running = [subprocess.Popen([BUILD + "/metronome", w, "one"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE) for w in words * 3]
            for p in running:
                said = p.communicate(timeout=30 * PATIENCE)[1]
                if p.returncode not in (0, 2) or (p.returncode and said.count(b"\n") != 1):
                    raise Failure("%s: status %d, %s" % (p.args, p.returncode, said))
            if guests():
                raise Failure("left: %s" % guests())


def errand(version=4, kind=0):
    return struct.pack("<4I64s", 0x44525245, version, kind, 0, b"one")


def test_clients_that_misbehave():
    """Silent ones, torn ones and those of another version: the daemon serves the others."""
    with hypervisor():
        detached("one")
        sockets = []
        for sent in b"", b"x", errand(version=99), errand(kind=99):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            s.connect(RUNTIME + "/socket")
            if sent:
                s.send(sent)
            sockets.append(s)
        for s in sockets[1:]:
            if b"another version" not in s.recv(8192):
                raise Failure("nonsense is not refused")
        many = [subprocess.Popen([BUILD + "/metronome", "list"], stdout=subprocess.DEVNULL) for _ in range(40)]
        if any(p.wait(30 * PATIENCE) for p in many):
            raise Failure("not each of 40 lists is served: %s" % [p.returncode for p in many])
        with console("one") as run:
            run.expect("ends: here")
            run.answers("A")
        command("destroy", "one")


def test_slots_and_memory():
    """As many guests as there are slots; one more, and one for which the hypervisor has no memory, are told why."""
    with hypervisor():
        for i in range(8):
            detached("guest-%d" % i)
        fails("all 8 slots for guests are in use", "run", "--quiet", *small())
        with console("guest-7") as run:
            run.expect("ends: here")
            run.answers("A")
        command("destroy", "guest-3")
        detached("another")
        for g in guests():
            command("destroy", g["name"])
    up("--quiet", METRONOME_MEMORY="4")
    for n in range(8):
        done = subprocess.run([BUILD + "/metronome", "run", "-d", "--quiet", *small("--vcpus", "8")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode:
            break
    if done.returncode != 2 or b"the hypervisor's own memory is used up" not in done.stdout or not n:
        raise Failure("without memory: %d guests, then status %d, %s" % (n, done.returncode, done.stdout))
    command("down", "-f")
    up("--quiet", "--cpus", "1")
    detached("one", *small("--vcpus", "64"))
    used = ast.literal_eval(command("info", "--json"))
    fails("no room for so many virtual CPUs", "run", "--quiet", *small())
    command("down", "-f")
    nothing_left()
    return "%d guests with 8 CPUs fit in 4 MiB; one with 64 takes %d KiB" % (
        n, used["hypervisor_memory_kib"] - used["hypervisor_free_kib"])


def test_help():
    for name in re.findall(r"^  ([a-z]+) ", command("--help"), re.M):
        if "Usage: metronome " + name not in command(name, "--help"):
            raise Failure(name + " --help does not say how it is used")
    fails("takes a guest", "pause")
    fails("takes a guest", "destroy", "a", "b")
    fails("which guest", "console")
    fails("takes no arguments", "info", "x")
    fails("unknown command", "create")
    fails("--expect and --timeout need the console", "run", "-d", "--expect", "x", *small())


TESTS = [test_none_running, test_up_and_down, test_down_refuses, test_run_attaches, test_up_that_fails, test_list,
         test_several_of_one_name, test_detach_and_attach, test_past_is_bounded, test_client_that_does_not_read, test_pause,
         test_save_of_a_paused_guest, test_shutdown, test_device_model, test_daemon_is_told_to_end, test_races,
         test_clients_that_misbehave, test_slots_and_memory, test_help]
if os.environ.get("METRONOME_TESTS") != "check":
    TESTS += [test_hypervisor_does_not_answer]
sys.exit(run_tests(TESTS))
