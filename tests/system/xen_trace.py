"""
What tests of the trace share: its records, and what xenalyze makes of them.
"""
import re
import struct
import subprocess

RUNSTATE, VMENTRY, VMEXIT, VMEXIT64, CPUID, INJ_VIRQ = 0x21001, 0x81001, 0x81002, 0x81102, 0x8200e, 0x82004
CPU_CHANGE, LOST, TICKS, REQUEST, ANSWER, CLOCK = 0x1f003, 0x1f001, 0x80f004, 0x80f005, 0x80f006, 0x80f009
IDLE_DOMAIN = 0x7fff
# Of each kind of timer: its start, at which of whose words the ns until it is due begin, how many those are; its stop; its source of TICKS.
TIMERS = {"PIT": (0x84002, 0, 1, 0x84006, 0), "RTC": (0x84003, 0, 1, 0x84007, 1), "HPET": (0x84001, 2, 2, 0x84005, 2),
          "LAPIC": (0x84004, 0, 2, 0x84008, 3)}
# What xenalyze says of every trace, and of what Xen does likewise: it does not know devices' events (0x84xxx), nor expects them where
# no vCPU runs; interrupt windows have no record of what was done; and one that comes after the vCPU has been blocked, as that of a
# device model's answer to a read, is not taken for its exit's.
REMARKS = (r"Using SVM|Creating (vcpu|domain)|^(init_pcpus|scan_for_new_pcpu|read_record|deactivate_pcpu): |Unknown hvm event|"
           r"First schedule for|^(WARNING: Unexpected record for idle domain!|WARNING: p->current null!) +Not processing$|\] +840..\(8:4:|"
           r"hvm_generic_postprocess: (Strange, exit \w+\(VMEXIT_(VINTR|WBINVD|IOIO|NPF)\) missing a handler|HVM evt 0 in)")

# Which of xenalyze's exits are which of the closing table's; one that ends the run has no entry behind it, and is not shown.
EXITS = [(("VMEXIT_INTR",), ("host interrupt",)), (("VMEXIT_HLT",), ("HLT",)),
         (("VMEXIT_VINTR", "VMEXIT_EXCEPTION_DB"), ("interrupt window", "exception")), (("VMEXIT_CPUID",), ("CPUID",)),
         (("VMEXIT_MSR",), ("MSR", "MSR, x2APIC")), (("VMEXIT_CR4_WRITE", "VMEXIT_CR8_WRITE"), ("control register",)),
         (("VMEXIT_NPF",), ("MMIO, local APIC", "MMIO, I/O APIC", "MMIO, HPET", "MMIO, device model", "nested page fault, other")),
         (("VMEXIT_IOIO",), ("port, in-hypervisor device", "port, device model"))]


def records(data):
    """(pCPU, event, TSC or None, words) of each record; each window is as long as it says."""
    at, cpu, until = 0, None, 0
    while at < len(data):
        first, = struct.unpack_from("<I", data, at)
        n = first >> 28 & 7
        tsc = struct.unpack_from("<Q", data, at + 4)[0] if first >> 31 else None
        at += 4 + (8 if first >> 31 else 0)
        words = struct.unpack_from("<%dI" % n, data, at)
        at += 4 * n
        if first & 0xfffffff == CPU_CHANGE:
            if at - 12 != until:
                raise ValueError("a window that ends at %d is followed by one at %d" % (until, at - 12))
            cpu, until = words[0], at + words[1]
        else:
            yield cpu, first & 0xfffffff, tsc, words
    if at != until:
        raise ValueError("the last window ends at %d, the file at %d" % (until, at))


def counted(table, title):
    """{name: number} of a part of the closing table."""
    part = re.search(r"^  %s +\d+\b.*\n((?:    .*\n)*)" % title, table, re.M)
    return {m[0]: int(m[1]) for m in re.findall(r"^    (.*?)  +(\d+)", part.group(1) if part else "", re.M)}


class Summary:
    """What `xenalyze --summary` says of a file."""

    def __init__(self, path, tsc_hz):
        p = subprocess.run(["xenalyze", "--svm-mode", "--cpu-hz=%d" % tsc_hz, "--summary", path], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=300)
        self.status, self.text = p.returncode, p.stdout.decode()
        self.complaints = sorted({line for line in p.stderr.decode().split("\n") if line and not re.search(REMARKS, line)})

    def exits(self):
        """{its name of an exit reason: how many}, of all vCPUs."""
        found = {}
        for name, n in re.findall(r"^ (VMEXIT_\w+) +(\d+) ", self.text, re.M):
            found[name] = found.get(name, 0) + int(n)
        return found

    def interrupts(self):
        return sum(int(n) for n in re.findall(r"^  \[ *\d+\] (\d+)$", self.text, re.M))

    def against(self, table, vcpus=1):
        """(what, its number, ours, whether they agree): exits by reason and interrupts, against a closing table. One vCPU's last
        exit is that of a port; the others' may be of any reason."""
        shown, ours, injected = self.exits(), counted(table, "exits"), counted(table, "interrupts injected")
        for theirs, names in EXITS:
            n, m = sum(shown.get(t, 0) for t in theirs), sum(ours.get(x, 0) for x in names)
            if n or m:
                yield theirs[0], n, m, m - 2 <= n <= m + 2 if theirs == ("VMEXIT_IOIO",) else 0 <= m - n < vcpus
        m = sum(n for what, n in injected.items() if what not in ("exception", "NMI"))
        yield "interrupts", self.interrupts(), m, self.interrupts() == m
