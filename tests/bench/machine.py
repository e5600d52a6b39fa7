"""
The machines in which benchmarks run: Metronome with guests from boot modules, and its peers, KVM and Xen, in the same outer QEMU. One outer
CPU, and time by executed instructions: a TSC tick is one, and the same run is the same to the byte.
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BUILD = os.path.realpath(os.path.join(ROOT, os.environ.get("B", "build")))
OUTER = ("qemu-system-x86_64 -accel tcg -cpu max -nodefaults -display none -no-reboot -serial stdio "
         "-icount shift=0,sleep=off").split()
OUTER_TIMED = "qemu-system-x86_64 -nodefaults -display none -no-reboot -serial stdio".split()
VMLINUZ = BUILD + "/images/vmlinuz"
PEERS = BUILD + "/bench/peer"
XEN_CPU = "EPYC,+svm,+npt,-smap,-monitor"
PEER_TRIES = 3  # with icount a Linux hung in 3 of 22 boots
INNER = ("qemu-system-x86_64 -machine pc,accel=kvm -cpu qemu64,+x2apic,+tsc-deadline -nodefaults -display none -no-reboot "
         "-global hpet.msi=on -device isa-debug-exit,iobase=0xf4,iosize=4")


class Failure(Exception):
    pass


def progress(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def output_of(command, limit, log):
    """What it prints, or None if it is not done in time; build/bench/LOG.log has it in both cases."""
    os.makedirs(BUILD + "/bench", exist_ok=True)
    path = "%s/bench/%s.log" % (BUILD, log)
    with open(path, "wb") as f:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, timeout=limit)
        except subprocess.TimeoutExpired:
            return None
    return log_text(log)


def log_text(log):
    with open("%s/bench/%s.log" % (BUILD, log), errors="replace") as f:
        return f.read().replace("\r", "")


def metronome(modules, options, limit, log, memory=512, outer=OUTER):
    command = outer + ["-m", str(memory), "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", BUILD + "/metronome.elf",
                       "-initrd", ",".join(modules), "-append", "exit=0xf4 " + options]
    output = output_of(command, limit, log)
    if output is None:
        raise Failure("not done in %d s: %s on Metronome" % (limit, modules[0]))
    return output


def archive(files):
    """A compressed initramfs with these files: path inside -> path outside, or text."""
    with tempfile.TemporaryDirectory(prefix="metronome-bench.") as folder:
        for name, content in files.items():
            path = folder + "/" + name
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if content.startswith("/"):
                subprocess.run(["cp", "-L", content, path], check=True)
            else:
                with open(path, "w") as f:
                    f.write(content)
                os.chmod(path, 0o755)
        return subprocess.run("find . | LC_ALL=C sort | cpio --quiet -o -H newc | gzip -1n", shell=True, cwd=folder, check=True,
                              stdout=subprocess.PIPE).stdout


def nests():
    """Is there AMD-V that is not emulated? METRONOME_ACCEL decides otherwise, as for `metronome`."""
    given = os.environ.get("METRONOME_ACCEL")
    if given:
        return given == "kvm"
    try:
        with open("/sys/module/kvm_amd/parameters/nested") as f:
            return f.read().strip() in ("1", "Y") and os.access("/dev/kvm", os.R_OK | os.W_OK)
    except OSError:
        return False


def timed(cpus=1):
    """The outer machine in real time; CPUs that are to disturb each other only as real ones do have a thread each."""
    tcg = "tcg,thread=" + ("single" if cpus == 1 else "multi")
    return OUTER_TIMED + (["-accel", "kvm", "-cpu", "host"] if nests() else ["-accel", tcg, "-cpu", "max"]) + ["-smp", str(cpus)]


def kvm_machine(outer, initrd):
    return outer + ["-machine", "q35", "-m", "2048", "-kernel", VMLINUZ, "-initrd", initrd,
                    "-append", "console=ttyS0 nokaslr quiet panic=-1"]


def xen_machine(outer, initrd):
    """In this outer QEMU Xen needs a CPU without SMAP and MONITOR."""
    return [XEN_CPU if word == "max" else word for word in outer] + [
        "-machine", "q35", "-m", "3072", "-kernel", PEERS + "/xen", "-initrd", "%s console=hvc0 nokaslr quiet panic=-1,%s" % (VMLINUZ, initrd),
        "-append", "console=com1 com1=115200,8n1 dom0_mem=1536M dom0_max_vcpus=1 loglvl=warning guest_loglvl=none"]


MACHINES = {"kvm": kvm_machine, "xen": xen_machine}


def peer(kind, script, files, limit, log, enough="peer: run status", outer=OUTER):
    """Runs a shell script on Linux with KVM or in Xen's dom0. A run that hangs behind `enough` has what it printed until then."""
    image = "%s/%s-initrd" % (PEERS, kind)
    if not os.path.exists(image):
        subprocess.run([ROOT + "/tests/bench/make-peer", kind], check=True)
    with tempfile.NamedTemporaryFile(prefix="metronome-bench.") as initrd:
        with open(image, "rb") as f:
            initrd.write(f.read())
        initrd.write(archive(dict(files, **{"run.sh": script})))
        initrd.flush()
        command = MACHINES[kind](outer, initrd.name) + ["-seed", "1", "-rtc", "clock=vm"]
        for _ in range(PEER_TRIES):
            if output_of(command, limit, log) is None:
                progress("the peer's Linux hung")
            if enough in log_text(log):
                return log_text(log)
    raise Failure("%s: not done in %d s, %d times" % (kind, limit, PEER_TRIES))


def kvm(*arguments, **options):
    return peer("kvm", *arguments, **options)


def versions():
    def first_line(*command):
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT).stdout.decode().split("\n")[0]
    with open(VMLINUZ, "rb") as f:
        f.seek(0x20e)
        f.seek(int.from_bytes(f.read(2), "little") + 0x200)
        linux = f.read(80).split(b"\0")[0].decode()
    return {"metronome": first_line("git", "describe", "--always", "--dirty"), "qemu": first_line("qemu-system-x86_64", "--version"),
            "linux": linux}
