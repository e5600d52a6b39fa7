#!/usr/bin/env python3
"""
What each operation costs a guest: tests/guest/bench, the same image on Metronome and on its peers in the same outer QEMU.

    micro.py self       Metronome alone, in instructions, each figure beside its goal; ends with 1 when one is missed
    micro.py compare    beside KVM and Xen, in instructions
    micro.py wall       beside both, in ns: what the machine really takes, which means something with AMD-V that is not emulated

Instructions are counted by the TSC: in the outer machine a tick is one that was executed (-icount), so that the same build always
gives the same figures. Of Metronome's also those are counted which cost far more than others on silicon (profile.py), and of a
timer's interrupt what is work and what is waiting for the due moment.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import BUILD, Failure, INNER, ROOT, kvm, metronome, nests, output_of, peer, progress, timed, versions  # noqa: E402
from profile import COSTLY, GUEST, Image, by_function, profiles  # noqa: E402

LIMIT = 600
PERIOD_US, PERIOD_EMULATED_US = 200, 5000  # of the timers of `make bench-wall`: emulated, a tick takes a quarter of a millisecond
TIMER, TIMER_OF = "timer interrupt: work from exit to entry", "TSC deadline: taken from the guest"
WAITERS = "hvm_await"  # how the hypervisor's functions begin that wait for a due moment
# name -> field -> the most that it may be; `min`: the least.
GOALS = {
    "CPUID": {"p50": 180}, "VMMCALL": {"p50": 180}, "ELCR read": {"p50": 180}, "ELCR write": {"p50": 180}, "PM timer read": {"p50": 180},
    "xAPIC EOI": {"p50": 400}, "x2APIC self-IPI": {"p50": 350}, "x2APIC EOI": {"p50": 220},
    "self-IPI to a halted self, whole cycle": {"p50": 800}, "TSC deadline in the past, whole cycle": {"p50": 700},
    "TSC_ADJUST write": {"p50": 180}, "TSC_ADJUST read": {"p50": 180}, "CR8 write": {"p50": 8}, "CR8 read": {"p50": 7},
    TIMER: {"p50": 350}, "TSC deadline: lateness": {"p50": 60, "p99": 300, "max": 1000, "min": 0},
}
FIELDS = ("p50", "min", "max")


def figures(output, whole=True):
    """(name -> its figures, [what was skipped and why])."""
    found = {name: dict(zip(text.split()[::2], map(int, text.split()[1::2])))
             for name, text in re.findall(r"^bench (.+): (n .*)$", output, re.M)}
    if not found or (whole and not re.search(r"^guest: \d+ passed, 0 failed", output, re.M)):
        raise Failure("the guest did not come to its end:\n" + output[-2000:])
    return found, re.findall(r"^skip (.*)$", output, re.M)


def ours(samples, words="", options="", log="micro"):
    return figures(metronome(["%s samples=%d %s" % (GUEST, samples, words)], "mem=32 tsc_hz=1000000000 " + options, LIMIT, log))


def work(span, image):
    """A span without what waits in it for a due moment: from the first instruction of each function that does to its last."""
    names = [next(iter(by_function([a], image.functions))) for a in span]
    for waiter in {n for n in names if n.startswith(WAITERS)}:
        first, last = names.index(waiter), len(names) - names[::-1].index(waiter)
        del span[first:last], names[first:last]
    return span


def costs(image):
    """name -> the work of its exits, and what in it costs far more. Of a timer's interrupt not what arms the timer."""
    found = {}
    for name, spans in profiles(image):
        fired = [i for i, s in enumerate(spans) if "timer_interrupt" in by_function(s, image.functions)]
        works = [work(list(s), image) for s in spans[fired[0] if fired else 0:]]
        every = [image.count_costly(w) for w in works]
        found[name] = {"exits": [len(w) for w in works], "costly": {k: sum(c[k] for c in every) for k in COSTLY}}
    return found


def add_timer(found, counted):
    """What a timer's interrupt takes from its exit to the entry that injects, without the wait for its moment."""
    n = sum(counted[TIMER_OF]["exits"])
    found[TIMER] = {"n": 1, "min": n, "p50": n, "p99": n, "max": n}
    counted[TIMER] = counted[TIMER_OF]


def judge(name, figure):
    """[(field, goal, met)]"""
    return [(k, most, figure[k] >= most if k == "min" else figure[k] <= most) for k, most in GOALS.get(name, {}).items()]


def row(name, *columns):
    print("%-56s" % name + "".join("%12s" % c for c in columns))


def judged(judgements):
    return "; ".join("%s%s %d %s" % (k + " " if k != "p50" else "", "at least" if k == "min" else "at most", most, "met" if met else "MISSED")
                     for k, most, met in judgements)


def run_self(options):
    found, skipped = ours(options.samples)
    progress("counting what each exit executes")
    counted = costs(Image(os.path.join(BUILD, "metronome.elf64")))
    add_timer(found, counted)
    row("instructions", "median", "min", "max", *COSTLY)
    missed = [name for name in GOALS if name not in found]
    for name, f in found.items():
        judgements = judge(name, f)
        costly = counted[name]["costly"].values() if name in counted and "per tick" not in name else [""] * len(COSTLY)
        row(name, *[f[k] for k in FIELDS], *costly, "   " + judged(judgements))
        missed += ["%s: %s is %d, goal %d" % (name, k, f[k], most) for k, most, met in judgements if not met]
    for text in skipped:
        print("not measured: " + text)
    save("self", {"versions": versions(), "figures": found, "skipped": skipped, "profile": counted, "missed": missed})
    print("\n%d goals, %d missed" % (sum(len(g) for g in GOALS.values()), len(missed)))
    for text in missed:
        print("MISSED " + text)
    return 1 if missed else 0


def save(name, results):
    os.makedirs(BUILD + "/bench", exist_ok=True)
    with open("%s/bench/%s.json" % (BUILD, name), "w") as f:
        json.dump(results, f, indent=1)


def disk():
    path = BUILD + "/bench/empty.img"
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    return path


def on_kvm(words, machine="", **options):
    """The guest in a QEMU with KVM, with a disk for its DMA and a COM1 for its levels."""
    script = ("%s %s -m 64 -serial null -drive file=/guest/disk,format=raw,if=ide -debugcon stdio -kernel /guest/bench.elf "
              "-append '%s'\n" % (INNER, machine, words))
    output = kvm(script, {"guest/bench.elf": GUEST, "guest/disk": disk()}, LIMIT, "micro-kvm", "guest: 1 passed", **options)
    return output


XEN_GUEST = """name = "bench"
type = "hvm"
memory = 64
vcpus = %d
tsc_mode = "native"
hpet = 1
vga = "none"
vnc = 0
serial = "file:/dev/hvc0"
boot = "d"
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
disk = [ "/guest/bench.iso,raw,hdc,cdrom", "/guest/disk,raw,hda,w,backendtype=qdisk" ]
"""


def make_iso(words):
    iso = BUILD + "/bench/micro.iso"
    subprocess.run([ROOT + "/arch/x86/boot/make-iso", iso, GUEST, "-k", "multiboot", "-a", words], check=True)
    return iso


def on_xen(words, vcpus=1, **options):
    """The guest as an HVM guest of Xen, from a CD. What it prints goes through dom0's console, between the figures."""
    files = {"guest/bench.iso": make_iso(words), "guest/disk": disk(), "guest/cfg": XEN_GUEST % vcpus}
    return peer("xen", "xl create -F /guest/cfg\n", files, LIMIT, "micro-xen", "guest: 1 passed", **options)


def ratio(mine, theirs):
    return "%.2f" % (theirs / mine) if mine and theirs and mine > 0 else ""


def compare_table(title, columns, counted):
    """Medians side by side, and each peer's by ours."""
    mine, *peers = columns.values()
    row(title, *columns, *[who + " by ours" for who in list(columns)[1:]], *(COSTLY if counted else []))
    for name in [n for n in dict.fromkeys(n for c in columns.values() for n in c) if n != "nothing"]:
        medians = [c.get(name, {}).get("p50") for c in (mine, *peers)]
        costly = counted[name]["costly"].values() if name in counted and "per tick" not in name else []
        row(name, *["-" if v is None else "%.0f" % v for v in medians], *[ratio(medians[0], v) for v in medians[1:]], *costly)


def conclude(name, title, unit, columns, skipped, **more):
    for who, texts in skipped.items():
        for text in texts:
            print("not measured on %s: %s" % (who, text))
    save(name, dict(more, versions=versions(), figures=columns, skipped=skipped))
    plot(title, unit, columns, "%s/bench/%s.png" % (BUILD, name))
    print("\nbuild/bench/%s.json, build/bench/%s.png" % (name, name))
    return 0


def run_compare(options):
    progress("Metronome")
    columns, skipped = {}, {}
    columns["Metronome"], skipped["Metronome"] = ours(options.samples)
    counted = costs(Image(os.path.join(BUILD, "metronome.elf64")))
    for who, run in (("KVM", on_kvm), ("Xen", on_xen)):
        progress(who)
        columns[who], skipped[who] = figures(run("hz=1000000000 samples=%d" % options.samples), whole=False)
    compare_table("instructions, medians", columns, counted)
    return conclude("micro", "Instructions of each operation, medians", "instructions", columns, skipped, profile=counted)


def in_ns(output):
    """The guest's figures by the rate that it has found for its TSC."""
    found, skipped = figures(output, whole=False)
    hz = int(re.search(r"^# (\d+) TSC ticks a second", output, re.M).group(1))
    return {name: {k: v if k == "n" else v * 1e9 / hz for k, v in f.items()} for name, f in found.items()}, skipped


def hosted(words):
    """On Metronome with a device model, as users run it: the guest boots from a CD, and has a disk."""
    iso = make_iso(words)
    with tempfile.TemporaryDirectory(prefix="metronome-bench.") as folder:
        os.environ["METRONOME_RUNTIME_DIR"] = folder
        command = [BUILD + "/metronome", "run", "--cdrom", iso, "--disk", disk() + ",raw,hda", "--memory", "64", "--vcpus", "2"]
        output = output_of(command, LIMIT, "micro-hosted")
    if output is None:
        raise Failure("not done in %d s: the benchmark on Metronome with a device model" % LIMIT)
    return output


def run_wall(options):
    words = "cpus=2 samples=%d period=%d" % (options.samples, PERIOD_US if nests() else PERIOD_EMULATED_US)
    print("the outer machine: " + ("KVM with nested AMD-V" if nests() else "QEMU TCG: every instruction is emulated, and AMD-V too, so that "
                                   "these times say little about a real machine"))
    progress("Metronome")
    mine, skipped = in_ns(hosted(words))
    columns, unmeasured = {"Metronome": mine}, {"Metronome": skipped}
    for who, run in (("KVM", lambda: on_kvm(words, "-smp 2", outer=timed())), ("Xen", lambda: on_xen(words, 2, outer=timed()))):
        progress(who)
        columns[who], unmeasured[who] = in_ns(run())
    compare_table("ns, medians", columns, {})
    return conclude("wall", "Time of each operation, medians", "ns", columns, unmeasured)


def plot(title, unit, columns, path):
    """Medians as bars; who has not measured an operation has none."""
    bars = {who: {n: f["p50"] for n, f in c.items() if n != "nothing" and f["p50"] > 0} for who, c in columns.items()}
    names = list(dict.fromkeys(n for c in bars.values() for n in c))
    script = ["set terminal pngcairo noenhanced size 1500,%d font 'sans,11'" % (120 + 26 * len(names)), "set output '%s'" % path,
              "set title '%s'" % title.replace("'", "''"), "set logscale x", "set xlabel '%s'" % unit, "set grid x", "set key outside bottom horizontal",
              "set yrange [%g:-1] " % len(names), "set style fill solid 0.8", "set offsets 0,0,0,0",
              "set ytics (%s)" % ", ".join("'%s' %d" % (n.replace("'", "''"), i) for i, n in enumerate(names))]
    low = min(v for c in bars.values() for v in c.values())
    thick = 0.8 / len(columns)
    script.append("set xrange [%g:]" % (low / 2))
    script.append("plot " + ", ".join("'-' using 1:2:(%g):1:3:4 with boxxyerror title '%s'" % (low / 2, who) for who in columns))
    for i, c in enumerate(bars.values()):
        for y, n in [(y, n) for y, n in enumerate(names) if n in c]:
            script.append("%g %d %g %g" % (c[n], y, y - 0.4 + i * thick, y - 0.4 + (i + 1) * thick))
        script.append("e")
    subprocess.run(["gnuplot"], input="\n".join(script).encode(), check=True)


MODES = {"self": run_self, "compare": run_compare, "wall": run_wall}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MODES))
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    print("; ".join("%s %s" % v for v in versions().items()))
    return MODES[options.what](options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as e:
        sys.exit("bench: %s" % e)
