#!/usr/bin/env python3
"""The ledger of ticks against a guest that counts them (tests/guest/missed), standalone with exact time, and as users run it.

For every source and policy: what the ledger calls delivered is what the guest took, due is what by the guest's clock must have come
due, due = delivered + collapsed + dropped + owed + pending, and missed ticks went where the policy says.
"""
# limit: 300
# run: check
import os
import re
import subprocess
import sys
import tempfile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.stdout.reconfigure(line_buffering=True)
BUILD = os.environ.get("B", "build")
SECONDS = {"check": 2, "test": 15, "long": 600}[os.environ.get("METRONOME_TESTS", "test")]
QEMU = ("qemu-system-x86_64 -accel tcg -cpu max -m 256 -nodefaults -display none -no-reboot -serial stdio "
        "-icount shift=0,sleep=off -device isa-debug-exit,iobase=0xf4,iosize=4").split()
SOURCES = {"pit": "PIT, channel 0", "rtc": "RTC, periodic", "hpet": "HPET comparators", "lapic": "local APIC timers"}
MOST_OWED = 1000
WORDS = ("due", "delivered", "collapsed", "dropped", "owed", "pending")


def output_of(command, **environment):
    try:
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=60 + 4 * SECONDS, env=dict(os.environ, **environment))
    except subprocess.TimeoutExpired:
        return ""
    return p.stdout.decode(errors="replace").replace("\r", "")


def standalone(policies, words):
    """The guest's and the hypervisor's last words."""
    choice = ",".join("%s=%s" % p for p in policies.items())
    command = QEMU + ["-kernel", BUILD + "/metronome.elf", "-append", "exit=0xf4 mem=64 ticks=" + choice,
                      "-initrd", "%s/guest/missed.elf seconds=%d %s" % (BUILD, SECONDS, words)]
    return output_of(command)


def as_users_run_it(*arguments):
    """The same in real time, with what `metronome run` shows at the end."""
    with tempfile.TemporaryDirectory(prefix="metronome-test.") as folder:
        with open(folder + "/guest.cfg", "w") as f:
            f.write('memory = 32\ntimer_mode = "one_missed_tick_pending"\nticks = [ "hpet=burst", "lapic=default" ]\n')
        return output_of([BUILD + "/metronome", "run", "--module", BUILD + "/guest/missed.elf", "--append", "seconds=2", *arguments,
                          folder + "/guest.cfg"], METRONOME_RUNTIME_DIR=folder + "/runtime")


def ledger_of(output, source):
    m = re.search(r"^ *%s +(\S+)((?: +\d+){6})$" % SOURCES[source], output, re.M)
    return (m.group(1), dict(zip(WORDS, map(int, m.group(2).split())))) if m else (None, None)


def where_the_missed_went(policy, n, shots):
    """What is wrong with that, or None. A one-shot that is missed is dropped under every policy: such a timer owes nothing."""
    least, most = shots
    if n["owed"] or n["pending"]:
        return "something is left"
    if policy != "drop" and not least <= n["dropped"] <= most:
        return "%d were dropped" % n["dropped"]
    if policy != "one-pending" and n["collapsed"]:
        return "%d were collapsed" % n["collapsed"]
    return None


def judge(output, policies, source, exact):
    account = re.search(r"^account %s: took (\d+), due (\d+) to (\d+)$" % source, output, re.M)
    policy, n = ledger_of(output, source)
    if not account or not n:
        return "no account, or no ledger", n
    took, least, most = map(int, account.groups())
    if policy != policies[source]:
        return "the policy is " + policy, n
    if n["due"] != sum(n[w] for w in WORDS[1:]):
        return "it does not add up", n
    if n["delivered"] != took:
        return "the guest took %d" % took, n
    if exact and not least <= n["due"] <= most:
        return "%d to %d should have come due" % (least, most), n
    if policy in ("drop", "one-pending") and n["due"] == n["delivered"]:
        return "none was missed", n
    if not exact and n["due"] > 3 * MOST_OWED:
        return None, n  # a host so busy that the guest was away for longer than ticks are owed
    shots = re.search(r"^one-shots missed: (\d+) to (\d+)$", output, re.M)
    return where_the_missed_went(policy, n, map(int, shots.groups()) if source == "lapic" else (0, 0)), n


def check(name, output, policies, exact=True):
    print("# " + name)
    print(output)
    if not re.search(r"^guest: \d+ passed, 0 failed$", output, re.M):
        print("not ok %s: the guest does not come to its end" % name)
    for source in SOURCES:
        why, n = judge(output, policies, source, exact)
        text = ", ".join("%s %d" % item for item in n.items() if item[1]) if n else "nothing"
        print("not ok %s, %s: %s (%s)" % (name, source, why, text) if why else "ok %s, %s: %s" % (name, source, text))


def check_storm(output):
    """256 come again at once (VIOAPIC_STORM_RUN); from then on each is held off, the last one perhaps for good."""
    came = re.search(r"^storm: (\d+) interrupts$", output, re.M)
    held_off = re.search(r"storm on I/O APIC pin 4\D+(\d+)", output)
    ok = came and held_off and int(held_off.group(1)) - (int(came.group(1)) - 257) in (0, 1) and int(came.group(1)) > 260
    print("%s a storm is shown: %s" % ("ok" if ok else "not ok", [m and m.group(0) for m in (came, held_off)]))


for policy in ("drop", "one-pending", "burst", "catch-up"):
    same = dict.fromkeys(SOURCES, policy)
    check(policy, standalone(same, ""), same)
    check(policy + ", through the PICs", standalone(same, "pic"), same)
mixed = {"pit": "catch-up", "rtc": "one-pending", "hpet": "burst", "lapic": "drop"}
output = standalone(mixed, "storm")
check("one of each", output, mixed)
check_storm(output)
mixed = {"pit": "drop", "rtc": "one-pending", "hpet": "burst", "lapic": "burst"}
check("metronome run", as_users_run_it("--ticks", "pit=drop"), mixed, exact=False)
