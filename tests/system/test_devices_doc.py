#!/usr/bin/env python3
"""docs/devices.md and the models' headers name code and tests: all of it exists, and no test of an advisory is missing."""
# run: check
import glob
import os
import re

MODELS = ["vpic", "vioapic", "vlapic", "vpit", "hpet", "rtc", "pmtimer"]
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))


def text(path):
    with open(path) as f:
        return f.read()


def sources():
    """File name to text, of what the page may name; two files of one name are one."""
    found = {}
    for pattern in ("arch/x86/hvm/*.[ch]", "arch/x86/hvm/*/*.[ch]", "common/*.c"):
        for path in glob.glob(pattern):
            name = os.path.basename(path)
            found[name] = found.get(name, "") + text(path)
    return found


def defines(source, name):
    """A function's definition: it begins a line with its type, and its name is followed by its parameters."""
    return re.search(r"^[a-z][\w *]*\b%s\s*\(" % name, source, re.M) is not None


def in_suite(source, name):
    """A test that its program runs."""
    return len(re.findall(r"\b%s\b" % name, source)) >= 2


def unpinned(tests):
    """Differences in the models' headers that name no test, and tests named there that no program runs."""
    everything, bad = "".join(tests.values()), []
    for model in MODELS:
        block = re.search(r"^ \* Difference(.*?)^ \* Documentation", text("arch/x86/hvm/%s/%s.h" % (model, model)), re.M | re.S)
        for item in re.split(r"^ \*?\s*- ", block.group(1), flags=re.M)[1:]:
            names = re.findall(r"\b(test_\w+\*?)", item) or re.findall(r"\[([a-z]\w+)\]", item)
            bad += [model + ": " + " ".join(item.split())[:40]] if not names else []
            bad += [n for n in names if not n.endswith("*") and not in_suite(everything, n)]
    return bad


def result(why, name):
    print("not ok %s: %s" % (name, why) if why else "ok %s" % name)


def main():
    page, code = text("docs/devices.md"), sources()
    tests = {os.path.basename(p)[5:-2]: text(p) for p in glob.glob("tests/unit/test_*.c")}
    named = set(re.findall(r"`([\w.]+):(\w+)`", page))
    missing = []
    for where, name in sorted(named):
        known = code if where.endswith((".c", ".h")) else tests
        there = where in known and (defines if known is code else in_suite)(known[where], name)
        if not there:
            missing.append("%s:%s" % (where, name))
    result(", ".join(missing), "docs/devices.md: %d functions and tests are there" % len(named))
    unnamed = [t for p in ("advisories", "advisories_core") for t in re.findall(r"cmocka_unit_test\((\w+)\)", tests[p])
               if t not in page]
    result(", ".join(unnamed), "docs/devices.md: every advisory's test is named")
    result(", ".join(unpinned(tests)), "headers: every difference has its test")
    paths = [p for p in re.findall(r"`((?:tests|docs|arch)/[\w/.]+)`", page) if not os.path.exists(p)]
    result(", ".join(paths), "docs/devices.md: files are there")


main()
