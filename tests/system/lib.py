"""
What system tests share: a guest under `metronome run`, as a user starts it, with its serial console, its keys and its
screen; the same machine under a plain QEMU, as a reference; and the lines that tests/run reads.

    with Guest("--disk", scratch_copy("linux.img")) as guest:
        guest.expect("guest: ready")
        guest.type("poweroff\\r")
        guest.ends(0)

Only modules of Debian's python3-minimal: there is no json and no shutil in it.
"""
import ast
import atexit
import contextlib
import glob
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.path.join(ROOT, os.environ.get("B", "build")))
# How many times slower than quiet the machine may be before a wait is given up.
PATIENCE = float(os.environ.get("METRONOME_TEST_PATIENCE", "4"))
# A small guest without device model: says "ends: here", and then does what its command line says.
ENDS = BUILD + "/guest/ends.elf"
SMALL = ["--module", ENDS, "--memory", "16"]


def small(*arguments, does="echo"):
    """A guest of tests/guest/ends; by default one that answers each byte with its code, in brackets."""
    return [*SMALL, "--append", does, *arguments]


class Failure(Exception):
    pass


class Scratch:
    """A folder of this program's own, which is also the home of the daemon that its guests share."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="metronome-test.")
        os.environ["METRONOME_RUNTIME_DIR"] = self.path + "/runtime"
        self.count = 0
        atexit.register(self.remove)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    def name(self, suffix):
        self.count += 1
        return "%s/%d%s" % (self.path, self.count, suffix)

    def remove(self):
        """Whatever a daemon that is just ending takes away meanwhile is no concern; one that stays goes with us."""
        for number, program in processes().items():
            if program.startswith("metronome-daemon"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGTERM)
        for folder, folders, files in os.walk(self.path, topdown=False):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(folder + "/" + name)
            for name in folders:
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(folder + "/" + name)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.path)


scratch = Scratch()
RUNTIME = os.environ["METRONOME_RUNTIME_DIR"]


def processes():
    """{process id: its program's name} of everything that was started for this test's daemon."""
    found = {}
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(path + "/environ", "rb") as f:
                ours = ("METRONOME_RUNTIME_DIR=%s\0" % RUNTIME).encode() in f.read()
            if ours and int(path[6:]) != os.getpid():
                found[int(path[6:])] = os.path.basename(os.readlink(path + "/exe"))
        except OSError:
            pass
    return found


def process(name):
    ids = [number for number, program in processes().items() if re.search(name, program)]
    if len(ids) != 1:
        raise Failure("%d processes of %s: %s" % (len(ids), name, processes()))
    return ids[0]


def nothing_left(but=()):
    deadline = time.monotonic() + 5 * PATIENCE
    while processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    if processes():
        raise Failure("still running: %s" % processes())
    files = set(os.listdir(RUNTIME)) - set(but) if os.path.exists(RUNTIME) else set()
    if files:
        raise Failure("left behind: %s" % files)


def command(*arguments, status=0, **environment):
    """`metronome ARGUMENTS`, a command that needs no terminal: what it said."""
    done = subprocess.run([BUILD + "/metronome", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, **environment), timeout=60 * PATIENCE)
    said = done.stdout.decode("latin-1")
    if done.returncode != status:
        raise Failure("metronome %s ended with status %d, not %d: %s" %
                      (" ".join(arguments), done.returncode, status, said.strip()))
    return said


class hypervisor:
    """`metronome up` around a test, and `metronome down` behind it, which must leave nothing."""

    def __enter__(self):
        command("up", "--quiet")

    def __exit__(self, kind, value, trace):
        command("down", *(["-f"] if kind else []))
        if not kind:
            nothing_left()


def guests(*names):
    return ast.literal_eval(command("list", "--json", *names))


def at_rest():
    """The guests wait for something: none has had a CPU for a while."""
    before = [guest["cpu_s"] for guest in guests()]
    time.sleep(0.3)
    return [guest["cpu_s"] for guest in guests()] == before


def scratch_copy(image):
    """A copy of build/images/IMAGE, or of a path: QEMU locks what it writes. Holes stay holes."""
    path = scratch.name(".img")
    subprocess.run(["cp", "--sparse=always", os.path.join(BUILD, "images", image), path], check=True)
    return path


def scratch_file(content, suffix=""):
    path = scratch.name(suffix)
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    return path


def package(name):
    """Where a Debian package's files are, unpacked under build/packages."""
    done = subprocess.run([ROOT + "/tools/fetch-package", name], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return os.path.join(ROOT, done.stdout.decode().strip())


def put_into_disk(image, files):
    """Puts {name in the guest: content} into the ext2 partition of a copy of linux.img."""
    offset = 2048 * 512
    for name, content in files.items():
        host = scratch_file(content)
        done = subprocess.run(["/usr/sbin/debugfs", "-w", "-f", "-", "%s?offset=%d" % (image, offset)],
                              input=b"rm %s\nwrite %s %s\n" % (name.encode(), host.encode(), name.encode()),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or b"Allocated inode" not in done.stdout:
            raise Failure("cannot write %s into the image: %s" % (name, done.stdout.decode().strip()))


def boot_sector(source):
    """A disk of 16-bit code, from tests/system/SOURCE."""
    objects, image = scratch.name(".o"), scratch.name(".img")
    subprocess.run(["gcc", "-m32", "-c", os.path.join(ROOT, "tests/system", source), "-o", objects], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", objects, "-o", image], check=True)
    with open(image, "r+b") as f:
        f.truncate(1 << 20)
    return image


def grub_iso(config, files=()):
    """A GRUB ISO with this grub.cfg and {name on the ISO: file here}."""
    tree, iso = scratch.name(".tree"), scratch.name(".iso")
    os.makedirs(tree + "/boot/grub")
    with open(tree + "/boot/grub/grub.cfg", "w") as f:
        f.write(config)
    names = ["%s=%s" % pair for pair in dict(files).items()]
    done = subprocess.run(["grub-mkrescue", "-o", iso, tree] + names, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failure("grub-mkrescue: " + done.stdout.decode().strip())
    return iso


class Picture:
    """What the screen showed: a PPM file's width, height and three bytes for each dot."""

    def __init__(self, ppm):
        header = re.match(rb"P6\s+(?:#.*\n)*(\d+)\s+(\d+)\s+255\s", ppm)
        if not header:
            raise Failure("a screendump is no PPM file")
        self.width, self.height = int(header[1]), int(header[2])
        self.dots = ppm[header.end():]

    def dot(self, x, y):
        at = 3 * (y * self.width + x)
        return tuple(self.dots[at:at + 3])

    def differences(self, other):
        """The number of dots that are not the same, and where the first one is."""
        if (self.width, self.height) != (other.width, other.height):
            return self.width * self.height, "%dx%d and %dx%d" % (self.width, self.height, other.width, other.height)
        if self.dots == other.dots:
            return 0, ""
        wrong = [i for i in range(self.width * self.height) if self.dots[3 * i:3 * i + 3] != other.dots[3 * i:3 * i + 3]]
        return len(wrong), "the first at %d,%d" % (wrong[0] % self.width, wrong[0] // self.width)

    def colours(self):
        return len({self.dots[i:i + 3] for i in range(0, len(self.dots), 3)})


class Qmp:
    """QEMU's control socket."""

    def __init__(self, path, deadline):
        self.socket = socket.socket(socket.AF_UNIX)
        self.bytes = b""
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failure("no QMP socket")
                time.sleep(0.05)
        self.line()
        self.command("qmp_capabilities")

    def line(self):
        self.socket.settimeout(30 * PATIENCE)
        while b"\n" not in self.bytes:
            more = self.socket.recv(65536)
            if not more:
                raise Failure("QEMU closed its QMP socket")
            self.bytes += more
        line, self.bytes = self.bytes.split(b"\n", 1)
        return line.decode()

    def command(self, name, arguments=""):
        """`arguments`: the inside of JSON's braces. Returns the answer's text."""
        self.socket.sendall(('{"execute": "%s", "arguments": {%s}}\n' % (name, arguments)).encode())
        while True:
            answer = self.line()
            if answer.startswith('{"return"'):
                return answer
            if answer.startswith('{"error"'):
                raise Failure("%s: %s" % (name, answer))

    def monitor(self, line):
        answer = self.command("human-monitor-command", '"command-line": "%s"' % line)
        return answer[len('{"return": "'):-len('"}\r')].replace("\\r\\n", "\n")

    def key(self, *names):
        """Presses keys together, by QEMU's names, and releases them."""
        keys = ", ".join('{"type": "qcode", "data": "%s"}' % name for name in names)
        self.command("send-key", '"keys": [%s]' % keys)

    def picture(self):
        path = scratch.name(".ppm")
        self.command("screendump", '"filename": "%s"' % path)
        with open(path, "rb") as f:
            picture = Picture(f.read())
        os.unlink(path)
        return picture

    def text(self):
        """The lines of the screen in text mode 80x25, from the card's memory."""
        words = re.findall(r"0x([0-9a-f]{4})\b", self.monitor("xp /2000hx 0xb8000"))
        cells = "".join(chr(int(w, 16) & 0xff) if 32 <= int(w, 16) & 0xff < 127 else " " for w in words)
        return "\n".join(cells[i:i + 80].rstrip() for i in range(0, len(cells), 80))


class Console:
    """A program whose standard input and output are a guest's serial console."""

    def __init__(self, command, log, qmp=None, environment=None):
        self.log = log
        self.command = command
        self.output = b""
        self.seen = 0
        self.started = time.monotonic()
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                            env=environment, bufsize=0)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.qmp_path = qmp
        self.qmp_socket = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and issubclass(kind, Failure):
            self.explain()
        self.close()

    def explain(self):
        """The end of what was seen, before the line that says what is wrong."""
        with open(self.log, "rb") as f:
            errors = f.read()
        for what in (self.output[-1500:], errors[-1500:]):
            for line in what.decode("latin-1").replace("\r", "\n").split("\n"):
                if line.strip():
                    print("    " + "".join(c if c.isprintable() else "." for c in line))
        try:
            if self.process.poll() is None and self.qmp_path:
                print("    screen:\n" + "\n".join("      " + line for line in self.qmp.text().split("\n") if line))
        except (Failure, OSError):
            pass

    def close(self):
        """As a user's Ctrl-c would end it, then for certain."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()

    @property
    def qmp(self):
        if not self.qmp_socket:
            self.qmp_socket = Qmp(self.qmp_path, time.monotonic() + 20 * PATIENCE)
        return self.qmp_socket

    def read(self, seconds):
        """Takes what comes within so long; False at the end."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        more = self.process.stdout.read(65536)
        self.output += more or b""
        return more != b""

    def expect(self, pattern, seconds=30):
        """Waits for a match in what the console said after the last one; times are for a quiet machine."""
        deadline = time.monotonic() + seconds * PATIENCE
        wanted = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.M)
        alive = True
        while True:
            found = wanted.search(self.output, self.seen)
            if found:
                self.seen = found.end()
                return found
            if not alive:
                raise Failure("the guest ended without '%s'" % pattern)
            if time.monotonic() > deadline:
                raise Failure("no '%s' within %d s" % (pattern, seconds * PATIENCE))
            alive = self.read(0.2)

    def until(self, what, condition, seconds=30, every=0.3):
        """Waits for condition() to be true, and returns what it returned."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            found = condition()
            if found:
                return found
            if self.process.poll() is not None:
                raise Failure("the guest ended with status %d without %s" % (self.process.returncode, what))
            if time.monotonic() > deadline:
                raise Failure("no %s within %d s" % (what, seconds * PATIENCE))
            self.read(every)

    def expect_screen(self, pattern, seconds=30):
        """Waits for a match on the screen in text mode."""
        return self.until("'%s' on the screen" % pattern, lambda: re.search(pattern, self.qmp.text(), re.M), seconds)

    def type(self, text):
        self.process.stdin.write(text.encode())

    def answers(self, letter):
        """Small guests told to echo do, with its code in brackets."""
        self.type(letter)
        self.expect("<%02x>" % ord(letter))

    def ends(self, status, seconds=30):
        """Waits for the program's end, which must have this status."""
        deadline = time.monotonic() + seconds * PATIENCE
        while self.read(0.2) or self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Failure("no end within %d s" % (seconds * PATIENCE))
        if self.process.wait() != status:
            raise Failure("ended with status %d, not %d" % (self.process.returncode, status))


class Terminal(Console):
    """`metronome ARGUMENTS` on a terminal of its own."""

    def __init__(self, *arguments):
        self.master, self.slave = os.openpty()
        self.before = self.settings()
        self.output, self.seen, self.started, self.qmp_path, self.log = b"", 0, time.monotonic(), None, "/dev/null"
        # In a session of its own, with this as the controlling terminal, as a shell would start it.
        self.process = subprocess.Popen(["setsid", "-c", BUILD + "/metronome", *arguments], stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave)

    def settings(self):
        return subprocess.run(["stty", "-g"], stdin=self.slave, stdout=subprocess.PIPE, check=True).stdout

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return self.process.poll() is None
        self.output += os.read(self.master, 65536)
        return True

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def ends_restored(self, status):
        self.ends(status)
        if self.settings() != self.before:
            raise Failure("the terminal is not as it was: %s, %s" % (self.before, self.settings()))


class Guest(Console):
    """`metronome run ARGUMENTS`, or another command that a guest is at the terminal of."""

    def __init__(self, *arguments, seconds=120, command="run", **environment):
        log = scratch.name(".log")
        qmp = scratch.name(".qmp") if "--module" not in arguments else None
        words = [BUILD + "/metronome", command, "--timeout", str(int(seconds * PATIENCE))] + (["--qmp", qmp] if qmp else [])
        super().__init__(words + list(arguments), log, qmp, dict(os.environ, **environment))

    def errors(self):
        """What the command itself said, on standard error."""
        with open(self.log, "rb") as f:
            return f.read().decode("latin-1")


def partial_files(path):
    return glob.glob(glob.escape(path) + ".*")


def save(guest, *options, name="guest", status=0, path=None):
    """`metronome save`: the file, and what the command said."""
    path = path or scratch.name(".saved")
    done = subprocess.run([BUILD + "/metronome", "save", *options, name, path], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60 * PATIENCE)
    said = done.stdout.decode("latin-1")
    if done.returncode != status:
        raise Failure("save ended with status %d, not %d: %s" % (done.returncode, status, said))
    if partial_files(path) or os.path.exists(path) != (status == 0):
        raise Failure("save with status %d left %s" % (status, os.listdir(os.path.dirname(path))))
    if not status and not options:
        guest.ends(0)
    return path, said


class Reference(Console):
    """A plain QEMU without hypervisor under the same guest."""

    def __init__(self, *arguments):
        qmp = scratch.name(".qmp")
        command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-m", "128", "-nodefaults", "-display", "none",
                   "-vga", "std", "-serial", "stdio", "-qmp", "unix:%s,server=on,wait=off" % qmp]
        super().__init__(command + list(arguments), scratch.name(".log"), qmp)


def run_tests(tests):
    """Runs the functions, or those named as arguments; returns the exit status. NAME of test_NAME is printed with dashes."""
    wanted = sys.argv[1:]
    failed = 0
    try:
        for test in tests:
            name = test.__name__
            if name.startswith("test_"):
                name = name.removeprefix("test_").replace("_", "-")
            if wanted and name not in wanted:
                continue
            started = time.monotonic()
            try:
                said = test()
                print("ok %s (%s%.1f s)" % (name, said + ", " if said else "", time.monotonic() - started), flush=True)
            except Exception as e:  # also what is wrong with the test itself
                if not isinstance(e, Failure):
                    traceback.print_exc(file=sys.stdout)
                print("not ok %s: %s" % (name, e), flush=True)
                failed = 1
    finally:
        scratch.remove()
    return failed
