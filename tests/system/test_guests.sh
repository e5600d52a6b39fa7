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

# guest NAME "QEMU-ARGUMENTS" END WORD...    its ok and not-ok lines; then whether it ended as it should
guest() {
    local name=$1 arguments=$2 end=$3 output cpus
    shift 3
    [[ " $* " =~ " cpus="([0-9]+) ]] && cpus=${BASH_REMATCH[1]}
    output=$(mktemp)
    # shellcheck disable=SC2086
    timeout 1200 qemu-system-x86_64 -accel tcg,thread=single -cpu max -m 512 -nodefaults -display none -no-reboot -serial stdio \
        -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$build/metronome.elf" $arguments \
        -initrd "$build/guest/$name.elf $*" -append "exit=0xf4 vcpus=${cpus:-${vcpus[$name]:-1}}" </dev/null 2>&1 | tr -d '\r' >"$output"
    echo "# $name $*"
    cat "$output"
    [ "$name" != spans ] || spans_within "$span_most" "$output"
    if grep -qaE "$end" "$output"; then
        echo "ok $name $*: to its end"
    else
        echo "not ok $name $*: to its end: $(grep -aE '^(panic|domain|guest:)' "$output" | head -1)"
    fi
    rm -f "$output"
}

# The longest span with interrupts off of any exit or of the loop, in instructions: a count that repeats.
spans_within() {
    awk -v most="$1" '/longest off/ {on = 1; next} /^[^ ]/ {on = 0} on && $NF > most {bad = bad "; " $0}
        on {n++} END {print n && !bad ? "ok spans: none is longer than " most : "not ok spans: longer than " most bad}' "$2"
}

declare -A vcpus=([share]=2 [apicbase]=2 [fair]=8 [spans]=8)
done='^guest: [0-9]+ passed, 0 failed$'
span_most=1000
triple='^domain 0 \(module\): triple fault of vCPU 0'
# name      ; lengths         ; QEMU arguments ; words ; line at the end
guests="
devices     ; check test long ; $exact         ; strict          ; $done
devices     ; test long       ;                ;                 ; $done
ticks       ; check           ; $exact         ; strict seconds=2 ; $done
ticks       ; test long       ; $exact         ; strict          ; $done
ticks       ; long            ;                ;                 ; $done
clocks      ; check test      ; $exact         ; strict          ; $done
clocks      ; long            ; $exact         ; strict seconds=500 ; $done
jitter      ; long            ; $exact         ; samples=4000    ; $done
spans       ; check test long ; $exact         ;                 ; $done
emulate     ; check           ;                ; shapes=2        ; $done
emulate     ; test            ;                ; shapes=30       ; $done
emulate     ; long            ;                ; shapes=1000     ; $done
cpuid       ; check test long ;                ;                 ; $done
exceptions  ; check test long ;                ;                 ; $done
share       ; check test long ;                ;                 ; $done
fair        ; check           ; $exact         ; strict cpus=8 ms=200 ; $done
fair        ; test long       ; $exact         ; strict cpus=8   ; $done
fair        ; test long       ; -smp 2         ; cpus=8 on=2 slack=80 ms=2000 ; $done
apicbase    ; check test long ;                ;                 ; $done
apicbase    ; test long       ; -smp 2         ;                 ; $done
smp         ; check           ; -smp 2         ; cpus=8 hops=50  ; $done
smp         ; test long       ; $exact         ; cpus=64         ; $done
smp         ; test long       ;                ; cpus=4 dozes=10000 ; $done
smp         ; test            ; -smp 2         ; cpus=64 hops=50 ; $done
smp         ; long            ; -smp 2         ; cpus=64 hops=5000 ; $done
smp         ; long            ; -smp 4         ; cpus=64 hops=5000 ; $done
post        ; check           ; -smp 2         ; cpus=3 count=1200 ; $done
post        ; test            ; -smp 1         ; cpus=2 count=6000 ; $done
post        ; test            ; -smp 2         ; cpus=4 count=12000 ; $done
post        ; test            ; -smp 4         ; cpus=8 count=12000 ; $done
post        ; long            ; -smp 1         ; cpus=2 count=600000 ; $done
post        ; long            ; -smp 2         ; cpus=2 count=1200000 ; $done
post        ; long            ; -smp 2         ; cpus=8 count=600000 ; $done
post        ; long            ; -smp 4         ; cpus=4 count=600000 ; $done
hostile     ; check test      ;                ;                 ; $done
hostile     ; long            ;                ; rounds=1000000  ; $done
resets      ; check test long ; $exact         ; times=20        ; ^20 resets$
triplefault ; check test long ;                ;                 ; $triple
triplefault ; check test long ;                ; mmio            ; $triple
"

while IFS=';' read -r name lengths arguments words end; do
    name=${name// /}
    [ -n "$name" ] || continue
    [[ " $lengths " == *" $tests "* ]] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    # shellcheck disable=SC2086
    guest "$name" "$arguments" "${end# }" $words
done <<<"$guests"
