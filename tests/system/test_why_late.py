#!/usr/bin/env python3
# What makes an interrupt late: `metronome why-late` names causes that are known. Exactly, of a deterministic run in which the guest is
# deaf while it executes CPUID; and beside a guest that computes.
# usage: test_why_late.py [NAME...]
# limit: 240
# run: check
from lib import *

LATE = BUILD + "/guest/late.elf"
KEPT, EXITS = 4, 32


def why_late(*arguments):
    return ast.literal_eval(command("why-late", "--json", *arguments))


def deterministic(does):
    """The file of a run, its latest ticks, and all of its ticks."""
    path = scratch.name(".json")
    command("run", "--deterministic", "--quiet", "--module", LATE, "--memory", "16", "--append", does, "--latency", path)
    ticks = ast.literal_eval(command("latency", "--json", "-i", path))[0]["sources"]["lapic"]["due-entered"]
    return path, why_late("-i", path)[0]["sources"].get("lapic", []), ticks


def instruction_at(rip):
    """In the guest, as it was linked."""
    said = subprocess.run(["objdump", "-d", "--no-show-raw-insn", "--start-address=%d" % rip, "--stop-address=%d" % (rip + 15),
                           LATE + ".64"], stdout=subprocess.PIPE, check=True).stdout.decode()
    return re.search(r"^ *%x:\t(\w+)" % rip, said, re.M)[1]


def check_sums(late):
    """The costs are all of its time; nothing ends behind the injection, and each exit begins before the next."""
    for one in late:
        total = sum(one["costs_ns"].values())
        if not 0 <= one["late_ns"] - total <= len(one["costs_ns"]):
            raise Failure("%d ns late, costs of %d ns: %s" % (one["late_ns"], total, one["costs_ns"]))
        befores = [e["before_ns"] for e in one["exits"]]
        if befores != sorted(befores, reverse=True) or any(e["took_ns"] > e["before_ns"] + 1 for e in one["exits"]):
            raise Failure("exits in no order: %s" % one["exits"])
    if [one["late_ns"] for one in late] != sorted((one["late_ns"] for one in late), reverse=True):
        raise Failure("not the latest first: %s" % [one["late_ns"] for one in late])


def test_deterministic():
    """40 CPUIDs with interrupts off, from when each tenth tick is due: the 32 exits are 31 of them and an HLT, by their RIPs."""
    path, late, ticks = deterministic("ticks=100 cpuid=40")
    check_sums(late)
    if len(late) != KEPT or abs(late[0]["late_ns"] - ticks["max_ns"]) > ticks["max_ns"] / 100:
        raise Failure("%d are kept, the latest %d ns: %s" % (len(late), late[0]["late_ns"], ticks))
    for one in late:
        reasons = [e["reason"] for e in one["exits"]]
        if reasons != ["CPUID"] * (EXITS - 1) + ["HLT"] or max(one["costs_ns"], key=one["costs_ns"].get) != "exit: CPUID":
            raise Failure("the cause is not CPUID: %s, %s" % (one["costs_ns"], reasons))
        if [instruction_at(e["rip"]) for e in one["exits"][-2:]] != ["cpuid", "hlt"] or len({e["rip"] for e in one["exits"]}) != 2:
            raise Failure("RIPs: %s" % one["exits"][-2:])
        if one["entries_waited"] != EXITS - 1:
            raise Failure("it was deaf at %d entries" % one["entries_waited"])
    said = command("why-late", "-i", path)
    if not re.search(r"^ +[\d.]+ us +[\d.]+ %  exits: CPUID, 31 of them$.*^ .*  CPUID +x 31  .*^ .*  HLT  ", said, re.M | re.S):
        raise Failure("for people: " + said)
    again = deterministic("ticks=100 cpuid=40")[0]
    with open(path) as one, open(again) as two:
        if one.read() != two.read():
            raise Failure("a second run differs")
    other = deterministic("ticks=100")[1]
    if any("exit: CPUID" in one["costs_ns"] for one in other) or (other and other[0]["late_ns"] >= late[-1]["late_ns"]):
        raise Failure("without CPUIDs: %s" % other)


def detached(name, does=""):
    command("run", "--detach", "--quiet", "--name", name, "--module", LATE, "--memory", "16", "--append", does)


def test_another_guest():
    """On one CPU with a guest that computes, ticks are late by that one; when it has ended, it has no name any more."""
    os.environ["METRONOME_PCPUS"] = "1"
    try:
        with hypervisor():
            detached("ticks")
            detached("spins", "spin")
            command("why-late", "--clear", "ticks")
            deadline = time.monotonic() + 30 * PATIENCE
            while True:
                late = why_late("ticks")[0]["sources"].get("lapic", [])
                named = [one for one in late if one["costs_ns"].get("others") and
                         any(e.get("other") == "spins (2), vCPU 0" and e["other_ns"] > 0 for e in one["exits"])]
                if len(late) == KEPT and named:
                    break
                if time.monotonic() > deadline:
                    raise Failure("nobody blames the one that computes: %s" % late)
                time.sleep(0.2)
            check_sums(late)
            if not re.search(r"other vCPUs had the CPU, last: spins \(2\), vCPU 0$", command("why-late", "--source", "lapic", "1"), re.M):
                raise Failure("for people: " + command("why-late", "1"))
            if why_late("--source", "ipi", "ticks")[0]["sources"]:
                raise Failure("there were no IPIs: %s" % why_late("--source", "ipi", "ticks"))
            command("destroy", "spins")
            command("pause", "ticks")
            if "a guest that is gone, slot 1, vCPU 0" not in command("why-late", "ticks"):
                raise Failure("the one that is gone: " + command("why-late", "ticks"))
            command("destroy", "ticks")
    finally:
        del os.environ["METRONOME_PCPUS"]


def test_clear():
    """What is forgotten makes room for less late ones; of one guest or of all."""
    with hypervisor():
        detached("one")
        detached("two", "period=700")
        deadline = time.monotonic() + 20 * PATIENCE
        while not all(len(g["sources"].get("lapic", [])) == KEPT for g in why_late()):
            if time.monotonic() > deadline:
                raise Failure("not %d of each: %s" % (KEPT, why_late()))
        for name in "one", "two":
            command("pause", name)
        command("why-late", "--clear", "one")
        if [len(g["sources"]) for g in why_late()] != [0, 1] or command("why-late", "one") != "one: no interrupts\n":
            raise Failure("one is forgotten: %s" % why_late())
        command("why-late", "--clear")
        if any(g["sources"] for g in why_late()):
            raise Failure("all are forgotten: %s" % why_late())
        command("unpause", "one")
        while not why_late("one")[0]["sources"]:
            if time.monotonic() > deadline:
                raise Failure("none is kept any more")
        if "three: no guest of this name" not in command("why-late", "three", status=2):
            raise Failure("a guest that is not there")
        command("destroy", "one")
        command("destroy", "two")


if __name__ == "__main__":
    sys.exit(run_tests([test_deterministic, test_another_guest, test_clear]))
