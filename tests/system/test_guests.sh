#!/bin/bash
# The bare-metal guests (tests/guest) on Metronome, standalone: the hypervisor boots them as a module. With exact time
# (icount: one instruction is one TSC tick, so late is wrong as well as early) and with real time.
# usage: test_guests.sh [NAME...]
# limit: 600
# run: check
cd "$(dirname "$0")/../.." || exit 2
build=${B:-build}
tests=${METRONOME_TESTS:-test}
exact="-icount shift=0,sleep=off"

# guest NAME "QEMU-ARGUMENTS" WORD...    its ok and not-ok lines; then whether the machine ended as it said
guest() {
    local name=$1 arguments=$2 output
    shift 2
    output=$(mktemp)
    # shellcheck disable=SC2086
    timeout 300 qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -display none -no-reboot -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$build/metronome.elf" $arguments \
        -initrd "$build/guest/$name.elf $*" -append "exit=0xf4" </dev/null 2>&1 | tr -d '\r' >"$output"
    echo "# $name $*"
    cat "$output"
    if grep -q '^guest: [0-9]* passed, 0 failed$' "$output"; then
        echo "ok $name: to its end"
    elif ! grep -q '^not ok ' "$output"; then
        echo "not ok $name: to its end: $(grep -aE '^(panic|domain)' "$output" | head -1)"
    fi
    rm -f "$output"
}

# name | lengths | QEMU arguments | words
guests="
devices     | check test long | $exact | strict
devices     | test long       |        |
"

while IFS='|' read -r name lengths arguments words; do
    name=${name// /}
    [ -n "$name" ] || continue
    [[ " $lengths " == *" $tests "* ]] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    # shellcheck disable=SC2086
    guest "$name" "$arguments" $words
done <<<"$guests"
